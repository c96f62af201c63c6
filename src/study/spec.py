"""A study file: which models run with which settings on which data sets and seeds, and what is reported.

Everything in it is checked before anything runs; see docs/studies.md for the format.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmrec.plugin import ModelFile, read_model_file
from runner.registry import available_models, model_keys, model_name
from utils.config.request import Request, data_folder, known_datasets
from utils.config.schema import Key, keys_of, setting
from utils.config.sections import read_section
from utils.config.settings import METRICS, NOT_IDENTITY, SETTINGS
from utils.config.yaml_files import read_yaml
from utils.errors import UserError, nearest
from utils.paths import CONFIGS

METHODS = ("grid", "random", "tpe")
FIGURES = ("convergence", "hyper_parameters", "ablation", "balance", "dot_products", "groups", "missing", "cost")
NAME = re.compile(r"[A-Za-z0-9][\w-]*")
# What a study sets itself, or its command does.
OWN_KEYS = {"seed", "output_dir", "data_path", "cache_dir", "device", "threads", "hyper_parameters"}


@dataclass(frozen=True)
class Search:
    """How the settings of an entry are searched."""

    method: str = setting("how points are found", choices=METHODS, default="grid")
    trials: int | None = setting(
        "points per entry and data set, the same budget for all; null: the whole grid", low=1, default=None
    )
    seed: int = setting("seed of what is drawn", low=0, default=0)
    seeds: int | None = setting(
        "how many of the study's seeds, the first ones, every point is run with; the best by them is then run with the "
        "others too; null: all",
        low=1,
        default=None,
    )
    no_test: bool = setting(
        "the trials that search compute no test score; the best point is then run with the other seeds, which do",
        default=False,
    )


@dataclass(frozen=True)
class Range:
    """Values of a key from low to high, for random and tpe search."""

    low: float
    high: float
    log: bool = False
    whole: bool = False


Axis = tuple[Any, ...] | Range


@dataclass(frozen=True)
class Entry:
    """A row of the study's table: a model with fixed settings and a space that is searched."""

    label: str
    model: str
    datasets: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Axis] = field(default_factory=dict)
    best: bool = False
    plugin: ModelFile | None = None

    @property
    def slug(self) -> str:
        """The label as the name of a folder."""
        return re.sub(r"[^A-Za-z0-9.+-]+", "_", self.label).strip("_") or "entry"

    def without(self, *keys: str) -> str:
        """Equal for entries that differ in these settings alone, and in label and data sets."""
        settings = {key: value for key, value in self.settings.items() if key not in keys}
        return json.dumps([self.model, settings, self.grid, self.best], sort_keys=True, default=repr)


@dataclass(frozen=True)
class Report:
    """What the report shows: metrics of the table, figures, and whether catalogue-wide measures are wanted."""

    metrics: tuple[str, ...] = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
    figures: tuple[str, ...] = ("convergence", "hyper_parameters", "cost")
    beyond_accuracy: bool = False


@dataclass(frozen=True)
class StudyKeys:
    """The keys of a study file."""

    datasets: list[str] = setting("data sets")
    entries: list[Any] = setting("models, or mappings with the keys of an entry")
    name: str | None = setting("name of the study's folder; null: that of the file", default=None)
    title: str | None = setting("title of the report", default=None)
    seeds: list[int] = setting("seeds of the runs", low=0, high=2**32 - 1, default=[999])
    splits: int = setting("splits of the data sets; seed after seed has the next of them", low=1, default=1)
    settings: dict[str, Any] | None = setting("keys of the harness or of models, for every entry", default=None)
    search: dict[str, Any] | None = setting("how the settings are searched", default=None)
    reference: str | None = setting("label of the entry that is tested against the others", default=None)
    report: dict[str, Any] | None = setting("what the report shows", default=None)


