"""Generated raw files: their formats, the sizes of the 5-core, and that as many defects are in them as are said to be."""

from __future__ import annotations

import ast
import csv
import gzip
import json
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_tools import contents, run_here
from helpers import problems_of

from prepare.synthetic_raw.raw_lines import names
from prepare.synthetic_raw.raw_spec import SIZES, RawSpec, draw
from prepare.synthetic_raw.write_raw import WRITERS, write_raw

SMALL = {"users": 60, "items": 40, "interactions": 500, "extra_ratings": 300, "extra_items": 50, "image_width": 8}
DEFECTS = {
    "malformed": 5,
    "duplicated": 6,
    "missing_metadata": 3,
    "empty_text": 2,
    "non_utf8": 4,
    "missing_images": 3,
    "broken_images": 4,
}


def written(folder: Path, source: str = "amazon2014", **changed: Any) -> dict[str, Any]:
    return write_raw(RawSpec(**{**SMALL, **changed}), folder, source)


def five_core(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The plain definition: users and items with fewer than five rows go until none is left."""
    while True:
        users, items = Counter(u for u, _ in pairs), Counter(i for _, i in pairs)
        kept = [(u, i) for u, i in pairs if users[u] >= 5 and items[i] >= 5]
        if len(kept) == len(pairs):
            return kept
        pairs = kept


@pytest.mark.parametrize("seed", [0, 1])
def test_the_five_core_is_the_one_that_was_asked_for(tmp_path: Path, seed: int) -> None:
    record = written(tmp_path / "raw", seed=seed)
    with open(tmp_path / "raw" / "ratings_Baby.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) == record["files"]["ratings_Baby.csv"]["lines"] == 800
    assert all(len(user) == 14 and len(item) == 10 for user, item, _, _ in rows)
    pairs = [(user, item) for user, item, _, _ in rows]
    assert len(set(pairs)) == len(pairs)
    once = [pair for pair in pairs if Counter(u for u, _ in pairs)[pair[0]] >= 5]
    core = five_core(pairs)
    assert len(core) == 500 < len(once)  # so one round is not enough
    assert (len({u for u, _ in core}), len({i for _, i in core})) == (60, 40)
    with gzip.open(tmp_path / "raw" / "reviews_Baby_5.json.gz", "rt") as file:
        reviews = [json.loads(line) for line in file]
    assert {(r["reviewerID"], r["asin"]) for r in reviews} == set(core)
    by_pair = {(user, item): (float(rating), int(when)) for user, item, rating, when in rows}
    assert all(by_pair[r["reviewerID"], r["asin"]] == (r["overall"], r["unixReviewTime"]) for r in reviews)


@pytest.mark.parametrize("source", WRITERS)
def test_equal_seeds_give_equal_bytes(tmp_path: Path, source: str) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        written(tmp_path / name, source, seed=seed, **DEFECTS)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def parsed_literals(lines: list[bytes]) -> tuple[list[dict[str, Any]], int]:
    """Lines with an asin that are Python literals, and how many are not."""
    good = []
    for line in lines:
        try:
            value = ast.literal_eval(line.decode("utf-8", "replace"))
        except (ValueError, SyntaxError):
            continue
        if isinstance(value, dict) and "asin" in value:
            good.append(value)
    return good, len(lines) - len(good)


def is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_the_defects_of_2014_are_those_that_were_planted(tmp_path: Path) -> None:
    record = written(tmp_path / "raw", **DEFECTS)["files"]
    ratings = (tmp_path / "raw" / "ratings_Baby.csv").read_text().splitlines()
    good = []
    for line in ratings:
        parts = line.split(",")
        if len(parts) == 4 and all(parts) and parts[2].replace(".", "").isdigit() and parts[3].isdigit():
            good.append((parts[0], parts[1]))
    assert len(ratings) == record["ratings_Baby.csv"]["lines"] == 800 + 5 + 6
    assert len(ratings) - len(good) == 5
    assert len(good) - len(set(good)) == 6

    lines = gzip.decompress((tmp_path / "raw" / "meta_Baby.json.gz").read_bytes()).splitlines()
    meta, bad = parsed_literals(lines)
    assert len(lines) == record["meta_Baby.json.gz"]["lines"] == 90 - 3 + 5
    assert (bad, len(meta)) == (5, 87)
    assert sum("title" not in item and "description" not in item for item in meta) == 2
    assert sum(not is_utf8(line) for line in lines) == 4

    lines = gzip.decompress((tmp_path / "raw" / "reviews_Baby_5.json.gz").read_bytes()).splitlines()
    assert len(lines) == record["reviews_Baby_5.json.gz"]["lines"] == 500 + 5 + 6
    assert sum(not is_utf8(line) for line in lines) == 4

    record_of = np.dtype([("asin", "S10"), ("feature", "<f4", (8,))])
    raw = (tmp_path / "raw" / "image_features_Baby.b").read_bytes()
    assert len(raw) == 57 * (10 + 4 * 8)
    records = np.frombuffer(raw, dtype=record_of)
    assert len(records) == record["image_features_Baby.b"]["records"] == 40 - 3 + 20
    assert int(np.isnan(records["feature"]).any(axis=1).sum()) == 4
    everything = names(np.arange(90), "B00", 10, 0)
    assert len(set(everything[:40].tolist()) - set(records["asin"].tolist())) == 3
    assert {item["asin"].encode() for item in meta} < set(everything.tolist())


def test_files_that_break_off(tmp_path: Path) -> None:
    record = written(tmp_path / "raw", cut=["reviews", "meta", "images"], image_width=4096)["files"]
    for name in ("reviews_Baby_5.json.gz", "meta_Baby.json.gz"):
        packed = (tmp_path / "raw" / name).read_bytes()
        with pytest.raises(EOFError):
            gzip.decompress(packed)
        left = zlib.decompressobj(31).decompress(packed)
        assert 0 < left.count(b"\n") == record[name]["complete_lines"] < record[name]["lines"]
    size = (tmp_path / "raw" / "image_features_Baby.b").stat().st_size
    assert divmod(size, 10 + 4 * 4096) == (record["image_features_Baby.b"]["records"] - 1, (10 + 4 * 4096) // 2)


def test_own_tables_and_images(tmp_path: Path) -> None:
    record = written(tmp_path / "raw", "own", **DEFECTS)["files"]
    rows = (tmp_path / "raw" / "interactions.csv").read_text().splitlines()
    assert rows[0] == "user,item,rating,time"
    assert len(rows) - 1 == record["interactions.csv"]["lines"] == 800 + 5 + 6
    text = (tmp_path / "raw" / "items.csv").read_bytes().decode("latin-1")
    items = list(csv.DictReader(text.splitlines()))
    assert len(items) == record["items.csv"]["items"] == 87
    assert sum(not item["title"] and not item["description"] for item in items) == 2
    files = list((tmp_path / "raw" / "images").iterdir())
    assert len(files) == record["images"]["files"] == 87
    whole = [path for path in files if path.read_bytes().endswith(b"IEND\xaeB`\x82")]
    assert len(files) - len(whole) == record["images"]["broken"] == 4
    head = whole[0].read_bytes()
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    start = head.index(b"IDAT") + 4
    assert len(zlib.decompress(head[start:-16])) == 16 * (1 + 3 * 16)


def test_there_is_something_to_learn(tmp_path: Path) -> None:
    """Items of one user are alike in what texts and images show, more than items at random are."""
    spec = RawSpec(users=300, items=120, interactions=3600, image_width=32, extra_ratings=0, extra_items=0)
    written_record = write_raw(spec, tmp_path / "raw")
    assert written_record["interactions"] == 3600
    drawn = draw(spec)
    features = np.fromfile(tmp_path / "raw" / "image_features_Baby.b", np.dtype([("asin", "S10"), ("x", "<f4", 32)]))[
        "x"
    ]
    centred = features - features.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    alike = centred @ centred.T
    taken = np.zeros((300, 120))
    taken[drawn.users, drawn.items] = 1
    together = taken.T @ taken
    off = ~np.eye(120, dtype=bool)
    assert np.corrcoef(alike[off], together[off])[0, 1] > 0.1


def test_names_are_distinct() -> None:
    numbers = np.arange(300_000)
    for seed in (0, 7):
        assert len(np.unique(names(numbers, "B00", 10, seed))) == len(numbers)
    assert names(numbers[:5], "A", 28, 1).dtype == "S28"


def test_presets_have_the_published_sizes() -> None:
    elec = SIZES["elec"]
    assert (elec.users, elec.items, elec.interactions) == (192_403, 63_001, 1_689_188)
    assert elec.interactions + elec.extra_ratings == 7_824_482
    assert SIZES["baby"].image_width == 4096


def test_mistakes_are_a_line_each(tmp_path: Path) -> None:
    assert problems_of(lambda: RawSpec(users=3, cut=["review"])) == [
        "generate_raw: --users: expected an integer of at least 10, got 3",
        "generate_raw: --cut: expected a list of words or null out of reviews, meta, images"
        ", got ['review'] (did you mean 'reviews'?)",
    ]
    (problem,) = problems_of(lambda: RawSpec(category="a/b"))
    assert problem == "generate_raw: --category: expected letters, digits, _ and -, got 'a/b'"
    assert problems_of(lambda: RawSpec(interactions=100)) == [
        "generate_raw: --interactions: expected 6,000 to 299,400 by users and items, got 100"
    ]
    assert problems_of(lambda: RawSpec(missing_images=400, broken_images=101)) == [
        "generate_raw: of images: 501 for 500 items; expected no more than items"
    ]
    written(tmp_path / "raw")
    assert "holds generated files already" in problems_of(lambda: written(tmp_path / "raw"))[0]


def test_the_command(tmp_path: Path) -> None:
    words = [word for name, value in SMALL.items() for word in (f"--{name}", value)]
    done = run_here("generate_raw", tmp_path / "raw", "--category", "Toys", *words, "--cut", "meta", "images")
    assert done.code == 0, done.err
    assert "500 interactions" in done.out
    assert (tmp_path / "raw" / "ratings_Toys.csv").is_file()
    assert json.loads((tmp_path / "raw" / "generated.json").read_text())["spec"]["cut"] == ["meta", "images"]
    assert run_here("generate_raw", "--help").code == 0
    wrong = run_here("generate_raw", tmp_path / "x", "--itms", 3, "--size", "big")
    assert (wrong.code, wrong.err.count("error:")) == (2, 2)
