"""Raw Amazon files, whole and damaged: everything in them is kept or counted, and nothing in them is run."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from prepare.interactions import Interactions
from prepare.lines import Reading, Tally
from prepare.sources import amazon2014, amazon2023
from prepare.sources.amazon import image_url
from prepare.sources.source import Item


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
    table, tally, _ = amazon2014.SOURCE.interactions({"ratings": path}, Reading())
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
    table, tally, _ = amazon2014.SOURCE.interactions({"reviews": path}, Reading())
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
    table, tally, _ = amazon2023.SOURCE.interactions({"reviews": path}, Reading())
    assert rows(table) == [("AE", "B01", 5.0, 1588687728923)]
    assert dropped(tally) == {"malformed: without user": 1}


# Metadata


def meta(
    path: Path, lines: list[bytes], wanted: list[str], source: Any = amazon2014.SOURCE
) -> tuple[list[Item], Tally]:
    path.write_bytes(gzip.compress(b"\n".join(lines) + b"\n"))
    *items, tally = source.items({"meta": path}, {name: number for number, name in enumerate(wanted)}, Reading())
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
    items, tally = meta(tmp_path / "meta.gz", lines, ["B1", "B2"], amazon2023.SOURCE)
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


def test_fields_that_are_no_texts_are_no_text(tmp_path):
    line = repr({"asin": "B1", "title": None, "brand": {"a": 1}, "categories": [[1, ["x"]]], "description": True})
    items, _ = meta(tmp_path / "meta.gz", [line.encode()], ["B1"])
    assert items == [Item("B1", "1 x")]
