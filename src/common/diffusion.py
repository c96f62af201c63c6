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

FIRST_CORRECTION = 0.01  # of the last layer's initial weights, where the network corrects its input


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

    def estimate_noise(self, x_t: Tensor, t: Tensor, x0: Tensor) -> Tensor:
        """The noise that leads from x_0 to x_t: (x_t - sqrt(alpha_bar_t) x_0) / sqrt(1 - alpha_bar_t), [B, D]."""
        signal, spread = self._coefficients(t)
        return (x_t - signal * x0) / spread

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

    Rows and conditions are brought to unit mean square, since embeddings at Xavier scale drown in unit noise, and what is
    generated is brought back to the rows' own. The condition gets no gradient.

    Args:
        schedule: of the noise, shared between modalities.
        width: D.
        levels: widths of the U-Net.
        prediction: what the network predicts: `noise`, the text's choice, or `start`, the correction that leads from x_t to
            x_0 (next to nothing before training), as the denoisers of collaborative diffusion do.
    """

    def __init__(self, schedule: LinearSchedule, width: int, levels: Sequence[int], prediction: str = "noise") -> None:
        super().__init__()
        self.schedule, self.predicts_start = schedule, prediction == "start"
        self.network = ConditionalUNet(width, levels, schedule.n_steps)
        if self.predicts_start:
            with torch.no_grad():
                self.network.out.weight.mul_(FIRST_CORRECTION)
                self.network.out.bias.zero_()

    def estimate(self, rows: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """The one-step estimate of x_0 [B, D] at a random time per row, and the mean squared error of each row [B].

        The error is that of the predicted noise, or of the predicted x_0; its target gets no gradient.
        """
        scale = root_mean_square(rows)
        start = rows / scale
        # Drawn on the CPU whatever the device, so that a seed means the same noise everywhere.
        t = torch.randint(1, self.schedule.n_steps + 1, (len(start),)).to(start.device)
        noise = torch.randn(start.shape).to(start.device, start.dtype)
        found, predicted = self._predict(self.schedule.add_noise(start, t, noise), t, unit_rows(condition.detach()))
        error = found - start.detach() if self.predicts_start else predicted - noise
        return found * scale, error.square().mean(dim=1)

    def generate(self, rows: Tensor, condition: Tensor, n_steps: int) -> Tensor:
        """Content [B, D] generated for evaluation (Eq. 5), each row by itself.

        Args:
            rows, condition: [B, D].
            n_steps: of the deterministic generation (DDIM), which starts at the observed row; 0: the ancestral one, T steps
                from pure noise, with one fixed draw for all rows, so that no row depends on its place.
        """
        schedule, last = self.schedule, self.schedule.n_steps
        scale = root_mean_square(rows)
        x, condition = rows / scale, unit_rows(condition)
        if n_steps == 0:
            random = torch.Generator().manual_seed(0)
            draws = torch.randn(last, x.shape[1], generator=random).to(x)
            x = draws[0].expand_as(x)
            for time in range(last, 0, -1):
                fresh = draws[last - time + 1] if time > 1 else torch.zeros_like(draws[0])
                x = schedule.ddpm_step(x, time, self._noise_in(x, time, condition), fresh)
            return x * scale
        times = sorted({round(last * step / n_steps) for step in range(n_steps + 1)})
        for time, earlier in zip(times[:0:-1], times[-2::-1], strict=True):
            x = schedule.ddim_step(x, time, earlier, self._noise_in(x, time, condition))
        return x * scale

    def _predict(self, x_t: Tensor, t: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """The estimates of x_0 and of the noise in x_t [B, D] at times t [B]."""
        predicted: Tensor = self.network(x_t, t, condition)
        if self.predicts_start:
            return x_t + predicted, self.schedule.estimate_noise(x_t, t, x_t + predicted)
        return self.schedule.estimate_start(x_t, t, predicted), predicted

    def _noise_in(self, x: Tensor, time: int, condition: Tensor) -> Tensor:
        return self._predict(x, torch.full((len(x),), time, device=x.device), condition)[1]


def unit_rows(x: Tensor) -> Tensor:
    """x [B, D] with each row brought to unit mean square; zero rows stay zero."""
    return x / root_mean_square(x)


def root_mean_square(x: Tensor) -> Tensor:
    """The root mean square of each row of x [B, D], at least 1e-8: [B, 1]."""
    return x.square().mean(dim=1, keepdim=True).clamp_min(1e-16).sqrt()
