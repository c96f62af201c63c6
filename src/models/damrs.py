"""DAMRS: BPR weighted by how far content agrees, over item graphs that keep what is similar in every modality.

Views m: each modality and the behaviour s. Item graphs: a pair counts in a content graph if its cosine is at least
the mean over all pairs in EVERY modality; of these the `knn_k` largest of a row are kept, in each modality's own
order, with weight 1, normalised by row sums. s joins the `behaviour_knn_k` items with the most users in common (two at
least) and the item itself. G = LightGCN's mean of layers 0..L over [E_U ; E_I], h_m = A_m^n E_I, H = mean_m h_m. Users
are G_u, items G_i + H_i.

Loss, with a_m = sigmoid(<G_u, unit(h_m,i)>), c_m the same of the negative, n = mean of all c over views and batch:
- weighted BPR: mean of -[w+ log sigmoid(x) + w- log sigmoid(-x)], x = s_ui - s_uj, w+ = clip(mean(a) exp(-var(a))^2, 0, 1),
  w- = clip(max(a) - n, 0, 1) where mean(a) < n, else 0; no gradient flows through the weights;
- `neighbor_weight` times the graded item relations of `graded_relations`;
- `kl_weight` times the mean over the batch's distinct users and items of (p - q)(x - y), the symmetric divergence of
  p = sigmoid(x), x = <G_u, unit(G_i)>, and q = sigmoid(y), y = <G_u, unit(H_i)>.

Source: "Improving Multi-modal Recommender Systems by Denoising and Aligning Multi-modal Content and User Feedback",
KDD 2024 (arXiv 2406.12501); its LightGCN form.

Differs from the released code: the behaviour graph is computed, not read from a file; any number of modalities;
thresholds in closed form and all matrices in blocks; log-sigmoid and divergence in forms that cannot overflow; no
layers without use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender
from common.behaviour_graph import behaviour_item_graph
from common.blocks import sum_over_blocks
from common.initial import xavier_uniform_embedding
from common.neighbours import BLOCK_ENTRIES, normalize_by_row_sums
from common.precision import single_precision
from common.scoring import batch_rows
from common.sparse import SparseMatrix
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset
from utils.evaluation.topk import ranked_topk

BEHAVIOUR = "behaviour"
RELATED = 10  # items of each grade
TEMPERATURE = 1 / 5
TINY = 1e-9  # keeps the logarithms of the relations finite
GROUP = 32  # columns that are searched together
ENTRIES = 2**20  # of a block of a loss: small enough for a processor's caches


@dataclass(frozen=True)
class DAMRSConfig:
    """Keys of DAMRS; values in configs/model/DAMRS.yaml."""

    embedding_size: int = setting("width D of the embeddings", low=1)
    n_ui_layers: int = setting("depth L of the user-item propagation", low=0)
    n_mm_layers: int = setting("depth n of the item-item propagation", low=0)
    knn_k: int = setting("neighbours of an item in a content graph at most, itself among them", low=1)
    behaviour_knn_k: int = setting("neighbours of an item in the behaviour graph at most, beside itself", low=1)
    kl_weight: float = setting("weight of the alignment of user preferences", low=0)
    neighbor_weight: float = setting("weight of the graded item relations", low=0)


class DAMRS(GeneralRecommender):
    """LightGCN with denoised item graphs, denoised feedback and two alignments."""

    settings = DAMRSConfig
    needs_features = True

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: DAMRSConfig = fill(DAMRSConfig, config)
        self.user_embedding = xavier_uniform_embedding(self.n_users, self.embedding_size)
        self.item_embedding = xavier_uniform_embedding(self.n_items, self.embedding_size)
        self.graph = self.interaction_graph(dataset)
        graphs = consistent_item_graphs(dataset, self.modalities, self.options.knn_k)
        graphs[BEHAVIOUR] = behaviour_item_graph(dataset, self.options.behaviour_knn_k)
        self.item_graphs = nn.ModuleDict({view: SparseMatrix(graph) for view, graph in graphs.items()})
        for modality in self.modalities:  # the graphs hold all that is used of them
            delattr(self, f"features_{modality}")

    def encode(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        """G_u [U, D], G_i [I, D] and h_m [I, D] of each view."""
        ego = torch.cat([self.user_embedding, self.item_embedding])  # [N, D]
        users, items = self.graph.propagate_mean(ego, self.options.n_ui_layers).split([self.n_users, self.n_items])
        views = []
        for graph in self.item_graphs.values():
            related: Tensor = self.item_embedding
            for _ in range(self.options.n_mm_layers):
                related = graph(related)
            views.append(related)
        return users, items, views

    def forward(self) -> tuple[Tensor, Tensor]:
        users, items, views = self.encode()
        return users, items + torch.stack(views).mean(0)

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        all_users, all_items, views = self.encode()
        content = torch.stack(views).mean(0)
        users, pos, neg = batch_rows(batch, all_users, all_items + content)
        with torch.no_grad():
            units = [F.normalize(view, dim=1) for view in views]
            liked, disliked = (
                torch.sigmoid(torch.stack([(users * F.embedding(ids, unit)).sum(1) for unit in units]))  # [M + 1, B]
                for ids in batch[1:]
            )
            positive, negative = feedback_weights(liked, disliked)
        gap = (users * pos).sum(1) - (users * neg).sum(1)
        terms = {"bpr": -(positive * F.logsigmoid(gap) + negative * F.logsigmoid(-gap)).mean()}
        some_items = batch[1:].unique()
        if self.options.neighbor_weight:
            terms["relations"] = self.options.neighbor_weight * graded_relations(views, some_items)
        if self.options.kl_weight:
            some_users = F.embedding(batch[0].unique(), all_users)
            pairs = [F.normalize(F.embedding(some_items, table), dim=1) for table in (all_items, content)]
            size = max(1, ENTRIES // len(some_items))
            total = sum_over_blocks(symmetric_divergence, size, [some_users], pairs)
            terms["preferences"] = self.options.kl_weight * total / (len(some_users) * len(some_items))
        return terms

    def modality_embeddings(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Users G_u, beside G_i for ids and h_m for modalities."""
        users, items, views = self.encode()
        named = zip(["id", *self.modalities], [items, *views], strict=False)  # behaviour is no modality's
        return {name: (users, rows) for name, rows in named}


