"""GTC against its equations in double precision, and what its settings, missing content and draws must not change."""

import itertools
import math

import naive
import numpy as np
import pytest
import torch
from helpers import problems_of
from naive import dot, plus, rows_of, unit
from toys import BOTH, N_ITEMS, N_USERS, WIDTHS, all_scores, build, on_double, one_batch, total, toy_dataset

from common.features import standardized_features
from common.trainer import loss_terms
from models.gtc import ALIGNED_ROWS, BETA_FIRST, FEATURE_RANK, OWN_SHARE, GTCConfig
from runner.registry import model_class
from utils.config.schema import keys_of
from utils.config.settings import TrainSettings
from utils.config.yaml_files import read_yaml
from utils.paths import CONFIGS

VARIANTS = CONFIGS / "variants"
OWN = set(keys_of(GTCConfig))
PAPER, RELEASED = (
    {key: value for key, value in read_yaml(path, path.name).items() if key in OWN} | {"noise_steps": 20}
    for path in (VARIANTS / "GTC_paper.yaml", VARIANTS / "GTC_released.yaml")
)
SETTINGS = {
    "default": {},
    "paper": PAPER,
    "released": RELEASED,
    "before, with graphs": {"denoising": "items", "knn_k": 3, "user_k": 2, "fusion": "product", "critic": "product"},
    "no denoising, pairwise": {
        "denoising": "off",
        "alignment": "pairwise",
        "edge_masking": False,
        "content": "projected",
    },
    "no alignment, ancestral": {"alignment": "off", "generation_steps": 0, "prediction": "noise"},
}
every_setting = pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)


