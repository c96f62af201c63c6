"""Noise that keeps the signs of embeddings: two such copies of one row are a positive pair of a contrastive loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NOISE_LENGTH = 0.1


def perturbed(x: Tensor, length: float = NOISE_LENGTH) -> Tensor:
    """x + `length` sign(x) * rownorm(noise) for x [B, D], noise uniform in [0, 1), again for each row; differentiable in x.

    Drawn on the CPU from PyTorch's default stream, whatever the device.

    Source: Yu et al., SimGCL, SIGIR 2022 (arXiv 2112.08679).
    """
    noise = F.normalize(torch.rand(x.shape).to(x), dim=1)
    return x + length * x.detach().sign() * noise
