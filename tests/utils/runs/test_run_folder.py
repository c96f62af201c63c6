"""Run folders: atomic files, identity, fresh folders, locks, checkpoints that hold no code."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Planted, problems_of, random_dataset, toy_config, toy_configs

from utils.runs import run_folder as runs
from utils.runs.run_folder import RunFolder, identity, manifest, peak_memory_bytes, read_torch, write_topk, write_torch
from utils.files import write_bytes, write_csv, write_json

CPU = torch.device("cpu")
HOLD_LOCK = """
import fcntl, sys
with open(sys.argv[1], "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


# Files


def test_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a.json"
    for content in (b"first", b"2nd"):
        write_bytes(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch, step, error):
    path = tmp_path / "a.json"
    write_bytes(path, b"old")

    def fail(*_: Any) -> None:
        assert len(list(tmp_path.iterdir())) == 2, "the new file is beside the old one"
        raise error

    monkeypatch.setattr(os, step, fail)
    if isinstance(error, OSError):
        assert problems_of(lambda: write_bytes(path, b"new")) == [
            f"{path}: cannot be written (No space left on device)"
        ]
    else:
        with pytest.raises(KeyboardInterrupt):
            write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_is_not_there_is_told(tmp_path):
    path = tmp_path / "no" / "a.json"
    assert problems_of(lambda: write_bytes(path, b"")) == [f"{path}: cannot be written (No such file or directory)"]


def test_numbers_are_written_in_full_precision(tmp_path):
    values = {"a": 0.1 + 0.2, "b": 1e-17, "c": 1 / 3}
    write_json(tmp_path / "a.json", values)
    assert json.loads((tmp_path / "a.json").read_text()) == values
    write_csv(tmp_path / "a.csv", [values])
    with open(tmp_path / "a.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert {name: float(word) for name, word in row.items()} == values


def test_columns_of_a_table_are_the_keys_of_all_rows(tmp_path):
    write_csv(tmp_path / "a.tsv", ({"a": 1, **extra} for extra in ({}, {"b": "x\ty"}, {"c": None})), "\t")
    assert (tmp_path / "a.tsv").read_text() == 'a\tb\tc\n1\t\t\n1\t"x\ty"\t\n1\t\t\n'


def test_ranked_lists_are_a_line_per_user(tmp_path):
    write_topk(tmp_path / "topk.tsv", ["u7", "u9"], [["i3", "i1"], []])
    assert (tmp_path / "topk.tsv").read_text() == "u7\ti3\ti1\nu9\n"


# Checkpoints


def test_checkpoint_reads_back_to_the_same_bits(tmp_path):
    content: dict[str, Any] = {
        "epoch": 3,
        "model": {"w": torch.randn(3, 2), "n": torch.arange(4)},
        "history": [{"loss": 0.1, "x": None}],
    }
    write_torch(tmp_path / "c.pt", content)
    again = read_torch(tmp_path / "c.pt")
    assert (again["epoch"], again["history"]) == (3, [{"loss": 0.1, "x": None}])
    assert all(torch.equal(again["model"][name], tensor) for name, tensor in content["model"].items())


@pytest.mark.parametrize("writer", ["torch.save", "pickle"])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, writer):
    mark, path = tmp_path / "mark", tmp_path / "c.pt"
    if writer == "torch.save":
        torch.save({"model": Planted(mark)}, path)
    else:
        path.write_bytes(pickle.dumps(Planted(mark), protocol=2))
    (line,) = problems_of(lambda: read_torch(path))
    assert line == f"{path}: not a checkpoint of this project (UnpicklingError)"
    assert not mark.exists()
    if writer == "torch.save":
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert mark.exists(), "the file does run code where it is trusted"


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_file_that_is_no_checkpoint_is_told(tmp_path, content):
    path = tmp_path / "c.pt"
    if content is None:
        assert problems_of(lambda: read_torch(path)) == [f"{path}: no such file"]
        return
    path.write_bytes(content)
    (line,) = problems_of(lambda: read_torch(path))
    assert line.startswith(f"{path}: not a checkpoint of this project (")


# Identity


def test_identity_is_that_of_the_values_not_of_the_way_they_were_given():
    base = identity(toy_config())
    assert len(base) == 8
    assert int(base, 16) >= 0
    assert identity(toy_config(reg_weight=1e-1, embedding_size=8.0, valid_metric="Recall@20")) == base


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"data_path": "elsewhere"},
        {"output_dir": "elsewhere"},
        {"cache_dir": "elsewhere"},
        {"device": "cpu"},
        {"threads": 3},
        {"save_topk": True},
        {"group_by": ["user_activity"]},
        {"eval_batch_size": 7},
        {"data_checks": "error"},
        {"tracker": "wandb"},
        {"beyond_accuracy": True},
        {"analyses": ["balance"]},
    ],
)
def test_seed_and_places_are_no_part_of_the_identity(change):
    assert identity(toy_config(**change)) == identity(toy_config())


