"""Writes the report of a study again, from what is in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.parser import parse_options
from utils.config.schema import setting


@dataclass(frozen=True)
class ReportOptions:
    """Whose report."""

    study_folder: str = setting("folder of a study")


def run(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parse_options("report", ReportOptions, words, ["study_folder"], __doc__ or "")
    if options is None:
        return 0

    from study.run_study import make_report

    return make_report(Path(options.study_folder).expanduser())
