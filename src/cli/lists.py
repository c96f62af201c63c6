"""What the commands that use a finished run share: its folder, ids that are not known, and lists that are written."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from utils.data.id_mapping import Names, quoted
from utils.errors import UserError
from utils.files import write_rows

if TYPE_CHECKING:
    from runner.stored_run import Ranked

SHOWN = 20  # lists


def places(command: str, run_folder: str, output: str | None, name: str) -> tuple[Path, Path]:
    """The run folder and the file to write: `output`, or `name` in the run folder.

    Raises:
        UserError: for a folder that is no run, or a file that cannot be.
    """
    folder = Path(run_folder).expanduser()
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder}: not a run folder (no config.yaml)")
    path = Path(output).expanduser() if output else folder / name
    if output and not path.parent.is_dir():
        raise UserError(f"{command}: --output: there is no folder {path.parent}")
    if path.is_dir():
        raise UserError(f"{command}: --output: expected a file to write, got the folder {path}")
    return folder, path


def warn(line: str) -> None:
    """Says a warning."""
    print(f"warning: {line}", file=sys.stderr)


def known(names: Names, wanted: Sequence[str], where: str) -> list[int]:
    """The numbers of ids; those that are not known are named in a warning.

    Raises:
        UserError: if none is known.
    """
    numbers, unknown = names.find(wanted)
    if unknown and not numbers:
        raise UserError(f"{where}: there is no {names.kind} {quoted(unknown)}; {names.looks()}")
    if unknown:
        warn(f"{where}: there is no {names.kind} {quoted(unknown)}; left out")
    return numbers


def write_lists(
    path: Path, kind: str, columns: Sequence[str], lists: Iterable[Ranked], of: Names, items: Names,
    titles: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """Writes ranked lists while they come, a row for each item, and prints the first of them.

    Args:
        path: a file of tab-separated columns.
        kind: what a list belongs to, as it is printed.
        columns: four names; with titles `title` is the fifth.
        lists: to be written.
        of: whose lists they are.
        items: what they hold.
        titles: item id to title, to be shown.
    """
    n = 0

    def rows() -> Iterator[list[object]]:
        nonlocal n
        for number, columns_, values in lists:
            name, found = of.ids[number], [items.ids[item] for item in columns_]
            n += 1
            if n <= SHOWN:
                _show(f"{kind} {name}:", found, titles)
            for rank, (item, value) in enumerate(zip(found, values, strict=True), 1):
                yield [name, rank, item, value, *([titles.get(item, "")] if titles is not None else [])]

    write_rows(path, [*columns, *(["title"] if titles is not None else [])], rows(), "\t")
    if n > SHOWN:
        print(f"... and {n - SHOWN:,} more {kind}s")
    print(f"written to {path}")


def _show(head: str, found: Sequence[str], titles: Mapping[str, str] | None) -> None:
    if titles is None:
        print(f"{head} {' '.join(found)}")
        return
    print(head)
    width = max(map(len, found), default=0)
    for rank, item in enumerate(found, 1):
        print(f"{rank:4}  {item:{width}}  {titles.get(item, '')}".rstrip())
