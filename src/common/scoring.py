"""From embedding tables to the rows of a batch and the scores of all items."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Scores are computed for this many users at a time, short blocks padded: one shape of matrix product,
# so that the score of a user does not depend on who else is in the batch, to the last bit.
SCORE_ROWS = {"cpu": 128, "cuda": 2048}


def batch_rows(batch: Tensor, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows [B, D] of users [U, D], and of items [I, D] for positives and negatives, of a batch [3, B]."""
    return F.embedding(batch[0], users), F.embedding(batch[1], items), F.embedding(batch[2], items)


@torch.no_grad()
def score_all_items(users: Tensor, items: Tensor) -> Tensor:
    """users [B, D] times items [I, D] transposed, in blocks of one fixed shape, without a gradient: [B, I]."""
    scores = users.new_empty(len(users), len(items))
    rows = SCORE_ROWS.get(users.device.type, 2048)
    for begin in range(0, len(users), rows):
        block = users[begin : begin + rows]
        if len(block) < rows:
            padded = users.new_zeros(rows, users.shape[1])
            padded[: len(block)] = block
            scores[begin:] = (padded @ items.T)[: len(block)]
        else:
            torch.mm(block, items.T, out=scores[begin : begin + rows])
    return scores
