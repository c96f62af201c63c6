"""A study file: which models run with which settings on which data sets and seeds, and what is reported.

Everything in it is checked before anything runs; see docs/studies.md for the format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.registry import available_models, model_keys, model_name
from utils.config.request import Request, data_folder, known_datasets
from utils.config.schema import keys_of
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
    """How the settings of an entry are searched.

    Attributes:
        method: grid, random or tpe.
        trials: points per entry and data set, the same budget for all; None: the whole grid.
        seed: of what is drawn.
        seeds: how many of the study's seeds, the first ones, every point is run with; the best by them is then run with
            the others too. None: all.
    """

    method: str = "grid"
    trials: int | None = None
    seed: int = 0
    seeds: int | None = None


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

    @property
    def search_seeds(self) -> tuple[int, ...]:
        """The seeds that every point is run with, and by which the best is picked."""
        return self.seeds[: self.search.seeds]


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
    known = ("name", "title", "datasets", "seeds", "settings", "search", "entries", "reference", "report")
    reader = _Reader(path.name)
    reader.unknown(content, known, "")
    name = content.get("name", path.stem)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        reader.say(f"name: expected letters, digits, - and _, got {name!r}")
        name = "study"
    folder = data_folder(Request([], [], {"data_path": str(data_path)} if data_path else {}))
    datasets = reader.words(content, "datasets")
    there = known_datasets(folder)
    for word in datasets:
        if word not in there:
            reader.say(f"datasets: unknown data set '{word}'{nearest(word, there)}; there are {', '.join(there)}")
    settings = reader.settings(content.get("settings"), "settings")
    search = reader.search(content.get("search"))
    entries = reader.entries(content.get("entries"), datasets, settings, search)
    labels = [entry.label for entry in entries]
    reference = content.get("reference")
    if reference is not None and reference not in labels:
        reader.say(f"reference: expected the label of an entry, got {reference!r}{nearest(str(reference), labels)}")
    seeds = reader.seeds(content.get("seeds", [999]))
    if search.seeds is not None and search.seeds > len(seeds):
        reader.say(f"search: seeds: expected at most {len(seeds)}, as many as the study has, got {search.seeds}")
    study = Study(
        name,
        str(content.get("title", name)),
        datasets,
        seeds,
        entries,
        settings,
        search,
        reference,
        reader.report(content.get("report")),
    )
    if reader.problems:
        raise UserError(*reader.problems)
    return study


def changed(path: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a study file with some keys replaced; with other data sets it is another study, and named so.

    Raises:
        UserError: if it is no YAML mapping.
    """
    content = read_yaml(path, str(path))
    if "datasets" in changes:
        content["name"] = "-".join([str(content.get("name", path.stem)), *changes["datasets"]])
    return {**content, **changes}


