"""GTC's loss and scores from its specification, with its random draws replayed, and its ablations.

`Reference` is the specification in plain Python; only the noise predictor is the model's own (it has tests of its own
in common/test_diffusion.py). What the paper leaves open, and the model may come to do otherwise, is in `Reference.fused`.
"""

import itertools
import math
from functools import partial
from pathlib import Path

import naive
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import problems_of
from naive import dot, rows_of, sigmoid, unit
from toys import (
    BOTH,
    N_ITEMS,
    N_USERS,
    WIDTHS,
    all_scores,
    build,
    on_double,
    one_batch,
    total,
    toy_dataset,
    uneven,
)

from models.gtc import expanded
from runner.registry import model_class
from utils.config.schema import keys_of
from utils.config.settings import TrainSettings
from utils.config.yaml_files import read_yaml

WEIGHTS = {"diff_weight": 0.7, "tc_weight": 0.4, "reg_weight": 0.3}
# The text's choices, as configs/variants/GTC_paper.yaml has them, at sizes of a toy.
PAPER = {
    "content": "projected", "denoising": "after", "generated_in": "all", "fusion": "gate", "learn_temperature": True,
    "alignment": "total_correlation", "aligned_views": "modalities", "tc_nodes": "items", "tc_batch": 512,
    "tc_scaled": False, "spectral_scale": 0.0, "user_embedding": True, "leave_out": False,
    "content_share": 0.0,
}  # fmt: skip
PATHS = ("one_step", "ddim", "ddpm")


