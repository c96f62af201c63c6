"""What is added to scores at evaluation, against loops in double precision."""

import math
from types import SimpleNamespace

import naive
import numpy as np
import pytest
import torch
from toys import CPU, N_ITEMS, N_USERS, make_config, toy_dataset, uneven

from common import scorers as scorers_module
from common import spectral
from common.scorers import DAMPINGS, WEIGHTS, Scorers, ScorerWeights, spread
from utils.data.dataset import Split


def made(data, **weights):
    return Scorers(data, CPU, ScorerWeights(**weights))


def some_scores(seed=0, rows=N_USERS):
    return torch.from_numpy(np.random.default_rng(seed).normal(3, 2, (rows, N_ITEMS)).astype(np.float32))


def naive_popularity(data, damping):
    """Log popularity of each item, of mean 0 and standard deviation 1."""
    pairs = {*zip(data.train.users.tolist(), data.train.items.tolist(), strict=True)}
    taken = [sum(u == v for v, _ in pairs) for u in range(N_USERS)]
    counts = [sum(taken[u] ** -damping for u, j in pairs if j == i) for i in range(N_ITEMS)]
    logs = [math.log(1 + count * len(pairs) / sum(counts)) for count in counts]
    mean = sum(logs) / N_ITEMS
    deviation = math.sqrt(sum((value - mean) ** 2 for value in logs) / N_ITEMS)
    return np.array([(value - mean) / deviation for value in logs])


def naive_co_occurrence(data, damping):
    """[U, I], the user's largest 1 in the mean over users who have any."""
    taken = [
        len({u for u, j in zip(data.train.users, data.train.items, strict=True) if j == i}) for i in range(N_ITEMS)
    ]
    found = naive.co_occurrence(data.train.users, data.train.items, N_USERS, N_ITEMS)
    for u in range(N_USERS):
        for i in range(N_ITEMS):
            found[u, i] /= max(taken[i], 1) ** damping
    largest = [max(row) for row in found if max(row) > 0]
    return found / (sum(largest) / len(largest))


@pytest.mark.parametrize(
    "weights",
    [
        {"popularity": 0.5},
        {"popularity": 1.5, "popularity_damping": 0.7},
        {"co_occurrence": 2.0},
        {"co_occurrence": 0.5, "co_occurrence_damping": 0.3},
        {"popularity": 0.2, "popularity_damping": 1.0, "co_occurrence": 3.0, "co_occurrence_damping": 0.5},
    ],
    ids=str,
)
def test_what_is_added_is_that_of_the_formula(weights):
    data = uneven(toy_dataset())
    scores, users = some_scores(rows=5), torch.tensor([3, 0, 30, 7, 12])  # 30 has taken nothing
    by_popularity = naive_popularity(data, weights.get("popularity_damping", 0))
    by_co_occurrence = naive_co_occurrence(data, weights.get("co_occurrence_damping", 0))
    expected = []
    for row, user in zip(scores.double().tolist(), users.tolist(), strict=True):
        mean = sum(row) / len(row)
        sigma = math.sqrt(sum((value - mean) ** 2 for value in row) / len(row))
        expected.append([
            s + sigma * (weights.get("popularity", 0) * p + weights.get("co_occurrence", 0) * c)
            for s, p, c in zip(row, by_popularity, by_co_occurrence[user], strict=True)
        ])  # fmt: skip
    found = made(data, **weights).add(scores, users)
    assert found is scores, "in place"
    np.testing.assert_allclose(found.numpy(), np.array(expected), rtol=1e-4, atol=1e-5)


def test_weights_of_zero_add_nothing_and_count_nothing(monkeypatch):
    monkeypatch.setattr(scorers_module, "log_popularity", None)
    monkeypatch.setattr(scorers_module, "co_occurring_items", None)
    scores = some_scores()
    found = made(toy_dataset(), popularity_damping=0.5, co_occurrence_damping=0.5).add(scores.clone(), torch.arange(31))
    assert torch.equal(found, scores)


