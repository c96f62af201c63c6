"""The best items of users, by the checkpoint of a finished run. Users and items go by their original ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cli.lists import known, places, warn, write_lists
from cli.parser import parse_options
from utils.config.schema import setting
from utils.data.id_files import read_exclusions, read_items, read_titles
from utils.data.id_mapping import quoted
from utils.errors import UserError

if TYPE_CHECKING:
    from runner.stored_run import StoredRun


@dataclass(frozen=True)
class RecommendOptions:
    """What is recommended to whom."""

    run_folder: str = setting("folder of a finished run")
    users: list[str] | None = setting("ids of users; without: all users", default=None)
    k: int = setting("items per user", low=1, default=20)
    hide: str = setting(
        "interactions whose items are left out: of the training split, or all",
        choices=("train", "all"),
        default="train",
    )
    items: str | None = setting("file of the only items to recommend, an id a line", default=None)
    exclude: str | None = setting("file of what not to recommend: lines of user,item or of an item", default=None)
    new_items: str | None = setting(
        "folder of items without interactions, which are ranked in place of the data set's: ids.txt and feature files",
        default=None,
    )
    titles: str | None = setting("file of columns id,title; titles are shown and written", default=None)
    output: str | None = setting("file to write; without: recommendations.tsv in the run folder", default=None)
    data_path: str | None = setting("folder of data sets, if it is elsewhere now", default=None)
    device: str | None = setting("auto, cpu, cuda or cuda:N; without: that of the run", default=None)


def run(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parse_options("recommend", RecommendOptions, words, ["run_folder"], __doc__ or "")
    if options is None:
        return 0
    folder, output = places("recommend", options.run_folder, options.output, "recommendations.tsv")
    if options.new_items and (options.items or options.exclude):
        raise UserError("recommend: --new_items goes without --items and --exclude: nobody has these items")
    titles = read_titles(Path(options.titles).expanduser()) if options.titles else None

    from runner.new_items import NewItems
    from runner.stored_run import StoredRun

    stored = StoredRun.open(folder, options.data_path, options.device)
    stored.check_k(options.k)
    if titles is not None and not options.new_items and not titles.keys() & stored.items.numbers.keys():
        warn(f"--titles: no title of any item; {stored.items.looks()}, those of the file like {next(iter(titles))!r}")
    users = range(stored.dataset.n_users) if options.users is None else known(stored.users, options.users, "--users")
    columns = ("user", "rank", "item", "score")
    if options.new_items:
        new = NewItems.read(Path(options.new_items).expanduser(), stored)
        lists = new.recommend(stored, users, options.k)
        write_lists(output, "user", columns, lists, stored.users, new.names, titles)
        return 0
    candidates = None
    if options.items:
        wanted = read_items(Path(options.items).expanduser())
        candidates = np.zeros(stored.dataset.n_items, dtype=bool)
        candidates[known(stored.items, wanted, "--items")] = True
    pairs: list[tuple[int, int]] = []
    if options.exclude:
        pairs, barred = _exclusions(stored, Path(options.exclude).expanduser())
        candidates = np.ones(stored.dataset.n_items, dtype=bool) if candidates is None else candidates
        candidates[barred] = False
    lists = stored.recommend(users, options.k, stored.hidden(options.hide, pairs), candidates)
    write_lists(output, "user", columns, lists, stored.users, stored.items, titles)
    return 0


def _exclusions(stored: StoredRun, path: Path) -> tuple[list[tuple[int, int]], list[int]]:
    """Pairs of numbers, and items for all users; ids that are not known are named: they are in no list anyway."""
    pairs, items = read_exclusions(path)
    users_of, items_of = stored.users.numbers, stored.items.numbers
    for names, wanted in ((stored.users, [u for u, _ in pairs]), (stored.items, [*(i for _, i in pairs), *items])):
        if unknown := names.find(wanted)[1]:
            warn(f"--exclude: there is no {names.kind} {quoted(unknown)}; left out")
    both = [(users_of[user], items_of[item]) for user, item in pairs if user in users_of and item in items_of]
    return both, [items_of[item] for item in items if item in items_of]