class Reference:
    """The formulas of GTC over lists of floats, from the parameters and options of a model in double precision."""

    def __init__(self, model, data):
        self.model, self.options, self.modalities = model, model.options, list(data.features)
        parameters = dict(model.named_parameters())
        self.ego_users, self.ego_items = (rows_of(parameters[f"{kind}_embedding"]) for kind in ("user", "item"))
        self.scale = math.exp(parameters["log_scale"].item())
        self.temperature = math.exp(parameters["log_fusion_temperature"].item())
        self.gate_bias = parameters["gate_bias"].item()
        beta = np.linspace(self.options.beta_first, self.options.beta_last, self.options.noise_steps)
        self.beta = [0.0, *beta.tolist()]
        self.alpha_bar = [1.0, *np.cumprod(1 - beta).tolist()]
        graph = naive.dense_normalized(naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS))

        def propagated(items):
            return naive.mean_of_layers(graph, self.ego_users + items, self.options.n_ui_layers)

        self.h = {"id": propagated(self.ego_items)}
        self.has = {modality: who_has(data, modality) for modality in self.modalities}
        for modality in self.modalities:
            weight, bias = (parameters[f"projections.{modality}.{part}"].tolist() for part in ("weight", "bias"))
            has = self.has[modality]
            items = [
                [dot(w, row) + b for w, b in zip(weight, bias, strict=True)] if there else [0.0] * len(bias)
                for row, there in zip(standardized(data, modality).tolist(), has[N_USERS:], strict=True)
            ]
            rows = propagated(items)
            self.h[modality] = [row if there else [0.0] * len(row) for row, there in zip(rows, has, strict=True)]

    # Diffusion

    def noisy(self, start, t, noise):
        a = self.alpha_bar[t]
        return [math.sqrt(a) * x + math.sqrt(1 - a) * e for x, e in zip(start, noise, strict=True)]

    def cleaned(self, x_t, t, noise):
        a = self.alpha_bar[t]
        return [(x - math.sqrt(1 - a) * e) / math.sqrt(a) for x, e in zip(x_t, noise, strict=True)]

    def predicted(self, modality, x_t, t, node):
        condition = spread(self.h["id"][node])
        as_row = [torch.tensor([row], dtype=torch.float64) for row in (x_t, condition)]
        with torch.no_grad():
            return self.model.denoisers[modality].network(as_row[0], torch.tensor([t]), as_row[1])[0].tolist()

    def generated(self, modality, node):
        """Content of a node at evaluation: one fixed noise for all nodes, and no draw from the run's own stream."""
        options, stream = self.options, torch.Generator().manual_seed(0)
        width = len(self.h["id"][0])
        if not self.has[modality][node]:
            return [0.0] * width

        def draw():
            return torch.randn(1, width, generator=stream)[0].tolist()

        start, t = spread(self.h[modality][node]), max(1, round(options.generation_start * options.noise_steps))
        noise = draw()
        from_pure_noise = t == options.noise_steps and options.generation != "one_step"
        x = noise if from_pure_noise else self.noisy(start, t, noise)
        if options.generation == "one_step":
            return self.cleaned(x, t, self.predicted(modality, x, t, node))
        if options.generation == "ddim":
            times = sorted({round(t * k / options.generation_steps) for k in range(options.generation_steps + 1)})
            for later, earlier in zip(times[:0:-1], times[-2::-1], strict=True):
                eps = self.predicted(modality, x, later, node)
                x = self.noisy(self.cleaned(x, later, eps), earlier, eps)
            return x
        for time in range(t, 0, -1):
            eps, fresh = self.predicted(modality, x, time, node), draw()
            now, before, beta = self.alpha_bar[time], self.alpha_bar[time - 1], self.beta[time]
            sigma = math.sqrt(beta * (1 - before) / (1 - now))
            x = [
                (v - beta / math.sqrt(1 - now) * e) / math.sqrt(1 - beta) + sigma * z
                for v, e, z in zip(x, eps, fresh, strict=True)
            ]
        return x

    # Fusion

    def fused(self, node, content):
        """z = h + sigmoid(cos(h, c) / tau + b) |h| c / |c|, c the element-wise product of the content that there is."""
        h = self.h["id"][node]
        content = [row for m, row in zip(self.modalities, content, strict=True) if self.has[m][node]]
        if not content:
            return h
        c = [math.prod(values) for values in zip(*content, strict=True)]
        gate = sigmoid(dot(unit(h), unit(c)) / self.temperature + self.gate_bias)
        length = math.sqrt(dot(h, h))
        return [a + gate * length * b for a, b in zip(h, unit(c), strict=True)]

    def scores(self):
        nodes = [self.fused(n, [self.generated(m, n) for m in self.modalities]) for n in range(N_USERS + N_ITEMS)]
        return [[dot(user, item) for item in nodes[N_USERS:]] for user in nodes[:N_USERS]]

    # Objective

    def loss(self, batch):
        """The terms of the loss; draws from PyTorch's stream as the model does."""
        options, (users, pos, neg) = self.options, batch.tolist()
        nodes = sorted(set(users)) + [N_USERS + item for item in sorted({*pos, *neg})]
        place = {node: number for number, node in enumerate(nodes)}
        width = len(self.h["id"][0])
        content, generation = [], 0.0
        for modality in self.modalities:
            with_it = [node for node in nodes if self.has[modality][node]]
            times = torch.randint(1, options.noise_steps + 1, (len(with_it),)).tolist()
            noises = torch.randn(len(with_it), width).tolist()
            found = {}
            for node, t, noise in zip(with_it, times, noises, strict=True):
                x_t = self.noisy(spread(self.h[modality][node]), t, noise)
                eps = self.predicted(modality, x_t, t, node)
                found[node] = self.cleaned(x_t, t, eps)
                generation += sum((a - b) ** 2 for a, b in zip(eps, noise, strict=True)) / (len(with_it) * width)
            content.append([found.get(node, [0.0] * width) for node in nodes])
        z = [self.fused(node, [rows[number] for rows in content]) for number, node in enumerate(nodes)]
        views = [[self.h["id"][node] for node in nodes], *content]
        groups = {
            "users": [list(range(len(set(users))))],
            "items": [sorted(place[N_USERS + item] for item in set(pos))],
        }
        groups["both"] = groups["users"] + groups["items"]
        bounds = []
        for group in groups[options.tc_nodes]:
            group = [number for number in group if all(self.has[m][nodes[number]] for m in self.modalities)]
            if len(group) > options.tc_batch:
                group = [group[number] for number in torch.randperm(len(group))[: options.tc_batch].tolist()]
            rows = [[view[number] for number in group] for view in views]
            bounds.append(naive.total_correlation(rows, self.scale))
        length = sum(dot(row, row) for row in views[0]) / len(nodes) if options.tc_scaled else 1
        ego = [self.ego_users[u] for u in users], [self.ego_items[i] for i in pos], [self.ego_items[j] for j in neg]
        return {
            "bpr": naive.bpr(*(
                [dot(z[place[u]], z[place[N_USERS + i]]) for u, i in zip(users, items, strict=True)]
                for items in (pos, neg)
            )),
            "generation": options.diff_weight * generation,
            "alignment": options.tc_weight * length * sum(bounds) / len(bounds),
            "reg": options.reg_weight * naive.half_squared_l2_over_batch(*ego),
        }  # fmt: skip