def test_everything_that_changes_the_numbers_is_part_of_the_identity():
    changes: list[dict[str, Any]] = [
        {},
        {"embedding_size": 9},
        {"reg_weight": 0.1 + 1e-16},
        {"dropout": 0.1},
        {"learning_rate": 2e-3},
        {"learner": "sgd"},
        {"epochs": 3},
        {"stopping_step": 3},
        {"eval_step": 2},
        {"train_batch_size": 3},
        {"weight_decay": 0.1},
        {"clip_grad_norm": 1},
        {"learning_rate_scheduler": [0.96, 50]},
        {"protocol": "strict"},
        {"valid_metric": "ndcg@20"},
        {"valid_decimals": 4},
        {"amp": True},
        {"compile": True},
        {"topk": [5, 20]},
        {"modalities": {"visual": "v.npy"}},
        {"modality_input": {"visual": "zero"}},
        {"modality_input": {"visual": "noise"}},
        {"nan_features": "missing"},
        {"missing_share": {"visual": 0.5}},
        {"missing_share": {"textual": 0.5}},
        {"filter_out_cold_start_users": False},
        {"synthetic": {"seed": 1}},
    ]
    found = [identity(toy_config(**change)) for change in changes] + [identity(toy_config("baby"))]
    found.append(identity(dataclasses.replace(toy_config(), model="Other")))
    assert len(set(found)) == len(found)


def test_points_of_a_grid_differ_and_seeds_of_a_point_do_not():
    configs = toy_configs(n_ui_layers=(1, 2), seed=(5, 6))
    assert [identity(c) == identity(configs[0]) for c in configs] == [True, True, False, False]


# Folders


def test_new_folder_never_is_an_old_one(tmp_path):
    config = toy_config(output_dir=str(tmp_path), seed=7)
    assert RunFolder.latest(config) is None
    base = tmp_path / "demo" / "Toy" / f"{identity(config)}-s7"
    made = [RunFolder.new(config).path for _ in range(11)]
    assert made == [base, *(base.with_name(f"{base.name}_{number}") for number in range(2, 12))]
    latest = RunFolder.latest(config)
    assert latest
    assert latest.path == made[-1], "11 comes after 9"
    base.with_name(f"{base.name}_x").mkdir()
    base.with_name(f"{base.name}_99").touch()
    again = RunFolder.latest(config)
    assert again
    assert again.path == made[-1], "neither another name nor a file is a run"


def test_runs_of_other_seeds_are_told_apart(tmp_path):
    one, ten = (toy_config(output_dir=str(tmp_path), seed=seed) for seed in (1, 10))
    RunFolder.new(ten)
    assert RunFolder.latest(one) is None
    assert RunFolder.new(one).path.name == f"{identity(one)}-s1"


def test_output_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    (line,) = problems_of(lambda: RunFolder.new(toy_config(output_dir=str(tmp_path / "file"))))
    assert line.endswith("cannot be made a folder (Not a directory); choose another --output_dir")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("", None),
        ('{"status": "fin', None),
        ("[1]", None),
        ('{"status": "finished"}', {"status": "finished"}),
    ],
)
def test_metrics_are_there_once_the_run_is_finished(tmp_path, text, expected):
    if text is not None:
        (tmp_path / "metrics.json").write_text(text)
    assert RunFolder(tmp_path).metrics() == expected


def test_lock_refuses_another_process(tmp_path):
    folder = RunFolder(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(tmp_path / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        assert problems_of(folder.lock) == [
            f"{tmp_path}: another process is running here; wait for it or stop it first"
        ]
        folder.unlock()
        assert (tmp_path / ".lock").exists(), "who was refused does not take the lock away"
        other.communicate("")
    folder.lock()
    assert problems_of(RunFolder(tmp_path).lock)
    folder.unlock()
    assert list(tmp_path.iterdir()) == []
    folder.lock()
    folder.unlock()


def test_lock_on_a_file_that_its_holder_took_away_does_not_count(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "flock", lambda *_: (tmp_path / ".lock").unlink())
    assert len(problems_of(RunFolder(tmp_path).lock)) == 1


def test_lock_clears_what_a_killed_writer_left(tmp_path):
    left, kept = tmp_path / f".metrics.json.123{runs.TEMPORARY}", tmp_path / "metrics.json"
    left.touch()
    kept.touch()
    folder = RunFolder(tmp_path)
    folder.lock()
    folder.unlock()
    assert list(tmp_path.iterdir()) == [kept]


# Manifest


def test_manifest_holds_what_is_needed_to_get_the_same_numbers(tmp_path):
    dataset, config = random_dataset(), toy_config(seed=7, protocol="strict")
    dataset.features["visual"] = np.ones((dataset.n_items, 3), dtype=np.float32)
    dataset.present["visual"] = np.arange(dataset.n_items) > 1
    record = manifest(config, dataset, CPU)
    record["versions"]["code"] = "0123"
    write_json(tmp_path / "manifest.json", record)
    assert RunFolder(tmp_path).manifest() == record
    parts = ("status", "seed", "protocol", "identity", "device")
    assert [record[part] for part in parts] == ["running", 7, "strict", identity(config), "cpu"]
    assert record["hashes"] == dataset.fingerprint
    assert record["features"] == {"visual": [dataset.n_items, 3]}
    assert record["missing"] == {"visual": 2}
    assert record["sizes"]["train"] == len(dataset.train)
    assert record["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize("text", [None, "", "{}", "[]", '{"hashes": {}, "versions": {"code": "x"}}'])
def test_manifest_that_cannot_be_read_is_told(tmp_path, text):
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    (line,) = problems_of(RunFolder(tmp_path).manifest)
    assert line.startswith(f"{tmp_path / 'manifest.json'}: not readable")


def test_peak_memory_is_in_bytes():
    (resident,) = peak_memory_bytes(CPU).values()
    assert 2**26 < resident < 2**40, "PyTorch alone takes more than 64 MiB"


def test_path_of_a_file_is_in_the_folder(tmp_path: Path):
    assert RunFolder(tmp_path).file("a.json") == tmp_path / "a.json"
