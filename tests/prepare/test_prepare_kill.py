"""`prepare` may be killed at any moment: the same command then comes to the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_tools import Forks, contents, copy_of_code

from prepare.pipeline import WORK
from prepare.synthetic_raw.raw_spec import RawSpec, write_raw

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
    for die_at in range(1, placed + 1, 3):
        data = tmp_path / str(die_at)
        assert forks.run(*words(raw, data), die_at=die_at, after=die_at % 2 == 0)[0] == KILLED
        assert forks.run(*words(raw, data))[0] == 0, forks.log.read_text()
        assert final(data) == expected, die_at
        assert not list(data.rglob("*.tmp"))


def test_killed_again_and_again_it_gets_on(raw, forks, tmp_path):
    assert forks.run(*words(raw, tmp_path / "whole"))[0] == 0, forks.log.read_text()
    data, starts = tmp_path / "data", 0
    while forks.run(*words(raw, data), die_at=9)[0] == KILLED:
        starts += 1
        assert starts < 10  # each call gets a step further at least
    assert starts > 2
    assert final(data) == final(tmp_path / "whole")


def test_killed_at_random_moments(raw, forks, tmp_path):
    start = time.monotonic()
    assert forks.run(*words(raw, tmp_path / "whole"))[0] == 0, forks.log.read_text()
    seconds = time.monotonic() - start
    draw = random.Random(0)
    killed = 0
    for number in range(4):
        data = tmp_path / str(number)
        pid = forks.start(*words(raw, data))
        time.sleep(draw.uniform(0, seconds))
        os.kill(pid, signal.SIGKILL)  # a process that has ended is waited for below, and still has its number
        killed += forks.wait()[0] == KILLED
        assert forks.run(*words(raw, data))[0] == 0, forks.log.read_text()
        assert final(data) == final(tmp_path / "whole")
    assert killed


def test_killed_between_two_settings_nothing_of_the_first_stays(raw, forks, tmp_path):
    other = ["--k_core", 0, "--seed", 1]
    assert forks.run(*words(raw, tmp_path / "whole"))[0] == 0, forks.log.read_text()
    _, placed = forks.run(*words(raw, tmp_path / "count"), *other)
    for die_at in range(4, placed, 12):
        data = tmp_path / str(die_at)
        assert forks.run(*words(raw, data), *other, die_at=die_at)[0] == KILLED
        assert forks.run(*words(raw, data))[0] == 0, forks.log.read_text()
        assert final(data) == final(tmp_path / "whole")
