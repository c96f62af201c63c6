"""Layers under PyTorch Geometric's names: message passing that adds, averages or takes the largest, and two layers of it."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from mmrec.stand_ins.torch_geometric.edges import add_remaining_self_loops, number_of_nodes
from mmrec.stand_ins.torch_geometric.inits import glorot, zeros
from mmrec.stand_ins.torch_scatter import scatter, scatter_add
from mmrec.stand_ins.torch_sparse import SparseTensor

AGGREGATIONS = {"add": "sum", "sum": "sum", "mean": "mean", "max": "max", "min": "min"}


class MessagePassing(nn.Module):
    """x'_i = update(aggregate over edges (j, i) of message(x_i, x_j, ...)).

    `message` names what it wants: an argument given to `propagate` as it is, or, with `_i` and `_j` after its name, its rows
    at the targets and the sources of the edges; also `edge_index, edge_index_i, edge_index_j, size, size_i, size_j, index,
    dim_size`.

    Args:
        aggr: add (or sum), mean, max, min; None: `aggregate` does it.
        flow: source_to_target, or target_to_source, where edges run the other way.
        node_dim: the dimension of nodes.
    """

    def __init__(
        self, aggr: str | None = "add", *, flow: str = "source_to_target", node_dim: int = -2, **_: Any
    ) -> None:
        super().__init__()
        if aggr not in (None, *AGGREGATIONS):
            raise ValueError(f"aggr: expected {', '.join(AGGREGATIONS)} or None, got {aggr!r}")
        if flow not in ("source_to_target", "target_to_source"):
            raise ValueError(f"flow: expected source_to_target or target_to_source, got {flow!r}")
        self.aggr, self.flow, self.node_dim = aggr, flow, node_dim

    def propagate(self, edge_index: Any, size: Any = None, **given: Any) -> Any:
        """One round of messages along edge_index, int64 [2, E] or a SparseTensor of its transpose."""
        if isinstance(edge_index, SparseTensor):
            row, column, value = edge_index.coo()
            given.setdefault("edge_weight", value)
            size = size or (edge_index.size(1), edge_index.size(0))
            edge_index = torch.stack([column, row])
        i, j = (1, 0) if self.flow == "source_to_target" else (0, 1)
        asked = [name for m in (self.message, self.aggregate, self.update) for name in inspect.signature(m).parameters]
        sizes = self._sizes(
            size, [given[name[:-2]] for name in asked if name[-2:] in ("_i", "_j") and name[:-2] in given]
        )
        ends = {"_i": (i, edge_index[i]), "_j": (j, edge_index[j])}
        known: dict[str, Any] = {
            **given, "edge_index": edge_index, "edge_index_i": edge_index[i], "edge_index_j": edge_index[j], "size": sizes,
            "size_i": sizes[i], "size_j": sizes[j], "index": edge_index[i], "ptr": None, "dim_size": sizes[i],
        }  # fmt: skip

        def wanted(method: Any, first: int) -> dict[str, Any]:
            values = {}
            for name, parameter in list(inspect.signature(method).parameters.items())[first:]:
                if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                    continue
                if name in known:
                    values[name] = known[name]
                elif name[-2:] in ends and name[:-2] in given:
                    values[name] = self._lifted(given[name[:-2]], *ends[name[-2:]])
                elif parameter.default is parameter.empty:
                    raise TypeError(f"propagate: {type(self).__name__} asks for {name!r}, which was not given")
            return values

        messages = self.message(**wanted(self.message, 0))
        gathered = self.aggregate(messages, **wanted(self.aggregate, 1))
        return self.update(gathered, **wanted(self.update, 1))

    def _sizes(self, size: Any, nodes: list[Any]) -> list[int | None]:
        """How many sources and targets there are: as given, else as many as there are rows of what is taken from nodes."""
        sizes: list[int | None] = [None, None] if size is None else list(size)
        for value in nodes:
            pair = value if isinstance(value, tuple | list) else (value, value)
            for place, part in enumerate(pair):
                if isinstance(part, Tensor) and sizes[place] is None:
                    sizes[place] = part.size(self.node_dim if part.dim() > 1 else 0)
        return [own if own is not None else sizes[1 - place] for place, own in enumerate(sizes)]

    def _lifted(self, value: Any, end: int, index: Tensor) -> Any:
        if isinstance(value, tuple | list):
            value = value[end]
        if not isinstance(value, Tensor):
            return value
        return value.index_select(self.node_dim if value.dim() > 1 else 0, index)

    def message(self, x_j: Tensor) -> Tensor:
        """The message of an edge: its source's row."""
        return x_j

    def aggregate(self, inputs: Tensor, index: Tensor, ptr: Any = None, dim_size: int | None = None) -> Tensor:
        """The messages [E, ...] gathered at their targets index [E]."""
        dim = self.node_dim if inputs.dim() > 1 else 0
        return scatter(inputs, index, dim, dim_size=dim_size, reduce=AGGREGATIONS[self.aggr or "add"])

    def update(self, inputs: Tensor) -> Tensor:
        """What becomes of a node: what was gathered."""
        return inputs