class _Reader:
    """Checks the parts of a study file and collects what is wrong with them."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[str] = []

    def say(self, problem: str) -> None:
        self.problems.append(f"{self.file}: {problem}")

    def unknown(self, content: Mapping[Any, Any], known: tuple[str, ...], place: str) -> None:
        for key in content:
            if key not in known:
                self.say(f"{place}unknown key '{key}'{nearest(str(key), known)}")

    def words(self, content: Mapping[str, Any], key: str) -> tuple[str, ...]:
        found = content.get(key)
        entries = [found] if isinstance(found, str) else found
        if not isinstance(entries, list) or not entries or not all(isinstance(word, str) for word in entries):
            self.say(f"{key}: expected a list of names, got {found!r}")
            return ()
        return tuple(dict.fromkeys(entries))

    def seeds(self, found: Any) -> tuple[int, ...]:
        entries = found if isinstance(found, list) else [found]
        good = all(isinstance(s, int) and not isinstance(s, bool) and 0 <= s < 2**32 for s in entries)
        if not entries or not good:
            self.say(f"seeds: expected integers from 0 up, got {found!r}")
            return (999,)
        if len(set(entries)) < len(entries):
            self.say(f"seeds: a seed stands twice in {found}")
        return tuple(entries)

    def settings(self, found: Any, place: str) -> dict[str, Any]:
        if found is None:
            return {}
        if not isinstance(found, dict):
            self.say(f"{place}: expected keys and values, got {found!r}")
            return {}
        for key in OWN_KEYS & set(found):
            self.say(f"{place}: {key} is not set in a study: seeds go under `seeds`, the others on the command line")
        return {key: value for key, value in found.items() if key not in OWN_KEYS}

    def search(self, found: Any) -> Search:
        if found is None:
            return Search()
        if not isinstance(found, dict):
            self.say(f"search: expected method, trials, seed and seeds, got {found!r}")
            return Search()
        self.unknown(found, ("method", "trials", "seed", "seeds"), "search: ")
        method, seed = found.get("method", "grid"), found.get("seed", 0)
        counts: dict[str, int | None] = {}
        for key in ("trials", "seeds"):
            counts[key] = count = found.get(key)
            if not (count is None or (isinstance(count, int) and not isinstance(count, bool) and count >= 1)):
                self.say(f"search: {key}: expected an integer of at least 1 or null, got {count!r}")
                counts[key] = None
        trials = counts["trials"]
        if method not in METHODS:
            self.say(f"search: method: expected {', '.join(METHODS)}, got {method!r}")
            method = "grid"
        if trials is None and method != "grid":
            self.say(f"search: method {method} needs a number of trials")
            trials = 1
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            self.say(f"search: seed: expected an integer from 0 up, got {seed!r}")
            seed = 0
        return Search(method, trials, seed, counts["seeds"])

    def entries(
        self, found: Any, datasets: tuple[str, ...], common: Mapping[str, Any], search: Search
    ) -> tuple[Entry, ...]:
        if not isinstance(found, list) or not found:
            self.say(f"entries: expected a list, each with a model, got {found!r}")
            return ()
        entries: list[Entry] = []
        for number, raw in enumerate(found, 1):
            place = f"entries: {number}: "
            raw = {"model": raw} if isinstance(raw, str) else raw
            if not isinstance(raw, dict) or not isinstance(raw.get("model"), str):
                self.say(f"{place}expected a model, got {raw!r}")
                continue
            self.unknown(raw, ("label", "model", "datasets", "settings", "grid", "best"), place)
            try:
                model = model_name(raw["model"])
            except UserError as error:
                self.say(f"{place}{error.problems[0]}")
                continue
            mine = self.words(raw, "datasets") if "datasets" in raw else datasets
            for word in set(mine) - set(datasets):
                self.say(f"{place}datasets: '{word}' is not among those of the study")
            settings = self.settings(raw.get("settings"), f"{place}settings")
            grid = self.grid(raw.get("grid"), model, search, place)
            if not isinstance(raw.get("best", False), bool):
                self.say(f"{place}best: expected true or false, got {raw['best']!r}")
            self.keys(model, {**common, **settings}, grid, place, set(common))
            label = str(raw.get("label", model))
            entries.append(Entry(label, model, mine, settings, grid, raw.get("best") is True))
        for kind, names in (("label", [e.label for e in entries]), ("folder name", [e.slug for e in entries])):
            twice = [name for i, name in enumerate(names) if name in names[:i]]
            if twice:
                self.say(f"entries: two have the {kind} '{twice[0]}'; give each a label of its own")
                break
        return tuple(entries)

    def keys(
        self, model: str, settings: Mapping[str, Any], grid: Mapping[str, Axis], place: str, common: set[str]
    ) -> None:
        """Every key is one of the harness or of the model; one set for all entries may be another model's."""
        known = {key for group in SETTINGS for key in keys_of(group)}
        own = model_keys(model)
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
            elif key in NOT_IDENTITY | OWN_KEYS:
                self.say(f"{place}grid: {key} does not change what a run computes, or is set elsewhere")

    def grid(self, found: Any, model: str, search: Search, place: str) -> dict[str, Axis]:
        if found is None:
            return {}
        if found == "published":
            found = read_yaml(CONFIGS / "model" / f"{model}.yaml", model).get("grid") or {}
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
        self.unknown(found, ("low", "high", "log"), place)
        low, high, log = found.get("low"), found.get("high"), found.get("log", False)
        numbers = [x for x in (low, high) if isinstance(x, int | float) and not isinstance(x, bool)]
        if len(numbers) < 2 or not numbers[0] < numbers[1] or not isinstance(log, bool) or (log and numbers[0] <= 0):
            self.say(f"{place}expected low < high (above 0 with log: true), got {dict(found)}")
            return Range(1.0, 2.0)
        return Range(numbers[0], numbers[1], log, all(isinstance(x, int) for x in numbers))

    def report(self, found: Any) -> Report:
        if found is None:
            return Report()
        if not isinstance(found, dict):
            self.say(f"report: expected metrics, figures and beyond_accuracy, got {found!r}")
            return Report()
        self.unknown(found, ("metrics", "figures", "beyond_accuracy"), "report: ")
        plain = Report()
        metrics = [str(m).lower() for m in found.get("metrics") or plain.metrics]
        for metric in metrics:
            kind, _, cutoff = metric.partition("@")
            if kind not in METRICS or not cutoff.isdigit():
                self.say(f"report: metrics: expected names as recall@20, got {metric!r}{nearest(kind, METRICS)}")
        figures = found.get("figures", list(plain.figures)) or []
        for figure in figures:
            if figure not in FIGURES:
                self.say(f"report: figures: unknown '{figure}'{nearest(str(figure), FIGURES)}")
        if not isinstance(found.get("beyond_accuracy", False), bool):
            self.say(f"report: beyond_accuracy: expected true or false, got {found['beyond_accuracy']!r}")
        return Report(tuple(metrics), tuple(figures), found.get("beyond_accuracy") is True)
