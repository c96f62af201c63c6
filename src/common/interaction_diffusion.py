"""Diffusion over users' interaction rows [B, I]: a network that predicts the clean row, and what it would add to a user's.

Source: Wang et al., "Diffusion Recommender Model", SIGIR 2023 (arXiv 2304.04971); Jiang et al., DiffMM (arXiv 2406.11781).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.diffusion import Schedule
from common.initial import xavier_normal_linear

TIME_WIDTH = 10
BIAS_SPREAD = 0.001  # standard deviation of the biases at the start


class RowSchedule(Schedule):
    """Small noise for binary rows: 1 - alpha_bar_t is linear in t from scale * low to scale * high.

    As in the authors' code, beta_1 is then set to 1e-4 and alpha_bar is that of the changed betas.

    Args:
        n_steps: T >= 2.
        scale, low, high: of the variance of the noise.
    """

    loss_weights: Tensor  # [T + 1], entry 0 unused
    posterior: Tensor  # [T + 1, 2], entry 0 unused: weights of the estimate of x_0 and of x_t in the mean of x_(t-1)

    def __init__(self, n_steps: int, scale: float, low: float, high: float) -> None:
        kept = 1 - torch.linspace(scale * low, scale * high, n_steps, dtype=torch.float64)
        beta = torch.cat([1 - kept[:1], (1 - kept[1:] / kept[:-1]).clamp(max=0.999)])
        beta[0] = 1e-4
        super().__init__(beta)
        now = torch.cumprod(1 - beta, dim=0)
        before = torch.cat([torch.ones(1, dtype=torch.float64), now[:-1]])
        of_start, of_now = beta * before.sqrt() / (1 - now), (1 - before) * (1 - beta).sqrt() / (1 - now)
        ratio = now / (1 - now)  # signal to noise
        weights = torch.cat([torch.ones(2, dtype=torch.float64), ratio[:-1] - ratio[1:]])
        posterior = torch.cat([torch.zeros(1, 2, dtype=torch.float64), torch.stack([of_start, of_now], dim=1)])
        self.register_buffer("loss_weights", weights.float(), persistent=False)
        self.register_buffer("posterior", posterior.float(), persistent=False)


class RowDenoiser(nn.Module):
    """x^ = V tanh(W x + W_t (M c_t + m) + b) + v, with c_t the cosines and sines of the time.

    Args:
        n_items: I.
        width: between the two layers.
        n_steps: T of the schedule.
    """

    codes: Tensor  # [T, TIME_WIDTH], of t = 1..T, counted from 0

    def __init__(self, n_items: int, width: int, n_steps: int) -> None:
        super().__init__()
        self.n_items = n_items
        self.time = xavier_normal_linear(TIME_WIDTH, TIME_WIDTH)
        self.first = xavier_normal_linear(n_items + TIME_WIDTH, width)
        self.second = xavier_normal_linear(width, n_items)
        for layer in (self.time, self.first, self.second):
            nn.init.normal_(layer.bias, std=BIAS_SPREAD)
        half = TIME_WIDTH // 2
        angle = torch.arange(n_steps)[:, None] * torch.exp(-math.log(10_000) * torch.arange(half) / half)
        self.register_buffer("codes", torch.cat([angle.cos(), angle.sin()], dim=1), persistent=False)

    def shifts(self) -> Tensor:
        """What each time adds in the hidden layer: [T, width]."""
        by_time: Tensor = F.linear(self.time(self.codes), self.first.weight[:, self.n_items :], self.first.bias)
        return by_time

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The estimate of x_0 [B, I] for x_t [B, I] at times int64 [B] in 1..T."""
        hidden = F.linear(x, self.first.weight[:, : self.n_items]) + F.embedding(t - 1, self.shifts())
        estimate: Tensor = self.second(torch.tanh(hidden))
        return estimate

    def generator(self, schedule: RowSchedule) -> RowGenerator:
        """What `RowGenerator` is, for the weights as they are now."""
        return RowGenerator(self, schedule)


class RowGenerator:
    """The reverse steps from clean rows without noise, x <- c_1 x^(x, t) + c_2 x for t = T..1.

    All steps but the last are in the hidden layer: with p = W x, p <- c_1 ((W V) h + W v) + c_2 p. That is the same
    algebra at the cost of one product with V in place of T with V and T with W.

    Args:
        denoiser: its weights are read once, here.
        schedule: with as many steps.
    """

    @torch.no_grad()
    def __init__(self, denoiser: RowDenoiser, schedule: RowSchedule) -> None:
        self.second, self.shifts, self.posterior = denoiser.second, denoiser.shifts(), schedule.posterior
        weight = denoiser.first.weight[:, : denoiser.n_items]  # W [width, I]
        self.by_item = weight.T.contiguous()
        self.mix, self.shift = weight @ self.second.weight, weight @ self.second.bias  # W V, W v

    @torch.no_grad()
    def __call__(self, offsets: Tensor, items: Tensor) -> Tensor:
        """x_0 [B, I] generated from the rows that hold 1 at `items` int64 [n], row b's from offsets[b], [B + 1]."""
        place = F.embedding_bag(items, self.by_item, offsets, mode="sum", include_last_offset=True)  # W x
        for t in range(len(self.shifts), 1, -1):
            of_start, of_now = self.posterior[t]
            hidden = torch.tanh(place + self.shifts[t - 1])
            place = of_start * (hidden @ self.mix.T + self.shift) + of_now * place
        estimate: Tensor = self.second(torch.tanh(place + self.shifts[0]))
        return estimate  # alpha_bar_0 is 1: at t = 1 the mean is the estimate itself
