"""Running the trials of a study: here, in worker processes, or as tasks of a Ray cluster.

What is done is in the study's folder and nowhere else. A process claims a trial by a lock on a file in the trial's
folder, which the system gives back when the process ends however it ends; so any number of workers and drivers may work
on one folder, and whatever is killed, the rest or the next driver goes on with nothing done twice.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from common.scorers import Scorers
from runner.quick_start import DatasetShelf, check_resumable, pick_device, run
from runner.registry import class_of, code_of, is_older
from study.plan import Trial
from study.results import read_json, status_of
from utils.errors import UserError
from utils.files import make_folder, take_lock, write_json
from utils.memory import check_fits
from utils.paths import PACKAGE, SOURCE
from utils.progress import ProgressBar
from utils.runs.run_folder import RunFolder

CLAIM = ".claim"
POLL = 0.3  # seconds between two looks at the folder
MOST_DEATHS = 2  # of workers in one trial, before the trial counts as failed


@dataclass(frozen=True)
class How:
    """How trials are run.

    Attributes:
        workers: processes; 0: this one.
        launcher: local or ray.
        address: of the Ray cluster; None: one on this machine.
        retry_failed: run failed trials again.
        rerun_changed: run trials again that another version of the code has finished.
        keep_checkpoints: leave checkpoint.pt in the run folders.
        quiet: no progress bar.
    """

    workers: int = 0
    launcher: str = "local"
    address: str | None = None
    retry_failed: bool = False
    rerun_changed: bool = False
    keep_checkpoints: bool = False
    quiet: bool = False


class Abandoned(BaseException):
    """The driver of this worker is gone."""


def execute(trials: Sequence[Trial], folder: Path, how: How) -> None:
    """Runs every trial that is not done; returns when all are done, whoever did them.

    Args:
        trials: of the study.
        folder: of the study.
        how: where and with what.

    Raises:
        UserError: if Ray is asked for and not installed, or a folder cannot be written.
    """
    code = functools.cache(code_of)
    for trial in trials:
        _prepare(trial, folder, how, code)
    if how.launcher == "ray":
        _execute_on_ray(trials, folder, how)
    elif how.workers:
        _execute_in_workers(trials, folder, how)
    else:
        bar = TrialProgress(trials, folder, how)
        while open_trials(trials, folder):
            work(trials, folder, how.keep_checkpoints, bar.show)
            bar.show()
            if open_trials(trials, folder):  # in another driver's hands
                time.sleep(POLL)
        bar.close()


def open_trials(trials: Sequence[Trial], folder: Path) -> list[Trial]:
    """Trials that are neither finished nor diverged nor failed."""
    return [trial for trial in trials if status_of(folder / trial.folder) == "open"]


def _prepare(trial: Trial, folder: Path, how: How, code: Callable[[str, str | None], dict[str, str]]) -> None:
    """Makes the folder of a trial, and opens it again where that is asked for."""
    path = folder / trial.folder
    make_folder(path)
    if read_json(path / "trial.json") != trial.record():
        write_json(path / "trial.json", trial.record())
    status = status_of(path)
    if status == "failed" and how.retry_failed:
        (path / "error.json").unlink(missing_ok=True)
    if status in ("finished", "diverged") and how.rerun_changed and is_older(RunFolder(path).manifest(), code):
        with claimed(path) as mine:
            if mine:
                for file in [path / "metrics.json", *path.rglob("*.pt")]:
                    file.unlink(missing_ok=True)


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Within it the trial's folder is this process's, if it is given True."""
    lock = take_lock(path / CLAIM)
    try:
        if lock:
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
        yield lock is not None
    finally:
        if lock:
            (path / CLAIM).unlink(missing_ok=True)
            lock.close()


def work(
    trials: Sequence[Trial], folder: Path, keep_checkpoints: bool, watch: Callable[[], None] = lambda: None
) -> None:
    """Runs, one after another, the trials that are open and that no other process has claimed."""
    shelf = DatasetShelf()
    for trial in trials:
        path = folder / trial.folder
        if status_of(path) != "open":
            continue
        with claimed(path) as mine:
            if mine and status_of(path) == "open":  # another may have finished it before it was claimed
                watch()
                _run(trial, path, shelf, keep_checkpoints, watch)


def _run(trial: Trial, path: Path, shelf: DatasetShelf, keep_checkpoints: bool, watch: Callable[[], None]) -> None:
    """Runs a trial to its end; what goes wrong is written to error.json and stops nothing else."""
    try:
        folder, config = RunFolder(path), trial.config
        cls = class_of(config)
        dataset = shelf.get(config, cls.needs_features)
        needed = cls.memory_needed(config, dataset) | Scorers.memory_needed(config, dataset)
        check_fits(trial.model, needed, pick_device(config["device"]))
        try:
            check_resumable(folder, dataset)
        except UserError:  # other data or code than it began with: from the start
            folder.file("last.pt").unlink(missing_ok=True)
        run(config, folder, dataset, lambda *_: watch(), resume=True)
        if not keep_checkpoints:
            for file in path.rglob("checkpoint.pt"):
                file.unlink()
    except Exception as error:
        problems = error.problems if isinstance(error, UserError) else (f"{type(error).__name__}: {error}",)
        fail(path, " / ".join(problems), traceback.format_exc())


