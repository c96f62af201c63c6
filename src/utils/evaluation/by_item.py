"""Results by item, and by groups of the relevant items: NDCG and Recall, vectorised over users and items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.data.dataset import Dataset
from utils.evaluation.metrics import METRICS
from utils.evaluation.topk_evaluator import Evaluation

POPULARITY = ("cold", "tail", "middle", "head")
SHOWN = ("recall", "ndcg")

Group = NDArray[np.int64]


def popularity_groups(dataset: Dataset) -> tuple[Group, Sequence[str]]:
    """The group of each item [I]: cold without a training interaction; tail, middle, head with a third of them each."""
    degree = np.bincount(dataset.train.items, minlength=dataset.n_items)
    order = np.argsort(degree, kind="stable")
    share = np.empty(dataset.n_items)
    share[order] = (np.cumsum(degree[order]) - degree[order] / 2) / degree.sum()
    return np.where(degree == 0, 0, 1 + np.minimum((share * 3).astype(int), 2)), POPULARITY


def modality_groups(dataset: Dataset) -> tuple[Group, Sequence[str]]:
    """The group of each item [I] by the modalities that it has: "visual + textual", "visual", ..., "none"."""
    every = np.ones(dataset.n_items, dtype=bool)
    has = np.stack([dataset.present.get(name, every) for name in dataset.features], axis=1)  # [I, M]
    kinds, group = np.unique(~has, axis=0, return_inverse=True)
    names = [
        " + ".join(name for name, lacks in zip(dataset.features, kind, strict=True) if not lacks) for kind in kinds
    ]
    return group.reshape(-1), [name or "none" for name in names]


def by_item_group(
    evaluation: Evaluation, dataset: Dataset, split: str, group: Group, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Recall and NDCG of the relevant items of each group: means over the users who have such an item.

    Of a user count the hits and the relevant items of the group alone, at their places in the user's one list.
    """
    truth = dataset.splits[split]
    row = np.searchsorted(evaluation.users, truth.users)
    cutoffs = _cutoffs(evaluation)
    found = np.where(evaluation.hits, group[evaluation.topk], -1)
    results: dict[str, dict[str, float]] = {}
    for number, name in enumerate(names):
        relevant = np.bincount(row[group[truth.items] == number], minlength=len(evaluation.users))
        users = relevant > 0
        if users.any():
            results[name] = {"n_users": int(users.sum()), "n_items": int((group == number).sum())}
            for metric in SHOWN:
                values = METRICS[metric](found[users] == number, relevant[users], cutoffs).mean(axis=0)
                results[name] |= {f"{metric}@{k}": float(value) for k, value in zip(cutoffs, values, strict=True)}
    return results


def per_item(evaluation: Evaluation, dataset: Dataset, split: str) -> dict[str, NDArray[Any]]:
    """Columns with a value per item [I].

    `train_users`, `test_users`: who has it there. `lists@K`: the users in whose first K places it stands. `recall@K`: the
    share of its test users among them. `ndcg@K`: the mean over its test users of 1 / log2(place + 1), 0 beyond K. Both are
    NaN without a test user. `popularity`: cold, tail, middle or head; `modalities`: those it has, if features were read.
    """
    n_items, truth = dataset.n_items, dataset.splits[split]
    group, names = popularity_groups(dataset)
    n_test = np.bincount(truth.items, minlength=n_items)
    columns: dict[str, NDArray[Any]] = {
        "train_users": np.bincount(dataset.train.items, minlength=n_items),
        f"{split}_users": n_test,
        "popularity": np.array(names)[group],
    }
    if dataset.features:
        group, names = modality_groups(dataset)
        columns["modalities"] = np.array(names)[group]
    gain = evaluation.hits / np.log2(np.arange(2, evaluation.hits.shape[1] + 2))
    for k in _cutoffs(evaluation):
        items, hits = evaluation.topk[:, :k], evaluation.hits[:, :k]
        columns[f"lists@{k}"] = np.bincount(items[items >= 0], minlength=n_items)
        with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
            columns[f"recall@{k}"] = np.bincount(items[hits], minlength=n_items) / n_test
            columns[f"ndcg@{k}"] = np.bincount(items[hits], gain[:, :k][hits], minlength=n_items) / n_test
    return columns


def _cutoffs(evaluation: Evaluation) -> list[int]:
    parts = (name.partition("@") for name in evaluation.values)
    return sorted({int(k) for _, _, k in parts if k.isdigit()})  # not of a sum of metrics
