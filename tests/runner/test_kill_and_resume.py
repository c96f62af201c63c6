"""A command that is killed at any moment loses next to nothing: run again, it ends with the files of an undisturbed one."""

from __future__ import annotations

import csv
import errno
import itertools
import json
import os
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
import yaml
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
from plugin_tools import PLUGINS

from prepare.pipeline import WORK
from prepare.synthetic_raw.raw_spec import RawSpec
from prepare.synthetic_raw.write_raw import write_raw

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked")

KILLED = -signal.SIGKILL
# Everything that a resumed run has to take up: the schedule, the patience, evaluations every other epoch, clipping,
# the moving average.
COMMON = "-d toy --epochs 7 --learning_rate 0.02 --learning_rate_scheduler 0.8 2 --eval_step 2 --stopping_step 1"
LIGHTGCN = (
    f"-m LightGCN {COMMON} --clip_grad_norm 0.5 --train_batch_size 64 --save_topk --group_by user_activity "
    "--training_neg_sample_num 3 --neg_sampling popularity"
)
LONG = "-m LightGCN -d toy --epochs 60 --stopping_step 60 --learning_rate 0.01"
# Name to the words of a command and those that are added to take it up again.
COMMANDS = {
    "LightGCN": (LIGHTGCN, "--resume"),
    "GTC": (
        f"-m GTC {COMMON} --noise_steps 20 --denoiser_widths 8 --embedding_size 8 --learner adamw --weight_decay 0.01 "
        "--weight_average 0.9 --refit",
        "--resume",
    ),
    "options": (
        f"-m LightGCN {COMMON} --calibration --co_occurrence 0.5 --weight_average 0.9 --initialization spectral --no_test",
        "--resume",
    ),
    "plugin": (f"--plugin {PLUGINS}/keepslast.py {COMMON}", "--resume"),
    "grid": ("-m LightGCN BPR -d toy --epochs 2 --learning_rate 1e-3 0.02 --seed 1 2", "--resume"),
    "study": ("study {data}/study.yaml --workers 1", ""),
    "prepare": ("prepare baby --raw {data}/raw --fill_missing mean --quiet", ""),
}
STUDY = {"name": "small", "datasets": ["toy"], "seeds": [1, 2], "settings": {"epochs": 2, "topk": [5, 20]},
         "entries": [{"model": "BPR", "grid": {"reg_weight": [0.1, 0.01]}}, {"model": "MostPop"}],
         "report": {"metrics": ["recall@5"], "figures": []}}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder data/ with the data set toy, a study of it, and raw files of another data set."""
    folder = tmp_path_factory.mktemp("kill") / "data"
    write_mappings(write_dataset(folder / "toy"))
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    sizes = {"users": 60, "items": 40, "interactions": 600, "extra_ratings": 90, "extra_items": 15, "extra_images": 3}
    write_raw(RawSpec(**sizes, missing_metadata=3, missing_images=4, malformed=2, duplicated=2), folder / "raw")
    return folder


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
    words = command.format(data=folder / "data").split()
    return words + (["--data_path", str(folder / "data")] if words[0] == "prepare" else places(folder))


def the_run(folder: Path, ending: str = "") -> Path:
    """The only run folder under `folder`."""
    (found,) = (path.parent for path in folder.glob(f"runs/toy/*/*{ending}/config.yaml"))
    return found


def without_times(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file but for the columns with times."""
    with open(path, newline="") as file:
        return [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)]


def results_of(run: Path) -> dict[str, Any]:
    """All that a run has to give, but for times: numbers as they stand in the files, tensors as bytes."""
    results: dict[str, Any] = {"metrics": metrics_of(run), "history": without_times(run / "history.csv")}
    for path in sorted(run.rglob("checkpoint.pt")):  # a study keeps none unless asked
        checkpoint, place = torch.load(path, weights_only=True), path.relative_to(run)
        results |= {f"{place}: {k}": v.numpy().tobytes() for k, v in checkpoint["model"].items() if k != "_extra_state"}
        results |= {f"{place}: {key}": checkpoint.get(key) for key in ("epoch", "scorers")}
    for name in ("per_user.csv", "topk.tsv", "config.yaml"):
        if (run / name).is_file():
            results[name] = re.sub(r"(data_path|output_dir|cache_dir|plugin): .*", "", (run / name).read_text())
    return results


def without_dates(content: object) -> object:
    if isinstance(content, dict):
        return {key: without_dates(value) for key, value in content.items() if key != "made"}
    return content


