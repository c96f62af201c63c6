"""Contrastive losses over many candidates: sums of log-sums of exponentials in tiles that stay in a processor's cache.

A cross-entropy of anchors over candidates is such a sum less the logits of the pairs that belong together. Repeated rows
need not be computed twice: an anchor has a weight and a candidate a count.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common.precision import single_precision

NARROW = 16  # widths up to this one: a tile's products are then fewer than its exponentials
ENTRIES_NARROW, ENTRIES = 2**18, 2**20  # of a tile of logits: a processor's caches hold it
LOG2_E = math.log2(math.e)
LARGEST = 60.0  # exponentials up to this one, and sums of millions of them, are far from the ends of single precision


class _SumOfLogSums(torch.autograd.Function):
    """Each exponential is computed once: the gradient of a tile is made as soon as its row sums are."""

    @staticmethod
    def forward(
        ctx: Any, anchors: Tensor, candidates: Tensor, scale: float, weights: Tensor, counts: Tensor, bounded: bool
    ) -> Tensor:
        total = anchors.new_zeros(())
        # Tables with a long side last: products with few dimensions are several times as fast.
        across, weighted = candidates.T.contiguous(), (candidates * counts[:, None]).T.contiguous()  # [D, C]
        grad_a, grad_c = torch.empty_like(anchors), torch.zeros_like(across)
        entries = 2**22
        if anchors.device.type == "cpu":
            entries = ENTRIES_NARROW if anchors.shape[1] <= NARROW else ENTRIES
        step = max(1, entries // max(1, len(candidates)))
        for begin in range(0, len(anchors), step):
            rows = slice(begin, begin + step)
            # In powers of two, which take half the time of those of e.
            logits = (anchors[rows] * (scale * LOG2_E)) @ across  # [b, C]
            shift = total.new_zeros(()) if bounded else logits.amax(dim=1)
            if not bounded:
                logits -= shift[:, None]
            sums = torch.mv(logits.exp2_(), counts)
            total += torch.dot(weights[rows], sums.log() + shift / LOG2_E)
            share = scale * weights[rows] / sums
            grad_a[rows] = (weighted @ logits.T * share).T
            grad_c.addmm_(anchors[rows].T * share, logits)
        ctx.save_for_backward(grad_a, (grad_c * counts).T.contiguous())
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # under create_graph: what was saved is a constant to it
            raise RuntimeError("sum_of_log_sums has no second derivative")
        grad_a, grad_c = ctx.saved_tensors
        return grad_a * gradient, grad_c * gradient, None, None, None, None


@single_precision
def sum_of_log_sums(
    anchors: Tensor,
    candidates: Tensor,
    scale: float,
    weights: Tensor | None = None,
    counts: Tensor | None = None,
    cosines: bool = True,
) -> Tensor:
    """sum_a w_a log sum_c n_c exp(scale <anchors_a, candidates_c>), memory linear in A and C.

    Args:
        anchors: [A, D].
        candidates: [C, D].
        scale: inverse temperature.
        weights: w [A] of the anchors; None: 1.
        counts: n [C], above 0, of the candidates; None: 1.
        cosines: no inner product is above 1, so that exponentials at a usual temperature need no largest logit.
    """
    weights, counts = (
        rows.new_ones(len(rows)) if given is None else given.to(rows.dtype)
        for rows, given in ((anchors, weights), (candidates, counts))
    )
    bounded = cosines and scale <= LARGEST
    total: Tensor = _SumOfLogSums.apply(anchors, candidates, scale, weights, counts, bounded)
    return total


@single_precision
def row_contrast(
    anchors: Tensor, candidates: Tensor, temperature: float, counts: Tensor | None = None, normalize: bool = True
) -> Tensor:
    """mean_b of -log softmax_c(<a_b, c_c> / temperature) at c = b over a batch whose distinct rows are given.

    Args:
        anchors, candidates: [B, D]; row b of both belong together.
        temperature: above 0.
        counts: how often row b stands in the batch, [B]; None: once.
        normalize: bring rows to unit length first (cosines).
    """
    if normalize:
        anchors, candidates = F.normalize(anchors, dim=1), F.normalize(candidates, dim=1)
    counts = anchors.new_ones(len(anchors)) if counts is None else counts.to(anchors.dtype)
    own = torch.dot(torch.linalg.vecdot(anchors, candidates), counts) / temperature
    sums = sum_of_log_sums(anchors, candidates, 1 / temperature, counts, counts, cosines=normalize)
    return (sums - own) / counts.sum()


@single_precision
def pair_contrast(anchors: Tensor, candidates: Tensor, pairs: Tensor, temperature: float) -> Tensor:
    """mean_b of -log softmax_c(cos(a_b, c_c) / temperature) at c = b, of a batch of pairs whose rows repeat.

    Args:
        anchors: [A, D], the distinct first rows.
        candidates: [C, D], the distinct second rows.
        pairs: int64 [2, B], the batch as places in both.
        temperature: above 0.
    """
    anchors, candidates = F.normalize(anchors, dim=1), F.normalize(candidates, dim=1)
    weights, counts = (at.bincount(minlength=len(rows)) for at, rows in zip(pairs, (anchors, candidates), strict=True))
    own = torch.linalg.vecdot(F.embedding(pairs[0], anchors), F.embedding(pairs[1], candidates)).sum() / temperature
    return (sum_of_log_sums(anchors, candidates, 1 / temperature, weights, counts) - own) / pairs.shape[1]
