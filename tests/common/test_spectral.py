"""Singular vectors of the interactions, the items' popularity and co-occurrence."""

from __future__ import annotations

import math

import naive
import numpy as np
import pytest
import torch
from toys import N_ITEMS, N_USERS, toy_dataset, uneven

from common import spectral
from common.spectral import co_occurring_items, log_popularity, spectral_embeddings
from utils.data.dataset import Split


def interactions(data):
    """R [U, I], by loops."""
    r = np.zeros((data.n_users, data.n_items))
    for user, item in zip(data.train.users, data.train.items, strict=True):
        r[user, item] = 1
    return r


def normalized(r):
    scale = [np.array([x**-0.5 if x else 0.0 for x in r.sum(axis=axis)]) for axis in (1, 0)]
    return scale[0][:, None] * r * scale[1]


@pytest.mark.parametrize("power", [0, 1, 4])
@pytest.mark.parametrize("width", [3, 500])
def test_products_are_those_of_the_damped_decomposition(width, power):
    data = toy_dataset()
    u, values, vt = np.linalg.svd(normalized(interactions(data)), full_matrices=False)
    k = min(width, int((values > 1e-6).sum()))
    users, items = spectral_embeddings(data, width, power)
    assert (users.shape, items.shape) == ((N_USERS, k), (N_ITEMS, k))
    assert (users.dtype, items.dtype) == (torch.float32, torch.float32)
    sides = [u[:, :k] * values[:k] ** power, vt[:k].T * values[:k] ** power]
    sides = [side / np.sqrt(np.mean(side**2)) for side in sides]
    for found, side in zip((users, items), sides, strict=True):
        assert found.square().mean().item() == pytest.approx(1, rel=1e-5)
        # The sign of a singular vector is free, these products are not.
        np.testing.assert_allclose(
            found.numpy() @ found.numpy().T, side @ side.T, rtol=0, atol=2e-3 * np.abs(side @ side.T).max()
        )
    expected = sides[0] @ sides[1].T
    np.testing.assert_allclose(users.numpy() @ items.numpy().T, expected, rtol=0, atol=2e-3 * np.abs(expected).max())


def test_the_largest_singular_value_is_one_and_its_vectors_are_the_roots_of_the_degrees():
    data = toy_dataset()
    r = interactions(data)
    users, items = (table[:, 0].double().numpy() for table in spectral_embeddings(data, 1, 4))
    for found, degree in ((users, r.sum(axis=1)), (items, r.sum(axis=0))):
        np.testing.assert_allclose(np.abs(found), np.sqrt(degree / degree.mean()), rtol=1e-3)


def test_a_node_without_interactions_has_zeros_and_a_repeated_pair_counts_once():
    data = toy_dataset()
    lonely = int(data.train.items[0])
    kept = data.train.items != lonely
    data.splits["train"] = Split(data.train.users[kept], data.train.items[kept])
    once = spectral_embeddings(data, 4, 1)
    popularity = log_popularity(data)
    assert not once[1][lonely].any()
    both = (np.concatenate([ids, ids[:5]]) for ids in (data.train.users, data.train.items))
    data.splits["train"] = Split(*both)
    for a, b in zip(once, spectral_embeddings(data, 4, 1), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(popularity, log_popularity(data))


def test_popularity_is_the_logarithm_of_the_counts():
    data = toy_dataset()
    logs = [math.log(1 + count) for count in interactions(data).sum(axis=0)]
    expected = [value - sum(logs) / len(logs) for value in logs]
    np.testing.assert_allclose(log_popularity(data).numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("damping", [0.5, 1.0])
def test_popularity_counts_users_of_many_interactions_less(damping):
    data = uneven(toy_dataset())
    r = interactions(data)
    weights = [row.sum() ** -damping if row.sum() else 0 for row in r]
    counts = [sum(w * row[i] for w, row in zip(weights, r, strict=True)) for i in range(data.n_items)]
    logs = [math.log(1 + count * r.sum() / sum(counts)) for count in counts]
    expected = [value - sum(logs) / len(logs) for value in logs]
    np.testing.assert_allclose(log_popularity(data, damping).numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("damping", [0, 0.25, 1])
@pytest.mark.parametrize("most", [4, 100])
def test_co_occurring_items_are_the_largest_of_the_definition(damping, most, monkeypatch):
    monkeypatch.setattr(spectral, "MOST_COMPANIONS", most)
    monkeypatch.setattr(spectral, "USERS_AT_ONCE", 7)
    data = toy_dataset()
    taken = np.maximum(interactions(data).sum(axis=0), 1)
    expected = naive.co_occurrence(data.train.users, data.train.items, N_USERS, N_ITEMS) / taken**damping
    items, values = co_occurring_items(data, damping)
    width = min(most, N_ITEMS)
    assert items.shape == values.shape == (N_USERS, width)
    assert (items.dtype, values.dtype) == (torch.int32, torch.float32)
    for user in range(N_USERS):
        best = sorted(range(N_ITEMS), key=lambda i: (-round(expected[user, i], 6), i))[:width]
        best = sorted(i for i in best if expected[user, i])
        found = items[user, : len(best)].tolist()
        assert values[user, : len(best)].tolist() == pytest.approx(expected[user, found], rel=1e-5)
        assert values[user].sum().item() == pytest.approx(expected[user, best].sum(), rel=1e-5), (
            "none larger is left out"
        )
        assert len(set(found)) == len(found), "an item stands once"
        assert not items[user, len(best) :].any()
    assert not values[-1].any(), "who took nothing has no companions"


def test_the_largest_are_taken_in_order_and_the_first_among_equals():
    values = np.array([1, 3, 2, 3, 2, 0, 2], dtype=np.float32)
    for count, places in ((1, [1]), (2, [1, 3]), (3, [1, 2, 3]), (4, [1, 2, 3, 4]), (7, [*range(7)]), (9, [*range(7)])):
        assert spectral._largest(values, count).tolist() == places
