"""Derived arrays on disk: built once for the same inputs, again for others, and never a half-written file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from utils.data.cache import ArrayCache, Arrays


class Builder:
    """Builds two arrays and counts how often."""

    def __init__(self, value: float = 1.0) -> None:
        self.calls = 0
        self.value = value

    def __call__(self) -> Arrays:
        self.calls += 1
        return {"a": np.full((2, 3), self.value, dtype=np.float32), "b": np.arange(4)}


def assert_equal(got: Arrays, expected: Arrays) -> None:
    assert list(got) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, strict=True)


def the_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_same_inputs_are_built_once_also_by_another_process(tmp_path):
    build = Builder()
    expected = Builder()()
    for inputs in ({"k": 10, "hash": "x"}, {"hash": "x", "k": 10}):
        assert_equal(ArrayCache(tmp_path / "new" / "cache").get("graph", 1, inputs, build), expected)
    assert build.calls == 1
    assert the_file(tmp_path / "new" / "cache").name.startswith("graph-")
    assert the_file(tmp_path / "new" / "cache").suffix == ".npz"


@pytest.mark.parametrize(
    ("name", "version", "inputs"),
    [("other", 1, {"k": 10}), ("graph", 2, {"k": 10}), ("graph", 1, {"k": 11}), ("graph", 1, {"k": 10, "w": 0})],
)
def test_other_name_version_or_inputs_are_built_anew(tmp_path, name, version, inputs):
    cache = ArrayCache(tmp_path)
    cache.get("graph", 1, {"k": 10}, Builder(1))
    other = Builder(2)
    assert_equal(cache.get(name, version, inputs, other), Builder(2)())
    assert other.calls == 1
    assert_equal(cache.get("graph", 1, {"k": 10}, Builder(3)), Builder(1)())
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "flipped"])
def test_damaged_file_is_built_anew_and_replaced(tmp_path, damage):
    cache = ArrayCache(tmp_path)
    cache.get("graph", 1, {}, Builder())
    path = the_file(tmp_path)
    content = path.read_bytes()
    middle = content.index(np.full(6, 1, dtype=np.float32).tobytes())
    broken = {
        "empty": b"",
        "cut": content[: len(content) // 2],
        "text": b"not an archive",
        "flipped": content[:middle] + b"\xff" + content[middle + 1 :],
    }
    path.write_bytes(broken[damage])
    build = Builder()
    assert_equal(cache.get("graph", 1, {}, build), Builder()())
    assert build.calls == 1
    assert_equal(cache.get("graph", 1, {}, build), Builder()())
    assert build.calls == 1


def test_folder_that_cannot_be_written_only_costs_time(tmp_path):
    (tmp_path / "file").touch()
    cache, build = ArrayCache(tmp_path / "file"), Builder()
    for calls in (1, 2):
        assert_equal(cache.get("graph", 1, {}, build), Builder()())
        assert build.calls == calls


def test_failed_write_leaves_no_file(tmp_path, monkeypatch):
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert_equal(ArrayCache(tmp_path).get("graph", 1, {}, Builder()), Builder()())
    assert list(tmp_path.iterdir()) == []


def test_error_of_the_builder_is_not_hidden_and_leaves_no_file(tmp_path):
    def broken() -> dict[str, NDArray[Any]]:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        ArrayCache(tmp_path).get("graph", 1, {}, broken)
    assert list(tmp_path.iterdir()) == []