def who_has(data, *modalities):
    """Which nodes have all of these modalities: items by the data, users that trained on such an item; or all, if all do."""
    items = [all(data.present[m][i] for m in modalities if m in data.present) for i in range(N_ITEMS)]
    if all(items):
        return [True] * (N_USERS + N_ITEMS)
    liked = {int(u) for u, i in zip(data.train.users, data.train.items, strict=True) if items[i]}
    return [user in liked for user in range(N_USERS)] + items


def standardized(data, modality):
    """Features at zero mean and unit mean square over the items that have them, zeros for the others."""
    has = np.array(who_has(data, modality)[N_USERS:])
    x = np.zeros(data.features[modality].shape)
    x[has] = data.features[modality][has]
    x[has] -= x[has].mean(axis=0)
    return x / np.sqrt(np.square(x[has]).mean())


def with_missing(data, seed=0):
    """The data where the items of the first user lack the first modality and others the second; their rows are junk."""
    random = np.random.default_rng(seed)
    of_first_user = data.train.items[data.train.users == 0]
    lacking = (of_first_user, [of_first_user[0], *range(3, N_ITEMS, 5)])
    data.present = {m: ~np.isin(np.arange(N_ITEMS), items) for m, items in zip(data.features, lacking, strict=False)}
    for m, there in data.present.items():
        data.features[m][~there] = 50 * random.standard_normal((int((~there).sum()), WIDTHS[m]))
    return data


def spread(row):
    """The row brought to a mean square of one."""
    mean_square = dot(row, row) / len(row)
    return [value / math.sqrt(mean_square) for value in row]


def paper(data, **options):
    return build("GTC", data, **(PAPER | options))


def double_model(data, **options):
    """A model in float64 whose parameters are not those of the start, where some terms would vanish."""
    model = on_double(paper(data, **(WEIGHTS | options)))
    stream = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=stream, dtype=torch.float64))
    return model


def values(terms):
    return {name: term.item() for name, term in terms.items()}


@pytest.mark.parametrize(("tc_batch", "scaled"), [(100, False), (100, True), (4, False)])
@pytest.mark.parametrize("tc_nodes", ["items", "users", "both"])
@pytest.mark.parametrize("modalities", [BOTH, ("visual",), tuple(WIDTHS)], ids="+".join)
def test_loss_is_that_of_the_specification(modalities, tc_nodes, tc_batch, scaled):
    data = toy_dataset(modalities)
    model = double_model(data, tc_nodes=tc_nodes, tc_batch=tc_batch, tc_scaled=scaled)
    batch = one_batch(data, 10)
    assert len(set(batch[0].tolist())) < 10, "some user stands twice"
    torch.manual_seed(4)
    found = values(model.train().calculate_loss(batch))
    torch.manual_seed(4)
    # The model's schedule, graph and features are float32 at heart.
    assert found == pytest.approx(Reference(model, data).loss(batch), rel=1e-4)


@pytest.mark.parametrize("start", [0.3, 1.0])
@pytest.mark.parametrize("generation", PATHS)
def test_scores_are_those_of_the_specification(generation, start):
    data = toy_dataset()
    model = double_model(data, generation=generation, generation_start=start, generation_steps=4)
    expected = torch.tensor(Reference(model, data).scores(), dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), expected, rtol=1e-3, atol=1e-4 * expected.std().item())


