"""Rows of some nodes, users first, taken from the tables of users and of items without joining these."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def node_rows(users: Tensor, items: Tensor, nodes: Tensor | None = None) -> Tensor:
    """Rows [n, W] of nodes in users [U, W] and items [I, W].

    Args:
        users: [U, W].
        items: [I, W].
        nodes: int64 [n], ascending, items counted from U; None: all.
    """
    if nodes is None:
        return torch.cat([users, items])
    first = int((nodes < len(users)).sum())
    return torch.cat([F.embedding(nodes[:first], users), F.embedding(nodes[first:] - len(users), items)])
