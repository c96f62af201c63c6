"""BPR: matrix factorisation that ranks each observed item above a sampled one.

Score s(u, i) = <p_u, q_i>; loss: mean of -log(1e-10 + sigmoid(s_ui - s_uj)) plus `reg_weight` times the unsquared
Frobenius norms of the gathered batch matrices over the batch size.

Source: Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009 (arXiv 1205.2618).

Differs from the released code: nothing in the mathematics of the MMRec form; the paper has squared norms instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from common.abstract_recommender import GeneralRecommender
from common.initial import xavier_normal_embedding
from common.losses import bpr_loss, frobenius_over_batch
from common.scoring import batch_rows
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset


@dataclass(frozen=True)
class BPRConfig:
    """Keys of BPR; values in configs/model/BPR.yaml."""

    embedding_size: int = setting("width D of the embeddings", low=1)
    reg_weight: float = setting("weight of the embedding penalty", low=0)


class BPR(GeneralRecommender):
    """Matrix factorisation with the BPR loss."""

    settings = BPRConfig

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: BPRConfig = fill(BPRConfig, config)
        self.user_embedding = xavier_normal_embedding(self.n_users, self.embedding_size)
        self.item_embedding = xavier_normal_embedding(self.n_items, self.embedding_size)

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.user_embedding, self.item_embedding

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        users, pos, neg = batch_rows(batch, self.user_embedding, self.item_embedding)
        return {
            "bpr": bpr_loss((users * pos).sum(1), (users * neg).sum(1)),
            "reg": self.options.reg_weight * frobenius_over_batch(users, pos, neg),
        }