@pytest.mark.parametrize("modalities", [BOTH, ("visual",), tuple(WIDTHS)], ids="+".join)
def test_specification_where_items_lack_a_modality(modalities):
    data = with_missing(toy_dataset(modalities))
    model = double_model(data, tc_nodes="both")
    batch, reference = one_batch(data, 10), Reference(model, data)
    torch.manual_seed(4)
    found = values(model.train().calculate_loss(batch))
    torch.manual_seed(4)
    assert found == pytest.approx(reference.loss(batch), rel=1e-4)
    expected = torch.tensor(reference.scores(), dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), expected, rtol=1e-3, atol=1e-4 * expected.std().item())


def test_all_ways_of_generation_differ_and_repeat_to_the_bit():
    data = toy_dataset()
    model = paper(data)
    scores = {}
    for generation in PATHS:
        for start in (0.3, 1.0):
            other = paper(data, generation=generation, generation_start=start)
            other.load_state_dict(model.state_dict())
            scores[generation, start] = all_scores(other)
            torch.rand(7)
            assert torch.equal(all_scores(other), scores[generation, start])
    found = list(scores.values())
    for number, one in enumerate(found):
        assert torch.isfinite(one).all()
        for other in found[:number]:
            assert not torch.allclose(one, other, rtol=1e-3, atol=0)


@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_any_number_of_ddim_steps_works(steps):
    data = toy_dataset()
    assert torch.isfinite(all_scores(paper(data, generation="ddim", generation_steps=steps))).all()


def test_the_random_draws_of_training_come_from_the_seeded_stream():
    data = toy_dataset()
    model = paper(data).train()
    batch = one_batch(data)
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(values(model.calculate_loss(batch)))
    assert losses[0] == losses[1]
    for name in ("bpr", "generation", "alignment"):
        assert losses[0][name] != losses[2][name], name
    assert losses[0]["reg"] == losses[2]["reg"]


def gradients(model, term, batch):
    torch.manual_seed(0)
    found = torch.autograd.grad(model.calculate_loss(batch)[term], [*model.parameters()], allow_unused=True)
    names = (name for name, _ in model.named_parameters())
    return {name: grad for name, grad in zip(names, found, strict=True) if grad is not None and grad.any()}


def test_each_term_trains_what_it_should():
    data = toy_dataset()
    model, batch = paper(data).train(), one_batch(data)
    trained = {term: set(gradients(model, term, batch)) for term in ("bpr", "generation", "alignment", "reg")}
    tables = {"user_embedding", "item_embedding"}
    denoisers = {name for name, _ in model.named_parameters() if name.startswith("denoisers.")}
    projections = {name for name, _ in model.named_parameters() if name.startswith("projections.")}
    assert len(denoisers) > 20
    assert trained["reg"] == tables
    assert denoisers | projections <= trained["generation"]
    assert denoisers | projections | tables | {"log_scale"} == trained["alignment"]
    assert denoisers | projections | tables <= trained["bpr"]
    assert "log_scale" not in trained["bpr"]
    assert set.union(*trained.values()) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("detach", [True, False])
def test_the_condition_passes_a_gradient_to_the_interaction_embedding_only_if_asked_to(detach):
    data = toy_dataset()
    model, batch = paper(data, detach_condition=detach).train(), one_batch(data)
    # Items enter the content through their features alone, so that only the condition can reach their id embeddings.
    assert ("item_embedding" in gradients(model, "generation", batch)) != detach


@pytest.mark.parametrize(
    ("weight", "term"), [("diff_weight", "generation"), ("tc_weight", "alignment"), ("reg_weight", "reg")]
)
def test_terms_are_proportional_to_their_weights(weight, term):
    data = toy_dataset()
    batch = one_batch(data)
    found = {}
    for value in (0.0, 0.2, 0.6):
        model = paper(data, **{weight: value}).train()
        torch.manual_seed(0)
        found[value] = values(model.calculate_loss(batch))
    assert found[0.0][term] == 0
    assert found[0.6][term] == pytest.approx(3 * found[0.2][term], rel=1e-5)
    assert {k: v for k, v in found[0.2].items() if k != term} == {k: v for k, v in found[0.6].items() if k != term}


def test_temperatures_and_gate_start_where_the_settings_say():
    model = paper(toy_dataset(), temperature=0.2, fusion_temperature=0.5, gate_bias=-1.5)
    assert model.log_scale.exp().item() == pytest.approx(5)
    assert model.log_fusion_temperature.exp().item() == pytest.approx(0.5)
    assert model.gate_bias.item() == -1.5


