"""What the command line does for a user who makes no mistake."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from cli_tools import (
    MAIN,
    N_ITEMS,
    N_USERS,
    ROOT,
    contents,
    environment,
    metrics_of,
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

from cli.command_line import main
from utils.paths import CONFIGS

FEW = ("--epochs", "4", "--learning_rate", "0.02")
SMALL_GTC = ("--noise_steps", "10", "--denoiser_widths", "8", "--embedding_size", "8")
RUN_FILES = {"config.yaml", "manifest.json", "history.csv", "metrics.json", "per_user.csv", "checkpoint.pt"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data sets toy (two modalities) and named (original ids); no test writes into its data."""
    folder = tmp_path_factory.mktemp("shared")
    write_dataset(folder / "data" / "toy")
    write_mappings(write_dataset(folder / "data" / "named", features=()))
    return folder


@pytest.fixture(scope="module")
def run(shared: Path) -> Path:
    """The folder of a LightGCN run on named, with topk.tsv."""
    (folder,) = trained("-m", "LightGCN", "-d", "named", *places(shared), *FEW, "--save_topk").folders
    return folder


@pytest.fixture
def own(shared: Path, tmp_path: Path) -> Iterator[list[str]]:
    """Words for the shared data and an output folder of the test's own, tmp_path/runs."""
    words = places(shared)
    words[words.index("--output_dir") + 1] = str(tmp_path / "runs")
    return words


def rows_of(path: Path, separator: str = ",") -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file, delimiter=separator))


def topk_of(folder: Path) -> dict[str, list[str]]:
    lines = [line.split("\t") for line in (folder / "topk.tsv").read_text().splitlines()]
    assert len({user for user, *_ in lines}) == len(lines)
    return {user: items for user, *items in lines}


def labelled(label: int, rows: list[tuple[Any, ...]] | None = None) -> dict[int, set[int]]:
    """User to items of one split of the toy rows."""
    found: dict[int, set[int]] = {}
    for user, item, split in toy_rows() if rows is None else rows:
        if split == label:
            found.setdefault(user, set()).add(item)
    return found


def config_lines(folder: Path) -> dict[str, tuple[Any, str]]:
    """Key to value and place of origin, from config.yaml; model and dataset have no place."""
    found = {}
    for line in (folder / "config.yaml").read_text().splitlines():
        content, _, place = line.partition("  # ")
        ((key, value),) = yaml.safe_load(content).items()
        found[key] = (value, place)
    return found


# --help and --list


OPTIONS = {"plugin", "plugin_config", "config", "best", "grid", "first_combination", "resume", "quiet", "list",
           "rerun_changed"}  # fmt: skip


def test_help_mentions_every_key_of_the_harness_and_of_the_named_model():
    harness = set(yaml.safe_load((ROOT / "src/configs/overall.yaml").read_text()))
    gtc = set(yaml.safe_load((ROOT / "src/configs/model/GTC.yaml").read_text())) - {"grid"}
    assert {"learning_rate", "protocol", "data_path"} <= harness
    for words, own_keys in ((["--help"], set()), (["-h", "-m", "gtc"], gtc), ([], set())):
        outcome = run_here(*words)
        shown = set(re.findall(r"^  --(\w+)", outcome.out, re.MULTILINE))
        assert (outcome.code, outcome.err) == (0, "")
        assert shown - OPTIONS == harness | own_keys
    for word in ("recommend", "generate", "--resume", "--grid", "--first_combination", "--list", "--quiet", "--config"):
        assert word in outcome.out


def test_help_shows_defaults_and_ranges():
    out = " ".join(run_here("--help", "-m", "GTC").out.split())  # where lines break depends on the terminal
    assert "--noise_steps N length T of the diffusion; an integer of at least 1 [10]" in out
    assert "a word out of mmrec, strict ['mmrec']" in out


@pytest.mark.parametrize("command", ["recommend", "generate"])
def test_every_command_has_help(command: str):
    outcome = run_here(command, "--help")
    assert outcome.code == 0
    assert f"usage: main.py {command}" in outcome.out


