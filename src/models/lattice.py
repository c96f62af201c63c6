"""LATTICE: an item graph learned from projected content smooths item ids, beside a collaborative backbone.

Per modality m the cosine graph S_m of the raw features (the `knn_k` largest of each row, the item itself among them) and
the graph S~_m of the projected features; w = softmax of the modality weights; N(S) = D^-1/2 S D^-1/2 with the row sums D:

    H = (1 - lambda) N(sum_m w_m S~_m) + lambda sum_m w_m N(S_m),    h = H^n E_I.

Backbone `lightgcn`: mean of layers 0..L of D^-1(A + I) from the ids; `mf`: the ids; `ngcf`: see `backbone`. Users are the
backbone's; items the backbone's plus h / |h|. Loss: mean of -log sigmoid(s_ui - s_uj) plus `reg_weight` times half the
squares of the batch's final rows over the configured batch size.

H is rebuilt with a gradient in the first batch of an epoch and a constant in the others, so projections, features and
modality weights have a gradient once an epoch. The published runs cleared gradients to zero, not to none: Adam moves these
parameters on by momentum in the other batches, which is followed (`keeps_zero_gradients`).

Source: Zhang et al., "Mining Latent Structures for Multimedia Recommendation", ACM MM 2021 (arXiv 2104.09036).

Differs from the released code: sparse throughout, the same values and gradients (the released one multiplies dense [I, I]
matrices); one rebuild an evaluation instead of one a block of users; an item without features is its own neighbour alone
(there NaN); any number of modalities, and no modality weights where there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender
from common.graph import bipartite_adjacency
from common.initial import xavier_uniform_embedding
from common.losses import half_squared_l2, log_sigmoid_bpr_loss
from common.neighbours import nearest_neighbours, weighted_item_graph
from common.scoring import batch_rows
from common.sparse import EdgePattern, SparseMatrix
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset
from utils.errors import UserError


@dataclass(frozen=True)
class LATTICEConfig:
    """Keys of LATTICE; values in configs/model/LATTICE.yaml."""

    embedding_size: int = setting("width D of the embeddings", low=1)
    feat_embed_dim: int = setting("width of the projected features", low=1)
    cf_model: str = setting("backbone", choices=("lightgcn", "mf", "ngcf"))
    weight_size: list[int] = setting("one entry a user-item layer; ngcf: its width, which must be D", low=1)
    mess_dropout: list[float] = setting("ngcf: removed share of each layer's messages", low=0, high=0.99)
    n_mm_layers: int = setting("depth n of the item graph", low=0, alias=("n_layers",))
    knn_k: int = setting("neighbours of an item, itself among them", low=1)
    lambda_coeff: float = setting("share of the raw features' graph in the item graph", low=0, high=1)
    reg_weight: float = setting("weight of the embedding penalty", low=0)
    train_features: bool = setting("train the raw features too: 16 bytes for each number")


class LATTICE(GeneralRecommender):
    """Item ids smoothed over a learned item graph."""

    settings = LATTICEConfig
    needs_features = True
    keeps_zero_gradients = True
    raw_edges: Tensor  # [2, E] int64: all modalities' raw graphs one after another
    raw_values: Tensor  # [E] float32
    raw_modality: Tensor  # [E] int64: place in `modalities`

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: LATTICEConfig = fill(LATTICEConfig, config)
        self.train_batch_size: int = config["train_batch_size"]
        self.user_embedding = xavier_uniform_embedding(self.n_users, self.embedding_size)
        self.item_embedding = xavier_uniform_embedding(self.n_items, self.embedding_size)
        self.projections = nn.ModuleDict(
            {m: nn.Linear(self.features(m).shape[1], self.options.feat_embed_dim) for m in self.modalities}
        )
        n_modalities = len(self.modalities)
        self.modality_weights = (
            nn.Parameter(torch.full((n_modalities,), 1 / n_modalities)) if n_modalities > 1 else None
        )
        if self.options.cf_model == "ngcf":
            self._make_ngcf()
        adjacency = bipartite_adjacency(dataset.train.users, dataset.train.items, self.n_users, self.n_items)
        with_self = adjacency + sp.eye(adjacency.shape[0], format="csr")
        self.graph = SparseMatrix(sp.diags(1 / np.asarray(with_self.sum(axis=1)).ravel()) @ with_self)
        raw = [weighted_item_graph(dataset, m, self.options.knn_k).tocoo() for m in self.modalities]
        edges = np.concatenate([np.stack([graph.row, graph.col]) for graph in raw], axis=1).astype(np.int64)
        values = np.concatenate([graph.data for graph in raw]).astype(np.float32)
        modality = np.repeat(np.arange(n_modalities), [graph.nnz for graph in raw])
        self.register_buffer("raw_edges", torch.from_numpy(edges), persistent=False)
        self.register_buffer("raw_values", torch.from_numpy(values), persistent=False)
        self.register_buffer("raw_modality", torch.from_numpy(modality), persistent=False)
        self._epoch_graph: tuple[EdgePattern, Tensor] | None = None  # H after an epoch's first batch, a constant

    def _make_ngcf(self) -> None:
        options, width = self.options, self.embedding_size
        if any(size != width for size in options.weight_size):
            raise UserError(f"LATTICE with ngcf averages its layers: weight_size must be {width} throughout")
        if len(options.mess_dropout) != len(options.weight_size):
            raise UserError("LATTICE with ngcf: mess_dropout needs one entry for each of weight_size")
        layers = range(len(options.weight_size))
        self.sum_layers = nn.ModuleList(nn.Linear(width, width) for _ in layers)
        self.product_layers = nn.ModuleList(nn.Linear(width, width) for _ in layers)

    def pre_epoch_processing(self) -> None:
        self._epoch_graph = None

    def post_epoch_processing(self) -> None:
        self._epoch_graph = None

    def item_graph(self) -> tuple[EdgePattern, Tensor]:
        """H from the current parameters: its pattern [I, I] and values [E], differentiable."""
        weights = self.raw_values.new_ones(1) if self.modality_weights is None else self.modality_weights.softmax(0)
        share = self.options.lambda_coeff
        learned = [self._cosines(self.projections[m](self.features(m))) for m in self.modalities]
        edges = torch.cat([edge for edge, _ in learned], dim=1)  # [2, E']
        values = torch.cat([weight * cosines for weight, (_, cosines) in zip(weights, learned, strict=True)])
        sums = values.new_zeros(self.n_items).index_add(0, edges[0], values)
        # Cosines may be negative; a row whose sum is not positive has no weight.
        scale = torch.where(sums > 0, sums.clamp(min=torch.finfo(sums.dtype).tiny).rsqrt(), 0)
        values = (1 - share) * F.embedding(edges, scale[:, None]).prod(0).squeeze(1) * values
        values = torch.cat([values, share * weights[self.raw_modality] * self.raw_values])
        edges = torch.cat([edges, self.raw_edges], dim=1)
        # Modalities share edges, the items themselves at least: each is kept once, with the sum of its values.
        pairs, place = (edges[0] * self.n_items + edges[1]).unique(return_inverse=True)
        pattern = EdgePattern(pairs // self.n_items, pairs % self.n_items, (self.n_items, self.n_items))
        return pattern, values.new_zeros(len(pairs)).index_add(0, place, values)

    def _cosines(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        """Edges [2, E] to the nearest neighbours of rows [I, d] and their cosines [E], differentiable."""
        _, columns = nearest_neighbours(projected, self.options.knn_k)  # [I, K]
        rows, place = (columns >= 0).nonzero(as_tuple=True)
        columns = columns[rows, place]
        unit = F.normalize(projected, dim=1)
        cosines = EdgePattern(rows, columns, (self.n_items, self.n_items)).dots(unit, unit)
        # The cosine of an item and itself is 1 and constant, also where the row is zero.
        return torch.stack([rows, columns]), torch.where(rows == columns, 1, cosines)

    def backbone(self) -> tuple[Tensor, Tensor]:
        """Users [U, D] and items [I, D] without content."""
        if self.options.cf_model == "mf":
            return self.user_embedding, self.item_embedding
        ego = torch.cat([self.user_embedding, self.item_embedding])  # [N, D]
        n_layers = len(self.options.weight_size)
        total = ego
        if self.options.cf_model == "lightgcn":
            for _ in range(n_layers):
                total = self.graph(total) + ego  # Horner's scheme for the sum of all powers
        else:
            layer = ego
            for number, rate in enumerate(self.options.mess_dropout):
                near = self.graph(layer)
                own = F.leaky_relu(self.product_layers[number](layer * near))
                layer = self._drop(F.leaky_relu(self.sum_layers[number](near)) + own, rate)
                total = total + F.normalize(layer, dim=1)
        users, items = (total / (n_layers + 1)).split([self.n_users, self.n_items])
        return users, items

    def _drop(self, x: Tensor, rate: float) -> Tensor:
        if not self.training or rate == 0:
            return x
        return x * (torch.rand(x.shape) >= rate).to(x.device) / (1 - rate)

    def _embed(self, pattern: EdgePattern, values: Tensor) -> tuple[Tensor, Tensor]:
        smooth: Tensor = self.item_embedding
        for _ in range(self.options.n_mm_layers):
            smooth = pattern(values, smooth)
        users, items = self.backbone()
        return users, items + F.normalize(smooth, dim=1)

    def forward(self) -> tuple[Tensor, Tensor]:
        return self._embed(*self.item_graph())

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        pattern, values = self._epoch_graph or self.item_graph()
        self._epoch_graph = pattern, values.detach()
        users, pos, neg = batch_rows(batch, *self._embed(pattern, values))
        penalty = half_squared_l2(users, pos, neg) / self.train_batch_size
        return {
            "bpr": log_sigmoid_bpr_loss((users * pos).sum(1), (users * neg).sum(1)),
            "reg": self.options.reg_weight * penalty,
        }
