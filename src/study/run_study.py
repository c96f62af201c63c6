"""A study from its file to its report: what is left to run is run, then everything is reported."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from runner.quick_start import DatasetShelf, pick_device
from runner.registry import class_of
from study.dry_run import describe_rest
from study.execute import How, execute, unfinished
from study.plan import Scores, Trial, plan
from study.report.write_report import write_report
from study.results import load, read_json
from study.spec import Study, changed, differences, read_study
from utils.charts import FORMS
from utils.config.request import Request, data_folder
from utils.config.settings import NOT_IDENTITY
from utils.config.yaml_files import read_yaml
from utils.errors import UserError
from utils.files import make_folder, write_bytes, write_json
from utils.paths import PROJECT


def run_study(
    file: Path,
    output: Path | None,
    places: Mapping[str, Any],
    how: How,
    dry_run: bool,
    changes: Mapping[str, Any] | None = None,
    forms: Sequence[str] = tuple(FORMS),
) -> int:
    """Runs what is left of a study and writes its report; returns the exit code, 1 if a trial failed or diverged.

    Args:
        file: the study file.
        output: the folder that holds studies/; None: runs/ of the project.
        places: data_path, device, threads as given.
        how: workers and launcher.
        dry_run: only say what would be run.
        changes: keys of the file that are replaced.
        forms: of the figures.

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
    _check_grown(trials, folder, file, changes)
    if dry_run:
        describe_rest(study, trials, folder, how)
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
    write_report(study, load(folder), folder / "report", forms)
    return 1 if any(bad.values()) else 0


def make_report(given: Path, output: Path | None, forms: Sequence[str] = tuple(FORMS)) -> int:
    """Writes the report of a study again, from what is in its folder.

    What its file says of title, reference and report may have changed since; the file that is read is named.

    Args:
        given: the study's folder, or its file.
        output: of a file: the folder that holds studies/; None: runs/ of the project.
        forms: of the figures.

    Raises:
        UserError: if there is no such study, or a file says of its trials what the folder does not hold.
    """
    folder = given.parent if given.is_file() and (given.parent / "plan.json").is_file() else given
    if folder.is_file():
        name = changed(given, {}).get("name") or given.stem
        folder = (output or PROJECT / "runs") / "studies" / str(name)
        if not folder.is_dir():
            raise UserError(
                f"{folder}: there is no such study yet; `study {given}` runs it, --output_dir says where it is"
            )
    kept, places = folder / "study.yaml", read_json(folder / "places.json") or {}
    file = given if given.is_file() else Path(places.get("file") or kept)
    other: list[str] = []
    if file.is_file() and file != kept:
        other = differences(_of_trials(changed(kept, {})), _of_trials(changed(file, {})))
        if other and file == given:
            raise UserError(
                f"{file}: says of the trials what {folder} does not hold ({'; '.join(other[:3])}): `study {file}` runs it, "
                f"`report {folder}` reports what is there"
            )
    file = kept if other or not file.is_file() else file
    print(f"read {file} and the trials in {folder}")
    data = places.get("data_path")
    write_report(read_study(file, Path(data) if data else None), load(folder), folder / "report", forms)
    return 0


def _of_trials(content: Mapping[str, Any]) -> dict[str, Any]:
    """A study file without what only its report reads."""
    return {key: value for key, value in content.items() if key not in ("title", "reference", "report", "name")}


def _check_grown(trials: Sequence[Trial], folder: Path, file: Path, changes: Mapping[str, Any]) -> None:
    """Checks that a study's folder holds no trials that the study has no more.

    Raises:
        UserError: if it does, naming the keys that have changed.
    """
    before, now = read_json(folder / "plan.json") or [], [trial.record() for trial in trials]
    gone = [record for record in before if record not in now]
    if not gone:
        return
    kept, differing = folder / "study.yaml", []
    if kept.is_file() and kept.resolve() != file.resolve():
        differing = differences(_of_trials(changed(kept, {})), _of_trials(changed(file, changes)))
    # Otherwise the values come from other files: those of the first trial, then and now.
    mine = [t for t in trials if {**t.record(), "folder": ""} == {**gone[0], "folder": ""}]
    path = folder / gone[0]["folder"] / "config.yaml"
    if not differing and mine and path.is_file():
        values = {key: value for key, value in mine[0].config.entries.items() if key not in NOT_IDENTITY}
        earlier = read_yaml(path, str(path))
        differing = differences({key: earlier.get(key) for key in values}, values)
    first = f"{gone[0]['label']} on {gone[0]['dataset']}, {gone[0]['point']}, seed {gone[0]['seed']}"
    what = "; ".join(differing[:5]) or "nothing there: this code plans other trials"
    raise UserError(
        f"{folder}: {len(gone)} of its {len(before)} trials are not in {file.name} any more (first: {first}); what has "
        f"changed: {what}. A study may grow, not change: change it back, give it another `name:`, or write elsewhere with "
        "--output_dir"
    )


def _keep_plan(study: Study, trials: Sequence[Trial], folder: Path, file: Path, changes: Mapping[str, Any]) -> None:
    """Writes the study's file and plan into its folder."""
    make_folder(folder)
    content = changed(file, changes)
    if content != read_yaml(file, str(file)):
        write_bytes(folder / "study.yaml", yaml.safe_dump(content, sort_keys=False).encode())
    elif file.resolve() != (folder / "study.yaml").resolve():
        write_bytes(folder / "study.yaml", file.read_bytes())
    own = {} if changes or file.parent.resolve() == folder.resolve() else {"file": str(file.absolute())}
    write_json(folder / "places.json", {"data_path": trials[0].config["data_path"], **own})
    write_json(folder / "plan.json", [trial.record() for trial in trials])


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
    observed: dict[tuple[str, str], list[float | None]] = {}
    grouped: dict[tuple[str, str], dict[str, list[Any]]] = {}
    for result in results:
        points = grouped.setdefault((result.label, result.dataset), {})
        points.setdefault(repr(result.point), []).append(result)
    for key, points in grouped.items():
        observed[key] = []
        for results in points.values():
            own = [result for result in results if result.seed in study.search_seeds]
            if len(own) < len(study.search_seeds) or any(result.status == "open" for result in own):
                break
            failed = any(result.status in ("failed", "diverged") for result in results)
            good = [] if failed else [r.metrics["valid"][r.metrics["valid_metric"]] for r in own]
            observed[key].append(statistics.fmean(good) if good else None)
    return observed, others


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
