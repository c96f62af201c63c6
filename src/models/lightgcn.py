"""LightGCN: linear propagation of id embeddings over the normalised user-item graph.

E^(l+1) = D^-1/2 A D^-1/2 E^(l); final embeddings are the mean of layers 0..L; scores are dot products. Loss: mean of
-log(1e-10 + sigmoid(s_ui - s_uj)) plus `reg_weight` times the unsquared Frobenius norms of the batch's layer-0 rows over
the batch size.

Source: He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation", SIGIR 2020
(arXiv 2002.02126).

Differs from the released code: nothing in the mathematics of the MMRec form (Xavier uniform, unsquared norms); the
paper's own code has squared norms and normal initialisation with standard deviation 0.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.abstract_recommender import GeneralRecommender
from common.initial import xavier_uniform_embedding
from common.losses import bpr_loss, frobenius_over_batch
from common.scoring import batch_rows
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset


@dataclass(frozen=True)
class LightGCNConfig:
    """Keys of LightGCN; values in configs/model/LightGCN.yaml."""

    embedding_size: int = setting("width D of the embeddings", low=1)
    n_ui_layers: int = setting("depth L of the propagation", low=0, alias=("n_layers",))
    reg_weight: float = setting("weight of the embedding penalty", low=0)


class LightGCN(GeneralRecommender):
    """Linear graph convolution with the BPR loss."""

    settings = LightGCNConfig

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: LightGCNConfig = fill(LightGCNConfig, config)
        self.user_embedding = xavier_uniform_embedding(self.n_users, self.embedding_size)
        self.item_embedding = xavier_uniform_embedding(self.n_items, self.embedding_size)
        self.graph = self.interaction_graph(dataset)

    def forward(self) -> tuple[Tensor, Tensor]:
        ego = torch.cat([self.user_embedding, self.item_embedding])  # [N, D]
        users, items = self.graph.propagate_mean(ego, self.options.n_ui_layers).split([self.n_users, self.n_items])
        return users, items

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        users, pos, neg = batch_rows(batch, *self.forward())
        ego = batch_rows(batch, self.user_embedding, self.item_embedding)
        return {
            "bpr": bpr_loss((users * pos).sum(1), (users * neg).sum(1)),
            "reg": self.options.reg_weight * frobenius_over_batch(*ego),
        }
