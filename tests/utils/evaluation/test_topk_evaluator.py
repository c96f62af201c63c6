"""Full ranking: against a plain implementation user by user, masks, ties, groups."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from helpers import dataset_of, problems_of, random_dataset
from torch import Tensor

from utils.data.dataset import Dataset
from utils.data.synthetic import generate
from utils.data.synthetic_spec import SyntheticSpec
from utils.evaluation.groups import evaluate_groups
from utils.evaluation.metrics import METRICS
from utils.evaluation.topk_evaluator import Evaluation, TopKEvaluator

CPU = torch.device("cpu")
CUTOFFS = (5, 1, 20)


def evaluate(
    dataset: Dataset,
    scores: Tensor,
    split: str = "test",
    protocol: str = "mmrec",
    topk: Any = CUTOFFS,
    batch_size: int = 7,
    metrics: Any = tuple(METRICS),
) -> Evaluation:
    evaluator = TopKEvaluator(dataset, split, metrics, topk, protocol, batch_size, CPU)
    return evaluator.evaluate(lambda users: scores[users].clone())


def scores_of(dataset: Dataset, seed: int = 0, levels: int = 0) -> Tensor:
    """Random scores; with `levels`, whole numbers below it, so that many are equal."""
    random = np.random.default_rng(seed)
    shape = (dataset.n_users, dataset.n_items)
    return torch.from_numpy(random.integers(0, levels, shape).astype(np.float32) if levels else random.random(shape))


def items_by_user(dataset: Dataset, split: str) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for user, item in zip(dataset.splits[split].users.tolist(), dataset.splits[split].items.tolist(), strict=True):
        found.setdefault(user, set()).add(item)
    return found


def naive(
    dataset: Dataset, scores: Tensor, split: str, protocol: str
) -> tuple[dict[int, list[int]], dict[str, list[float]]]:
    """Ranked lists and metrics of the users of a split, in the words of the definition."""
    masked = [items_by_user(dataset, "train")]
    if protocol == "strict" and split == "test":
        masked.append(items_by_user(dataset, "valid"))
    lists: dict[int, list[int]] = {}
    values: dict[str, list[float]] = {f"{name}@{k}": [] for name in METRICS for k in CUTOFFS}
    for user, relevant in sorted(items_by_user(dataset, split).items()):
        out = set().union(*(part.get(user, set()) for part in masked))
        left = [item for item in range(dataset.n_items) if item not in out]
        row = scores[user].tolist()
        ranked = [item for _, item in sorted((-row[item], item) for item in left)][: max(CUTOFFS)]
        lists[user] = ranked
        for k in CUTOFFS:
            at = [rank for rank, item in enumerate(ranked[:k], 1) if item in relevant]
            best = min(k, len(relevant))
            precision, recall = len(at) / k, len(at) / len(relevant)
            values[f"recall@{k}"].append(recall)
            values[f"precision@{k}"].append(precision)
            values[f"f1@{k}"].append(2 * precision * recall / (precision + recall) if at else 0.0)
            values[f"hit@{k}"].append(1.0 if at else 0.0)
            ideal = sum(1 / math.log2(rank + 1) for rank in range(1, best + 1))
            values[f"ndcg@{k}"].append(sum(1 / math.log2(rank + 1) for rank in at) / ideal)
            values[f"map@{k}"].append(sum(n / rank for n, rank in enumerate(at, 1)) / best)
    return lists, values


# Against the definition


@pytest.mark.parametrize("levels", [0, 3])
@pytest.mark.parametrize(
    ("split", "protocol"), [("valid", "mmrec"), ("valid", "strict"), ("test", "mmrec"), ("test", "strict")]
)
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_a_plain_implementation(seed, split, protocol, levels):
    dataset = random_dataset(seed)
    scores = scores_of(dataset, seed, levels)
    evaluation = evaluate(dataset, scores, split, protocol)
    lists, values = naive(dataset, scores, split, protocol)
    assert evaluation.users.tolist() == list(lists)
    for row, ranked in zip(evaluation.topk.tolist(), lists.values(), strict=True):
        assert row == ranked + [-1] * (max(CUTOFFS) - len(ranked))
    assert set(evaluation.values) == set(values)
    for name, expected in values.items():
        np.testing.assert_allclose(evaluation.values[name], expected, rtol=0, atol=1e-12)
        assert evaluation.means()[name] == pytest.approx(np.mean(expected), abs=1e-12)


@pytest.mark.parametrize("most", [1, 2, 5, 9, 1000])
@pytest.mark.parametrize(("split", "protocol"), [("valid", "mmrec"), ("test", "strict")])
def test_some_users_are_measured_as_they_are_among_all(split, protocol, most):
    dataset = random_dataset(1)
    scores = scores_of(dataset, 1, levels=3)
    whole = evaluate(dataset, scores, split, protocol)
    evaluator = TopKEvaluator(dataset, split, tuple(METRICS), CUTOFFS, protocol, 7, CPU, most)
    some = evaluator.evaluate(lambda users: scores[users].clone())
    place = np.searchsorted(whole.users, some.users)
    assert len(some.users) == min(most, len(whole.users))
    assert np.array_equal(whole.users[place], some.users)
    assert np.array_equal(whole.topk[place], some.topk)
    for name, values in some.values.items():
        assert np.array_equal(whole.values[name][place], values), name
    if 1 < most < len(whole.users):
        assert set(some.users[[0, -1]]) == set(whole.users[[0, -1]]), "over the whole range"


def test_protocols_differ_at_test_only():
    dataset = random_dataset()
    scores = scores_of(dataset)
    for split in ("valid", "test"):
        mmrec, strict = (evaluate(dataset, scores, split, protocol).topk for protocol in ("mmrec", "strict"))
        assert np.array_equal(mmrec, strict) == (split == "valid")


@pytest.mark.parametrize("protocol", ["mmrec", "strict"])
def test_masked_items_are_never_recommended_however_high_their_score(protocol):
    dataset = random_dataset()
    train, valid = items_by_user(dataset, "train"), items_by_user(dataset, "valid")
    scores = scores_of(dataset)
    for part in (train, valid):
        for user, items in part.items():
            scores[user, list(items)] = 1e30
    evaluation = evaluate(dataset, scores, "test", protocol)
    for user, row in zip(evaluation.users.tolist(), evaluation.topk.tolist(), strict=True):
        assert not train[user] & set(row)
        if protocol == "strict":
            assert not valid[user] & set(row)
        else:
            assert set(row[: len(valid[user])]) == valid[user]


def test_user_without_history_is_ranked_over_all_items():
    dataset = dataset_of([(0, 0, 0), (0, 1, 1), (1, 2, 2)], 2, 3)
    evaluation = evaluate(dataset, torch.tensor([[0.0, 0, 0], [3, 1, 2]]), topk=[3])
    assert evaluation.users.tolist() == [1]
    assert evaluation.topk.tolist() == [[0, 2, 1]]


def test_fewer_rankable_items_than_places_leave_minus_one():
    rows = [(0, 0, 0), (0, 1, 0), (0, 2, 0), (0, 3, 2), (1, 0, 0), (1, 1, 2), (1, 2, 1)]
    evaluation = evaluate(dataset_of(rows, 2, 5), torch.arange(10.0).reshape(2, 5), topk=[1, 4])
    assert evaluation.topk.tolist() == [[4, 3, -1, -1], [4, 3, 2, 1]]
    assert evaluation.hits.tolist() == [[False, True, False, False], [False, False, False, True]]
    assert evaluation.values["recall@4"].tolist() == [1, 1]


def test_item_that_a_model_scores_minus_infinity_is_not_recommended():
    dataset = dataset_of([(0, 0, 0), (0, 1, 2)], 1, 4)
    evaluation = evaluate(dataset, torch.tensor([[0.0, -math.inf, 1, 2]]), topk=[3])
    assert evaluation.topk.tolist() == [[3, 2, -1]]
    assert evaluation.values["hit@3"].tolist() == [0]


def test_item_in_train_and_test_is_masked_and_counts_as_relevant():
    dataset = dataset_of([(0, 0, 0), (0, 0, 2), (0, 1, 2)], 1, 3)
    evaluation = evaluate(dataset, torch.tensor([[3.0, 2, 1]]), topk=[3])
    assert evaluation.topk.tolist() == [[1, 2, -1]]
    assert evaluation.hits.tolist() == [[True, False, False]]
    assert evaluation.values["recall@3"].tolist() == [0.5]


# Batches and mistakes


@pytest.mark.parametrize("levels", [0, 3])
def test_result_does_not_depend_on_the_batch_size(levels):
    dataset = random_dataset()
    scores = scores_of(dataset, levels=levels)
    first, *others = (evaluate(dataset, scores, batch_size=size) for size in (1, 3, 20, 10_000))
    for other in others:
        np.testing.assert_array_equal(first.topk, other.topk)
        np.testing.assert_array_equal(first.hits, other.hits)
        for name, values in first.values.items():
            np.testing.assert_array_equal(values, other.values[name])


def test_scorer_is_asked_once_for_each_user_of_the_split():
    dataset = random_dataset()
    asked: list[int] = []

    def scorer(users: Tensor) -> Tensor:
        assert len(users) <= 6
        asked.extend(users.tolist())
        return torch.zeros(len(users), dataset.n_items)

    TopKEvaluator(dataset, "valid", ["recall"], [5], "mmrec", 6, CPU).evaluate(scorer)
    assert asked == sorted(items_by_user(dataset, "valid"))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_score_that_is_nan_or_infinite_stops_the_evaluation(bad):
    dataset = random_dataset()
    scores = scores_of(dataset)
    user, item = int(dataset.splits["test"].users[3]), dataset.n_items - 1
    scores[user, item] = bad
    with pytest.raises(FloatingPointError, match="a score is NaN or infinite"):
        evaluate(dataset, scores)
    scores[user, item] = 0
    scores[user, dataset.train.items[dataset.train.users == user]] = bad
    evaluate(dataset, scores)  # of masked items nothing is asked


def test_cutoff_beyond_the_items_is_the_users_mistake():
    dataset = dataset_of([(0, 0, 0), (0, 1, 2)], 1, 3)
    assert problems_of(lambda: evaluate(dataset, torch.zeros(1, 3), topk=[2, 4])) == [
        "topk: 4 is more than the 3 items of 'toy'"
    ]
    assert evaluate(dataset, torch.zeros(1, 3), topk=[3]).topk.shape == (1, 3)


def test_only_the_metrics_and_cutoffs_asked_for_are_there():
    dataset = random_dataset()
    evaluation = evaluate(dataset, scores_of(dataset), metrics=["ndcg", "recall"], topk=[10, 2, 10])
    assert list(evaluation.values) == ["ndcg@2", "ndcg@10", "recall@2", "recall@10"]
    assert evaluation.topk.shape[1] == 10


# Groups


@pytest.mark.parametrize("seed", range(4))
def test_groups_by_activity_hold_every_user_once(seed):
    dataset = random_dataset(seed)
    evaluation = evaluate(dataset, scores_of(dataset))
    groups = evaluate_groups(evaluation, dataset, "test", ["user_activity"])["user_activity"]
    degree = np.bincount(dataset.train.users, minlength=dataset.n_users)[evaluation.users]
    covered = np.zeros(len(degree), dtype=int)
    for name, metrics in groups.items():
        bounds = [int(word) for word in name.split()[0].split("-")]
        mine = (degree >= bounds[0]) & (degree <= bounds[-1])
        covered += mine
        assert metrics["n_users"] == mine.sum() > 0
        for metric, values in evaluation.values.items():
            assert metrics[metric] == pytest.approx(values[mine].mean(), abs=1e-12)
    assert (covered == 1).all()
    assert 2 <= len(groups) <= 4


@pytest.mark.parametrize(("each", "name"), [(1, "1 interaction"), (2, "2 interactions")])
def test_users_of_equal_activity_are_one_group(each: int, name: str):
    rows = [(user, item, 0) for user in range(3) for item in range(each)] + [(user, 2, 2) for user in range(3)]
    dataset = dataset_of(rows, 3, 4)
    groups = evaluate_groups(evaluate(dataset, torch.zeros(3, 4), topk=[1]), dataset, "test", ["user_activity"])
    assert {key: group["n_users"] for key, group in groups["user_activity"].items()} == {name: 3}


@pytest.mark.parametrize("seed", range(4))
def test_recall_by_popularity_agrees_with_a_plain_implementation(seed):
    dataset = random_dataset(seed)
    scores = scores_of(dataset, seed)
    results = evaluate_groups(evaluate(dataset, scores), dataset, "test", ["item_popularity"])["item_popularity"]
    degree = [dataset.train.items.tolist().count(item) for item in range(dataset.n_items)]
    group = {item: "cold" for item in range(dataset.n_items)}
    passed = 0.0
    for item in sorted(
        (item for item in range(dataset.n_items) if degree[item]), key=lambda item: (degree[item], item)
    ):
        middle = (passed + degree[item] / 2) / sum(degree)
        group[item] = "tail" if middle < 1 / 3 else "middle" if middle < 2 / 3 else "head"
        passed += degree[item]
    lists, _ = naive(dataset, scores, "test", "mmrec")
    expected: dict[str, dict[str, float]] = {}
    for name in ("cold", "tail", "middle", "head"):
        per_user: dict[str, list[float]] = {f"{metric}@{k}": [] for metric in ("recall", "ndcg") for k in CUTOFFS}
        for user, relevant in items_by_user(dataset, "test").items():
            mine = {item for item in relevant if group[item] == name}
            for k in CUTOFFS:
                if mine:
                    places = [place for place, item in enumerate(lists[user][:k], 1) if item in mine]
                    per_user[f"recall@{k}"].append(len(places) / len(mine))
                    ideal = sum(1 / math.log2(place + 1) for place in range(1, min(k, len(mine)) + 1))
                    per_user[f"ndcg@{k}"].append(sum(1 / math.log2(place + 1) for place in places) / ideal)
        if per_user["recall@1"]:
            expected[name] = {"n_users": len(per_user["recall@1"]), "n_items": list(group.values()).count(name)}
            expected[name] |= {metric: float(np.mean(values)) for metric, values in per_user.items()}
    assert list(results) == list(expected)
    for name, metrics in expected.items():
        assert results[name] == pytest.approx(metrics, abs=1e-12)
    assert "cold" in results


def test_thirds_of_popularity_hold_a_third_of_the_interactions():
    train = [(user, item, 0) for item in range(12) for user in range(item + 1)]
    dataset = dataset_of(train + [(user, item, 2) for user in range(12) for item in range(12)], 12, 12)
    evaluation = evaluate(dataset, torch.zeros(12, 12), topk=[1])
    results = evaluate_groups(evaluation, dataset, "test", ["item_popularity"])["item_popularity"]
    # Items 0 to 11 have 1 to 12 interactions, 78 in all: 28 up to item 6, 27 for items 7 to 9, 23 for the last two.
    assert {name: group["n_items"] for name, group in results.items()} == {"tail": 7, "middle": 3, "head": 2}


def test_signal_groups_are_the_users_who_need_all_modalities():
    data = generate(SyntheticSpec(n_users=40, n_items=30, n_interactions=400))
    dataset = dataset_of(np.stack([data.users, data.items, data.labels], axis=1).tolist(), 40, 30)
    evaluation = evaluate(dataset, scores_of(dataset))
    assert problems_of(lambda: evaluate_groups(evaluation, dataset, "test", ["signal"])) == [
        "group_by signal: 'toy' is not a generated data set"
    ]
    dataset.truth = data.truth
    groups = evaluate_groups(evaluation, dataset, "test", ["user_activity", "signal"])
    assert list(groups) == ["user_activity", "signal"]
    for name, joint in (("modalities together", True), ("one modality", False)):
        mine = data.truth.joint_user[evaluation.users] == joint
        assert groups["signal"][name]["n_users"] == mine.sum() > 0
        assert groups["signal"][name]["ndcg@5"] == pytest.approx(evaluation.values["ndcg@5"][mine].mean(), abs=1e-12)


@pytest.mark.parametrize("batch_size", [1, 5, 7, 20, 1000])
def test_scorer_asked_in_batches_gives_the_same_and_keeps_its_table(batch_size, monkeypatch):
    monkeypatch.setattr("utils.evaluation.topk_evaluator.CPU_ROWS", 7)
    dataset = random_dataset()
    evaluator = TopKEvaluator(dataset, "test", tuple(METRICS), (5,), "mmrec", batch_size, CPU)
    table = scores_of(dataset)[torch.from_numpy(evaluator.users)]
    asked = []

    def keeper(users):
        begin = int(np.searchsorted(evaluator.users, int(users[0])))
        asked.append(len(users))
        return kept[begin : begin + len(users)]  # a view

    expected = evaluate(dataset, scores_of(dataset), topk=(5,))
    kept = table.clone()
    found = evaluator.evaluate(evaluator.in_batches(keeper))
    np.testing.assert_array_equal(found.topk, expected.topk)
    np.testing.assert_array_equal(found.hits, expected.hits)
    assert torch.equal(kept, table)
    whole, rest = divmod(len(evaluator.users), batch_size)
    assert asked == [batch_size] * whole + [rest] * (rest > 0)
