"""User-item graphs that a model makes in training; their edges are part of the state dict, so a checkpoint has its graph."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from common.sparse import EdgePattern

TINY = 1e-8  # added to degrees where a node may have none


class GeneratedGraph(nn.Module):
    """D^-1/2 (adjacency + I) D^-1/2 [N, N] of k items for each user, of whose entries some are dropped.

    Items and what is kept are part of the state dict. As long as nothing is generated there are only the loops.
    """

    item_ids: Tensor  # int64 [U, k], -1: none
    kept_to_users: Tensor  # bool [U, k]: what a user receives from its items
    kept_to_items: Tensor  # bool [U, k]
    kept_loops: Tensor  # bool [N]
    values: Tensor  # float32 [E], of the entries of `pattern`

    def __init__(self, n_users: int, n_items: int, k: int, keep_rate: float) -> None:
        super().__init__()
        self.n_users, self.n_items, self.keep_rate = n_users, n_items, keep_rate
        self.register_buffer("item_ids", torch.full((n_users, k), -1))
        self.register_buffer("kept_to_users", torch.ones(n_users, k, dtype=torch.bool))
        self.register_buffer("kept_to_items", torch.ones(n_users, k, dtype=torch.bool))
        self.register_buffer("kept_loops", torch.ones(n_users + n_items, dtype=torch.bool))
        self.register_load_state_dict_post_hook(lambda graph, _: graph.rebuild())
        self.rebuild()

    @torch.no_grad()
    def draw(self) -> None:
        """Draws again what is kept, from PyTorch's default CPU stream."""
        for kept in (self.kept_to_users, self.kept_to_items, self.kept_loops):
            kept.copy_(torch.rand(kept.shape) < self.keep_rate)
        self.rebuild()

    @torch.no_grad()
    def rebuild(self) -> None:
        """The matrix, from what is in the state dict."""
        n = self.n_users + self.n_items
        loops = torch.arange(n, device=self.item_ids.device)
        known = self.item_ids >= 0
        users, items = loops[: self.n_users, None].expand_as(known)[known], self.item_ids[known] + self.n_users
        scale = torch.bincount(torch.cat([users, items, loops]), minlength=n).float().rsqrt()
        kept = torch.cat([self.kept_to_users[known], self.kept_to_items[known], self.kept_loops])
        rows, columns = torch.cat([users, items, loops])[kept], torch.cat([items, users, loops])[kept]
        self.pattern = EdgePattern(rows, columns, (n, n))
        self.register_buffer("values", scale[rows] * scale[columns] / self.keep_rate, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The product with x [N, D], differentiable in x."""
        product: Tensor = self.pattern(self.values, x)
        return product


class PairGraph(nn.Module):
    """D^-1/2 C [U, I] and D^-1/2 C^T [I, U], D the row sums, of pairs that may repeat; the interactions at first.

    The pairs are part of the state dict.

    Args:
        interactions: [U, I].
        capacity: most pairs there can be.
    """

    user_ids: Tensor  # int64 [capacity], -1: none
    item_ids: Tensor  # int64 [capacity]
    initial: Tensor  # bool scalar: still the training interactions
    values: Tensor  # float32 [E], of `of_users`
    back_values: Tensor  # float32 [E], of `of_items`

    def __init__(self, interactions: sp.csr_matrix, capacity: int) -> None:
        super().__init__()
        self.shape, found = interactions.shape, interactions.tocoo()
        for name, ids in (("first_users", found.row), ("first_items", found.col)):
            self.register_buffer(name, torch.from_numpy(ids.astype(np.int64)), persistent=False)
        for name in ("user_ids", "item_ids"):
            self.register_buffer(name, torch.full((capacity,), -1))
        self.register_buffer("initial", torch.ones((), dtype=torch.bool))
        self.register_load_state_dict_post_hook(lambda graph, _: graph.rebuild())
        self.rebuild()

    @torch.no_grad()
    def replace(self, users: Tensor, items: Tensor) -> None:
        """The graph of the pairs int64 [E] from here on."""
        for own, ids in ((self.user_ids, users), (self.item_ids, items)):
            own.fill_(-1)
            own[: len(ids)] = ids
        self.initial.fill_(False)
        self.rebuild()

    @torch.no_grad()
    def rebuild(self) -> None:
        """The matrices, from what is in the state dict."""
        known = self.item_ids >= 0
        users, items = self.user_ids[known], self.item_ids[known]
        if self.initial:
            users, items = self.get_buffer("first_users"), self.get_buffer("first_items")
        self.of_users = EdgePattern(users, items, self.shape)
        self.of_items = EdgePattern(items, users, self.shape[::-1])
        for name, ids, size in (("values", users, self.shape[0]), ("back_values", items, self.shape[1])):
            scale = (torch.bincount(ids, minlength=size) + TINY).rsqrt().float()
            self.register_buffer(name, scale[ids], persistent=False)

    def forward(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """The products with items [I, D] and with users [U, D], differentiable: [U, D] and [I, D]."""
        return self.of_users(self.values, items), self.of_items(self.back_values, users)


class Collection:
    """The best items of users, batch by batch, until a graph is made of them."""

    def __init__(self, graph: PairGraph, k: int, latest: bool) -> None:
        self.graph, self.k, self.latest = graph, k, latest
        self.batches: list[tuple[Tensor, Tensor]] = []

    def add(self, users: Tensor, scores: Tensor) -> None:
        """The k best items of users [B] by scores [B, I]."""
        self.batches.append((users, scores.topk(self.k, dim=1).indices))

    def build(self) -> None:
        """The graph of what is collected: of that alone, or, `latest`, in place of what its users had."""
        graph, batches = self.graph, self.batches
        self.batches = []
        if self.latest:
            table = graph.item_ids.view(-1, self.k).clone()
            for users, items in batches:
                table[users] = items
            owners = torch.arange(len(table), device=table.device).repeat_interleave(self.k)
            graph.replace(owners, table.flatten())
        else:
            none = graph.item_ids.new_zeros(0)
            # The released code lists a batch's users k times over, while the items of a user stand side by side.
            owners = torch.cat([none, *(users.repeat(self.k) for users, _ in batches)])
            graph.replace(owners, torch.cat([none, *(items.flatten() for _, items in batches)]))
