"""MENTOR's loss and scores from their formulas, on dense graphs."""

import itertools
import math

import naive
import numpy as np
import pytest
import torch
from naive import dot, rows_of, sigmoid
from toys import N_ITEMS, N_USERS, WIDTHS, all_scores, build, on_double, one_batch, toy_dataset

from common.neighbours import mixed_item_graph

N = N_USERS + N_ITEMS


def hops_of(a, start, noise):
    """h_0 + h_1 + h_2; a hop's result is perturbed by 0.1 sign(h) times unit rows of noise [2][N][D], where there is any."""
    layer, total = np.array(start), np.array(start)
    for hop in range(2):
        layer = a @ layer
        if noise is not None:
            layer = layer + 0.1 * np.sign(layer) * np.array([naive.unit(row) for row in noise[hop]])
        total = total + layer
    return total


def expected_terms(model, data, batch, noise):
    """The terms of the loss, and the fused view; `noise` [hop][N][2 M][D] is what the source draws."""
    options, modalities, m = model.options, model.modalities, len(model.modalities)
    a = naive.dense_normalized(naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS))
    a = a.astype(np.float32).astype(np.float64)
    s = mixed_item_graph(data, modalities, options.knn_k, options.mm_image_weight)
    s = np.linalg.matrix_power(s.toarray().astype(np.float32).astype(np.float64), options.n_mm_layers)
    alpha = np.array(rows_of(model.modality_weights))
    features = {name: data.features[name].astype(np.float64).tolist() for name in modalities}

    def view(parts):
        y = np.concatenate(parts, axis=1)
        return np.concatenate([y[:N_USERS], y[N_USERS:] + s @ y[N_USERS:]])

    def fused(parts):
        weighted = []
        for number, part in enumerate(parts):
            weighted.append(np.concatenate([part[:N_USERS] * alpha[:, number, None], part[N_USERS:]]))
        return view(weighted)

    starts = {name: naive.preferences_and_content(model.encoders[name], features[name]) for name in modalities}
    main = [hops_of(a, starts[name], None) for name in modalities]
    z = fused(main)
    terms = {}
    rows = batch.T.tolist()
    differences = [dot(z[u], z[N_USERS + i]) - dot(z[u], z[N_USERS + j]) for u, i, j in rows]
    terms["bpr"] = sum(-math.log2(sigmoid(x)) for x in differences) / len(rows)
    penalty = float(np.mean(alpha**2))
    for name in modalities:
        table = rows_of(model.encoders[name].preference)
        gathered = [value for u, _, _ in rows for value in table[u]]
        penalty += sum(value**2 for value in gathered) / len(gathered)
    terms["reg"] = options.reg_weight * penalty
    of_ids = hops_of(a, naive.preferences_and_content(model.id_encoder, rows_of(model.item_ids)), None)
    views = [z, view([of_ids] * m)] + ([view([part] * m) for part in main] if m > 1 else [])
    gaps = [
        abs(np.var(one, ddof=1) - np.var(other, ddof=1)) + abs(np.mean(one) - np.mean(other))
        for one, other in itertools.combinations(views, 2)
    ]
    terms["alignment"] = options.align_weight * sum(gaps)
    copies = []
    for copy in range(2):
        parts = []
        for number, name in enumerate(modalities):
            start = starts[name]
            if options.perturbed == "own_encoders":
                start = naive.preferences_and_content(model.perturbed[copy][name], features[name])
            parts.append(hops_of(a, start, [[row[copy * m + number] for row in hop] for hop in noise]))
        copies.append(fused(parts).tolist())
    kinds = [slice(0, N_USERS), slice(N_USERS, N)]
    contrast = sum(naive.one_way_info_nce(copies[0][kind], copies[1][kind], options.temperature) for kind in kinds)
    terms["contrastive"] = options.cl_weight * contrast
    if options.feature_masking:
        maps = [[naive.affine(row, model.unmask) for row in z[kind].tolist()] for kind in kinds]
        cosines = [
            np.mean([dot(naive.unit(one), naive.unit(other)) for one, other in zip(z[kind].tolist(), maps[n], strict=True)])
            for n, kind in enumerate(kinds)
        ]  # fmt: skip
        terms["masking"] = options.masking_weight * (2 - sum(cosines))
    return terms, z


