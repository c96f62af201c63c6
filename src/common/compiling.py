"""torch.compile over dense parts of a model in training; sparse products, random draws and evaluation stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from utils.errors import UserError


def compile_dense_methods(model: nn.Module, device: torch.device) -> None:
    """Has the methods that the model and its modules list in `dense_methods` compiled when they are first used in training.

    Such a method computes with tensors alone, draws nothing and holds no sparse product. Sizes may change from call to call.

    Raises:
        UserError: if there is no such method, or torch.compile does not work here.
    """
    found = [(module, name) for module in model.modules() for name in getattr(module, "dense_methods", ())]
    if not found:
        raise UserError(f"compile: {type(model).__name__} has no dense part to compile; use --compile false")
    try:
        torch.compile(lambda x: 2 * x.sigmoid() + 1, dynamic=True)(torch.ones(3, device=device))
    except Exception as error:  # of many kinds, by version and by what is missing
        reason = str(error).strip().partition("\n")[0]
        needed = "Triton and a C compiler" if device.type == "cuda" else "a C++ compiler"
        raise UserError(
            f"compile: torch.compile does not work here ({reason}); it needs {needed}, and Python's headers; "
            "or use --compile false"
        ) from None
    for module, name in found:
        setattr(module, name, _compiled_in_training(module, getattr(module, name)))


def _compiled_in_training(module: nn.Module, method: Callable[..., Any]) -> Callable[..., Any]:
    compiled = torch.compile(method, dynamic=True)

    def call(*arguments: Any, **named: Any) -> Any:
        return (compiled if module.training else method)(*arguments, **named)

    return call
