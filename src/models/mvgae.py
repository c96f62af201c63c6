"""MVGAE: a variational graph auto-encoder for each modality and for ids, joined by a product of experts.

Branch k, a modality or the collaborative one: X = rownorm([P ; F W + b]), P random preferences of the users and F the
features, or a random table. With M the mean over a node's neighbours and itself, conv(X) = dropout(rownorm(M X W +
b)) and LReLU of slope 0.01, each hidden layer is X <- LReLU(lin(LReLU(conv(X)))), and
    mu = lin_1(LReLU(conv_1(X))) + LReLU(X W_1),   log s^2 = lin_2(LReLU(conv_2(X))) + LReLU(X W_2).
Experts are joined two at a time, modalities first, ids last: T = 1 / (exp(log s^2) + 1e-8), mu = sum T mu / sum T,
log s^2 = -log sum T. Samples z = mu + 0.1 e exp(min(log s^2, 10) / 2), rows y = sigmoid(z), in evaluation of mu;
scores are dot products of y. Loss, summed over the joint posterior and each branch's: SUM over the batch of -log2
sigmoid(y_u y_i - y_u y_j), plus `kl_weight` times the mean over all nodes of the divergence from N(0, 1), -1/2 sum_d
(1 + log s^2 - mu^2 - s^2).

Source: Yi and Chen, "Multi-Modal Variational Graph Auto-Encoder for Recommendation Systems", IEEE Trans. on
Multimedia 2022.

Differs from the released code: follows the authors' formula, not MMRec's port, whose loss reads users' rows for items
and passes scores through a second sigmoid, so that only the divergence is learned; noise is drawn for the batch's
nodes alone; evaluation recomputes the posterior without dropout; any number of modalities. P and the id table are
random constants, as there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender
from common.graph import bipartite_adjacency
from common.initial import xavier_normal_embedding, xavier_normal_linear
from common.losses import log_sigmoid_bpr_loss
from common.precision import single_precision
from common.sparse import SparseMatrix
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset

COLLABORATIVE = "id"
NOISE = 0.1  # of a sample, in standard deviations
LARGEST_LOG_VARIANCE = 10.0
SLOPE = 0.01  # of LReLU

Gaussian = tuple[Tensor, Tensor]  # mu and log s^2, [N, D] each


@dataclass(frozen=True)
class MVGAEConfig:
    """Keys of MVGAE; values in configs/model/MVGAE.yaml."""

    embedding_size: int = setting("width D of every layer's output and of the id table", low=1)
    preference_width: int = setting("width of the users' preferences and of the projected features", low=1)
    n_ui_layers: int = setting("hidden graph layers of a branch, before its two heads", low=1, alias=("n_layers",))
    layer_dropout: float = setting("dropped share of the entries of a graph layer's output", low=0, high=0.99)
    kl_weight: float = setting("weight of the divergences", low=0, alias=("beta",))
    negatives: str = setting(
        "what a positive is compared with: its own negative, or the batch's highest-scored", choices=("own", "batch")
    )
    train_tables: bool = setting("train the preferences and the id table, which are random constants otherwise")
    train_features: bool = setting("train the raw features too: 16 bytes for each number")


class Head(nn.Module):
    """One of a branch's two outputs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = xavier_normal_linear(width, width, zero_bias=False)
        self.link = xavier_normal_linear(width, width, zero_bias=False)
        self.own = xavier_normal_linear(width, width, zero_bias=False)

    def forward(self, gathered: Tensor, x: Tensor) -> Tensor:
        """[N, D] from the graph layer's output, after LReLU, and X."""
        out: Tensor = self.link(gathered) + F.leaky_relu(self.own(x))
        return out


class Branch(nn.Module):
    """The layers of one branch; a graph layer's weight is applied before the mean, its bias after."""

    def __init__(self, inputs: int, wide: int, width: int, n_layers: int) -> None:
        super().__init__()
        self.project = xavier_normal_linear(inputs, wide, zero_bias=False)
        sizes = [wide] + [width] * (n_layers - 1)
        self.convs = nn.ModuleList([xavier_normal_linear(size, width, zero_bias=False) for size in sizes])
        # Of these the source initialises the first alone.
        self.links = nn.ModuleList([xavier_normal_linear(width, width, zero_bias=False)])
        self.links.extend(nn.Linear(width, width) for _ in sizes[1:])
        self.mean, self.log_variance = Head(width), Head(width)