def fail(path: Path, error: str, trace: str = "") -> None:
    """Writes down that a trial cannot be run."""
    line = " ".join(error.split())
    write_json(path / "error.json", {"error": line, "traceback": trace, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")})


class TrialProgress:
    """Progress over all trials, read off the folder."""

    def __init__(self, trials: Sequence[Trial], folder: Path, how: How) -> None:
        self.trials, self.folder, self.last = trials, folder, 0.0
        # A file gets a line a minute.
        self.bar = ProgressBar("trials", how.quiet, len(trials), every=60)

    def show(self) -> None:
        """Looks at the folder now and then."""
        if time.monotonic() - self.last < POLL:
            return
        found = Counter(status_of(self.folder / trial.folder) for trial in self.trials)
        self.bar(len(self.trials) - found["open"], shown={s: found[s] for s in ("diverged", "failed") if found[s]})
        self.last = time.monotonic()

    def close(self) -> None:
        """Shows where it stands and takes the bar away."""
        self.last = 0.0
        self.show()
        self.bar.close()


def _execute_in_workers(trials: Sequence[Trial], folder: Path, how: How) -> None:
    """Keeps `workers` processes going until nothing is open; a worker that dies is replaced."""
    context = multiprocessing.get_context("spawn")
    bar = TrialProgress(trials, folder, how)
    deaths: Counter[str] = Counter()
    workers: dict[int, BaseProcess] = {}
    try:
        while left := open_trials(trials, folder):
            for number in range(min(how.workers, len(left))):
                if (worker := workers.get(number)) is not None and not worker.is_alive():
                    _bury(worker, trials, folder, deaths)
                    del workers[number]
                if number not in workers and len(left) > sum(w.is_alive() for w in workers.values()):
                    mine = [_on_device(trial, number) for trial in trials]
                    workers[number] = context.Process(
                        target=_worker, args=(mine, folder, how.keep_checkpoints, os.getpid()), daemon=True
                    )
                    workers[number].start()
            bar.show()
            time.sleep(POLL)
    finally:
        for worker in workers.values():
            if worker.is_alive() and open_trials(trials, folder):
                worker.terminate()
            worker.join()
        bar.close()


def _on_device(trial: Trial, number: int) -> Trial:
    """The trial on the GPU of a worker, where the run would take any and there are several."""
    import dataclasses

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if trial.config["device"] not in ("auto", "cuda") or count < 2:
        return trial
    config = dataclasses.replace(trial.config, entries={**trial.config.entries, "device": f"cuda:{number % count}"})
    return dataclasses.replace(trial, config=config)


def _bury(worker: BaseProcess, trials: Sequence[Trial], folder: Path, deaths: Counter[str]) -> None:
    """Notes in which trial a worker died; a trial that takes several with it has failed."""
    if not worker.exitcode:
        return
    for trial in trials:
        path = folder / trial.folder
        if status_of(path) == "open" and _claimant(path) == worker.pid:
            deaths[trial.folder] += 1
            if deaths[trial.folder] >= MOST_DEATHS:
                how = f"signal {-worker.exitcode}" if worker.exitcode < 0 else f"exit code {worker.exitcode}"
                fail(path, f"its process died {MOST_DEATHS} times ({how}); memory may not suffice")


def _claimant(path: Path) -> int:
    try:
        return int((path / CLAIM).read_text())
    except (OSError, ValueError):
        return -1


def _worker(trials: Sequence[Trial], folder: Path, keep_checkpoints: bool, parent: int) -> None:
    def watch() -> None:
        if os.getppid() != parent:
            raise Abandoned

    with contextlib.suppress(Abandoned, KeyboardInterrupt):
        while open_trials(trials, folder):
            work(trials, folder, keep_checkpoints, watch)
            watch()
            time.sleep(POLL)  # what is left is in the hands of others, who may die


def _execute_on_ray(trials: Sequence[Trial], folder: Path, how: How) -> None:
    """One Ray task a trial. The study's folder and the data must be at the same path on every machine."""
    try:
        import ray
    except ImportError:
        raise UserError("--launcher ray needs Ray: pip install ray") from None
    started = not ray.is_initialized()
    if started:
        ray.init(address=how.address, log_to_driver=False, include_dashboard=False, **_ray_environment(how))
    bar = TrialProgress(trials, folder, how)
    try:
        while left := open_trials(trials, folder):
            tasks = []
            for trial in left:
                needs = {"num_cpus": trial.config["threads"] or 1, "num_gpus": int(_wants_gpu(trial))}
                task = ray.remote(max_retries=MOST_DEATHS, **needs)(_ray_task)
                tasks.append(task.remote([trial], folder, how.keep_checkpoints))
            while tasks:
                done, tasks = ray.wait(tasks, timeout=POLL)
                for task in done:
                    _settle(ray, task)
                bar.show()
            if len(open_trials(trials, folder)) == len(left):
                time.sleep(POLL)  # all in another driver's hands
    finally:
        bar.close()
        if started:
            ray.shutdown()


def _settle(ray: Any, task: Any) -> None:
    """Takes note of a task that ended; one whose process died too often has failed."""
    try:
        ray.get(task)
    except ray.exceptions.WorkerCrashedError as error:
        raise UserError(f"a Ray worker died {MOST_DEATHS + 1} times in one trial ({error})") from None


def _ray_environment(how: How) -> dict[str, Any]:
    # An installed package is found without; a checkout is where its tasks find the modules.
    return {} if PACKAGE else {"runtime_env": {"env_vars": {"PYTHONPATH": str(SOURCE)}}}


def _wants_gpu(trial: Trial) -> bool:
    word = trial.config["device"]
    return word.startswith("cuda") or (word == "auto" and torch.cuda.is_available())


def _ray_task(trials: Sequence[Trial], folder: Path, keep_checkpoints: bool) -> None:
    work(trials, folder, keep_checkpoints)


def unfinished(trials: Sequence[Trial], folder: Path) -> Mapping[str, list[Trial]]:
    """Trials without a result by status: diverged and failed."""
    found: dict[str, list[Trial]] = {"diverged": [], "failed": []}
    for trial in trials:
        found.get(status_of(folder / trial.folder), []).append(trial)
    return found
