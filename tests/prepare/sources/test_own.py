"""A user's own tables: separators, columns and rows; every row is kept or counted."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from helpers import problems_of

from prepare.interactions import Interactions
from prepare.lines import Reading, Tally, tally_lines
from prepare.sources.own import read_interactions, read_items
from prepare.sources.separated import timestamp
from prepare.sources.source import Item


def pairs(table: Interactions) -> list[tuple[str, str]]:
    return [(table.user_ids[u], table.item_ids[i]) for u, i in zip(table.users, table.items, strict=True)]


def dropped(tally: Tally) -> dict[str, int]:
    return {reason: entry["count"] for reason, entry in tally.record()["dropped"].items()}


def own(tmp_path: Path, content: str | bytes, name: str = "x.csv", **columns: str) -> tuple[Interactions, Tally]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    table, tally, _ = read_interactions(path, Reading(columns=columns))
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
    assert problems_of(lambda: read_interactions(path, Reading())) == ["x.csv: it is UTF-16 text; save it as UTF-8"]


@pytest.mark.parametrize(
    ("content", "columns", "problem"),
    [
        (
            "7,8,9.5\n1,2,3\n",
            {},
            "x.csv: which column is the user? add --columns user=NAME; its columns are 7, 8, 9.5 (the first line has",
        ),
        ("", {}, "x.csv: the file is empty; expected a header"),
        ("a,b\n1,2\n", {}, "x.csv: which column is the user? add --columns user=NAME; its columns are a, b"),
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
    assert timestamp(text) == value


def own_texts(
    path: Path, content: str, columns: tuple[str, ...] = (), id_column: str | None = None
) -> tuple[list[Any], Tally]:
    path.write_text(content)
    *items, tally = read_items(path, {"a": 0, "b": 1, "c": 2}, Reading(text_columns=columns, text_id=id_column))
    assert isinstance(tally, Tally)
    return items, tally


def test_own_texts(tmp_path):
    content = "title,item_id,about\nT1, a ,D  1\nT2,b,\nT3,z,D3\nT4,a,D4\n,c, \nx,y\nT5,,D5\n"
    items, tally = own_texts(tmp_path / "t.csv", content)
    assert items == [Item("a", "T1 D 1"), Item("b", "T2"), Item("c", "")]
    assert (tally.read, tally.kept) == (7, 3)
    assert dropped(tally) == {
        "of items that are not kept": 1,
        "of an item that has one already": 1,
        "with another number of fields than the header": 1,
        "without item": 1,
    }
    assert own_texts(tmp_path / "t.csv", content, ("about", "title"))[0][0] == Item("a", "D 1 T1")


@pytest.mark.parametrize(
    ("content", "columns", "problem"),
    [
        (
            "title,about\n",
            (),
            "t.csv: which column holds the item's id? add --text_id NAME; its columns are title, about",
        ),
        ("id,title\n", ("titel",), "t.csv: no column 'titel' (did you mean 'title'?); its columns are id, title"),
        ("id\n", (), "t.csv: no column besides 'id' that could be a text"),
    ],
)
def test_columns_of_texts_that_are_not_there(tmp_path, content, columns, problem):
    assert problems_of(lambda: own_texts(tmp_path / "t.csv", content, columns)) == [problem]


def test_empty_columns_of_texts_are_counted(tmp_path):
    _, tally = own_texts(tmp_path / "t.csv", "item,title,plot\na,T1,\nb,T2,P\nc,T3,\n")
    assert {what: entry["count"] for what, entry in tally.notes.items()} == {"kept, with an empty column 'plot'": 2}


@pytest.mark.parametrize("header", ["user_id:token\titem_id:token\trating:float", "user item rating"])
def test_typed_headers_and_spaces(tmp_path, header):
    separator = "\t" if "\t" in header else " "
    table, _ = own(tmp_path, header + "\n" + separator.join(["a", "x", "2.5"]) + "\n")
    assert (pairs(table), table.ratings.tolist()) == ([("a", "x")], [2.5])
