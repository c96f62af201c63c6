"""COHESION: ids mixed into every modality before the propagation, channels joined after it.

Channels c are the ids and the modalities, x_id = E_I and x_m = F_m. T_c = W_2 LReLU(W_1 x_c + b_1) + b_2 with slope 0.01;
early fusion Q_c = sqrt((E_I^2 + T_c^2) / 2 + 1e-8), entry by entry; X^0_c = rownorm([P_c ; Q_c]). For l = 1..L:
Y = G X^(l-1), X^l_v = cos(Y_v, X^0_v) Y_v; H_c = sum_{l=0..L} X^l, layer 0 included. r = [H_id | H_1 | ... | H_M]; users
z_u = r_u + (S r)_u with S of `common/user_graph.py`, items z_i = r_i + (A^n r)_i with A the weighed sum of the modalities'
binary neighbour graphs. Scores are dot products over all channels. In training G is a graph of a share 1 - `edge_dropout`
of the interactions, drawn again for each epoch; in evaluation all are used.
Loss of a triple: d_c = <z_u^c, z_i^c - z_j^c>, w = 1 - softmax_c(d) without a gradient, -log2 sigmoid(sum_c w_c d_c), mean
over the batch, plus `reg_weight` sum_m mean(P_m[u]^2) over the batch's users, the ids' preferences not among them.

In the released code H_id carries no gradient, so P_id and the ids' layers keep their random initial values and that channel
moves as E_I moves by the others alone. Published numbers come from it; `id_channel: trained` has its gradient.

Source: Xu et al., "COHESION: Composite Graph Convolutional Network with Dual-Stage Fusion for Multimodal Recommendation",
SIGIR 2025 (arXiv 2504.04452).

Differs from the released code: any number of modalities (there two); scores are of the current parameters and all
interactions (there of the last batch's); the user graph is computed, ties to the smaller id; an item with features of
zeros has no neighbour but itself (there NaN); a weight of users and modalities that no score reads is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender
from common.graph import SparseSymmetric, degree_sensitive_weights, draw_without_replacement, pruned_interaction_graph
from common.initial import as_constants, xavier_normal_embedding
from common.layer_refinement import refine
from common.losses import log_sigmoid_bpr_loss
from common.neighbours import mixed_item_graph
from common.preferences import PreferencesAndContent
from common.scoring import batch_rows
from common.sparse import SparseMatrix
from common.user_graph import PADDINGS, UserGraph
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset

LEAST_SQUARE = 1e-8  # below the root of the early fusion


@dataclass(frozen=True)
class COHESIONConfig:
    """Keys of COHESION; values in configs/model/COHESION.yaml."""

    embedding_size: int = setting("width D of a channel", low=1)
    n_ui_layers: int = setting("depth L of the user-item propagation", low=0, alias=("num_layer",))
    n_mm_layers: int = setting("depth n of the item-item propagation", low=0)
    knn_k: int = setting("neighbours of an item in each modality, itself among them", low=1)
    mm_image_weight: float = setting("weight of the visual item graph; the others share the rest", low=0, high=1)
    user_knn_k: int = setting("slots of a user in the user graph", low=1)
    user_graph_padding: str = setting("how a user with fewer co-users fills the slots", choices=PADDINGS)
    user_graph_file: str | None = setting(
        "a user graph of one's own (.npz, see convert_user_graph), in the data set's folder; null: computed",
        alias=("user_graph_dict_file",),
    )
    edge_dropout: float = setting(
        "share of interactions left out of an epoch's graph", low=0, high=1, alias=("dropout",)
    )
    id_channel: str = setting(
        "the id channel: without a gradient, as published, or trained", choices=("fixed", "trained")
    )
    reg_weight: float = setting("weight of the penalty on preferences", low=0)
    train_features: bool = setting("train the raw features too: 16 bytes for each number")


class COHESION(GeneralRecommender):
    """Dual-stage fusion of ids and content over composite graphs."""

    settings = COHESIONConfig
    needs_features = True
    dense_methods = ("initial",)

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: COHESIONConfig = fill(COHESIONConfig, config)
        self.dataset = dataset
        width = self.embedding_size
        self.item_embedding = xavier_normal_embedding(self.n_items, width)
        self.id_nodes = PreferencesAndContent(self.n_users, width, width)
        if self.options.id_channel == "fixed":
            as_constants(self.id_nodes)
        self.nodes = nn.ModuleDict(
            {m: PreferencesAndContent(self.n_users, self.features(m).shape[1], width) for m in self.modalities}
        )
        knn_k, image_weight = self.options.knn_k, self.options.mm_image_weight
        self.item_graph = SparseMatrix(mixed_item_graph(dataset, self.modalities, knn_k, image_weight))
        self.user_graph = UserGraph(dataset, self.options.user_knn_k, self.options.user_graph_padding)
        self.graph = self.interaction_graph(dataset)
        self.training_graph: SparseSymmetric = self.graph
        # Not a buffer: what is kept is drawn on the CPU.
        self.edge_weights = degree_sensitive_weights(dataset)

    def pre_epoch_processing(self) -> None:
        """Draws the epoch's user graph, then the interactions that its user-item graph keeps."""
        self.user_graph.draw()
        if self.options.edge_dropout > 0:
            count = int(len(self.edge_weights) * (1 - self.options.edge_dropout))
            kept = draw_without_replacement(self.edge_weights, count)
            self.training_graph = pruned_interaction_graph(self.dataset, kept).to(self.device)

    def initial(self, nodes: PreferencesAndContent, features: Tensor) -> Tensor:
        """X^0 of a channel [N, D] by early fusion."""
        fused = ((self.item_embedding.square() + nodes.project(features).square()) / 2 + LEAST_SQUARE).sqrt()
        return F.normalize(torch.cat([nodes.preference, fused]), dim=1)

    def _smoothed(self, channels: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """z of each channel, users [U, D] and items [I, D], from its X^0 [N, D]; all channels in one product."""
        graph = self.training_graph if self.training else self.graph
        width = self.embedding_size
        layer = total = ego = torch.cat(channels, dim=1)  # [N, C D]
        for _ in range(self.options.n_ui_layers):
            layer = refine(graph(layer).view(-1, width), ego.view(-1, width)).view_as(ego)  # a channel at a time
            total = total + layer
        users, items = total.split([self.n_users, self.n_items])
        similar = items
        for _ in range(self.options.n_mm_layers):
            similar = self.item_graph(similar)
        users, items = users + self.user_graph(users), items + similar
        return list(zip(users.split(width, dim=1), items.split(width, dim=1), strict=True))

    def modality_embeddings(self) -> dict[str, tuple[Tensor, Tensor]]:
        """z of each channel, the ids' first: users [U, D] and items [I, D]."""
        content = [self.initial(self.nodes[m], self.features(m)) for m in self.modalities]  # type: ignore[arg-type]
        if self.options.id_channel == "trained":
            return self._named(self._smoothed([self.initial(self.id_nodes, self.item_embedding), *content]))
        with torch.no_grad():
            ids = self._smoothed([self.initial(self.id_nodes, self.item_embedding)])
        return self._named(ids + self._smoothed(content))

    def _named(self, channels: list[tuple[Tensor, Tensor]]) -> dict[str, tuple[Tensor, Tensor]]:
        return dict(zip(["id", *self.modalities], channels, strict=True))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Users [U, (1 + M) D] and items [I, (1 + M) D]."""
        users, items = zip(*self.modality_embeddings().values(), strict=True)
        return torch.cat(users, dim=1), torch.cat(items, dim=1)

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        rows = batch_rows(batch, *self.forward())
        users, pos, neg = (part.unflatten(1, (-1, self.embedding_size)) for part in rows)  # [B, 1 + M, D]
        pos_scores, neg_scores = (users * pos).sum(2), (users * neg).sum(2)  # [B, 1 + M]
        # The channel that lags behind weighs more.
        weights = 1 - torch.softmax((pos_scores - neg_scores).detach(), dim=1)
        bpr = log_sigmoid_bpr_loss((weights * pos_scores).sum(1), (weights * neg_scores).sum(1)) / math.log(2)
        preferences = [nodes.get_parameter("preference") for nodes in self.nodes.values()]
        penalties = [F.embedding(batch[0], table).square().mean() for table in preferences]
        return {"bpr": bpr, "reg": self.options.reg_weight * torch.stack(penalties).sum()}
