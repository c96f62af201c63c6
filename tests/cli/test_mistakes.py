"""What a user does wrong: exit code 2, one line per mistake on stderr, no traceback, and nothing lost or half-written."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_tools import (
    N_ITEMS,
    Outcome,
    contents,
    copy_of_code,
    places,
    run_here,
    run_process,
    toy_rows,
    trained,
    write_dataset,
    write_features,
    write_inter,
    write_mappings,
)

TRAIN = ("-m", "LightGCN", "-d", "toy")
VBPR = ("-m", "VBPR", "-d", "toy")
SYNTHETIC = ("-m", "BPR", "-d", "demo", "--synthetic")


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A folder with a good data set toy in data/."""
    write_dataset(tmp_path / "data" / "toy")
    return tmp_path


def check(outcome: Outcome, patterns: tuple[str, ...]) -> None:
    """One line on stderr for each pattern, and exit code 2."""
    lines = outcome.err.splitlines()
    assert outcome.code == 2, outcome.err
    assert all(line.startswith("error: ") for line in lines), outcome.err
    assert len(lines) == len(patterns), outcome.err
    for pattern in patterns:
        assert any(re.search(pattern, line) for line in lines), f"{pattern!r} not in {outcome.err}"


def refused(folder: Path, *words: object, says: str | tuple[str, ...]) -> None:
    """The command is refused in these words, and every file under the folder is as before."""
    before = contents(folder)
    check(run_here(*words), (says,) if isinstance(says, str) else says)
    assert contents(folder) == before


# The command line itself

WORDS: dict[str, tuple[tuple[object, ...], str | tuple[str, ...]]] = {
    "flag unknown": ((*TRAIN, "--resum"), r"unknown option --resum \(did you mean 'resume'\?\)"),
    "key of another model": ((*TRAIN, "--noise_steps", 5), "unknown option --noise_steps"),
    "model unknown": (
        ("-m", "LightGNC", "-d", "toy"),
        r"unknown model 'LightGNC' \(did you mean 'LightGCN'\?\); there are BM3, BPR",
    ),
    "data set unknown": (
        ("-m", "BPR", "-d", "tou"),
        r"unknown data set 'tou' \(did you mean 'toy'\?\); there are baby, .*tou.inter",
    ),
    "command unknown": (
        ("trian", *TRAIN),
        r"unknown command 'trian' \(did you mean 'train'\?\); there are train, recommend, .*gen",
    ),
    "both missing": (("--epochs", 3), ("--model is missing", "--dataset is missing")),
    "key without a value": ((*TRAIN, "--epochs"), "--epochs: a value is missing"),
    "key twice": (
        (*TRAIN, "--epochs", 3, "--epochs", 4),
        "--epochs is given twice; write its values after one --epochs",
    ),
    "word of no option": ((*TRAIN, "--quiet", 5), "'5' belongs to no option; write --KEY VALUE"),
    "flag with a value": ((*TRAIN, "--quiet=yes"), "--quiet takes no value, got 'yes'"),
    # Types and ranges
    "integer is a word": (
        (*TRAIN, "--epochs", "many"),
        "command line: epochs: expected an integer of at least 1, got 'many'",
    ),
    "number nan": ((*TRAIN, "--learning_rate", ".nan"), "learning_rate: expected a number above 0, got nan"),
    "choice unknown": ((*TRAIN, "--learner", "sdg"), "learner: expected a word out of adam, adamw, sgd.*, got 'sdg'"),
    "value is no YAML": ((*TRAIN, "--learning_rate", "[1,"), "--learning_rate, line 1: not valid YAML"),
    # Rules that bind keys together
    "metric not measured": (
        (*TRAIN, "--valid_metric", "recall@7"),
        r"valid_metric: expected one of metrics x topk \(recall@5, .*got 'recall@7'",
    ),
    "cut-off beyond the items": ((*TRAIN, "--topk", 20, 56), "topk: 56 is more than the 55 items of 'toy'"),
    "schedule to infinity": (
        (*TRAIN, "--learning_rate_scheduler", 2, 1e-3),
        r"learning_rate_scheduler: expected .*finite.*got \[2.0, 0.001\]",
    ),
    "device unknown": ((*TRAIN, "--device", "tpu"), "device: expected auto, cpu, cuda or cuda:N, got 'tpu'"),
    "groups of generated data": (
        (*TRAIN, "--group_by", "signal"),
        "group_by: signal is known of generated data sets only, not of 'toy'",
    ),
    # Grids
    "grid of nothing": ((*TRAIN, "--learning_rate", "[]"), r"learning_rate: expected .*, got \[\]"),
    "grid value twice": ((*TRAIN, "--seed", 1, 2, 1), "seed lists 1 twice"),
    "grid value wrong": (
        (*TRAIN, "--learning_rate", 0.1, "x", -1),
        ("learning_rate: .* got 'x'", "learning_rate: .* got -1"),
    ),
    # Features
    "no modality": ((*VBPR, "--modalities", "{}"), "modalities: expected at least one for VBPR, got none"),
    "feature file missing": (
        (*VBPR, "--modalities", "{visual: img.npy}"),
        r"data set 'toy': no img.npy \(visual\) in .*; there is image_feat.npy, text_feat.npy",
    ),
    # The generated data set
    "synthetic key unknown": (
        (*SYNTHETIC, "{n_user: 5}"),
        r"synthetic: unknown key 'n_user' \(did you mean 'n_users'\?\)",
    ),
    "synthetic contradiction": (
        (*SYNTHETIC, "{n_users: 5000}"),
        "synthetic: n_interactions: expected 25000 to .*, got 14400",
    ),
    "synthetic beyond memory": ((*SYNTHETIC, "{n_items: 1000000000000000}"), "not enough memory .*; use smaller sizes"),
}


