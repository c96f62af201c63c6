"""The command `content`: what raw content a data set holds, whether it is whole, and its file without free space."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cli.words import take_apart
from prepare.content.store import FILE, ContentStore, compact
from utils.config.request import Request, data_folder
from utils.errors import UserError, nearest

USAGE = """\
usage: main.py content list|verify|compact NAME [--data_path DIR]

The raw images and texts of a data set, DATA_PATH/NAME/content.lmdb, which `prepare` makes.

  list      kinds of content and how many items have it
  verify    recomputes every hash; names what is damaged, and then ends with exit code 1
  compact   writes the file anew without free space, if nothing is damaged
"""
ACTIONS = ("list", "verify", "compact")
SHOWN = 50


def content_command(arguments: Sequence[str]) -> int:
    """Runs `content`; returns the exit code.

    Raises:
        UserError: for wrong words, or a file that is not there or cannot be read.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    action, *rest = arguments
    if action not in ACTIONS:
        raise UserError(f"content: unknown action '{action}'{nearest(action, ACTIONS)}; there are {', '.join(ACTIONS)}")
    if not rest or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", rest[0]):
        raise UserError(f"content {action}: expected the name of a data set, got '{rest[0] if rest else ''}'")
    words = take_apart(rest[1:], ())
    if unknown := [name for name in words.options if name != "data_path"]:
        raise UserError(f"content: unknown option --{unknown[0]}{nearest(unknown[0], ['data_path'])}")
    path = data_folder(Request([], [], {"data_path": words.one("data_path")})) / rest[0] / FILE
    if action == "compact":
        if not path.is_file():
            raise UserError(f"content store {path}: no such file; `prepare` makes it of raw content")
        before, after = compact(path)
        print(f"{path}: {before:,} bytes before, {after:,} after")
        return 0
    with ContentStore.open(path) as store:
        counts = ", ".join(f"{count:,} {kind}" for kind, count in store.kinds().items()) or "nothing"
        print(f"{path}: {counts}; {path.stat().st_size:,} bytes")
        if action == "list":
            return 0
        problems = store.verify()
    for problem in problems[:SHOWN]:
        print(f"damaged: {problem}")
    if len(problems) > SHOWN:
        print(f"and {len(problems) - SHOWN:,} more")
    print(f"{len(problems):,} damaged records" if problems else "every record has the hash it was written with")
    return 1 if problems else 0
