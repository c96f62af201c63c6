"""Converts the pickled user graph that MMRec's preprocessing saves into one that runs read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.parser import parse_options
from utils.config.schema import setting


@dataclass(frozen=True)
class UserGraphOptions:
    """Two files."""

    source: str = setting("user_graph_dict.npy")
    target: str = setting("the .npz file to write")


def run(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parse_options("convert_user_graph", UserGraphOptions, words, ["source", "target"], __doc__ or "")
    if options is None:
        return 0

    from utils.data.user_graph_file import convert_user_graph

    target = Path(options.target).expanduser()
    n_users, n_pairs = convert_user_graph(Path(options.source).expanduser(), target)
    print(f"written to {target}: {n_users:,} users, {n_pairs:,} co-users")
    print(f"use it by --user_graph_file {target.absolute()}")
    return 0
