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
    if out is None:
        shape = list(src.shape)
        shape[dim] = _size(index, dim_size)
        out = src.new_zeros(shape)
    return out.scatter_add_(dim, _spread(src, index, dim), src)


def _size(index: Tensor, dim_size: int | None) -> int:
    largest = int(index.max()) + 1 if index.numel() else 0
    return largest if dim_size is None else dim_size


def _spread(src: Tensor, index: Tensor, dim: int) -> Tensor:
    """index in src's shape; a vector goes along `dim`."""
    if index.dim() == 1:
        index = index.view([-1 if place == dim else 1 for place in range(src.dim())])
    while index.dim() < src.dim():
        index = index.unsqueeze(-1)
    return index.expand_as(src)


scatter_sum = scatter_add


def scatter_mean(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> Tensor:
    """As `scatter_add`, divided by how many slices went to each place; places that got none stay."""
    total = scatter_add(src, index, dim, out, dim_size)
    count = scatter_add(torch.ones_like(src), index, dim, None, total.shape[dim])
    return total.div_(count.clamp(min=1)) if total.is_floating_point() else total.floor_divide_(count.clamp(min=1))


def _extreme(
    kind: str, src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None
) -> tuple[Tensor, Tensor]:  # fmt: skip
    dim = dim % src.dim()
    spread = _spread(src, index, dim)
    shape = list(src.shape)
    shape[dim] = _size(index, dim_size) if out is None else out.shape[dim]
    start = src.new_zeros(shape) if out is None else out
    found = start.scatter_reduce(dim, spread, src, kind, include_self=out is not None)
    # Where each came from; as the package has it, the size of src where nothing did.
    places = torch.arange(src.shape[dim], device=src.device).view([-1 if d == dim else 1 for d in range(src.dim())])
    hit = found.gather(dim, spread) == src
    first = torch.where(hit, places.expand_as(src), src.shape[dim])
    argument = torch.full(shape, src.shape[dim], dtype=torch.long, device=src.device)
    return found, argument.scatter_reduce_(dim, spread, first, "amin")


def scatter_max(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """The largest slice that goes to each place (0 where none does), and where it came from."""
    return _extreme("amax", src, index, dim, out, dim_size)


def scatter_min(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """The smallest slice that goes to each place (0 where none does), and where it came from."""
    return _extreme("amin", src, index, dim, out, dim_size)


def scatter_softmax(src: Tensor, index: Tensor, dim: int = -1, dim_size: int | None = None) -> Tensor:
    """Softmax over the entries of src that index sends to the same place."""
    dim = dim % src.dim()
    spread = _spread(src, index, dim)
    largest = scatter_max(src.detach(), index, dim, dim_size=dim_size)[0].gather(dim, spread)
    weights = (src - largest).exp()
    return weights / scatter_add(weights, index, dim, dim_size=dim_size).gather(dim, spread)


def scatter(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    """Slices of src gathered by the word `reduce`: sum or add, mean, max or min.

    Raises:
        ValueError: for another word.
    """
    if reduce in ("max", "min"):
        return (scatter_max if reduce == "max" else scatter_min)(src, index, dim, out, dim_size)[0]
    kinds = {"sum": scatter_add, "add": scatter_add, "mean": scatter_mean}
    if reduce not in kinds:
        raise ValueError(f"scatter offers reduce {', '.join(kinds)}, max and min, got {reduce!r}")
    return kinds[reduce](src, index, dim, out, dim_size)
