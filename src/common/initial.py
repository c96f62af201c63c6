"""Initialisation of tables and layers by the names that the field's models use."""

from __future__ import annotations

import torch
from torch import nn


def xavier_uniform_embedding(rows: int, width: int) -> nn.Parameter:
    """A table [rows, width], uniform with bound sqrt(6 / (rows + width))."""
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(rows, width)))


def xavier_normal_embedding(rows: int, width: int) -> nn.Parameter:
    """A table [rows, width], normal with standard deviation sqrt(2 / (rows + width))."""
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(rows, width)))


def xavier_uniform_linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """A linear layer with Xavier uniform weights and PyTorch's default bias, uniform in 1/sqrt(inputs)."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    return layer


def xavier_normal_linear(inputs: int, outputs: int, zero_bias: bool = True, bias: bool = True) -> nn.Linear:
    """A linear layer with Xavier normal weights; its bias is zero or PyTorch's default, uniform in 1/sqrt(inputs)."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.xavier_normal_(layer.weight)
    if bias and zero_bias:
        nn.init.zeros_(layer.bias)
    return layer


def as_constants(module: nn.Module) -> nn.Module:
    """The same module with buffers for parameters: it keeps its initial values, and the state dict still holds them."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach())
    return module