def results(folder: Path) -> dict[str, Any]:
    """All that a command has made: runs, tables of comparisons and studies, a prepared data set."""
    found: dict[str, Any] = {
        str(path.relative_to(folder)): results_of(path.parent) for path in folder.rglob("runs/**/metrics.json")
    }
    for path in (*folder.rglob("comparison.csv"), *folder.rglob("main.csv")):
        found[str(path.relative_to(folder))] = without_times(path)
    if (folder / "data" / "baby").is_dir():
        found |= contents(folder / "data" / "baby", WORK)
        found["manifest.json"] = without_dates(json.loads((folder / "data/baby/manifest.json").read_text()))
    return found


def is_tidy(folder: Path) -> bool:
    """Whether nothing is left of work in progress, in the folders of runs and of a prepared data set."""
    places = [*(path.parent for path in folder.rglob("runs/**/config.yaml")), folder / "data" / "baby"]
    return not [
        path for place in places for path in place.rglob("*") if path.suffix == ".tmp" or path.name == "last.pt"
    ]


Undisturbed = Callable[[str], tuple[dict[str, Any], int]]


@pytest.fixture(scope="module")
def undisturbed(data: Path, forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """For a command: its results, and how many files it puts in place."""
    known: dict[str, tuple[dict[str, Any], int]] = {}

    def of(command: str) -> tuple[dict[str, Any], int]:
        if command not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            code, placed = forks.run(*words_of(command, data, folder))
            assert code == 0, forks.log.read_text()
            known[command] = results(folder), placed
        return known[command]

    return of


def finish(forks: Forks, words: list[str], folder: Path, expected: dict[str, Any]) -> None:
    """Runs until the end, and compares."""
    assert forks.run(*words)[0] == 0, forks.log.read_text()
    found = results(folder)
    assert found.keys() == expected.keys()
    for name, content in expected.items():
        assert found[name] == content, name
    assert is_tidy(folder), "nothing is left of what was killed"


@pytest.mark.slow
def test_undisturbed_commands_have_several_runs(undisturbed: Undisturbed):
    assert [len(undisturbed(COMMANDS[name][0])[0]) for name in ("grid", "study")] == [9, 7]


def test_an_undisturbed_run_is_worth_comparing_with(undisturbed: Undisturbed):
    """Without this, the test below might compare runs of one epoch, or two that do not depend on anything."""
    for name in ("LightGCN", "options"):
        (run,) = (v for k, v in undisturbed(COMMANDS[name][0])[0].items() if k.endswith("metrics.json"))
        history = run["history"]
        assert 4 <= len(history) <= 7
        assert len({row["loss"] for row in history}) == len(history)
        assert [bool(row["valid_recall@20"]) for row in history] == [n % 2 == 1 for n in range(len(history))]
        assert 0 < run["metrics"]["valid"]["recall@20"] < 1
        assert (run["metrics"]["test"] is None) == (name == "options")
        assert (run["checkpoint.pt: scorers"] is not None) == (name == "options")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "options")) for name in COMMANDS]
)
def test_killed_again_and_again_it_ends_with_the_same_results(
    name: str, undisturbed: Undisturbed, data: Path, forks: Forks, tmp_path: Path
):
    """Each process dies just before or just after the n-th file that it puts in place."""
    command, again = COMMANDS[name]
    expected, placed = undisturbed(command)
    words = [*words_of(command, data, tmp_path), *again.split()]
    done: dict[Path, int] = {}
    # A run that is taken up again puts nine files in place at least.
    numbers = (1, 2, 3, 4, 6, 9, 10 + placed // 8)
    moments = [*itertools.islice(zip(itertools.cycle(numbers), itertools.cycle((False, True, True)), strict=False), 60)]
    killed = 0
    for number, just_after in moments:
        code, _ = forks.run(*words, die_at=number, after=just_after)
        if code == 0:
            break
        assert code == KILLED, forks.log.read_text()
        killed += 1
        now = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/toy/*/*/metrics.json")}
        assert done.items() <= now.items(), "what was finished is left alone"
        done = now
    assert killed >= 6
    finish(forks, words, tmp_path, expected)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_stops_with_a_message_and_can_be_resumed(
    number: signal.Signals, code: Path, undisturbed: Undisturbed, data: Path, forks: Forks, tmp_path: Path
):
    expected, _ = undisturbed(LONG)
    words = words_of(LONG, data, tmp_path)
    process = subprocess.Popen(
        [sys.executable, str(code / "main.py"), *words],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs are born deaf to it, and so are their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
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
    finish(forks, [*words, "--resume"], tmp_path, expected)
    assert f"continues in {the_run(tmp_path)}" in forks.log.read_text()


def as_copied(patch: pytest.MonkeyPatch, code: Path) -> None:
    """This process passes for one that runs the copied code."""
    patch.setattr("utils.paths.SOURCE", code)
    patch.setattr("runner.registry.MODELS", code / "models")


def test_a_full_disk_is_one_line_and_can_be_resumed(
    code: Path, undisturbed: Undisturbed, data: Path, forks: Forks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = words_of(LIGHTGCN, data, tmp_path)
    written = []

    def full_at_the_ninth(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) >= 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        as_copied(patch, code)
        patch.setattr("os.fsync", full_at_the_ninth)
        outcome = run_here(*words, "--quiet")
    assert outcome.code == 2
    assert re.fullmatch(r"error: /.*: cannot be written \(No space left on device\)\n", outcome.err)
    finish(forks, [*words, "--resume"], tmp_path, undisturbed(LIGHTGCN)[0])


def test_a_finished_run_is_only_shown_and_other_settings_are_another_run(data: Path, tmp_path: Path):
    words = words_of(LIGHTGCN, data, tmp_path)
    first = trained(*words, "--resume")
    before = {path: path.stat().st_mtime_ns for path in the_run(tmp_path).iterdir()}
    again = trained(*words, "--resume")
    assert {path: path.stat().st_mtime_ns for path in the_run(tmp_path).iterdir()} == before
    assert f"finished before, in {the_run(tmp_path)}" in again.out
    assert first.out.splitlines()[-1] == again.out.splitlines()[-1]
    for other in (["--reg_weight", "0.5"], ["--seed", "3"]):
        assert "finished before" not in trained(*words, *other, "--resume").out
    assert len(list(tmp_path.glob("runs/toy/*/*/config.yaml"))) == 3


class Bomb:
    """Unpickled, it makes a folder `pwned` in the current one."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


@pytest.mark.parametrize("kind", ["cut off", "with code"])
def test_a_damaged_state_is_one_clear_line(
    kind: str, data: Path, forks: Forks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    words = words_of(LIGHTGCN, data, tmp_path)
    assert forks.run(*words, die_at=8)[0] == KILLED
    state = the_run(tmp_path) / "last.pt"
    if kind == "cut off":
        os.truncate(state, state.stat().st_size // 2)
    else:
        torch.save(torch.load(state, weights_only=True) | {"random": Bomb()}, state)
    damaged, history = state.read_bytes(), (the_run(tmp_path) / "history.csv").read_bytes()
    assert forks.run(*words, "--resume")[0] == 2
    errors = [line for line in forks.log.read_text().splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert re.fullmatch(r"error: .*/last\.pt: cannot be continued from \(.+\); start again without --resume", errors[0])
    assert "Traceback" not in forks.log.read_text()
    assert state.read_bytes() == damaged
    assert (the_run(tmp_path) / "history.csv").read_bytes() == history
    assert not (tmp_path / "pwned").exists()
    assert forks.run(*words)[0] == 0, "and without --resume it runs, in a folder of its own"
    assert (the_run(tmp_path, "_2") / "metrics.json").is_file()


def taken_up(*_: object) -> None:
    raise AssertionError("two processes train in one run folder")


def test_a_run_that_is_going_on_is_not_taken_up_by_another(code: Path, data: Path, forks: Forks, tmp_path: Path):
    words = words_of("-m LightGCN -d toy --epochs 100000 --stopping_step 100000", data, tmp_path)
    pid = forks.start(*words)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("runs/toy/*/*/history.csv")) and time.monotonic() < deadline:
            time.sleep(0.005)
        # It is to stop at the lock, not at a difference in code.
        with pytest.MonkeyPatch.context() as patch:
            as_copied(patch, code)
            patch.setattr("common.trainer.Trainer.fit", taken_up)
            second = run_here(*words, "--resume")
    finally:
        os.kill(pid, signal.SIGKILL)
        killed, _ = forks.wait()
    assert killed == KILLED, "the first one was still running"
    assert second.code == 2
    assert re.fullmatch(rf"error: {the_run(tmp_path)}: another process is running here; .*\n", second.err)
    # The dead process keeps nobody out.
    assert forks.run(*words, "--resume", die_at=9)[0] == KILLED
    assert f"continues in {the_run(tmp_path)}" in forks.log.read_text()
