"""From words to typed options: every mistake is found at once, in one line that names the nearest option."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from helpers import problems_of

from cli.parser import Parser, parse_options
from utils.config.schema import setting


@dataclass(frozen=True)
class Options:
    folder: str = setting("a folder")
    users: list[int] | None = setting("ids", low=0, default=None)
    weight: float = setting("a weight", low=-5, default=1.5)
    kind: str = setting("a kind", choices=("plain", "fancy"), default="plain")
    columns: dict[str, str] = setting("columns", default={})
    names: list[str] | None = setting("names", default=None)
    quiet: bool = setting("no bar", default=False)


def parsed(*words: object) -> Options:
    found = parse_options("act", Options, [str(word) for word in words], ["folder"])
    assert found is not None
    return found


def test_words_become_typed_values():
    words = ("here", "--users", 3, 0, "--weight=-1e-3", "--kind", "FANCY", "--columns", "user=u", "item=a=b", "--quiet")
    assert parsed(*words) == Options("here", [3, 0], -0.001, "fancy", {"user": "u", "item": "a=b"}, None, True)
    assert parsed("--quiet", "here") == Options("here", quiet=True), "a flag takes no word"
    assert parsed("here", "--weight", "-2").weight == -2, "a number may begin with a dash"
    assert parsed("here", "--users", "[1, 2]").users == [1, 2]


@pytest.mark.parametrize("word", ["2024", "off", "a #b", "a: b"])
def test_a_word_is_taken_as_it_stands(word):
    assert parsed(word).folder == word
    assert parsed("x", "--names", word, "b").names == [word, "b"]


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (("x", "--user", 3), ["act: unknown option --user (did you mean 'users'?)"]),
        (("x", "-z", "3"), ["act: unknown option '-z'"]),
        (("x", "y"), ["act: 'y' belongs to no option; write --KEY VALUE (see --help)"]),
        (("x", "--weight"), ["act: --weight: a value is missing"]),
        (("x", "--weight", 1, 2), ["act: --weight: expected one value, got 2"]),
        (("x", "--weight", 1, "--weight", 2), ["act: --weight is given twice; write its values after one --weight"]),
        (("x", "--weight", "heavy"), ["act: --weight: expected a number of at least -5, got 'heavy'"]),
        (("x", "--weight", "[1"), ["--weight, line 1: not valid YAML: expected ',' or ']', but got '<stream end>'"]),
        (("x", "--kind", "plane"),
         ["act: --kind: expected a word out of plain, fancy, got 'plane' (did you mean 'plain'?)"]),
        (("x", "--columns", "user"), ["act: --columns: expected NAME=VALUE, got 'user'"]),
        (("x", "--columns", "a=b", "a=c"), ["act: --columns: a is given twice"]),
        (("x", "--quiet=yes"), ["act: --quiet takes no value, got 'yes'"]),
        (("--quiet",), ["act: FOLDER is missing; usage: main.py act FOLDER [options]"]),
        (("x", "--useless", 3, "--weight", "heavy", "--quite"),
         ["act: unknown option --useless (did you mean 'users'?)", "act: unknown option --quite (did you mean 'quiet'?)",
          "act: --weight: expected a number of at least -5, got 'heavy'"]),
    ],
)  # fmt: skip
def test_each_mistake_is_one_line(words, lines):
    assert problems_of(lambda: parsed(*words)) == lines


@pytest.mark.parametrize("words", [(), ("--help",), ("x", "-h")])
def test_help_is_printed_and_nothing_done(words, capsys):
    assert parse_options("act", Options, words, ["folder"], "Acts on a folder, 100% of it.") is None
    out = capsys.readouterr().out
    assert out.startswith("usage: main.py act FOLDER [options]\n\nActs on a folder, 100% of it.\n")
    for shown in (
        "--users N ...",
        "--weight X",
        "a weight [1.5]",
        "a kind (plain, fancy) [plain]",
        "--columns NAME=VALUE",
    ):
        assert shown in out


def test_hyphens_are_underscores():
    @dataclass(frozen=True)
    class Wide:
        two_words: int = setting("a number", default=0)

    for word in ("--two-words", "--two_words"):
        found = parse_options("act", Wide, [word, "3"])
        assert found is not None
        assert found.two_words == 3


def test_other_names_of_a_key_are_known_but_not_shown():
    @dataclass(frozen=True)
    class Keys:
        rate: float = setting("a rate", alias=("lr",), default=0.1)

    parser = Parser("", "")
    parser.add_options(Keys)
    assert parser.split(["--lr", "3"]).values == {"lr": ["3"]}
    assert "--lr" not in parser.format_help()
