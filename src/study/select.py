"""Which point of each entry stands in the tables: the best by mean validation over seeds, and never by test."""

from __future__ import annotations

import functools
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.extras import extras, note_of, unlike
from runner.registry import code_of, is_older
from study.results import TrialResult
from study.spec import Study
from utils.config.yaml_files import read_yaml
from utils.errors import UserError

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Tried:
    """A point of an entry's search space on one data set.

    Attributes:
        trials: one for each seed it is run with, in the order of the study's seeds.
        why: what keeps it from being selected; empty if all the seeds it needs have finished.
        open: whether trials of it are still to be run.
        n_search: how many of the trials, the first ones, select.
    """

    point: dict[str, Any]
    trials: tuple[TrialResult, ...]
    why: str = ""
    open: bool = False
    n_search: int | None = None

    @property
    def complete(self) -> bool:
        """Whether every seed that it needs has finished."""
        return not self.why

    def valid(self) -> list[float]:
        """The validation score of each seed, by the metric that selects."""
        return [trial.metrics["valid"][trial.metrics["valid_metric"]] for trial in self.trials]

    def test(self, metric: str) -> list[float]:
        """The test value of each seed."""
        return [trial.metrics["test"][metric] for trial in self.trials]

    @property
    def split(self) -> str:
        """What its results are of: test, or with `no_test` valid."""
        return "test" if self.trials[0].metrics.get("test") else "valid"

    def result(self, metric: str) -> list[float]:
        """The value of each seed on the split that its results are of."""
        return [trial.metrics[self.split][metric] for trial in self.trials]

    def searched(self) -> list[float]:
        """The validation scores that select: those of the seeds that every point is run with."""
        return self.valid()[: self.n_search]

    def score(self) -> float:
        """The mean validation score over the seeds that select."""
        return statistics.fmean(self.searched())


@dataclass(frozen=True)
class Chosen:
    """An entry on a data set: what was tried, and the point that validation picked, if any is complete."""

    label: str
    model: str
    dataset: str
    tried: tuple[Tried, ...]
    best: Tried | None

    @property
    def preliminary(self) -> bool:
        """Whether points are still to be run, so that another may yet be picked."""
        return any(point.open for point in self.tried)

    @property
    def trials(self) -> list[TrialResult]:
        """All trials: those that searched, and those of the point that was picked."""
        points = self.tried if self.best is None or self.best in self.tried else (*self.tried, self.best)
        return [trial for point in points for trial in point.trials]

    def count(self, status: str) -> int:
        """Trials with a status."""
        return sum(trial.status == status for trial in self.trials)


def select(study: Study, results: Iterable[TrialResult]) -> list[Chosen]:
    """For each data set and entry, in the study's order, the point with the best mean validation score.

    The mean is over the seeds that search. A point with a diverged or failed seed is out; of equals the first is taken; it
    has to have finished with all seeds.
    """
    groups: dict[tuple[str, str], dict[str, list[TrialResult]]] = {}
    for result in results:
        points = groups.setdefault((result.dataset, result.label), {})
        points.setdefault(json.dumps(result.point, sort_keys=True), []).append(result)
    found = []
    for dataset in study.datasets:
        for entry in study.entries:
            if dataset in entry.datasets:
                points = groups.get((dataset, entry.label), {})
                tried = [_tried(trials, study, study.search_seeds) for trials in points.values()]
                complete = [place for place, point in enumerate(tried) if point.complete]
                best = None
                if complete:
                    place = max(complete, key=lambda place: tried[place].score())
                    best = _tried([*points.values()][place], study, study.reported_seeds)
                    if not study.search.no_test:
                        tried[place] = best
                    best = best if best.complete else None
                found.append(Chosen(entry.label, entry.model, dataset, tuple(tried), best))
    return found


def _tried(trials: Sequence[TrialResult], study: Study, needed: Sequence[int]) -> Tried:
    """A point that has to have finished with the seeds that are needed, and has no trials but theirs and bad ones."""
    by_seed = {trial.seed: trial for trial in trials}
    bad = {seed: f"seed {seed} {t.status}" for seed, t in by_seed.items() if t.status in ("diverged", "failed")}
    ordered = tuple(by_seed[s] for s in study.seeds if s in by_seed and (s in needed or s in bad))
    left = [f"seed {seed} not finished" for seed in needed if seed not in by_seed or by_seed[seed].status == "open"]
    why = ", ".join([bad[t.seed] for t in ordered if t.seed in bad] + left)
    n_search = None if study.search.no_test else len(study.search_seeds)
    return Tried(ordered[0].point if ordered else trials[0].point, ordered, why, bool(left), n_search)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation (n - 1); None in its place for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def budget_notes(chosen: Sequence[Chosen]) -> list[str]:
    """Sentences on entries that were not given the same number of points, and on what is missing."""
    notes = []
    for dataset in dict.fromkeys(one.dataset for one in chosen):
        mine = [one for one in chosen if one.dataset == dataset]
        counts = {one.label: len(one.tried) for one in mine}
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{label} {count}" for label, count in counts.items())
            notes.append(f"On {dataset} the entries were tried at different numbers of points: {said}.")
    for one in chosen:
        where = f"{one.label} on {one.dataset}"
        out = [point for point in one.tried if point.why and not point.open]
        if out:
            said = "; ".join(f"{describe(point.point)}: {point.why}" for point in out[:3])
            more = f"; and {len(out) - 3} more" if len(out) > 3 else ""
            notes.append(f"{where}: {len(out)} of {len(one.tried)} points left out of the selection ({said}{more}).")
        if one.preliminary or not one.tried:
            left = [trial for point in one.tried for trial in point.trials if trial.status == "open"]
            what = "another point may yet be picked" if one.best else "it has no row yet"
            notes.append(f"{where}: trials not finished: {len(left) or 'all'}; {what}.")
        elif one.best is None:
            notes.append(f"{where}: no point has finished with every seed, so it has no row.")
    return notes


