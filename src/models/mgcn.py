"""MGCN: content purified by gates on the item ids, propagated on its own item graphs, joined with the behaviour view.

Content view of modality m: a_m = E_I * sigmoid(g_m(P_m F_m)), propagated over the item graph of the raw features
(last layer only), B_m = [R^ a_m ; a_m]. Behaviour view: C = LightGCN's mean of layers over [E_U ; E_I]. One attention
q(B_m) over the modalities gives the common part K; what is left of each, P_m = sigmoid(p_m(C)) * (B_m - K), is weighed
by preference. Side view Z = (K + sum_m P_m) / (M + 1), final embeddings C + Z, scores are dot products.
Loss: mean of -log sigmoid(s_ui - s_uj), plus `reg_weight` times half the squares of the batch's final rows over
`train_batch_size`, plus `cl_weight` times one-directional InfoNCE from Z to C over the batch's users and positives.

Source: Yu et al., "Multi-View Graph Convolutional Network for Multimedia Recommendation", ACM MM 2023 (arXiv 2308.03588).

Differs from the released code: any number of modalities, where that needs visual and textual; with one, K = B_m, there is
no specific part and neither attention nor preferences are made. Attention and preferences are computed for the nodes of
the batch alone, with the same loss and gradients. Items with features of zeros have no neighbour but themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender
from common.contrast import row_contrast
from common.initial import xavier_uniform_embedding
from common.losses import half_squared_l2, log_sigmoid_bpr_loss
from common.neighbours import weighted_item_graph
from common.sparse import SparseMatrix
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset


@dataclass(frozen=True)
class MGCNConfig:
    """Keys of MGCN; values in configs/model/MGCN.yaml."""

    embedding_size: int = setting("width D of the embeddings", low=1)
    n_ui_layers: int = setting("depth of the propagation over the user-item graph", low=0)
    n_mm_layers: int = setting("depth of the propagation over the item graphs", low=0, alias=("n_layers",))
    knn_k: int = setting("neighbours of an item in an item graph, itself among them", low=1)
    cl_weight: float = setting("weight of the contrastive loss", low=0, alias=("cl_loss",))
    temperature: float = setting("temperature of the contrastive loss", above=0)
    reg_weight: float = setting("weight of the embedding penalty", low=0)
    train_features: bool = setting("train the raw features too: 16 bytes for each number")


class MGCN(GeneralRecommender):
    """Behaviour and content views, the latter split into a common and specific parts."""

    settings = MGCNConfig
    needs_features = True

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: MGCNConfig = fill(MGCNConfig, config)
        self.batch_size: int = config["train_batch_size"]
        width = self.embedding_size
        self.user_embedding = xavier_uniform_embedding(self.n_users, width)
        self.item_embedding = xavier_uniform_embedding(self.n_items, width)
        self.graph = self.interaction_graph(dataset)
        self.item_graphs, self.projections, self.gates = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for modality in self.modalities:
            graph = weighted_item_graph(dataset, modality, self.options.knn_k)
            self.item_graphs[modality] = SparseMatrix(graph)
            self.projections[modality] = nn.Linear(self.features(modality).shape[1], width)
            self.gates[modality] = nn.Linear(width, width)
        if len(self.modalities) > 1:  # of one modality all is common
            self.query = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1, bias=False))
            self.preferences = nn.ModuleDict({modality: nn.Linear(width, width) for modality in self.modalities})

    def encode(self) -> list[Tensor]:
        """Behaviour view C, then content view B_m of each modality in order, all nodes, [N, D]."""
        ego = torch.cat([self.user_embedding, self.item_embedding])  # [N, D]
        behaviour = self.graph.propagate_mean(ego, self.options.n_ui_layers)
        items = []
        for modality in self.modalities:
            projected = self.projections[modality](self.features(modality))  # [I, D]
            gated = self.item_embedding * torch.sigmoid(self.gates[modality](projected))
            for _ in range(self.options.n_mm_layers):
                gated = self.item_graphs[modality](gated)
            items.append(gated)
        users = self.graph.to_first(torch.cat(items, dim=1)).chunk(len(items), dim=1)  # one product for all
        return [behaviour, *(torch.cat(pair) for pair in zip(users, items, strict=True))]

    def fuse(self, behaviour: Tensor, content: list[Tensor]) -> Tensor:
        """Side view Z [B, D] from C and B_m of the same nodes, [B, D]."""
        if len(content) == 1:
            return content[0] / 2
        stacked = torch.stack(content)  # [M, B, D]
        common = (torch.softmax(self.query(stacked), dim=0) * stacked).sum(0)
        side = common
        for modality, view in zip(self.modalities, content, strict=True):
            side = side + torch.sigmoid(self.preferences[modality](behaviour)) * (view - common)
        return side / (len(content) + 1)

    def forward(self) -> tuple[Tensor, Tensor]:
        behaviour, *content = self.encode()
        users, items = (behaviour + self.fuse(behaviour, content)).split([self.n_users, self.n_items])
        return users, items

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        options = self.options
        rows = torch.stack([batch[0], batch[1] + self.n_users, batch[2] + self.n_users])
        nodes, place = rows.unique(return_inverse=True)
        behaviour, *content = [F.embedding(nodes, view) for view in self.encode()]
        side = self.fuse(behaviour, content)
        users, pos, neg = F.embedding(place, behaviour + side)
        contrastive = [
            row_contrast(F.embedding(at, side), F.embedding(at, behaviour), options.temperature, counts)
            for at, counts in (kind.unique(return_counts=True) for kind in place[:2])  # users, positives
        ]
        return {
            "bpr": log_sigmoid_bpr_loss((users * pos).sum(1), (users * neg).sum(1)),
            "reg": options.reg_weight * half_squared_l2(users, pos, neg) / self.batch_size,
            "contrastive": options.cl_weight * (contrastive[0] + contrastive[1]),
        }

    def modality_embeddings(self) -> dict[str, tuple[Tensor, Tensor]]:
        views = zip(["id", *self.modalities], self.encode(), strict=True)
        return {name: (view[: self.n_users], view[self.n_users :]) for name, view in views}
