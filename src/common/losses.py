"""Losses and regularisers as pure functions, named by what they compute, in single precision always."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common.precision import single_precision


@single_precision
def bpr_loss(pos_scores: Tensor, neg_scores: Tensor, epsilon: float = 1e-10) -> Tensor:
    """mean of -log(epsilon + sigmoid(s_ui - s_uj)), the form of the published MMRec models.

    Args:
        pos_scores, neg_scores: [B].
        epsilon: keeps the logarithm finite.

    Source: Rendle et al., UAI 2009 (arXiv 1205.2618).
    """
    return -torch.log(epsilon + torch.sigmoid(pos_scores - neg_scores)).mean()


@single_precision
def log_sigmoid_bpr_loss(pos_scores: Tensor, neg_scores: Tensor) -> Tensor:
    """mean of -log sigmoid(s_ui - s_uj), without the epsilon of `bpr_loss` and safe for any difference.

    Args:
        pos_scores, neg_scores: [B].

    Source: Rendle et al., UAI 2009 (arXiv 1205.2618).
    """
    return -F.logsigmoid(pos_scores - neg_scores).mean()


@single_precision
def mean_cosine(first: Tensor, second: Tensor) -> Tensor:
    """Mean over rows of the cosine between rows of first and second [B, D]; lengths are at least 1e-8."""
    return F.cosine_similarity(first, second, dim=1, eps=1e-8).mean()


@single_precision
def frobenius_over_batch(*matrices: Tensor) -> Tensor:
    """Sum of the unsquared Frobenius norms of matrices [B, D], divided by B: MMRec's embedding penalty."""
    total = sum(torch.linalg.vector_norm(matrix) for matrix in matrices)
    return torch.as_tensor(total) / len(matrices[-1])


@single_precision
def half_squared_l2_over_batch(*matrices: Tensor) -> Tensor:
    """Half the sum of squares of matrices [B, D], divided by B: LightGCN's own penalty."""
    return half_squared_l2(*matrices) / len(matrices[-1])


@single_precision
def half_squared_l2(*matrices: Tensor) -> Tensor:
    """Half the sum of squares of all entries of the matrices."""
    return torch.stack([matrix.square().sum() for matrix in matrices]).sum() / 2


class _ContrastiveCrossEntropy(torch.autograd.Function):
    """Row-wise cross-entropy over a @ n^T with the diagonal replaced by given positives.

    The gradient is known as soon as a block of rows is, so it is made on the way forward and no [B, B] matrix outlives
    its block: memory is O(B (D + block)).
    """

    BLOCK = 1024

    @staticmethod
    def forward(ctx: Any, anchors: Tensor, others: Tensor, positives: Tensor, scale: Tensor) -> Tensor:
        n = len(anchors)
        loss = anchors.new_zeros(())
        scaled = anchors * scale
        grad_a, grad_o = torch.empty_like(anchors), torch.zeros_like(others)
        grad_p, grad_s = torch.empty_like(positives), anchors.new_zeros(())
        for begin in range(0, n, _ContrastiveCrossEntropy.BLOCK):
            rows = slice(begin, min(begin + _ContrastiveCrossEntropy.BLOCK, n))
            here = torch.arange(rows.stop - begin, device=anchors.device)
            logits = scaled[rows] @ others.T  # [b, B]
            logits[here, here + begin] = positives[rows] * scale
            highest = logits.amax(dim=1)
            share = torch.softmax(logits, dim=1)
            # log sum exp, from the largest share: at least 1/B, so its logarithm is safe.
            log_sum = highest - share.amax(dim=1).log()
            loss += (log_sum - positives[rows] * scale).sum()
            share[here, here + begin] -= 1
            grad_s += torch.dot(share.reshape(-1), logits.reshape(-1)) / scale
            grad_p[rows] = share[here, here + begin] * scale
            share[here, here + begin] = 0
            torch.mm(share, others, out=grad_a[rows])
            grad_o.addmm_(share.T, scaled[rows])
        grad_a.mul_(scale)
        ctx.save_for_backward(grad_a, grad_o, grad_p, grad_s)
        ctx.n = n
        return loss / n

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        if torch.is_grad_enabled():  # under create_graph: what was saved is a constant to it
            raise RuntimeError("contrastive_cross_entropy has no second derivative")
        return tuple(part * (gradient / ctx.n) for part in ctx.saved_tensors)


@single_precision
def contrastive_cross_entropy(anchors: Tensor, others: Tensor, positives: Tensor, scale: Tensor) -> Tensor:
    """mean_i of -log softmax_j(l_ij)_i with l_ij = scale <a_i, o_j> for j != i and l_ii = scale p_i.

    Args:
        anchors, others: [B, D].
        positives: [B].
        scale: a scalar tensor.
    """
    return _ContrastiveCrossEntropy.apply(anchors, others, positives, scale)


