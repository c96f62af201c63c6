"""Every split against its rule spelled out row by row."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import problems_of

from audit.published_splits import published_splits, recognise, split_hash
from prepare.interactions import Interactions
from prepare.splits import KINDS, TEST, TRAIN, VALID, split

KINDS_BY_TIME = ("chronological", "leave_one_out", "global_time")


def table(counts: list[int], seed: int = 0, times: bool = True, moments: int = 40) -> Interactions:
    """Users with so many rows of distinct items, shuffled, with few enough moments for ties."""
    random = np.random.default_rng(seed)
    users = np.repeat(np.arange(len(counts)), counts)
    items = np.concatenate([random.permutation(max(counts))[:n] for n in counts])
    order = random.permutation(len(users))
    when = random.integers(0, moments, len(users)) if times else None
    return Interactions(
        users[order].astype(np.int32),
        items[order].astype(np.int32),
        None,
        when,
        [f"u{n}" for n in range(len(counts))],
        [f"i{n}" for n in range(max(counts))],
    )


COUNTS = [1, 2, 3, 4, 5, 9, 10, 11, 14, 15, 19, 20, 24, 25, 30, 57]


def per_user(data: Interactions, labels: np.ndarray) -> dict[int, tuple[int, int, int]]:
    return {
        user: tuple(int(((data.users == user) & (labels == label)).sum()) for label in (TRAIN, VALID, TEST))
        for user in range(len(data.user_ids))
    }


@pytest.mark.parametrize("kind", ["mmrec", "chronological"])
def test_how_many_rows_each_user_holds_out(kind):
    data = table(COUNTS)
    found = per_user(data, split(data, kind))
    for user, n in enumerate(COUNTS):
        held = 0 if n < 3 else 2 if n < 10 else n // 5
        valid = min(held // 2, held)
        assert found[user] == (n - held, valid, held - valid), n


def test_ratios_and_least_counts_are_parameters():
    data = table([3, 4, 7, 8, 20, 40])
    found = per_user(data, split(data, "mmrec", ratios=(0.5, 0.1, 0.4), few=8, least=4))
    assert found == {0: (3, 0, 0), 1: (2, 1, 1), 2: (5, 1, 1), 3: (4, 0, 4), 4: (10, 2, 8), 5: (20, 4, 16)}


def test_the_random_split_is_that_of_its_seed():
    data = table(COUNTS)
    first = split(data, "mmrec", seed=1)
    assert (first == split(data, "mmrec", seed=1)).all()
    assert (first != split(data, "mmrec", seed=2)).any()
    # What it holds out is spread over a user's rows: not the last ones of the file or in time.
    held = np.concatenate(
        [np.flatnonzero(split(table([100], seed), "mmrec", seed=seed) != TRAIN) for seed in range(200)]
    )
    counts = np.bincount(held, minlength=100)
    assert held.size == 4000
    assert abs(counts.mean() - 40) < 1e-9
    assert counts.max() < 75  # 40 with a standard deviation below 6
    assert counts.min() > 12


@pytest.mark.parametrize("kind", ["chronological", "leave_one_out"])
def test_what_is_held_out_is_latest_and_ties_go_by_item(kind):
    data = table(COUNTS, moments=6)
    labels = split(data, kind)
    assert data.times is not None
    ties = 0
    for user, n in enumerate(COUNTS):
        rows = np.flatnonzero(data.users == user)
        ordered = sorted(rows.tolist(), key=lambda row: (data.times[row], data.items[row]))
        assert labels[ordered].tolist() == sorted(labels[ordered].tolist())
        ties += n - len(set(data.times[rows].tolist()))
        if kind == "leave_one_out":
            assert (labels[rows] != TRAIN).sum() == (0 if n < 3 else 2)
    assert ties > 50


def test_global_time_cuts_at_two_moments():
    data = table(COUNTS, moments=1000)
    labels = split(data, "global_time", ratios=(0.7, 0.1, 0.2))
    assert data.times is not None
    ends = [(data.times[labels == label].min(), data.times[labels == label].max()) for label in (TRAIN, VALID, TEST)]
    assert ends[0][1] < ends[1][0]
    assert ends[1][1] < ends[2][0]
    shares = np.bincount(labels) / len(labels)
    assert np.abs(shares - [0.7, 0.1, 0.2]).max() < 0.02


def test_the_order_of_the_file_changes_no_split_by_time():
    data = table(COUNTS, moments=50)
    order = np.random.default_rng(5).permutation(len(data))
    for kind in KINDS_BY_TIME:
        assert (split(data, kind)[order] == split(data.rows(order), kind)).all(), kind


@pytest.mark.parametrize("kind", KINDS_BY_TIME)
def test_no_times_no_split_by_time(kind):
    (problem,) = problems_of(lambda: split(table(COUNTS, times=False), kind))
    assert problem.startswith(f"--split {kind}: the interactions have no times")


def test_an_empty_split_is_refused():
    (problem,) = problems_of(lambda: split(table([2, 2]), "mmrec"))
    assert problem.startswith("--split mmrec: valid and test would be empty (4 interactions)")
    (problem,) = problems_of(lambda: split(table(COUNTS, moments=1), "global_time"))
    assert "train and valid would be empty" in problem
    (problem,) = problems_of(lambda: split(table(COUNTS), "given"))
    assert "name it with --columns split=NAME" in problem


def test_every_kind_labels_every_row():
    data = table(COUNTS, moments=1000)
    data.labels = np.arange(len(data), dtype=np.int8) % 3
    for kind in KINDS:
        labels = split(data, kind)
        assert labels.dtype == np.int8
        assert set(labels.tolist()) == {TRAIN, VALID, TEST}, kind


def test_cold_items_are_held_out_whole_and_the_others_as_by_users():
    data = table([40] * 30)
    labels = split(data, "cold_items", seed=3)
    found = [set(labels[data.items == item].tolist()) for item in range(40)]
    for label in (VALID, TEST):
        assert sum(one == {label} for one in found) == 4, "a tenth of the items, all of their rows"
    warm = np.array([TRAIN in one for one in found])[data.items]
    part = data.rows(warm)
    held = {user: np.bincount(labels[warm][part.users == user], minlength=3).tolist() for user in range(30)}
    assert all(counts == [26, 3, 3] for counts in held.values()), held
    assert (labels != split(data, "cold_items", seed=4)).any()


def test_published_splits_are_recognised_by_counts_and_hash(monkeypatch):
    data = table([30] * 10)
    labels = split(data, "mmrec")
    rows = (data.users, data.items, labels)
    assert recognise(*rows) == ""
    known = {"source": "S", "users": 10, "items": 30, "interactions": 300}
    counts = {"train": 240, "valid": 30, "test": 30}
    monkeypatch.setattr("audit.published_splits.published_splits", lambda: {"it": known})
    assert "split again: not the published split" in recognise(*rows)
    known |= counts
    assert recognise(*rows).startswith("the counts of the published split of it (S); its hash is not known")
    known |= {"sha256": split_hash(*rows)}
    assert recognise(*rows) == "the published split of it (S), by counts and hash"
    order = np.random.default_rng(0).permutation(300)
    assert recognise(*(column[order] for column in rows)) == "the published split of it (S), by counts and hash"
    assert "but not its rows" in recognise(data.users, data.items, split(data, "mmrec", seed=1))
    known["train"] = 239
    assert "split again" in recognise(*rows)


def test_the_table_of_published_splits_adds_up():
    for name, known in published_splits().items():
        if "train" in known:
            assert known["train"] + known["valid"] + known["test"] == known["interactions"], name
    assert {"baby", "sports", "clothing", "elec", "tiktok"} <= published_splits().keys()