def trained_a_little(model):
    """The model with parameters away from their start, where many are zeros."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def with_missing(data, junk=0.0):
    """The data with the first quarter of the items without visual content and the next without any."""
    for place, modality in enumerate(BOTH):
        if modality in data.features:
            there = np.arange(N_ITEMS) >= (2 - place) * N_ITEMS // 4
            data.present[modality] = there
            data.features[modality] = np.where(there[:, None], data.features[modality], np.float32(junk))
    return data


def spread(row):
    """The row brought to unit mean square, and what it was divided by."""
    size = math.sqrt(max(sum(x * x for x in row) / len(row), 1e-16))
    return [x / size for x in row], size


class Reference:
    """The text's model over lists of floats, from the parameters and options of a model in double precision."""

    def __init__(self, model, data, masked=()):
        self.model, self.options, self.modalities = model, model.options, list(data.features)
        options = self.options
        pairs = [p for p in zip(data.train.users.tolist(), data.train.items.tolist(), strict=True) if p not in masked]
        a = naive.dense_normalized(naive.dense_adjacency(*zip(*pairs, strict=True), N_USERS, N_ITEMS))
        users, items = rows_of(model.user_embedding), rows_of(model.item_embedding)
        self.interaction = naive.mean_of_layers(a, users + items, options.n_ui_layers)
        beta = np.linspace(BETA_FIRST, options.beta_last, options.noise_steps)
        self.alpha_bar = [1.0, *np.cumprod(1 - beta).tolist()]
        self.content = {}
        for modality in self.modalities:
            features = standardized_features(data, modality, FEATURE_RANK).double().tolist()
            rows = [naive.affine(row, model.projections[modality]) for row in features]
            if options.content == "gated":
                rows = [naive.times(own, map(naive.sigmoid, row)) for own, row in zip(items, rows, strict=True)]
            if options.knn_k:
                graph = model.item_graphs[modality](torch.eye(N_ITEMS, dtype=torch.float64)).numpy()
                rows = (OWN_SHARE * np.array(rows) + (1 - OWN_SHARE) * (graph @ np.array(rows))).tolist()
            if options.content == "gated":
                sums = (np.array(a)[:N_USERS, N_USERS:] @ np.array(rows)).tolist()
                self.content[modality] = [*sums, *map(list, rows)]
            else:
                self.content[modality] = naive.mean_of_layers(a, users + rows, options.n_ui_layers)

    def predicted(self, modality, x, t, node):
        """The estimates of x_0 and of the noise in x at time t."""
        condition, _ = spread(self.interaction[node])
        as_rows = [torch.tensor([row], dtype=torch.float64) for row in (x, condition)]
        with torch.no_grad():
            out = self.model.denoisers[modality].network(as_rows[0], torch.tensor([t]), as_rows[1])[0].tolist()
        signal, noise = math.sqrt(self.alpha_bar[t]), math.sqrt(1 - self.alpha_bar[t])
        if self.options.prediction == "noise":
            return [(own - noise * e) / signal for own, e in zip(x, out, strict=True)], out
        start = plus(x, out)
        return start, [(own - signal * s) / noise for own, s in zip(x, start, strict=True)]

    def generated(self, modality, node):
        """DDIM from the observed row, in `generation_steps` steps."""
        x, size = spread(self.content[modality][node])
        last, steps = self.options.noise_steps, self.options.generation_steps
        times = sorted({round(last * step / steps) for step in range(steps + 1)}, reverse=True)
        for t, earlier in itertools.pairwise(times):
            start, noise = self.predicted(modality, x, t, node)
            a = self.alpha_bar[earlier]
            x = [math.sqrt(a) * s + math.sqrt(1 - a) * e for s, e in zip(start, noise, strict=True)]
        return [size * value for value in x]

    def noisy_estimates(self, nodes):
        """In training: the estimates of the nodes' content, and the loss, with draws in the source's order."""
        found, loss = {}, 0.0
        for modality in self.modalities:
            times = torch.randint(1, self.options.noise_steps + 1, (len(nodes),)).tolist()
            noises = torch.randn(len(nodes), self.model.embedding_size).double().tolist()
            found[modality], errors = {}, []
            for node, t, noise in zip(nodes, times, noises, strict=True):
                own, size = spread(self.content[modality][node])
                a = self.alpha_bar[t]
                x = [math.sqrt(a) * s + math.sqrt(1 - a) * e for s, e in zip(own, noise, strict=True)]
                start, predicted = self.predicted(modality, x, t, node)
                pair = (start, own) if self.options.prediction == "start" else (predicted, noise)
                errors.append(sum((p - q) ** 2 for p, q in zip(*pair, strict=True)) / len(own))
                found[modality][node] = [size * value for value in start]
            loss += sum(errors) / len(errors)
        return found, loss

    def fused(self, node, content):
        h = self.interaction[node]
        temperature = math.exp(self.model.log_fusion_temperature.item())
        parts = [content[modality] for modality in self.modalities]
        if self.options.fusion == "product":
            product = unit(naive.times(*map(unit, parts)))
            parts = [[math.sqrt(dot(h, h)) * x for x in product]]
        z = h
        for part in parts:
            gate = naive.sigmoid(dot(unit(h), unit(part)) / temperature)
            z = plus(z, [gate * x / len(parts) for x in part])
        return z

    def aligned(self, rows, scale):
        """The alignment of lists of rows, one list a view."""
        if self.options.alignment == "pairwise":
            pairs = [*itertools.combinations(rows, 2)]
            return sum(naive.info_nce(a, b, scale) for a, b in pairs) / len(pairs)
        if self.options.critic == "product" or len(rows) == 2:
            return naive.total_correlation(rows, scale)
        order = torch.randperm(len(rows)).tolist()
        units = [[unit(row) for row in rows[place]] for place in order]
        seen, loss = units[0], 0.0
        for number, view in enumerate(units[1:]):
            known = seen
            if number:
                with torch.no_grad():
                    known = [plus(row, self.model.joint(torch.tensor(row).double()).tolist()) for row in seen]
            loss += naive.info_nce(known, view, scale)
            seen = [plus(a, b) for a, b in zip(seen, view, strict=True)]
        return loss / (len(rows) - 1)

    def loss(self, batch):
        options = self.options
        triples = [(u, N_USERS + i, N_USERS + j) for u, i, j in batch.T.tolist()]
        nodes = sorted({node for triple in triples for node in triple})
        content, terms = {m: dict(enumerate(rows)) for m, rows in self.content.items()}, {}
        if options.denoising == "nodes":
            content, generation = self.noisy_estimates(nodes)
            terms["generation"] = options.diff_weight * generation
        z = {node: self.fused(node, {m: rows[node] for m, rows in content.items()}) for node in nodes}
        scores = [[dot(z[u], z[other]) for u, *others in triples for other in others[k : k + 1]] for k in (0, 1)]
        terms["bpr"] = naive.bpr(*scores)
        if options.alignment != "off":
            scale, losses = math.exp(self.model.log_scale.item()), []
            for kind in (0, 1):
                rows = sorted({triple[kind] for triple in triples})
                rows = [rows[place] for place in torch.randperm(len(rows)).tolist()[:ALIGNED_ROWS]]
                views = [[self.interaction[n] for n in rows], *([own[n] for n in rows] for own in content.values())]
                losses.append(self.aligned(views, scale))
            lengths = [dot(self.interaction[n], self.interaction[n]) for n in nodes]
            weight = options.tc_weight * (sum(lengths) / len(lengths) if options.critic == "chain" else 1)
            terms["alignment"] = weight * sum(losses) / 2
        return terms

    def scores(self):
        generated = self.options.denoising == "nodes"
        z = [
            self.fused(n, {m: self.generated(m, n) if generated else self.content[m][n] for m in self.modalities})
            for n in range(N_USERS + N_ITEMS)
        ]
        return [[dot(user, item) for item in z[N_USERS:]] for user in z[:N_USERS]]


