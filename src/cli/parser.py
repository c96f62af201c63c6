"""From words to typed options by argparse: a dataclass of `setting` fields declares what a command takes.

argparse splits the words; types and ranges are those of the fields, as in every settings file, so that all mistakes of a
command are reported at once and in the same form.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from utils.config.schema import Key, check_value, keys_of
from utils.config.yaml_files import parse_yaml
from utils.errors import UserError, nearest
from utils.paths import PACKAGE

PROGRAM = "gtc-bench" if PACKAGE else "main.py"
SHORT = {"model": "-m", "dataset": "-d", "help": "-h"}
NUMBER = re.compile(r"-(\d|\.\d|inf|nan)")  # a word that is a value although it begins with a dash
METAVARS = {int: "N", float: "X", bool: "true|false"}

Options = TypeVar("Options")


@dataclass
class Given:
    """What a command line holds, before any value is checked.

    Attributes:
        values: option to its words; those of a positional argument too.
        flags: options without a value.
        problems: what is wrong with the words, a line each.
    """

    values: dict[str, list[str]] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


class Parser(argparse.ArgumentParser):
    """The parser of one command.

    Args:
        command: its name; empty: that of the program without a command.
        description: what it does.
        positional: options that are given by their place.
        usage: the words after the program's name; None: the command, its arguments and "[options]".
    """

    def __init__(
        self, command: str, description: str, positional: Sequence[str] = (), usage: str | None = None
    ) -> None:
        arguments = " ".join([command, *(name.upper() for name in positional)])
        super().__init__(
            prog=f"{PROGRAM} {command}".strip(),
            usage=f"{PROGRAM} {usage or f'{arguments} [options]'}",
            description=description,
            formatter_class=_Formatter,
            add_help=False,
            allow_abbrev=False,
        )
        # argparse has no public way to say which words are negative numbers; -1e-3 is none to it before Python 3.14.
        self._negative_number_matcher = NUMBER
        self.command, self.positional = command, positional
        self.flag_names: set[str] = set()
        self.names: dict[str, None] = {}  # options without their dashes, in order

    def error(self, message: str) -> NoReturn:
        """Raises a UserError in place of leaving the program."""
        missing = message.partition("arguments are required: ")[2]
        verb = "are" if "," in missing else "is"
        text = f"{missing} {verb} missing; usage: {self.format_usage().partition(': ')[2]}" if missing else message
        raise UserError(" ".join(self._named(text).split()))

    def add_options(self, options: type, flags: Mapping[str, str] | None = None) -> None:
        """Adds an option for each field.

        Args:
            options: a dataclass of `setting` fields; a `bool` field is a flag.
            flags: more flags, name to meaning.
        """
        group = self.add_argument_group("options")
        for key in keys_of(options).values():
            if key.name in self.positional:
                several: dict[str, Any] = {"nargs": "*"} if key.is_list else {}
                self.add_argument(key.name, metavar=key.name.upper(), help=_meaning(key), **several)
            elif key.type is bool:
                self._add_flag(key.name, _meaning(key), group)
            else:
                self._add_key(group, key, _meaning(key))
        for name, text in (flags or {}).items():
            self._add_flag(name, text, group)

    def add_keys(self, keys: Iterable[Key], defaults: Mapping[str, Any], title: str) -> None:
        """Adds an option for each key of settings files; its default is shown beside it."""
        group = self.add_argument_group(title)
        for key in keys:
            text = f"{key.field.metadata['help']}; {key.describe()}"
            default = f"{defaults.get(key.name)!r}".replace("None", "null")
            self._add_key(group, key, f"{text} [{default}]")

    def add_silent(self, names: Iterable[str]) -> None:
        """Adds options that the help does not mention, such as other names of keys."""
        for name in names:
            if name not in self.names:
                self.names[name] = None
                self.add_argument(f"--{name}", dest=name, nargs="*", action="append", help=argparse.SUPPRESS)

    def _add_key(self, group: Any, key: Key, text: str) -> None:
        if key.name not in self.names:
            short, how = self._short(key.name), {"metavar": _metavar(key), "help": text.replace("%", "%%")}
            group.add_argument(*short, f"--{key.name}", dest=key.name, action="append", nargs="*", **how)
            self.names[key.name] = None
        self.add_silent(key.field.metadata["alias"])

    def _add_flag(self, name: str, text: str, group: Any) -> None:
        how: dict[str, Any] = {"action": "append_const", "const": "", "help": text.replace("%", "%%")}
        group.add_argument(*self._short(name), f"--{name}", dest=name, **how)
        self.flag_names.add(name)
        self.names[name] = None

    def _short(self, name: str) -> list[str]:
        return [SHORT[name]] if name in SHORT else []

    def split(self, words: Sequence[str]) -> Given:
        """Takes the words apart.

        Raises:
            UserError: where an argument without which nothing else can be said is missing.
        """
        given, plain = Given(), []
        for word in words:
            if word.startswith("--") and len(word) > 2:
                name, equals, value = word[2:].partition("=")
                name = name.replace("-", "_")
                if name in self.flag_names and equals:
                    given.problems.append(self._named(f"--{name} takes no value, got '{value}'"))
                    continue
                word = f"--{name}{equals}{value}"
            plain.append(word)
        found, left = self.parse_known_args(plain)
        for name, value in vars(found).items():
            if value is None or value == []:
                continue
            if name in self.positional:
                given.values[name] = [value] if isinstance(value, str) else value
            elif name in self.flag_names:
                given.flags.add(name)
            else:
                given.values[name] = value[0]
                if len(value) > 1:
                    problem = f"--{name} is given twice; write its values after one --{name}"
                    given.problems.append(self._named(problem))
        given.problems += self._unknown(left)
        return given

    def _unknown(self, left: Sequence[str]) -> list[str]:
        problems, of_unknown = [], False
        for word in left:
            name = word[2:].partition("=")[0]
            if word.startswith("--"):
                problems.append(f"unknown option --{name}{nearest(name, self.names)}")
                of_unknown = True
            elif word.startswith("-") and not NUMBER.match(word):
                shorts = [action.option_strings[0] for action in self._actions if len(action.option_strings[:1]) == 1]
                shown = ", ".join(short for short in shorts if not short.startswith("--"))
                problems.append(f"unknown option '{word}'" + (f"; short options are {shown}" if shown else ""))
                of_unknown = True
            elif not of_unknown:
                problems.append(f"'{word}' belongs to no option; write --KEY VALUE (see --help)")
        return [self._named(problem) for problem in problems]

    def _named(self, problem: str) -> str:
        """The problem after the name of the command."""
        return f"{self.command}: {problem}".removeprefix(": ")


def parse_options(
    command: str,
    options: type[Options],
    words: Sequence[str],
    positional: Sequence[str] = (),
    description: str = "",
    adapt: Callable[[dict[str, list[str]]], None] = lambda values: None,
    complete: bool = False,
) -> Options | None:
    """The options of a command, checked; None after its help was printed, which no words at all ask for too.

    Args:
        command: its name.
        options: a dataclass whose fields are made by `setting`.
        words: what stands behind the command.
        positional: fields that are given by their place.
        description: of the command, for its help.
        adapt: may change the words of each option before they are checked.
        complete: whether the command needs no words.

    Raises:
        UserError: with every mistake in the words.
    """
    parser = Parser(command, description, positional)
    parser.add_options(options)
    if not (words or complete) or not {"-h", "--help"}.isdisjoint(words):
        print(parser.format_help(), end="")
        return None
    given = parser.split(words)
    adapt(given.values)
    values = checked_values(options, given, command)
    if given.problems:
        raise UserError(*given.problems)
    return options(**values)


def checked_values(options: type, given: Given, command: str = "") -> dict[str, Any]:
    """The value of each field of `options`, of its type; what is wrong is added to `given.problems`."""
    values: dict[str, Any] = {}
    for key in keys_of(options).values():
        words = given.values.get(key.name)
        if key.name in given.flags:
            values[key.name] = True
        elif words is None:
            values[key.name] = key.default
        else:
            try:
                values[key.name] = _checked(key, words)
            except ValueError as error:
                given.problems.append(f"{command}: --{key.name}: {error}".removeprefix(": "))
            except UserError as error:
                given.problems += error.problems
    return values


def _checked(key: Key, words: Sequence[str]) -> Any:
    if not words:
        raise ValueError("a value is missing")
    if key.is_mapping and not words[0].startswith("{"):
        return check_value(key, _pairs(words))
    values = [read_value(word, key.name, key) for word in words]
    if key.is_list:
        return check_value(key, values[0] if len(values) == 1 else values)
    if len(values) > 1:
        raise ValueError(f"expected one value, got {len(values)}")
    return check_value(key, values[0])


def _pairs(words: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE words as a mapping."""
    pairs: dict[str, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        if not name or not value:
            raise ValueError(f"expected NAME=VALUE, got '{word}'")
        if name in pairs:
            raise ValueError(f"{name} is given twice")
        pairs[name] = value
    return pairs


def read_value(word: str, name: str, key: Key | None) -> Any:
    """Reads a value as YAML, so that 1e-3, true and [1, 2] mean what they say.

    Where a key holds a word, the value is taken as it stands (`2024`, `off`, `a #b`) unless it is null, quoted or a list.

    Raises:
        UserError: if it is no YAML.
    """
    if not word or (key is not None and key.is_word and not re.match(r"['\"\[]|(null|~)$", word)):
        return word
    return parse_yaml(word, f"--{name}")


def _meaning(key: Key) -> str:
    rule = key.field.metadata
    text: str = rule["help"]
    if rule["choices"]:
        text += f" ({', '.join(rule['choices'])})"
    shown = key.default
    if shown in (None, False, "") or not isinstance(shown, int | float | str | list):
        return text
    return f"{text} [{' '.join(map(str, shown)) if isinstance(shown, list) else shown}]"


def _metavar(key: Key) -> str:
    """What stands for the value in the help."""
    if key.is_mapping:
        return "NAME=VALUE ..."
    metavar = next((word for kind, word in METAVARS.items() if kind in key.kinds), key.name.upper())
    return f"{metavar} ..." if key.is_list else metavar


class _Formatter(argparse.HelpFormatter):
    """Shows an option that takes any number of words, so that their number is checked here, by its metavar alone."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=112)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        return str(action.metavar) if action.nargs == "*" else super()._format_args(action, default_metavar)
