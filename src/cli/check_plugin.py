"""Tries a model file on a tiny data set and reports what it reads and lacks; the exit code is 1 if it does not run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.parser import Parser, checked_values, read_value
from mmrec.plugin import read_model_file
from utils.config.schema import setting
from utils.errors import UserError


@dataclass(frozen=True)
class CheckOptions:
    """Which file is tried."""

    file: str = setting("the model file, FILE.py or FILE.py:CLASS")
    plugin_config: str | None = setting("its YAML file; without: NAME.yaml beside the file", default=None)


def run(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    parser = Parser("check_plugin", __doc__ or "", ["file"], "check_plugin FILE [options] [--KEY VALUE ...]")
    parser.add_options(CheckOptions)
    if not words or not {"-h", "--help"}.isdisjoint(words):
        print(parser.format_help(), end="")
        return 0
    # Which keys the file has is what the command finds out: any --KEY is taken.
    parser.add_silent(word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--"))
    given = parser.split(words)
    options = checked_values(CheckOptions, given, "check_plugin")
    if given.problems:
        raise UserError(*given.problems)
    settings = options["plugin_config"]
    file = read_model_file(Path(options["file"]), Path(settings).expanduser() if settings else None)

    from mmrec.plugin_report import check_plugin

    keys = {name: found for name, found in given.values.items() if name not in options}
    report = check_plugin(
        file, {name: [read_value(word, name, None) for word in found] for name, found in keys.items()}
    )
    print(report.text())
    return 1 if report.failure else 0
