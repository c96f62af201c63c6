"""Feature matrices of the kept items, from published records and users' own matrices."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import problems_of

from prepare.content.feature_files import from_matrix, from_records
from prepare.lines import Tally


def dropped(tally: Tally) -> dict[str, int]:
    return {reason: entry["count"] for reason, entry in tally.record()["dropped"].items()}


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
        (np.array([[{}]], dtype=object), "a.npy: not a numeric array: it holds Python objects"),
        (np.zeros((2, 2)), "a.npy: 2 rows, but 1 ids were given for them"),
    ],
)
def test_other_arrays_are_refused(tmp_path, content, problem):
    np.save(tmp_path / "a.npy", content, allow_pickle=True)
    assert problems_of(lambda: from_matrix(tmp_path / "a.npy", ["p"], {"p": 0}, tmp_path / "x_feat.npy", "zero")) == [
        problem
    ]


def test_tensors_are_read_and_nothing_else_in_their_files(tmp_path):
    torch.save(torch.arange(4.0, dtype=torch.float64).reshape(2, 2), tmp_path / "a.pt")
    target = tmp_path / "x_feat.npy"
    from_matrix(tmp_path / "a.pt", ["p", "q"], {"q": 0}, target, "zero")
    assert (np.load(target).dtype, np.load(target).tolist()) == (np.float32, [[2, 3]])
    torch.save(torch.nn.Linear(1, 1), tmp_path / "a.pt")
    (problem,) = problems_of(lambda: from_matrix(tmp_path / "a.pt", ["p"], {"p": 0}, target, "zero"))
    assert problem.startswith("a.pt: not a numeric array")
