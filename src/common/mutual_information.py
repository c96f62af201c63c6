"""CLUB: an upper bound of mutual information that a model can lower, by a Gaussian that is fitted beside the model.

q(y | x) = N(mu(x), diag exp lv(x)). It is fitted by its own Adam on constant x and y; to the model's loss it is a constant.
So its weights are buffers, and with the moments of that Adam part of the state dict: a resumed run goes on as it would.

Source: Cheng et al., "CLUB: A Contrastive Log-ratio Upper Bound of Mutual Information", ICML 2020 (arXiv 2006.12013).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.initial import as_constants
from common.precision import single_precision

DECAYS = (0.9, 0.999)  # of Adam's moments
EPSILON = 1e-8


class ClubEstimator(nn.Module):
    """CLUB for rows x and y of one width.

    Args:
        width: D.
        hidden: width between the two layers of mu and of lv; lv ends with tanh.
        learning_rate: of the own Adam.
    """

    first_moment: Tensor  # [P], of all weights side by side
    second_moment: Tensor  # [P]
    steps: Tensor  # int64 scalar

    def __init__(self, width: int, hidden: int, learning_rate: float = 1e-4) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.mean = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.log_variance = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.Tanh())
        as_constants(self)
        size = sum(weights.numel() for weights in self.buffers())
        self.register_buffer("first_moment", torch.zeros(size))
        self.register_buffer("second_moment", torch.zeros(size))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @single_precision
    def bound(self, x: Tensor, y: Tensor, order: Tensor) -> Tensor:
        """1/2 mean_i sum_d [(y_order(i) - mu(x_i))^2 - (y_i - mu(x_i))^2] / exp lv(x_i), differentiable in x and y.

        Args:
            x, y: [B, D].
            order: a permutation int64 [B].
        """
        mean, precision = self.mean(x), torch.exp(-self.log_variance(x))
        gap = (y[order] - mean).square() - (y - mean).square()
        bound: Tensor = (gap * precision).sum(1).mean() / 2
        return bound

    def negative_log_likelihood(self, x: Tensor, y: Tensor) -> Tensor:
        """mean_i sum_d [(y_i - mu(x_i))^2 / exp lv(x_i) + lv(x_i)], without the constant and the factor 1/2."""
        log_variance = self.log_variance(x)
        error = (y - self.mean(x)).square() * torch.exp(-log_variance)
        loss: Tensor = (error + log_variance).sum(1).mean()
        return loss

    def fit_step(self, x: Tensor, y: Tensor) -> None:
        """One step of Adam on the negative log-likelihood of constant x, y [B, D]."""
        weights = [*self.mean.buffers(), *self.log_variance.buffers()]
        try:
            with torch.enable_grad():
                for tensor in weights:
                    tensor.requires_grad_()
                parts = torch.autograd.grad(self.negative_log_likelihood(x.detach(), y.detach()), weights)
        finally:
            for tensor in weights:
                tensor.requires_grad_(False)
        gradient = torch.cat([part.flatten() for part in parts])
        self.steps += 1
        steps = int(self.steps)
        self.first_moment.lerp_(gradient, 1 - DECAYS[0])
        self.second_moment.lerp_(gradient.square(), 1 - DECAYS[1])
        first = self.first_moment / (1 - DECAYS[0] ** steps)
        second = self.second_moment / (1 - DECAYS[1] ** steps)
        change = self.learning_rate * first / (second.sqrt() + EPSILON)
        for tensor, part in zip(weights, change.split([tensor.numel() for tensor in weights]), strict=True):
            tensor.sub_(part.view_as(tensor))
