"""Writes the report of a study again, from what is in its folder; its file's title, reference and report are read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.arguments import FORMS
from cli.parser import parse_options
from utils.config.schema import setting
from utils.errors import UserError


@dataclass(frozen=True)
class ReportOptions:
    """Whose report, and in which forms."""

    study: str = setting("folder of a study, or its file")
    output_dir: str | None = setting("of a file: its study is in DIR/studies/NAME; without: runs/", default=None)
    figure_format: list[str] = setting("formats of the figures", choices=FORMS, default=list(FORMS))


def run(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parse_options("report", ReportOptions, words, ["study"], __doc__ or "")
    if options is None:
        return 0
    given = Path(options.study).expanduser().absolute()
    if not given.is_file() and not (given / "study.yaml").is_file():
        raise UserError(f"report: {given}: expected a study file, or the folder of a study (it has study.yaml)")

    from study.run_study import make_report

    output = Path(options.output_dir).expanduser().absolute() if options.output_dir else None
    return make_report(given, output, options.figure_format)
