"""Initialisers under the names that model files written for MMRec import; ours are in common/initial.py."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def xavier_normal_initialization(module: nn.Module) -> None:
    """For `model.apply`, as MMRec's files use it: Xavier normal weights of embeddings and linear layers, zero bias."""
    _initialize(module, nn.init.xavier_normal_)


def xavier_uniform_initialization(module: nn.Module) -> None:
    """For `model.apply`, as MMRec's files use it: Xavier uniform weights of embeddings and linear layers, zero bias."""
    _initialize(module, nn.init.xavier_uniform_)


def _initialize(module: nn.Module, draw: Callable[[torch.Tensor], torch.Tensor]) -> None:
    if isinstance(module, nn.Embedding | nn.Linear):
        draw(module.weight)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
