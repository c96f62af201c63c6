"""Sections of YAML files, checked by the same typed keys as the settings of a run."""

from __future__ import annotations

import dataclasses
from typing import Any

from utils.config.schema import check_value, keys_of
from utils.errors import nearest


def read_section(kind: type, content: Any, place: str, problems: list[str]) -> dict[str, Any]:
    """The values of a section by key; wrong ones are noted and their default stands in, so that reading goes on.

    Args:
        kind: a dataclass of `setting` fields.
        content: what the file holds; None: nothing, so that every key has its default.
        place: of the section, for messages, as "study.yaml: search: ".
        problems: takes a line for each mistake.

    Returns:
        A value for each key that has one; a required key that is missing or wrong has none.
    """
    keys = keys_of(kind)
    values = {key.name: key.default for key in keys.values() if key.default is not dataclasses.MISSING}
    if content is None:
        content = {}
    if not isinstance(content, dict):
        problems.append(f"{place}expected keys and values ({', '.join(keys)}), got {content!r}")
        return values
    unknown = [name for name in content if name not in keys]
    problems += [f"{place}unknown key '{name}'{nearest(str(name), keys)}" for name in unknown]
    for name, key in keys.items():
        if name not in content:
            if name not in values:
                problems.append(f"{place}{name}: expected {key.describe()}, got nothing")
            continue
        value = None if content[name] == [] and key.optional else content[name]
        try:
            values[name] = check_value(key, value)
        except ValueError as error:
            problems.append(f"{place}{name}: {error}")
    return values