def test_the_scale_of_the_contrast_is_bounded():
    data = toy_dataset()
    model, batch = paper(data).train(), one_batch(data)
    found = []
    for log_scale in (math.log(100), 50.0):
        with torch.no_grad():
            model.log_scale.fill_(log_scale)
        torch.manual_seed(0)
        found.append(model.calculate_loss(batch)["alignment"].item())
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def test_modality_embeddings_are_those_that_scores_are_made_of():
    data = toy_dataset()
    model = double_model(data).eval()
    reference = Reference(model, data)
    with torch.no_grad():
        given = model.modality_embeddings()
    assert list(given) == ["id", *BOTH]
    expected = {"id": reference.h["id"]}
    for m in BOTH:
        generated = torch.tensor([reference.generated(m, node) for node in range(N_USERS + N_ITEMS)])
        encoded = torch.tensor(reference.h[m])  # whose scale the generated rows are given back
        expected[m] = (generated * encoded.square().mean(dim=1, keepdim=True).sqrt()).tolist()
    for name, (users, items) in given.items():
        whole = torch.tensor(expected[name], dtype=torch.float64)
        torch.testing.assert_close(torch.cat([users, items]), whole, rtol=1e-3, atol=1e-3)


def test_features_are_reduced_to_the_rank_asked_for():
    data = toy_dataset()
    shapes = {rank: paper(data, feature_rank=rank).projections["visual"].weight.shape[1] for rank in (0, 3, 99)}
    assert shapes == {0: WIDTHS["visual"], 3: 3, 99: WIDTHS["visual"]}


def test_training_lowers_the_denoising_loss():
    data = toy_dataset()
    model = paper(data, diff_weight=1.0, tc_weight=0.005, beta_last=0.02).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    batch = one_batch(data, 150)
    losses = []
    for _ in range(150):
        terms = model.calculate_loss(batch)
        optimizer.zero_grad()
        total(terms).backward()
        optimizer.step()
        losses.append(terms["generation"].item() / len(BOTH))
    assert np.mean(losses[:3]) > 0.9
    assert np.mean(losses[-10:]) < 0.7


# The design space

VARIANTS = Path(__file__).resolve().parents[2] / "src/configs/variants"


def variant(name):
    """The settings of a ready variant at sizes of a toy; those of the harness are left out."""
    content = read_yaml(VARIANTS / f"{name}.yaml", name)
    known = keys_of(model_class("GTC").settings)
    small = {"noise_steps": 20, "final_item_k": 3, "final_user_k": 4, "generation_steps": 3}
    return {k: min(v, small[k]) if k in small else v for k, v in content.items() if k in known}


CHOICES = {
    "default": {},
    "paper": variant("GTC_paper"),
    "released": variant("GTC_released"),
    "denoised before, gated": {"denoising": "before"},
    "denoised before, projected": PAPER | {"denoising": "before", "generated_in": "nothing"},
    "ego condition": PAPER | {"condition": "ego", "detach_condition": False},
    "gates by generated content": {"denoising": "after", "generated_in": "gates"},
    "alignment of generated content": {"denoising": "after", "generated_in": "alignment"},
    "denoising as a task beside": {"denoising": "after", "generated_in": "nothing"},
    "no alignment": {"alignment": "off"},
    "alignment of a fixed weight": {"tc_scaled": False},
    "pairwise": {"alignment": "pairwise", "aligned_views": "modalities", "learn_temperature": True},
    "critic of all orders": {"aligned_views": "modalities", "tc_order": 0.3},
    "concatenated": PAPER | {"fusion": "concat"},
    "concatenated with content in the items": PAPER | {"fusion": "concat", "content_share": 0.5},
    "items themselves in their views": {"own_share": 0.6},
    "neighbours alone in the views": {"own_share": 0.0},
    "a share of one's own": {"own_share": 0.3},
    "no graph, no product": {"knn_k": 0, "product_view": False},
    "users of each view": PAPER | {"shared_users": False},
    "final graphs": {"final_item_k": 3, "final_user_k": 4},
    "Xavier's start": {"spectral_scale": 0.0},
    "spectral start, undamped": {"spectral_power": 0.0},
    "users with embeddings": {"user_embedding": True},
    "users of their items, projected": PAPER | {"user_embedding": False},
    "a batch's own interactions kept": {"leave_out": False},
    "half of the items by content": {"content_share": 0.5},
    "half of the items by content, no products": {"content_share": 0.5, "content_products": False},
    "content that is not weighed anew": {"content_share": 0.5, "content_rate": 0.0},
    "content that is learned from nothing": {"content_share": 0.5, "spectral_scale": 0.0},
    "content beside projected views": PAPER | {"content_share": 0.5},
}


