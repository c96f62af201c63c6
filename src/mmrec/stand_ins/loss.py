"""Loss modules under the names that model files written for MMRec import; the formulas are in common/losses.py."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.losses import bpr_loss, half_squared_l2


class BPRLoss(nn.Module):
    """mean of -log(gamma + sigmoid(p - n)) over scores [B] of positives and negatives."""

    def __init__(self, gamma: float = 1e-10) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, pos_score: Tensor, neg_score: Tensor) -> Tensor:
        return bpr_loss(pos_score, neg_score, self.gamma)


class EmbLoss(nn.Module):
    """Sum of the norms of matrices [B, D] over the number of rows of the last."""

    def __init__(self, norm: float = 2) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, *embeddings: Tensor) -> Tensor:
        norms = [torch.linalg.vector_norm(embedding, ord=self.norm) for embedding in embeddings]
        return torch.stack(norms).sum() / len(embeddings[-1])


class L2Loss(nn.Module):
    """Half the sum of squares of all entries of matrices."""

    def forward(self, *embeddings: Tensor) -> Tensor:
        return half_squared_l2(*embeddings)
