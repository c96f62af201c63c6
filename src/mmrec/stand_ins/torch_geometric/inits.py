"""Initialisers under PyTorch Geometric's names; a value that is None is left alone."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn


def uniform(size: int, value: Any) -> None:
    """Uniform between -1/sqrt(size) and 1/sqrt(size), in a tensor or all parameters and buffers of a module."""
    bound = 1 / math.sqrt(size)
    for tensor in _tensors(value):
        tensor.data.uniform_(-bound, bound)


def glorot(value: Any) -> None:
    """Uniform with the bound sqrt(6 / (rows + columns)) of the last two dimensions."""
    for tensor in _tensors(value):
        bound = math.sqrt(6 / (tensor.size(-2) + tensor.size(-1)))
        tensor.data.uniform_(-bound, bound)


def constant(value: Any, fill_value: float) -> None:
    """One number everywhere."""
    for tensor in _tensors(value):
        tensor.data.fill_(fill_value)


def zeros(value: Any) -> None:
    """0 everywhere."""
    constant(value, 0.0)


def ones(value: Any) -> None:
    """1 everywhere."""
    constant(value, 1.0)


def normal(value: Any, mean: float, std: float) -> None:
    """Normally distributed."""
    for tensor in _tensors(value):
        tensor.data.normal_(mean, std)


def reset(value: Any) -> None:
    """Calls `reset_parameters` of a module or, where it has none, of its parts."""
    if hasattr(value, "reset_parameters"):
        value.reset_parameters()
    elif isinstance(value, nn.Module):
        for part in value.children():
            reset(part)


def _tensors(value: Any) -> list[Tensor]:
    if value is None:
        return []
    return [value] if isinstance(value, Tensor) else [*value.parameters(), *value.buffers()]