@pytest.mark.parametrize("case", WORDS)
def test_words(case: str, world: Path):
    words, says = WORDS[case]
    if words[0] != "--help":
        given = set(words)
        keep = [(n, v) for n, v in zip(*[iter(places(world))] * 2, strict=True) if n not in given]
        words = (*words, *(word for pair in keep for word in pair))
    refused(world, *words, says=says)


def test_all_mistakes_are_told_at_once(world: Path):
    (world / "more.yaml").write_text("epocs: 3\nweight_decay: -1\ngrid: {reg_weight: 0.1}\n")
    words = ["-m", "LightGCN", "GTCC", "-d", "toy", "tooy", *places(world), "--config", world / "more.yaml"]
    words += ["--epochs", -2, "--learnin_rate", 0.1, "--seed", "x", "--stopping_step"]
    refused(
        world,
        *words,
        says=(
            "unknown model 'GTCC'",
            "unknown data set 'tooy'",
            "more.yaml: unknown key 'epocs'",
            "more.yaml: weight_decay: expected",
            "more.yaml: grid: reg_weight: expected a list of values, got 0.1",
            "command line: epochs: expected .* got -2",
            "unknown option --learnin_rate",
            "command line: seed: expected",
            "--stopping_step: a value is missing",
        ),
    )


