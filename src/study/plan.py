"""From a study to its trials: points of each entry's search space, times seeds, each with its settings and folder."""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner.registry import model_keys
from study.spec import Axis, Entry, Range, Search, Study
from utils.config.configuration import Config
from utils.config.request import Request, resolve
from utils.config.schema import Key, keys_of
from utils.config.settings import SETTINGS
from utils.data.dataset import split_column
from utils.errors import UserError
from utils.runs.run_folder import identity

GENERATION = 4  # points that tpe proposes at a time

Point = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """One run of a study.

    Attributes:
        point: the searched keys and their values.
        folder: of the run, relative to the study's folder.
    """

    label: str
    model: str
    dataset: str
    point: Point
    seed: int
    folder: str
    config: Config

    def record(self) -> dict[str, Any]:
        """What trial.json and plan.json hold."""
        names = ("label", "model", "dataset", "point", "seed", "folder")
        return {name: getattr(self, name) for name in names}


Scores = Mapping[tuple[str, str], Sequence[float | None]]  # (label, data set) to the score of each point so far


def plan(
    study: Study, places: Mapping[str, Any], scores: Scores | None = None, others: Collection[str] = ()
) -> list[Trial]:
    """Every trial of a study that is known by now: for tpe those of all generations that can be proposed, and with
    `search.seeds` the other seeds of the best point of an entry once all its points have a score.

    Args:
        study: checked.
        places: keys of the command line: data_path, output_dir, device, threads...
        scores: of the points planned before, in their order, as far as they are done; None for one that failed.
        others: folders of trials planned before for seeds that do not search; they stay when another point is the best.

    Raises:
        UserError: for settings that are wrong, or a point that stands for the same run as another.
    """
    trials: list[Trial] = []
    problems: list[str] = []
    taken: dict[str, Trial] = {}
    for entry in study.entries:
        own = model_keys(entry.model, entry.plugin)
        for dataset in entry.datasets:
            observed = (scores or {}).get((entry.label, dataset), ())
            mine = points(entry, study.search, observed)
            best = _best(observed) if len(observed) == len(mine) else None
            for place, point in enumerate(mine):
                try:
                    of_point = make_trials(study, entry, own, dataset, point, places)
                except UserError as error:
                    where = f"{entry.label} on {dataset}"
                    problems += [f"{where}: {problem}" for problem in error.problems]
                    continue
                for trial in of_point:
                    if place != best and trial.seed not in study.search_seeds and trial.folder not in others:
                        continue
                    if trial.folder in taken:
                        first = taken[trial.folder].point
                        problems.append(f"{entry.label} on {dataset}: {point} and {first} are the same run")
                    taken[trial.folder] = trial
                    trials.append(trial)
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return trials


def _best(observed: Sequence[float | None]) -> int | None:
    """The place of the highest score, of equals the first; None where no point has one."""
    good = [(score, -place) for place, score in enumerate(observed) if score is not None]
    return -max(good)[1] if good else None


def make_trials(
    study: Study, entry: Entry, own: Mapping[str, Key], dataset: str, point: Point, places: Mapping[str, Any]
) -> list[Trial]:
    """The trials of a point, one for each seed, their settings resolved as the command line would; `own` are the model's."""
    known = {*(key for group in SETTINGS for key in keys_of(group)), *own}
    known |= {alias for group in SETTINGS for key in keys_of(group).values() for alias in key.field.metadata["alias"]}
    known |= {alias for key in own.values() for alias in key.field.metadata["alias"]}
    shared = {key: value for key, value in study.settings.items() if key in known}  # others are another model's
    values = {**shared, **entry.settings, **point, **places, "seed": study.seeds[0]}
    plugins = {entry.model: entry.plugin} if entry.plugin else {}
    words = {key: [value] for key, value in values.items()}
    request = Request([entry.model], [dataset], words, best=entry.best, plugins=plugins)
    (first,), _ = resolve(request, {entry.model: own})
    # Once for all seeds: reading the files again for each would take minutes in a study of thousands of trials.
    searching = {"no_test": True} if study.search.no_test else {}
    trials = []
    for number, seed in enumerate(study.seeds):
        changed = {"seed": seed, "split_field": split_column(first["split_field"], number % study.splits)}
        changed |= searching if seed in study.search_seeds else {}
        config = replace(first, entries={**first.entries, **changed})
        folder = f"trials/{dataset}/{entry.slug}/{_settings_identity(config)}-s{seed}"
        trials.append(Trial(entry.label, entry.model, dataset, point, seed, folder, config))
    return trials


