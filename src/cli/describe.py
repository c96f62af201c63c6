"""Describes DATA_PATH/NAME: sizes, splits, how interactions are spread, and the health of its features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.arguments import FORMS, dataset_folder, output_file
from cli.parser import parse_options
from utils.config.request import Request, resolve
from utils.config.schema import setting
from utils.files import write_json


@dataclass(frozen=True)
class DescribeOptions:
    """What is described, and where it is written."""

    name: str = setting("name of the data set")
    data_path: str | None = setting("folder of data sets", default=None)
    output: str | None = setting("JSON file for the same in full precision, with manifest.json", default=None)
    plots: str | None = setting(
        "folder for degrees.svg: the share of users and of items with at least so many interactions", default=None
    )
    figure_format: list[str] = setting("formats of the figure", choices=FORMS, default=["svg"])


def run(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parse_options("describe", DescribeOptions, words, ["name"], __doc__ or "")
    if options is None:
        return 0
    target = output_file("describe", options.output)
    folder = dataset_folder("describe", options.name, options.data_path)

    overrides = {"data_path": [options.data_path]} if options.data_path else {}
    resolve(Request(["describe"], [options.name], overrides), {"describe": None})  # mistakes, before all imports

    from audit.dataset_description import describe, plot_degrees
    from prepare.file_tools import make_named_folder

    description = describe(folder, options.name)
    print("\n".join(description.lines()))
    if target:
        write_json(target, description.record() | {"manifest": description.manifest})
        print(f"written to {target}")
    if options.plots:
        plots = Path(options.plots).expanduser()
        make_named_folder(plots, "--plots")
        for form in options.figure_format:
            plot_degrees(description, plots / f"degrees.{form}")
            print(f"written to {plots / f'degrees.{form}'}")
    return 0
