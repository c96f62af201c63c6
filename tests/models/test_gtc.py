"""GTC's loss and scores from its specification, with its random draws replayed, and its ablations.

`Reference` is the specification in plain Python; only the noise predictor is the model's own (it has tests of its own
in common/test_diffusion.py). What the paper leaves open, and the model may come to do otherwise, is in `Reference.fused`.
"""

import math

import naive
import numpy as np
import pytest
import torch
from naive import dot, rows_of, sigmoid, unit
from toys import BOTH, N_ITEMS, N_USERS, WIDTHS, all_scores, build, on_double, one_batch, total, toy_dataset

WEIGHTS = {"diff_weight": 0.7, "tc_weight": 0.4, "reg_weight": 0.3}
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
        for modality in self.modalities:
            weight, bias = (parameters[f"projections.{modality}.{part}"].tolist() for part in ("weight", "bias"))
            raw = data.features[modality].astype(np.float64)
            raw -= raw.mean(axis=0)
            raw /= np.sqrt(np.square(raw).mean())
            self.h[modality] = propagated([
                [dot(w, row) + b for w, b in zip(weight, bias, strict=True)] for row in raw.tolist()
            ])  # fmt: skip

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
            return self.model.denoisers[modality](as_row[0], torch.tensor([t]), as_row[1])[0].tolist()

    def generated(self, modality, node):
        """Content of a node at evaluation: one fixed noise for all nodes, and no draw from the run's own stream."""
        options, stream = self.options, torch.Generator().manual_seed(0)
        width = len(self.h["id"][0])

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

    def fused(self, h, content):
        """z = h + sigmoid(cos(h, c) / tau + b) |h| c / |c|, c the element-wise product of the content."""
        c = [math.prod(values) for values in zip(*content, strict=True)]
        gate = sigmoid(dot(unit(h), unit(c)) / self.temperature + self.gate_bias)
        length = math.sqrt(dot(h, h))
        return [a + gate * length * b for a, b in zip(h, unit(c), strict=True)]

    def scores(self):
        nodes = [
            self.fused(self.h["id"][n], [self.generated(m, n) for m in self.modalities])
            for n in range(N_USERS + N_ITEMS)
        ]
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
            times = torch.randint(1, options.noise_steps + 1, (len(nodes),)).tolist()
            noises = torch.randn(len(nodes), width).tolist()
            rows = []
            for node, t, noise in zip(nodes, times, noises, strict=True):
                x_t = self.noisy(spread(self.h[modality][node]), t, noise)
                eps = self.predicted(modality, x_t, t, node)
                rows.append(self.cleaned(x_t, t, eps))
                generation += sum((a - b) ** 2 for a, b in zip(eps, noise, strict=True)) / (len(nodes) * width)
            content.append(rows)
        z = [self.fused(self.h["id"][node], [rows[number] for rows in content]) for number, node in enumerate(nodes)]
        views = [[self.h["id"][node] for node in nodes], *content]
        groups = {
            "users": [list(range(len(set(users))))],
            "items": [sorted(place[N_USERS + item] for item in set(pos))],
        }
        groups["both"] = groups["users"] + groups["items"]
        bounds = []
        for group in groups[options.tc_nodes]:
            if len(group) > options.tc_batch:
                group = [group[number] for number in torch.randperm(len(group))[: options.tc_batch].tolist()]
            rows = [[view[number] for number in group] for view in views]
            bounds.append(naive.total_correlation(rows, self.scale))
        ego = [self.ego_users[u] for u in users], [self.ego_items[i] for i in pos], [self.ego_items[j] for j in neg]
        return {
            "bpr": naive.bpr(*(
                [dot(z[place[u]], z[place[N_USERS + i]]) for u, i in zip(users, items, strict=True)]
                for items in (pos, neg)
            )),
            "generation": options.diff_weight * generation,
            "total_correlation": options.tc_weight * sum(bounds) / len(bounds),
            "reg": options.reg_weight * naive.half_squared_l2_over_batch(*ego),
        }  # fmt: skip


def spread(row):
    """The row brought to a mean square of one."""
    mean_square = dot(row, row) / len(row)
    return [value / math.sqrt(mean_square) for value in row]


def double_model(data, **options):
    """A model in float64 whose parameters are not those of the start, where some terms would vanish."""
    model = on_double(build("GTC", data, **(WEIGHTS | options)))
    stream = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=stream, dtype=torch.float64))
    return model


def values(terms):
    return {name: term.item() for name, term in terms.items()}


