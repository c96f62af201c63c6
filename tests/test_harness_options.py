"""Options of the harness from the command line: foreign model files, recommendations, runs without a test, mistakes."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from cli_tools import Outcome, contents, metrics_of, places, run_here, trained, write_dataset

from common.scorers import Scorers, ScorerWeights
from utils.config.yaml_files import read_yaml
from utils.data.dataset import Dataset
from utils.data.loading import load_dataset
from utils.evaluation.topk import ranked_topk
from utils.runs.run_folder import read_torch, write_torch

PLUGINS = Path(__file__).parent / "plugins"
FEW = ("--epochs", "2", "--learning_rate", "0.02", "--quiet")
FOREIGN = ("--plugin", PLUGINS / "graphrank.py", "-d", "toy", "--first_combination", *FEW)
KEEPSLAST = ("--plugin", PLUGINS / "keepslast.py", "-d", "toy", *FEW)


@pytest.fixture
def own(tmp_path: Path) -> list[str]:
    """Words for a folder with the data set toy in it."""
    write_dataset(tmp_path / "data" / "toy")
    return places(tmp_path)


def metrics(outcome: Outcome) -> dict[str, dict[str, float]]:
    (folder,) = outcome.folders
    return metrics_of(folder)


def column(outcome: Outcome, name: str) -> list[str]:
    with open(outcome.folders[0] / "history.csv", newline="") as file:
        return [row[name] for row in csv.DictReader(file)]


# Files written for MMRec


@pytest.mark.parametrize("words", [FOREIGN, KEEPSLAST], ids=["graphrank", "keepslast"])
def test_scorers_and_their_calibration_work_with_foreign_files(words, own):
    plain, added = (trained(*words, *own, *more) for more in ((), ("--popularity", "0.5", "--co_occurrence", "2")))
    assert column(plain, "loss") == column(added, "loss")
    assert metrics(plain)["valid"] != metrics(added)["valid"]
    assert metrics(plain)["test"] != metrics(added)["test"]
    tuned = trained(*words, *own, "--calibration")
    told = metrics(tuned)["calibration"]
    assert told["gain"] > 0 or told["to"] == told["from"]
    assert re.search(r"\(\d+\.\d s\); tuned on validation: ", tuned.out)


def test_averaging_least_steps_and_singular_vectors_work_with_foreign_files(own):
    plain = trained(*FOREIGN, *own)
    averaged, spectral = (
        trained(*FOREIGN, *own, *more) for more in (("--weight_average", "0.5"), ("--initialization", "spectral"))
    )
    assert column(plain, "loss") == column(averaged, "loss")
    assert metrics(plain)["valid"] != metrics(averaged)["valid"]
    assert column(plain, "loss") != column(spectral, "loss")
    stopped = (
        "--epochs",
        "20",
        "--stopping_step",
        "0",
        "--learning_rate",
        "1e-9",
        "--quiet",
        "--train_batch_size",
        "512",
    )
    words = [*FOREIGN[: -len(FEW)], *own, *stopped]
    assert len(column(trained(*words), "loss")) < 9
    assert len(column(trained(*words, "--min_steps", "9"), "loss")) >= 9


def test_foreign_files_without_plain_tables_refuse_singular_vectors_before_anything_is_trained(own, tmp_path):
    outcome = run_here(*KEEPSLAST, *own, "-m", "LightGCN", "--initialization", "spectral")
    assert outcome.code == 2
    assert outcome.err == (
        "error: initialization: KEEPSLAST has no plain table of user and no plain table of item embeddings, which "
        "'spectral' fills; use --initialization xavier\n"
    )
    assert not (tmp_path / "runs").exists()


# Recommendations


def recommended(folder: Path, own: list[str]) -> dict[str, list[str]]:
    """The five best items of each user."""
    trained("recommend", folder, "--k", "5", "--data_path", own[1])
    lists: dict[str, list[str]] = {}
    for line in (folder / "recommendations.tsv").read_text().splitlines()[1:]:
        user, _, item, _ = line.split("\t")
        lists.setdefault(user, []).append(item)
    return lists


def by_hand(folder: Path, data: Dataset, weights: ScorerWeights) -> dict[str, list[str]]:
    """The same out of a checkpoint of BPR."""
    tables = read_torch(folder / "checkpoint.pt")["model"]
    scores = tables["user_embedding"] @ tables["item_embedding"].T
    scores = Scorers(data, torch.device("cpu"), weights).add(scores, torch.arange(data.n_users))
    scores[data.train.users, data.train.items] = -torch.inf
    return {str(user): [str(item) for item in row] for user, row in enumerate(ranked_topk(scores, 5)[1].tolist())}


def dataset_of(folder: Path) -> Dataset:
    from runner.stored_run import stored_config

    return load_dataset(stored_config(folder, {}), needs_features=False)


@pytest.mark.parametrize(
    "words", [[], ["--co_occurrence", "2", "--popularity", "0.3"], ["--calibration"]], ids=["plain", "added", "tuned"]
)
def test_recommendations_have_the_scorers_of_the_run(words, own):
    (folder,) = trained("-m", "BPR", "-d", "toy", *FEW, *own, *words).folders
    weights = ScorerWeights()
    if "--popularity" in words:
        weights = ScorerWeights(popularity=0.3, co_occurrence=2)
    if "--calibration" in words:
        weights = ScorerWeights.of(metrics_of(folder)["calibration"]["to"])
        assert weights.any, "or this shows nothing"
    data = dataset_of(folder)
    assert recommended(folder, own) == by_hand(folder, data, weights)
    if weights.any:
        assert recommended(folder, own) != by_hand(folder, data, ScorerWeights())


@pytest.mark.parametrize("damage", ["a word", {"popularity": 1.0}])
def test_weights_in_a_checkpoint_that_are_none_are_one_line(damage, own):
    (folder,) = trained("-m", "BPR", "-d", "toy", *FEW, *own).folders
    write_torch(folder / "checkpoint.pt", read_torch(folder / "checkpoint.pt") | {"scorers": damage})
    outcome = run_here("recommend", folder)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {folder}/checkpoint.pt: not of this model (")
    assert outcome.err.count("\n") == 1


# Without a test


def test_nothing_is_said_or_stored_of_the_test(own, tmp_path):
    """Everything that the runs leave behind, and what they print, is searched for a test score."""
    words = ["-m", "LightGCN", "MostPop", "-d", "toy", *FEW, *own, "--no_test", "--seed", "1", "2"]
    outcome = trained(*words, "--save_topk", "--group_by", "user_activity", "--beyond_accuracy", "--tracker", "null")
    left_out = "warning: no_test: group_by, beyond_accuracy, save_topk are of the test split and left out"
    assert left_out in outcome.out
    assert "validation only (no_test): no test score was computed" in outcome.out
    lines = outcome.out.replace(str(tmp_path), "").splitlines()
    said = [line for line in lines if "test" in line.replace("no_test", "")]
    sizes, rest = said[:1], said[1:]
    assert re.match(r"  train [\d,]+, valid [\d,]+, test [\d,]+;", sizes[0])
    assert all("no test" in line or line == left_out for line in rest), rest
    tables = [path for path in (tmp_path / "runs").rglob("*") if path.suffix in (".csv", ".md", ".json")]
    assert any(path.name == "comparison.csv" for path in tables)
    for path in tables:
        text = path.read_text().replace("no_test", "").replace("no test score", "")
        if path.name == "metrics.json":
            assert json.loads(text)["test"] is None
        elif path.name != "manifest.json":  # which has sizes and hashes of the splits
            assert "test" not in text, path
    assert not list(tmp_path.rglob("topk.tsv"))


def test_a_generated_data_set_has_no_oracle_without_a_test(tmp_path):
    places_ = ["--output_dir", tmp_path / "runs", "--cache_dir", tmp_path / "cache", "--device", "cpu"]
    words = ["-m", "MostPop", "-d", "demo", *places_, "--quiet"]
    assert "Oracle" in trained(*words).out
    assert "Oracle" not in trained(*words, "--no_test").out


def test_a_run_without_a_test_is_another_and_is_resumed_as_such(own):
    words = ["-m", "BPR", "-d", "toy", *FEW, *own]
    (whole,), (without,) = trained(*words).folders, trained(*words, "--no_test").folders
    assert whole.name != without.name
    before = contents(without)
    again = trained(*words, "--no_test", "--resume")
    assert f"finished before, in {without}" in again.out
    assert contents(without) == before
    assert metrics_of(without)["test"] is None
    assert f"finished before, in {whole}" in trained(*words, "--resume").out
    assert read_yaml(without / "config.yaml", "")["no_test"] is True


def test_recommendations_of_a_run_without_a_test(own):
    words = ["-m", "BPR", "-d", "toy", *FEW, *own]
    folders = [trained(*words, *more).folders[0] for more in ((), ("--no_test",))]
    lists = [recommended(folder, own) for folder in folders]
    assert lists[0] == lists[1]
    assert "test" not in run_here("recommend", folders[1], "--users", "1").out.replace(str(folders[1]), "")


def test_a_study_may_leave_the_test_out(own, tmp_path):
    study = tmp_path / "search.yaml"
    entries = [{"model": "BPR", "grid": {"reg_weight": [0.1, 0.01]}}, {"model": "LightGCN"}]
    settings = {"epochs": 2, "no_test": True, "group_by": ["user_activity"]}
    study.write_text(yaml.safe_dump({
        "name": "search", "datasets": ["toy"], "seeds": [1, 2], "settings": settings, "entries": entries,
        "reference": "BPR", "report": {"metrics": ["recall@10", "ndcg@10"], "figures": ["convergence", "ablation", "cost"]},
    }))  # fmt: skip
    outcome = trained("study", study, "--workers", "0", *own)
    report = tmp_path / "runs" / "studies" / "search" / "report"
    page = (report / "report.md").read_text()
    assert "Validation results (no_test: no test score was computed)" in page
    assert "Test results" not in page + (report / "report.html").read_text() + (report / "main.tex").read_text()
    assert "No figure ablation: it shows test results, and the runs have none (no_test)." in page
    with open(report / "main.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["BPR", "LightGCN"]
    assert not any(name.startswith("test_") for row in rows for name in row)
    assert all(0 < float(row["valid_recall@10"]) < 1 for row in rows)
    assert "Results on toy" in outcome.out
    # One entry alone without a test cannot stand beside the others.
    entries[0] |= {"settings": {"no_test": False}}
    study.write_text(yaml.safe_dump({
        "name": "mixed", "datasets": ["toy"], "seeds": [1], "settings": settings, "entries": entries,
    }))  # fmt: skip
    mixed = run_here("study", study, "--workers", "0", *own)
    assert mixed.code == 2
    assert re.search(
        r"error: these runs cannot stand in one table: test score: computed \(.*\) but left out \(", mixed.err
    )


# Mistakes


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--popularity -1", "popularity: expected a number of at least 0, got -1"),
        ("--co_occurrence_damping nan", "co_occurrence_damping: "),
        ("--calibration maybe", "calibration: expected true or false"),
        ("--initialization spectrum", "initialization: expected a word out of xavier, spectral, got 'spectrum'"),
        ("--no_tests", "unknown option --no_tests (did you mean 'no_test'?)"),
        ("--weight_average 1.0", "weight_average: expected a number from 0 to 0.99999, got 1.0"),
    ],
)
def test_mistakes_in_options_are_one_line(words, told, own, tmp_path):
    outcome = run_here("-m", "BPR", "-d", "toy", *words.split(), *own)
    assert outcome.code == 2
    assert told in outcome.err
    assert outcome.err.count("\n") == 1
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "runs").exists()