def test_list_shows_models_and_which_data_sets_are_there(shared: Path):
    outcome = run_here("--list", "--data_path", shared / "data")
    lines = {line.split()[0]: line for line in outcome.out.splitlines() if line.startswith("  ")}
    assert (outcome.code, outcome.err) == (0, "")
    assert {"BPR", "GTC", "LightGCN", "VBPR"} <= set(lines)
    assert "present (image_feat.npy, text_feat.npy)" in lines["toy"]
    assert "present (no feature files)" in lines["named"]
    assert "generated by the project" in lines["demo"]
    for name in ("baby", "sports", "cell", "clothing", "elec", "tiktok", "microlens"):
        assert re.search(rf"not present; get it from .*{name}", lines[name], re.IGNORECASE), name


def test_list_finds_the_data_sets_that_the_environment_names(shared: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MMR_DATA_PATH", str(shared / "data"))
    assert re.search(r"^  toy +present", run_here("--list").out, re.MULTILINE)


# Where it runs


def test_it_runs_from_any_folder_and_shows_progress(shared: Path, tmp_path: Path):
    words = ["-m", "lightgcn", "-d", "toy", "--data_path", os.path.relpath(shared / "data", tmp_path), *FEW]
    outcome = run_process(*words, "--cache_dir", "cache", cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    assert re.search(r"LightGCN on toy, seed 999 .*\d+%\|", outcome.err), "a progress bar, on stderr"
    assert "Traceback" not in outcome.err
    assert "Warning" not in outcome.err
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "cache"}, "it writes where it was started"
    (folder,) = (tmp_path / "runs" / "toy" / "LightGCN").iterdir()
    assert {path.name for path in folder.iterdir()} == RUN_FILES
    # The data path was a relative one, and the run folder is of use from elsewhere.
    assert run_here("recommend", folder, "--users", 3, "--device", "cpu").code == 0


@pytest.mark.slow
def test_it_runs_inside_src(shared: Path, tmp_path: Path):
    before = contents(ROOT / "src", leave_out="__pycache__")
    outcome = run_process("-m", "BPR", "-d", "toy", *places(shared), "--epochs", 1, cwd=ROOT / "src", main="main.py")
    assert outcome.code == 0, outcome.err
    assert outcome.folders[0].is_dir()
    assert set(before) == set(contents(ROOT / "src", leave_out="__pycache__")), "nothing is left in the tree"


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setitem(sys.modules, "cli.describe", None)
    monkeypatch.setattr("cli.command_line.CORE_PACKAGES", {"cli.describe"})
    assert main(["describe", "demo"]) == 2
    assert capsys.readouterr().err.startswith("error: the package cli.describe is not installed for ")


@pytest.mark.parametrize("word", ["--help", "--list"], ids=["long output", "short output"])
def test_a_reader_that_goes_away_is_no_traceback(word: str):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, str(MAIN), word], env=environment(), stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == b""


# A run folder


def test_the_run_folder_holds_what_it_should_and_nothing_else(run: Path):
    assert {path.name for path in run.iterdir()} == RUN_FILES | {"topk.tsv"}
    for path in run.iterdir():
        assert path.stat().st_mode & 0o444 == 0o444 & ~current_umask(), f"{path.name} is readable to whom it may"


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_config_says_where_each_value_came_from(run: Path):
    lines = config_lines(run)
    assert lines["model"] == ("LightGCN", "")
    assert lines["dataset"] == ("named", "")
    assert lines["epochs"] == (4, "command line")
    assert lines["learning_rate"] == (0.02, "command line")
    assert lines["stopping_step"] == (20, "overall.yaml")
    assert lines["n_ui_layers"] == (2, "model/LightGCN.yaml")
    assert all(place for key, (_, place) in lines.items() if key not in ("model", "dataset"))
    whole = yaml.safe_load((run / "config.yaml").read_text())
    assert whole == {key: value for key, (value, _) in lines.items()}, "the file as a whole is YAML"


