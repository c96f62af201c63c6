"""Sparse matrices of any kind: products in CSR form that have a backward pass, and values of entries that are learnt."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.precision import single_precision


def sparse_product(offsets: Tensor, columns: Tensor, weights: Tensor, x: Tensor) -> Tensor:
    """The product of a CSR matrix with x [C, D], without a gradient.

    On a CPU a row of the result is a weighted bag of rows of x, for which PyTorch has a faster kernel than for its sparse
    types; elsewhere the CSR product is used.
    """
    if x.device.type != "cpu":
        return csr_product(offsets, columns, weights, x)
    return F.embedding_bag(
        columns, x, offsets, mode="sum", per_sample_weights=weights.to(x.dtype), include_last_offset=True
    )


def csr_product(offsets: Tensor, columns: Tensor, weights: Tensor, x: Tensor) -> Tensor:
    """The product of a CSR matrix with x [C, D] by PyTorch's sparse type, without a gradient."""
    shape = (len(offsets) - 1, len(x))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)
        warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly", category=UserWarning)
        csr = torch.sparse_csr_tensor(offsets, columns, weights.to(x.dtype), shape, check_invariants=False)
    return csr @ x


class SparseMatrix(nn.Module):
    """A constant sparse matrix [R, C] in CSR form with its transpose, so that its products have a backward pass.

    The arrays are buffers (they move with the module) that are not part of the state dict.
    """

    offsets: Tensor  # [R + 1] int64
    columns: Tensor  # [E] int64
    weights: Tensor  # [E] float32
    back_offsets: Tensor  # [C + 1] int64, of the transpose
    back_columns: Tensor  # [E] int64
    back_weights: Tensor  # [E] float32

    def __init__(self, matrix: sp.csr_matrix) -> None:
        super().__init__()
        for prefix, csr in (("", matrix.tocsr()), ("back_", matrix.T.tocsr())):
            csr.sort_indices()
            self.register_buffer(f"{prefix}offsets", torch.from_numpy(csr.indptr.astype(np.int64)), persistent=False)
            self.register_buffer(f"{prefix}columns", torch.from_numpy(csr.indices.astype(np.int64)), persistent=False)
            self.register_buffer(f"{prefix}weights", torch.from_numpy(csr.data.astype(np.float32)), persistent=False)

    @single_precision
    def forward(self, x: Tensor) -> Tensor:
        """The product [R, D] with x [C, D], differentiable in x."""
        return _MatrixProduct.apply(x, self)


class _MatrixProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: SparseMatrix) -> Tensor:
        ctx.matrix = matrix
        return sparse_product(matrix.offsets, matrix.columns, matrix.weights, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        matrix = ctx.matrix
        back = sparse_product(matrix.back_offsets, matrix.back_columns, matrix.back_weights, gradient.contiguous())
        return back, None


class EdgePattern(nn.Module):
    """Where a sparse matrix [R, C] has entries; their values are given at each product, which is differentiable in them.

    Args:
        rows, columns: int64 [E] of the entries, in any order; values are in that order everywhere.
        shape: (R, C).
    """

    rows: Tensor  # [E] int64
    columns: Tensor  # [E] int64
    order: Tensor  # [E] int64: the entries sorted by row
    offsets: Tensor  # [R + 1] int64
    back_order: Tensor  # [E] int64: the entries sorted by column
    back_offsets: Tensor  # [C + 1] int64

    def __init__(self, rows: Tensor, columns: Tensor, shape: tuple[int, int]) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        for prefix, ids, size in (("", rows, shape[0]), ("back_", columns, shape[1])):
            counts = torch.bincount(ids, minlength=size)
            offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
            self.register_buffer(f"{prefix}order", ids.argsort(stable=True), persistent=False)
            self.register_buffer(f"{prefix}offsets", offsets, persistent=False)

    @single_precision
    def forward(self, values: Tensor, x: Tensor) -> Tensor:
        """The product [R, D] of the matrix with these values [E] and x [C, D]."""
        return _EdgeProduct.apply(values, x, self)

    def row_sums(self, values: Tensor) -> Tensor:
        """Sum of the values [E] of each row: [R]."""
        return values.new_zeros(self.shape[0]).index_add(0, self.rows, values)

    @single_precision
    def dots(self, left: Tensor, right: Tensor) -> Tensor:
        """<left_r, right_c> of each entry (r, c), for left [R, D] and right [C, D]: [E], differentiable, in blocks."""
        return _EdgeDots.apply(left, right, self)


# Entries whose rows are gathered at a time: on a CPU a block stays in its cache, elsewhere it bounds memory.
EDGE_BLOCK = {"cpu": 2**12}


def _edge_dots(left: Tensor, right: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    size = EDGE_BLOCK.get(left.device.type, 2**16)
    blocks = zip(rows.split(size), columns.split(size), strict=True)
    # index_select is faster than indexing, and the product needs no memory of its own.
    parts = [left.index_select(0, r).mul_(right.index_select(0, c)).sum(1) for r, c in blocks]
    return torch.cat(parts) if parts else left.new_zeros(0)


class _EdgeProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, x: Tensor, pattern: EdgePattern) -> Tensor:
        ctx.pattern = pattern
        ctx.save_for_backward(values, x)
        order = pattern.order
        return sparse_product(pattern.offsets, pattern.columns[order], values[order], x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        pattern, (values, x) = ctx.pattern, ctx.saved_tensors
        gradient, order = gradient.contiguous(), ctx.pattern.back_order
        by_values = _edge_dots(gradient, x, pattern.rows, pattern.columns) if ctx.needs_input_grad[0] else None
        by_x = None
        if ctx.needs_input_grad[1]:
            by_x = sparse_product(pattern.back_offsets, pattern.rows[order], values[order], gradient)
        return by_values, by_x, None


class _EdgeDots(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, pattern: EdgePattern) -> Tensor:
        ctx.pattern = pattern
        ctx.save_for_backward(left, right)
        return _edge_dots(left, right, pattern.rows, pattern.columns)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        pattern, (left, right) = ctx.pattern, ctx.saved_tensors
        order, back = pattern.order, pattern.back_order
        by_left = sparse_product(pattern.offsets, pattern.columns[order], gradient[order], right)
        by_right = sparse_product(pattern.back_offsets, pattern.rows[back], gradient[back], left)
        return by_left, by_right, None