@pytest.mark.parametrize("options", CHOICES.values(), ids=CHOICES)
def test_every_choice_trains_all_its_parameters_and_scores_repeatably(options):
    data = toy_dataset()
    model = build("GTC", data, **options)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model.train()
    for _ in range(3):
        loss = total(model.calculate_loss(one_batch(data, 60)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    scores = all_scores(model)
    assert torch.isfinite(scores).all()
    torch.rand(3)
    assert torch.equal(all_scores(model), scores)


@pytest.mark.parametrize("choice", CHOICES)
def test_choices_differ_in_what_they_score(choice):
    """A key that nothing reads would leave the scores as they are."""
    data = uneven(toy_dataset())
    found = {}
    for name in {choice, "default", "paper"}:
        model = build("GTC", data, **CHOICES[name]).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        torch.manual_seed(0)
        total(model.calculate_loss(one_batch(data, 60))).backward()
        optimizer.step()
        found[name] = all_scores(model)
    for name, scores in found.items():
        if name != choice:
            assert not torch.allclose(scores, found[choice], rtol=1e-4, atol=0), f"{choice} is {name}"


class Gated:
    """The default's formulas in double precision, with dense matrices and loops over rows."""

    def __init__(self, model, data, batch=()):
        """Without the interactions of a batch, if one is given and the options say so."""
        self.model, self.options = model, model.options
        p = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
        users, items = p.get("user_embedding", np.zeros((N_USERS, 8))), p["item_embedding"]
        adjacency = np.array(naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS))
        for u, i in zip(*batch[:2], strict=True) if len(batch) and self.options.leave_out else ():
            adjacency[u, N_USERS + i] = adjacency[N_USERS + i, u] = 0
        graph = np.array(naive.dense_normalized(adjacency))
        projected, graphs, self.has = {}, {}, {}
        for m, raw in data.features.items():
            self.has[m] = np.array(who_has(data, m))
            projected[m] = standardized(data, m) @ p[f"projections.{m}.weight"].T + p[f"projections.{m}.bias"]
            graphs[m] = self.nearest(raw.astype(np.float64), self.has[m][N_USERS:])
        if len(projected) > 1:
            projected["product"] = np.prod(list(projected.values()), axis=0)
            self.has["product"] = np.array(who_has(data, *data.features))
            items_with_all = self.has["product"][N_USERS:]
            graphs["product"] = sum(graphs.values()) * items_with_all[:, None] * items_with_all
        told: float | np.ndarray = 0.0
        if self.options.content_share:
            rate, table = self.options.content_rate, model.told.numpy()
            told = rate * table @ p["content_layer.weight"].T if rate else model.told_scale * table

        def propagated(*tables):
            layers = [np.concatenate(tables)]
            for _ in range(self.options.n_ui_layers):
                layers.append(graph @ layers[-1])
            return np.mean(layers, axis=0)

        self.h = propagated(users, items + told)
        self.content = {}
        for view, y in projected.items():
            gate = 1 / (1 + np.exp(-(y @ p[f"gates.{view}.weight"].T + p[f"gates.{view}.bias"])))
            s = graphs[view]
            rows = s.sum(axis=1)
            scale = np.array([r**-0.5 if r > 0 else 0.0 for r in rows])
            own = items * gate
            share = self.options.own_share if self.options.knn_k else 1
            e = share * own + (1 - share) * (scale[:, None] * s * scale) @ own
            e = np.where(self.has[view][N_USERS:, None], e, own)
            self.content[view] = np.concatenate([graph[:N_USERS, N_USERS:] @ e, e])
        side = np.zeros_like(self.h)
        for view, c in self.content.items():
            w, b = p[f"preferences.{view}.weight"], p[f"preferences.{view}.bias"]
            side += c / (1 + np.exp(-(self.h @ w.T + b)))
        self.z = self.h + side / len(self.content)
        self.ego = users, items
        self.scores = self.z[:N_USERS] @ self.z[N_USERS:].T

    def nearest(self, raw, has):
        """Cosines to the k nearest items, the item itself first; an item of zeros has itself alone, a missing one nobody."""
        s = np.zeros((N_ITEMS, N_ITEMS))
        lengths = np.linalg.norm(raw, axis=1) * has
        for i in range(N_ITEMS):
            s[i, i] = has[i]
            if lengths[i]:
                others = [j for j in range(N_ITEMS) if j != i and lengths[j]]
                cosine = {j: raw[i] @ raw[j] / lengths[i] / lengths[j] for j in others}
                for j in sorted(others, key=lambda j: (-cosine[j], j))[: self.options.knn_k - 1]:
                    s[i, j] = cosine[j]
        return s

    def loss(self, batch):
        users, pos, neg = batch.numpy()
        z_u, z_i = self.z[:N_USERS], self.z[N_USERS:]
        pairs = [[float(z_u[u] @ z_i[i]) for u, i in zip(users, side, strict=True)] for side in (pos, neg)]
        terms = []
        nodes = np.concatenate([np.unique(users), N_USERS + np.unique([pos, neg])])
        length = np.mean([self.h[node] @ self.h[node] for node in nodes]) if self.options.tc_scaled else 1
        for rows in (np.unique(users), N_USERS + np.unique(pos)):
            own = {row: [c[row] for view, c in self.content.items() if self.has[view][row]] for row in rows}
            rows = [row for row in rows if own[row]]
            views = [self.h[rows], np.array([np.mean(own[row], axis=0) for row in rows])]
            terms.append(naive.info_nce(*(view.tolist() for view in views), 1 / self.options.temperature))
        ego = [self.ego[0][users].tolist(), self.ego[1][pos].tolist(), self.ego[1][neg].tolist()]
        return {
            "bpr": naive.bpr(*pairs),
            "alignment": self.options.tc_weight * length * np.mean(terms),
            "reg": self.options.reg_weight * naive.half_squared_l2_over_batch(*ego),
        }


def test_singular_vectors_of_other_signs_do_not_change_a_checkpoint():
    data = toy_dataset()
    trained, other = (build("GTC", data, content_share=0.5) for _ in range(2))
    other.told.neg_()
    other.load_state_dict(trained.state_dict())
    torch.testing.assert_close(all_scores(other), all_scores(trained))


@pytest.mark.parametrize(
    ("missing", "knn_k", "share", "scaled"),
    [(False, 3, 0, False), (False, 3, 0.3, True), (True, 3, 0.3, True), (True, 0, 0.3, True)],
)
@pytest.mark.parametrize(
    ("own_users", "leave_out", "content"),
    [(True, False, (0, 0.5)), (False, True, (0.7, 0.5)), (True, True, (0.4, 0))],
)
@pytest.mark.parametrize("modalities", [BOTH, ("visual",), tuple(WIDTHS)], ids="+".join)
def test_default_is_that_of_its_formulas(modalities, own_users, leave_out, content, missing, knn_k, share, scaled):
    data = uneven(toy_dataset(modalities))
    data = with_missing(data) if missing else data
    options = {"knn_k": knn_k, "own_share": share, "tc_scaled": scaled}
    options |= {"user_embedding": own_users, "leave_out": leave_out}
    options |= dict(zip(("content_share", "content_rate"), content, strict=True))
    model = on_double(build("GTC", data, **WEIGHTS, **options))
    stream = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=stream, dtype=torch.float64))
    batch = one_batch(data, 12)
    expected = Gated(model, data, batch.tolist()).loss(batch)
    assert values(model.train().calculate_loss(batch)) == pytest.approx(expected, rel=1e-4)
    found = all_scores(model)
    expected = torch.from_numpy(Gated(model, data).scores)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("n_views", [3, 4])
