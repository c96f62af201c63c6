"""A study from its file to its report: what is left to run is run, then everything is reported."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from common.trainer import Trainer
from runner.quick_start import DatasetShelf, build_model, make_evaluator, make_loader, pick_device
from runner.registry import class_of
from study.execute import How, execute, unfinished
from study.plan import Scores, Trial, plan
from study.report.write_report import write_report
from study.results import load, read_json
from study.spec import Study, changed, read_study
from utils.config.request import Request, data_folder
from utils.errors import UserError
from utils.files import make_folder, write_bytes, write_json
from utils.paths import PROJECT
from utils.runs.run_folder import RunFolder


def run_study(
    file: Path,
    output: Path | None,
    places: Mapping[str, Any],
    how: How,
    dry_run: bool,
    changes: Mapping[str, Any] | None = None,
) -> int:
    """Runs what is left of a study and writes its report; returns the exit code, 1 if a trial failed or diverged.

    Args:
        file: the study file.
        output: the folder that holds studies/; None: runs/ of the project.
        places: data_path, device, threads as given.
        how: workers and launcher.
        dry_run: only say what would be run.
        changes: keys of the file that are replaced.

    Raises:
        UserError: for what is wrong with the file or the folder, before anything runs.
    """
    data = data_folder(Request([], [], {k: v for k, v in places.items() if k == "data_path" and v}))
    changes = changes or {}
    study = read_study(file, data, changes)
    folder = (output or PROJECT / "runs") / "studies" / study.name
    settings = {"data_path": str(data), "output_dir": str(folder), "threads": 1}
    settings |= {key: value for key, value in places.items() if value is not None}
    trials = plan(study, settings, *_known(study, folder))
    _check_data(trials)
    if dry_run:
        _describe(study, trials, folder)
        return 0
    while True:
        _keep_plan(study, trials, folder, file, changes)
        execute(trials, folder, how)
        further = plan(study, settings, *_known(study, folder))  # tpe: the next generation; other seeds of the best
        if len(further) == len(trials):
            break
        trials = further
    bad = unfinished(trials, folder)
    for status, several in bad.items():
        for trial in several[:10]:
            error = (read_json(folder / trial.folder / "error.json") or {}).get("error", "see metrics.json")
            print(f"{status}: {trial.label} on {trial.dataset}, seed {trial.seed}, {trial.point}: {error}")
        if len(several) > 10:
            print(f"... and {len(several) - 10} more {status} trials")
    print(f"{len(trials)} trials in {folder}")
    write_report(study, load(folder), folder / "report")
    return 1 if any(bad.values()) else 0


def make_report(folder: Path) -> int:
    """Writes the report of a study's folder again, from what is there."""
    study = read_study(folder / "study.yaml", _data_of(folder))
    write_report(study, load(folder), folder / "report")
    return 0


def _data_of(folder: Path) -> Path | None:
    """The folder of data sets that the study was run with."""
    places = read_json(folder / "places.json")
    return Path(places["data_path"]) if isinstance(places, dict) and "data_path" in places else None


def _keep_plan(study: Study, trials: Sequence[Trial], folder: Path, file: Path, changes: Mapping[str, Any]) -> None:
    """Writes the study's file and plan into its folder.

    Raises:
        UserError: if the folder holds trials that the study has no more.
    """
    make_folder(folder)
    before = read_json(folder / "plan.json") or []
    now = [trial.record() for trial in trials]
    gone = [record for record in before if record not in now]
    if gone:
        raise UserError(
            f"{folder}: {len(gone)} of its {len(before)} trials are not in {file.name} any more (first: "
            f"{gone[0]['label']} on {gone[0]['dataset']}, {gone[0]['point']}, seed {gone[0]['seed']}): a study may grow, "
            "not change; give it another name"
        )
    if changes:
        write_bytes(folder / "study.yaml", yaml.safe_dump(changed(file, changes), sort_keys=False).encode())
    elif file.resolve() != (folder / "study.yaml").resolve():
        write_bytes(folder / "study.yaml", file.read_bytes())
    write_json(folder / "places.json", {"data_path": trials[0].config["data_path"]})
    write_json(folder / "plan.json", now)