def test_manifest_says_what_is_needed_to_get_the_same_numbers(run: Path):
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert (manifest["model"], manifest["dataset"], manifest["seed"]) == ("LightGCN", "named", 999)
    assert (manifest["protocol"], manifest["device"]) == ("mmrec", "cpu")
    assert manifest["sizes"] == {"users": N_USERS, "items": N_ITEMS} | {
        name: sum(row[2] == label for row in toy_rows()) for label, name in enumerate(("train", "valid", "test"))
    }
    assert manifest["versions"]["torch"] == torch.__version__
    assert {"train", "valid", "test"} <= set(manifest["hashes"])
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in manifest["hashes"].values())
    assert manifest["seconds"]["total"] > 0
    assert manifest["peak_memory_bytes"]["resident"] > 10**7
    assert manifest["parameters"] == 64 * (N_USERS + N_ITEMS)


def test_history_has_a_row_per_epoch_with_loss_terms_and_metrics(run: Path):
    rows = rows_of(run / "history.csv")
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    for row in rows:
        assert math.isclose(float(row["loss"]), float(row["loss_bpr"]) + float(row["loss_reg"]), rel_tol=1e-12)
        assert {"valid_recall@20", "valid_ndcg@5", "train_seconds", "eval_seconds", "learning_rate"} <= set(row)
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"]), "it learns"


def test_metrics_are_those_of_the_best_epoch_by_validation(run: Path):
    metrics = metrics_of(run)
    rows = rows_of(run / "history.csv")
    scores = [float(row["valid_recall@20"]) for row in rows]
    names = {f"{name}@{k}" for name in ("recall", "ndcg", "map", "precision", "f1", "hit") for k in (5, 10, 20, 50)}
    assert set(metrics["valid"]) == set(metrics["test"]) == names
    assert metrics["best_epoch"] == 1 + scores.index(max(scores))
    for name, value in metrics["valid"].items():
        assert value == float(rows[metrics["best_epoch"] - 1][f"valid_{name}"]), name
    assert (metrics["status"], metrics["epochs"], metrics["valid_metric"]) == ("finished", 4, "recall@20")


def test_per_user_values_average_to_the_metrics(run: Path):
    rows, metrics = rows_of(run / "per_user.csv"), metrics_of(run)
    for split, label in (("valid", 1), ("test", 2)):
        mine = [row for row in rows if row["split"] == split]
        assert [int(row["user"]) for row in mine] == sorted(labelled(label))
        for name, value in metrics[split].items():
            assert math.isclose(np.mean([float(row[name]) for row in mine]), value, rel_tol=1e-12), name


def test_checkpoint_holds_tensors_only_and_the_best_epoch(run: Path):
    checkpoint = torch.load(run / "checkpoint.pt", weights_only=True)
    assert checkpoint["epoch"] == metrics_of(run)["best_epoch"]
    assert checkpoint["model"]["user_embedding"].shape == (N_USERS, 64)
    assert checkpoint["model"]["item_embedding"].shape == (N_ITEMS, 64)


# topk.tsv


def naive_metrics(ranked: list[int], wanted: set[int], k: int) -> dict[str, float]:
    """The six metrics of one user, by their definitions (shared/specs/harness.md, section 4)."""
    hits = [item in wanted for item in ranked[:k]]
    n, best = len(wanted), min(k, len(wanted))
    gain = sum(1 / math.log2(place + 1) for place, good in enumerate(hits, 1) if good)
    precisions = [sum(hits[:place]) / place for place, good in enumerate(hits, 1) if good]
    precision, recall = sum(hits) / k, sum(hits) / n
    return {
        f"recall@{k}": recall,
        f"precision@{k}": precision,
        f"f1@{k}": 2 * precision * recall / (precision + recall) if any(hits) else 0.0,
        f"hit@{k}": float(any(hits)),
        f"ndcg@{k}": gain / sum(1 / math.log2(place + 1) for place in range(1, best + 1)),
        f"map@{k}": sum(precisions) / best,
    }


