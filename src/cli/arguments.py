"""Checks of arguments that several commands have in common."""

from __future__ import annotations

import re
from pathlib import Path

from utils.config.request import Request, data_folder
from utils.errors import UserError

FORMS = ("svg", "pdf", "png")  # of figures


def check_name(command: str, name: str) -> None:
    """Checks the name of a data set to be made or read.

    Raises:
        UserError: if it could not be the name of a folder.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise UserError(f"{command}: expected a name of letters, digits, _ . and -, got '{name}'")


def dataset_folder(command: str, name: str, data_path: str | None) -> Path:
    """The folder of a data set.

    Raises:
        UserError: for a name that is none.
    """
    check_name(command, name)
    return data_folder(Request([], [], {"data_path": data_path} if data_path else {})) / name


def output_file(command: str, name: str | None) -> Path | None:
    """A file to write, checked before any work is done for it.

    Raises:
        UserError: if it is a folder, or stands in none.
    """
    target = Path(name).expanduser() if name else None
    if target and (target.is_dir() or not target.parent.is_dir()):
        raise UserError(f"{command}: --output: expected a file to write in an existing folder, got {target}")
    return target