def _settings_identity(config: Config) -> str:
    """What stands for the settings alone: a plugin that was edited leaves its trials, as of older code."""
    entries = {key: value for key, value in config.entries.items() if key not in ("plugin_sha256", "plugin_modules")}
    return identity(replace(config, entries=entries))


def points(entry: Entry, search: Search, observed: Sequence[float | None] = ()) -> list[Point]:
    """The points of an entry's space that are tried, in order; drawn ones are the same for each data set.

    Grid: all, or `search.trials` of them drawn without replacement where there are more. Random: that many draws. Tpe: the
    points with a score and the next generation, if the budget has one; a function of the scores and nothing else.
    """
    if not entry.grid:
        return [{}]
    stream = random.Random(f"{search.seed} {entry.label}")
    if search.method == "tpe":
        return _propose(entry.grid, search, stream.randrange(2**32), observed)
    if search.method == "random":
        return list(itertools.islice(_distinct(entry.grid, stream, search.trials or 1), search.trials))
    axes = {key: axis for key, axis in entry.grid.items() if not isinstance(axis, Range)}
    grid = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    if search.trials is None or len(grid) <= search.trials:
        return grid
    return [grid[place] for place in sorted(stream.sample(range(len(grid)), search.trials))]


def _distinct(grid: Mapping[str, Axis], stream: random.Random, wanted: int) -> Iterator[Point]:
    """Draws from the space, each once; fewer than wanted where it has no more."""
    seen: set[str] = set()
    for _ in range(100 * wanted):
        point = {key: _draw(axis, stream) for key, axis in grid.items()}
        if str(point) not in seen:
            seen.add(str(point))
            yield point


def _draw(axis: Axis, stream: random.Random) -> Any:
    if not isinstance(axis, Range):
        return stream.choice(axis)
    if axis.log:
        value = axis.low * (axis.high / axis.low) ** stream.random()
        return round(value) if axis.whole else float(f"{value:.6g}")
    return (
        stream.randint(int(axis.low), int(axis.high))
        if axis.whole
        else float(f"{stream.uniform(axis.low, axis.high):.6g}")
    )


def _propose(grid: Mapping[str, Axis], search: Search, seed: int, observed: Sequence[float | None]) -> list[Point]:
    """Replays the scores so far to a tree-structured Parzen estimator and asks for the next generation.

    Source: Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011; Optuna's implementation.
    """
    try:
        import optuna
    except ImportError:
        raise UserError("search method tpe needs optuna: pip install optuna") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=GENERATION)
    estimator = optuna.create_study(direction="maximize", sampler=sampler)
    proposed: list[Point] = []
    while len(proposed) < min(len(observed) + 1, search.trials or 1):
        count = min(GENERATION, (search.trials or 1) - len(proposed))
        asked = [estimator.ask() for _ in range(count)]
        proposed += [{key: _suggest(trial, key, axis) for key, axis in grid.items()} for trial in asked]
        for trial, score in zip(asked, observed[len(proposed) - count : len(proposed)], strict=False):
            failed = score is None
            estimator.tell(trial, None if failed else score, optuna.trial.TrialState.FAIL if failed else None)
    return proposed


def _suggest(trial: Any, key: str, axis: Axis) -> Any:
    if not isinstance(axis, Range):
        return axis[trial.suggest_categorical(key, list(range(len(axis))))]
    if axis.whole:
        return trial.suggest_int(key, int(axis.low), int(axis.high), log=axis.log)
    return float(f"{trial.suggest_float(key, axis.low, axis.high, log=axis.log):.6g}")


def relative_folder(folder: Path, trial: Trial) -> Path:
    """The trial's run folder under the study's."""
    return folder / trial.folder
