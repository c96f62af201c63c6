"""What a study has left to run, and for how long."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from common.trainer import Trainer
from runner.quick_start import DatasetShelf, build_model, make_evaluator, make_loader, pick_device
from runner.registry import class_of
from study.execute import How
from study.plan import Trial
from study.results import TrialResult, load
from study.select import older
from study.spec import Entry, Study
from utils.runs.run_folder import RunFolder


def describe_rest(study: Study, trials: Sequence[Trial], folder: Path, how: How) -> None:
    """Prints for each entry on each data set how many trials are open, and how long they take.

    The time of a trial is the mean of those that are finished, or else the most that it can be by one measured epoch.
    """
    results = load(folder) if (folder / "plan.json").is_file() else []
    again = [result.folder for result in older(results)] if how.rerun_changed else []
    again += [result.folder for result in results if result.status == "failed" and how.retry_failed]
    done = {r.folder: r for r in results if r.status != "open" and r.folder not in again}
    total, rest, n_done, measured = 0.0, 0, 0, False
    lines = []
    for entry in study.entries:
        for dataset in entry.datasets:
            mine = [t for t in trials if (t.label, t.dataset) == (entry.label, dataset)]
            ended = [done[folder / t.folder] for t in mine if folder / t.folder in done]
            left = max(0, _planned(study, entry, mine) - len(ended))
            of_past = [_seconds(r) for r in results if (r.label, r.dataset) == (entry.label, dataset) and r.metrics]
            what = f"{left} of {left + len(ended)} trials open"
            if left and of_past:
                seconds = statistics.fmean(of_past)
                what += f", about {duration(seconds * left)} ({duration(seconds)} a trial, as {len(of_past)} took)"
                total += seconds * left
            elif left:
                each = _seconds_of_an_epoch(mine[0])
                epochs = mine[0].config["epochs"] if class_of(mine[0].config).needs_training else 1
                what += f", at most {duration(each * epochs * left)} ({each:.2f} s an epoch, {epochs} epochs a trial)"
                total += each * epochs * left
                measured = True
            rest, n_done = rest + left, n_done + len(ended)
            lines.append(f"  {entry.label} on {dataset}: {what}")
    print("\n".join([f"{study.title}: {rest} of {rest + n_done} trials open, in {folder}", *lines]))
    if rest:
        print(f"{'at most' if measured else 'about'} {duration(total)} one after another on this machine")


def _seconds(result: TrialResult) -> float:
    """How long a trial took, with what is built before training unless it was interrupted."""
    return max(result.metrics["seconds"], result.manifest.get("seconds", {}).get("last_session", 0.0))


def _planned(study: Study, entry: Entry, mine: Sequence[Trial]) -> int:
    """How many trials an entry has on a data set in all, those too that are planned when others are done."""
    points = len({repr(trial.point) for trial in mine})
    if study.search.method == "tpe" and entry.grid:
        points = max(points, study.search.trials or 1)
    return points * len(study.search_seeds) + len(study.seeds) - len(study.search_seeds)


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


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    if seconds > 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.{int(seconds < 10)}f} s"
