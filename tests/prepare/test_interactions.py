"""Tables are read, cleaned and numbered as said; what is left out is counted."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers import problems_of

from prepare import interactions
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
from prepare.lines import MAX_LINE, Tally, read_lines, shown, tally_lines
from prepare.sources.separated import moment, read_own
from utils.data.id_mapping import original_ids


def made(rows: list[tuple[object, ...]], ratings: bool = True, times: bool = True) -> Interactions:
    """Rows (user, item[, rating[, time]])."""
    collector = Collector(ratings, times)
    for user, item, *values in rows:
        collector.add(str(user), str(item), *values)  # type: ignore[arg-type]
    return collector.table()


def pairs(table: Interactions) -> list[tuple[str, str]]:
    return [(table.user_ids[u], table.item_ids[i]) for u, i in zip(table.users, table.items, strict=True)]


def dropped(tally: Tally) -> dict[str, int]:
    return {reason: entry["count"] for reason, entry in tally.record()["dropped"].items()}


# Reading


def own(tmp_path: Path, content: str | bytes, name: str = "x.csv", **columns: str) -> tuple[Interactions, Tally]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    table, tally, _ = read_own(path, columns)
    return table, tally


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
def test_the_separator_is_found(tmp_path, separator):
    lines = [["user_id", "item_id", "rating", "timestamp"], ["a", "x y", "4.5", "100"], ["007", "é", "1", "2024-01-01"]]
    table, tally = own(tmp_path, "\r\n".join(separator.join(line) for line in lines))
    assert pairs(table) == [("a", "x y"), ("007", "é")]
    assert table.ratings is not None
    assert table.times is not None
    assert table.ratings.tolist() == [4.5, 1.0]
    assert table.times.tolist() == [100, 1704067200]
    assert (tally.read, tally.kept) == (2, 2)


def test_columns_may_be_named_and_gzip_and_a_mark_of_utf8_are_read(tmp_path):
    content = gzip.compress("\ufeffwho;what;x_label\nu;i;train\nu;j;2\n".encode())
    table, _ = own(tmp_path, content, user="who", item="what", split="x_label")
    assert pairs(table) == [("u", "i"), ("u", "j")]
    assert (table.ratings, table.times) == (None, None)
    assert table.labels is not None
    assert table.labels.tolist() == [0, 2]
    table, _ = own(tmp_path, content, user="who", item="what")
    assert table.labels is None  # never assumed


def test_every_row_is_kept_or_counted(tmp_path):
    content = b'''user,item,rating,time
a,x,5,1
b,y
,x,5,1
a,,5,1
c,x,good,1
c,x,nan,1
c,x,5,soon

d,\xff\xfe,5,1
"e, f","say ""no""",3,2.7
g,x,"5"6,1
h,z\x07,1,1
i,x,2,3,4
j,k,1,2
'''
    table, tally = own(tmp_path, content)
    assert pairs(table) == [("a", "x"), ("e, f", 'say "no"'), ("j", "k")]
    assert (tally.read, tally.kept) == (14, 3)
    assert dropped(tally) == {
        "with another number of fields than the header": 2,
        "without user": 1,
        "without item": 1,
        "with a rating that is no number": 2,
        "with a time that is neither a number nor an ISO date": 1,
        "blank": 1,
        "with an id of item that is not UTF-8": 1,
        "not allowed by the format": 1,
        "with an id of item that cannot be printed": 1,
    }
    lines = tally_lines(tally.record())
    assert lines[0].startswith("x.csv: 14 rows = 3 kept + 2 with another number of fields than the header + ")
    assert "  with another number of fields than the header: 2, first line 3: b,y" in lines
    assert "  not allowed by the format: 1, first line 12: ',' expected after '\"'" in lines


def test_a_quote_that_is_never_closed_is_one_counted_row(tmp_path):
    table, tally = own(tmp_path, 'user,item\na,x\n"b,y\nc,z\n')
    assert pairs(table) == [("a", "x")]
    assert dropped(tally) == {"not allowed by the format": 1}
    assert "(lines 3 to 4)" in tally_lines(tally.record())[1]


GOOD, BAD = "a,x\n" * 90, "b;y\n" * 10


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (GOOD + BAD, ""),
        (
            GOOD + BAD + "b;y\n",
            "11 of 101 lines do not have the 2 fields of the header between ',' (first: line 92: b;y)",
        ),
        (BAD, ""),
        (BAD + "b;y\n", "11 of 11 lines"),
        (GOOD + '"a,x\n' + BAD[4:], ""),
        (
            GOOD[:80] + '"a,x\n' + GOOD,
            "91 of 111 lines do not have the 2 fields of the header between ',' (first: line 22: ",
        ),
    ],
)
def test_a_file_of_other_separators_or_an_open_quote_is_refused(tmp_path, content, problem):
    def read() -> object:
        return own(tmp_path, "user,item\n" + content)

    if problem:
        (found,) = problems_of(read)
        assert found.startswith(f"x.csv: {problem}")
        assert "expected one separator in the whole file" in found
    else:
        read()


def test_utf_16_is_told(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes("user,item\na,x\n".encode("utf-16"))
    assert problems_of(lambda: read_own(path, {})) == ["x.csv: it is UTF-16 text; save it as UTF-8"]


@pytest.mark.parametrize(
    ("content", "columns", "problem"),
    [
        (
            "7,8,9.5\n1,2,3\n",
            {},
            "x.csv: which column is the user? say --columns user=NAME; its columns are 7, 8, 9.5 (the first line has",
        ),
        ("", {}, "x.csv: the file is empty; expected a header"),
        ("a,b\n1,2\n", {}, "x.csv: which column is the user? say --columns user=NAME; its columns are a, b"),
        ("user,item\n1,2\n", {"time": "when"}, "x.csv: no column 'when' (time); its columns are user, item"),
        ("user,item\n1,2\n", {"item": "itm"}, "x.csv: no column 'itm' (item) (did you mean 'item'?); its columns"),
        ("user,item,user\n1,2,3\n", {}, "x.csv: two columns are called 'user'"),
    ],
)
def test_columns_that_are_not_there_are_named(tmp_path, content, columns, problem):
    found = problems_of(lambda: own(tmp_path, content, **columns))
    assert found[0].startswith(problem)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        (" 5.9 ", 5),
        ("-1.5", -2),
        ("1e3", 1000),
        ("2020-01-01T00:00:01Z", 1577836801),
        ("x", None),
        ("nan", None),
        ("", None),
    ],
)
def test_times(text, value):
    assert moment(text) == value


# Lines


def test_lines_of_any_length_are_read_or_counted(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b"a\r\n\n" + b"x" * (MAX_LINE + 1) + b"\nb\n" + b"y" * (3 * MAX_LINE) + b"\nc")
    for content in (path.read_bytes(), gzip.compress(path.read_bytes())):
        path.write_bytes(content)
        tally = Tally("lines")
        assert list(read_lines(path, tally)) == [(1, b"a"), (2, b""), (4, b"b"), (6, b"c")]
        assert dropped(tally) == {"longer than 4 MiB": 2}


def test_a_gzip_file_that_ends_early_is_refused_or_accepted(tmp_path):
    random = np.random.default_rng(0)
    lines = [f"{number} {random.random()}" for number in range(5000)]
    whole = gzip.compress("\n".join(lines).encode())
    path = tmp_path / "x.gz"
    for content, what in ((whole[: len(whole) // 2], "it ends early"), (whole[:-6] + b"123456", "it is damaged")):
        path.write_bytes(content)
        (problem,) = problems_of(lambda: list(read_lines(path, Tally("x.gz"))))
        assert problem.startswith(f"x.gz: not a whole gzip file: {what}")
        assert "--accept_truncated" in problem
        tally = Tally("x.gz")
        found = [line.decode() for _, line in read_lines(path, tally, accept_truncated=True)]
        tally.read += len(found)
        tally.kept = len(found)
        assert 1000 < len(found) < 5000
        assert found == lines[: len(found)]
        assert dropped(tally) == {"cut off at the end of the file": 1}
        assert tally.notes


def test_a_tally_that_does_not_add_up_is_a_mistake_of_ours():
    tally = Tally("x")
    tally.read = 3
    tally.kept = 1
    tally.drop("odd", 2, "y")
    with pytest.raises(RuntimeError, match="1 of 3 lines are not accounted for"):
        tally.record()


def test_examples_are_short_and_printable():
    assert shown(b"\xff\x00a\tb\n\x1b[31m") == "\\xff a b [31m"
    assert len(shown("x" * 1000)) == 60
    assert shown("\ud800") == "\\ud800"


# Cleaning


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
    assert len(interactions.load(tmp_path / "none.npz")) == 0


def test_mappings_are_read_back_by_runs(tmp_path):
    ids = ['say "no"', "a,b", "x y", "007", "NA", "é;", "'", "#1", '"']
    (tmp_path / "set").mkdir()
    write_mapping(tmp_path / "set" / "i_id_mapping.csv", ids, "itemID")
    assert original_ids({"data_path": str(tmp_path), "dataset": "set"}, "itemID", len(ids)) == ids
