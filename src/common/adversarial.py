"""A Wasserstein critic over rows, with a penalty on its gradient, made for rows that are wide.

Source: Gulrajani et al., "Improved Training of Wasserstein GANs" (arXiv 1704.00028); MMSSL (arXiv 2302.10632).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.dropout import dropped
from common.precision import single_precision

EPSILON = 1e-5  # of the normalisation over the batch


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
        self.first = nn.Linear(sizes[0], sizes[1], bias=False)
        self.second = nn.Linear(sizes[1], sizes[2], bias=False)
        self.last = nn.Linear(sizes[2], 1)
        for layer in (self.first, self.second, self.last):
            nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(self.last.bias)
        self.gains = nn.ParameterList(torch.ones(size) for size in sizes[1:])
        self.shifts = nn.ParameterList(torch.zeros(size) for size in sizes[1:])

    @single_precision
    def judge(self, hidden: Tensor) -> Tensor:
        """Scores [n] from the first layer's results [n, I // 4]."""
        hidden = dropped(self._normalized(hidden, 0), self.dropout[0])
        hidden = dropped(self._normalized(self.second(hidden), 1), self.dropout[1])
        return self.scale * torch.sigmoid(self.last(hidden)).squeeze(1)

    def forward(self, rows: Tensor) -> Tensor:
        """Scores [n] of rows [n, I]."""
        return self.judge(self.first(rows))

    def _normalized(self, x: Tensor, level: int) -> Tensor:
        centred = x - x.mean(0)
        return centred * torch.rsqrt(centred.square().mean(0) + EPSILON) * self.gains[level] + self.shifts[level]

    def loss(self, real: Tensor, fake: Tensor, penalty: float) -> Tensor:
        """mean D(fake) - mean D(real) + `penalty` mean (|gradient of sum D at x| - 1)^2, x between real and fake rows.

        The first layer, nearly all of the work, sees each row once: x is mixed after it, with one share for each row, and
        the gradient at x is that behind it times the layer's matrix.

        Args:
            real: [B, I], each the counterpart of several fake rows, B apart.
            fake: [K B, I].
        """
        behind_fake, behind_real = self.first(fake), self.first(real)
        behind_real = behind_real.repeat(len(fake) // len(real), 1)
        judged_fake, judged_real = self.judge(behind_fake).mean(), self.judge(behind_real).mean()
        share = torch.rand(len(fake), 1).to(fake)
        between = share * behind_real + (1 - share) * behind_fake
        (behind,) = torch.autograd.grad(self.judge(between).sum(), between, create_graph=True)
        lengths = torch.linalg.vector_norm(behind @ self.first.weight, dim=1)
        return judged_fake - judged_real + penalty * (lengths - 1).square().mean()
