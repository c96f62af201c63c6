"""MSCA: structural and content views of items, less what is redundant in them, added to LightGCN and aligned with it.

Collaborative view C = 1/L sum_{l=1..L} A^^l [E_U ; E_I], without layer 0. Views w: structure s with input E_I, and
each modality m with input E_I * sigmoid(g_m(P_m F_m)); items y_w = A_w input over the view's item graph, V_w = [R^
y_w ; y_w]. Per node the softmax over views of q(V_w), one query for all, gives weights o_w, the redundant part is
sum_w o_w V_w, and what is left X = sum_w (1 - o_w) V_w. Final embeddings C + `fusion_weight` X, scores are dot
products. Loss: mean of -log sigmoid(s_ui - s_uj), plus `cl_weight` times one-directional InfoNCE from C to each V_w
over the batch's users and positives, plus `reg_weight` times the squares of EVERY parameter, trained features too.

Source: "Multi-view Semantic Contrastive Alignment for Multimodal Recommendation", WWW 2026, pages 5941-5952.

Differs from the released code: any number of modalities; attention for the nodes of the batch alone, with the same
loss and gradients; sparse co-occurrence. Follows the code, not the paper, in the softmax ACROSS views (of one scalar
it would be 1), in training the features and in item graphs weighted by cosines; `train_features` and `modality_graph`
give the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender
from common.behaviour_graph import behaviour_item_graph
from common.contrast import row_contrast
from common.initial import xavier_uniform_embedding
from common.losses import half_squared_l2, log_sigmoid_bpr_loss
from common.neighbours import binary_item_graph, weighted_item_graph
from common.sparse import SparseMatrix
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset

STRUCTURE = "structure"  # the view whose item graph is co-occurrence


@dataclass(frozen=True)
class MSCAConfig:
    """Keys of MSCA; values in configs/model/MSCA.yaml."""

    embedding_size: int = setting("width D of the embeddings", low=1)
    n_ui_layers: int = setting("depth L of the user-item propagation", low=1, alias=("n_layers",))
    knn_k: int = setting(
        "neighbours of an item in an item graph, itself among them by content, beside them by co-occurrence", low=1
    )
    modality_graph: str = setting("edges of the content graphs: their cosine, or 1", choices=("weighted", "binary"))
    fusion_weight: float = setting("weight of the enhancement X", low=0, alias=("fusion_coeff",))
    cl_weight: float = setting("weight of the contrastive loss", low=0, alias=("cl_loss",))
    temperature: float = setting("temperature of the contrastive loss", above=0, alias=("tau",))
    reg_weight: float = setting("weight of the squares of all parameters", low=0)
    train_features: bool = setting("train the raw features too: 16 bytes for each number")


class MSCA(GeneralRecommender):
    """LightGCN enhanced by views without their redundant part."""

    settings = MSCAConfig
    needs_features = True

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: MSCAConfig = fill(MSCAConfig, config)
        width, k = self.embedding_size, self.options.knn_k
        self.user_embedding = xavier_uniform_embedding(self.n_users, width)
        self.item_embedding = xavier_uniform_embedding(self.n_items, width)
        self.graph = self.interaction_graph(dataset)
        content_graph = weighted_item_graph if self.options.modality_graph == "weighted" else binary_item_graph
        graphs = {m: content_graph(dataset, m, k) for m in self.modalities}
        graphs[STRUCTURE] = behaviour_item_graph(dataset, k)
        self.item_graphs = nn.ModuleDict({view: SparseMatrix(graph) for view, graph in graphs.items()})
        self.projections = nn.ModuleDict({m: nn.Linear(self.features(m).shape[1], width) for m in self.modalities})
        self.gates = nn.ModuleDict({m: nn.Linear(width, width) for m in self.modalities})
        self.query = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1, bias=False))

    def encode(self) -> list[Tensor]:
        """C, then V_w of each modality in order and of the structure; all nodes, [N, D]."""
        ego = torch.cat([self.user_embedding, self.item_embedding])  # [N, D]
        collaborative = self.graph.propagate_mean(self.graph(ego), self.options.n_ui_layers - 1)
        items = []
        for view, graph in self.item_graphs.items():
            ids: Tensor = self.item_embedding
            if view != STRUCTURE:
                projected = self.projections[view](self.features(view))  # [I, D]
                ids = ids * torch.sigmoid(self.gates[view](projected))
            items.append(graph(ids))
        users = self.graph.to_first(torch.cat(items, dim=1)).chunk(len(items), dim=1)  # one product for all
        return [collaborative, *(torch.cat(pair) for pair in zip(users, items, strict=True))]

    def enhancement(self, views: list[Tensor]) -> Tensor:
        """X [n, D] of the views of the same nodes, each [n, D]."""
        stacked = torch.stack(views)  # [M + 1, n, D]
        return ((1 - torch.softmax(self.query(stacked), dim=0)) * stacked).sum(0)

    def forward(self) -> tuple[Tensor, Tensor]:
        collaborative, *views = self.encode()
        final = collaborative + self.options.fusion_weight * self.enhancement(views)
        users, items = final.split([self.n_users, self.n_items])
        return users, items

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        options = self.options
        rows = torch.stack([batch[0], batch[1] + self.n_users, batch[2] + self.n_users])
        nodes, place = rows.unique(return_inverse=True)
        collaborative, *views = [F.embedding(nodes, view) for view in self.encode()]
        users, pos, neg = F.embedding(place, collaborative + options.fusion_weight * self.enhancement(views))
        contrastive = [
            row_contrast(F.embedding(at, collaborative), F.embedding(at, view), options.temperature, counts)
            for at, counts in (kind.unique(return_counts=True) for kind in place[:2])  # users, positives
            for view in views
        ]
        return {
            "bpr": log_sigmoid_bpr_loss((users * pos).sum(1), (users * neg).sum(1)),
            "contrastive": options.cl_weight * torch.stack(contrastive).sum(),
            "reg": 2 * options.reg_weight * half_squared_l2(*self.parameters()),
        }

    def modality_embeddings(self) -> dict[str, tuple[Tensor, Tensor]]:
        views = zip(["id", *self.modalities], self.encode(), strict=False)  # the structure is no modality's
        return {name: (view[: self.n_users], view[self.n_users :]) for name, view in views}