def gcn_norm(
    edge_index: Tensor, edge_weight: Tensor | None = None, num_nodes: int | None = None, improved: bool = False,
    add_self_loops: bool = True, *_: Any, **__: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Edges and weights of D^-1/2 A D^-1/2, after each node got an edge to itself (weight 1; 2 if `improved`)."""
    n = number_of_nodes(edge_index, num_nodes)
    weight = torch.ones(edge_index.shape[1], device=edge_index.device) if edge_weight is None else edge_weight
    if add_self_loops:
        edge_index, looped = add_remaining_self_loops(edge_index, weight, 2.0 if improved else 1.0, n)
        assert looped is not None
        weight = looped
    row, column = edge_index
    degrees = scatter_add(weight, column, dim=0, dim_size=n)
    scale = torch.where(degrees > 0, degrees.clamp(min=1e-30) ** -0.5, torch.zeros_like(degrees))
    return edge_index, scale[row] * weight * scale[column]


class LGConv(MessagePassing):
    """x' = D^-1/2 A D^-1/2 x, without parameters."""

    def __init__(self, normalize: bool = True, **options: Any) -> None:
        super().__init__(aggr="add", **options)
        self.normalize = normalize

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        if self.normalize:
            edge_index, edge_weight = gcn_norm(edge_index, edge_weight, len(x), add_self_loops=False)
        return self.propagate(edge_index, x=x, edge_weight=edge_weight)

    def message(self, x_j: Tensor, edge_weight: Tensor | None) -> Tensor:  # type: ignore[override]
        return x_j if edge_weight is None else edge_weight[:, None] * x_j


class GCNConv(MessagePassing):
    """x' = D^-1/2 (A + I) D^-1/2 x W + b."""

    def __init__(
        self, in_channels: int, out_channels: int, improved: bool = False, cached: bool = False, add_self_loops: bool = True,
        normalize: bool = True, bias: bool = True, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(aggr="add", **options)
        self.improved, self.add_self_loops, self.normalize = improved, add_self_loops, normalize
        self.lin = nn.Linear(in_channels, out_channels, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot weights, no bias."""
        glorot(self.lin.weight)
        zeros(self.bias)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        if self.normalize:
            edge_index, edge_weight = gcn_norm(edge_index, edge_weight, len(x), self.improved, self.add_self_loops)
        result = self.propagate(edge_index, x=self.lin(x), edge_weight=edge_weight)
        return result if self.bias is None else result + self.bias

    def message(self, x_j: Tensor, edge_weight: Tensor | None) -> Tensor:  # type: ignore[override]
        return x_j if edge_weight is None else edge_weight[:, None] * x_j