@pytest.mark.parametrize(("factor", "offset"), [(100.0, 0.0), (1e-3, 0.0), (1.0, 5000.0), (1e-4, -3.0)])
def test_the_order_does_not_depend_on_the_scale_of_the_scores(factor, offset):
    """With an offset of thousands of spreads, too: the mean is taken off before squares are summed."""
    scorers = made(uneven(toy_dataset()), popularity=0.7, co_occurrence=1.0)
    scores, users = some_scores(), torch.arange(N_USERS)
    other = scorers.add(scores * factor + offset, users)
    expected = scorers.add(scores.clone(), users) * factor + offset
    torch.testing.assert_close(other, expected, rtol=1e-4, atol=2e-4 * factor + 1e-6 * abs(offset))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_scores_of_other_precisions_stay_so(dtype):
    scores, users = some_scores(), torch.arange(N_USERS)
    scorers = made(toy_dataset(), popularity=0.5, co_occurrence=1.0)
    found = scorers.add(scores.to(dtype), users)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), scorers.add(scores, users), rtol=0.02, atol=0.1)


def test_a_row_does_not_depend_on_the_others():
    scorers = made(uneven(toy_dataset()), popularity=0.5, co_occurrence=1.0)
    scores, users = some_scores(), torch.arange(N_USERS)
    together = scorers.add(scores.clone(), users)
    for rows in ([4], [7, 2], [*range(20)]):
        assert torch.equal(scorers.add(scores[rows], users[rows]), together[rows])


def test_items_out_of_the_ranking_do_not_count_in_the_spread_and_stay_out():
    scores = torch.tensor([[1.0, 3.0, -torch.inf, 5.0], [2.0, 2.0, 2.0, 2.0], [-torch.inf] * 4])
    torch.testing.assert_close(spread(scores), torch.tensor([math.sqrt(8 / 3), 1.0, 1.0]))
    scores = some_scores()
    scores[3, 5] = -torch.inf
    found = made(toy_dataset(), popularity=1.0, co_occurrence=1.0).add(scores, torch.arange(N_USERS))
    assert found[3, 5] == -torch.inf
    assert torch.isfinite(found).sum() == found.numel() - 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_bad_score_stays_bad_and_is_seen_by_the_evaluation(value):
    scores = some_scores()
    scores[3, 5] = value
    found = made(toy_dataset(), popularity=1.0, co_occurrence=1.0).add(scores, torch.arange(N_USERS))
    assert not found[3, 5] < math.inf


def test_scores_that_are_all_equal_leave_the_ranking_to_what_is_added():
    scores = torch.zeros(2, N_ITEMS)
    found = made(toy_dataset(), popularity=2.0).add(scores, torch.tensor([0, 1]))
    np.testing.assert_allclose(found[0].numpy(), 2 * naive_popularity(toy_dataset(), 0), rtol=1e-4, atol=1e-5)


def test_data_without_popularity_or_co_occurrence_add_nothing():
    data = toy_dataset()
    everyone, everything = np.repeat(np.arange(N_USERS), N_ITEMS), np.tile(np.arange(N_ITEMS), N_USERS)
    data.splits["train"] = Split(everyone, everything)  # all items are equally popular and everybody's own
    scores = some_scores()
    found = made(data, popularity=1.0, co_occurrence=1.0).add(scores.clone(), torch.arange(N_USERS))
    torch.testing.assert_close(found, scores)


def test_only_the_largest_values_of_co_occurrence_count(monkeypatch):
    monkeypatch.setattr(spectral, "MOST_COMPANIONS", 3)
    scores = some_scores()
    found = made(toy_dataset(), co_occurrence=1.0).add(scores.clone(), torch.arange(N_USERS))
    assert ((found != scores).sum(dim=1) <= 3).all()
    assert (found != scores).any()