@dataclass(frozen=True)
class EntryKeys:
    """The keys of an entry."""

    model: str | None = setting("name of the model; null: that of the plugin", default=None)
    plugin: str | None = setting(
        "its file, if not of the tree, relative to the study file; NAME.yaml beside it has its values", default=None
    )
    label: str | None = setting("name of the row; null: that of the model", default=None)
    datasets: list[str] | None = setting("some of the study's data sets; null: all", default=None)
    settings: dict[str, Any] | None = setting("fixed keys", default=None)
    grid: Any = setting("searched keys with lists of values or ranges, or `published`", default=None)
    best: bool = setting("lay the best published setting over the model's", default=False)


@dataclass(frozen=True)
class RangeKeys:
    """The keys of a range."""

    low: float = setting("least value")
    high: float = setting("largest value")
    log: bool = setting("drawn evenly over the logarithm", default=False)


@dataclass(frozen=True)
class ReportKeys:
    """The keys of what the report shows."""

    metrics: list[str] | None = setting("metrics of the tables", default=list(Report.metrics))
    figures: list[str] | None = setting("figures", choices=FIGURES, default=list(Report.figures))
    beyond_accuracy: bool = setting("a table of catalogue-wide measures", default=False)


@dataclass(frozen=True)
class Study:
    """A checked study file."""

    name: str
    title: str
    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    entries: tuple[Entry, ...]
    settings: Mapping[str, Any]
    search: Search
    reference: str | None
    report: Report
    splits: int = 1

    @property
    def search_seeds(self) -> tuple[int, ...]:
        """The seeds that every point is run with, and by which the best is picked."""
        return self.seeds[: self.search.seeds]

    @property
    def reported_seeds(self) -> tuple[int, ...]:
        """The seeds that the tables are made of: all, or those that do not search where searching computes no test score."""
        return self.seeds[self.search.seeds :] if self.search.no_test else self.seeds


def read_study(path: Path, data_path: Path | None = None, changes: Mapping[str, Any] | None = None) -> Study:
    """Reads and checks a study file.

    Args:
        path: the YAML file.
        data_path: the folder of data sets; None: as without --data_path.
        changes: `datasets` and `seeds` in place of the file's, as `changed` lays them over it.

    Raises:
        UserError: with every mistake in it, one line each.
    """
    content = changed(path, changes or {})
    reader = _Reader(path.name)
    keys = reader.section(StudyKeys, content)
    name = keys["name"] or path.stem
    if not NAME.fullmatch(name):
        reader.say(f"name: expected letters, digits, - and _, got {name!r}")
    folder = data_folder(Request([], [], {"data_path": str(data_path)} if data_path else {}))
    datasets = tuple(dict.fromkeys(keys.get("datasets", ())))
    there = known_datasets(folder)
    for word in datasets:
        if word not in there:
            reader.say(f"datasets: unknown data set '{word}'{nearest(word, there)}; there are {', '.join(there)}")
    settings = reader.settings(keys["settings"], "settings")
    search = reader.search(keys["search"])
    entries = reader.entries(keys.get("entries", ()), datasets, settings, search)
    labels = [entry.label for entry in entries]
    reference = keys["reference"]
    if reference is not None and reference not in labels:
        reader.say(f"reference: expected the label of an entry, got {reference!r}{nearest(str(reference), labels)}")
    seeds = keys["seeds"]
    if len(set(seeds)) < len(seeds):
        reader.say(f"seeds: a seed stands twice in {seeds}")
    if search.no_test and not (search.seeds and search.seeds < len(seeds)):
        reader.say(
            f"search: no_test: expected search: seeds from 1 to {len(seeds) - 1}, so that seeds are left for the test, "
            f"got {search.seeds}"
        )
    if search.seeds is not None and search.seeds > len(seeds):
        reader.say(f"search: seeds: expected at most {len(seeds)}, as many as the study has, got {search.seeds}")
    if keys["splits"] > len(seeds):
        reader.say(f"splits: expected at most {len(seeds)}, as many as there are seeds, got {keys['splits']}")
    report = reader.report(keys["report"])
    if reader.problems:
        raise UserError(*reader.problems)
    title, splits = keys["title"] or name, keys["splits"]
    return Study(name, title, datasets, tuple(seeds), entries, settings, search, reference, report, splits)


