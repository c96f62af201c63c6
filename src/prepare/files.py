"""Files written whole or not at all, hashes, folders and progress bars: what every part of `prepare` uses."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from utils.errors import UserError
from utils.runs.run_folder import TEMPORARY

BLOCK = 1 << 20


class Progress:
    """A progress bar, called with the amount done and the total; without a terminal, a line every ten seconds."""

    def __init__(self, title: str, quiet: bool = False) -> None:
        self.title, self.quiet = title, quiet
        self.bar: tqdm | None = None

    def __call__(self, done: float, total: float | None) -> None:
        if total is None:  # of a download whose length the server does not say
            return
        if self.bar is None:
            self.bar = tqdm(
                total=max(total, 1e-9), desc=self.title, disable=self.quiet, leave=False, dynamic_ncols=True,
                mininterval=0.2 if sys.stderr.isatty() else 10.0,
                bar_format="{desc} {percentage:3.0f}%|{bar:20}| {elapsed}<{remaining}",
            )  # fmt: skip
        self.bar.total = max(total, 1e-9)
        self.bar.update(min(done, total) - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, renamed to `path` when the block ends and removed when the block fails.

    Raises:
        UserError: if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with open(temporary, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename not in (None, str(temporary)):
            raise
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


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
