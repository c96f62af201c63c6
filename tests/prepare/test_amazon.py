"""Raw Amazon files, whole and damaged: everything in them is kept or counted, and nothing in them is run."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import problems_of

from prepare.content.feature_files import from_matrix, from_records
from prepare.interactions import Interactions
from prepare.lines import Tally
from prepare.sources.amazon import find_raw, image_url, item_text, raw_url, read_meta, read_ratings, read_reviews
from prepare.sources.item_texts import Item, read_texts


def dropped(tally: Tally) -> dict[str, int]:
    return {reason: entry["count"] for reason, entry in tally.record()["dropped"].items()}


def rows(table: Interactions) -> list[tuple[str, str, float, int]]:
    assert table.ratings is not None
    assert table.times is not None
    columns = (table.users.tolist(), table.items.tolist(), table.ratings.tolist(), table.times.tolist())
    return [(table.user_ids[u], table.item_ids[i], r, t) for u, i, r, t in zip(*columns, strict=True)]


# Interactions


def test_ratings(tmp_path):
    path = tmp_path / "ratings_Baby.csv"
    path.write_bytes(
        b"U1,0000000001,5.0,1400000000\r\nU2,B1,1,1\nU1,B1\n\nU1,B1,x,1\nU1,B1,5,1.5\n,B1,5,1\nU\xff,B1,5,1\nU3,B1,2.0,7"
    )
    table, tally = read_ratings(path)
    assert rows(table) == [("U1", "0000000001", 5.0, 1400000000), ("U2", "B1", 1.0, 1), ("U3", "B1", 2.0, 7)]
    assert (tally.read, tally.kept) == (9, 3)
    assert dropped(tally) == {
        "malformed: not user,item,rating,timestamp": 1,
        "blank": 1,
        "malformed: without a rating that is a number": 1,
        "malformed: without a time that is a whole number": 1,
        "malformed: without user": 1,
        "malformed: with an id of user that is not UTF-8": 1,
    }
    assert tally.dropped["blank"]["first"] == 4


def review(**changed: Any) -> dict[str, Any]:
    content = {"reviewerID": "U", "asin": "B", "overall": 4.0, "unixReviewTime": 10, "reviewText": "fine"} | changed
    return {key: value for key, value in content.items() if value is not None}


def test_reviews_of_2014(tmp_path):
    lines: list[bytes] = [json.dumps(review()).encode(), json.dumps(review(reviewerID="V", overall="3")).encode()]
    lines += [b"{", b"[1]", b"", json.dumps(review(asin=None)).encode(), json.dumps(review(overall=True)).encode()]
    lines += [json.dumps(review(unixReviewTime="soon")).encode(), b'{"reviewerID": ' + b"[" * 100_000, b"1" * 5000]
    lines += [json.dumps(review(reviewerID="\ud800")).encode()]
    lines += [json.dumps(review(reviewerID="W", reviewText="?")).encode().replace(b"?", b"\xff")]
    path = tmp_path / "reviews_Baby_5.json.gz"
    path.write_bytes(gzip.compress(b"\n".join(lines) + b"\n"))
    table, tally = read_reviews(path, "amazon2014")
    assert rows(table) == [("U", "B", 4.0, 10), ("V", "B", 3.0, 10), ("W", "B", 4.0, 10)]
    assert (tally.read, tally.kept) == (12, 3)
    assert dropped(tally) == {
        "malformed: not a JSON object": 4,
        "blank": 1,
        "malformed: without item": 1,
        "malformed: without a rating that is a number": 1,
        "malformed: without a time that is a whole number": 1,
        "malformed: with an id of user that is not UTF-8": 1,
    }
    assert tally.notes["kept, with text that is not UTF-8"]["first"] == 12


def test_reviews_of_2023(tmp_path):
    path = tmp_path / "All_Beauty.jsonl"
    content = {"user_id": "AE", "parent_asin": "B01", "asin": "other", "rating": 5.0, "timestamp": 1588687728923}
    path.write_text(json.dumps(content) + "\n" + json.dumps(review()) + "\n")
    table, tally = read_reviews(path, "amazon2023")
    assert rows(table) == [("AE", "B01", 5.0, 1588687728923)]
    assert dropped(tally) == {"malformed: without user": 1}


# Metadata


def meta(path: Path, lines: list[bytes], wanted: list[str], source: str = "amazon2014") -> tuple[list[Item], Tally]:
    path.write_bytes(gzip.compress(b"\n".join(lines) + b"\n"))
    *items, tally = read_meta(path, source, {name: number for number, name in enumerate(wanted)})
    assert isinstance(tally, Tally)
    return items, tally  # type: ignore[return-value]


def test_metadata_of_2014_are_literals_and_nothing_is_run(tmp_path):
    mark = tmp_path / "ran"
    lines = [
        b"{'asin': 'B1', 'title': \"Bob's  Cup\", 'brand': 'Acme', 'categories': [['Baby', 'Cups']], "
        b"'description': 'Red\\n cup \\d'}",
        b"{'asin': 'B9', 'title': }",  # not wanted: not read further
        b"{'title': 'Late key', 'asin': 'B2', 'imUrl': 'http://x/y.jpg'}",
        b'{"asin": "B3", "title": "JSON", "price": null}',
        b'{"asin": "B4", "title": "it\\x41s"}',  # no JSON, but a literal
        f"{{'asin': 'B5', 'title': __import__('os').mkdir({str(mark)!r})}}".encode(),
        b"{'asin': 'B5', 'title': 'a' + 'b'}",
        b"{'asin': 'B5', 'title': " + b"-" * 50_000 + b"1}",
        b"{'asin': 'B5', 'title': '" + b"x" * (1 << 20) + b"'}",
        b"['asin']",
        b"{'asin': 'B1', 'title': 'again'}",
        b"{'asin': 'B6'}",
        b"{'asin': 'B7', 'title': 'caf\xe9'}",
        b"{'asin': 'B8', 'title': 'half \\ud800'}",
        b"{'asin': 'nul', 'title': '\0'}",
        b"",
    ]
    wanted = [f"B{n}" for n in range(1, 9)] + ["nul"]
    items, tally = meta(tmp_path / "meta_Baby.json.gz", lines, wanted)
    assert [(item.id, item.text) for item in items] == [
        ("B1", "Bob's Cup Acme Baby Cups Red cup \\d"),
        ("B2", "Late key"),
        ("B3", "JSON"),
        ("B4", "itAs"),
        ("B6", ""),
        ("B7", "caf\ufffd"),
        ("B8", "half \ufffd\ufffd\ufffd"),
    ]
    assert items[1].image == "http://x/y.jpg"
    assert not mark.exists()
    assert (tally.read, tally.kept) == (16, 7)
    assert dropped(tally) == {
        "of items that are not kept": 1,
        "malformed: not a Python literal or JSON object": 6,
        "of an item that has one already": 1,
        "blank": 1,
    }
    assert {what: entry["count"] for what, entry in tally.notes.items()} == {
        "kept, without any text": 1,
        "kept, with text that is not UTF-8": 1,
    }


def test_metadata_of_2023(tmp_path):
    content = {
        "parent_asin": "B1",
        "title": "Soap",
        "store": "Acme",
        "categories": ["Beauty", "Bath"],
        "features": ["mild"],
        "description": ["Clean.", "Green."],
        "images": [
            {"variant": "PT01", "large": "https://x/2.jpg"},
            {"variant": "MAIN", "hi_res": None, "large": "https://x/1.jpg"},
        ],
    }
    lines = [json.dumps(content).encode(), b"{'parent_asin': 'B2'}"]
    items, tally = meta(tmp_path / "meta.gz", lines, ["B1", "B2"], "amazon2023")
    assert items == [Item("B1", "Soap Acme Beauty Bath mild Clean. Green.", "https://x/1.jpg")]
    assert dropped(tally) == {"malformed: not a JSON object": 1}


@pytest.mark.parametrize(
    ("content", "url"),
    [
        ({}, ""),
        ({"imUrl": "http://a"}, "http://a"),
        ({"imUrl": "file:///etc/passwd"}, ""),
        ({"images": {"hi_res": [None, "https://b"], "large": ["https://c"]}}, "https://b"),
        ({"images": [{"thumb": "https://t"}]}, "https://t"),
        ({"images": [None, "x"]}, ""),
    ],
)
def test_addresses_of_images(content, url):
    assert image_url(content) == url


def test_fields_that_are_no_texts_are_no_text():
    assert (
        item_text({"title": None, "brand": {"a": 1}, "categories": [[1, ["x"]]], "description": True}, "amazon2014")
        == "1 x"
    )


# Texts of one's own


def own_texts(
    path: Path, content: str, columns: tuple[str, ...] = (), id_column: str | None = None
) -> tuple[list[Any], Tally]:
    path.write_text(content)
    *items, tally = read_texts(path, columns, id_column, {"a": 0, "b": 1, "c": 2})
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
            "t.csv: which column holds the item's id? say --text_id NAME; its columns are title, about",
        ),
        ("id,title\n", ("titel",), "t.csv: no column 'titel' (did you mean 'title'?); its columns are id, title"),
        ("id\n", (), "t.csv: no column besides 'id' that could be a text"),
    ],
)
def test_columns_of_texts_that_are_not_there(tmp_path, content, columns, problem):
    assert problems_of(lambda: own_texts(tmp_path / "t.csv", content, columns)) == [problem]


# Features


def record(asin: str, values: np.ndarray) -> bytes:
    return asin.encode().ljust(10, b"0")[:10] + struct.pack(f"<{len(values)}f", *values)


ITEMS = {f"{name:0<10}": number for number, name in enumerate(["A", "B", "C", "D"])}


def image_features(
    folder: Path, content: bytes, fill: str = "zero", **options: Any
) -> tuple[np.ndarray, np.ndarray, Tally]:
    source, target = folder / "image_features_Baby.b", folder / "image_feat.npy"
    source.write_bytes(content)
    tally, mask = from_records(source, ITEMS, target, fill, width=4, **options)
    stored = folder / "image_mask.npy"
    assert stored.exists() == (not mask.all())
    if stored.exists():
        assert (np.load(stored) == mask).all()
    return np.load(target), mask, tally


def test_image_features_go_to_their_items(tmp_path):
    values = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    content = b"".join(record(name, row) for name, row in zip("CXABCD", values, strict=True))
    matrix, mask, tally = image_features(tmp_path, content)
    assert matrix.dtype == np.float32
    assert (matrix == values[[2, 3, 0, 5]]).all()
    assert mask.all()
    assert (tally.read, tally.kept) == (6, 4)
    assert dropped(tally) == {"of items that are not kept": 1, "of an item that has one already": 1}


@pytest.mark.parametrize("fill", ["zero", "mean"])
def test_missing_rows_are_zero_or_the_mean_and_marked(tmp_path, fill):
    values = np.array([[1, 2, 3, 4], [3, 4, 5, 6], [np.nan, 0, 0, 0]], dtype=np.float32)
    content = b"".join(record(name, row) for name, row in zip("ADB", values, strict=True))
    matrix, mask, tally = image_features(tmp_path, content, fill)
    assert mask.tolist() == [True, False, False, True]
    assert (matrix[[0, 3]] == values[:2]).all()
    assert (matrix[[1, 2]] == ([2, 3, 4, 5] if fill == "mean" else 0)).all()
    assert dropped(tally) == {"with NaN or infinite values": 1}
    matrix, mask, _ = image_features(tmp_path, b"".join(record(name, values[0]) for name in "ABCD"))
    assert mask.all()  # and the mask file of before is gone


def test_a_wrong_record_size_is_refused(tmp_path):
    values = np.linspace(0.1, 1.3, 8, dtype=np.float32)
    whole = b"".join(record(name, values[:4]) for name in "ABCD")
    (problem,) = problems_of(lambda: image_features(tmp_path, whole[:-5]))
    assert problem.startswith(
        "image_features_Baby.b: 99 bytes are 3 records of 26 bytes (10 of ASIN and 4 float32) and 21 bytes"
    )
    _, mask, tally = image_features(tmp_path, whole[:-5], accept_truncated=True)
    assert mask.tolist() == [True, True, True, False]
    assert (tally.read, dropped(tally)) == (4, {"cut off at the end of the file": 1})
    # Of another width, 5 floats, the sizes happen to divide: 26 * 30 bytes.
    (problem,) = problems_of(lambda: image_features(tmp_path, b"".join(record(f"A{n}", values[:5]) for n in range(26))))
    assert "of 30 records of 26 bytes do not begin with an ASIN (first: record 2)" in problem
    assert "wrong record size or a damaged file" in problem


def test_a_single_bad_record_is_counted(tmp_path):
    values = np.ones(4, dtype=np.float32)
    content = b"".join(record(f"X{n}", values) for n in range(20)) + b"\xff" * 26 + record("A", values)
    _, mask, tally = image_features(tmp_path, content)
    assert mask.tolist() == [True, False, False, False]
    assert dropped(tally) == {"of items that are not kept": 20, "without an ASIN at the start": 1}
    assert tally.dropped["without an ASIN at the start"]["first"] == 21


def test_own_matrices_go_by_ids_or_by_number(tmp_path):
    matrix = np.arange(12, dtype=np.float16).reshape(4, 3)
    matrix[2, 1] = np.inf
    np.save(tmp_path / "a.npy", matrix)
    target = tmp_path / "audio_feat.npy"
    tally, mask = from_matrix(tmp_path / "a.npy", ["q", "p", "r", "p"], {"p": 0, "q": 1, "r": 2}, target, "zero")
    assert mask.tolist() == [True, True, False]
    assert np.load(target).dtype == np.float16
    assert (np.load(target) == [[3, 4, 5], [0, 1, 2], [0, 0, 0]]).all()
    assert dropped(tally) == {"with NaN or infinite values": 1, "of an item that has one already": 1}
    _, mask = from_matrix(tmp_path / "a.npy", None, {"0": 0, "3": 1}, target, "zero")
    assert (np.load(target) == matrix[[0, 3]]).all()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (np.zeros(3), "a.npy: expected numbers of shape [items, features], got float64 [3]"),
        (np.array([["x"]]), "a.npy: expected numbers of shape [items, features], got <U1 [1, 1]"),
        (np.array([[{}]], dtype=object), "a.npy: not a numeric .npy array: it holds Python objects"),
        (np.zeros((2, 2)), "a.npy: 2 rows, but 1 ids were given for them"),
    ],
)
def test_other_arrays_are_refused(tmp_path, content, problem):
    np.save(tmp_path / "a.npy", content, allow_pickle=True)
    assert problems_of(lambda: from_matrix(tmp_path / "a.npy", ["p"], {"p": 0}, tmp_path / "x_feat.npy", "zero")) == [
        problem
    ]


# Files


def test_raw_files_are_found_by_category(tmp_path):
    (problem,) = problems_of(lambda: find_raw(tmp_path / "none", "amazon2014", "Baby", None))
    assert "ratings_Baby.csv; no such folder. Put it there" in problem
    (problem,) = problems_of(lambda: find_raw(tmp_path, "amazon2014", "Baby", None))
    assert problem.startswith(f"{tmp_path}: no reviews_Baby_5.json.gz or ratings_Baby.csv; no file there. Put it there")
    for name in ("ratings_Baby.csv", "meta_Baby.json.gz"):
        (tmp_path / name).touch()
    assert set(find_raw(tmp_path, "amazon2014", "Baby", None)) == {"ratings", "meta"}
    (tmp_path / "reviews_Baby_5.json.gz").touch()
    assert set(find_raw(tmp_path, "amazon2014", "Baby", None)) == {"reviews", "meta"}
    assert set(find_raw(tmp_path, "amazon2014", "Baby", "ratings")) == {"ratings", "meta"}
    assert (
        "there is meta_Baby.json.gz, ratings_Baby.csv"
        in problems_of(lambda: find_raw(tmp_path, "amazon2014", "X", None))[0]
    )


def test_addresses_of_files():
    assert raw_url("amazon2014", "meta", "m", "http://h/x/") == "http://h/x/categoryFiles/m"
    assert raw_url("amazon2023", "reviews", "r").endswith("/raw/review_categories/r")