def values(terms):
    return {name: term.item() for name, term in loss_terms(terms).items()}


def penalty(model, batch, data):
    """Half the squares of the batch's rows, over its length, and of all users, each divided by its interactions."""
    counts = [max(data.train.users.tolist().count(user), 1) for user in range(N_USERS)]
    users, items = rows_of(model.user_embedding), rows_of(model.item_embedding)
    tables = [[users[u] for u in batch[0].tolist()], *([items[i] for i in ids.tolist()] for ids in batch[1:])]
    of_batch = model.options.reg_weight * naive.half_squared_l2_over_batch(*tables)
    of_users = sum(dot(row, row) / n**2 for row, n in zip(users, counts, strict=True)) / 2
    return of_batch + model.options.user_reg_weight * of_users


def double_model(data, **options):
    return on_double(trained_a_little(build("GTC", data, **options)))


@pytest.mark.parametrize("modalities", [BOTH, ("visual",), tuple(WIDTHS)], ids="+".join)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"edge_masking": False, "content": "projected", "knn_k": 0, "prediction": "noise", "critic": "product",
         "fusion": "product"},
        {"alignment": "pairwise", "generation_steps": 2, "n_ui_layers": 1},
        {"denoising": "off", "fusion": "product", "content": "gated", "knn_k": 2},
        {"alignment": "off"},
    ],
    ids=["default", "text", "pairwise", "no denoising", "no alignment"],
)  # fmt: skip
def test_loss_and_scores_are_those_of_the_equations(modalities, options):
    data = toy_dataset(modalities)
    model, batch = double_model(data, **options), one_batch(data, 12)
    masked = set(map(tuple, batch[:2].T.tolist())) if model.options.edge_masking else ()
    torch.manual_seed(3)
    found = values(model.train().calculate_loss(batch))
    reg = found.pop("reg")
    torch.manual_seed(3)
    assert found == pytest.approx(Reference(model, data, masked).loss(batch), rel=1e-4)
    assert reg == pytest.approx(penalty(model, batch, data), rel=1e-6)
    expected = torch.tensor(Reference(model, data).scores(), dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), expected, rtol=1e-3, atol=1e-4 * expected.std().item())


