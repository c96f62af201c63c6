"""Full-ranking evaluation: every item is ranked for every user of a split, in blocks of users.

Two protocols. `mmrec` masks the training items of a user at validation and at test, as published numbers have it;
`strict` masks the validation items at test too. Masked items are never recommended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from utils.data.dataset import Dataset, Split
from utils.errors import UserError
from utils.evaluation.metrics import METRICS
from utils.evaluation.topk import ranked_topk

CPU_ROWS = 128  # users at a time on a CPU: larger score matrices leave its caches

Scorer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Evaluation:
    """Results of one split.

    Attributes:
        users: evaluated users [U], ascending.
        values: metric name ("recall@20") to the value of each of these users, float64 [U].
        topk: recommended items, best first, int64 [U, K]; -1 where fewer than K items were left to rank.
        hits: whether each of them is relevant, bool [U, K].
    """

    users: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]
    topk: NDArray[np.int64]
    hits: NDArray[np.bool_]

    def means(self) -> dict[str, float]:
        """The mean over users of each metric, in full precision."""
        return {name: float(values.mean()) for name, values in self.values.items()}


class TopKEvaluator:
    """Ranks all items for the users of one split and measures the ranking.

    Args:
        dataset: its splits are used.
        split: valid or test.
        metrics: names of `METRICS`.
        topk: cut-offs.
        protocol: mmrec or strict.
        batch_size: users per call of the scorer.
        device: where scores are computed.
        most_users: where the split has more users, only so many of them are evaluated, evenly spaced; None: all.
        sums: further metrics by name, each a sum of those above: metric to weight.
        items: bool [I], the only items that are ranked and that count as relevant; None: all.

    Raises:
        UserError: if a cut-off is beyond the number of items.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        metrics: Sequence[str],
        topk: Sequence[int],
        protocol: str,
        batch_size: int,
        device: torch.device,
        most_users: int | None = None,
        sums: Mapping[str, Mapping[str, float]] | None = None,
        items: NDArray[np.bool_] | None = None,
    ) -> None:
        if max(topk) > dataset.n_items:
            raise UserError(f"topk: {max(topk)} is more than the {dataset.n_items} items of '{dataset.name}'")
        self.sums = dict(sums or {})
        self.metrics, self.topk = tuple(metrics), tuple(sorted(set(topk)))
        self.batch_size, self.device, self.n_items = batch_size, device, dataset.n_items
        truth = dataset.splits[split]
        self._barred = None if items is None else torch.from_numpy(~items).to(device)
        if items is not None:
            truth = Split(truth.users[items[truth.items]], truth.items[items[truth.items]])
        self.users, self.n_relevant = np.unique(truth.users, return_counts=True)
        if most_users is not None and len(self.users) > most_users:
            chosen = np.linspace(0, len(self.users) - 1, most_users).round().astype(int)
            self.users, self.n_relevant = self.users[chosen], self.n_relevant[chosen]
        masked = ["train", "valid"] if protocol == "strict" and split == "test" else ["train"]
        mask_keys = np.unique(
            np.concatenate([dataset.splits[m].users * dataset.n_items + dataset.splits[m].items for m in masked])
        )
        row_of = np.full(dataset.n_users, -1)
        row_of[self.users] = np.arange(len(self.users))
        rows = row_of[mask_keys // dataset.n_items]
        self._mask_rows = torch.from_numpy(rows[rows >= 0]).to(device)
        self._mask_items = torch.from_numpy(mask_keys[rows >= 0] % dataset.n_items).to(device)
        self._mask_start = np.searchsorted(rows[rows >= 0], np.arange(len(self.users) + 1))
        evaluated = row_of[truth.users] >= 0
        relevant = (row_of[truth.users] * dataset.n_items + truth.items)[evaluated]
        self._relevant = torch.from_numpy(relevant).to(device)

    def evaluate(self, scorer: Scorer) -> Evaluation:
        """Ranks with `scorer`, which maps user ids [B] to scores [B, I].

        Raises:
            FloatingPointError: if a score is NaN or +inf; -inf takes an item out of the ranking.
        """
        k = max(self.topk)
        tops, bests = [], []
        step = min(self.batch_size, CPU_ROWS) if self.device.type == "cpu" else self.batch_size
        for begin in range(0, len(self.users), step):
            end = min(begin + step, len(self.users))
            scores = scorer(torch.from_numpy(self.users[begin:end]).to(self.device))
            mask = slice(self._mask_start[begin], self._mask_start[end])
            scores[self._mask_rows[mask] - begin, self._mask_items[mask]] = -torch.inf
            if self._barred is not None:
                scores[:, self._barred] = -torch.inf
            best, items = ranked_topk(scores, k)
            bests.append(best)
            tops.append(items)
        best, items = torch.cat(bests), torch.cat(tops)
        if not (best[:, 0] < torch.inf).all():  # topk takes NaN for the greatest
            raise FloatingPointError("a score is NaN or infinite")
        ranked = best > -torch.inf
        keys = items + self.n_items * torch.arange(len(items), device=self.device)[:, None]
        place = torch.searchsorted(self._relevant, keys).clamp_(max=len(self._relevant) - 1)
        hits = (self._relevant[place] == keys) & ranked
        return self.measure(items.masked_fill_(~ranked, -1).cpu().numpy(), hits.cpu().numpy())

    def in_batches(self, scorer: Scorer) -> Scorer:
        """For a scorer that is slow to start: one that asks it for `batch_size` users at a time and hands out copies.

        Raises:
            UserError: if its scores are not [B, I].
        """
        users = torch.from_numpy(self.users).to(self.device)
        begin = end = 0  # of the batch at hand, in users
        batch = torch.empty(0)

        def tile(wanted: Tensor) -> Tensor:
            nonlocal begin, end, batch
            rows = []
            place = int(torch.searchsorted(users, wanted[0]))
            stop = place + len(wanted)
            while place < stop:
                if not begin <= place < end:
                    begin, end = place, min(place + self.batch_size, len(users))
                    batch = scorer(users[begin:end])
                    if not isinstance(batch, Tensor) or batch.shape != (end - begin, self.n_items):
                        got = list(batch.shape) if isinstance(batch, Tensor) else type(batch).__name__
                        expected = f"{[end - begin, self.n_items]}, a row per user and a column per item"
                        raise UserError(f"full_sort_predict: expected scores {expected}, got {got}")
                rows.append(batch[place - begin : min(stop, end) - begin])
                place += len(rows[-1])
            return torch.cat(rows)

        return tile

    def measure(self, topk: NDArray[np.int64], hits: NDArray[np.bool_]) -> Evaluation:
        """Computes every metric per user from the ranked lists."""
        values: dict[str, NDArray[np.float64]] = {}
        for name in self.metrics:
            table = METRICS[name](hits, self.n_relevant, self.topk)
            values |= {f"{name}@{cutoff}": table[:, column] for column, cutoff in enumerate(self.topk)}
        for name, weights in self.sums.items():
            values[name] = np.sum([weight * values[metric] for metric, weight in weights.items()], axis=0)
        return Evaluation(self.users, values, topk, hits)
