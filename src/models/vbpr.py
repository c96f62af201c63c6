"""VBPR: matrix factorisation whose item vectors hold a linear projection of the content features.

Item vector q_i = [Q_i | X_i W^T + b] of width 2D, user vector p_u of width 2D, score s(u, i) = <p_u, q_i>; X joins the raw
features of all modalities. Loss: mean of -log(1e-10 + sigmoid(s_ui - s_uj)) plus `reg_weight` times the unsquared
Frobenius norms of the gathered 2D-wide matrices over the batch size.

Source: He and McAuley, "VBPR: Visual Bayesian Personalized Ranking from Implicit Feedback", AAAI 2016 (arXiv 1510.01784).

Differs from the released code: follows MMRec's multimodal form (no offset and biases, several modalities joined, text
first); only the rows of the batch are projected in training, with the same loss and gradients. The bias b cancels in
every difference of scores and is trained by the penalty alone, so it does not move at reg_weight 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from common.abstract_recommender import GeneralRecommender
from common.initial import xavier_normal_linear, xavier_uniform_embedding
from common.losses import bpr_loss, frobenius_over_batch
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset


@dataclass(frozen=True)
class VBPRConfig:
    """Keys of VBPR; values in configs/model/VBPR.yaml."""

    embedding_size: int = setting("width D of each half of the embeddings", low=1)
    reg_weight: float = setting("weight of the embedding penalty", low=0)


class VBPR(GeneralRecommender):
    """Matrix factorisation over ids and projected content features."""

    settings = VBPRConfig
    needs_features = True

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: VBPRConfig = fill(VBPRConfig, config)
        self.order = sorted(self.modalities, key=lambda modality: modality != "textual")
        width = sum(self.features(modality).shape[1] for modality in self.order)
        self.user_embedding = xavier_uniform_embedding(self.n_users, 2 * self.embedding_size)
        self.item_embedding = xavier_uniform_embedding(self.n_items, self.embedding_size)
        self.projection = xavier_normal_linear(width, self.embedding_size)

    def item_vectors(self, items: Tensor | None = None) -> Tensor:
        """[B, 2D] for items [B], or [I, 2D] for all."""
        raw = [self.features(modality) for modality in self.order]
        ids: Tensor = self.item_embedding
        if items is not None:
            raw = [F.embedding(items, features) for features in raw]
            ids = F.embedding(items, self.item_embedding)
        return torch.cat([ids, self.project(raw)], dim=1)

    def project(self, raw: Sequence[Tensor]) -> Tensor:
        """[B, D] of the raw features of each modality [B, F]."""
        # One product per modality with its part of W: the joined features would be a second copy of them all.
        weights = self.projection.weight.split([features.shape[1] for features in raw], dim=1)
        products = (features @ weight.T for features, weight in zip(raw, weights, strict=True))
        content: Tensor = self.projection.bias + sum(products)
        return content

    def new_item_embeddings(self, features: Mapping[str, NDArray[np.float32]], dataset: Dataset) -> Tensor:
        """[0 | X W^T + b]: an item without interactions has no id vector, as the paper ranks cold items."""
        content = self.project([torch.from_numpy(features[modality]).to(self.device) for modality in self.order])
        return torch.cat([torch.zeros_like(content), content], dim=1)

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.user_embedding, self.item_vectors()

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        users = F.embedding(batch[0], self.user_embedding)
        unique, place = batch[1:].unique(return_inverse=True)
        pos, neg = F.embedding(place, self.item_vectors(unique))
        return {
            "bpr": bpr_loss((users * pos).sum(1), (users * neg).sum(1)),
            "reg": self.options.reg_weight * frobenius_over_batch(users, pos, neg),
        }
