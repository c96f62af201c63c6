"""The file that items go through from step to step: JSON lines of id, text and the address of the image."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from prepare.sources.source import Item
from utils.files import atomic_file


def write_items(path: Path, items: Iterable[Item]) -> None:
    """Writes items."""
    with atomic_file(path) as file:
        for item in items:
            file.write((json.dumps([item.id, item.text, item.image], ensure_ascii=False) + "\n").encode())


def stored_items(path: Path) -> Iterator[Item]:
    """Reads what `write_items` wrote."""
    with open(path, encoding="utf-8", newline="\n") as file:
        for line in file:
            yield Item(*json.loads(line))