def feedback_weights(liked: Tensor, disliked: Tensor) -> tuple[Tensor, Tensor]:
    """w+ and w- [B] from a_m and c_m [M + 1, B]."""
    mean, noise = liked.mean(0), disliked.mean()
    positive = (mean * torch.exp(-liked.var(0)).square()).clamp(0, 1)
    negative = (liked.amax(0) - noise).clamp(0, 1) * (mean < noise)
    return positive, negative


def symmetric_divergence(users: Sequence[Tensor], pairs: Sequence[Tensor]) -> Tensor:
    """SUM over users [b, D] and items of (p - q)(x - y), with x and y their products with both of the pairs, each [n, D]."""
    first, second = (users[0] @ rows.T for rows in pairs)
    return ((torch.sigmoid(first) - torch.sigmoid(second)) * (first - second)).sum()


@single_precision
def graded_relations(views: list[Tensor], items: Tensor) -> Tensor:
    """Mean over views m and items i of -log(A/T + 1e-9) - log(B/(T - A) + 1e-9).

    With cosines S_m of i to all items, e = exp(S_m / 0.2): T sums e over all items, A over the ten items that all views
    together are closest to, by the sum over views of softmax(S), m's own counted twice, and B over the ten others that m
    itself is closest to. Gradients flow through S on both sides, not through the choice of items.

    Args:
        views: h_m, each [I, D].
        items: distinct, int64 [n].
    """
    units = [F.normalize(view, dim=1) for view in views]
    total: Tensor = _GradedRelations.apply(items, *units)
    return total / (len(views) * len(items))


