"""A Wasserstein critic over rows, with a penalty on its gradient, made for rows that are wide and of low rank.

Source: Gulrajani et al., "Improved Training of Wasserstein GANs" (arXiv 1704.00028); MMSSL (arXiv 2302.10632).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from common.precision import single_precision
from common.sparse import EdgePattern

EPSILON = 1e-5  # of the normalisation over the batch
SHORTEST = 1e-12  # a row is divided by its length, by this at least
STRIPS = 6  # of a symmetric product


@dataclass
class MaskedProduct:
    """Rows left right^T [n, I] with 0 at the entries of `masked`, brought to unit length; they need not be made."""

    left: Tensor  # [n, D]
    right: Tensor  # [I, D]
    masked: EdgePattern  # [n, I]

    def rows(self) -> Tensor:
        """The rows themselves, [n, I], without a gradient."""
        with torch.no_grad():
            rows = self.left @ self.right.T
            rows[self.masked.rows, self.masked.columns] = 0
            return rows.div_(torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min_(SHORTEST))

    @single_precision
    def times(self, weight: Tensor) -> Tensor:
        """The product with weight [I, H], differentiable in it and in left and right: [n, H]."""
        # Lengths are what masked entries leave of the unmasked rows': in double, so that nothing is lost there.
        left, right = self.left.double(), self.right.double()
        entries = self.masked.dots(left, right)
        squares = ((left @ (right.T @ right)) * left).sum(1) - self.masked.row_sums(entries.square())
        scale = squares.clamp_min(SHORTEST**2).rsqrt().to(weight)[:, None]
        product = (self.left * scale) @ (self.right.T @ weight)
        rest: Tensor = self.masked(entries.to(weight) * scale[self.masked.rows, 0], weight)
        return product - rest


Rows = Tensor | Sequence[MaskedProduct]


def symmetric_product(left: Tensor, right: Tensor) -> Tensor:
    """left^T right [H, H] of left and right [n, H], where it is known to be symmetric: only one half is computed."""
    size = left.shape[1]
    strip = -(-size // STRIPS)
    out = left.new_zeros(size, size)
    for begin in range(0, size, strip):
        end = min(begin + strip, size)
        out[:end, begin:end] = left[:, :end].T @ right[:, begin:end]
    return out.triu_().add_(out.triu(1).T)


class _LengthsOfProducts(torch.autograd.Function):
    """With G = weight^T weight the squared length of x weight^T is x G x^T, so nothing of width I is made of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        through = x @ symmetric_product(weight, weight)
        lengths = (through * x).sum(1).clamp_min_(0).sqrt_()
        ctx.save_for_backward(x, weight, through, lengths)
        return lengths

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled():  # under create_graph: what was saved is a constant to it
            raise RuntimeError("lengths_of_products has no second derivative")
        x, weight, through, lengths = ctx.saved_tensors
        share = torch.where(lengths > 0, gradient / lengths, 0)[:, None]
        return through * share, weight @ symmetric_product(x, x * share)


def lengths_of_products(x: Tensor, weight: Tensor) -> Tensor:
    """Lengths [n] of the rows of x weight^T, for x [n, H] and weight [I, H]; the cheaper of two ways."""
    if 3 * len(x) <= 2 * x.shape[1]:
        return torch.linalg.vector_norm(x @ weight.T, dim=1)
    lengths: Tensor = _LengthsOfProducts.apply(x, weight)
    return lengths


class RowCritic(nn.Module):
    """`scale` times a sigmoid of linear, batch normalisation, dropout, again these three, linear.

    It always normalises by the batch it is given and always drops. The layers before a normalisation have no bias, which
    would cancel in it; so the first layer is a matrix, and mixtures of rows can be mixed after it.

    Args:
        width: I of the rows; the layers are I // 4 and I // 8 wide.
        dropout: of the two hidden layers.
        scale: largest score.
    """

    def __init__(self, width: int, dropout: Sequence[float], scale: float) -> None:
        super().__init__()
        self.dropout, self.scale = dropout, scale
        sizes = [width, max(width // 4, 1), max(width // 8, 1)]
        first = nn.Linear(sizes[0], sizes[1], bias=False)
        self.second = nn.Linear(sizes[1], sizes[2], bias=False)
        self.last = nn.Linear(sizes[2], 1)
        for layer in (first, self.second, self.last):
            nn.init.kaiming_normal_(layer.weight)
        self.first = nn.Parameter(first.weight.detach().T.contiguous())  # [I, I // 4]: few entries are few rows of it
        nn.init.zeros_(self.last.bias)
        self.gains = nn.ParameterList(torch.ones(size) for size in sizes[1:])
        self.shifts = nn.ParameterList(torch.zeros(size) for size in sizes[1:])

    @single_precision
    def judge(self, hidden: Tensor) -> Tensor:
        """Scores [n] from the first layer's results [n, I // 4]."""
        hidden = self.second(self._normalized_and_dropped(hidden, 0))
        hidden = self._normalized_and_dropped(hidden, 1)
        return self.scale * torch.sigmoid(self.last(hidden)).squeeze(1)

    def behind_first(self, rows: Rows) -> Tensor:
        """The first layer's results [n, I // 4]."""
        if isinstance(rows, Tensor):
            return rows @ self.first
        return torch.cat([part.times(self.first) for part in rows])

    def forward(self, rows: Rows) -> Tensor:
        """Scores [n] of rows [n, I]."""
        return self.judge(self.behind_first(rows))

    def _normalized_and_dropped(self, x: Tensor, level: int) -> Tensor:
        """Drawn from PyTorch's default CPU stream."""
        share = self.dropout[level]
        mask = (torch.rand(x.shape) >= share).to(x.device, x.dtype).div_(1 - share)
        centred = x - x.mean(0)
        scale = torch.rsqrt(centred.square().mean(0) + EPSILON) * self.gains[level]
        return torch.addcmul(self.shifts[level], centred, scale) * mask

    def loss(self, real: Tensor, fake: Rows, penalty: float) -> Tensor:
        """mean D(fake) - mean D(real) + `penalty` mean (|gradient of sum D at x| - 1)^2, x between real and fake rows.

        The first layer, nearly all of the work, sees each row once: x is mixed after it, with one share for each row, and
        the gradient at x is that behind it times the layer's matrix.

        Args:
            real: [B, I], each the counterpart of several fake rows, B apart.
            fake: [K B, I].
        """
        behind_fake, behind_real = self.behind_first(fake), self.behind_first(real)
        behind_real = behind_real.repeat(len(behind_fake) // len(real), 1)
        judged_fake, judged_real = self.judge(behind_fake).mean(), self.judge(behind_real).mean()
        share = torch.rand(len(behind_fake), 1).to(behind_fake)
        between = torch.lerp(behind_fake, behind_real, share)
        (behind,) = torch.autograd.grad(self.judge(between).sum(), between, create_graph=True)
        lengths = lengths_of_products(behind, self.first)
        return judged_fake - judged_real + penalty * (lengths - 1).square().mean()
