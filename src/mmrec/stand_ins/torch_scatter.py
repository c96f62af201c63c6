"""The functions of torch_scatter that model files use, for machines without that package."""

from __future__ import annotations

import torch
from torch import Tensor


def scatter_add(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> Tensor:
    """Adds the slices of src along `dim` into the places that index names.

    Args:
        src: of any shape.
        index: int64, of src's shape or one that broadcasts to it; a vector goes along `dim`.
        dim: which dimension is gathered into.
        out: where to add; None: zeros.
        dim_size: its size along `dim` without `out`; None: the largest index plus one.
    """
    dim = dim % src.dim()
    if index.dim() == 1:
        index = index.view([-1 if place == dim else 1 for place in range(src.dim())])
    while index.dim() < src.dim():
        index = index.unsqueeze(-1)
    if out is None:
        shape = list(src.shape)
        largest = int(index.max()) + 1 if index.numel() else 0
        shape[dim] = largest if dim_size is None else dim_size
        out = src.new_zeros(shape)
    return out.scatter_add_(dim, index.expand_as(src), src)


scatter_sum = scatter_add


def scatter_mean(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> Tensor:
    """As `scatter_add`, divided by how many slices went to each place; places that got none stay."""
    total = scatter_add(src, index, dim, out, dim_size)
    count = scatter_add(torch.ones_like(src), index, dim, None, total.shape[dim])
    return total.div_(count.clamp(min=1)) if total.is_floating_point() else total.floor_divide_(count.clamp(min=1))


def scatter(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    """`scatter_add` or `scatter_mean`, by the word `reduce`: sum, add or mean.

    Raises:
        ValueError: for another word.
    """
    kinds = {"sum": scatter_add, "add": scatter_add, "mean": scatter_mean}
    if reduce not in kinds:
        raise ValueError(f"scatter offers reduce {', '.join(kinds)}, got {reduce!r}; pip install torch_scatter")
    return kinds[reduce](src, index, dim, out, dim_size)