@pytest.mark.parametrize(
    ("modalities", "settings"),
    [
        (["visual", "textual"], {}),
        (["visual", "textual"], {"n_mm_layers": 2, "perturbed": "main_encoders"}),
        (["visual", "textual"], {"feature_masking": True, "feature_dropout": 0.0, "masking_weight": 0.6}),
        (["acoustic"], {}),
        (list(WIDTHS), {}),
    ],
    ids=str,
)
def test_loss_and_scores_are_those_of_the_specification(modalities, settings):
    data = toy_dataset(modalities)
    weights = {"reg_weight": 0.3, "align_weight": 0.4, "cl_weight": 0.7, "temperature": 0.25, "mm_image_weight": 0.3}
    model = on_double(build("MENTOR", data, **weights, **settings)).train()
    batch = one_batch(data, 40)
    torch.manual_seed(5)
    shape = (N, 2 * len(modalities), model.embedding_size)
    noise = [torch.rand(shape).double().tolist() for _ in range(2)]
    expected, z = expected_terms(model, data, batch, noise)
    torch.manual_seed(5)
    found = {name: term.item() for name, term in model.calculate_loss(batch).items()}
    # The source draws and normalises its noise in float32.
    assert found == pytest.approx(expected, rel=1e-6)
    exact = {name: found[name] for name in found if name != "contrastive"}
    assert exact == pytest.approx({name: expected[name] for name in exact}, rel=1e-9)
    torch.testing.assert_close(all_scores(model), torch.from_numpy(z[:N_USERS] @ z[N_USERS:].T))


def parameters_moved_by(term, **settings):
    """The first parts of the names of the parameters that a term of the loss has a gradient for."""
    model = build("MENTOR", toy_dataset(), **settings).train()
    model.calculate_loss(one_batch(toy_dataset()))[term].backward()
    return {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}


def test_each_term_moves_what_the_specification_says():
    assert parameters_moved_by("bpr") == {"encoders", "modality_weights"}
    assert parameters_moved_by("alignment") == {"encoders", "modality_weights", "item_ids", "id_encoder"}
    assert parameters_moved_by("contrastive") == {"perturbed", "modality_weights"}
    assert parameters_moved_by("contrastive", perturbed="main_encoders") == {"encoders", "modality_weights"}
    assert parameters_moved_by("masking", feature_masking=True) == {"encoders", "modality_weights", "unmask"}


def test_what_a_weight_of_zero_leaves_without_a_gradient_is_not_made():
    parts = {name.partition(".")[0] for name, _ in build("MENTOR", toy_dataset()).named_parameters()}
    assert parts == {"encoders", "item_ids", "id_encoder", "perturbed", "modality_weights"}
    without = build("MENTOR", toy_dataset(), align_weight=0.0, cl_weight=0.0)
    assert {name.partition(".")[0] for name, _ in without.named_parameters()} == {"encoders", "modality_weights"}
    assert list(without.train().calculate_loss(one_batch(toy_dataset()))) == ["bpr", "reg"]


def test_the_perturbed_encoders_share_no_parameter_with_the_scored_ones():
    model = build("MENTOR", toy_dataset())
    tables = [model.encoders["visual"].preference, *(copy["visual"].preference for copy in model.perturbed)]
    for one, other in itertools.combinations(tables, 2):
        assert not torch.equal(one, other)


def test_feature_masking_masks_in_training():
    data = toy_dataset()
    model = build("MENTOR", data, feature_masking=True).train()
    losses = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        losses.append(model.calculate_loss(one_batch(data))["masking"].item())
    assert losses[0] != losses[1]
