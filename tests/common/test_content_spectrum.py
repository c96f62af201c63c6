"""Singular vectors within reach of the content, and how far it may stand for items."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common import content_spectrum as module
from common import features
from common.content_spectrum import RIDGE, Content, content_columns, content_spectrum, estimated_content_share
from common.spectral import spectral_embeddings
from utils.data.dataset import Split
from utils.data.synthetic import TRAIN, generate
from utils.data.synthetic_spec import SyntheticSpec

BOTH = ("visual", "textual")


class Drawn:
    """A data set of `generate`, its features or its users shuffled over the items where content is to tell nothing."""

    def __init__(self, spec, shuffled=False):
        drawn = generate(spec)
        train = drawn.labels == TRAIN
        self.n_users, self.n_items, self.present = spec.n_users, spec.n_items, {}
        self.train, self.truth = Split(drawn.users[train], drawn.items[train]), drawn.truth
        order = np.random.default_rng(5).permutation(spec.n_items) if shuffled else np.arange(spec.n_items)
        self.features = {name: table[order] for name, table in drawn.features.items()}
        self.fingerprint = dict.fromkeys(("train", *self.features), "")

    def derived(self, name, version, inputs, build):
        return build()


def drawn(joint_users, shuffled=False, **options):
    sizes = {"n_users": 400, "n_items": 200, "n_interactions": 8000}
    return Drawn(SyntheticSpec(joint_users=joint_users, **(sizes | options)), shuffled)


def normalized(data):
    r = np.zeros((data.n_users, data.n_items))
    r[data.train.users, data.train.items] = 1
    degrees = [r.sum(axis=axis, keepdims=True) for axis in (1, 0)]
    return r / np.sqrt(np.maximum(degrees[0], 1)) / np.sqrt(np.maximum(degrees[1], 1))


@pytest.mark.parametrize("share", [0.1, 0.75])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(("width", "power"), [(4, 1), (6, 4), (500, 2)])
def test_spectrum_is_that_of_the_smoothed_interactions(monkeypatch, width, power, missing, share):
    monkeypatch.setattr(features, "ITERATIONS", 60)  # neighbouring singular values are close
    data = Drawn(SyntheticSpec(n_users=60, n_items=40, n_interactions=700, n_private=1, n_joint=3))
    if missing:
        data.present = {"visual": np.arange(40) > 5, "textual": np.arange(40) % 9 > 0}
    x = content_columns(data, BOTH, True).astype(np.float64)
    ridge = x @ np.linalg.solve(x.T @ x + RIDGE * data.n_items * np.eye(x.shape[1]), x.T)
    own = np.diag([1 - share if row.any() else 1 for row in x])
    assert own.min() < 1
    u, values, vt = np.linalg.svd(normalized(data) @ (own + share * ridge), full_matrices=False)
    k = min(width, int((values > 1e-6 * values[0]).sum()))
    u, values, vt = u[:, :k], values[:k], vt[:k]
    found = content_spectrum(data, BOTH, width, power, share, True)
    assert found.users.shape == (data.n_users, width)
    assert found.own.shape == found.told.shape == (data.n_items, width)
    items = vt.T * values**power
    items /= np.sqrt(np.mean(np.square(items)))
    whole = (found.own + found.told).double().numpy()
    assert not whole[:, k:].any()
    assert (whole[np.abs(whole).argmax(axis=0)[:k], np.arange(k)] > 0).all()
    np.testing.assert_allclose(whole @ whole.T, items @ items.T, atol=2e-3 * np.abs(items @ items.T).max())
    # Both parts are of the same vectors: what content foretells of R^T u, and the rest.
    back = normalized(data).T @ u * values ** (power - 1)
    expected = (own @ back) @ (share * ridge @ back).T / np.mean(np.square((own + share * ridge) @ back))
    parts = found.own.double().numpy() @ found.told.double().numpy().T
    np.testing.assert_allclose(parts, expected, atol=2e-3 * max(np.abs(expected).max(), 1e-3))
    users = u * values**power
    users /= np.sqrt(np.mean(np.square(users[:, :k])))
    sides = found.users[:, :k].double().numpy() @ whole[:, :k].T
    np.testing.assert_allclose(sides, users @ items.T, atol=2e-3 * np.abs(sides).max())


def test_an_item_without_any_content_keeps_its_own_interactions_whole():
    data = drawn(0.0)
    data.present = {name: np.arange(200) > 5 for name in data.features}
    found = content_spectrum(data, BOTH, 8, 2, 0.9, True)
    assert not found.told[:6].any()
    lengths = [table.norm(dim=1) for table in (found.own, found.told)]
    assert lengths[0][:6].mean() > 3 * lengths[0][6:].mean()
    assert (lengths[1][6:] > 0).all()


def test_columns_are_the_signs_that_stand_out_and_all_their_products():
    data = drawn(0.5, n_shared=1, n_private=1, n_joint=3, interests_per_user=2)
    alone, together = (content_columns(data, BOTH, products) for products in (False, True))
    assert alone.shape == (200, 5 + 5)
    assert together.shape == (200, 5 + 5 + 25)
    np.testing.assert_allclose(together.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(alone.std(axis=0), 1, rtol=1e-3)
    truth = data.truth.item_attributes[:, -3:].astype(np.float64)
    for columns, low, high in ((alone, 0, 0.25), (together, 0.7, 1)):
        x = np.column_stack([columns, np.ones(200)])
        rest = truth - x @ np.linalg.lstsq(x, truth, rcond=None)[0]
        told = 1 - np.square(rest).mean(axis=0) / truth.var(axis=0)
        assert (told >= low).all(), told
        assert (told <= high).all(), told


def test_products_are_of_every_set_of_modalities_and_no_more_than_allowed(monkeypatch):
    spec = SyntheticSpec(
        n_users=50, n_items=200, n_interactions=400, feature_dims={"visual": 32, "textual": 32, "acoustic": 32},
        n_shared=0, n_private=0, n_joint=4,  joint_users=1.0, interests_per_user=1,
    )  # fmt: skip
    data = Drawn(spec)
    names = list(data.features)
    assert content_columns(data, names, True).shape[1] == 3 * 4 + 3 * 4**2 + 4**3
    monkeypatch.setattr(module, "MOST_PRODUCTS", 3 * 3**2 + 3**3)
    assert content_columns(data, names, True).shape[1] == 3 * 4 + 3 * 3**2 + 3**3
    monkeypatch.setattr(module, "MOST_PRODUCTS", 3)
    assert content_columns(data, names, True).shape[1] == 3 * 4


def test_noise_has_no_columns():
    data = drawn(0.0)
    random = np.random.default_rng(0)
    data.features["visual"] = random.standard_normal((200, 64)).astype(np.float32)
    assert content_columns(data, ["visual"], False).shape == (200, 0)
    found = content_spectrum(data, ["visual"], 4, 2, 0.5, False)
    assert not found.told.any()
    plain = spectral_embeddings(data, 4, 2)[1]
    atol = 0.02 * plain.square().sum(dim=1).max().item()
    torch.testing.assert_close(found.own @ found.own.T, plain @ plain.T, rtol=0, atol=atol)


def test_a_share_is_found_where_content_tells_and_none_where_it_does_not():
    told, products = estimated_content_share(drawn(0.0), BOTH)
    assert told >= 0.5
    assert estimated_content_share(drawn(0.0), BOTH) == (told, products)
    told, products = estimated_content_share(drawn(0.5, n_users=1200, n_items=500, n_interactions=14400), BOTH)
    assert (told >= 0.5, products) == (True, True), told
    assert estimated_content_share(drawn(1.0), ["visual"])[0] == 0, "one modality tells nothing of joint attributes"
    assert estimated_content_share(drawn(0.5, shuffled=True), BOTH)[0] == 0


def test_without_held_out_interactions_content_stands_for_nothing():
    data = drawn(0.0)
    data.train = Split(data.train.users[:0], data.train.items[:0])
    assert estimated_content_share(data, BOTH) == (0.0, False)


def test_folds_stop_when_there_is_evidence_enough(monkeypatch):
    data = drawn(0.0)
    splits = module._splits(data)
    assert len(splits) == 5
    held = [set(zip(split.users.tolist(), split.items.tolist(), strict=True)) for split in splits]
    assert sum(map(len, held)) == len(set.union(*held)), "an interaction is held out once"
    monkeypatch.setattr(module, "ENOUGH", len(splits[0].users) + 1)
    assert len(module._splits(data)) == 2


def test_ridge_regression_foretells_its_own_columns():
    x = np.random.default_rng(1).standard_normal((50, 3)).astype(np.float32)
    own, told = Content(x).parts(x, 0.25)
    np.testing.assert_allclose(own, 0.75 * x)
    np.testing.assert_allclose(told, 0.25 * x, rtol=0.1, atol=0.02)
