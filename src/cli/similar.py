"""The items whose embeddings are most like those of items, by the checkpoint of a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.lists import known, places, write_lists
from cli.parser import parse_options
from utils.config.schema import setting
from utils.data.id_files import read_titles


@dataclass(frozen=True)
class SimilarOptions:
    """What is similar to what."""

    run_folder: str = setting("folder of a finished run")
    items: list[str] | None = setting("ids of items; without: all items", default=None)
    k: int = setting("similar items per item", low=1, default=10)
    titles: str | None = setting("file of columns id,title; titles are shown and written", default=None)
    output: str | None = setting("file to write; without: similar.tsv in the run folder", default=None)
    data_path: str | None = setting("folder of data sets, if it is elsewhere now", default=None)
    device: str | None = setting("auto, cpu, cuda or cuda:N; without: that of the run", default=None)


def run(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parse_options("similar", SimilarOptions, words, ["run_folder"], __doc__ or "")
    if options is None:
        return 0
    folder, output = places("similar", options.run_folder, options.output, "similar.tsv")
    titles = read_titles(Path(options.titles).expanduser()) if options.titles else None

    from runner.stored_run import StoredRun

    stored = StoredRun.open(folder, options.data_path, options.device)
    stored.check_k(options.k)
    items = range(stored.dataset.n_items) if options.items is None else known(stored.items, options.items, "--items")
    columns = ("item", "rank", "similar", "cosine")
    write_lists(output, "item", columns, stored.similar(items, options.k), stored.items, stored.items, titles)
    return 0
