"""Mixed precision: what may run in bfloat16 in a training step, and what stays in single precision there."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from utils.errors import UserError

Function = TypeVar("Function", bound=Callable[..., Any])
HALVES = (torch.bfloat16, torch.float16)


def mixed_precision(device: torch.device, enabled: bool) -> torch.autocast:
    """The context of a step's forward pass: dense products in bfloat16 if `enabled`, else all is as it would be without.

    Raises:
        UserError: if the device has no bfloat16.
    """
    if enabled and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError(f"amp: {torch.cuda.get_device_name(device)} has no bfloat16; use --amp false")
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def single_precision(function: Function) -> Function:
    """The function, computed in float32 under `mixed_precision` too: half-precision arguments are widened there.

    Arguments may be tensors and lists of these. Its backward pass computes in float32 likewise.
    """

    @functools.wraps(function)
    def widened(*arguments: Any, **named: Any) -> Any:
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                with torch.autocast(kind, enabled=False):
                    wide = {key: _wide(argument) for key, argument in named.items()}
                    return function(*map(_wide, arguments), **wide)
        return function(*arguments, **named)

    return widened  # type: ignore[return-value]


def _wide(argument: Any) -> Any:
    if isinstance(argument, list):
        return [_wide(entry) for entry in argument]
    return argument.float() if isinstance(argument, Tensor) and argument.dtype in HALVES else argument
