"""InfoNCE over all pairs of two large tables: three matrix products and one exponential of each pair, tile by tile."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common.losses import in_batch_info_nce
from common.precision import single_precision

LARGEST_SCALE = 40.0  # e^40 and its inverse, summed over all rows, are far inside of float32
TILE = {"cpu": (256, 512)}  # rows and columns; on a CPU a tile stays in its cache while three products and exp use it
ROWS_AND_COLUMNS = (1024, 2**14)  # elsewhere


class _AllPairsInfoNCE(torch.autograd.Function):
    """The gradient is made on the way forward: only one block of rows of exponentials is held."""

    @staticmethod
    def forward(ctx: Any, anchors: Tensor, candidates: Tensor, scale: float) -> Tensor:
        n_rows, n_columns = TILE.get(anchors.device.type, ROWS_AND_COLUMNS)
        columns = candidates.split(n_columns)
        buffers = [candidates.new_empty(n_rows, len(part)) for part in columns]
        # Transposed: for these a CPU's product is faster than for rows.
        grad_columns = [torch.zeros_like(part.T, memory_format=torch.contiguous_format) for part in columns]
        grad_anchors, loss = torch.zeros_like(anchors), anchors.new_zeros(())
        for rows, own, grad in zip(*(x.split(n_rows) for x in (anchors, candidates, grad_anchors)), strict=True):
            scaled = rows * scale
            tiles = [
                torch.mm(scaled, part.T, out=buffer[: len(rows)]).exp_()
                for part, buffer in zip(columns, buffers, strict=True)
            ]
            total = torch.stack([tile.sum(dim=1) for tile in tiles]).sum(dim=0)[:, None]
            loss += total.log().sum() - torch.dot(scaled.flatten(), own.flatten())
            shared = (scaled / total).T
            for tile, part, grad_part in zip(tiles, columns, grad_columns, strict=True):
                grad.addmm_(tile, part)
                grad_part.addmm_(shared, tile)
            grad.div_(total).sub_(own).mul_(scale)
        grad_candidates = torch.cat(grad_columns, dim=1).T.sub(anchors, alpha=scale)
        ctx.save_for_backward(grad_anchors, grad_candidates)
        ctx.n = len(anchors)
        return loss / ctx.n

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # under create_graph: what was saved is a constant to it
            raise RuntimeError("all_pairs_info_nce has no second derivative")
        return *(part * (gradient / ctx.n) for part in ctx.saved_tensors), None


@single_precision
def all_pairs_info_nce(anchors: Tensor, candidates: Tensor, temperature: float) -> Tensor:
    """mean_i of -log softmax_j(cos(a_i, c_j) / temperature) at j = i: `in_batch_info_nce`, sooner for thousands of rows.

    A cosine is at most 1, so no largest logit is sought; a temperature below 1/40 takes the form that seeks it.

    Args:
        anchors, candidates: [n, D]; row i of both belong together.
        temperature: above 0.
    """
    if temperature * LARGEST_SCALE < 1:
        return in_batch_info_nce(anchors, candidates, temperature)
    anchors, candidates = F.normalize(anchors, dim=1), F.normalize(candidates, dim=1)
    loss: Tensor = _AllPairsInfoNCE.apply(anchors, candidates, 1 / temperature)
    return loss