def test_an_independent_implementation_gets_the_same_metrics_from_topk(run: Path):
    ranked = {int(user[1:]): [int(item[1:]) for item in items] for user, items in topk_of(run).items()}
    wanted, metrics = labelled(2), metrics_of(run)["test"]
    assert set(ranked) == set(wanted)
    for k in (5, 10, 20, 50):
        values = [naive_metrics(ranked[user], wanted[user], k) for user in wanted]
        for name in values[0]:
            assert abs(np.mean([value[name] for value in values]) - metrics[name]) < 1e-6, name
    assert 0 < metrics["recall@5"] < 1


def test_topk_has_original_ids_and_neither_training_items_nor_repeats(run: Path):
    topk = topk_of(run)
    train = labelled(0)
    assert len(topk) == N_USERS
    for user, items in topk.items():
        assert re.fullmatch(r"U\d+", user)
        assert all(re.fullmatch(r"B\d+", item) for item in items)
        assert len(set(items)) == len(items) == min(50, N_ITEMS - len(train[int(user[1:])]))
        assert not {int(item[1:]) for item in items} & train[int(user[1:])]


def test_topk_has_plain_ids_without_mapping_files_and_is_not_written_unasked(own: list[str]):
    without, with_topk = (
        trained("-m", "BPR", "-d", "toy", *own, "--epochs", 1, *words).folders[0]
        for words in ([], ["--save_topk", "true"])
    )
    assert not (without / "topk.tsv").exists()
    assert set(topk_of(with_topk)) == {str(user) for user in range(N_USERS)}


# Equal seeds, other seeds, several runs


