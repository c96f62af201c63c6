"""The test of a model trained on train and validation: what it is trained on, how long, and that no test row is in it."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from cli_tools import places, trained, write_dataset
from toys import CPU, all_scores, ignore_progress, make_config, toy_dataset

from common.abstract_recommender import GeneralRecommender
from runner import quick_start
from utils.data.dataset import Split
from utils.runs.run_folder import RunFolder

OPTIONS = {"epochs": 6, "learning_rate": 0.05, "weight_average": 0.5, "stopping_step": 1}


def go(tmp_path, data, model="LightGCN", **overrides):
    config = make_config(model, **OPTIONS | {"output_dir": str(tmp_path)} | overrides)
    return quick_start.run(config, RunFolder.new(config), data, ignore_progress)


def weights(result, name="refit/checkpoint.pt"):
    return torch.load(result.folder / name, weights_only=True)["model"]


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_it_is_trained_on_train_and_validation_for_the_epochs_that_validation_picked(tmp_path):
    data = toy_dataset()
    plain, refit = go(tmp_path, data), go(tmp_path, data, refit=True)
    assert_equal(weights(plain, "checkpoint.pt"), weights(refit, "checkpoint.pt"))
    assert plain.metrics["valid"] == refit.metrics["valid"]
    assert plain.metrics["test"] != refit.metrics["test"]
    best = plain.metrics["best_epoch"]
    assert best < 6
    n = len(data.train) + len(data.splits["valid"])
    assert refit.metrics["refit"] == {"epochs": best, "interactions": n}
    both = data.for_refit()
    assert len(both.train) == n
    # The same by hand: that data set, that many epochs, nothing to stop it.
    seen = dataclasses.replace(both, splits=both.splits | {"valid": data.splits["test"], "test": data.splits["test"]})
    by_hand = go(tmp_path, seen, epochs=best, eval_step=best)
    assert_equal(weights(by_hand, "checkpoint.pt"), weights(refit))
    assert by_hand.metrics["test"] == refit.metrics["test"], "what it was trained on is masked"


@pytest.mark.parametrize("model", ["GTC", "ItemKNN"])
def test_test_rows_take_no_part_in_it(model, tmp_path):
    data = toy_dataset()
    test = data.splits["test"]
    other = Split(test.users, np.sort((test.items + 5) % data.n_items))
    moved = dataclasses.replace(data, splits=data.splits | {"test": other})
    built = []

    class Watched(quick_start.class_of(make_config(model))):  # type: ignore[misc]
        @classmethod
        def build(cls, config, dataset, device) -> GeneralRecommender:
            built.append(dataset)
            model: GeneralRecommender = super().build(config, dataset, device)
            return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quick_start, "class_of", lambda config: Watched)
        first, second = (go(tmp_path / str(n), d, model, refit=True) for n, d in enumerate((data, moved)))
    assert [len(built[n].splits["test"]) for n in (1, 3)] == [0, 0]
    assert_equal(weights(first), weights(second))
    scores = [all_scores(quick_start.build_model(first.config, built[n], CPU)) for n in (1, 3)]
    assert torch.equal(*scores), "nor in its graphs"


def test_terminal_table_and_recommendations_are_those_of_the_refit(tmp_path):
    write_dataset(tmp_path / "data" / "toy")
    words = [*("-m", "BPR", "-d", "toy", "--epochs", 3, "--quiet"), *places(tmp_path)]
    outcome = trained(*words, "--refit")
    assert re.search(r"then \d epochs? on train and validation", outcome.out)
    assert "without a validation of its own: test recall@20" in outcome.out
    assert "BPR [1]" in outcome.out
    assert "[1] beside its paper: test of a refit on train and validation, which has no validation" in outcome.out
    (folder,) = outcome.folders
    assert json.loads((folder / "metrics.json").read_text())["refit"]["epochs"] >= 1
    trained("recommend", folder, "--users", "0", "--k", "44", "--data_path", tmp_path / "data")
    found = (folder / "recommendations.tsv").read_text().splitlines()[1:]
    rows = [tuple(line.split("\t")) for line in (tmp_path / "data" / "toy" / "toy.inter").read_text().splitlines()]
    known = {item for user, item, label in rows if user == "0" and label in "01"}
    assert not known & {line.split("\t")[2] for line in found}, "validation items are known now"
    none = trained(*words, "--refit", "--no_test")
    assert "no_test: refit is of the test split and left out" in none.out
    assert not (none.folders[0] / "refit").exists()
