"""Helpers on edge lists under PyTorch Geometric's names. Edges are int64 [2, E]: sources, then targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from mmrec.stand_ins import torch_scatter
from mmrec.stand_ins.torch_scatter import scatter_add, scatter_max

__all__ = [
    "add_remaining_self_loops", "add_self_loops", "coalesce", "contains_self_loops", "degree", "dense_to_sparse",
    "dropout_adj", "dropout_edge", "from_scipy_sparse_matrix", "get_laplacian", "is_undirected",
    "remove_self_loops", "scatter", "softmax", "subgraph", "to_dense_adj", "to_scipy_sparse_matrix", "to_undirected",
]  # fmt: skip

Edges = tuple[Tensor, Tensor | None]


def number_of_nodes(edge_index: Tensor, num_nodes: int | None = None) -> int:
    """num_nodes, or one more than the largest node."""
    if num_nodes is not None:
        return num_nodes
    return int(edge_index.max()) + 1 if edge_index.numel() else 0


def scatter(src: Tensor, index: Tensor, dim: int = 0, dim_size: int | None = None, reduce: str = "sum") -> Tensor:
    """Slices of src gathered along `dim` at the places that index names: sum, mean, max or min."""
    return torch_scatter.scatter(src, index, dim, None, dim_size, reduce)


def degree(index: Tensor, num_nodes: int | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """How often each node stands in index [E]: [num_nodes], float32 unless dtype says otherwise."""
    ones = torch.ones(len(index), dtype=dtype or torch.get_default_dtype(), device=index.device)
    return scatter_add(ones, index, dim=0, dim_size=number_of_nodes(index, num_nodes))


def contains_self_loops(edge_index: Tensor) -> bool:
    """Whether some edge ends where it begins."""
    return bool((edge_index[0] == edge_index[1]).any())


def remove_self_loops(edge_index: Tensor, edge_attr: Tensor | None = None) -> Edges:
    """Edges and their attributes without those that end where they begin."""
    kept = edge_index[0] != edge_index[1]
    return edge_index[:, kept], None if edge_attr is None else edge_attr[kept]


def add_self_loops(
    edge_index: Tensor, edge_attr: Any = None, fill_value: Any = None, num_nodes: int | None = None, **_: Any
) -> Edges:
    """An edge more from each node to itself, with attribute `fill_value` (1), a number or a tensor."""
    if isinstance(edge_attr, int):  # old: num_nodes stood here
        edge_attr, num_nodes = None, edge_attr
    n = number_of_nodes(edge_index, num_nodes)
    loops = torch.arange(n, device=edge_index.device).expand(2, n)
    if edge_attr is not None:
        own = edge_attr.new_full((n, *edge_attr.shape[1:]), 1.0 if fill_value is None else fill_value)
        edge_attr = torch.cat([edge_attr, own])
    return torch.cat([edge_index, loops], dim=1), edge_attr


def add_remaining_self_loops(
    edge_index: Tensor, edge_attr: Tensor | None = None, fill_value: Any = None, num_nodes: int | None = None
) -> Edges:
    """As `add_self_loops`, where a node that has one keeps its attribute."""
    n = number_of_nodes(edge_index, num_nodes)
    own = edge_index[0] == edge_index[1]
    loops = torch.arange(n, device=edge_index.device).expand(2, n)
    if edge_attr is not None:
        values = edge_attr.new_full((n, *edge_attr.shape[1:]), 1.0 if fill_value is None else fill_value)
        values[edge_index[0][own]] = edge_attr[own]
        edge_attr = torch.cat([edge_attr[~own], values])
    return torch.cat([edge_index[:, ~own], loops], dim=1), edge_attr


def softmax(
    src: Tensor, index: Tensor, ptr: Any = None, num_nodes: int | None = None, dim: int = 0
) -> Tensor:  # fmt: skip
    """Softmax over the entries of src that index sends to the same node."""
    if isinstance(ptr, int):  # old: num_nodes stood here
        num_nodes = ptr
    n = number_of_nodes(index, num_nodes)
    largest = scatter_max(src.detach(), index, dim, dim_size=n)[0].index_select(dim, index)
    weights = (src - largest).exp()
    return weights / (scatter_add(weights, index, dim, dim_size=n) + 1e-16).index_select(dim, index)


def dropout_edge(
    edge_index: Tensor, p: float = 0.5, force_undirected: bool = False, training: bool = True
) -> tuple[Tensor, Tensor]:
    """Each edge kept with probability 1 - p; returns them and which these are (a mask; numbers if `force_undirected`)."""
    if not 0 <= p <= 1:
        raise ValueError(f"p: expected a probability, got {p}")
    if not training or p == 0:
        return edge_index, torch.ones(edge_index.shape[1], dtype=torch.bool, device=edge_index.device)
    kept = torch.rand(edge_index.shape[1], device=edge_index.device) >= p
    if not force_undirected:
        return edge_index[:, kept], kept
    kept &= edge_index[0] <= edge_index[1]
    places = kept.nonzero().flatten()
    half = edge_index[:, kept]
    return torch.cat([half, half.flip(0)], dim=1), places.repeat(2)


def dropout_adj(
    edge_index: Tensor,
    edge_attr: Tensor | None = None,
    p: float = 0.5,
    force_undirected: bool = False,
    num_nodes: int | None = None,
    training: bool = True,
) -> Edges:
    """Each edge, with its attribute, kept with probability 1 - p."""
    edges, kept = dropout_edge(edge_index, p, force_undirected, training)
    return edges, None if edge_attr is None else edge_attr[kept]


def get_laplacian(
    edge_index: Tensor,
    edge_weight: Tensor | None = None,
    normalization: str | None = None,
    dtype: torch.dtype | None = None,
    num_nodes: int | None = None,
) -> tuple[Tensor, Tensor]:
    """L = D - A, without `normalization`; sym: I - D^-1/2 A D^-1/2; rw: I - D^-1 A; A without its self-loops."""
    if normalization not in (None, "sym", "rw"):
        raise ValueError(f"normalization: expected None, sym or rw, got {normalization!r}")
    edge_index, edge_weight = remove_self_loops(edge_index, edge_weight)
    if edge_weight is None:
        edge_weight = torch.ones(
            edge_index.shape[1], dtype=dtype or torch.get_default_dtype(), device=edge_index.device
        )
    n = number_of_nodes(edge_index, num_nodes)
    row, column = edge_index
    degrees = scatter_add(edge_weight, row, dim=0, dim_size=n)
    loops = torch.arange(n, device=edge_index.device).expand(2, n)
    edges = torch.cat([edge_index, loops], dim=1)
    if normalization is None:
        return edges, torch.cat([-edge_weight, degrees])
    exponent = -0.5 if normalization == "sym" else -1.0
    scale = torch.where(degrees > 0, degrees.clamp(min=1e-30) ** exponent, torch.zeros_like(degrees))
    edge_weight = scale[row] * edge_weight * (scale[column] if normalization == "sym" else 1)
    return edges, torch.cat([-edge_weight, torch.ones_like(degrees)])


def coalesce(
    edge_index: Tensor, edge_attr: Tensor | None = None, num_nodes: int | None = None, reduce: str = "sum", **_: Any
) -> Any:
    """Edges sorted by source, then target, each once; attributes of equal ones reduced. Without attributes, edges alone."""
    n = number_of_nodes(edge_index, num_nodes)
    keys, places = torch.unique(edge_index[0] * n + edge_index[1], return_inverse=True)
    edges = torch.stack([keys.div(max(n, 1), rounding_mode="floor"), keys % max(n, 1)])
    return edges if edge_attr is None else (edges, scatter(edge_attr, places, 0, dim_size=len(keys), reduce=reduce))


def to_undirected(edge_index: Tensor, edge_attr: Tensor | None = None, num_nodes: int | None = None, **_: Any) -> Any:
    """Each edge and its reverse, once."""
    both = torch.cat([edge_index, edge_index.flip(0)], dim=1)
    return coalesce(both, None if edge_attr is None else torch.cat([edge_attr, edge_attr]), num_nodes)


def is_undirected(edge_index: Tensor, edge_attr: Tensor | None = None, num_nodes: int | None = None) -> bool:
    """Whether the reverse of each edge is there too."""
    n = number_of_nodes(edge_index, num_nodes)
    there, back = edge_index[0] * n + edge_index[1], edge_index[1] * n + edge_index[0]
    return bool(torch.equal(there.unique(), back.unique()))


def subgraph(
    subset: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None, relabel_nodes: bool = False, **_: Any
) -> Edges:
    """The edges between nodes of a subset [n], which is nodes or a mask."""
    nodes = subset.nonzero().flatten() if subset.dtype == torch.bool else subset
    n = max(number_of_nodes(edge_index), int(nodes.max()) + 1 if len(nodes) else 0)
    new = torch.full((n,), -1, dtype=torch.long, device=edge_index.device)
    new[nodes] = torch.arange(len(nodes), device=edge_index.device)
    kept = (new[edge_index[0]] >= 0) & (new[edge_index[1]] >= 0)
    edges = edge_index[:, kept]
    return new[edges] if relabel_nodes else edges, None if edge_attr is None else edge_attr[kept]


def to_scipy_sparse_matrix(
    edge_index: Tensor, edge_attr: Tensor | None = None, num_nodes: int | None = None
) -> sp.coo_matrix:  # fmt: skip
    """The matrix of the edges, ones where they have no attribute."""
    n = number_of_nodes(edge_index, num_nodes)
    row, column = edge_index.cpu().numpy()
    values = np.ones(len(row), dtype=np.float32) if edge_attr is None else edge_attr.detach().cpu().numpy().ravel()
    return sp.coo_matrix((values, (row, column)), (n, n))


def from_scipy_sparse_matrix(A: Any) -> tuple[Tensor, Tensor]:
    """Edges and weights of a scipy matrix."""
    A = A.tocoo()
    edges = np.stack([A.row, A.col]).astype(np.int64)
    return torch.from_numpy(edges), torch.from_numpy(A.data)


def dense_to_sparse(adj: Tensor) -> tuple[Tensor, Tensor]:
    """Edges and weights of a dense matrix [N, N]."""
    edges = adj.nonzero().t().contiguous()
    return edges, adj[edges[0], edges[1]]


def to_dense_adj(
    edge_index: Tensor, batch: Any = None, edge_attr: Tensor | None = None, max_num_nodes: int | None = None
) -> Tensor:
    """The dense matrix [1, N, N] of the edges of one graph."""
    n = number_of_nodes(edge_index, max_num_nodes)
    values = torch.ones(edge_index.shape[1], device=edge_index.device) if edge_attr is None else edge_attr
    dense = values.new_zeros((n, n, *values.shape[1:]))
    return dense.index_put_((edge_index[0], edge_index[1]), values, accumulate=True)[None]
