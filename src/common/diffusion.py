"""Diffusion over embedding vectors: schedule, forward noising, estimates, reverse steps, conditional denoiser.

`Denoiser` puts them together: content rows brought to unit variance, denoised given the interaction embedding of the node.

Time runs from 1 to T; index t stands for alpha_bar_t = prod_{s<=t} (1 - beta_s), and alpha_bar_0 = 1.

Source: Ho et al., DDPM (arXiv 2006.11239); Song et al., DDIM (arXiv 2010.02502); GTC (arXiv 2604.03014).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Schedule(nn.Module):
    """The noise of each time.

    Args:
        beta: of t = 1..T, in (0, 1), float64 [T].
    """

    beta: Tensor  # [T + 1], beta[0] = 0
    alpha_bar: Tensor  # [T + 1], alpha_bar[0] = 1

    def __init__(self, beta: Tensor) -> None:
        super().__init__()
        self.n_steps = len(beta)
        beta = torch.cat([torch.zeros(1), beta])
        self.register_buffer("beta", beta.float(), persistent=False)
        self.register_buffer("alpha_bar", torch.cumprod(1 - beta, dim=0).float(), persistent=False)

    def _coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t) as columns [B, 1]."""
        alpha_bar = self.alpha_bar[t][:, None]
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def add_noise(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps, GTC Eq. (3); x0 and noise [B, D], t [B]."""
        signal, spread = self._coefficients(t)
        return signal * x0 + spread * noise

    def estimate_start(self, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """The posterior mean of x_0 (Tweedie): (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t), [B, D]."""
        signal, spread = self._coefficients(t)
        return (x_t - spread * noise) / signal

    def ddim_step(self, x_t: Tensor, t: int, earlier: int, noise: Tensor) -> Tensor:
        """The deterministic DDIM step from time t to `earlier` < t with the predicted noise."""
        at = torch.full((len(x_t),), t, device=x_t.device)
        return self.add_noise(self.estimate_start(x_t, at, noise), torch.full_like(at, earlier), noise)

    def ddpm_step(self, x_t: Tensor, t: int, noise: Tensor, fresh: Tensor) -> Tensor:
        """The ancestral step from t to t - 1, GTC Eq. (5), with sigma_t^2 = beta_t (1 - abar_{t-1}) / (1 - abar_t)."""
        beta, now, before = self.beta[t], self.alpha_bar[t], self.alpha_bar[t - 1]
        mean = (x_t - beta / (1 - now).sqrt() * noise) / (1 - beta).sqrt()
        return mean + (beta * (1 - before) / (1 - now)).sqrt() * fresh


class LinearSchedule(Schedule):
    """beta_t linear from `beta_first` to `beta_last` over t = 1..T.

    Args:
        n_steps: T >= 1.
        beta_first, beta_last: in (0, 1).
    """

    def __init__(self, n_steps: int, beta_first: float, beta_last: float) -> None:
        super().__init__(torch.linspace(beta_first, beta_last, n_steps, dtype=torch.float64))


def sinusoidal_embedding(n_steps: int, width: int) -> Tensor:
    """sin and cos of t / 10000^(2k/width) for t = 0..T: [T + 1, width], width even."""
    frequency = torch.exp(-math.log(10_000) * torch.arange(0, width, 2) / width)
    angle = torch.arange(n_steps + 1)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class ConditionalUNet(nn.Module):
    """A small U-Net over vectors that predicts the noise in x_t given the time and a condition.

    Down D -> w_1 -> ... -> w_k, up again with the skip of each level joined by concatenation, x_t itself joined last. The
    condition and the time (a sinusoidal embedding), each projected, enter at the first level.

    Args:
        width: D of x and of the condition.
        levels: w_1..w_k.
        n_steps: T of the schedule.
        time_width: of the sinusoidal embedding, even.
    """

    dense_methods = ("forward",)
    times: Tensor  # [T + 1, time_width]

    def __init__(self, width: int, levels: Sequence[int], n_steps: int, time_width: int = 64) -> None:
        super().__init__()
        sizes = [width, *levels]
        self.down = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.condition = nn.Linear(width, levels[0], bias=False)
        self.time = nn.Linear(time_width, levels[0], bias=False)
        self.up = nn.ModuleList()
        inside = levels[-1]
        for skip in reversed(sizes[:-1]):
            self.up.append(nn.Linear(inside, skip))
            inside = 2 * skip
        self.out = nn.Linear(inside, width)
        self.register_buffer("times", sinusoidal_embedding(n_steps, time_width), persistent=False)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """The predicted noise [B, D] for x_t [B, D], t [B] in 1..T and condition [B, D]."""
        skips = [x]
        hidden = x
        for level, layer in enumerate(self.down):
            hidden = layer(hidden)
            if level == 0:
                # Projecting the table of times costs less than projecting every row's time.
                hidden = hidden + self.condition(condition) + F.embedding(t, self.time(self.times))
            hidden = F.silu(hidden)
            skips.append(hidden)
        skips.pop()
        for layer in self.up:
            hidden = torch.cat([F.silu(layer(hidden)), skips.pop()], dim=1)
        result: Tensor = self.out(hidden)
        return result


class Denoiser(nn.Module):
    """A diffusion model of content rows given the interaction embedding of the same node, GTC Eqs. (3)-(5).

    Rows and conditions are brought to unit mean square: embeddings at Xavier scale drown in unit noise.

    Args:
        schedule: of the noise, shared between modalities.
        width: D.
        levels: widths of the U-Net.
        detach: no gradient into the condition.
    """

    def __init__(self, schedule: LinearSchedule, width: int, levels: Sequence[int], detach: bool) -> None:
        super().__init__()
        self.schedule, self.detach = schedule, detach
        self.network = ConditionalUNet(width, levels, schedule.n_steps)

    def estimate(self, start: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """The one-step estimate of x_0 [B, D] at a random time per row, and the mean squared error of the noise."""
        start, condition = unit_rows(start), unit_rows(condition.detach() if self.detach else condition)
        # Drawn on the CPU whatever the device, so that a seed means the same noise everywhere.
        t = torch.randint(1, self.schedule.n_steps + 1, (len(start),)).to(start.device)
        noise = torch.randn(start.shape).to(start.device, start.dtype)
        noisy = self.schedule.add_noise(start, t, noise)
        predicted = self.network(noisy, t, condition)
        return self.schedule.estimate_start(noisy, t, predicted), F.mse_loss(predicted, noise)

    def generate(self, start: Tensor, condition: Tensor, path: str, share: float, n_steps: int) -> Tensor:
        """Content [B, D] generated deterministically for evaluation (Eq. 5).

        One fixed noise vector serves all nodes: what it adds is then nearly the same for every item and leaves the ranking
        alone, and no node depends on its place in a block.

        Args:
            start, condition: [B, D].
            path: `one_step`, `ddim` or `ddpm`.
            share: of T at which generation starts; 1 starts from pure noise unless `one_step`.
            n_steps: of ddim.
        """
        schedule = self.schedule
        start, condition = unit_rows(start), unit_rows(condition)
        random = torch.Generator().manual_seed(0)

        def draw() -> Tensor:
            return torch.randn(1, start.shape[1], generator=random).to(start).expand_as(start)

        def noise_in(x: Tensor, time: int) -> Tensor:
            predicted: Tensor = self.network(x, torch.full((len(x),), time, device=x.device), condition)
            return predicted

        t = max(1, round(share * schedule.n_steps))
        at, noise = torch.full((len(start),), t, device=start.device), draw()
        if path == "one_step":
            x = schedule.add_noise(start, at, noise)
            return schedule.estimate_start(x, at, noise_in(x, t))
        x = noise if t == schedule.n_steps else schedule.add_noise(start, at, noise)
        if path == "ddpm":
            for time in range(t, 0, -1):
                x = schedule.ddpm_step(x, time, noise_in(x, time), draw())
            return x
        times = sorted({round(t * k / n_steps) for k in range(n_steps + 1)})
        for time, earlier in zip(times[:0:-1], times[-2::-1], strict=True):
            x = schedule.ddim_step(x, time, earlier, noise_in(x, time))
        return x


def unit_rows(x: Tensor) -> Tensor:
    """x [B, D] with each row brought to unit mean square; zero rows stay zero."""
    return x / root_mean_square(x)


def root_mean_square(x: Tensor) -> Tensor:
    """The root mean square of each row of x [B, D], at least 1e-8: [B, 1]."""
    return x.square().mean(dim=1, keepdim=True).clamp_min(1e-16).sqrt()
