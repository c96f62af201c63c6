"""FREEDOM: a frozen item graph of raw features beside a user-item graph that is pruned again for each epoch.

Item graph M = sum_m w_m S_m, S_m = 1/k at the k items most similar to each item by the cosine of raw features. Per epoch a
share `edge_dropout` of the interactions is left out, those between nodes of high degree more often (kept without
replacement with odds deg_u^-1/2 deg_i^-1/2), and the rest is normalised again: G.
E^(l+1) = G E^(l); users are the mean over layers 0..L, items the mean plus M^n E_I. Loss: mean of -log sigmoid(s_ui - s_uj)
plus `reg_weight` times, for each modality, the same with the projected raw features W x + b for items.

Source: Zhou and Shen, "A Tale of Two Graphs: Freezing and Denoising Graph Structures for Multimodal Recommendation", ACM
MM 2023 (arXiv 2211.06924).

Differs from the released code: only the batch's items are projected, with the same loss and gradients; equal similarities
go to the item itself, then to the smaller id; an item without features has no neighbour but itself; the item graph is
cached under a hash of the features. The normalisation counts row sums on both sides, as in the released code, so that M
is a mean over k items; with true in-degrees it would be another model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender
from common.graph import degree_sensitive_weights, draw_without_replacement, pruned_interaction_graph
from common.initial import xavier_uniform_embedding
from common.losses import log_sigmoid_bpr_loss
from common.neighbours import mixed_item_graph
from common.scoring import batch_rows
from common.sparse import SparseMatrix
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset


@dataclass(frozen=True)
class FREEDOMConfig:
    """Keys of FREEDOM; values in configs/model/FREEDOM.yaml."""

    embedding_size: int = setting("width D of the embeddings and of the projected features", low=1)
    n_ui_layers: int = setting("depth L of the user-item propagation", low=0)
    n_mm_layers: int = setting("depth n of the item-item propagation", low=0)
    knn_k: int = setting("neighbours of an item in each modality, itself among them", low=1)
    mm_image_weight: float = setting("weight of the visual item graph; the others share the rest", low=0, high=1)
    edge_dropout: float = setting(
        "share of interactions left out of an epoch's graph", low=0, high=1, alias=("dropout",)
    )
    reg_weight: float = setting("weight of the BPR losses on projected features", low=0)
    train_features: bool = setting("train the raw features too: 16 bytes for each number")


class FREEDOM(GeneralRecommender):
    """Frozen item-item graph and denoised user-item graph."""

    settings = FREEDOMConfig
    needs_features = True

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: FREEDOMConfig = fill(FREEDOMConfig, config)
        self.dataset = dataset
        self.user_embedding = xavier_uniform_embedding(self.n_users, self.embedding_size)
        self.item_embedding = xavier_uniform_embedding(self.n_items, self.embedding_size)
        self.projections = nn.ModuleDict(
            {m: nn.Linear(self.features(m).shape[1], self.embedding_size) for m in self.modalities}
        )
        knn_k, image_weight = self.options.knn_k, self.options.mm_image_weight
        self.item_graph = SparseMatrix(mixed_item_graph(dataset, self.modalities, knn_k, image_weight))
        self.graph = self.interaction_graph(dataset)
        self.training_graph = self.graph
        # Not a buffer: what is kept is drawn on the CPU.
        self.edge_weights = degree_sensitive_weights(dataset)

    def pre_epoch_processing(self) -> None:
        """Draws the interactions that this epoch's graph keeps."""
        if self.options.edge_dropout > 0:
            count = int(len(self.edge_weights) * (1 - self.options.edge_dropout))
            kept = draw_without_replacement(self.edge_weights, count)
            self.training_graph = pruned_interaction_graph(self.dataset, kept).to(self.device)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Users [U, D] and items [I, D]: on the epoch's graph in training, on the full one in evaluation."""
        graph = self.training_graph if self.training else self.graph
        ego = torch.cat([self.user_embedding, self.item_embedding])  # [N, D]
        users, items = graph.propagate_mean(ego, self.options.n_ui_layers).split([self.n_users, self.n_items])
        similar: Tensor = self.item_embedding
        for _ in range(self.options.n_mm_layers):
            similar = self.item_graph(similar)
        return users, items + similar

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        users, pos, neg = batch_rows(batch, *self.forward())
        terms = {"bpr": log_sigmoid_bpr_loss((users * pos).sum(1), (users * neg).sum(1))}
        unique, place = batch[1:].unique(return_inverse=True)
        for modality, projection in self.projections.items():
            content_pos, content_neg = F.embedding(place, projection(F.embedding(unique, self.features(modality))))
            loss = log_sigmoid_bpr_loss((users * content_pos).sum(1), (users * content_neg).sum(1))
            terms[f"bpr_{modality}"] = self.options.reg_weight * loss
        return terms
