"""Dropout whose mask is drawn on the CPU, so that a seed means the same on every device."""

from __future__ import annotations

import torch
from torch import Tensor


def dropped(x: Tensor, share: float) -> Tensor:
    """x with each entry set to 0 with probability `share`, the others divided by 1 - `share`.

    Drawn from PyTorch's default CPU stream; nothing is drawn for a share of 0.
    """
    if share == 0:
        return x
    kept = torch.rand(x.shape) >= share
    return x * kept.to(x.device, x.dtype) / (1 - share) if share < 1 else torch.zeros_like(x)
