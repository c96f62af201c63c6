"""Training batches: shuffled positives with sampled negatives, vectorised, from a random stream of their own."""

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

    A batch is int64 [3, B]: users, positives, negatives; the last one of an epoch is shorter. Each positive stands in it
    as often as it has negatives, which are drawn independently from the items of the training split that the user has no
    training interaction with: the exact complement is indexed, no draw is repeated. Users who own every training item have
    no negative and are not sampled.

    The stream lives on the CPU whatever the device, so that a seed means the same batches everywhere.

    Args:
        dataset: its training split is used.
        batch_size: B, the rows of a batch, less what is not a whole number of positives with all their negatives.
        seed: of the stream.
        device: where batches are wanted.
        negatives: False leaves them out: batches [2, B] over all interactions.
        by_user: a batch is of B distinct users, each as likely as the others, with one of its items each; an epoch is of as
            many whole batches as interactions would fill, and one more. Fewer users than B are drawn with repetition.
        per_positive: negatives of each positive.
        sampling: uniform, or popularity: an item is as likely as it has training interactions.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        seed: int,
        device: torch.device,
        negatives: bool = True,
        by_user: bool = False,
        per_positive: int = 1,
        sampling: str = "uniform",
    ) -> None:
        self.device, self.has_negatives, self.by_user = device, negatives, by_user
        self.per_positive = per_positive if negatives else 1
        self.positives_per_batch = max(batch_size // self.per_positive, 1)
        # A stream apart from the one that initialises the model, which is seeded with the bare seed.
        (own_seed,) = np.random.SeedSequence([seed, STREAM]).generate_state(1, np.uint64)
        self.generator = torch.Generator().manual_seed(int(own_seed) >> 1)
        users, items = dataset.train.users, dataset.train.items
        pool, place, count = np.unique(items, return_inverse=True, return_counts=True)
        degree = np.bincount(users, minlength=dataset.n_users)
        sampled = (degree[users] < len(pool)) | (not negatives)
        if not sampled.any():
            raise UserError("every user has interacted with every training item: there is nothing to rank them against")
        self.n_saturated_users = int((degree == len(pool)).sum())
        # An item is one ticket, or one per interaction. Ticket r of a user's complement is ticket r + s of all, s the own
        # tickets before it: those of the own items whose first ticket less the own ones before it is at most r.
        # Sorted within users, the keys user * T + that number are sorted as a whole: one search serves a batch.
        tickets = count if sampling == "popularity" else np.ones(len(pool), dtype=np.int64)
        start = np.concatenate([[0], np.cumsum(degree)[:-1]])
        own = np.concatenate([[0], np.cumsum(tickets[place])])  # tickets of all interactions before
        first = np.cumsum(tickets) - tickets
        self._tickets = torch.from_numpy(np.repeat(pool, tickets))  # [T], the item of each
        self._keys = torch.from_numpy(users * len(self._tickets) + first[place] - (own[:-1] - own[start[users]]))
        self._own, self._start = torch.from_numpy(own), torch.from_numpy(start)
        self._free = torch.from_numpy(len(self._tickets) - (own[start + degree] - own[start]))
        self._positives = torch.from_numpy(np.stack([users[sampled], items[sampled]]))
        self._items, self._degree = torch.from_numpy(items), torch.from_numpy(degree)
        self._users = torch.from_numpy(np.unique(users[sampled]))

    def __len__(self) -> int:
        if self.by_user:
            return self.n_interactions // self.positives_per_batch + 1
        return -(-self._positives.shape[1] // self.positives_per_batch)

    @property
    def n_interactions(self) -> int:
        """Positives of an epoch."""
        return self._positives.shape[1]

    def negatives(self, users: Tensor) -> Tensor:
        """Draws one item per user [B] from the training items that the user does not own."""
        draw = torch.rand(len(users), generator=self.generator, dtype=torch.float64)
        free = self._free[users]
        rank = torch.minimum((draw * free).long(), free - 1)
        before = torch.searchsorted(self._keys, users * len(self._tickets) + rank, right=True)
        return self._tickets[rank + self._own[before] - self._own[self._start[users]]]

    def epoch(self) -> Iterator[Tensor]:
        """Yields the batches of a fresh epoch: a new permutation, new negatives."""
        if self.by_user:
            yield from (self._batch_of_users().to(self.device) for _ in range(len(self)))
            return
        shuffled = self._positives[:, torch.randperm(self.n_interactions, generator=self.generator)]
        rows = self._with_negatives(shuffled).to(self.device)
        step = self.positives_per_batch * self.per_positive
        for begin in range(0, rows.shape[1], step):
            yield rows[:, begin : begin + step]

    def _with_negatives(self, positives: Tensor) -> Tensor:
        """Users and positives [2, P], each as often as it has negatives, with these: [3, B]."""
        if not self.has_negatives:
            return positives
        rows = positives.repeat_interleave(self.per_positive, dim=1) if self.per_positive > 1 else positives
        return torch.cat([rows, self.negatives(rows[0])[None]])

    def _batch_of_users(self) -> Tensor:
        n_users, size = len(self._users), self.positives_per_batch
        if n_users >= size:
            users = self._users[torch.randperm(n_users, generator=self.generator)[:size]]
        else:
            users = self._users[torch.randint(n_users, (size,), generator=self.generator)]
        draw = torch.rand(size, generator=self.generator, dtype=torch.float64)
        place = torch.minimum((draw * self._degree[users]).long(), self._degree[users] - 1)
        return self._with_negatives(torch.stack([users, self._items[self._start[users] + place]]))