def test_critic_of_all_orders_holds_the_cosines_of_all_pairs_and_the_products_of_more(n_views):
    stream = torch.Generator().manual_seed(1)
    views = [torch.randn(6, 10, generator=stream, dtype=torch.float64) for _ in range(n_views)]
    order, scale = 0.3, torch.tensor(2.0, dtype=torch.float64)
    shifted, factor = expanded(views, order, scale)
    rows = [F.normalize(view, dim=1) for view in shifted]
    found = factor * 10 ** ((n_views - 2) / 2) * math.prod(rows).sum(dim=1)
    for row, value in enumerate(found.tolist()):
        u = [(v - v.mean()) / (v - v.mean()).square().mean().sqrt() for v in (view[row] for view in views)]
        expected = 10.0
        for size in range(2, n_views + 1):
            for chosen in itertools.combinations(u, size):
                expected += order**size * math.prod(chosen).sum().item()
        assert value == pytest.approx(scale.item() * expected / order**2 / 10, rel=1e-6)


def test_softmax_fusion_is_the_released_one_and_refuses_other_numbers_of_modalities():
    data = toy_dataset()
    model = build("GTC", data, **(PAPER | {"fusion": "softmax", "fusion_temperature": 0.5}))
    h, v, t = (torch.randn(4, 8) for _ in range(3))
    with torch.no_grad():
        found = model.fuse(h, {"visual": v, "textual": t}, {})
    for row in range(4):
        products = torch.stack([h[row] @ v[row], h[row] @ t[row], v[row] @ t[row]]) / 0.5
        w = products.exp() / products.exp().sum()
        mixed = h[row] + w[0] * h[row] + w[1] * v[row] + w[2] * t[row]
        torch.testing.assert_close(found[row], torch.cat([mixed, v[row], t[row]]))
    for modalities in (("visual",), tuple(WIDTHS)):
        lines = problems_of(partial(build, "GTC", toy_dataset(modalities), fusion="softmax"))
        assert "two content modalities" in lines[0]


