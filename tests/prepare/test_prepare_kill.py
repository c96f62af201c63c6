"""`prepare` may be killed at any moment: the same command then comes to the same bytes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_tools import Forks, contents, copy_of_code

from prepare.pipeline import WORK
from prepare.synthetic_raw.raw_spec import RawSpec
from prepare.synthetic_raw.write_raw import write_raw

pytestmark = pytest.mark.slow

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked")
KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    sizes = {"users": 60, "items": 40, "interactions": 600, "extra_ratings": 90, "extra_items": 15, "extra_images": 3}
    write_raw(RawSpec(**sizes, missing_metadata=3, missing_images=4, malformed=2, duplicated=2), folder)
    return folder


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    folder = tmp_path_factory.mktemp("forks")
    with Forks(copy_of_code(folder), folder / "log") as forks:
        yield forks


def words(raw: Path, data: Path) -> list[object]:
    return ["prepare", "baby", "--raw", raw, "--data_path", data, "--fill_missing", "mean", "--quiet"]


def final(data: Path) -> dict[str, object]:
    """Everything in the data set's folder but dates and the work folder."""
    found: dict[str, object] = dict(contents(data / "baby", WORK))
    text = found["manifest.json"]
    assert isinstance(text, bytes)
    found["manifest.json"] = without_dates(json.loads(text))
    return found


def without_dates(content: object) -> object:
    if isinstance(content, dict):
        return {key: without_dates(value) for key, value in content.items() if key != "made"}
    return content


def test_killed_before_and_after_each_file_is_put_in_place(raw, forks, tmp_path):
    code, placed = forks.run(*words(raw, tmp_path / "whole"))
    assert code == 0, forks.log.read_text()
    assert placed > 30
    expected = final(tmp_path / "whole")
    for die_at in range(1, placed + 1, 5):
        data = tmp_path / str(die_at)
        assert forks.run(*words(raw, data), die_at=die_at, after=die_at % 2 == 0)[0] == KILLED
        assert forks.run(*words(raw, data))[0] == 0, forks.log.read_text()
        assert final(data) == expected, die_at
        assert not list(data.rglob("*.tmp"))