def test_released_code_step_by_step():
    data = toy_dataset()
    model, batch = double_model(data, **RELEASED), one_batch(data, 12)
    options, width = model.options, model.embedding_size
    torch.manual_seed(3)
    terms = model.train().calculate_loss(batch)
    assert set(terms) == {"bpr", "generation", "alignment", "reg"}
    model.eval()
    items = model.item_embedding
    content = {
        m: model.projections[m](standardized_features(data, m, FEATURE_RANK).double()) for m in model.modalities
    }  # fmt: skip
    content = {m: model.denoisers[m].generate(x, items, options.generation_steps) for m, x in content.items()}
    views = [items, *content.values()]
    pairs = torch.tensor(
        [[dot(rows[a], rows[b]) for a, b in itertools.combinations(range(3), 2)]
         for rows in zip(*map(rows_of, views), strict=True)], dtype=torch.float64,
    )  # fmt: skip
    weights = pairs.exp() / pairs.exp().sum(dim=1, keepdim=True)
    refined = items + sum(weights[:, [k]] * view for k, view in enumerate(views))
    a = torch.from_numpy(
        naive.dense_normalized(naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS))
    )
    tables = [model.user_embedding, *model.preferences.values()]
    users, final = [], []
    for k, (table, x) in enumerate(zip(tables, [refined, *content.values()], strict=True)):
        rows = torch.nn.functional.normalize(torch.cat([table, x]), dim=1)
        rows = rows + a @ rows + a @ a @ rows
        users.append(rows[:N_USERS] * model.view_weights[:, [k]])
        final.append(rows[N_USERS:])
    user, item = torch.cat(users, dim=1), torch.cat(final, dim=1)
    assert user.shape == (N_USERS, 3 * width)
    item = item + model.item_graph(torch.eye(N_ITEMS, dtype=torch.float64)) @ item
    lists = naive.co_user_lists(data.train.users, data.train.items, N_USERS, options.user_k)
    user = user + torch.tensor(naive.co_user_weights(lists, options.user_k, None), dtype=torch.float64) @ user
    torch.testing.assert_close(all_scores(model), user @ item.T, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("modalities", [("visual",), tuple(WIDTHS)], ids="+".join)
def test_released_code_takes_any_number_of_modalities(modalities):
    data = toy_dataset(modalities)
    model = trained_a_little(build("GTC", data, **RELEASED))
    assert torch.isfinite(total(model.train().calculate_loss(one_batch(data))))
    assert torch.isfinite(all_scores(model)).all()


@every_setting
def test_every_setting_trains_all_its_parameters_and_scores_repeatably(options):
    data = toy_dataset()
    model, batch = trained_a_little(build("GTC", data, **options)), one_batch(data)
    total(model.train().calculate_loss(batch)).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    scores = all_scores(model)
    torch.rand(7)
    assert torch.equal(all_scores(model), scores)
    assert torch.isfinite(scores).all()


@every_setting
def test_content_of_items_that_lack_it_has_no_influence(options):
    found = []
    for junk, moved in ((0, False), (1, False), (0, True)):
        data = with_missing(toy_dataset(), junk)
        data.features["visual"][data.present["visual"].argmax()] += moved
        model = build("GTC", data, **options)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        torch.manual_seed(0)
        total(model.train().calculate_loss(one_batch(data, 60))).backward()
        optimizer.step()
        found.append(all_scores(model))
    assert torch.isfinite(found[0]).all()
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


def test_rows_without_a_modality_have_no_part_in_denoising_and_alignment():
    data = toy_dataset()
    data.present = {m: np.zeros(N_ITEMS, dtype=bool) for m in BOTH}
    found = values(build("GTC", data).train().calculate_loss(one_batch(data)))
    assert (found["generation"], found["alignment"]) == (0, 0)


def test_the_random_draws_of_training_come_from_the_seeded_stream():
    data = toy_dataset()
    model = build("GTC", data).train()
    batch, losses = one_batch(data), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(values(model.calculate_loss(batch)))
    assert losses[0] == losses[1]
    assert losses[0]["generation"] != losses[2]["generation"]


def test_training_lowers_the_denoising_loss_below_half_of_no_prediction():
    data = toy_dataset()
    model = build("GTC", data, **PAPER | {"noise_steps": 200, "beta_last": 0.05})
    optimizer = torch.optim.Adam(model.denoisers.parameters(), lr=0.01)
    batch, losses = one_batch(data), []
    for _ in range(150):
        loss = model.train().calculate_loss(batch)["generation"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    nothing = len(BOTH) * PAPER["diff_weight"]  # the mean square of unit noise, which predicting zero leaves
    assert np.mean(losses[-20:]) < 0.5 * nothing < np.mean(losses[:3])


def test_the_condition_is_that_of_the_node():
    data = toy_dataset()
    model = trained_a_little(build("GTC", data)).eval()
    rows, condition = torch.randn(6, 8), torch.randn(6, 8)
    for denoiser in model.denoisers.values():
        one = denoiser.generate(rows, condition, 5)
        other = denoiser.generate(rows, condition.roll(1, dims=0), 5)
        assert not torch.allclose(one, other, rtol=1e-3)


def test_modality_embeddings_are_those_that_are_fused():
    data = toy_dataset()
    model = trained_a_little(build("GTC", data))
    with model.scoring():
        parts = {name: torch.cat(pair) for name, pair in model.modality_embeddings().items()}
        users, items = model()
    assert set(parts) == {"id", *BOTH}
    interaction = parts.pop("id")
    torch.testing.assert_close(model.fuse(interaction, parts), torch.cat([users, items]))


def test_variants_know_their_keys():
    known = OWN | {*keys_of(TrainSettings)}
    for path in VARIANTS.glob("*.yaml"):
        assert set(read_yaml(path, path.name)) <= known, path.name
    assert model_class("GTC").needs_features


def test_the_released_code_denoises_no_nodes():
    lines = problems_of(lambda: build("GTC", toy_dataset(), **RELEASED | {"denoising": "nodes"}))
    assert lines == ["GTC: backbone released denoises items before propagation; use denoising items or off"]
