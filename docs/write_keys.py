"""Writes docs/keys.md from the typed settings: python docs/write_keys.py"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().with_name("keys.md")
sys.path.insert(0, str(PAGE.parent.parent / "src"))

from runner.registry import available_models, model_keys  # noqa: E402
from utils.config.schema import Key, keys_of  # noqa: E402
from utils.config.settings import SETTINGS  # noqa: E402
from utils.config.yaml_files import dump_pair, read_yaml  # noqa: E402
from utils.paths import CONFIGS  # noqa: E402

TOP = """# Keys

Any key is an option of the command line (`--learning_rate 0.001`), a line of a YAML file, and an argument of
`gtc_bench.run`. This page is written by `python docs/write_keys.py` from the typed settings; `-m MODEL --help` shows
the same.
"""


def page() -> str:
    """The page in Markdown."""
    overall = read_yaml(CONFIGS / "overall.yaml", "overall.yaml")
    parts = [TOP]
    for settings in SETTINGS:
        title = (settings.__doc__ or "").split(";")[0].rstrip(".")
        parts.append(f"## {title}\n\n{table(keys_of(settings).values(), overall)}")
    for name in available_models():
        keys = model_keys(name)
        if keys:
            values = read_yaml(CONFIGS / "model" / f"{name}.yaml", name)
            parts.append(f"## {name}\n\n{table(keys.values(), values)}")
    return "\n".join(parts)


def table(keys: Iterable[Key], values: Mapping[str, Any]) -> str:
    """A row for each key: name, default, what it may be, what it means."""
    lines = ["| key | default | value | meaning |", "| --- | --- | --- | --- |"]
    for key in keys:
        default = dump_pair("x", values.get(key.name, key.default)).removeprefix("x: ")
        cells = [f"`{key.name}`", f"`{default}`", key.describe(), key.field.metadata["help"]]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
