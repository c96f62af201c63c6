"""Standardised features against a full singular value decomposition."""

import numpy as np
import pytest
from toys import toy_dataset

from common import features
from common.features import leading_directions, standardized_features
from utils.data.cache import ArrayCache

N_ITEMS, WIDTH = 200, 40


@pytest.fixture
def data():
    """Features of falling importance: a gap after the eighth direction, and a far offset."""
    random = np.random.default_rng(0)
    strength = np.concatenate([np.linspace(8, 3, 8), np.full(WIDTH - 8, 0.2)])
    rotation, _ = np.linalg.qr(random.standard_normal((WIDTH, WIDTH)))
    raw = (random.standard_normal((N_ITEMS, WIDTH)) * strength) @ rotation + 100
    dataset = toy_dataset([])
    dataset.features = {"visual": raw.astype(np.float32)}
    return dataset


def centred(data):
    raw = data.features["visual"].astype(np.float64)
    return raw - raw.mean(axis=0)


@pytest.mark.parametrize("rank", [0, 8, WIDTH, 1000])
def test_features_have_zero_mean_and_unit_mean_square(data, rank):
    found = standardized_features(data, "visual", rank).double().numpy()
    assert found.shape == (N_ITEMS, 8 if rank == 8 else WIDTH)
    assert np.abs(found.mean(axis=0)).max() < 1e-5
    assert np.square(found).mean() == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("rank", [0, WIDTH, 1000])
def test_without_a_lower_rank_features_are_only_moved_and_scaled(data, rank):
    expected = centred(data)
    expected /= np.sqrt(np.square(expected).mean())
    np.testing.assert_allclose(standardized_features(data, "visual", rank).numpy(), expected, atol=1e-4)


def test_reduced_features_are_the_principal_components_of_a_full_decomposition(data):
    left, strength, _ = np.linalg.svd(centred(data), full_matrices=False)
    expected = left[:, :8] * strength[:8]
    expected /= np.sqrt(np.square(expected).mean())
    found = standardized_features(data, "visual", 8).double().numpy()
    # A component's sign is free; everything else is not.
    expected *= np.sign((expected * found).sum(axis=0))
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize("rank", [0, 8])
def test_items_that_lack_the_modality_take_no_part_and_have_zeros(data, rank):
    there = np.arange(N_ITEMS) % 3 > 0
    alone = toy_dataset([])
    alone.features = {"visual": data.features["visual"][there]}
    data.features["visual"][~there] *= -7
    data.present = {"visual": there}
    found = standardized_features(data, "visual", rank).numpy()
    assert not found[~there].any()
    expected = standardized_features(alone, "visual", rank).numpy()
    np.testing.assert_allclose(found[there], expected, atol=2e-3)


def test_leading_directions_span_the_leading_subspace_of_a_full_decomposition(data):
    matrix = centred(data).astype(np.float32)
    directions = leading_directions(matrix, 8).astype(np.float64)
    assert directions.shape == (WIDTH, 8)
    np.testing.assert_allclose(directions.T @ directions, np.eye(8), atol=1e-5)
    _, _, full = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    cosines = np.linalg.svd(full[:8] @ directions, compute_uv=False)
    assert cosines.min() > 1 - 1e-6, "cosines of the principal angles between the two subspaces"
    largest = directions[np.abs(directions).argmax(axis=0), np.arange(8)]
    assert (largest > 0).all(), "signs are fixed"


def test_power_iterations_find_the_subspace_where_the_spectrum_falls_slowly():
    random = np.random.default_rng(0)
    matrix = (random.standard_normal((300, 120)) * np.linspace(2, 1, 120)).astype(np.float32)
    directions = leading_directions(matrix, 10)
    exact = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    assert np.square(matrix @ directions).sum() > 0.98 * np.square(exact[:10]).sum()


def test_more_directions_than_items_cannot_be_had(data):
    data.features["visual"] = data.features["visual"][:5]
    assert standardized_features(data, "visual", 8).shape == (5, 5)


def test_constant_features_do_no_harm(data):
    raw = data.features["visual"]
    raw[:, 3] = 0.1
    found = standardized_features(data, "visual", 0).numpy()
    assert np.isfinite(found).all()
    assert np.abs(found[:, 3]).max() < 1e-6
    assert np.square(found).mean() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("rank", [0, 8])
def test_features_that_are_constant_altogether_become_zeros(data, rank):
    data.features["visual"] = np.full((N_ITEMS, WIDTH), 0.1, dtype=np.float32)
    assert not standardized_features(data, "visual", rank).any()


def test_raw_features_are_left_alone(data):
    before = data.features["visual"].copy()
    standardized_features(data, "visual", 0)
    standardized_features(data, "visual", 8)
    np.testing.assert_array_equal(data.features["visual"], before)


def test_the_result_comes_from_the_cache_unless_rank_or_features_change(data, tmp_path, monkeypatch):
    calls = []

    def counted(matrix, rank):
        calls.append(rank)
        return leading_directions(matrix, rank)

    monkeypatch.setattr(features, "leading_directions", counted)
    data.cache = ArrayCache(tmp_path)
    first = standardized_features(data, "visual", 8)
    assert standardized_features(data, "visual", 8).equal(first)
    assert calls == [8]
    assert standardized_features(data, "visual", 7).shape[1] == 7
    assert calls == [8, 7]
    data.features["visual"] = data.features["visual"] + np.eye(N_ITEMS, WIDTH, dtype=np.float32)
    del data.fingerprint  # of the features as they were
    assert not standardized_features(data, "visual", 8).equal(first)
    assert calls == [8, 7, 8]
