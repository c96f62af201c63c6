"""YAML read with safe types and without surprises, and written so that it reads back the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from utils.errors import UserError


class _Loader(yaml.SafeLoader):
    """YAML without surprises: 1e-4 is a number, and a key that stands twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key '{name}' stands twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads: a word such as 1e5 is quoted."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def parse_yaml(text: str, name: str) -> Any:
    """Reads YAML with safe types only.

    Raises:
        UserError: naming the place and the line, if the text is not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{name}{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    except (ValueError, RecursionError) as error:  # 2020-99-99 looks like a date; [[[[... goes too deep
        raise UserError(f"{name}: not valid YAML: {error}") from None


def read_yaml(path: Path, name: str) -> dict[str, Any]:
    """Reads a configuration file as a mapping; `name` stands for it in messages.

    Raises:
        UserError: if it cannot be read or is not a mapping of keys to values.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UserError(f"{name}: cannot be read ({reason})") from None
    content = parse_yaml(text, name)
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{name}: expected keys and values ('key: value'), got {type(content).__name__}")
    return content


def dump_pair(key: str, value: Any) -> str:
    """A key and its value as one line of YAML."""
    text = yaml.dump({key: value}, Dumper=_Dumper, default_flow_style=True, width=10**6, sort_keys=False)
    return text.strip()[1:-1]
