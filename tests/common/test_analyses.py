"""Balance and dot products against naive loops; a run is the same with and without them."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from cli_tools import places, run_here
from toys import make_config, toy_dataset

from common.abstract_recommender import GeneralRecommender
from common.analyses import Analyses, mean_dot_product, modality_balance
from utils.data.dataset import Split
from utils.runs.run_folder import read_torch


class Views(GeneralRecommender):
    """Fixed embeddings: final ones and one pair for each modality."""

    def __init__(self, config, dataset, fused, views):
        super().__init__(config, dataset)
        self.fused, self.views = fused, views
        self.evaluating = []

    def forward(self):
        self.evaluating.append(not self.training and not torch.is_grad_enabled())
        return self.fused

    def modality_embeddings(self):
        self.evaluating.append(not self.training and not torch.is_grad_enabled())
        return self.views


def pair(width, seed):
    random = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, width, generator=random, dtype=torch.float64) for n in (31, 23))


def views_of(fused, views):
    return Views(make_config("BPR"), toy_dataset([]), fused, views)


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def test_balance_is_the_mean_of_one_minus_the_disparity():
    fused, *views = (pair(4, seed)[0] for seed in range(4))
    expected = []
    for user in range(31):
        found = [cosine(fused[user].tolist(), view[user].tolist()) for view in views]
        expected.append(1 - (max(found) - min(found)))
    assert modality_balance(fused, views).item() == pytest.approx(sum(expected) / 31)


def test_balance_of_equal_views_is_one_and_of_opposite_ones_minus_one():
    x = pair(4, 0)[0]
    assert modality_balance(x, [x, 3 * x, x]).item() == pytest.approx(1)
    assert modality_balance(x, [x, -x]).item() == pytest.approx(-1)


def test_dot_products_are_averaged_within_users_first():
    users, items = torch.tensor([[1.0, 0], [2, 0], [9, 9]]), torch.tensor([[1.0, 5], [3, 5]])
    rows, columns = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
    assert mean_dot_product(users, items, rows, columns).item() == ((1 + 3) / 2 + 6) / 2


def test_columns_are_those_of_validation_users():
    valid = Split(np.array([2, 2, 5]), np.array([1, 3, 4]))
    fused, views = pair(4, 0), {"id": pair(4, 1), "visual": pair(4, 2)}
    model = views_of(fused, views)
    model.train()
    found = Analyses(["balance", "dot_products"], valid)(model)
    assert list(found) == ["balance", "dot_id", "dot_visual"]
    assert model.training
    assert model.evaluating == [True, True]
    expected = modality_balance(fused[0][[2, 5]], [view[0][[2, 5]] for view in views.values()])
    assert found["balance"] == pytest.approx(expected.item())
    for name, (_, items) in views.items():
        z = fused[0]
        assert found[f"dot_{name}"] == pytest.approx(
            ((z[2] @ items[1] + z[2] @ items[3]).item() / 2 + (z[5] @ items[4]).item()) / 2
        )


def test_modalities_side_by_side_have_dot_products_of_their_own_part_and_no_balance():
    valid = Split(np.array([2]), np.array([1]))
    views = {"visual": pair(4, 1), "textual": pair(4, 2)}
    fused = tuple(torch.cat([views["visual"][k], views["textual"][k]], dim=1) for k in (0, 1))
    analyses = Analyses(["balance", "dot_products"], valid)
    found = analyses(views_of(fused, views))
    assert list(found) == ["dot_visual", "dot_textual"]
    assert "another width" in analyses.note
    assert sum(found.values()) == pytest.approx((fused[0][2] @ fused[1][1]).item()), "the parts of the score"


def test_a_single_modality_has_no_balance():
    analyses = Analyses(["balance"], Split(np.array([2]), np.array([1])))
    assert analyses(views_of(pair(4, 0), {"visual": pair(4, 1)})) == {}
    assert "one modality" in analyses.note


def test_only_what_is_asked_for_is_there():
    valid = Split(np.array([2]), np.array([1]))
    model = views_of(pair(4, 0), {"id": pair(4, 1), "visual": pair(4, 2)})
    assert list(Analyses(["balance"], valid)(model)) == ["balance"]
    assert list(Analyses(["dot_products"], valid)(model)) == ["dot_id", "dot_visual"]


# In runs


def history(folder):
    with open(folder / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


SPEC = "{n_users: 40, n_items: 30, n_interactions: 400}"
WORDS = ("-d", "demo", "--synthetic", SPEC, "--epochs", 2, "--quiet", "--topk", 5, 20)


def test_a_run_is_the_same_with_and_without(tmp_path):
    words = ["-m", "GTC", *WORDS, *places(tmp_path)]
    plain = run_here(*words)
    with_columns = run_here(*words, "--analyses", "balance", "dot_products")
    assert (plain.code, with_columns.code) == (0, 0), plain.err + with_columns.err
    (first,), (second,) = plain.folders, with_columns.folders
    assert second.name == f"{first.name}_2", "the same identity"
    one, other = (read_torch(folder / "checkpoint.pt")["model"] for folder in (first, second))
    assert all(torch.equal(one[key], other[key]) for key in one)
    own = {"balance", "dot_id", "dot_visual", "dot_textual"}
    rows, more = history(first), history(second)
    assert own <= set(more[0])
    assert "note: analyses" not in with_columns.out
    assert not own & set(rows[0])
    for row, longer in zip(rows, more, strict=True):
        assert {k: v for k, v in row.items() if "seconds" not in k} == {
            k: v for k, v in longer.items() if "seconds" not in k and k not in own
        }
        assert all(np.isfinite(float(longer[key])) for key in own)
        assert -1 <= float(longer["balance"]) <= 1


def test_a_model_that_tells_nothing_is_noted_once(tmp_path):
    outcome = run_here("-m", "BPR", *WORDS, "--analyses", "balance", *places(tmp_path))
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("note: analyses: BPR tells no embeddings by modality") == 1
    assert "balance" not in history(outcome.folders[0])[0]


def test_catalogue_measures_are_asked_for_and_no_part_of_the_identity(tmp_path):
    words = ["-m", "BPR", *WORDS, *places(tmp_path)]
    (plain,), (asked,) = run_here(*words).folders, run_here(*words, "--beyond_accuracy").folders
    one, other = (json.loads((folder / "metrics.json").read_text()) for folder in (plain, asked))
    assert asked.name == f"{plain.name}_2"
    assert "beyond" not in one
    names = ("coverage", "novelty", "gini", "popularity")
    assert set(other["beyond"]) == {f"{name}@{k}" for name in names for k in (5, 20)}
    assert one["test"] == other["test"]
    assert 0 < other["beyond"]["coverage@5"] <= other["beyond"]["coverage@20"] <= 1
