"""Typed settings: a dataclass says which keys there are, of which type and range; this module checks values.

A model declares its keys in its own file as a frozen dataclass whose fields are made by `setting`; the YAML files
hold the values. `check_value` turns one raw value into a checked one or raises ValueError with what was expected.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from utils.errors import nearest


def setting(
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: Sequence[str] | None = None,
    alias: Sequence[str] = (),
    default: Any = dataclasses.MISSING,
) -> Any:
    """A dataclass field for one configuration key.

    Args:
        help: what the key means, with its unit.
        low, high: the closed range of a number (of each entry of a list or mapping).
        above: an open lower bound.
        choices: the words allowed for a string (for each entry of a list).
        alias: other names under which published configurations know the key.
        default: the value when no file gives one; without it a file must.
    """
    metadata = {"help": help, "low": low, "high": high, "above": above, "choices": choices, "alias": alias}
    if default is dataclasses.MISSING or not isinstance(default, list | dict):
        return dataclasses.field(default=default, metadata=metadata)
    return dataclasses.field(default_factory=lambda: default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Key:
    """One configuration key: its name, type and allowed range."""

    name: str
    type: Any
    field: dataclasses.Field[Any]

    @property
    def is_list(self) -> bool:
        """Whether the value itself is a list, so that several words on the command line are one value."""
        return any(typing.get_origin(option) is list for option in _options(self.type))

    @property
    def is_word(self) -> bool:
        """Whether the value is a string or a list of strings, which on the command line need no YAML."""
        return str in _options(self.type) or list[str] in _options(self.type)

    @property
    def is_mapping(self) -> bool:
        """Whether the value is a mapping and nothing else."""
        return dict in self.kinds and str not in self.kinds

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The types that the value may have; of a list that of its entries, of a mapping `dict`."""
        found = []
        for option in _options(self.type):
            origin = typing.get_origin(option)
            found.append(typing.get_args(option)[0] if origin is list else origin or option)
        return tuple(found)

    @property
    def optional(self) -> bool:
        return type(None) in _options(self.type)

    @property
    def default(self) -> Any:
        if self.field.default_factory is not dataclasses.MISSING:
            return self.field.default_factory()
        return self.field.default

    def describe(self) -> str:
        """The type and range in words, as error messages and --help show them."""
        words = " or ".join(_type_name(option) for option in _options(self.type))
        rule = self.field.metadata
        if rule["choices"]:
            words += " out of " + ", ".join(rule["choices"])
        if rule["above"] is not None:
            words += f" above {rule['above']:.10g}"
        if rule["low"] is not None and rule["high"] is not None:
            words += f" from {rule['low']:.10g} to {rule['high']:.10g}"
        elif rule["low"] is not None:
            words += f" of at least {rule['low']:.10g}"
        elif rule["high"] is not None:
            words += f" of at most {rule['high']:.10g}"
        return words


def keys_of(settings: type | Mapping[str, Key]) -> dict[str, Key]:
    """The keys that a settings dataclass declares, by name, in order; keys that are known already stay as they are."""
    if isinstance(settings, Mapping):
        return dict(settings)
    hints = typing.get_type_hints(settings)
    return {field.name: Key(field.name, hints[field.name], field) for field in dataclasses.fields(settings)}


def check_value(key: Key, value: Any) -> Any:
    """Returns `value` as the key's type.

    Raises:
        ValueError: if it is of another type or out of range; the message says what was expected.
    """
    for option in _options(key.type):
        try:
            converted = _convert(option, value)
        except (ValueError, OverflowError):  # an integer beyond the floats
            continue
        converted = _canonical(key, converted)
        if _in_range(key, converted):
            return converted
    raise ValueError(f"expected {key.describe()}, got {value!r}{_nearest_choice(key, value)}")


def _nearest_choice(key: Key, value: Any) -> str:
    """The choice most like the first word that is none."""
    choices = key.field.metadata["choices"] or ()
    words = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    wrong = [word for word in words if isinstance(word, str) and word not in choices]
    return nearest(wrong[0], choices) if wrong else ""


def fill(settings: type, config: Mapping[str, Any]) -> Any:
    """Builds the settings dataclass from the entries of `config` with its names."""
    return settings(**{name: config[name] for name in keys_of(settings)})


def _options(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)


def _type_name(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        return f"a list of {_plural(arguments[0])}"
    if origin is dict:
        return f"a mapping of {_plural(arguments[0])} to {_plural(arguments[1])}"
    names = {int: "an integer", float: "a number", str: "a word", bool: "true or false", type(None): "null"}
    return names.get(kind, "a value")


def _plural(kind: Any) -> str:
    return {int: "integers", float: "numbers", str: "words"}.get(kind, "values")


def _convert(kind: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin is list:
        entries = value if isinstance(value, list | tuple) else [value]
        if isinstance(value, dict) or not entries:
            raise ValueError
        return [_convert(arguments[0], entry) for entry in entries]
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError
        return {_convert(arguments[0], k): _convert(arguments[1], v) for k, v in value.items()}
    if kind is type(None):
        good = value is None
    elif kind is bool:
        good = isinstance(value, bool)
    elif kind is str:
        good = isinstance(value, str) and bool(value)
    elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        good = False
    elif kind is int:
        good = float(value).is_integer()
    else:
        good = kind is float
    if not good:
        raise ValueError
    return kind(value) if kind in (int, float) else value


def _canonical(key: Key, value: Any) -> Any:
    """Words are compared without regard to case; the declared spelling is the one kept."""
    spelling = {choice.lower(): choice for choice in key.field.metadata["choices"] or ()}
    if isinstance(value, list):
        return [_canonical(key, entry) for entry in value]
    return spelling.get(value.lower(), value) if isinstance(value, str) else value


def _in_range(key: Key, value: Any) -> bool:
    rule = key.field.metadata
    entries = value if isinstance(value, list) else value.values() if isinstance(value, dict) else [value]
    for entry in entries:
        if entry is None or isinstance(entry, bool | dict | list):
            continue
        if isinstance(entry, str):
            if rule["choices"] and entry not in rule["choices"]:
                return False
            continue
        if (rule["low"] is not None and entry < rule["low"]) or (rule["high"] is not None and entry > rule["high"]):
            return False
        if rule["above"] is not None and entry <= rule["above"]:
            return False
    return True
