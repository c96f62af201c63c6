"""A loss that is a sum over rows, computed in blocks of rows: no matrix of all rows and columns outlives its block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from common.precision import single_precision

OfBlock = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]


class _SumOverBlocks(torch.autograd.Function):
    """The gradient of a block is made as soon as its value is, so that its graph is freed."""

    @staticmethod
    def forward(ctx: Any, function: OfBlock, size: int, n_rows: int, *tensors: Tensor) -> Tensor:
        rows = tensors[:n_rows]
        others = [tensor.detach().requires_grad_() for tensor in tensors[n_rows:]]
        of_rows = [torch.empty_like(tensor) for tensor in rows]
        of_others = [torch.zeros_like(tensor) for tensor in others]
        total = tensors[0].new_zeros(())
        for begin in range(0, len(rows[0]), size):
            block = slice(begin, begin + size)
            own = [tensor[block].detach().requires_grad_() for tensor in rows]
            with torch.enable_grad():
                part = function(own, others)
                found = torch.autograd.grad(part, [*own, *others])
            total += part.detach()
            for target, gradient in zip(of_rows, found[:n_rows], strict=True):
                target[block] = gradient
            torch._foreach_add_(of_others, found[n_rows:])
        ctx.save_for_backward(*of_rows, *of_others)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # under create_graph: what was saved is a constant to it
            raise RuntimeError("sum_over_blocks has no second derivative")
        return None, None, None, *(saved * gradient for saved in ctx.saved_tensors)


@single_precision
def sum_over_blocks(function: OfBlock, size: int, rows: list[Tensor], others: list[Tensor]) -> Tensor:
    """sum over blocks b of function(rows of b, others), differentiable once in all tensors.

    Args:
        function: of the block's rows, each [b, *], and of the others; gives a scalar that uses every one of them and draws
            nothing at random.
        size: rows of a block, at least 1.
        rows: tensors [R, *] that are taken apart.
        others: tensors that every block sees as they are.
    """
    total: Tensor = _SumOverBlocks.apply(function, size, len(rows), *rows, *others)
    return total
