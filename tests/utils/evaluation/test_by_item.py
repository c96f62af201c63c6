"""Results by item and by the modalities that items have, against loops over lists."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from cli_tools import N_ITEMS, places, run_here, trained, write_dataset
from helpers import random_dataset

from utils.evaluation.by_item import modality_groups, per_item
from utils.evaluation.metrics import METRICS
from utils.evaluation.topk_evaluator import TopKEvaluator


@pytest.mark.parametrize("seed", range(2))
def test_results_of_each_item_agree_with_a_plain_loop(seed):
    dataset = random_dataset(seed)
    scores = torch.from_numpy(np.random.default_rng(seed).standard_normal((dataset.n_users, dataset.n_items)))
    evaluator = TopKEvaluator(dataset, "test", tuple(METRICS), [3, 8], "mmrec", 7, torch.device("cpu"))
    evaluation = evaluator.evaluate(lambda users: scores[users].clone())
    found = per_item(evaluation, dataset, "test")
    lists = dict(zip(evaluation.users.tolist(), evaluation.topk.tolist(), strict=True))
    test = list(zip(dataset.splits["test"].users.tolist(), dataset.splits["test"].items.tolist(), strict=True))
    for item in range(dataset.n_items):
        mine = [lists[user] for user, other in test if other == item]
        assert found["test_users"][item] == len(mine)
        for k in (3, 8):
            assert found[f"lists@{k}"][item] == sum(item in row[:k] for row in lists.values())
            places = [row.index(item) + 1 if item in row[:k] else math.inf for row in mine]
            recall = sum(place <= k for place in places) / len(mine) if mine else math.nan
            ndcg = sum(1 / math.log2(place + 1) for place in places) / len(mine) if mine else math.nan
            assert found[f"recall@{k}"][item] == pytest.approx(recall, nan_ok=True)
            assert found[f"ndcg@{k}"][item] == pytest.approx(ndcg, nan_ok=True)
    assert np.isnan(found["recall@3"]).any()
    assert np.nanmax(found["recall@8"]) > 0


def test_items_are_grouped_by_what_they_have():
    dataset = random_dataset()
    dataset.features = {name: np.zeros((dataset.n_items, 2), np.float32) for name in ("visual", "textual", "acoustic")}
    dataset.present = {"visual": np.arange(dataset.n_items) > 1, "textual": np.arange(dataset.n_items) != 1}
    group, names = modality_groups(dataset)
    told = [names[number] for number in group]
    assert told == ["textual + acoustic", "acoustic", *["visual + textual + acoustic"] * (dataset.n_items - 2)]


def test_a_model_without_features_is_measured_by_modality_too(tmp_path):
    folder = write_dataset(tmp_path / "data" / "toy")
    np.save(folder / "image_mask.npy", np.arange(N_ITEMS) % 3 > 0)
    words = ["-m", "BPR", "-d", "toy", "--epochs", 2, "--quiet", *places(tmp_path)]
    outcome = trained(*words, "--group_by", "modalities", "--save_per_item")
    for name in ("visual \\+ textual", "textual"):
        assert pd.Series(outcome.out.splitlines()).str.match(rf"{name}  +\d+  ").any()
    table = pd.read_csv(outcome.folders[0] / "per_item.csv")
    assert (table["modalities"] == "textual").to_numpy().tolist() == (np.arange(N_ITEMS) % 3 == 0).tolist()
    for file in folder.glob("*_feat.npy"):
        file.unlink()
    refused = run_here(*words, "--group_by", "modalities")
    assert refused.code == 2
    assert "no *_feat.npy file" in refused.err
