"""A run that is killed at any moment loses at most the current epoch, and --resume leads to the same bits."""

from __future__ import annotations

import csv
import errno
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_tools import (
    Forks,
    contents,
    copy_of_code,
    environment,
    metrics_of,
    places,
    run_here,
    trained,
    write_dataset,
    write_mappings,
)

pytestmark = pytest.mark.slow

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked")

KILLED = -signal.SIGKILL
# Everything that a resumed run has to take up: the schedule, the patience, evaluations every other epoch, clipping,
# the moving average.
COMMON = "-d toy --epochs 7 --learning_rate 0.02 --learning_rate_scheduler 0.8 2 --eval_step 2 --stopping_step 1"
LONG = "-m LightGCN -d toy --epochs 60 --stopping_step 60 --learning_rate 0.01"
RUNS = {
    "LightGCN": f"-m LightGCN {COMMON} --clip_grad_norm 0.5 --train_batch_size 64 --save_topk --group_by user_activity "
    "--training_neg_sample_num 3 --neg_sampling popularity",
    "GTC": f"-m GTC {COMMON} --noise_steps 20 --denoiser_widths 8 --embedding_size 8 --learner adamw --weight_decay 0.01 "
    "--weight_average 0.9 --refit",
    "options": f"-m LightGCN {COMMON} --calibration --co_occurrence 0.5 --weight_average 0.9 --initialization spectral "
    "--no_test",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder data/ with the data set toy."""
    folder = tmp_path_factory.mktemp("kill")
    write_mappings(write_dataset(folder / "data" / "toy"))
    return folder / "data"


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code, which nobody edits meanwhile: a run is only continued by the code that began it."""
    return copy_of_code(tmp_path_factory.mktemp("code"))


@pytest.fixture(scope="module")
def forks(code: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Runs commands in processes of their own."""
    with Forks(code, tmp_path_factory.mktemp("log") / "log.txt") as forks:
        yield forks


def words_of(command: str, data: Path, folder: Path) -> list[str]:
    """The command with everything that it writes under `folder`."""
    shutil.copytree(data, folder / "data", dirs_exist_ok=True)
    return [*command.split(), *places(folder)]


def the_run(folder: Path) -> Path:
    """The only run folder under `folder`."""
    (found,) = (path.parent for path in folder.glob("runs/toy/*/*/config.yaml"))
    return found


def without_times(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file but for the columns with times."""
    with open(path, newline="") as file:
        return [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)]


def results_of(run: Path) -> dict[str, Any]:
    """All that a run has to give, but for times: numbers as they stand in the files, tensors as bytes."""
    results: dict[str, Any] = {}
    for path in (run / "refit" / "checkpoint.pt", run / "checkpoint.pt"):
        if path.is_file():
            checkpoint = torch.load(path, weights_only=True)
            results |= {
                f"{path.parent.name == 'refit'} {k}": v.numpy().tobytes() for k, v in checkpoint["model"].items()
            }
    results |= {"metrics": metrics_of(run), "history": without_times(run / "history.csv"), "epoch": checkpoint["epoch"]}
    results["scorers"] = checkpoint.get("scorers")
    for name in ("per_user.csv", "topk.tsv", "config.yaml"):
        if (run / name).is_file():
            results[name] = re.sub(r"(data_path|output_dir|cache_dir): .*", "", (run / name).read_text())
    return results


def is_tidy(run: Path) -> bool:
    """Whether nothing is left of work in progress."""
    left = {path.name for path in run.iterdir()} - {"config.yaml", "manifest.json", "history.csv", "metrics.json"}
    inner = {path.name for path in run.glob("refit/*")}
    return left <= {"per_user.csv", "checkpoint.pt", "topk.tsv", "refit"} and inner <= {"checkpoint.pt", "history.csv"}


@pytest.fixture(scope="module")
def undisturbed(
    data: Path, forks: Forks, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[dict[str, Any], int]]:
    """For a command: the results of its run, and how many files the run puts in place."""
    known: dict[str, tuple[dict[str, Any], int]] = {}

    def of(command: str) -> tuple[dict[str, Any], int]:
        if command not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            code, placed = forks.run(*words_of(command, data, folder))
            assert code == 0, forks.log.read_text()
            known[command] = results_of(the_run(folder)), placed
        return known[command]

    return of


def test_an_undisturbed_run_is_worth_comparing_with(undisturbed: Callable[[str], tuple[dict[str, Any], int]]):
    """Without this, the tests below might compare runs of one epoch, or two that do not depend on anything."""
    for command in RUNS.values():
        results, placed = undisturbed(command)
        history = results["history"]
        assert placed > 15
        assert 4 <= len(history) <= 7
        assert len({row["loss"] for row in history}) == len(history)
        assert [bool(row["valid_recall@20"]) for row in history] == [
            epoch % 2 == 0 for epoch in range(1, len(history) + 1)
        ]
        assert 0 < results["metrics"]["valid"]["recall@20"] < 1
        assert (results["metrics"]["test"] is None) == ("--no_test" in command)
        assert (results["scorers"] is None) == ("--calibration" not in command)


def finish(forks: Forks, words: list[str], folder: Path, expected: dict[str, Any]) -> None:
    """Resumes until the end, and compares."""
    code, _ = forks.run(*words, "--resume")
    assert code == 0, forks.log.read_text()
    assert results_of(the_run(folder)) == expected
    assert is_tidy(the_run(folder)), "nothing is left of what was killed"


@pytest.mark.parametrize("model", RUNS)
def test_killed_before_or_after_any_file_is_put_in_place(
    model: str,
    undisturbed: Callable[[str], tuple[dict[str, Any], int]],
    data: Path,
    forks: Forks,
    tmp_path: Path,
):
    expected, placed = undisturbed(RUNS[model])
    points = [(number, after) for number in range(1, placed + 1) for after in (False, True)]
    # Among the last: the weights that calibration chose, results by user, manifest, metrics.
    chosen = random.Random(4).sample(points[2:-8], 6) + points[:2] + points[-8:]
    for number, after in sorted(chosen):
        folder = tmp_path / f"{number}{after}"
        words = words_of(RUNS[model], data, folder)
        assert forks.run(*words, die_at=number, after=after) == (KILLED, number)
        if not list(folder.glob("runs/toy/*/*/config.yaml")):
            assert number <= 2, "killed before there was a run"
        finish(forks, words, folder, expected)


@pytest.mark.parametrize("model", RUNS)
def test_killed_again_and_again_at_random_moments(
    model: str,
    undisturbed: Callable[[str], tuple[dict[str, Any], int]],
    data: Path,
    forks: Forks,
    tmp_path: Path,
):
    expected, _ = undisturbed(RUNS[model])
    words = words_of(RUNS[model], data, tmp_path)
    chance = random.Random(7)
    n_killed, epochs = 0, []
    for _ in range(60):
        pid = forks.start(*words, "--resume")
        # Most of a short run is its start, so the moment counts from the first sign of training.
        deadline = time.monotonic() + 20
        last = next(tmp_path.glob("runs/toy/*/*/last.pt"), None)
        seen = last.stat().st_mtime_ns if last else None
        while time.monotonic() < deadline:
            last = last or next(tmp_path.glob("runs/toy/*/*/last.pt"), None)
            try:
                if last and last.stat().st_mtime_ns != seen:
                    break
            except FileNotFoundError:  # the run is finished
                break
            time.sleep(0.001)
        time.sleep(chance.choice((0, 0.001, 0.004)))
        os.kill(pid, signal.SIGKILL)
        code, _ = forks.wait()
        assert code in (KILLED, 0)
        n_killed += code == KILLED
        histories = list(tmp_path.glob("runs/toy/*/*/history.csv"))
        epochs.append(len(without_times(histories[0])) if histories else 0)
        assert epochs == sorted(epochs), "an epoch that was done is never lost"
        if list(tmp_path.glob("runs/toy/*/*/metrics.json")):
            break
    assert n_killed >= 2
    finish(forks, words, tmp_path, expected)


def listen_to_sigint() -> None:
    """A shell's background jobs are born deaf to it, and so are their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_with_a_message_and_can_be_resumed(
    number: signal.Signals,
    code: Path,
    undisturbed: Callable[[str], tuple[dict[str, Any], int]],
    data: Path,
    forks: Forks,
    tmp_path: Path,
):
    expected, _ = undisturbed(LONG)
    words = words_of(LONG, data, tmp_path)
    process = subprocess.Popen(
        [sys.executable, str(code / "main.py"), *words],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=listen_to_sigint,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/toy/*/*/history.csv")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert err.splitlines()[-1] == "stopped; the same command with --resume continues"
    assert "Traceback" not in out + err
    assert 1 <= len(without_times(the_run(tmp_path) / "history.csv")) < 60
    finish(forks, words, tmp_path, expected)
    assert f"continues in {the_run(tmp_path)}" in forks.log.read_text()


def test_a_full_disk_is_one_line_and_can_be_resumed(
    code: Path,
    undisturbed: Callable[[str], tuple[dict[str, Any], int]],
    data: Path,
    forks: Forks,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    command = RUNS["LightGCN"]
    words = words_of(command, data, tmp_path)
    written = []

    def full_at_the_ninth(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) >= 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("utils.paths.SOURCE", code)
        patch.setattr("runner.registry.MODELS", code / "models")
        patch.setattr("os.fsync", full_at_the_ninth)
        outcome = run_here(*words, "--quiet")
    assert outcome.code == 2
    assert re.fullmatch(r"error: /.*: cannot be written \(No space left on device\)\n", outcome.err)
    finish(forks, words, tmp_path, undisturbed(command)[0])


def grid_of(folder: Path) -> dict[str, int]:
    """Every file of every finished run to the time of its last change."""
    finished = [path.parent for path in folder.glob("runs/toy/*/*/metrics.json")]
    return {str(path): path.stat().st_mtime_ns for run in finished for path in run.iterdir()}


def test_a_killed_grid_goes_on_where_it_stopped(data: Path, forks: Forks, tmp_path: Path):
    command = "-m LightGCN BPR -d toy --epochs 2 --learning_rate 1e-3 0.02 --seed 1 2"
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code, placed = forks.run(*words_of(command, data, whole))
    assert code == 0, forks.log.read_text()
    words = words_of(command, data, killed)
    # In the middle of the fourth run, then in that of the seventh: 8 runs put in place about the same number of files.
    assert forks.run(*words, die_at=placed * 7 // 16)[0] == KILLED
    first = grid_of(killed)
    assert forks.run(*words, "--resume", die_at=placed * 6 // 16)[0] == KILLED
    second = grid_of(killed)
    assert forks.run(*words, "--resume")[0] == 0
    third = grid_of(killed)
    n_runs = [len({Path(path).parent for path in files}) for files in (first, second, third)]
    assert 2 <= n_runs[0] < n_runs[1] < n_runs[2] == 8
    assert first.items() <= second.items() <= third.items(), "what was finished is left alone"
    assert len(re.findall("finished before", forks.log.read_text())) == n_runs[1]
    for run in whole.glob("runs/toy/*/*/"):
        assert results_of(killed / run.relative_to(whole)) == results_of(run)
    (table,) = whole.glob("runs/comparisons/*/comparison.csv")
    assert len(without_times(table)) == 4
    assert without_times(killed / table.relative_to(whole)) == without_times(table)
    last_column = re.compile(r"[^|]*\|$", re.MULTILINE)  # seconds
    tables = [
        last_column.sub("", (f / table.relative_to(whole)).with_suffix(".md").read_text()) for f in (whole, killed)
    ]
    assert tables[0] == tables[1]


def test_resume_with_nothing_there_just_runs(
    undisturbed: Callable[[str], tuple[dict[str, Any], int]], data: Path, forks: Forks, tmp_path: Path
):
    finish(forks, words_of(RUNS["LightGCN"], data, tmp_path), tmp_path, undisturbed(RUNS["LightGCN"])[0])


def test_resume_of_a_finished_run_only_shows_it(data: Path, tmp_path: Path):
    words = words_of(RUNS["LightGCN"], data, tmp_path)
    first = trained(*words)
    before = {path: path.stat().st_mtime_ns for path in the_run(tmp_path).iterdir()}
    again = trained(*words, "--resume")
    assert {path: path.stat().st_mtime_ns for path in the_run(tmp_path).iterdir()} == before
    assert f"finished before, in {the_run(tmp_path)}" in again.out
    assert first.out.splitlines()[-1] == again.out.splitlines()[-1]


def test_only_the_same_settings_and_seed_are_resumed(data: Path, tmp_path: Path):
    words = words_of(RUNS["LightGCN"], data, tmp_path)
    trained(*words)
    for other in (["--reg_weight", "0.5"], ["--seed", "3"]):
        assert "finished before" not in trained(*words, *other, "--resume").out
    assert len(list(tmp_path.glob("runs/toy/*/*/config.yaml"))) == 3


class Bomb:
    """Unpickled, it writes a file `pwned` into the current folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


def damage_state(path: Path, kind: str) -> None:
    if kind == "cut off":
        os.truncate(path, path.stat().st_size // 2)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "foreign":
        path.write_bytes(b"hello")
    elif kind == "with code":
        torch.save(torch.load(path, weights_only=True) | {"random": Bomb()}, path)
    elif kind == "of another model":
        torch.save(torch.load(path, weights_only=True) | {"model": {"weight": torch.zeros(2)}}, path)
    else:
        torch.save({"epoch": 3}, path)


@pytest.mark.parametrize("kind", ["cut off", "empty", "foreign", "with code", "of another model", "of other content"])
def test_a_damaged_state_is_one_clear_line(
    kind: str, data: Path, forks: Forks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    words = words_of(RUNS["LightGCN"], data, tmp_path)
    assert forks.run(*words, die_at=8)[0] == KILLED
    state = the_run(tmp_path) / "last.pt"
    damage_state(state, kind)
    damaged, history = state.read_bytes(), (the_run(tmp_path) / "history.csv").read_bytes()
    assert forks.run(*words, "--resume")[0] == 2
    errors = [line for line in forks.log.read_text().splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert re.fullmatch(r"error: .*/last\.pt: cannot be continued from \(.+\); start anew without --resume", errors[0])
    assert "Traceback" not in forks.log.read_text()
    assert state.read_bytes() == damaged
    assert (the_run(tmp_path) / "history.csv").read_bytes() == history
    assert not (tmp_path / "pwned").exists()
    assert forks.run(*words)[0] == 0, "and without --resume it runs, in a folder of its own"
    assert (the_run_numbered(tmp_path, 2) / "metrics.json").is_file()


def the_run_numbered(folder: Path, number: int) -> Path:
    (found,) = folder.glob(f"runs/toy/*/*_{number}")
    return found


def taken_up(*_: object) -> None:
    raise AssertionError("two processes train in one run folder")


def test_a_run_that_is_going_on_is_not_taken_up_by_another(code: Path, data: Path, forks: Forks, tmp_path: Path):
    words = words_of("-m LightGCN -d toy --epochs 100000 --stopping_step 100000", data, tmp_path)
    pid = forks.start(*words)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("runs/toy/*/*/history.csv")) and time.monotonic() < deadline:
            time.sleep(0.005)
        # This process runs the code of the tree: it is to stop at the lock, not at a difference in code.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("utils.paths.SOURCE", code)
            patch.setattr("runner.registry.MODELS", code / "models")
            patch.setattr("common.trainer.Trainer.fit", taken_up)
            second = run_here(*words, "--resume")
    finally:
        os.kill(pid, signal.SIGKILL)
        killed, _ = forks.wait()
    assert killed == KILLED, "the first one was still running"
    assert second.code == 2
    assert re.fullmatch(rf"error: {the_run(tmp_path)}: another process is running here; .*\n", second.err)
    # The dead process keeps nobody out: what stops the next one is the number of epochs alone.
    pid = forks.start(*words, "--resume")
    before = len(without_times(the_run(tmp_path) / "history.csv"))
    deadline = time.monotonic() + 60
    while len(without_times(the_run(tmp_path) / "history.csv")) <= before and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    assert forks.wait()[0] == KILLED
    assert len(without_times(the_run(tmp_path) / "history.csv")) > before


def test_what_a_killed_process_left_half_written_is_removed(data: Path, forks: Forks, tmp_path: Path):
    words = words_of(RUNS["LightGCN"], data, tmp_path)
    assert forks.run(*words, die_at=8)[0] == KILLED
    hidden = [name for name in contents(the_run(tmp_path)) if name.startswith(".") and name.endswith(".tmp")]
    assert len(hidden) == 1, "the kill came while a file was being written"
    assert forks.run(*words, "--resume")[0] == 0
    assert is_tidy(the_run(tmp_path))
