"""Hashes, folders and JSON files: what every part of `prepare` uses."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from utils.errors import UserError

BLOCK = 1 << 20


def make_named_folder(path: Path, option: str) -> None:
    """Makes the folder that an option names.

    Raises:
        UserError: if that is not possible; the message names the option.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be made a folder ({error.strerror}); choose another {option}") from None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        UserError: if it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()


def read_json(path: Path) -> dict[str, Any] | None:
    """The mapping in a JSON file; None if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
