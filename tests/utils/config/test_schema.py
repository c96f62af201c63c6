"""Types and ranges of settings: what is taken, as what, and what is refused with which words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from utils.config.schema import Key, check_value, fill, keys_of, setting


@dataclass(frozen=True)
class Everything:
    """One key of every kind."""

    whole: int = setting("h", low=1, high=100)
    real: float = setting("h", above=0)
    flag: bool = setting("h")
    word: str = setting("h", choices=("Adam", "sgd"))
    maybe: float | None = setting("h", high=2)
    wholes: list[int] = setting("h", low=1)
    words: list[str] | None = setting("h", choices=("recall", "ndcg"))
    sizes: dict[str, int] | None = setting("h")
    clip: float | dict[str, float] | None = setting("h", above=0)
    anything: dict[str, Any] | None = setting("h")


KEYS = keys_of(Everything)


@pytest.mark.parametrize(
    ("name", "raw", "expected"),
    [
        ("whole", 3, 3),
        ("whole", 3.0, 3),
        ("whole", 1, 1),
        ("whole", 100, 100),
        ("real", 2, 2.0),
        ("real", 1e-300, 1e-300),
        ("flag", False, False),
        ("word", "sgd", "sgd"),
        ("word", "ADAM", "Adam"),
        ("maybe", None, None),
        ("maybe", -7, -7.0),
        ("maybe", 2, 2.0),
        ("wholes", [5, 10.0], [5, 10]),
        ("wholes", (5, 10), [5, 10]),
        ("wholes", 5, [5]),
        ("words", None, None),
        ("words", ["Recall", "NDCG"], ["recall", "ndcg"]),
        ("words", "Recall", ["recall"]),
        ("sizes", {"users": 3.0}, {"users": 3}),
        ("sizes", {}, {}),
        ("clip", 5, 5.0),
        ("clip", {"max_norm": 5, "norm_type": 2}, {"max_norm": 5.0, "norm_type": 2.0}),
        ("clip", None, None),
        ("anything", {"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}),
    ],
)
def test_value_is_taken_as_its_type(name, raw, expected):
    value = check_value(KEYS[name], raw)
    assert value == expected
    assert type(value) is type(expected)
    if isinstance(value, list | dict):
        entries = value.values() if isinstance(value, dict) else value
        wanted = expected.values() if isinstance(expected, dict) else expected
        assert [type(entry) for entry in entries] == [type(entry) for entry in wanted]


@pytest.mark.parametrize(
    ("name", "raw", "expected"),
    [
        ("whole", 3.5, "an integer from 1 to 100"),
        ("whole", True, "an integer from 1 to 100"),
        ("whole", "3", "an integer from 1 to 100"),
        ("whole", None, "an integer from 1 to 100"),
        ("whole", [3], "an integer from 1 to 100"),
        ("whole", 0, "an integer from 1 to 100"),
        ("whole", 101, "an integer from 1 to 100"),
        ("whole", 10**400, "an integer from 1 to 100"),
        ("real", 0, "a number above 0"),
        ("real", float("nan"), "a number above 0"),
        ("real", float("inf"), "a number above 0"),
        ("real", "1e-3", "a number above 0"),
        ("real", False, "a number above 0"),
        ("flag", 1, "true or false"),
        ("flag", "true", "true or false"),
        ("word", "", "a word out of Adam, sgd"),
        ("word", 3, "a word out of Adam, sgd"),
        ("maybe", 2.1, "a number or null of at most 2"),
        ("wholes", [], "a list of integers of at least 1"),
        ("wholes", [5, 0], "a list of integers of at least 1"),
        ("wholes", [5, None], "a list of integers of at least 1"),
        ("wholes", {"a": 5}, "a list of integers of at least 1"),
        ("wholes", None, "a list of integers of at least 1"),
        ("words", ["recall", "mrr"], "a list of words or null out of recall, ndcg"),
        ("sizes", {"users": "many"}, "a mapping of words to integers or null"),
        ("sizes", {3: 3}, "a mapping of words to integers or null"),
        ("sizes", [3], "a mapping of words to integers or null"),
        ("clip", {"max_norm": -1}, "a number or a mapping of words to numbers or null above 0"),
        ("clip", 0, "a number or a mapping of words to numbers or null above 0"),
    ],
)
def test_value_of_another_type_or_out_of_range_is_refused(name, raw, expected):
    with pytest.raises(ValueError, match="expected") as caught:
        check_value(KEYS[name], raw)
    assert str(caught.value) == f"expected {expected}, got {raw!r}"


def test_the_nearest_word_is_named():
    with pytest.raises(ValueError, match="expected") as caught:
        check_value(KEYS["word"], "adamw")
    assert str(caught.value) == "expected a word out of Adam, sgd, got 'adamw' (did you mean 'Adam'?)"


def test_bounds_are_shown_in_full():
    key = Key("seed", int, setting("h", low=0, high=2**32 - 1))
    assert key.describe() == "an integer from 0 to 4294967295"


def test_keys_keep_their_order_and_say_what_they_hold():
    names = ["whole", "real", "flag", "word", "maybe", "wholes", "words", "sizes", "clip", "anything"]
    assert list(KEYS) == names
    assert {name for name, key in KEYS.items() if key.is_list} == {"wholes", "words"}
    assert {name for name, key in KEYS.items() if key.optional} == {"maybe", "words", "sizes", "clip", "anything"}
    assert {name for name, key in KEYS.items() if key.is_word} == {"word", "words"}


def test_fill_takes_the_declared_keys_only():
    @dataclass(frozen=True)
    class Two:
        a: int = setting("h")
        b: list[int] = setting("h", default=[1, 2])

    assert fill(Two, {"a": 1, "b": [3], "c": 4}) == Two(1, [3])
    assert keys_of(Two)["b"].default == [1, 2]
    assert Two(1) == Two(1, [1, 2])