def test_a_cuda_device_where_there_is_none(world: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = [*TRAIN, *places(world)[:-2], "--device"]
    for device in ("cuda", "cuda:1"):
        refused(world, *words, device, says=f"device: '{device}' is asked for, but .* no CUDA device; use --device cpu")


def test_a_cuda_device_beyond_those_there_are(world: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    refused(
        world, *TRAIN, *places(world)[:-2], "--device", "cuda:2", says="there is no 'cuda:2'; CUDA devices are 0 to 1"
    )


def test_sizes_beyond_memory(world: Path):
    outcome = run_here(*TRAIN, *places(world), "--quiet", "--embedding_size", 10**13)
    check(outcome, ("not enough memory .*; use smaller sizes or batches",))


# Files of settings

SETTINGS: dict[str, tuple[str | bytes, str]] = {
    "not YAML": ("epochs: [3\nseed: 4\n", r"bad.yaml, line \d: not valid YAML"),
    "a list": ("- epochs\n", r"bad.yaml: expected keys and values \('key: value'\), got list"),
    "key twice": ("epochs: 3\nepochs: 4\n", r"bad.yaml.*: key 'epochs' stands twice"),
    "not text": (b"\xff\xfe\x00epochs", "bad.yaml: cannot be read .not UTF-8 text"),
    "Python objects": (
        "epochs: !!python/object/apply:os.system ['touch pwned']\n",
        "bad.yaml.*: not valid YAML: could not determine a constructor",
    ),
    "unknown key": ("epocs: 3\n", r"bad.yaml: unknown key 'epocs' \(did you mean 'epochs'\?\)"),
    "wrong type of MMRec's key": (
        "n_layers: deep\n",
        "bad.yaml: n_ui_layers: expected an integer of at least 0, got 'deep'",
    ),
    "of another model": ("model: GTC\n", "bad.yaml: these are settings of model 'GTC', not of 'LightGCN'"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_a_config_file(case: str, world: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(world)
    text, says = SETTINGS[case]
    (world / "bad.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    refused(world, *TRAIN, *places(world), "--config", world / "bad.yaml", says=says)


@pytest.mark.parametrize("case", ["not YAML", "unknown key"])
def test_the_settings_of_a_data_set(case: str, world: Path):
    text, says = SETTINGS[case]
    (world / "data" / "toy" / "dataset.yaml").write_text(str(text))
    refused(world, *TRAIN, *places(world), says=says.replace("bad.yaml", "toy/dataset.yaml"))


def test_a_config_file_that_is_not_there(world: Path):
    words = [*TRAIN, *places(world), "--config"]
    refused(world, *words, world / "no.yaml", says=r"no.yaml: cannot be read \(No such file or directory\)")
    refused(world, *words, world, says=r"cannot be read \(Is a directory\)")
    refused(world, *words, says="--config: a value is missing")


# Places


def test_a_data_path_that_is_a_file(world: Path):
    words = [*TRAIN, "--data_path", world / "data" / "toy" / "toy.inter", "--output_dir", world / "runs"]
    refused(world, *words, says=("data_path: expected a folder .* got the file .*toy.inter", "unknown data set 'toy'"))


def test_a_data_set_of_the_tree_that_is_not_there(world: Path):
    says = (
        "data set 'baby': no file .*baby.inter; set --data_path to the folder that holds baby/. It comes from: MMRec's"
    )
    refused(world, "-m", "BPR", "-d", "baby", *places(world), says=says)


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_an_output_folder_that_cannot_be_made(name: str, world: Path):
    (world / "file").write_text("mine")
    words = [*TRAIN, *places(world)]
    words[words.index("--output_dir") + 1] = str(world / name)
    refused(world, *words, says=f"{name}/toy/LightGCN.*: cannot be made a folder .*; choose another --output_dir")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_folder_that_may_not_be_written(world: Path):
    (world / "runs").mkdir(mode=0o500)
    refused(
        world, *TRAIN, *places(world), says="cannot be made a folder .Permission denied.; choose another --output_dir"
    )


# Data

Damage = Callable[[Path], object]


def rows(*more: tuple[Any, ...], drop: Callable[[tuple[Any, ...]], bool] = lambda row: False) -> Damage:
    """Rewrites toy.inter with rows added and left out."""
    return lambda folder: write_inter(folder / "toy.inter", [*(row for row in toy_rows() if not drop(row)), *more])


def raw(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def array(values: Any) -> Damage:
    """Saves another array as the visual features."""
    return lambda folder: np.save(folder / "image_feat.npy", values, allow_pickle=True)


def npy(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=True)
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, features=np.ones((N_ITEMS, 4)))
    return buffer.getvalue()


class Bomb:
    """Unpickled, it writes a file `pwned` into the current folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


GOOD = np.ones((N_ITEMS, 4), dtype=np.float32)
NEW = (3, next(item for item in range(N_ITEMS) if item not in {i for u, i, _ in toy_rows() if u == 3}), 0)
LINE = len(toy_rows()) + 2  # of the first row that is added
TRAINED, VALID = next(r for r in toy_rows() if r[2] == 0), next(r for r in toy_rows() if r[2] == 1)


def with_value(value: float) -> np.ndarray:
    features = GOOD.astype(np.float64)
    features[7, 2] = value
    return features


DATA: dict[str, tuple[Damage, str | tuple[str, ...]]] = {
    "column missing": (
        lambda f: write_inter(f / "toy.inter", [(0, 0, 0)], ("userID", "item", "label")),
        "toy.inter: no column x_label; its columns are userID, item, label",
    ),
    "id a word": (rows(("u7", 1, 0)), f"toy.inter: line {LINE}: userID is 'u7', expected an integer from 0 up"),
    "id far from the others": (
        rows((10**9, 1, 0)),
        "toy.inter: an id of 1000000000; ids count from 0 without gaps; `main.py convert mmrec ",
    ),
    "label unknown": (rows((1, 2, 3)), f"toy.inter: line {LINE}: x_label is 3, expected 0, 1 or 2"),
    "two columns wrong": (
        rows((-1, 2, "trian")),
        (f"line {LINE}: userID is", f"line {LINE}: x_label is 'trian', expected 0, 1 or 2"),
    ),
    "file empty": (
        raw("toy.inter", b""),
        "toy.inter: the file is empty; expected a header with userID, itemID, x_label",
    ),
    "train empty": (
        rows(drop=lambda row: row[2] == 0),
        (
            "the train split is empty: expected rows with x_label 0",
            "the valid split is empty: no user",
            "the test split is empty: no user",
        ),
    ),
    "in train and test": (
        rows((*TRAINED[:2], 2)),
        rf"1 interactions are in both train and test \(first: user {TRAINED[0]}, item {TRAINED[1]}\)",
    ),
    # Features
    "no features": (
        lambda f: [path.unlink() for path in f.glob("*.npy")],
        r"data set 'toy': no \*_feat.npy file in .*; VBPR needs one",
    ),
    "items without a row": (
        array(GOOD[:50]),
        r"image_feat.npy \(visual\): 50 rows, but items go up to 54: 5 items have no feature row",
    ),
    "feature NaN": (
        array(with_value(np.nan)),
        r"image_feat.npy \(visual\): NaN or infinite values in 1 rows \(first: item 7\)",
    ),
    "features pickled": (
        array(np.full((N_ITEMS, 2), Bomb())),
        r"image_feat.npy \(visual\): not a numeric .npy array: it holds Python objects",
    ),
    "feature file a pickle": (
        raw("image_feat.npy", pickle.dumps(Bomb())),
        r"image_feat.npy \(visual\): not a numeric .npy array",
    ),
    "feature header too large": (
        raw("image_feat.npy", npy(GOOD).replace(b"(55, 4), }" + b" " * 14, b"(550000000000000, 4), } ")),
        r"image_feat.npy \(visual\): not a numeric .npy array",
    ),
}
DOUBTFUL = ("in train and test",)


@pytest.mark.parametrize("case", DATA)
def test_data(case: str, world: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(world)
    damage, says = DATA[case]
    damage(world / "data" / "toy")
    words = [*VBPR, *places(world)]
    if case in DOUBTFUL:
        assert f"warning: {says}"[:20] in (out := trained(*words, "--epochs", 1).out)
        assert re.search(f"warning: .*{says}", out), "doubtful data are named"
        words += ["--data_checks", "error"]
    refused(world, *words, says=says)


def test_the_toy_data_are_good(world: Path):
    """Without this, a test above could be refused for something else."""
    assert "warning" not in trained(*VBPR, *places(world), "--epochs", 1, "--data_checks", "error").out


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ([("B0", 0), ("B1", 1)], r"i_id_mapping.csv: no row for itemID 2 \(53 missing\)"),
        ([("B0", "zero")], r"i_id_mapping.csv: column itemID holds 'zero', no integer"),
    ],
)
def test_a_mapping_file_is_checked_before_training(table: list[tuple[Any, ...]], says: str, world: Path):
    write_mappings(world / "data" / "toy")
    write_inter(world / "data" / "toy" / "i_id_mapping.csv", table, ("asin", "itemID"))
    refused(world, *TRAIN, *places(world), "--save_topk", says=says)


# recommend


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/ and a finished run of BPR in run/, to be copied."""
    folder = tmp_path_factory.mktemp("finished")
    write_dataset(folder / "data" / "toy")
    outcome = trained("-m", "BPR", "-d", "toy", *places(folder), "--epochs", 1)
    outcome.folders[0].rename(folder / "run")
    return folder


@pytest.fixture
def done(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be damaged."""
    return shutil.copytree(finished / "run", tmp_path / "run")


RECOMMEND: dict[str, tuple[tuple[object, ...], str | tuple[str, ...]]] = {
    "users unknown": (
        ("--users", "X", 40),
        "--users: there is no user 'X', '40'; ids of users look like '0', '1', '2'",
    ),
    "no titles": (("--titles", "no.csv"), r"no.csv: cannot be read \(No such file"),
    "k two values": (("--k", 1, 2), "recommend: --k: expected one value, got 2"),
    "k beyond the items": (("--k", 56), "--k: 56 is not from 1 to the 55 items of 'toy'"),
    "option unknown": (("--user", 3), r"recommend: unknown option --user \(did you mean 'users'\?\)"),
    "output below nothing": (("--output", "no/where.tsv"), "--output: there is no folder no"),
    "data elsewhere": (("--data_path", "nowhere"), "data set 'toy': no file .*toy.inter; set --data_path"),
    "several": (("--user", 3, "--k", 0, "--grid"), ("unknown option --user", "--k: expected", "unknown option --grid")),
}


@pytest.mark.parametrize("case", RECOMMEND)
def test_recommend(case: str, done: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(done.parent)
    words, says = RECOMMEND[case]
    refused(done.parent, "recommend", done, *words, says=says)


@pytest.mark.parametrize("name", ["nowhere", ".", "run/config.yaml"])
def test_recommend_from_what_is_no_run(name: str, done: Path):
    refused(done.parent, "recommend", done.parent / name, says=r"not a run folder \(no config.yaml\)")


def test_recommend_without_a_folder(done: Path):
    refused(
        done.parent,
        "recommend",
        "--users",
        3,
        says="recommend: RUN_FOLDER is missing; usage: main.py recommend RUN_FOLDER",
    )


def checkpoint(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], object]:
    """Loads checkpoint.pt, changes it, and saves it."""

    def damage(run: Path) -> None:
        content = torch.load(run / "checkpoint.pt", weights_only=True)
        torch.save(change(content), run / "checkpoint.pt")

    return damage


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "checkpoint missing": (lambda run: (run / "checkpoint.pt").unlink(), "no checkpoint.pt"),
    "checkpoint cut off": (
        lambda run: os.truncate(run / "checkpoint.pt", 2000),
        "checkpoint.pt: not a checkpoint of this project",
    ),
    "checkpoint with code": (
        checkpoint(lambda content: content | {"epoch": Bomb()}),
        "checkpoint.pt: not a checkpoint of this project",
    ),
    "checkpoint of other sizes": (
        checkpoint(lambda content: {"model": {k: v[:5] for k, v in content["model"].items()}}),
        "checkpoint.pt: not of this model",
    ),
    "config not YAML": (raw("config.yaml", b"model: [BPR\n"), "config.yaml, line .: not valid YAML"),
    "config of an unknown model": (
        raw("config.yaml", b"model: BPRR\ndataset: toy\n"),
        r"unknown model 'BPRR' \(did you mean 'BPR'\?\)",
    ),
    "config incomplete": (raw("config.yaml", b"model: BPR\ndataset: toy\nepochs: 3\n"), "no file sets '"),
    "manifest missing": (
        lambda run: (run / "manifest.json").unlink(),
        "manifest.json: not readable, so the data of this run cannot be checked",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_recommend_from_a_damaged_run(case: str, done: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(done.parent)  # where a Bomb would go off
    damage, says = DAMAGED[case]
    damage(done)
    before = contents(done.parent)
    outcome = run_here("recommend", done, "--users", 3)
    lines = outcome.err.splitlines()
    assert outcome.code == 2, outcome.err
    assert all(line.startswith("error: ") for line in lines)
    assert re.search(says, lines[0]), outcome.err
    assert len(lines) == 1 or case == "config incomplete"
    assert contents(done.parent) == before


def test_the_bomb_does_go_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without this, the tests with a Bomb could not fail."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Bomb()))
    assert (tmp_path / "pwned").is_dir()


def test_recommend_from_other_data(finished: Path, done: Path):
    shutil.copytree(finished / "data", done.parent / "data")
    rows(NEW)(done.parent / "data" / "toy")
    says = "'toy' in .* is not the data that this run trained on; --data_path names another"
    refused(done.parent, "recommend", done, "--data_path", done.parent / "data", says=says)


# --resume


def stopped_run(world: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Starts a run that stops after two epochs; returns the words that resume it."""
    from common import trainer

    write, written = trainer.write_csv, []

    def stop_at_second(*arguments: Any) -> None:
        write(*arguments)
        written.append(arguments)
        if len(written) == 2:
            raise KeyboardInterrupt

    words = [*VBPR, *places(world), "--epochs", "4"]
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "write_csv", stop_at_second)
        assert run_here(*words).code == 130
    (folder,) = (world / "runs" / "toy" / "VBPR").iterdir()
    assert (folder / "last.pt").is_file()
    return [*words, "--resume"]


def test_resume_with_other_interactions(world: Path, monkeypatch: pytest.MonkeyPatch):
    words = stopped_run(world, monkeypatch)
    rows(NEW)(world / "data" / "toy")
    refused(world, *words, says="the data have changed since this run began; start it again without --resume")


def test_resume_with_other_features(world: Path, monkeypatch: pytest.MonkeyPatch):
    words = stopped_run(world, monkeypatch)
    write_features(world / "data" / "toy" / "text_feat.npy", seed=99)
    refused(world, *words, says="the data have changed since this run began; start it again without --resume")


def test_resume_of_a_grid_whose_finished_runs_saw_other_data(world: Path):
    words = [*VBPR, *places(world), "--epochs", "1", "--seed", "1", "2"]
    trained(*words)
    rows(NEW)(world / "data" / "toy")
    refused(
        world, *words, "--resume", says="the data have changed since this run began; start it again without --resume"
    )


def test_resume_with_other_code(world: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    words = stopped_run(world, monkeypatch)
    code = copy_of_code(tmp_path_factory.mktemp("code"))
    with open(code / "models" / "vbpr.py", "a") as file:
        file.write("\n")
    monkeypatch.setattr("utils.paths.SOURCE", code)
    monkeypatch.setattr("runner.registry.MODELS", code / "models")
    refused(
        world, *words, says="the code has changed since this run began; --rerun_changed beside --resume begins it again"
    )


@pytest.mark.parametrize("damage", [raw("manifest.json", b"{"), raw("manifest.json", b"{}")], ids=["broken", "empty"])
def test_resume_of_a_run_whose_data_cannot_be_checked(damage: Damage, world: Path, monkeypatch: pytest.MonkeyPatch):
    words = stopped_run(world, monkeypatch)
    damage(next((world / "runs" / "toy" / "VBPR").iterdir()))
    refused(world, *words, says="manifest.json: not readable, so the data of this run cannot be checked")


# generate

GENERATE: dict[str, tuple[tuple[object, ...], str | tuple[str, ...]]] = {
    "name missing": (("--size", "demo"), "generate: NAME is missing; usage: main.py generate NAME"),
    "size unknown": (
        ("made", "--size", "babby"),
        r"generate: --size: expected a word out of demo, baby, .*, got 'babby' \(did you mean 'baby'\?\)",
    ),
    "sizes at odds": (
        ("made", "--n_users", 3),
        "generate: n_interactions: expected 15 to 1497 for 3 users and 500 items, got 14400",
    ),
    "beyond memory": (("made", "--n_items", 10**15), "not enough memory .*; use smaller sizes"),
    "several": (
        ("made", "--size", "x", "--n_user", 3, "--grid"),
        ("--size: expected a word", "unknown option --n_user", "unknown option --grid"),
    ),
}


@pytest.mark.parametrize("case", GENERATE)
def test_generate(case: str, world: Path):
    words, says = GENERATE[case]
    refused(world, "generate", *words, "--data_path", world / "data", says=says)


def test_generate_over_what_is_there(world: Path):
    words = ["--data_path", world / "data"]
    refused(
        world,
        "generate",
        "toy",
        *words,
        says="holds image_feat.npy, text_feat.npy: delete the folder or choose another",
    )
    for path in (world / "data" / "toy").glob("*.npy"):
        path.unlink()
    refused(world, "generate", "toy", *words, says="toy.inter is already there: delete it or choose another folder")


def test_generate_where_nothing_can_be_written(world: Path):
    file = world / "data" / "toy" / "toy.inter"
    refused(world, "generate", "made", "--data_path", file, says="made: cannot be made a folder .Not a directory")


def test_what_may_not_be_read(world: Path, monkeypatch: pytest.MonkeyPatch):
    """As root may read anything, the refusal of the system is played."""
    real = Path.is_file

    def is_file(path: Path) -> bool:
        if path.name == "toy.inter":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    refused(world, *TRAIN, *places(world), says="toy.inter: Permission denied; check its permissions and the disk")


# The same from a shell: the exit code and the streams of a real process

PROCESSES: dict[str, tuple[tuple[str, ...], str]] = {
    "data": ((*VBPR, "--epochs", "1"), "itemID is -4, expected an integer from 0 up"),
    "run": (("recommend", "nowhere"), "nowhere: not a run folder"),
}


@pytest.mark.parametrize("case", PROCESSES)
def test_in_a_process_of_its_own(case: str, world: Path):
    words, says = PROCESSES[case]
    rows((3, -4, 0))(world / "data" / "toy")
    before = contents(world)
    outcome = run_process(*words, *(places(world) if case != "run" else []), cwd=world)
    check(outcome, (says,))
    assert contents(world) == before


def test_an_error_of_ours_is_not_hidden(world: Path, monkeypatch: pytest.MonkeyPatch):
    """What is no mistake of the user keeps its traceback."""
    monkeypatch.setattr("runner.session.run_all", lambda *_, **__: json.loads("{"))
    with pytest.raises(json.JSONDecodeError):
        run_here(*TRAIN, *places(world))
