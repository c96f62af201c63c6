"""Converts a data set, or a user graph (a .npy and a .npz file, either way), from one format to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.parser import parse_options
from utils.config.schema import setting
from utils.errors import UserError


@dataclass(frozen=True)
class ConvertOptions:
    """What is converted into what."""

    format: str = setting("format of SOURCE: mmrec, recbole, mmssl, csv, or user_graph")
    source: str = setting("file or folder to read")
    target: str = setting("file or folder to write")
    to: str | None = setting("format of TARGET; without: mmrec", default=None)
    single: bool = setting("recbole: one file with a column of splits", default=False)
    renumber: bool = setting(
        "number users and items in order of first appearance, even where they count from 0", default=False
    )


def run(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parse_options("convert", ConvertOptions, words, ["format", "source", "target"], __doc__ or "")
    if options is None:
        return 0
    if options.format == "user_graph" and (options.to or options.single or options.renumber):
        raise UserError("convert: user_graph takes no options; the ending of TARGET says its form")
    if options.to == "user_graph":
        raise UserError("convert: --to user_graph: write `convert user_graph SOURCE TARGET`")
    source, target = Path(options.source).expanduser(), Path(options.target).expanduser()

    from prepare.conversion.convert_dataset import convert, convert_graph

    if options.format == "user_graph":
        lines = convert_graph(source, target)
    else:
        to = options.to or "mmrec"
        lines = convert(source, target.absolute(), options.format, to, options.single, options.renumber)
    print("\n".join(lines))
    return 0
