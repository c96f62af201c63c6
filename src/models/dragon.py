"""DRAGON: modalities side by side, users smoothed over a co-occurrence graph, items over a frozen feature graph.

X_m = rownorm([P_m ; LReLU(F_m W_1 + b_1) W_2 + b_2]) with free user preferences P_m, Z_m = X_m + A X_m + A^2 X_m with A the
normalised user-item graph. Items: q_i = [Z_m[i] for each m], z = q + M^n q with the item graph M of raw features (1/k at
the k items of highest cosine, modalities mixed). Users: r_u = [w_um Z_m[u] for each m] with free weights w_u,
z = r + S r with S of `common/user_graph.py`. Scores are dot products. Loss: mean of -log2 sigmoid(s_ui - s_uj) plus
`reg_weight` (sum_m mean(P_m[u]^2) + mean(w^2)), the first mean over the batch's users, the last over all.

Source: Zhou, Zhou, Zhang, Shen, "Enhancing Dyadic Relations with Homogeneous Graphs for Multimodal Recommendation", ECAI
2023 (arXiv 2301.12097).

Differs from the released code: the user graph is computed here, ties to the smaller id (there a file whose ties are in no
order); scores are of the current parameters (there of the last batch's); parameters that there never get a gradient, the
raw features among them, are not made; an item without features has no neighbour but itself. The paper's further hops over
the user graph are in no released code.
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
from common.initial import xavier_normal_embedding
from common.losses import log_sigmoid_bpr_loss
from common.neighbours import mixed_item_graph
from common.preferences import PreferencesAndContent
from common.scoring import batch_rows
from common.sparse import SparseMatrix
from common.user_graph import PADDINGS, UserGraph
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset

HOPS = 2  # over the user-item graph; fixed in the released code


@dataclass(frozen=True)
class DRAGONConfig:
    """Keys of DRAGON; values in configs/model/DRAGON.yaml."""

    embedding_size: int = setting("width D of each modality's embeddings", low=1)
    n_mm_layers: int = setting("depth n of the item-item propagation", low=1)
    knn_k: int = setting("neighbours of an item in each modality, itself among them", low=1)
    mm_image_weight: float = setting("weight of the visual item graph; the others share the rest", low=0, high=1)
    user_knn_k: int = setting("slots of a user in the user graph", low=1)
    user_graph_padding: str = setting("how a user with fewer co-users fills the slots", choices=PADDINGS)
    user_graph_file: str | None = setting(
        "a user graph of one's own (.npz, see convert_user_graph), in the data set's folder; null: computed",
        alias=("user_graph_dict_file",),
    )
    reg_weight: float = setting("weight of the penalty on preferences and modality weights", low=0)
    train_features: bool = setting("train the raw features too: 16 bytes for each number")
    aggr_mode: str = setting("how neighbours are joined; the published graphs are sums", choices=("add",))


class DRAGON(GeneralRecommender):
    """Dyadic and homogeneous graphs: user-item for each modality, user-user and item-item over all of them."""

    settings = DRAGONConfig
    needs_features = True

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: DRAGONConfig = fill(DRAGONConfig, config)
        self.nodes = nn.ModuleDict(
            {
                m: PreferencesAndContent(self.n_users, self.features(m).shape[1], self.embedding_size)
                for m in self.modalities
            }
        )
        # A single modality's weight would be in the penalty and nowhere else.
        self.modality_weights: nn.Parameter | None = None
        if len(self.modalities) > 1:
            start = xavier_normal_embedding(self.n_users, len(self.modalities)).detach()
            self.modality_weights = nn.Parameter(start.softmax(dim=1))  # [U, M]
        knn_k, image_weight = self.options.knn_k, self.options.mm_image_weight
        self.graph = self.interaction_graph(dataset)
        self.item_graph = SparseMatrix(mixed_item_graph(dataset, self.modalities, knn_k, image_weight))
        self.user_graph = UserGraph(dataset, self.options.user_knn_k, self.options.user_graph_padding)

    def pre_epoch_processing(self) -> None:
        """Draws the epoch's user graph."""
        self.user_graph.draw()

    def modality_embeddings(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Z_m: users [U, D] and items [I, D] of each modality."""
        x = torch.cat([nodes(self.features(m)) for m, nodes in self.nodes.items()], dim=1)  # [N, M D]
        z = (HOPS + 1) * self.graph.propagate_mean(x, HOPS)  # the mean over layers is a sum here
        users, items = (part.split(self.embedding_size, dim=1) for part in z.split([self.n_users, self.n_items]))
        return dict(zip(self.modalities, zip(users, items, strict=True), strict=True))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Users [U, M D] and items [I, M D]."""
        pairs = self.modality_embeddings().values()
        items = torch.cat([z for _, z in pairs], dim=1)
        users = torch.cat([z for z, _ in pairs], dim=1)
        if self.modality_weights is not None:
            users = users * self.modality_weights.repeat_interleave(self.embedding_size, dim=1)
        similar = items
        for _ in range(self.options.n_mm_layers):
            similar = self.item_graph(similar)
        return users + self.user_graph(users), items + similar

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        users, pos, neg = batch_rows(batch, *self.forward())
        bpr = log_sigmoid_bpr_loss((users * pos).sum(1), (users * neg).sum(1)) / math.log(2)
        preferences = [nodes.get_parameter("preference") for nodes in self.nodes.values()]
        penalties = [F.embedding(batch[0], table).square().mean() for table in preferences]
        if self.modality_weights is not None:
            penalties.append(self.modality_weights.square().mean())
        return {"bpr": bpr, "reg": self.options.reg_weight * torch.stack(penalties).sum()}
