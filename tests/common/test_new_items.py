"""Items without interactions: what models give for them, against the same items in the catalogue."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import problems_of
from toys import N_ITEMS, all_scores, build, toy_dataset

from common.features import standardized_as, standardized_features
from utils.data.dataset import Dataset


def without_last(data: Dataset) -> tuple[Dataset, dict[str, np.ndarray]]:
    """The data without their last item, which has no interaction, and the features of that item [1, F]."""
    kept = {modality: matrix[:-1] for modality, matrix in data.features.items()}
    last = {modality: matrix[-1:] for modality, matrix in data.features.items()}
    return Dataset("fewer", data.n_users, data.n_items - 1, data.splits, kept), last


def with_lonely_item(data: Dataset, k: int) -> Dataset:
    """The last item, whose features are zeros, is given some that leave it out of each other item's k nearest others."""
    random = np.random.default_rng(0)
    for matrix in data.features.values():
        unit = matrix[:-1] / np.linalg.norm(matrix[:-1], axis=1, keepdims=True)
        among = np.sort(unit @ unit.T, axis=1)[:, -1 - k]  # the cosine of the k-th other
        found = (random.standard_normal(matrix.shape[1]) for _ in range(5000))
        matrix[-1] = next(x for x in found if (unit @ (x / np.linalg.norm(x)) < among).all())
    return data


@pytest.mark.parametrize(("knn_k", "shrink"), [(1, 0.0), (4, 0.0), (4, 10.0), (60, 1.0)])
def test_itemknncbf_scores_a_new_item_as_if_it_were_in_the_catalogue(knn_k: int, shrink: float):
    whole = toy_dataset()
    for matrix in whole.features.values():
        matrix[-1] = 3 * matrix[0] + matrix[1]  # near some, and long
    fewer, last = without_last(whole)
    expected = all_scores(build("ItemKNNCBF", whole, knn_k=knn_k, shrink=shrink))[:, -1:]
    model = build("ItemKNNCBF", fewer, knn_k=knn_k, shrink=shrink)
    found = model.score_new_items(torch.arange(whole.n_users), last, fewer)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert bool(expected.any()) == (knn_k > 1)


@pytest.mark.parametrize("options", [{}, {"content": "projected", "denoising": "off"}], ids=["default", "projected"])
def test_gtc_gives_a_new_item_what_it_gives_an_isolated_one_without_id(options, monkeypatch: pytest.MonkeyPatch):
    whole = with_lonely_item(toy_dataset(), 4)
    fewer, last = without_last(whole)
    expected_of, model = build("GTC", whole, knn_k=5, **options), build("GTC", fewer, knn_k=5, **options)
    with torch.no_grad():
        for parameter in expected_of.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        expected_of.item_embedding[-1] = 0
    state = expected_of.state_dict()
    model.load_state_dict({k: v[:-1] if k == "item_embedding" else v for k, v in state.items()})
    for modality in model.modalities:  # features in the same coordinates
        model.features(modality).copy_(expected_of.features(modality)[:-1])
    monkeypatch.setattr("models.gtc.standardized_as", lambda d, modality, *_: expected_of.features(modality)[-1:])
    with expected_of.scoring(), model.scoring():
        (users, items), (same, _) = expected_of(), model()
        torch.testing.assert_close(same, users)
        found = model.new_item_embeddings(last, fewer)
    torch.testing.assert_close(found, items[-1:], rtol=1e-4, atol=1e-5)
    assert found.abs().max() > 1e-3


@pytest.mark.parametrize("rank", [2, 99])
def test_new_features_are_brought_to_the_coordinates_of_the_others(rank: int):
    data = toy_dataset()
    found = standardized_as(data, "visual", rank, data.features["visual"])
    torch.testing.assert_close(found, standardized_features(data, "visual", rank), rtol=1e-4, atol=1e-5)


def test_vbpr_scores_by_the_content_half_alone():
    data = toy_dataset()
    model = build("VBPR", data)
    found = model.score_new_items(torch.arange(3), {m: x[:N_ITEMS] for m, x in data.features.items()}, data)
    with torch.no_grad():
        model.item_embedding.zero_()
    torch.testing.assert_close(found, all_scores(model)[:3], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        ("LightGCN", {}, "LightGCN cannot score new items: it reads no features"),
        ("FREEDOM", {}, "FREEDOM cannot score new items: an item's representation needs its own interactions"),
        ("GTC", {"fusion": "product"}, "GTC cannot score new items with these settings: it needs backbone text, denoi"),
    ],
)
def test_the_others_say_why_not(model: str, options: dict[str, str], says: str):
    data = toy_dataset()
    built = build(model, data, **options)
    (line,) = problems_of(lambda: built.score_new_items(torch.arange(3), data.features, data))
    assert line.startswith(says)