@pytest.mark.parametrize("tc_batch", [100, 4])
@pytest.mark.parametrize("tc_nodes", ["items", "users", "both"])
@pytest.mark.parametrize("modalities", [BOTH, ("visual",), tuple(WIDTHS)], ids="+".join)
def test_loss_is_that_of_the_specification(modalities, tc_nodes, tc_batch):
    data = toy_dataset(modalities)
    model = double_model(data, tc_nodes=tc_nodes, tc_batch=tc_batch)
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


def test_all_ways_of_generation_differ_and_repeat_to_the_bit():
    data = toy_dataset()
    model = build("GTC", data)
    scores = {}
    for generation in PATHS:
        for start in (0.3, 1.0):
            other = build("GTC", data, generation=generation, generation_start=start)
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
    assert torch.isfinite(all_scores(build("GTC", data, generation="ddim", generation_steps=steps))).all()


def test_the_random_draws_of_training_come_from_the_seeded_stream():
    data = toy_dataset()
    model = build("GTC", data).train()
    batch = one_batch(data)
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(values(model.calculate_loss(batch)))
    assert losses[0] == losses[1]
    for name in ("bpr", "generation", "total_correlation"):
        assert losses[0][name] != losses[2][name], name
    assert losses[0]["reg"] == losses[2]["reg"]


def gradients(model, term, batch):
    torch.manual_seed(0)
    found = torch.autograd.grad(model.calculate_loss(batch)[term], [*model.parameters()], allow_unused=True)
    names = (name for name, _ in model.named_parameters())
    return {name: grad for name, grad in zip(names, found, strict=True) if grad is not None and grad.any()}


def test_each_term_trains_what_it_should():
    data = toy_dataset()
    model, batch = build("GTC", data).train(), one_batch(data)
    trained = {term: set(gradients(model, term, batch)) for term in ("bpr", "generation", "total_correlation", "reg")}
    tables = {"user_embedding", "item_embedding"}
    denoisers = {name for name, _ in model.named_parameters() if name.startswith("denoisers.")}
    projections = {name for name, _ in model.named_parameters() if name.startswith("projections.")}
    assert len(denoisers) > 20
    assert trained["reg"] == tables
    assert denoisers | projections <= trained["generation"]
    assert denoisers | projections | tables | {"log_scale"} == trained["total_correlation"]
    assert denoisers | projections | tables <= trained["bpr"]
    assert "log_scale" not in trained["bpr"]
    assert set.union(*trained.values()) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("detach", [True, False])
def test_the_condition_passes_a_gradient_to_the_interaction_embedding_only_if_asked_to(detach):
    data = toy_dataset()
    model, batch = build("GTC", data, detach_condition=detach).train(), one_batch(data)
    # Items enter the content through their features alone, so that only the condition can reach their id embeddings.
    assert ("item_embedding" in gradients(model, "generation", batch)) != detach


@pytest.mark.parametrize(
    ("weight", "term"), [("diff_weight", "generation"), ("tc_weight", "total_correlation"), ("reg_weight", "reg")]
)
def test_terms_are_proportional_to_their_weights(weight, term):
    data = toy_dataset()
    batch = one_batch(data)
    found = {}
    for value in (0.0, 0.2, 0.6):
        model = build("GTC", data, **{weight: value}).train()
        torch.manual_seed(0)
        found[value] = values(model.calculate_loss(batch))
    assert found[0.0][term] == 0
    assert found[0.6][term] == pytest.approx(3 * found[0.2][term], rel=1e-5)
    assert {k: v for k, v in found[0.2].items() if k != term} == {k: v for k, v in found[0.6].items() if k != term}


def test_temperatures_and_gate_start_where_the_settings_say():
    model = build("GTC", toy_dataset(), temperature=0.2, fusion_temperature=0.5, gate_bias=-1.5)
    assert model.log_scale.exp().item() == pytest.approx(5)
    assert model.log_fusion_temperature.exp().item() == pytest.approx(0.5)
    assert model.gate_bias.item() == -1.5


def test_the_scale_of_the_contrast_is_bounded():
    data = toy_dataset()
    model, batch = build("GTC", data).train(), one_batch(data)
    found = []
    for log_scale in (math.log(100), 50.0):
        with torch.no_grad():
            model.log_scale.fill_(log_scale)
        torch.manual_seed(0)
        found.append(model.calculate_loss(batch)["total_correlation"].item())
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
    shapes = {rank: build("GTC", data, feature_rank=rank).projections["visual"].weight.shape[1] for rank in (0, 3, 99)}
    assert shapes == {0: WIDTHS["visual"], 3: 3, 99: WIDTHS["visual"]}


def test_training_lowers_the_denoising_loss():
    data = toy_dataset()
    model = build("GTC", data, diff_weight=1.0).train()
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
