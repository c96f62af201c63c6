"""Sections of YAML files: typed keys, defaults, and all mistakes at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from utils.config.schema import setting
from utils.config.sections import read_section


@dataclass(frozen=True)
class Keys:
    name: str = setting("a name")
    count: int = setting("a count", low=1, default=4)
    kinds: list[str] | None = setting("kinds", choices=("plain", "fancy"), default=None)


def read(content: Any) -> tuple[dict[str, Any], list[str]]:
    problems: list[str] = []
    return read_section(Keys, content, "file.yaml: part: ", problems), problems


def test_values_and_defaults():
    assert read({"name": "x", "kinds": ["PLAIN"]}) == ({"name": "x", "count": 4, "kinds": ["plain"]}, [])
    assert read({"name": "x", "kinds": []})[0]["kinds"] is None, "an empty list is none at all"


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ({}, ["name: expected a word, got nothing"]),
        (None, ["name: expected a word, got nothing"]),
        ("x", ["expected keys and values (name, count, kinds), got 'x'"]),
        ({"name": "x", "cuont": 3}, ["unknown key 'cuont' (did you mean 'count'?)"]),
        ({"name": 3, "count": 0, 4: 5},
         ["unknown key '4'", "name: expected a word, got 3", "count: expected an integer of at least 1, got 0"]),
        ({"name": "x", "kinds": ["plain", "fanzy"]},
         ["kinds: expected a list of words or null out of plain, fancy, got ['plain', 'fanzy'] (did you mean 'fancy'?)"]),
    ],
)  # fmt: skip
def test_each_mistake_is_a_line_and_reading_goes_on(content, lines):
    values, problems = read(content)
    assert problems == [f"file.yaml: part: {line}" for line in lines]
    assert values["count"] == 4
