"""Writing files: each appears complete or not at all; locks that the system gives back when a process ends."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO

from utils.errors import UserError

TEMPORARY = ".tmp"  # ends the name of a file that is being written


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write and read again, put in place when the block ends and thrown away when it fails.

    It is a temporary file in the same folder, flushed to disk, then renamed; an existing file is replaced.

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


def write_bytes(path: Path, content: bytes) -> None:
    """Writes bytes atomically.

    Raises:
        UserError: if the file cannot be written.
    """
    with atomic_file(path) as file:
        file.write(content)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON with full precision, atomically."""
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]], separator: str = ",") -> None:
    """Writes rows as CSV, atomically; the columns are all keys in order of first appearance."""
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    write_rows(path, columns, ([row.get(name, "") for name in columns] for row in rows), separator)


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]], separator: str = ",") -> None:
    """Writes rows as CSV while they come, atomically: a failure leaves no file.

    Raises:
        UserError: if the file cannot be written.
    """
    with atomic_file(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text, delimiter=separator, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
        text.detach()


def make_folder(path: Path) -> bool:
    """Makes a folder and its parents; returns whether it is new.

    Raises:
        UserError: if it cannot be made.
    """
    try:
        path.mkdir(parents=True)
    except OSError as error:
        if os.path.isdir(path):  # False where it may not be seen, while path.is_dir() raises
            return False
        raise UserError(f"{path}: cannot be made a folder ({error.strerror}); choose another --output_dir") from None
    return True


def take_lock(path: Path) -> IO[str] | None:
    """Takes a lock file for this process until it is closed or the process ends; None if another process has it.

    Raises:
        UserError: if the file cannot be written.
    """
    try:
        lock = open(path, "a")  # noqa: SIM115 (held until closed)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    try:
        import fcntl
    except ImportError:  # not on Windows, where two processes are on their own
        return lock
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever had it before may have removed the file in between: then another lock counts.
        held = os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except OSError:
        held = False
    if held:
        return lock
    lock.close()
    return None
