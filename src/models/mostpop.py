"""MostPop: every user is recommended the items with the most training interactions.

s(u, i) = number of training users of i. Nothing is learned. What personalised recommendation must beat.

Differs from the released code: MMRec has no such model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.abstract_recommender import GeneralRecommender
from utils.data.dataset import Dataset


@dataclass(frozen=True)
class MostPopConfig:
    """MostPop has no keys."""


class MostPop(GeneralRecommender):
    """Popularity, the same for every user."""

    settings = MostPopConfig
    needs_training = False
    degree: Tensor  # [I] float32

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        degree = torch.bincount(torch.from_numpy(dataset.train.items), minlength=self.n_items)
        self.register_buffer("degree", degree.float(), persistent=False)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Users ones [U, 1] and items their popularity [I, 1]."""
        return self.degree.new_ones(self.n_users, 1), self.degree[:, None]