def _known(study: Study, folder: Path) -> tuple[Scores, set[str]]:
    """What a study's plan goes on from: scores of points, and the folders of trials of seeds that do not search.

    The score is the mean over the searching seeds, for each point whose searching trials are all done, as far as there is no
    gap; None for a point with a failed or diverged trial. Empty where the plan does not depend on what has run.
    """
    grows = study.search.method == "tpe" or study.search.seeds is not None
    if not grows or not (folder / "plan.json").is_file():
        return {}, set()
    results = load(folder)
    others = {str(r.folder.relative_to(folder)) for r in results if r.seed not in study.search_seeds}
    told: dict[tuple[str, str], list[float | None]] = {}
    grouped: dict[tuple[str, str], dict[str, list[Any]]] = {}
    for result in results:
        points = grouped.setdefault((result.label, result.dataset), {})
        points.setdefault(repr(result.point), []).append(result)
    for key, points in grouped.items():
        told[key] = []
        for results in points.values():
            own = [result for result in results if result.seed in study.search_seeds]
            if len(own) < len(study.search_seeds) or any(result.status == "open" for result in own):
                break
            failed = any(result.status in ("failed", "diverged") for result in results)
            good = [] if failed else [r.metrics["valid"][r.metrics["valid_metric"]] for r in own]
            told[key].append(statistics.fmean(good) if good else None)
    return told, others


def _check_data(trials: Sequence[Trial]) -> None:
    """Reads every data set once, so that what is wrong with one is said before anything runs."""
    problems: list[str] = []
    shelf = DatasetShelf()
    seen: set[tuple[str, bool]] = set()
    for trial in trials:
        features = class_of(trial.config).needs_features
        if (trial.dataset, features) not in seen:
            seen.add((trial.dataset, features))
            try:
                pick_device(trial.config["device"])
                shelf.get(trial.config, features)
            except UserError as error:
                problems += error.problems
    if problems:
        raise UserError(*dict.fromkeys(problems))


def _describe(study: Study, trials: Sequence[Trial], folder: Path) -> None:
    """Says what would be run, and for how long by one measured epoch of each entry on each data set."""
    print(f"{study.title}: {len(trials)} trials in {folder}")
    total = 0.0
    for entry in study.entries:
        for dataset in entry.datasets:
            mine = [t for t in trials if (t.label, t.dataset) == (entry.label, dataset)]
            seconds = _seconds_of_an_epoch(mine[0])
            epochs = mine[0].config["epochs"] if class_of(mine[0].config).needs_training else 1
            points, searching = len({repr(t.point) for t in mine}), len(study.search_seeds)
            rest = len(study.seeds) - searching
            most = seconds * epochs * (points * searching + rest)
            total += most
            print(
                f"  {entry.label} on {dataset}: {points} points x {searching} seeds"
                f"{f' and {rest} more of the best' if rest else ''}, {seconds:.2f} s an epoch, at most {_duration(most)} "
                f"({epochs} epochs a trial; most stop earlier)"
            )
    print(f"at most {_duration(total)} one after another on this machine")


def _seconds_of_an_epoch(trial: Trial) -> float:
    """One epoch of training and one evaluation, measured; what is built before does not count."""
    config = trial.config
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    device = pick_device(config["device"])
    dataset = DatasetShelf().get(config, class_of(config).needs_features)
    model = build_model(config, dataset, device)
    loader = make_loader(config, dataset, model, device)
    validator = make_evaluator(config, dataset, "valid", device)
    trainer = Trainer(config, model, loader, validator, RunFolder(Path(".")), lambda *_: None)
    start = time.perf_counter()
    if model.needs_training:
        trainer._train_epoch()
    middle = time.perf_counter()
    trainer.evaluate(validator)
    return middle - start + (time.perf_counter() - middle) / trainer.eval_step


def _duration(seconds: float) -> str:
    return (
        f"{seconds / 3600:.1f} h"
        if seconds > 5400
        else f"{seconds / 60:.0f} min"
        if seconds > 90
        else f"{seconds:.0f} s"
    )
