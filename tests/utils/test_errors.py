"""Errors of users: all their lines, and the nearest known word."""

from __future__ import annotations

import pytest

from utils.errors import UserError, nearest


def test_all_problems_are_kept_and_shown():
    error = UserError("one", "two")
    assert error.problems == ("one", "two")
    assert str(error) == "one\ntwo"


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("learning_rte", " (did you mean 'learning_rate'?)"),
        ("LIGHTGCN", " (did you mean 'LightGCN'?)"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_nearest_names_a_close_word_in_its_own_spelling_or_none(word, hint):
    assert nearest(word, ["LightGCN", "learning_rate", "epochs"]) == hint


def test_nearest_of_nothing_is_nothing():
    assert nearest("word", []) == ""
