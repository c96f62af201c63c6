"""Helper functions under the names that model files written for MMRec import from `utils.utils`."""

from __future__ import annotations

import datetime
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrec.stand_ins.torch_scatter import scatter_add
from utils.errors import UserError


def _power(degrees: Tensor, exponent: float) -> Tensor:
    """degrees^exponent, 0 where a degree is not positive."""
    return torch.where(degrees > 0, degrees.clamp(min=torch.finfo(degrees.dtype).tiny) ** exponent, 0)


def build_sim(context: Tensor) -> Tensor:
    """Cosines between all rows of context [I, F]: [I, I]; a row of zeros has cosine 0 to all."""
    lengths = context.norm(dim=-1, keepdim=True)
    unit = context / torch.where(lengths > 0, lengths, 1)
    return unit @ unit.T


def build_knn_neighbourhood(adj: Tensor, topk: int) -> Tensor:
    """adj [I, I] with the topk largest entries of each row kept and zeros elsewhere."""
    values, columns = torch.topk(adj, topk, dim=-1)
    return torch.zeros_like(adj).scatter_(-1, columns, values)


def compute_normalized_laplacian(adj: Tensor) -> Tensor:
    """D^-1/2 A D^-1/2 of a dense A [I, I], D its row sums; a row that sums to zero is scaled by 0."""
    scale = _power(adj.sum(dim=-1), -0.5)
    return scale[:, None] * adj * scale[None, :]


def get_sparse_laplacian(
    edge_index: Tensor, edge_weight: Tensor, num_nodes: int, normalization: str = "none"
) -> tuple[Tensor, Tensor]:
    """Edges [2, E] and their weights [E], normalised by the row sums D: none, sym (D^-1/2 A D^-1/2) or rw (D^-1 A)."""
    row, column = edge_index[0], edge_index[1]
    degrees = scatter_add(edge_weight, row, dim=0, dim_size=num_nodes)
    if normalization == "sym":
        scale = _power(degrees, -0.5)
        edge_weight = scale[row] * edge_weight * scale[column]
    elif normalization == "rw":
        edge_weight = _power(degrees, -1)[row] * edge_weight
    return edge_index, edge_weight


def get_dense_laplacian(adj: Tensor, normalization: str = "none") -> Tensor:
    """As `get_sparse_laplacian` for a dense A [I, I]."""
    if normalization == "sym":
        return compute_normalized_laplacian(adj)
    return _power(adj.sum(dim=-1), -1)[:, None] * adj if normalization == "rw" else adj


def build_knn_normalized_graph(adj: Tensor, topk: int, is_sparse: bool, norm_type: str) -> Tensor:
    """The topk largest entries of each row of adj [I, I], normalised as `norm_type` says: sparse COO or dense [I, I]."""
    if not is_sparse:
        return get_dense_laplacian(build_knn_neighbourhood(adj, topk), norm_type)
    values, columns = torch.topk(adj, topk, dim=-1)
    rows = torch.arange(len(adj), device=adj.device)[:, None].expand_as(columns)
    edges, weights = get_sparse_laplacian(
        torch.stack([rows.flatten(), columns.flatten()]), values.flatten(), len(adj), norm_type
    )
    return torch.sparse_coo_tensor(edges, weights, adj.shape, check_invariants=False).coalesce()


def early_stopping(
    value: float, best: float, cur_step: int, max_step: int, bigger: bool = True
) -> tuple[float, int, bool, bool]:
    """One step of early stopping.

    Args:
        value: of this evaluation.
        best: of those before.
        cur_step: evaluations since the best one.
        max_step: how many of these are let pass.
        bigger: whether a larger value is the better one.

    Returns:
        the best value, evaluations since it, whether to stop, whether this one is the best; a tie is no improvement.
    """
    if value > best if bigger else value < best:
        return value, 0, False, True
    return best, cur_step + 1, cur_step + 1 > max_step, False


def dict2str(result_dict: Mapping[str, float]) -> str:
    """Metrics in one line, with four decimals."""
    return "".join(f"{metric}: {value:.4f}    " for metric, value in result_dict.items())


def get_local_time() -> str:
    """Now, as in Jan-31-2026-23-59-59."""
    return datetime.datetime.now().strftime("%b-%d-%Y-%H-%M-%S")


def init_seed(seed: int) -> None:
    """Seeds the streams of Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (the stream that such files draw from)
    torch.manual_seed(seed)


def get_model(model_name: str) -> Any:
    """In MMRec the class of a model; here there is one only in a file's own tree."""
    raise UserError(f"get_model: the model {model_name} is not in the file's own tree")


def get_trainer() -> Any:
    """In MMRec the class of the trainer, which is this project's own here."""
    raise UserError("get_trainer: a plugin is trained by the loop of this project, it brings no trainer of its own")