def test_two_runs_with_one_seed_agree_and_the_second_leaves_the_first_alone(own: list[str]):
    words = ["-m", "GTC", "-d", "toy", *own, "--epochs", 2, *SMALL_GTC, "--save_topk"]
    first = trained(*words).folders[0]
    before = contents(first)
    second = trained(*words).folders[0]
    assert second.name == f"{first.name}_2"
    assert contents(first) == before
    assert metrics_of(first) == metrics_of(second)
    for name in ("per_user.csv", "topk.tsv"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_seeds_are_runs_of_one_row(own: list[str], tmp_path: Path):
    outcome = trained("-m", "BPR", "-d", "toy", *own, *FEW, "--seed", 1, 2, 3)
    metrics = [metrics_of(folder) for folder in outcome.folders]
    assert [folder.name.rpartition("-")[2] for folder in outcome.folders] == ["s1", "s2", "s3"]
    assert len({json.dumps(one["test"]) for one in metrics}) == 3, "a seed changes the result"
    (table,) = (tmp_path / "runs" / "comparisons").glob("*/comparison.csv")
    (row,) = rows_of(table)
    values = [one["test"]["recall@20"] for one in metrics]
    assert row["seeds"] == "1 2 3"
    assert math.isclose(float(row["test_recall@20"]), np.mean(values), rel_tol=1e-12)
    assert math.isclose(float(row["test_recall@20_std"]), np.std(values, ddof=1), rel_tol=1e-9)
    assert "±" in outcome.out


def test_several_models_and_data_sets_make_a_table(own: list[str], tmp_path: Path):
    outcome = trained("-m", "BPR", "LightGCN", "-d", "toy", "named", *own, "--epochs", 2)
    pairs = [("toy", "BPR"), ("toy", "LightGCN"), ("named", "BPR"), ("named", "LightGCN")]
    (table,) = (tmp_path / "runs" / "comparisons").iterdir()
    rows = rows_of(table / "comparison.csv")
    assert [(row["dataset"], row["model"]) for row in rows] == pairs
    assert [folder.parts[-3:-1] for folder in outcome.folders] == pairs
    for row, folder in zip(rows, outcome.folders, strict=True):
        for split in ("valid", "test"):
            for name, value in metrics_of(folder)[split].items():
                assert float(row[f"{split}_{name}"]) == value
    lines = (table / "comparison.md").read_text().splitlines()
    assert len(lines) == 2 + len(pairs)
    assert set(lines[1]) <= set("|- ")
    for (dataset, model), line, row in zip(pairs, lines[2:], rows, strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[:2] == [dataset, model]
        assert f"{float(row['test_recall@20']):.4f}" in cells
        assert re.search(rf"^{dataset} +{model} ", outcome.out, re.MULTILINE), "the table is on the terminal too"


def test_a_list_is_a_grid_selected_by_validation(own: list[str], tmp_path: Path):
    rates = ["1e-4", "3e-3", "0.03", "0.3"]
    outcome = trained("-m", "BPR", "-d", "toy", *own, "--epochs", 3, "--learning_rate", *rates)
    valid = [metrics_of(folder)["valid"]["recall@20"] for folder in outcome.folders]
    (table,) = (tmp_path / "runs" / "comparisons").glob("*/comparison.csv")
    rows = rows_of(table)
    assert [float(row["learning_rate"]) for row in rows] == [float(rate) for rate in rates]
    assert [row["selected"] for row in rows] == [str(place == valid.index(max(valid))) for place in range(4)]
    assert len(re.findall(r"^toy +BPR \* ", outcome.out, re.MULTILINE)) == 1
    assert "picked by validation" in outcome.out


def test_the_published_grid_runs_whole_or_its_first_combination(own: list[str]):
    grid = yaml.safe_load((ROOT / "src/configs/model/LightGCN.yaml").read_text())["grid"]
    words = ["-m", "LightGCN", "-d", "toy", *own, "--epochs", 1, "--grid"]
    (first,) = trained(*words, "--first_combination").folders
    assert len(grid) > 1
    for name, values in grid.items():
        value, place = config_lines(first)[name]
        assert float(value) == float(values[0])
        assert place.endswith(", grid")
    # What the command line sets is not searched.
    words += ["--reg_weight", grid.pop("reg_weight")[0]]
    n_points = math.prod(len(values) for values in grid.values())
    whole = trained(*words, "--resume")
    assert len(set(whole.folders)) == n_points
    assert whole.out.count("best epoch 1 of 1") == n_points - 1, "the first is not run again"
    assert f"finished before, in {first}" in whole.out


# Data sets and settings of one's own


def test_a_folder_without_any_yaml_is_a_data_set(tmp_path: Path):
    write_dataset(tmp_path / "data" / "mine", features=("image", "audio", "lyrics"))
    outcome = trained("-m", "GTC", "-d", "mine", *places(tmp_path), "--epochs", 1, *SMALL_GTC)
    features = json.loads((outcome.folders[0] / "manifest.json").read_text())["features"]
    assert features == {name: [N_ITEMS, 5] for name in ("visual", "acoustic", "lyrics")}
    n, (train, valid, test) = len(toy_rows()), (sum(row[2] == label for row in toy_rows()) for label in range(3))
    assert f"mine: 40 users, 55 items, {n} interactions, sparsity {100 * (1 - n / (40 * 55)):.3f}%" in outcome.out
    assert f"train {train}, valid {valid}, test {test}" in outcome.out


def test_a_folder_may_bring_its_own_settings(tmp_path: Path):
    folder = tmp_path / "data" / "mine"
    settings = {
        "inter_file_name": "log.csv",
        "field_separator": ",",
        "USER_ID_FIELD": "who",
        "item_id_field": "what",
        "inter_splitting_label": "part",
        "modalities": {"sound": "waves.npy"},
        "expected": {"users": 41},
    }
    write_dataset(folder, rows=[(0, 0, 0)], **settings)
    write_inter(folder / "log.csv", [(7, *row) for row in toy_rows()], ("when", "who", "what", "part"), ",")
    write_features(folder / "waves.npy", width=3)
    outcome = trained("-m", "VBPR", "-d", "mine", *places(tmp_path), "--epochs", 1)
    assert json.loads((outcome.folders[0] / "manifest.json").read_text())["features"] == {"sound": [N_ITEMS, 3]}
    assert config_lines(outcome.folders[0])["user_id_field"] == ("who", str(folder / "dataset.yaml"))
    assert "warning: mine: published with 41 users, read 40" in outcome.out


def test_a_data_set_of_the_tree_with_some_of_its_modalities(tmp_path: Path):
    write_dataset(tmp_path / "data" / "microlens", features=("image", "video"))
    outcome = trained("-m", "VBPR", "-d", "microlens", *places(tmp_path), "--epochs", 1)
    (folder,) = outcome.folders
    assert re.search(r"warning: microlens: no text_feat.npy \(textual\), audio_feat.npy \(acoustic\)", outcome.out)
    assert run_here("recommend", folder, "--users", 1).code == 0, "the run can be used as well"


def test_a_config_file_with_the_names_and_lists_of_mmrec(own: list[str], tmp_path: Path):
    (tmp_path / "mmrec.yaml").write_text(
        "gpu_id: 0\nuse_gpu: False\nUSER_ID_FIELD: userID\nITEM_ID_FIELD: itemID\ninter_splitting_label: x_label\n"
        "filter_out_cod_start_users: True\nis_multimodal_model: False\ntrain_batch_size: 64\nepochs: 2\n"
        "save_recommended_topk: True\nn_layers: [1, 3]\nreg_weight: [1e-04, 0.01]\nembedding_size: 8\n"
        'hyper_parameters: ["n_layers", "reg_weight"]\n'
    )
    outcome = trained("-m", "LightGCN", "-d", "toy", *own, "--config", tmp_path / "mmrec.yaml")
    points = [(config_lines(f)["n_ui_layers"][0], config_lines(f)["reg_weight"][0]) for f in outcome.folders]
    assert [(layers, float(weight)) for layers, weight in points] == [(1, 1e-4), (1, 0.01), (3, 1e-4), (3, 0.01)]
    assert all((folder / "topk.tsv").is_file() for folder in outcome.folders)
    assert config_lines(outcome.folders[0])["train_batch_size"] == (64, str(tmp_path / "mmrec.yaml"))
    assert re.search(
        r"note: .*mmrec.yaml: keys of MMRec that change nothing here: is_multimodal_model$", outcome.out, re.M
    )


def test_best_lays_the_published_setting_of_the_data_set_over_the_model_s(
    own: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    configs = tmp_path / "configs"
    shutil.copytree(CONFIGS, configs)
    (configs / "best" / "toy").mkdir(parents=True)
    other = "others:\n  - source: somebody else\n    reg_weight: 0.75\n"
    (configs / "best" / "toy" / "LightGCN.yaml").write_text(
        f"source: the authors' log\nn_ui_layers: 3\nreg_weight: 0.5\n{other}"
    )
    (configs / "best" / "toy" / "MostPop.yaml").write_text("epochs: 3\n")
    monkeypatch.setattr("utils.config.request.CONFIGS", configs)
    outcome = trained("-m", "LightGCN", "BPR", "MostPop", "-d", "toy", *own, *FEW, "--best", "--reg_weight", "0.25")
    assert "note: no best setting of BPR on toy is published; its defaults are used" in outcome.out
    assert "note: best setting of LightGCN on toy: the authors' log" in outcome.out
    assert outcome.out.count("best setting of") == 2
    (folder,) = (tmp_path / "runs").glob("toy/LightGCN/*")
    assert config_lines(folder)["n_ui_layers"] == (3, "best/toy/LightGCN.yaml (the authors' log)")
    assert config_lines(folder)["reg_weight"] == (0.25, "command line")
    assert "source" not in config_lines(folder) or config_lines(folder)["source"][0] is None, "a key of data sets"
    (folder,) = (tmp_path / "runs").glob("toy/MostPop/*")
    assert config_lines(folder)["epochs"][1] == "command line"


def test_the_settings_of_a_run_can_be_used_again(run: Path, shared: Path):
    again = trained("-m", "LightGCN", "-d", "named", "--config", run / "config.yaml", "--resume")
    assert f"finished before, in {run}" in again.out
    assert config_lines(run)["epochs"] == (4, "command line"), "the run is left as it was"


def test_options_may_be_written_with_equals_signs_and_hyphens(own: list[str]):
    (folder,) = trained(
        "-m", "BPR", "-d", "toy", *own, "--epochs=1", "--learning-rate=5e-3", "--clip-grad-norm", ".5"
    ).folders
    lines = config_lines(folder)
    assert (lines["epochs"][0], lines["learning_rate"][0], lines["clip_grad_norm"][0]) == (1, 0.005, 0.5)


# Evaluation


def test_groups_share_out_the_users(own: list[str]):
    words = ["-m", "BPR", "-d", "toy", *own, *FEW, "--group_by", "user_activity", "item_popularity"]
    outcome = trained(*words)
    metrics = metrics_of(outcome.folders[0])
    groups = metrics["groups"]["user_activity"]
    sizes = [group["n_users"] for group in groups.values()]
    assert sum(sizes) == N_USERS
    assert len(groups) > 1
    for name, value in metrics["test"].items():
        assert math.isclose(np.average([group[name] for group in groups.values()], weights=sizes), value, rel_tol=1e-12)
    assert set(metrics["groups"]["item_popularity"]) <= {"cold", "tail", "middle", "head"}
    for name in (*groups, "item_popularity", "head"):
        assert re.search(rf"^{name} ", outcome.out, re.MULTILINE)


# What is shown

SYNTHETIC = ("--synthetic", "{n_users: 60, n_items: 55, n_interactions: 700}")


def test_quiet_shows_no_bar_and_keeps_the_results(own: list[str]):
    loud = run_here("-m", "BPR", "-d", "toy", *own, *FEW)
    quiet = run_here("-m", "BPR", "-d", "toy", *own, *FEW, "--quiet")
    assert "BPR on toy" in loud.err
    assert quiet.err == ""
    table = re.compile(r"^recall .*", re.MULTILINE)
    assert table.findall(loud.out) == table.findall(quiet.out) != []


def test_a_data_set_with_an_oracle_says_how_far_it_is(tmp_path: Path):
    outcome = trained("-m", "BPR", "-d", "demo", *places(tmp_path), *FEW, *SYNTHETIC)
    assert "% of oracle (recall@20)" in outcome.out
    assert re.search(r"^demo +Oracle .* 100\.0", outcome.out, re.MULTILINE)


@pytest.mark.parametrize("words", [("-d", "toy"), ("-d", "demo", *SYNTHETIC)], ids=["toy", "demo"])
def test_a_diverged_run_is_reported_and_keeps_what_there_was(words: tuple[str, ...], own: list[str]):
    rising = ("--learning_rate_scheduler", "1e12", "1", "--epochs", "9", "--train_batch_size", "32", "--quiet")
    outcome = run_here("-m", "BPR", *words, *own, *rising)
    (folder,) = outcome.folders
    assert (outcome.code, outcome.err) == (1, "")
    metrics = metrics_of(folder)
    assert metrics["status"] == json.loads((folder / "manifest.json").read_text())["status"] == "diverged"
    assert metrics["test"] is None
    assert f"diverged: {metrics['error']}" in outcome.out
    epoch, step = re.match(r"epoch (\d+), step (\d+): loss term '\w+' is (?:nan|inf)$", metrics["error"]).groups()
    assert 1 < int(epoch) < 9
    assert int(step) >= 1
    assert len(rows_of(folder / "history.csv")) == metrics["epochs"] == int(epoch) - 1
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["epoch"] < int(epoch)


def test_a_diverged_run_of_a_grid_does_not_stop_the_others_and_is_not_selected(own: list[str], tmp_path: Path):
    outcome = run_here(
        "-m", "BPR", "-d", "toy", *own, *FEW[:2], "--learning_rate", "1e30", "1e-3", "--train_batch_size", 32
    )
    assert outcome.code == 1
    assert [metrics_of(folder)["status"] for folder in outcome.folders] == ["diverged", "finished"]
    (table,) = tmp_path.glob("runs/comparisons/*/comparison.csv")
    assert [(row["selected"], row["diverged"]) for row in rows_of(table)] == [("False", "1"), ("True", "0")]
    assert re.search(r"^toy +BPR +1e\+30 .* diverged", outcome.out, re.MULTILINE)


# recommend


def test_recommend_gives_the_order_of_topk_and_no_training_items(run: Path, tmp_path: Path):
    file = tmp_path / "best.tsv"
    outcome = run_here("recommend", run, "--users", "U3", "U7", "--k", 20, "--output", file)
    assert (outcome.code, outcome.err) == (0, "")
    topk, train = topk_of(run), labelled(0)
    rows = rows_of(file, "\t")
    for user in (3, 7):
        mine = [row for row in rows if row["user"] == f"U{user}"]
        items = [row["item"] for row in mine]
        assert items == topk[f"U{user}"][:20]
        assert [row["rank"] for row in mine] == [str(rank) for rank in range(1, 21)]
        scores = [float(row["score"]) for row in mine]
        assert scores == sorted(scores, reverse=True)
        assert not {int(item[1:]) for item in items} & train[user]
        assert f"user U{user}: {' '.join(items)}" in outcome.out
    assert len(rows) == 40


def test_recommend_for_everybody_writes_into_the_run_folder(run: Path, tmp_path: Path):
    folder = shutil.copytree(run, tmp_path / "run")
    outcome = run_here("recommend", folder, "--k", "3", "--device", "cpu")
    assert outcome.code == 0, outcome.err
    rows = rows_of(folder / "recommendations.tsv", "\t")
    assert [row["user"] for row in rows] == [f"U{user}" for user in range(N_USERS) for _ in range(3)]
    assert "and 20 more users" in outcome.out
    assert set(contents(folder)) == {*contents(run), "recommendations.tsv"}


def test_recommend_names_a_user_once_and_stops_where_the_items_end(run: Path, tmp_path: Path):
    outcome = run_here("recommend", run, "--users", "U5", "U5", "--k", N_ITEMS, "--output", tmp_path / "all.tsv")
    left = N_ITEMS - len(labelled(0)[5])
    assert len(rows_of(tmp_path / "all.tsv", "\t")) == left
    assert outcome.out.count("user U5:") == 1


def test_recommend_finds_data_that_have_moved(tmp_path: Path):
    write_dataset(tmp_path / "data" / "toy")
    (folder,) = trained("-m", "GTC", "-d", "toy", *places(tmp_path), "--epochs", 1, *SMALL_GTC, "--save_topk").folders
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    lost = run_here("recommend", folder, "--users", 3)
    assert lost.code == 2
    assert "--data_path" in lost.err
    found = run_here("recommend", folder, "--users", 3, "--k", 5, "--data_path", tmp_path / "elsewhere")
    assert f"user 3: {' '.join(topk_of(folder)['3'][:5])}\n" in found.out


# generate


def test_generate_writes_a_data_set_to_train_on(tmp_path: Path):
    words = [
        "--n_users",
        30,
        "--n_items",
        55,
        "--n_interactions",
        400,
        "--feature_dims",
        "{visual: 7, textual: 3, smell: 2}",
    ]
    outcome = trained("generate", "made", "--data_path", tmp_path / "data", *words, "--seed", 5)
    assert "30 users, 55 items, 400 interactions" in outcome.out
    assert {path.name for path in (tmp_path / "data" / "made").iterdir()} == {
        "made.inter",
        "image_feat.npy",
        "text_feat.npy",
        "smell_feat.npy",
    }
    for folder, seed in (("again", 5), ("other", 6)):
        trained("generate", "made", "--data_path", tmp_path / folder, *words, "--seed", seed)
    made, again, other = (contents(tmp_path / name / "made") for name in ("data", "again", "other"))
    assert made == again
    assert made["made.inter"] != other["made.inter"]
    (folder,) = trained("-m", "GTC", "-d", "made", *places(tmp_path), "--epochs", 1, *SMALL_GTC).folders
    sizes = json.loads((folder / "manifest.json").read_text())
    assert sizes["features"] == {"visual": [55, 7], "textual": [55, 3], "smell": [55, 2]}
    assert sizes["sizes"]["users"] == 30
