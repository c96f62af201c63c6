"""Checks a data set and its split for leakage; the exit code is 1 where some is found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.arguments import output_file
from cli.parser import parse_options
from utils.config.request import Request, resolve
from utils.config.schema import setting
from utils.files import write_json


@dataclass(frozen=True)
class AuditOptions:
    """What is checked."""

    dataset: str = setting("name of the data set")
    data_path: str | None = setting("folder of data sets", default=None)
    user_graph_file: str | None = setting("a user graph (.npz) to check too", default=None)
    random_split: bool = setting(
        "the split is random by intent: training on later interactions is a warning, not a leak", default=False
    )
    output: str | None = setting("JSON file for the result in full precision", default=None)


def run(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parse_options("audit", AuditOptions, words, ["dataset"], __doc__ or "")
    if options is None:
        return 0
    target = output_file("audit", options.output)
    overrides = {"data_path": [options.data_path]} if options.data_path else {}
    (config,), _ = resolve(Request(["audit"], [options.dataset], overrides), {"audit": None})

    from audit.checks import audit, table

    graph = Path(options.user_graph_file).expanduser() if options.user_graph_file else None
    result = audit(config, graph, options.random_split)
    print(f"{table(result.checks)}\n\n{result.sentence()}")
    if target:
        write_json(target, result.record())
        print(f"written to {target}")
    return 1 if result.leaks else 0
