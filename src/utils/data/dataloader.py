"""Training batches: shuffled positives with uniform negatives, vectorised, from a random stream of their own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from utils.data.dataset import Dataset
from utils.errors import UserError

STREAM = 1


class TrainLoader:
    """Batches of one epoch after the other.

    A batch is int64 [3, B]: users, positives, negatives; the last one of an epoch is shorter. One negative per positive,
    uniform over the items of the training split that the user has no training interaction with: the exact
    complement is indexed, nothing is drawn twice. Users who own every training item have no negative and are not sampled.

    The stream lives on the CPU whatever the device, so that a seed means the same batches everywhere.

    Args:
        dataset: its training split is used.
        batch_size: B.
        seed: of the stream.
        device: where batches are wanted.
        negatives: False leaves them out: batches [2, B] over all interactions.
        by_user: a batch is of B distinct users, each as likely as the others, with one of its items each; an epoch is of as
            many whole batches as interactions would fill, and one more. Fewer users than B are drawn with repetition.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        seed: int,
        device: torch.device,
        negatives: bool = True,
        by_user: bool = False,
    ) -> None:
        self.batch_size, self.device, self.has_negatives, self.by_user = batch_size, device, negatives, by_user
        # A stream apart from the one that initialises the model, which is seeded with the bare seed.
        (own_seed,) = np.random.SeedSequence([seed, STREAM]).generate_state(1, np.uint64)
        self.generator = torch.Generator().manual_seed(int(own_seed) >> 1)
        users, items = dataset.train.users, dataset.train.items
        pool = np.unique(items)
        degree = np.bincount(users, minlength=dataset.n_users)
        sampled = (degree[users] < len(pool)) | (not negatives)
        if not sampled.any():
            raise UserError("every user has interacted with every training item: there is nothing to rank them against")
        self.n_saturated_users = int((degree == len(pool)).sum())
        # Rank r of a user's complement is pool[r + k], k the number of own items with (place in pool - order) <= r.
        # Sorted within users, the keys user * P + place - order are sorted as a whole: one search serves a batch.
        place = np.searchsorted(pool, items)
        start = np.concatenate([[0], np.cumsum(degree)[:-1]])
        order = np.arange(len(items)) - start[users]
        self._keys = torch.from_numpy(users * len(pool) + place - order)
        self._start = torch.from_numpy(start)
        self._free = torch.from_numpy(len(pool) - degree)
        self._pool = torch.from_numpy(pool)
        self._positives = torch.from_numpy(np.stack([users[sampled], items[sampled]]))
        self._items, self._degree = torch.from_numpy(items), torch.from_numpy(degree)
        self._users = torch.from_numpy(np.unique(users[sampled]))

    def __len__(self) -> int:
        if self.by_user:
            return self.n_interactions // self.batch_size + 1
        return -(-self._positives.shape[1] // self.batch_size)

    @property
    def n_interactions(self) -> int:
        """Positives of an epoch."""
        return self._positives.shape[1]

    def negatives(self, users: Tensor) -> Tensor:
        """Draws one item per user [B], uniform over the training items that the user does not own."""
        draw = torch.rand(len(users), generator=self.generator, dtype=torch.float64)
        free = self._free[users]
        rank = torch.minimum((draw * free).long(), free - 1)
        skipped = torch.searchsorted(self._keys, users * len(self._pool) + rank, right=True) - self._start[users]
        return self._pool[rank + skipped]

    def epoch(self) -> Iterator[Tensor]:
        """Yields the batches of a fresh epoch: a new permutation, new negatives."""
        if self.by_user:
            yield from (self._batch_of_users().to(self.device) for _ in range(len(self)))
            return
        shuffled = self._positives[:, torch.randperm(self.n_interactions, generator=self.generator)]
        if self.has_negatives:
            shuffled = torch.cat([shuffled, self.negatives(shuffled[0])[None]])
        rows = shuffled.to(self.device)
        for begin in range(0, rows.shape[1], self.batch_size):
            yield rows[:, begin : begin + self.batch_size]

    def _batch_of_users(self) -> Tensor:
        n_users, size = len(self._users), self.batch_size
        if n_users >= size:
            users = self._users[torch.randperm(n_users, generator=self.generator)[:size]]
        else:
            users = self._users[torch.randint(n_users, (size,), generator=self.generator)]
        draw = torch.rand(size, generator=self.generator, dtype=torch.float64)
        place = torch.minimum((draw * self._degree[users]).long(), self._degree[users] - 1)
        rows = [users, self._items[self._start[users] + place]]
        return torch.stack([*rows, self.negatives(users)] if self.has_negatives else rows)
