"""Lines of any length, damaged files, and counts that add up."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from helpers import problems_of

from prepare.lines import MAX_LINE, Reading, Tally, read_lines, shown


def dropped(tally: Tally) -> dict[str, int]:
    return {reason: entry["count"] for reason, entry in tally.record()["dropped"].items()}


def test_lines_of_any_length_are_read_or_counted(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b"a\r\n\n" + b"x" * (MAX_LINE + 1) + b"\nb\n" + b"y" * (3 * MAX_LINE) + b"\nc")
    for content in (path.read_bytes(), gzip.compress(path.read_bytes())):
        path.write_bytes(content)
        tally = Tally("lines")
        assert list(read_lines(path, tally, Reading())) == [(1, b"a"), (2, b""), (4, b"b"), (6, b"c")]
        assert dropped(tally) == {"longer than 4 MiB": 2}


def test_a_gzip_file_that_ends_early_is_refused_or_accepted(tmp_path):
    random = np.random.default_rng(0)
    lines = [f"{number} {random.random()}" for number in range(5000)]
    whole = gzip.compress("\n".join(lines).encode())
    path = tmp_path / "x.gz"
    for content, what in ((whole[: len(whole) // 2], "it ends early"), (whole[:-6] + b"123456", "it is damaged")):
        path.write_bytes(content)
        (problem,) = problems_of(lambda: list(read_lines(path, Tally("x.gz"), Reading())))
        assert problem.startswith(f"x.gz: not a complete gzip file: {what}")
        assert "--accept_truncated" in problem
        tally = Tally("x.gz")
        found = [line.decode() for _, line in read_lines(path, tally, Reading(accept_truncated=True))]
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


def test_a_limit_stops_reading(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"a\nb\nc\n")[:-4])
    assert list(read_lines(path, Tally("x"), Reading(limit=2))) == [(1, b"a"), (2, b"b")]