def describe(point: Mapping[str, Any]) -> str:
    """A point as words."""
    return ", ".join(f"{key}={plain(value)}" for key, value in point.items()) or "fixed settings"


def plain(value: Any) -> str:
    """A value of a key as short text."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def refuse_mixture(results: Sequence[TrialResult], metrics: Sequence[str] = ()) -> None:
    """Sees to it that runs may stand in one table.

    Equal for all: protocol, code, the metric that selects; within a data set: the interactions of every split, where seeds
    have splits of their own those of a seed; for each
    modality the features, but for entries to which `modality_input` or `missing_share` gives others.

    Raises:
        UserError: in one line, naming everything that differs.
    """
    problems = []
    facts: dict[str, dict[str, str]] = {}  # what must be equal, to its values, each with a run that has it

    def note(what: str, value: Any, result: TrialResult) -> None:
        facts.setdefault(what, {}).setdefault(str(value), f"{result.label} on {result.dataset}, seed {result.seed}")

    for result in results:
        manifest = result.manifest
        note("protocol", manifest.get("protocol"), result)
        note("code version", manifest.get("versions", {}).get("code"), result)
        note(f"code version of {manifest.get('model')}", manifest.get("versions", {}).get("model"), result)
        note("valid_metric", result.metrics.get("valid_metric"), result)
        config = settings_of(result)
        inputs, column = replaced(config), config.get("split_field")
        note(f"split_field of {result.dataset} with seed {result.seed}", column, result)
        for name, digest in manifest.get("hashes", {}).items():
            what = "interactions" if name in SPLITS else "features" if name in manifest.get("features", {}) else "graph"
            suffix = f", {inputs[name]}" if name in inputs else f", {column}" if name in SPLITS and column else ""
            note(f"{what} ({name}{suffix}) of {result.dataset}", digest, result)
        tested = bool(result.metrics.get("test"))
        note("test score", "computed" if tested else "left out", result)
        missing = [metric for metric in metrics if metric not in (result.metrics["test" if tested else "valid"] or {})]
        if missing:
            note(f"metrics: {', '.join(missing)} not computed", "by", result)
    for what, values in facts.items():
        if len(values) > 1:
            problems.append(f"{what}: " + " but ".join(f"{value[:16]} ({run})" for value, run in values.items()))
        elif what.startswith("metrics: "):
            problems.append(f"{what} by {values['by']}")
    if problems:
        raise UserError(
            f"these runs cannot stand in one table: {'; '.join(problems)}; finish the study with one setting and one "
            "version of the code (--rerun_changed runs what another version has finished)"
        )


def settings_of(result: TrialResult) -> dict[str, Any]:
    """What the config.yaml of a trial holds; nothing before it began."""
    path = result.folder / "config.yaml"
    return read_yaml(path, str(path)) if path.is_file() else {}


def what_sets_apart(chosen: Sequence[Chosen]) -> dict[tuple[str, str], str]:
    """For each data set and entry with a row, what it has beside its paper or unlike the others, as a footnote."""
    found = {}
    for dataset in dict.fromkeys(one.dataset for one in chosen):
        mine = [(one.label, one.best) for one in chosen if one.dataset == dataset and one.best]
        configs = [settings_of(best.trials[0]) for _, best in mine]
        for (label, best), config, rules in zip(mine, configs, unlike(configs), strict=True):
            calibrations = [t.metrics["calibration"] for t in best.trials if t.metrics.get("calibration")]
            found[dataset, label] = note_of(extras(config, calibrations), rules)
    return found


def older(results: Iterable[TrialResult]) -> list[TrialResult]:
    """The trials that other code than this has made."""
    code = functools.cache(code_of)
    done = [result for result in results if result.metrics and "model" in result.manifest]
    return [result for result in done if is_older(result.manifest, code)]


def without_test(chosen: Iterable[Chosen]) -> bool:
    """Whether the selected runs have no test scores, since they ran with `no_test`."""
    return any(one.best is not None and one.best.split == "valid" for one in chosen)


def replaced(settings: Mapping[str, Any]) -> dict[str, str]:
    """The modalities that are not their own by `modality_input` and `missing_share`, each with what it is, in words."""
    words = {modality: [word] for modality, word in (settings.get("modality_input") or {}).items() if word != "real"}
    for modality, share in missing_shares(settings).items():
        words.setdefault(modality, []).append(f"{100 * share:g}% missing")
    return {modality: " and ".join(parts) for modality, parts in words.items()}


def missing_shares(settings: Mapping[str, Any]) -> dict[str, float]:
    """Modality to the share of items that `missing_share` takes it from, where that is more than none."""
    return {modality: share for modality, share in (settings.get("missing_share") or {}).items() if share}