def test_interaction_only_is_lightgcn():
    data = toy_dataset()
    options = {"fusion": "interaction", "alignment": "off", "n_ui_layers": 2}
    options |= {"content_share": 0.0}
    gtc, lightgcn = build("GTC", data, **options), build("LightGCN", data, n_ui_layers=2)
    with torch.no_grad():
        lightgcn.user_embedding.copy_(gtc.user_embedding)
        lightgcn.item_embedding.copy_(gtc.item_embedding)
    torch.testing.assert_close(all_scores(gtc), all_scores(lightgcn))


@pytest.mark.parametrize("options", CHOICES.values(), ids=CHOICES)
def test_rows_of_items_that_lack_a_modality_have_no_influence(options):
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
        with model.scoring():
            views = model.modality_embeddings()
        taken = np.isin(np.arange(N_ITEMS), data.train.items)  # an item that nobody took may start with zeros
        for modality, there in data.present.items():
            told = views[modality][1].any(dim=1).numpy()
            assert not told[~there].any(), "nothing but a row of zeros"
            assert told[there & taken].all()
    assert torch.isfinite(found[0]).all()
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


@pytest.mark.parametrize("choice", ["default", "paper", "denoised before, gated"])
def test_without_any_content_it_is_lightgcn(choice):
    data = toy_dataset()
    data.present = {m: np.zeros(N_ITEMS, dtype=bool) for m in BOTH}
    gtc = build("GTC", data, **(CHOICES[choice] | {"n_ui_layers": 2}))
    terms = gtc.train().calculate_loss(one_batch(data))
    assert [values(terms).get(name, 0) for name in ("generation", "alignment")] == [0, 0]
    lightgcn = build("LightGCN", data, n_ui_layers=2)
    with torch.no_grad():
        lightgcn.user_embedding.copy_(gtc.user_embedding)
        lightgcn.item_embedding.copy_(gtc.item_embedding)
    torch.testing.assert_close(all_scores(gtc), all_scores(lightgcn))


def test_variants_know_their_keys():
    known = {*keys_of(model_class("GTC").settings), *keys_of(TrainSettings)}
    for path in VARIANTS.glob("*.yaml"):
        assert set(read_yaml(path, path.name)) <= known, path.name
