"""Options are checked by type and against each other, from Python as from the command line."""

from __future__ import annotations

from helpers import problems_of

from prepare.options import PrepareOptions, category_of
from utils.config.schema import keys_of


def test_all_problems_are_reported_at_once(tmp_path):
    (tmp_path / "x.csv").touch()
    found = problems_of(lambda: PrepareOptions("a", k_core=-1, split="random", few=2))
    assert [problem.partition(": expected")[0] for problem in found] == [
        "prepare: --k_core",
        "prepare: --split",
        "prepare: --few",
    ]
    found = problems_of(lambda: PrepareOptions("a", interactions=str(tmp_path / "x.csv"), raw="r", ratios=[0.5, 0.4]))
    assert found == [
        "prepare: --raw does not go with --interactions",
        "prepare: --ratios: expected three shares above 0 whose sum is 1, got [0.5, 0.4]",
    ]


def test_names_of_options_are_guessed():
    (problem,) = problems_of(lambda: PrepareOptions.of({"name": "a", "kcore": 3}))
    assert problem == "prepare: unknown option --kcore (did you mean 'k_core'?)"


def test_every_option_has_a_help():
    assert all(key.field.metadata["help"] for key in keys_of(PrepareOptions).values())


def test_a_name_may_stand_for_a_category():
    assert category_of(PrepareOptions("baby")) == "Baby"
    assert category_of(PrepareOptions("x", source="movielens")) == ""  # its files' names have none
    (problem,) = problems_of(lambda: category_of(PrepareOptions("x")))
    assert "'x' names no category of amazon2014 (baby, sports, cell, clothing, elec do); add --category C" in problem
