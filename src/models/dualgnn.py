"""DualGNN: one light graph convolution for each modality, users fused with weights of their own and smoothed over co-users.

X_m = rownorm([P_m ; LReLU(F_m W_1 + b_1) W_2 + b_2]) with free user preferences P_m, Z_m = X_m + A X_m + A^2 X_m with A the
normalised user-item graph. Items: z_i = sum_m Z_m[i]. Users: r_u = w_u1 sum_m Z_m[u] + sum_{m > 1} w_um Z_m[u] with free
weights w_u, z = r + S r with S of `common/user_graph.py`. Scores are dot products. Loss: mean of
-log2 sigmoid(s_ui - s_uj) plus `reg_weight` (sum_m mean(P_m[u]^2) + mean(w^2)), the first mean over the batch's users, the
last over all.

In r_u the first modality (visual where there is one) stands for the sum of all: in MMRec's code the items' sum is made in
place, and published numbers come from it. `user_fusion: paper` is r_u = sum_m w_um Z_m[u], as in the paper.

Source: Wang et al., "DualGNN: Dual Graph Neural Network for Multimedia Recommendation", IEEE Transactions on Multimedia
2023, in the form of MMRec.

Differs from the released code: the user graph is computed here, ties to the smaller id (there a file whose ties are in no
order); scores are of the current parameters (there of the last batch's); the items' fusion weights, which are in the
penalty and in no score, are left out, and so are layers without a gradient.
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
from common.preferences import PreferencesAndContent
from common.scoring import batch_rows
from common.user_graph import PADDINGS, UserGraph
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset

HOPS = 2  # over the user-item graph; fixed in the released code


@dataclass(frozen=True)
class DualGNNConfig:
    """Keys of DualGNN; values in configs/model/DualGNN.yaml."""

    embedding_size: int = setting("width D of the embeddings", low=1)
    user_fusion: str = setting(
        "users' sum over modalities: as MMRec computes it or as written", choices=("code", "paper")
    )
    user_knn_k: int = setting("slots of a user in the user graph", low=1)
    user_graph_padding: str = setting("how a user with fewer co-users fills the slots", choices=PADDINGS)
    user_graph_file: str | None = setting(
        "a user graph of one's own (.npz, see convert_user_graph), in the data set's folder; null: computed",
        alias=("user_graph_dict_file",),
    )
    reg_weight: float = setting("weight of the penalty on preferences and fusion weights", low=0)
    train_features: bool = setting("train the raw features too: 16 bytes for each number")
    aggr_mode: str = setting("how neighbours are joined; the published graphs are sums", choices=("add",))


class DualGNN(GeneralRecommender):
    """Multi-modal representation learning on the user-item graph and the user co-occurrence graph."""

    settings = DualGNNConfig
    needs_features = True

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: DualGNNConfig = fill(DualGNNConfig, config)
        # The first one has a part of its own in `user_fusion: code`.
        self.order = sorted(self.modalities, key=lambda modality: modality != "visual")
        self.nodes = nn.ModuleDict(
            {m: PreferencesAndContent(self.n_users, self.features(m).shape[1], self.embedding_size) for m in self.order}
        )
        # A single modality's weight would be in the penalty and nowhere else.
        self.fusion_weights: nn.Parameter | None = None
        if len(self.order) > 1:
            start = xavier_normal_embedding(self.n_users, len(self.order)).detach()
            self.fusion_weights = nn.Parameter(start.softmax(dim=1))  # [U, M]
        self.graph = self.interaction_graph(dataset)
        self.user_graph = UserGraph(dataset, self.options.user_knn_k, self.options.user_graph_padding)

    def pre_epoch_processing(self) -> None:
        """Draws the epoch's user graph."""
        self.user_graph.draw()

    def modality_embeddings(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Z_m: users [U, D] and items [I, D] of each modality."""
        x = torch.cat([nodes(self.features(m)) for m, nodes in self.nodes.items()], dim=1)  # [N, M D]
        z = (HOPS + 1) * self.graph.propagate_mean(x, HOPS)  # the mean over layers is a sum here
        users, items = (part.split(self.embedding_size, dim=1) for part in z.split([self.n_users, self.n_items]))
        return dict(zip(self.order, zip(users, items, strict=True), strict=True))

    def forward(self) -> tuple[Tensor, Tensor]:
        pairs = self.modality_embeddings().values()
        users = torch.stack([z for z, _ in pairs])  # [M, U, D]
        items = torch.stack([z for _, z in pairs]).sum(dim=0)
        if self.fusion_weights is None:
            fused = users[0]
        else:
            if self.options.user_fusion == "code":
                users = torch.cat([users.sum(dim=0, keepdim=True), users[1:]])
            fused = (self.fusion_weights.T[:, :, None] * users).sum(dim=0)
        return fused + self.user_graph(fused), items

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        users, pos, neg = batch_rows(batch, *self.forward())
        bpr = log_sigmoid_bpr_loss((users * pos).sum(1), (users * neg).sum(1)) / math.log(2)
        preferences = [nodes.get_parameter("preference") for nodes in self.nodes.values()]
        penalties = [F.embedding(batch[0], table).square().mean() for table in preferences]
        if self.fusion_weights is not None:
            penalties.append(self.fusion_weights.square().mean())
        return {"bpr": bpr, "reg": self.options.reg_weight * torch.stack(penalties).sum()}