class _GradedRelations(torch.autograd.Function):
    """The gradient is made on the way forward, from the one exponential of each cosine that the value is made of."""

    @staticmethod
    def forward(ctx: Any, items: Tensor, *units: Tensor) -> Tensor:
        total, n_items = units[0].new_zeros(()), len(units[0])
        count = min(RELATED, n_items // 2)
        columns = [torch.zeros_like(unit.T, memory_format=torch.contiguous_format) for unit in units]
        of_rows = [torch.empty_like(unit[: len(items)]) for unit in units]
        size = max(1, ENTRIES // n_items)
        for begin in range(0, len(items), size):
            block = slice(begin, begin + size)
            rows = [F.embedding(items[block], unit) for unit in units]
            powers = [torch.mm(own, unit.T).exp_() for own, unit in zip(rows, units, strict=True)]  # e^cosine, [b, I]
            inverse = [1 / power.sum(dim=1, keepdim=True) for power in powers]
            together = powers[0] * inverse[0]
            for power, one in zip(powers[1:], inverse[1:], strict=True):
                together.addcmul_(power, one)
            for m, (power, one) in enumerate(zip(powers, inverse, strict=True)):
                closest = largest(torch.addcmul(together, power, one), count)  # [b, 10]
                strength = power.square().square_().mul_(power)  # e^(cosine / TEMPERATURE)
                everything, near = strength.sum(dim=1), strength.gather(1, closest)
                others = largest(strength.scatter_(1, closest, 0), count)
                next_to = strength.gather(1, others)
                first, second, rest = near.sum(dim=1), next_to.sum(dim=1), everything - near.sum(dim=1)
                one, two = first / everything + TINY, second / rest + TINY
                total -= (one.log() + two.log()).sum()
                by_rest = second / (rest.square() * two)
                by_all = first / (everything.square() * one) + by_rest  # the derivative by everything, above 0
                by_first, by_second = -1 / (everything * one) - by_rest, -1 / (rest * two)
                # The derivative by a cosine is strength / TEMPERATURE times by_all, and more where it is in a grade.
                strength.scatter_(1, closest, near * (1 + by_first / by_all)[:, None])
                strength.scatter_(1, others, next_to * (1 + by_second / by_all)[:, None])
                scale = (by_all / TEMPERATURE)[:, None]
                torch.mm(strength, units[m], out=of_rows[m][block]).mul_(scale)
                columns[m].addmm_((rows[m] * scale).T, strength)
        gradients = [part.T.index_add(0, items, own) for part, own in zip(columns, of_rows, strict=True)]
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # under create_graph: what was saved is a constant to it
            raise RuntimeError("graded_relations has no second derivative")
        return None, *(saved * gradient for saved in ctx.saved_tensors)


def largest(values: Tensor, count: int) -> Tensor:
    """Columns of the `count` largest of each row of values [b, I], int64 [b, count].

    They are in those `count` groups of columns whose largest values are the largest; only these groups are searched.
    """
    n_groups = values.shape[1] // GROUP
    if n_groups < 2 * count:
        return values.topk(count, dim=1).indices
    grouped = values[:, : n_groups * GROUP].unflatten(1, (GROUP, n_groups))  # a group is of columns far apart
    groups = grouped.amax(dim=1).topk(count, dim=1, sorted=False).indices
    step = n_groups * torch.arange(GROUP, device=values.device)
    tail = torch.arange(n_groups * GROUP, values.shape[1], device=values.device)
    columns = torch.cat([(groups[:, :, None] + step).flatten(1), tail.expand(len(values), -1)], dim=1)
    best = values.gather(1, columns).topk(count, dim=1).indices
    return columns.gather(1, best)


def consistent_item_graphs(dataset: Dataset, modalities: Sequence[str], k: int) -> dict[str, sp.csr_matrix]:
    """Content graphs [I, I] of pairs whose cosine is at least the mean of all pairs in every modality.

    Row i holds the k most similar of these items in the modality, or all where there are fewer; ties to the item itself,
    then to the smaller id. An item without features in some modality keeps itself alone.
    """

    def build() -> dict[str, NDArray[np.generic]]:
        columns = consistent_neighbours([torch.from_numpy(dataset.features[m]) for m in modalities], k)
        return {f"columns_{m}": found.numpy().astype(np.int32) for m, found in zip(modalities, columns, strict=True)}

    inputs = {"features": [dataset.fingerprint[m] for m in modalities], "modalities": [*modalities], "k": k}
    arrays = dataset.derived("consistent-neighbours", 1, inputs, build)
    graphs, n = {}, dataset.n_items
    for modality in modalities:
        columns = arrays[f"columns_{modality}"]
        kept = columns >= 0
        indptr = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
        graph = sp.csr_matrix((np.ones(indptr[-1]), columns[kept], indptr), shape=(n, n))
        graphs[modality] = normalize_by_row_sums(graph)
    return graphs


@torch.no_grad()
def consistent_neighbours(features: Sequence[Tensor], k: int) -> list[Tensor]:
    """Columns int64 [I, k] of the pairs above, from features [I, F] of each modality; -1 where there are fewer than k."""
    units = [F.normalize(matrix, dim=1) for matrix in features]
    # The mean of all cosines is the squared length of the mean unit row.
    thresholds = [float(unit.double().mean(0).square().sum()) for unit in units]
    n = len(units[0])
    k = min(k, n)
    found: list[list[Tensor]] = [[] for _ in units]
    for begin in range(0, n, max(1, BLOCK_ENTRIES // n)):
        blocks = [unit[begin : begin + max(1, BLOCK_ENTRIES // n)] @ unit.T for unit in units]  # [b, I] each
        kept = torch.stack([block >= least for block, least in zip(blocks, thresholds, strict=True)]).all(0)
        here = torch.arange(len(kept))
        for columns, block in zip(found, blocks, strict=True):
            block.masked_fill_(~kept, -torch.inf)
            block[here, here + begin] = torch.inf
            best, ids = ranked_topk(block, k)
            columns.append(ids.masked_fill(best == -torch.inf, -1))
    return [torch.cat(columns) for columns in found]
