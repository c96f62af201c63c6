"""Trials are run once each, whoever runs them and whatever is killed in between."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import problems_of

from study import execute as execute_module
from study.execute import How, claimed, execute, open_trials, work
from study.plan import Trial, plan
from study.results import load, status_of
from study.spec import Entry, Report, Search, Study
from utils.files import write_json

QUIET = How(quiet=True)
SMALL = {"n_users": 60, "n_items": 40, "n_interactions": 600, "feature_dims": {"visual": 4, "textual": 3}}
SETTINGS = {"epochs": 4, "topk": [5, 10], "valid_metric": "Recall@5", "metrics": ["recall"], "synthetic": SMALL}


def trials_of(folder: Path, *entries: Entry, seeds: tuple[int, ...] = (1, 2), **settings: Any) -> list[Trial]:
    study = Study("s", "S", ("demo",), seeds, entries, {**SETTINGS, **settings}, Search(), None, Report())
    places = {"data_path": str(folder / "data"), "output_dir": str(folder), "cache_dir": str(folder / "cache")}
    trials = plan(study, {**places, "device": "cpu", "threads": 1})
    write_json(folder / "plan.json", [trial.record() for trial in trials])
    return trials


@pytest.fixture
def trials(tmp_path: Path) -> list[Trial]:
    """MostPop and two points of LightGCN, two seeds: six trials."""
    grid = {"n_ui_layers": (1, 2)}
    return trials_of(
        tmp_path, Entry("MostPop", "MostPop", ("demo",)), Entry("LightGCN", "LightGCN", ("demo",), grid=grid)
    )


def numbers(folder: Path) -> dict[str, Any]:
    """What each trial measured, by its folder."""
    keep = ("status", "valid", "test", "best_epoch", "epochs")
    return {
        str(result.folder.relative_to(folder)): {key: result.metrics.get(key) for key in keep}
        for result in load(folder)
    }


def test_every_trial_is_run_and_its_folder_says_which_it_is(trials, tmp_path):
    execute(trials, tmp_path, QUIET)
    results = load(tmp_path)
    assert [result.status for result in results] == ["finished"] * 6
    assert not open_trials(trials, tmp_path)
    for trial, result in zip(trials, results, strict=True):
        assert json.loads((result.folder / "trial.json").read_text()) == trial.record()
        assert result.history[0]["epoch"] == 1
        assert result.manifest["seed"] == trial.seed
        assert set(result.per_user("test")) == {"user", "recall@5", "recall@10"}
        assert not (result.folder / "checkpoint.pt").exists()
        assert not (result.folder / ".claim").exists()


def test_checkpoints_stay_where_that_is_asked_for(trials, tmp_path):
    execute(trials[:1], tmp_path, replace(QUIET, keep_checkpoints=True))
    assert (tmp_path / trials[0].folder / "checkpoint.pt").is_file()


def test_what_is_done_is_not_done_again(trials, tmp_path, monkeypatch):
    execute(trials[:2], tmp_path, QUIET)
    ran = []
    real = execute_module.run

    def counted(config, *rest, **options):
        ran.append(config)
        return real(config, *rest, **options)

    monkeypatch.setattr(execute_module, "run", counted)
    execute(trials[:4], tmp_path, QUIET)
    assert len(ran) == 2
    execute(trials[:4], tmp_path, QUIET)
    assert len(ran) == 2


def test_workers_measure_what_this_process_measures(trials, tmp_path):
    execute(trials, tmp_path, QUIET)
    other = tmp_path / "other"
    other.mkdir()
    write_json(other / "plan.json", [trial.record() for trial in trials])
    execute(trials, other, replace(QUIET, workers=2))
    assert numbers(other) == numbers(tmp_path)


def test_a_trial_that_fails_is_written_down_and_stops_no_other(trials, tmp_path, monkeypatch):
    real = execute_module.run

    def broken(config, *rest, **options):
        if config["seed"] == 2 and config.model == "LightGCN":
            raise ValueError("no\nsuch luck")
        return real(config, *rest, **options)

    monkeypatch.setattr(execute_module, "run", broken)
    execute(trials, tmp_path, QUIET)
    found = [(result.status, result.error) for result in load(tmp_path)]
    assert found[3] == found[5] == ("failed", "ValueError: no such luck")
    assert [status for status, _ in found] == ["finished"] * 3 + ["failed", "finished", "failed"]
    assert "no\nsuch luck" in json.loads((tmp_path / trials[3].folder / "error.json").read_text())["traceback"]
    monkeypatch.undo()
    execute(trials, tmp_path, QUIET)
    assert status_of(tmp_path / trials[3].folder) == "failed", "not tried again unasked"
    execute(trials, tmp_path, replace(QUIET, retry_failed=True))
    assert [result.status for result in load(tmp_path)] == ["finished"] * 6


def test_a_trial_that_another_process_has_in_hand_is_left_alone(trials, tmp_path):
    path, other = (tmp_path / trial.folder for trial in trials[:2])
    path.mkdir(parents=True)
    other.mkdir()
    with claimed(path) as mine:
        assert mine
        with claimed(path) as again:
            assert not again
        work(trials[:2], tmp_path, keep_checkpoints=False)
    assert [status_of(tmp_path / trial.folder) for trial in trials[:2]] == ["open", "finished"]


def test_trials_of_changed_code_are_run_again_on_request_only(trials, tmp_path, monkeypatch):
    execute(trials[:1], tmp_path, QUIET)
    before = (tmp_path / trials[0].folder / "metrics.json").stat().st_mtime_ns
    monkeypatch.setattr(execute_module, "is_older", lambda record, code: True)
    execute(trials[:1], tmp_path, QUIET)
    assert (tmp_path / trials[0].folder / "metrics.json").stat().st_mtime_ns == before
    execute(trials[:1], tmp_path, replace(QUIET, rerun_changed=True))
    assert (tmp_path / trials[0].folder / "metrics.json").stat().st_mtime_ns > before


def _drive(trials: list[Trial], folder: Path, workers: int) -> None:
    os.setpgrp()
    execute(trials, folder, How(workers=workers, quiet=True))


def _children(parent: int) -> list[int]:
    """Processes whose parent is `parent`, of this system."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(entry.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to find the workers")
