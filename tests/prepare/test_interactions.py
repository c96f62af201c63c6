"""Interactions are cleaned, cut to a core, numbered and stored as said; what is left out is counted."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from helpers import problems_of

from prepare.interactions import (
    Collector,
    Interactions,
    above,
    k_core,
    load,
    renumbered,
    save,
    without_repeats,
    write_mapping,
)
from prepare.lines import Tally
from utils.data.id_mapping import original_ids


def made(rows: list[tuple[object, ...]], ratings: bool = True, times: bool = True) -> Interactions:
    """Rows (user, item[, rating[, time]])."""
    collector = Collector(ratings, times)
    for user, item, *values in rows:
        collector.add(str(user), str(item), *values)  # type: ignore[arg-type]
    return collector.table()


def pairs(table: Interactions) -> list[tuple[str, str]]:
    return [(table.user_ids[u], table.item_ids[i]) for u, i in zip(table.users, table.items, strict=True)]


def test_threshold():
    tally = Tally("t", "rows")
    table = made([("a", "x", 4.0), ("a", "y", 3.5), ("b", "x", 5.0)])
    assert pairs(above(table, 4, tally)) == [("a", "x"), ("b", "x")]
    assert tally.dropped["rated below 4"]["count"] == 1
    (problem,) = problems_of(lambda: above(made([("a", "x")], ratings=False), 4, tally))
    assert "--columns rating=NAME" in problem


def test_repeated_pairs():
    rows = [
        ("a", "x", 1.0, 9),
        ("a", "y", 2.0, 1),
        ("a", "x", 3.0, 5),
        ("a", "x", 4.0, 5),
        ("b", "x", 5.0, 9),
        ("a", "x", 6.0, 9),
    ]
    for keep, times, rating in (("first", True, 3.0), ("last", True, 6.0), ("first", False, 1.0), ("last", False, 6.0)):
        tally = Tally("t", "rows")
        table = made(rows, times=times)
        kept = without_repeats(table, keep, tally)
        assert sorted(pairs(kept)) == [("a", "x"), ("a", "y"), ("b", "x")]
        assert kept.ratings is not None
        assert dict(zip(pairs(kept), kept.ratings.tolist(), strict=True))[("a", "x")] == rating
        assert sum(entry["count"] for entry in tally.dropped.values()) == 3


def naive_core(rows: list[tuple[int, int]], k: int) -> list[tuple[int, int]]:
    while True:
        users, items = Counter(u for u, _ in rows), Counter(i for _, i in rows)
        kept = [(u, i) for u, i in rows if users[u] >= k and items[i] >= k]
        if len(kept) == len(rows):
            return rows
        rows = kept


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_k_core(k):
    random = np.random.default_rng(k)
    rows = list(
        dict.fromkeys(
            (int(u), int(i)) for u, i in zip(random.zipf(1.4, 900) % 90, random.zipf(1.4, 900) % 90, strict=True)
        )
    )
    tally = Tally("t", "rows")
    table, rounds = k_core(made(rows, False, False), k, tally)  # type: ignore[arg-type]
    assert [(int(u), int(i)) for u, i in pairs(table)] == naive_core(rows, k)
    assert sum(entry["rows"] for entry in rounds) == len(rows) - len(table)
    assert k == 1 or len(rounds) > 1
    tally.read, tally.kept = len(rows), len(table)
    tally.record()


def test_a_core_may_be_empty():
    table, rounds = k_core(made([("a", "x"), ("b", "y")], False, False), 2, Tally("t"))
    assert len(table) == 0
    assert rounds == [{"users": 2, "items": 2, "rows": 2}]


def test_numbers_are_given_in_order_of_appearance():
    table = made([("c", "z"), ("a", "y"), ("c", "x"), ("b", "z")], False, False)
    kept = renumbered(table.rows(np.array([False, True, True, True])))
    assert (kept.user_ids, kept.item_ids) == (["a", "c", "b"], ["y", "x", "z"])
    assert (kept.users.tolist(), kept.items.tolist()) == ([0, 1, 2], [0, 1, 2])


def test_ids_that_are_numbers_may_stay():
    table = renumbered(made([(3, 1), (0, 4), (3, 0)], False, False), keep_ids=True)
    assert (table.users.tolist(), table.items.tolist()) == ([3, 0, 3], [1, 4, 0])
    assert table.item_ids == ["0", "1", "2", "3", "4"]
    for bad in ("x", "01", "-1", "1.0", "²"):
        (problem,) = problems_of(lambda bad=bad: renumbered(made([(bad, 1)], False, False), keep_ids=True))
        assert problem.startswith("--keep_ids: expected ids of users that are whole numbers from 0")
    assert problems_of(lambda: renumbered(made([(0, 10**8)], False, False), keep_ids=True))


def test_tables_are_stored_whole_and_alike(tmp_path):
    table = made([("ü", "x", 1.5, 3), ("", "x\ny", 2.5, 4)])
    for name in ("a.npz", "b.npz"):
        save(table, tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    back = load(tmp_path / "a.npz")
    assert (back.user_ids, back.item_ids, back.labels) == (["ü", ""], ["x", "x\ny"], None)
    for name in ("users", "items", "ratings", "times"):
        assert (getattr(back, name) == getattr(table, name)).all()
    save(made([], False, False), tmp_path / "none.npz")
    assert len(load(tmp_path / "none.npz")) == 0


def test_mappings_are_read_back_by_runs(tmp_path):
    ids = ['say "no"', "a,b", "x y", "007", "NA", "é;", "'", "#1", '"']
    (tmp_path / "set").mkdir()
    write_mapping(tmp_path / "set" / "i_id_mapping.csv", ids, "itemID")
    assert original_ids({"data_path": str(tmp_path), "dataset": "set"}, "itemID", len(ids)) == ids