class _SymmetricCrossEntropy(torch.autograd.Function):
    """The mean of row-wise and column-wise cross-entropy of the logits scale a b^T, whose diagonal is right.

    One matrix [B, B] serves both directions, and its gradient is made on the way forward, as above.
    """

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, scale: Tensor) -> Tensor:
        logits = (first * scale) @ second.T
        share, by_column = torch.softmax(logits, dim=1), torch.softmax(logits, dim=0)
        # log sum exp, from the largest share: at least 1/B, so its logarithm is safe.
        log_sums = logits.amax(dim=1) - share.amax(dim=1).log() + logits.amax(dim=0) - by_column.amax(dim=0).log()
        loss = log_sums.sum() / 2 - logits.diagonal().sum()
        share += by_column
        share.diagonal().sub_(2)
        grad_s = torch.dot(share.reshape(-1), logits.reshape(-1)) / (2 * scale)
        half = scale / 2
        ctx.save_for_backward((share @ second).mul_(half), (share.T @ first).mul_(half), grad_s)
        ctx.n = len(first)
        return loss / ctx.n

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        if torch.is_grad_enabled():  # under create_graph: what was saved is a constant to it
            raise RuntimeError("info_nce has no second derivative")
        return tuple(part * (gradient / ctx.n) for part in ctx.saved_tensors)


class _LinearMeanSquare(torch.autograd.Function):
    """The error is the one matrix [I, F] that is made: with its sign turned and scaled it is the targets' gradient."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        error = torch.addmm(bias, inputs, weight.T).sub_(targets)
        loss = torch.linalg.vector_norm(error).square() / error.numel()
        ctx.save_for_backward(inputs, weight, error.mul_(2 / error.numel()))
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # under create_graph: what was saved is a constant to it
            raise RuntimeError("linear_mean_square has no second derivative")
        inputs, weight, error = ctx.saved_tensors
        by_inputs = gradient * (error @ weight) if ctx.needs_input_grad[0] else None
        by_targets = error * -gradient if ctx.needs_input_grad[3] else None
        return by_inputs, gradient * (error.T @ inputs), gradient * error.sum(0), by_targets


@single_precision
def linear_mean_square(inputs: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """The mean over entries of (inputs weight^T + bias - targets)^2: how far a linear decoder is from raw features.

    Args:
        inputs: [I, D].
        weight: [F, D].
        bias: [F].
        targets: [I, F].
    """
    return _LinearMeanSquare.apply(inputs, weight, bias, targets)


@single_precision
def info_nce(first: Tensor, second: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE between two views: the mean of both directions' cross-entropies.

    Args:
        first, second: [B, D]; row i of both is the same node. Rows are brought to unit length here.
        scale: inverse temperature, a scalar tensor.
    """
    first, second = F.normalize(first, dim=1), F.normalize(second, dim=1)
    if len(first) <= _ContrastiveCrossEntropy.BLOCK:
        loss: Tensor = _SymmetricCrossEntropy.apply(first, second, scale)
        return loss
    positives = (first * second).sum(dim=1)
    forward = contrastive_cross_entropy(first, second, positives, scale)
    return (forward + contrastive_cross_entropy(second, first, positives, scale)) / 2


@single_precision
def total_correlation(views: list[Tensor], scale: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Contrastive lower bound of the total correlation of M views, GTC Eqs. (6)-(9).

    With unit rows z^m and the multilinear product <z^1, ..., z^M> = sum_k prod_m z^m_k, view m anchors: the positive of
    row i is the product of its own rows, the B - 1 negatives join z^m_i with rows of the other views taken by
    independent permutations of the batch; the loss is the mean of the M cross-entropies. The product of M unit vectors
    is of order D^{-(M-2)/2} beside that of two, so logits are multiplied by D^{(M-2)/2}. With two views
    nothing is permuted and this is symmetric InfoNCE.

    Args:
        views: M >= 2 tensors [B, D]; row i of all is the same node. Rows are brought to unit length here.
        scale: inverse temperature, a scalar tensor.
        generator: of the permutations, on the CPU; None: PyTorch's default one.

    Raises:
        ValueError: for fewer than two views.

    Source: Saporta et al., "Contrasting with Symile" (arXiv 2411.01053); GTC (arXiv 2604.03014).
    """
    n_views = len(views)
    if n_views < 2:
        raise ValueError(f"total correlation needs at least two views, got {n_views}")
    if n_views == 2:
        return info_nce(views[0], views[1], scale)
    unit = [F.normalize(view, dim=1) for view in views]
    size, width = unit[0].shape
    scale = scale * width ** ((n_views - 2) / 2)
    loss = unit[0].new_zeros(())
    for anchor in range(n_views):
        joined = permuted = None
        for view in (unit[m] for m in range(n_views) if m != anchor):
            order = torch.randperm(size, generator=generator).to(view.device)
            shuffled = F.embedding(order, view)
            joined = view if joined is None else joined * view
            permuted = shuffled if permuted is None else permuted * shuffled
        assert joined is not None
        assert permuted is not None
        loss = loss + contrastive_cross_entropy(unit[anchor], permuted, (unit[anchor] * joined).sum(dim=1), scale)
    return loss / n_views