@pytest.mark.parametrize("victim", ["driver", "worker"])
def test_a_study_that_is_killed_anywhere_ends_with_the_same_numbers(victim, tmp_path):
    entries = (Entry("LightGCN", "LightGCN", ("demo",), grid={"n_ui_layers": (1, 2)}), Entry("BPR", "BPR", ("demo",)))
    folders = [tmp_path / name for name in ("undisturbed", "disturbed")]
    for folder in folders:
        folder.mkdir()
    trials = trials_of(folders[0], *entries, epochs=30, stopping_step=30)
    write_json(folders[1] / "plan.json", [trial.record() for trial in trials])
    execute(trials, folders[0], QUIET)
    stream, context = random.Random(victim), multiprocessing.get_context("spawn")
    kills = 0
    driver = None
    for _ in range(40):
        if driver is None or not driver.is_alive():
            driver = context.Process(target=_drive, args=(trials, folders[1], 2))
            driver.start()
        driver.join(timeout=stream.uniform(2.0, 5.0) if kills < 3 else 120)
        if not driver.is_alive():
            break
        workers = _children(driver.pid)
        if victim == "worker" and not workers:  # on a busy machine they may take long to start
            continue
        target = driver.pid if victim == "driver" else stream.choice(workers)
        os.kill(target, signal.SIGKILL)
        kills += 1
        if victim == "worker":
            driver.join(timeout=120)
            break
        driver.join()
        time.sleep(0.5)  # orphans notice, or finish: either way nothing is done twice
    assert kills
    assert driver.exitcode == 0
    assert numbers(folders[1]) == numbers(folders[0])


def test_ray_is_asked_for_by_name_where_it_is_not_installed(trials, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    problems = problems_of(lambda: execute(trials, tmp_path, replace(QUIET, launcher="ray")))
    assert problems == ["--launcher ray needs Ray: pip install ray"]


def test_a_ray_cluster_measures_what_this_process_measures(trials, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed")
    execute(trials, tmp_path, QUIET)
    other = tmp_path / "other"
    other.mkdir()
    write_json(other / "plan.json", [trial.record() for trial in trials])
    execute(trials, other, replace(QUIET, launcher="ray"))
    assert numbers(other) == numbers(tmp_path)