class MVGAE(GeneralRecommender):
    """Gaussian node posteriors of modalities and ids, and their product."""

    settings = MVGAEConfig
    needs_features = True

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: MVGAEConfig = fill(MVGAEConfig, config)
        width, wide = self.embedding_size, self.options.preference_width
        self.add_table("item_table", self.n_items, width)
        inputs = {m: self.features(m).shape[1] for m in self.modalities} | {COLLABORATIVE: width}
        for name in inputs:
            self.add_table(f"preference_{name}", self.n_users, wide)
        n_layers = self.options.n_ui_layers
        self.branches: Any = nn.ModuleDict({k: Branch(size, wide, width, n_layers) for k, size in inputs.items()})
        adjacency = bipartite_adjacency(dataset.train.users, dataset.train.items, self.n_users, self.n_items)
        self.mean_graph = SparseMatrix(mean_with_itself(adjacency))

    def add_table(self, name: str, rows: int, width: int) -> None:
        """A Xavier normal table: a parameter, or a constant that checkpoints hold."""
        table = xavier_normal_embedding(rows, width)
        if self.options.train_tables:
            self.register_parameter(name, table)
        else:
            self.register_buffer(name, table.detach())

    def graph_layer(self, layers: Sequence[nn.Linear], *parts: Tensor) -> tuple[Tensor, ...]:
        """LReLU(conv(X)) [N, D] of each layer, in one product with the graph, for parts of X; random in training."""
        weight = torch.cat([layer.weight for layer in layers])
        sent = torch.cat([F.linear(part, weight) for part in parts])
        received = self.mean_graph(sent).unflatten(1, (len(layers), -1))
        rate = self.options.layer_dropout if self.training else 0.0
        bias = torch.stack([layer.bias for layer in layers])
        return bent_unit_rows(received, bias, kept_shares(received, rate)).unbind(1)

    def posteriors(self) -> dict[str, Gaussian]:
        """The Gaussian of every node in each branch, modalities first."""
        found = {}
        for name, branch in self.branches.items():
            features = self.item_table if name == COLLABORATIVE else self.features(name)
            # Users' rows need no gradient as long as they are constants: they join items behind the first weights.
            parts = [F.normalize(x, dim=1) for x in (getattr(self, f"preference_{name}"), branch.project(features))]
            for conv, link in zip(branch.convs, branch.links, strict=True):
                own = F.leaky_relu(link(*self.graph_layer([conv], *parts)))
                parts = [own]
            heads = (branch.mean, branch.log_variance)
            gathered = self.graph_layer([head.conv for head in heads], own)
            found[name] = single(*(head(part, own) for head, part in zip(heads, gathered, strict=True)))
        return found

    def forward(self) -> tuple[Tensor, Tensor]:
        mean, _ = reduce(product_of_experts, self.posteriors().values())
        users, items = torch.sigmoid(mean).split([self.n_users, self.n_items])
        return users, items

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        rows = torch.stack([batch[0], batch[1] + self.n_users, batch[2] + self.n_users])
        nodes, place = rows.unique(return_inverse=True)
        own = [*self.posteriors().values()]
        reconstruction, divergence = [], []
        for mean, log_variance in [reduce(product_of_experts, own), *own]:
            log_variance = log_variance.clamp(max=LARGEST_LOG_VARIANCE)
            divergence.append(-(1 + log_variance - mean.square() - log_variance.exp()).sum(1).mean() / 2)
            mean, deviation = F.embedding(nodes, mean), (F.embedding(nodes, log_variance) / 2).exp()
            sample = mean + NOISE * torch.randn(mean.shape).to(mean) * deviation
            users, pos, neg = F.embedding(place, torch.sigmoid(sample))
            against = (users * neg).sum(1) if self.options.negatives == "own" else (users @ neg.T).amax(1)
            mean_loss = log_sigmoid_bpr_loss((users * pos).sum(1), against)
            reconstruction.append(mean_loss * len(users) / math.log(2))
        return {
            "reconstruction": torch.stack(reconstruction).sum(),
            "divergence": self.options.kl_weight * torch.stack(divergence).sum(),
        }

    def modality_embeddings(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Each branch's rows, from its own mean."""
        rows = {name: torch.sigmoid(mean) for name, (mean, _) in self.posteriors().items()}
        return {name: (nodes[: self.n_users], nodes[self.n_users :]) for name, nodes in rows.items()}


def kept_shares(like: Tensor, rate: float) -> Tensor:
    """0 with probability `rate`, else 1 / (1 - rate), in the shape of `like`; drawn from PyTorch's default CPU stream."""
    if not rate:
        return like.new_ones(())
    pairs = torch.empty(-(-like.numel() // 2), dtype=torch.int64).random_(-(2**63), None)  # two of 32 bits at a draw
    kept = pairs.view(torch.int32)[: like.numel()] >= round(rate * 2**32) - 2**31
    return kept.view(like.shape).to(like).div_(1 - rate)


class _BentUnitRows(torch.autograd.Function):
    """Two tables are saved, where one operation after the other saves six."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, share: Tensor) -> Tensor:
        unit = x + bias
        inverse = 1 / torch.linalg.vector_norm(unit, dim=-1, keepdim=True).clamp_min_(1e-12)
        unit.mul_(inverse)
        factor = torch.where(unit > 0, share, SLOPE * share)
        ctx.save_for_backward(unit, inverse, factor)
        return unit * factor

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # under create_graph: what was saved is a constant to it
            raise RuntimeError("bent_unit_rows has no second derivative")
        unit, inverse, factor = ctx.saved_tensors
        by_unit = gradient * factor
        along = (by_unit * unit).sum(-1, keepdim=True)
        by_x = by_unit.addcmul_(unit, along, value=-1).mul_(inverse)
        return by_x, by_x.sum(0), None


@single_precision
def bent_unit_rows(x: Tensor, bias: Tensor, share: Tensor) -> Tensor:
    """LReLU(`share` unit(x + bias)) for x [N, H, D], bias [H, D] and shares at least 0, of any shape that fits."""
    rows: Tensor = _BentUnitRows.apply(x, bias, share)
    return rows


@single_precision
def single(mean: Tensor, log_variance: Tensor) -> Gaussian:
    """A Gaussian as it is; in mixed precision what follows the heads is computed in single precision."""
    return mean, log_variance


def product_of_experts(first: Gaussian, second: Gaussian) -> Gaussian:
    """The product of two Gaussians, normalised, entry by entry."""
    precisions = [1 / (log_variance.exp() + 1e-8) for _, log_variance in (first, second)]
    total = precisions[0] + precisions[1]
    return (precisions[0] * first[0] + precisions[1] * second[0]) / total, -total.log()


def mean_with_itself(adjacency: sp.csr_matrix) -> sp.csr_matrix:
    """(D + 1)^-1 (A + Id): the mean over a node's neighbours and the node itself."""
    joined = (adjacency + sp.eye(adjacency.shape[0], format="csr")).tocsr()
    return (sp.diags(1 / joined.sum(axis=1).A1) @ joined).tocsr()
