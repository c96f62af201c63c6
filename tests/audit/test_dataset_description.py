"""The description of a data set: its figures against plain counting, the health of its features, what is broken."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_tools import contents, run_here, toy_rows, write_dataset
from helpers import ROWS, problems_of, write_set

from audit.dataset_description import describe, plot_degrees
from audit.feature_health import Health


def health_of(tmp_path: Path, matrix: Any, **files: Any) -> Health:
    """The health of image_feat.npy beside the four items of ROWS."""
    folder = write_set(tmp_path, features={"image_feat.npy": matrix, **files})
    (health,) = describe(folder, "toy").features
    return health


def test_sizes_splits_and_degrees(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "toy")
    rows = toy_rows()
    found = describe(folder, "toy")
    assert found.sizes["interactions"] == len(rows)
    assert (found.sizes["users"], found.sizes["items"]) == (40, 55)
    assert found.sparsity == pytest.approx(1 - len(rows) / (40 * 55))
    for label, split in enumerate(("train", "valid", "test")):
        mine = [row for row in rows if row[2] == label]
        assert found.splits[split] == {
            "rows": len(mine),
            "users": len({user for user, _, _ in mine}),
            "items": len({item for _, item, _ in mine}),
        }
        assert found.sizes[split] == len(mine)
    for degrees, place in zip(found.degrees, (0, 1), strict=True):
        counts = sorted(Counter(row[place] for row in rows).values())
        assert degrees.mean == pytest.approx(sum(counts) / len(counts))
        assert (degrees.most, degrees.none) == (counts[-1], (40, 55)[place] - len(counts))
        assert sum(degrees.counts) == len(counts)
        assert degrees.counts == [sum(2**k <= n < 2 ** (k + 1) for n in counts) for k in range(len(degrees.counts))]
        differences = sum(abs(a - b) for a in counts for b in counts)
        assert degrees.gini == pytest.approx(differences / (2 * len(counts) * sum(counts)))
        assert sum(n <= degrees.percentile_90 for n in counts) >= 0.9 * len(counts)
        assert sum(n < degrees.percentile_90 for n in counts) < 0.9 * len(counts)


def test_the_lines_print_what_papers_print(tmp_path: Path) -> None:
    lines = describe(write_set(tmp_path), "toy").lines()
    assert lines[0] == "toy: 3 users, 4 items, 11 interactions, sparsity 8.333%"
    assert lines[1] == "  train: 5 rows (45.5%), 3 users (1.67 each), 4 items (1.25 each)"
    assert lines[4] == ""
    assert lines[5].startswith("interactions of users: mean 3.67, median 4, 90% have at most 4")
    at = lines.index(next(line for line in lines if line.startswith("interactions of users")))
    assert lines[at + 1 : at + 4] == [
        "    1 0",
        "  2-3 1 ####################",
        "  4-7 2 ########################################",
    ]


def test_the_record_is_the_same_whenever_the_files_are(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "toy")
    first = describe(folder, "toy").record()
    assert json.loads(json.dumps(first)) == first
    (folder / "manifest.json").write_text('{"made": "today"}')
    assert describe(folder, "toy").record() == first


def test_published_counts(tmp_path: Path) -> None:
    expected = {"users": 40, "items": 55, "train": 1}
    lines = describe(write_dataset(tmp_path / "toy", expected=expected), "toy").lines()
    n_train = sum(row[2] == 0 for row in toy_rows())
    assert f"published counts of toy: differs: {n_train} train for 1" in lines
    lines = describe(write_dataset(tmp_path / "b" / "toy", expected={"users": 40}), "toy").lines()
    assert "published counts of toy: the same: users" in lines


def test_cold_and_repeated_rows_are_noted(tmp_path: Path) -> None:
    rows = [*ROWS, (0, 0, 0), (0, 0, 2), (3, 4, 2), (4, 0, 0)]
    found = describe(write_set(tmp_path, rows, features={}), "toy")
    assert found.notes == [
        "2 rows repeat a (user, item) pair, within a split or in two",
        "1 users of validation or test have no training row",
        "1 items of validation or test have no training row",
    ]
    assert "no feature files" in found.lines()


def test_times(tmp_path: Path) -> None:
    rows = [(user, item, 1000 + item, label) for user, item, label in ROWS]
    folder = write_set(tmp_path, rows, header=("userID", "itemID", "timestamp", "x_label"))
    assert "  timestamps from 1000 to 1003" in describe(folder, "toy").lines()


def test_healthy_features_against_numpy(tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).normal(3, 2, (4, 7)).astype(np.float32)
    health = health_of(tmp_path, matrix)
    assert (health.rows, health.width, health.dtype) == (4, 7, "float32")
    wide = matrix.astype(np.float64)
    assert health.mean == pytest.approx(wide.mean())
    assert health.std == pytest.approx(wide.std())
    assert (health.low, health.high) == (wide.min(), wide.max())
    lengths = np.linalg.norm(wide, axis=1)
    assert health.length == pytest.approx(lengths.mean())
    assert health.offset == pytest.approx(np.linalg.norm(wide.mean(axis=0)) / lengths.mean())
    assert (health.zero, health.broken, health.repeated, health.constant, health.missing) == (0, 0, 0, 0, None)
    assert "not centred" in health.lines()[0]
    assert health.problems == []


def test_blocks_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_dataset(tmp_path / "toy")
    whole = describe(folder, "toy").features
    monkeypatch.setattr("audit.feature_health.BLOCK", 7)
    for before, after in zip(whole, describe(folder, "toy").features, strict=True):
        assert vars(after) == {k: pytest.approx(v) if isinstance(v, float) else v for k, v in vars(before).items()}


def test_centred_features(tmp_path: Path) -> None:
    health = health_of(tmp_path, np.array([[1, 2], [-1, -2], [3, 1], [-3, -1]], dtype=np.float16))
    assert health.offset == 0
    assert health.lines()[0].endswith("; centred")


def test_rows_that_are_zero_repeated_or_broken(tmp_path: Path) -> None:
    matrix = np.array([[0, 0, 5], [np.nan, 1, 5], [0, 0, 0], [-0.0, 0, 5]], dtype=np.float32)
    health = health_of(tmp_path, matrix, **{"image_mask.npy": np.array([True, True, False, True])})
    assert (health.zero, health.broken, health.repeated, health.largest_group, health.missing) == (1, 1, 2, 2, 1)
    assert health.constant == 2
    assert health.lines()[1] == (
        "  1 rows all zero (25.0%), 2 rows equal to another (largest group 2) (50.0%), 1 rows with NaN or infinite values "
        "(25.0%), 2 constant columns; 1 items missing (25.0%) by the mask"
    )
    health = health_of(tmp_path / "all", np.full((4, 2), np.inf))
    assert (health.broken, health.mean) == (4, 0)


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (np.ones((3, 2)), "3 rows for 4 items; fewer rows than items: runs refuse it"),
        (np.ones((6, 2)), "6 rows for 4 items; the rows beyond are left out"),
        (np.ones(4), "not a numeric .npy matrix: expected a matrix of numbers, got float64 [4]"),
        (np.array([["a"]] * 4), "not a numeric .npy matrix: expected a matrix of numbers, got <U1 [4, 1]"),
        (np.array([[{}]] * 4, dtype=object), "not a numeric .npy matrix: it holds Python objects"),
        (b"no array", "not a numeric .npy matrix"),
        (b"", "not a numeric .npy matrix"),
    ],
)
def test_files_that_are_no_features_are_told(tmp_path: Path, matrix: Any, words: str) -> None:
    health = health_of(tmp_path, matrix)
    assert words in health.problems[0]
    assert f"  problem: {health.problems[0]}" in health.lines()


@pytest.mark.parametrize("mask", [np.ones(3, dtype=bool), np.ones(4), b"nothing", b""])
def test_masks_that_do_not_fit_are_told(tmp_path: Path, mask: Any) -> None:
    health = health_of(tmp_path, np.ones((4, 2)), **{"image_mask.npy": mask})
    assert health.missing is None
    assert health.problems[0].startswith("image_mask.npy cannot be used")


def test_the_command(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "toy")
    manifest = {"made": "2026-01-02", "source": {"name": "own"}, "inputs": [{"file": "a.csv", "bytes": 7}],
                "split": {"kind": "mmrec", "seed": 3}, "modalities": {"text": {"encoder": {"name": "tfidf"}}}}  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    before = contents(folder)
    words = [
        "describe",
        "toy",
        "--data_path",
        tmp_path,
        "--output",
        tmp_path / "out.json",
        "--plots",
        tmp_path / "plots",
    ]
    done = run_here(*words)
    assert done.code == 0, done.err
    for line in ("manifest.json: made 2026-01-02", "  source: name own", "  split: kind mmrec, seed 3",
                 "  input: file a.csv, bytes 7", "  text: name tfidf"):  # fmt: skip
        assert line in done.out.splitlines()
    assert contents(folder) == before
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["manifest"] == manifest
    assert written["sizes"]["users"] == 40
    assert ElementTree.parse(tmp_path / "plots" / "degrees.svg").getroot().tag.endswith("svg")


def test_a_figure_of_another_kind_is_refused(tmp_path: Path) -> None:
    found = describe(write_dataset(tmp_path / "toy"), "toy")
    (problem,) = problems_of(lambda: plot_degrees(found, tmp_path / "a.jpg"))
    assert "expected a file that ends in .svg, .pdf, .png" in problem


@pytest.mark.parametrize("content", ["no JSON", "[1]", '{"inputs": 3, "modalities": [], "split": null, "source": [1]}'])
def test_a_manifest_of_something_else(tmp_path: Path, content: str) -> None:
    folder = write_set(tmp_path)
    (folder / "manifest.json").write_text(content)
    assert any(line.startswith("manifest.json: ") for line in describe(folder, "toy").lines())


def test_mistakes(tmp_path: Path) -> None:
    for words, expected in (
        (["describe", "--data_path", tmp_path], "NAME is missing"),
        (["describe", "nowhere", "--data_path", tmp_path], "unknown data set 'nowhere'"),
        (["describe", "toy", "--out", "x"], "unknown option --out (did you mean 'output'?)"),
        (["describe", "toy", "--output", tmp_path], "expected a file to write in an existing folder"),
    ):
        done = run_here(*words)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert expected in done.err
    folder = write_set(tmp_path, [(0, "x", 0), (0, 1, 1), (0, 2, 2)])
    assert "itemID is 'x', expected an integer" in problems_of(lambda: describe(folder, "toy"))[0]
