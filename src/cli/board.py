"""All runs and studies below some folders on one HTML page: a table that sorts and filters, curves, two runs compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.arguments import output_file
from cli.parser import parse_options
from utils.config.schema import setting
from utils.errors import UserError
from utils.paths import PROJECT


@dataclass(frozen=True)
class BoardOptions:
    """What is shown, and where the page goes."""

    folder: list[str] | None = setting("folders of runs; without: runs/", default=None)
    output: str = setting("the page", default="board.html")


def run(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parse_options("board", BoardOptions, words, ["folder"], __doc__ or "", complete=True)
    if options is None:
        return 0
    folders = [Path(name).expanduser() for name in options.folder or [str(PROJECT / "runs")]]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"board: {folder}: there is no such folder; runs are below the --output_dir of training")
    target = output_file("board", options.output)
    assert target

    from study.board.read_runs import find_runs
    from study.board.write_board import write_board

    found = find_runs(folders)
    for line in found.left_out:
        print(f"left out: {line}")
    if not found.runs:
        raise UserError(f"board: no run folder (with config.yaml) in {', '.join(map(str, folders))}")
    write_board(found, target)
    studies = f", {len(found.studies)} studies" if found.studies else ""
    print(f"{len(found.runs)} runs{studies}; open {target}")
    return 0
