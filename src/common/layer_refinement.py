"""Layer refinement: what a node receives in a layer weighs by its cosine with the node's first embedding.

Source: Zhou, Lin, Liu and Miao, "Layer-refined Graph Convolutional Networks for Recommendation", ICDE 2023 (arXiv
2207.11088).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LEAST_LENGTH = 1e-8  # of the product of lengths that a cosine divides by


class _Refine(torch.autograd.Function):
    """Written out, for the derivative of the cosine makes several times as many passes over [N, D] than are needed."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, ego: Tensor) -> Tensor:
        z_length, ego_length = torch.linalg.vector_norm(z, dim=1), torch.linalg.vector_norm(ego, dim=1)
        cosine = torch.linalg.vecdot(z, ego) / (z_length * ego_length).clamp(min=LEAST_LENGTH)
        ctx.save_for_backward(z, ego, z_length, ego_length, cosine)
        return z * cosine[:, None]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled():  # under create_graph: what was saved is a constant to it
            raise RuntimeError("the refinement has no second derivative")
        z, ego, z_length, ego_length, cosine = ctx.saved_tensors
        product = z_length * ego_length
        by_cosine = torch.linalg.vecdot(gradient, z)  # [N]
        mixed = (by_cosine / product.clamp(min=LEAST_LENGTH))[:, None]
        # Where the guard holds the denominator is constant, and what it would add is left out.
        own = torch.where(product > LEAST_LENGTH, by_cosine * cosine, 0)
        z_own, ego_own = ((own / length.clamp(min=LEAST_LENGTH).square())[:, None] for length in (z_length, ego_length))
        by_z = (gradient * cosine[:, None]).addcmul_(ego, mixed).addcmul_(z, z_own, value=-1)
        return by_z, (z * mixed).addcmul_(ego, ego_own, value=-1)


def refine(z: Tensor, ego: Tensor) -> Tensor:
    """cos(z_v, ego_v) z_v for z, ego [N, D], differentiable in both once; the product of lengths is at least 1e-8."""
    return _Refine.apply(z, ego)