def changed(path: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a study file with some keys replaced; with other data sets it is another study, and named so.

    Raises:
        UserError: if it is no YAML mapping.
    """
    content = read_yaml(path, str(path))
    if "datasets" in changes:
        content["name"] = "-".join([str(content.get("name", path.stem)), *changes["datasets"]])
    if isinstance(entries := content.get("entries"), list):
        content["entries"] = [_placed(entry, path.absolute().parent) for entry in entries]
    return {**content, **changes}


def _placed(entry: Any, folder: Path) -> Any:
    """An entry whose plugin has an absolute path, so that a copy of the file elsewhere means the same."""
    if not isinstance(entry, dict) or not isinstance(entry.get("plugin"), str):
        return entry
    return {**entry, "plugin": os.path.normpath(folder / Path(entry["plugin"]).expanduser())}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Keys of two study files that differ, with both values: "settings.epochs: 12 -> 13"."""
    first, second = _flat(before), _flat(now)
    names = dict.fromkeys([*first, *second])
    return [
        f"{name}: {first.get(name, 'not there')} -> {second.get(name, 'not there')}"
        for name in names
        if first.get(name) != second.get(name)
    ]


def _flat(content: Any, place: str = "") -> dict[str, Any]:
    """Every value by its place; entries by their labels."""
    if isinstance(content, list) and place == "entries":
        named = [entry if isinstance(entry, dict) else {"model": entry} for entry in content]
        content = {str(e.get("label") or e.get("model") or e.get("plugin")): e for e in named}
    if not isinstance(content, dict) or not content:
        return {place: content}
    return {
        name: value
        for key, inner in content.items()
        for name, value in _flat(inner, f"{place}.{key}" if place else str(key)).items()
    }


class _Reader:
    """Checks the parts of a study file and collects what is wrong with them."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[str] = []

    def say(self, problem: str) -> None:
        self.problems.append(f"{self.file}: {problem}")

    def section(self, kind: type, content: Any, place: str = "") -> dict[str, Any]:
        return read_section(kind, content, f"{self.file}: {place}", self.problems)

    def settings(self, found: Mapping[str, Any] | None, place: str) -> dict[str, Any]:
        """Keys that are set for runs, without those that a study sets itself."""
        for key in OWN_KEYS & set(found or {}):
            self.say(f"{place}: {key} is not set in a study: seeds go under `seeds`, the others on the command line")
        return {key: value for key, value in (found or {}).items() if key not in OWN_KEYS}

    def search(self, found: Mapping[str, Any] | None) -> Search:
        search = Search(**self.section(Search, found, "search: "))
        if search.trials is None and search.method != "grid":
            self.say(f"search: method {search.method} needs a number of trials")
        return search

    def entries(
        self, found: Sequence[Any], datasets: tuple[str, ...], common: Mapping[str, Any], search: Search
    ) -> tuple[Entry, ...]:
        entries: list[Entry] = []
        for number, raw in enumerate(found, 1):
            place = f"entries: {number}: "
            n_problems = len(self.problems)
            keys = self.section(EntryKeys, {"model": raw} if isinstance(raw, str) else raw, place)
            if not (keys["model"] or keys["plugin"]):
                if len(self.problems) == n_problems:
                    self.say(f"{place}model: expected the name of a model, or plugin: FILE, got nothing")
                continue
            try:
                file = keys["plugin"] and read_model_file(Path(keys["plugin"]), name=keys["model"])
                model = file.name if file else model_name(keys["model"])
            except UserError as error:
                self.say(f"{place}{error.problems[0]}")
                continue
            mine = tuple(dict.fromkeys(keys["datasets"] or datasets))
            for word in set(mine) - set(datasets):
                self.say(f"{place}datasets: '{word}' is not among those of the study")
            settings = self.settings(keys["settings"], f"{place}settings")
            published = file.settings_file if file else CONFIGS / "model" / f"{model}.yaml"
            grid = self.grid(keys["grid"], published, search, place)
            self.keys(model_keys(model, file), {**common, **settings}, grid, place, set(common))
            entries.append(Entry(keys["label"] or model, model, mine, settings, grid, keys["best"], file))
        for kind, names in (("label", [e.label for e in entries]), ("folder name", [e.slug for e in entries])):
            twice = [name for i, name in enumerate(names) if name in names[:i]]
            if twice:
                self.say(f"entries: two have the {kind} '{twice[0]}'; give each a label of its own")
                break
        return tuple(entries)

    def keys(
        self,
        own: Mapping[str, Key],
        settings: Mapping[str, Any],
        grid: Mapping[str, Axis],
        place: str,
        common: set[str],
    ) -> None:
        """Every key is one of the harness or of the model; one set for all entries may be another model's."""
        known = {key for group in SETTINGS for key in keys_of(group)}
        names = known | set(own) | {a for key in own.values() for a in key.field.metadata["alias"]}
        names |= {a for group in SETTINGS for key in keys_of(group).values() for a in key.field.metadata["alias"]}
        for key in settings:
            if key not in names and key not in common:
                self.say(f"{place}settings: unknown key '{key}'{nearest(key, names)}")
            elif key not in names and not any(key in model_keys(other) for other in available_models()):
                self.say(f"settings: unknown key '{key}'{nearest(key, names)}")
        for key in grid:
            if key not in names:
                self.say(f"{place}grid: unknown key '{key}'{nearest(key, names)}")
            elif key in NOT_IDENTITY | OWN_KEYS | {"valid_metric"}:
                self.say(f"{place}grid: {key} does not change what a run computes, or is set for all")

    def grid(self, found: Any, published: Path | None, search: Search, place: str) -> dict[str, Axis]:
        if found is None:
            return {}
        if found == "published":
            found = (read_yaml(published, str(published)).get("grid") if published else None) or {}
        if not isinstance(found, dict):
            self.say(f"{place}grid: expected keys with lists of values, or `published`, got {found!r}")
            return {}
        axes: dict[str, Axis] = {}
        for key, values in found.items():
            if isinstance(values, list) and values:
                twice = [value for i, value in enumerate(values) if value in values[:i]]
                if twice:
                    self.say(f"{place}grid: {key} lists {twice[0]!r} twice")
                axes[key] = tuple(values)
            elif isinstance(values, dict):
                axes[key] = self.range(values, f"{place}grid: {key}: ")
                if search.method == "grid":
                    self.say(f"{place}grid: {key}: a range needs search method random or tpe; a grid needs a list")
            else:
                self.say(f"{place}grid: {key}: expected a list of values or low and high, got {values!r}")
        return axes

    def range(self, found: Mapping[str, Any], place: str) -> Range:
        n_problems = len(self.problems)
        keys = self.section(RangeKeys, found, place)
        if len(self.problems) > n_problems:
            return Range(1.0, 2.0)
        low, high, log = keys["low"], keys["high"], keys["log"]
        if low >= high or (log and low <= 0):
            self.say(f"{place}expected low < high (above 0 with log: true), got {dict(found)}")
        return Range(found["low"], found["high"], log, all(isinstance(found[end], int) for end in ("low", "high")))

    def report(self, found: Mapping[str, Any] | None) -> Report:
        keys = self.section(ReportKeys, found, "report: ")
        metrics = [metric.lower() for metric in keys["metrics"] or Report.metrics]
        for metric in metrics:
            kind, _, cutoff = metric.partition("@")
            if kind not in METRICS or not cutoff.isdigit():
                self.say(f"report: metrics: expected names as recall@20, got {metric!r}{nearest(kind, METRICS)}")
        return Report(tuple(metrics), tuple(keys["figures"] or ()), keys["beyond_accuracy"])
