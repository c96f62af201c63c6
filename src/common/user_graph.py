"""The graph of users who share training items, as DualGNN and DRAGON smooth their users over it.

C_uv is the number of items that u and v both have in the training split. User u has k slots: the k users with the largest
C_uv; where there are only n < k, each further slot copies one chosen uniformly among those before it, copies included
(a Polya urn). The weights are the softmax over the counts of the slots, so that

    S_uv = m_uv e^{C_uv} / sum_w m_uw e^{C_uw}    with m_uv the number of slots that hold v.

S is drawn again for each epoch and holds until the next; a user without co-users has an empty row.

Source: Wang et al., "DualGNN", IEEE Transactions on Multimedia 2023; Zhou et al., DRAGON (arXiv 2301.12097).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.neighbours import largest_co_occurrences
from common.sparse import SparseMatrix

if TYPE_CHECKING:
    from utils.data.dataset import Dataset

PADDINGS = ("resample", "none")


def co_occurrence_lists(dataset: Dataset, k: int) -> sp.csr_matrix:
    """For each user the k users with most training items in common and how many: float64 [U, U], columns ascending.

    Exact and sparse, ties to the smaller id, through the data set's cache. Where the data set comes with a user graph of
    the user's own, its first k entries of each row are taken instead, in the order that they are listed in.
    """

    def build() -> dict[str, NDArray[np.generic]]:
        lists = largest_co_occurrences(dataset.inter_matrix("csr"), k)
        return {"indptr": lists.indptr, "indices": lists.indices, "counts": lists.data.astype(np.int32)}

    if dataset.user_graph is None:
        arrays = dataset.derived("user-co-occurrences", 1, {"train": dataset.fingerprint["train"], "k": k}, build)
    else:
        given = dataset.user_graph
        arrays = {"indptr": given.indptr, "indices": given.indices, "counts": given.data}
    lengths = np.diff(arrays["indptr"])
    first = np.arange(len(arrays["indices"])) - np.repeat(arrays["indptr"][:-1], lengths) < k
    indptr = np.concatenate([[0], np.cumsum(np.minimum(lengths, k))])
    shape = (dataset.n_users, dataset.n_users)
    lists = sp.csr_matrix((arrays["counts"][first].astype(np.float64), arrays["indices"][first], indptr), shape=shape)
    lists.sort_indices()
    return lists


class UserGraph(nn.Module):
    """The row-stochastic matrix S [U, U], drawn from a seed that is part of the state dict.

    So a resumed run, and the best epoch's checkpoint, have the S that they had.

    Args:
        k: slots of a user.
        padding: `resample` as published, or `none`: every listed user has one slot, nothing is random.
    """

    seed: Tensor  # int64 scalar
    counts: Tensor  # [U, k] int32: of the listed users by ascending id, then zeros
    back_order: Tensor  # [E] int64: the entries of S sorted by column

    def __init__(self, dataset: Dataset, k: int, padding: str = "resample") -> None:
        super().__init__()
        lists = co_occurrence_lists(dataset, k)
        self.padding = padding
        self.matrix = SparseMatrix(lists)
        counts = np.zeros((dataset.n_users, k), dtype=np.int32)
        counts[np.arange(k) < np.diff(lists.indptr)[:, None]] = lists.data
        self.register_buffer("counts", torch.from_numpy(counts), persistent=False)
        self.register_buffer("back_order", self.matrix.columns.argsort(stable=True), persistent=False)
        self.register_buffer("seed", torch.zeros((), dtype=torch.int64))
        self.register_load_state_dict_post_hook(_rebuild)
        self.draw()

    def forward(self, x: Tensor) -> Tensor:
        """S x for x [U, D], differentiable in x."""
        product: Tensor = self.matrix(x)
        return product

    @torch.no_grad()
    def draw(self) -> None:
        """Another S, from PyTorch's default CPU stream."""
        if self.padding == "resample":
            self.seed.copy_(torch.randint(2**63 - 1, ()))
        self.rebuild()

    @torch.no_grad()
    def rebuild(self) -> None:
        """S from the seed."""
        listed = self.counts > 0
        logits = torch.where(listed, self.counts.double() + self.multiplicities().double().log(), -torch.inf)
        weights = torch.softmax(logits, dim=1)[listed]  # [E]
        self.matrix.weights.copy_(weights)
        self.matrix.back_weights.copy_(weights[self.back_order])

    def multiplicities(self) -> Tensor:
        """How many slots each listed user has: int64 [U, k].

        Which of n equally likely slots is which makes no difference, so they are taken by ascending id.
        """
        n_users, k = self.counts.shape
        slots = torch.arange(k, device=self.counts.device).repeat(
            n_users, 1
        )  # [U, k], who is in it: a place in the list
        if self.padding == "none":
            return torch.ones_like(slots)
        generator = torch.Generator().manual_seed(int(self.seed))
        uniform = torch.rand(k, n_users, generator=generator, dtype=torch.float64).to(slots.device)
        lengths = (self.counts > 0).sum(dim=1)
        for place in range(1, k):
            earlier = (uniform[place] * place).long()
            copied = slots.gather(1, earlier[:, None]).squeeze(1)
            slots[:, place] = torch.where(place < lengths, place, copied)
        return torch.zeros_like(slots).scatter_add_(1, slots, torch.ones_like(slots))


def _rebuild(graph: Any, _: Any) -> None:
    graph.rebuild()
