"""Words of the commands that prepare data, until they are parsed by argparse."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from utils.errors import UserError

FLAGS = ("best", "grid", "first_combination", "resume", "quiet", "list", "help")
SHORT = {"-m": "--model", "-d": "--dataset", "-h": "--help"}


@dataclass
class Words:
    """The command line taken apart: flags, and options with their values."""

    flags: set[str] = field(default_factory=set)
    options: dict[str, list[str]] = field(default_factory=dict)

    def one(self, name: str, default: str | None = None) -> str | None:
        """The single value of an option."""
        values = self.options.get(name)
        if values is None:
            return default
        if len(values) != 1:
            raise UserError(f"--{name}: expected one value, got {len(values)}")
        return values[0]


def take_apart(arguments: Sequence[str], flags: Sequence[str] = FLAGS) -> Words:
    """Splits words into flags and options; a value may start with '-' only as a number.

    Raises:
        UserError: for a word that belongs to no option, an option given twice, or one without a value.
    """
    words = Words()
    current: str | None = None
    for argument in arguments:
        argument = SHORT.get(argument, argument)
        number = re.fullmatch(r"-(\d|\.\d|inf|nan).*", argument)
        if argument.startswith("--") and len(argument) > 2:
            name, equals, value = argument[2:].partition("=")
            name = name.replace("-", "_")
            if name in flags:
                if equals:
                    raise UserError(f"--{name} takes no value, got '{value}'")
                words.flags.add(name)
                current = None
                continue
            if name in words.options:
                raise UserError(f"--{name} is given twice; write its values after one --{name}")
            words.options[name] = [value] if equals else []
            current = None if equals else name
        elif argument.startswith("-") and not number:
            raise UserError(f"unknown option '{argument}'; short options are {', '.join(SHORT)}")
        elif current is None:
            raise UserError(f"'{argument}' belongs to no option; write --KEY VALUE (see --help)")
        else:
            words.options[current].append(argument)
    return words


def whole_number(command: str, name: str, low: int, word: str, problems: list[str]) -> int:
    """The word as a number, or a line more in `problems`."""
    if re.fullmatch(r"-?\d{1,18}", word) and int(word) >= low:
        return int(word)
    problems.append(f"{command}: --{name}: expected an integer of at least {low}, got '{word}'")
    return low