def test_weights_may_change_between_two_calls_and_counts_are_made_once(monkeypatch):
    calls = []

    def counted(dataset, damping, original=scorers_module.co_occurring_items):
        calls.append(damping)
        return original(dataset, damping)

    monkeypatch.setattr(scorers_module, "co_occurring_items", counted)
    scorers, users = made(toy_dataset()), torch.arange(N_USERS)
    for damping in (0.5, 0.0, 0.5, 0.5):
        scorers.weights = ScorerWeights(co_occurrence=1.0, co_occurrence_damping=damping)
        expected = made(toy_dataset(), co_occurrence=1.0, co_occurrence_damping=damping)
        assert torch.equal(scorers.add(some_scores(), users), expected.add(some_scores(), users))
    assert calls[0] == 0.5
    assert len(calls) == 4 + 2, "once for each damping, and once for each of the four to compare with"


# What calibration tries


def test_with_both_scorers_off_the_ladders_are_tried():
    choices = ScorerWeights().choices()
    assert list(choices) == ["co_occurrence", "co_occurrence_damping", "popularity", "popularity_damping"]
    assert choices["co_occurrence"] == [*WEIGHTS["co_occurrence"]] == [0, 0.25, 0.5, 1, 2, 4]
    assert choices["popularity"] == [*WEIGHTS["popularity"]] == [0, 0.1, 0.2, 0.5, 1]
    assert choices["popularity_damping"] == choices["co_occurrence_damping"] == [*DAMPINGS]


def test_what_is_configured_comes_first_then_none_and_multiples_and_what_is_off_stays_off():
    choices = ScorerWeights(popularity=0.5, popularity_damping=0.3).choices()
    assert choices == {"popularity": [0.5, 0, 0.25, 0.75, 1, 1.5], "popularity_damping": [0.3, 0, 0.5]}
    choices = ScorerWeights(co_occurrence=2).choices()
    assert choices == {"co_occurrence": [2, 0, 0.5, 1, 4, 8], "co_occurrence_damping": [0, 0.5]}
    both = ScorerWeights(co_occurrence=2, popularity=1).choices()
    assert [values[0] for values in both.values()] == [2, 0, 1, 0]


def test_dampings_of_what_is_off_make_no_difference():
    assert ScorerWeights(popularity_damping=0.5, co_occurrence_damping=1).effective() == ScorerWeights()
    weights = ScorerWeights(1, 0.5, 2, 0.25)
    assert weights.effective() == weights
    assert ScorerWeights.of(weights.values()) == weights


def test_memory_of_counting_is_asked_for_where_it_may_be_needed():
    data = toy_dataset()
    expected = 20 * min(sum(int(n) ** 2 for n in np.bincount(data.train.users)), N_ITEMS**2)
    needed = [
        ({}, 0),
        ({"popularity": 1.0}, 0),
        ({"popularity": 1.0, "calibration": True}, 0),
        ({"calibration": True}, expected),
        ({"co_occurrence": 1.0}, expected),
    ]
    for settings, size in needed:
        assert sum(Scorers.memory_needed(make_config("BPR", **settings), data).values()) == size, settings


def test_counts_of_a_damping_are_kept_apart_in_the_cache(tmp_path):
    """A data set with a cache hands out what was counted with the same damping, and nothing else."""
    data = uneven(toy_dataset())
    kept = {}

    def derived(name, version, inputs, build):
        return kept.setdefault((name, version, str(inputs)), build())

    cached = SimpleNamespace(
        n_users=data.n_users, n_items=data.n_items, train=data.train, fingerprint={"train": ""}, derived=derived
    )
    users = torch.arange(N_USERS)
    found = [
        made(cached, co_occurrence=1.0, co_occurrence_damping=damping).add(some_scores(), users)
        for damping in (0.0, 0.5, 0.0)
    ]
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])
    assert len(kept) == 2
