"""Results by group of users or of items."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from utils.data.dataset import Dataset
from utils.errors import UserError
from utils.evaluation.by_item import by_item_group, modality_groups, popularity_groups
from utils.evaluation.topk_evaluator import Evaluation

OF_ITEMS = {"item_popularity": popularity_groups, "modalities": modality_groups}


def evaluate_groups(
    evaluation: Evaluation, dataset: Dataset, split: str, group_by: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Results by group: grouping to group name to metric (and "n_users"), means over the group's users.

    `user_activity`: four groups of users by number of training interactions, as equal in size as ties allow.
    `item_popularity`, `modalities`: groups of the relevant items, see `popularity_groups` and `modality_groups`; recall and
    NDCG are means over the users with such an item.
    `signal` (generated data): users whose interests need all modalities read together, and the others.
    """
    results: dict[str, dict[str, dict[str, float]]] = {}
    for grouping in group_by:
        if grouping in OF_ITEMS:
            results[grouping] = by_item_group(evaluation, dataset, split, *OF_ITEMS[grouping](dataset))
            continue
        if grouping == "user_activity":
            degree = np.bincount(dataset.train.users, minlength=dataset.n_users)[evaluation.users]
            bounds = np.unique(np.quantile(degree, [0, 0.25, 0.5, 0.75, 1], method="nearest"))
            edges = [*bounds[:-1], bounds[-1] + 1] if len(bounds) > 1 else [bounds[0], bounds[0] + 1]
            masks = {_interactions(a, b - 1): (degree >= a) & (degree < b) for a, b in itertools.pairwise(edges)}
        elif dataset.truth is not None:
            joint = dataset.truth.joint_user[evaluation.users]
            masks = {"modalities together": joint, "one modality": ~joint}
        else:
            raise UserError(f"group_by signal: '{dataset.name}' is not a generated data set")
        results[grouping] = {
            name: {"n_users": int(mask.sum())} | {m: float(v[mask].mean()) for m, v in evaluation.values.items()}
            for name, mask in masks.items()
            if mask.any()
        }
    return results


def _interactions(least: int, most: int) -> str:
    if least < most:
        return f"{least}-{most} interactions"
    return f"{most} interaction{'s' if most != 1 else ''}"
