"""The part of torch_sparse that model files use, for machines without that package."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmrec.stand_ins.torch_scatter import scatter

Sizes = tuple[int, int]


class SparseTensor:
    """A sparse matrix: rows [E], columns [E] and values [E] (None: ones), sorted by row, then column.

    Args:
        row, col: int64 [E]; `rowptr` [N + 1] may stand for row.
        value: [E] or None.
        sparse_sizes: its shape; None: as the largest row and column ask for.
        is_sorted: whether entries are sorted already.
    """

    def __init__(
        self,
        row: Tensor | None = None,
        rowptr: Tensor | None = None,
        col: Tensor | None = None,
        value: Tensor | None = None,
        sparse_sizes: Any = None,
        is_sorted: bool = False,
        **_: Any,
    ) -> None:
        if col is None or (row is None and rowptr is None):
            raise ValueError("SparseTensor: expected row (or rowptr) and col")
        if row is None:
            assert rowptr is not None
            row = torch.repeat_interleave(torch.arange(len(rowptr) - 1, device=col.device), rowptr[1:] - rowptr[:-1])
        largest = [int(part.max()) + 1 if len(part) else 0 for part in (row, col)]
        given = [None, None] if sparse_sizes is None else list(sparse_sizes)
        self._sizes: Sizes = tuple(
            most if size is None else int(size) for size, most in zip(given, largest, strict=True)
        )  # type: ignore[assignment]
        if not is_sorted and len(row):
            order = (row * max(self._sizes[1], 1) + col).argsort(stable=True)
            row, col, value = row[order], col[order], None if value is None else value[order]
        self._row, self._col, self._value = row, col, value

    @classmethod
    def from_edge_index(
        cls, edge_index: Tensor, edge_attr: Tensor | None = None, sparse_sizes: Any = None, **_: Any
    ) -> SparseTensor:
        """Of edges [2, E]."""
        return cls(row=edge_index[0], col=edge_index[1], value=edge_attr, sparse_sizes=sparse_sizes)

    @classmethod
    def from_scipy(cls, mat: Any, has_value: bool = True) -> SparseTensor:
        """Of a scipy matrix."""
        mat = mat.tocoo()
        row, col = (torch.from_numpy(part.astype("int64")) for part in (mat.row, mat.col))
        return cls(row=row, col=col, value=torch.from_numpy(mat.data) if has_value else None, sparse_sizes=mat.shape)

    @classmethod
    def from_dense(cls, mat: Tensor, has_value: bool = True) -> SparseTensor:
        """Of a dense matrix, its entries that are not 0."""
        row, col = mat.nonzero(as_tuple=True)
        return cls(row=row, col=col, value=mat[row, col] if has_value else None, sparse_sizes=mat.shape)

    @classmethod
    def from_torch_sparse_coo_tensor(cls, mat: Tensor, has_value: bool = True) -> SparseTensor:
        """Of a sparse COO tensor."""
        mat = mat.coalesce()
        row, col = mat.indices()
        return cls(row=row, col=col, value=mat.values() if has_value else None, sparse_sizes=mat.shape)

    @classmethod
    def eye(cls, M: int, N: int | None = None, **_: Any) -> SparseTensor:
        """The identity [M, N]."""
        places = torch.arange(min(M, N or M))
        return cls(row=places, col=places, sparse_sizes=(M, N or M))

    def coo(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Rows, columns and values."""
        return self._row, self._col, self._value

    def csr(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Where each row begins [N + 1], columns and values."""
        counts = torch.bincount(self._row, minlength=self._sizes[0])
        return torch.cat([counts.new_zeros(1), counts.cumsum(0)]), self._col, self._value

    @property
    def storage(self) -> SparseTensor:
        """Itself: `storage.row()`, `storage.col()`, `storage.value()`."""
        return self

    def row(self) -> Tensor:
        return self._row

    def col(self) -> Tensor:
        return self._col

    def value(self) -> Tensor | None:
        return self._value

    def has_value(self) -> bool:
        return self._value is not None

    def set_value(self, value: Tensor | None, layout: str | None = None) -> SparseTensor:
        """The same places with other values."""
        return SparseTensor(self._row, None, self._col, value, self._sizes, True)

    def fill_value(self, fill_value: float, dtype: torch.dtype | None = None) -> SparseTensor:
        """The same places, all with one value."""
        return self.set_value(torch.full((self.nnz(),), fill_value, dtype=dtype, device=self.device()))

    def nnz(self) -> int:
        return len(self._row)

    def numel(self) -> int:
        return self.nnz()

    def sizes(self) -> list[int]:
        return list(self._sizes)

    def sparse_sizes(self) -> Sizes:
        return self._sizes

    def size(self, dim: int) -> int:
        return self._sizes[dim]

    def sparse_size(self, dim: int) -> int:
        return self._sizes[dim]

    def device(self) -> torch.device:
        return self._row.device

    def to(self, *arguments: Any, **options: Any) -> SparseTensor:
        """On another device, or with values of another type."""
        probe = torch.zeros(0, device=self.device()).to(*arguments, **options)
        value = None if self._value is None else self._value.to(*arguments, **options)
        return SparseTensor(self._row.to(probe.device), None, self._col.to(probe.device), value, self._sizes, True)

    def cpu(self) -> SparseTensor:
        return self.to("cpu")

    def t(self) -> SparseTensor:
        """The transpose."""
        return SparseTensor(self._col, None, self._row, self._value, self._sizes[::-1])

    def coalesce(self, reduce: str = "sum") -> SparseTensor:
        """Each place once."""
        row, col, value = _merged(self._row, self._col, self._values(), self._sizes, reduce)
        return SparseTensor(row, None, col, None if self._value is None else value, self._sizes, True)

    def _values(self) -> Tensor:
        return torch.ones(self.nnz(), device=self.device()) if self._value is None else self._value

    def to_torch_sparse_coo_tensor(self, dtype: torch.dtype | None = None) -> Tensor:
        """As a sparse COO tensor."""
        values = self._values() if dtype is None else self._values().to(dtype)
        indices = torch.stack([self._row, self._col])
        return torch.sparse_coo_tensor(indices, values, self._sizes, check_invariants=False)

    def to_dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """As a dense matrix."""
        return self.to_torch_sparse_coo_tensor(dtype).to_dense()

    def to_scipy(self, layout: str = "coo", dtype: Any = None) -> Any:
        """As a scipy matrix."""
        import scipy.sparse as sp

        values = self._values().detach().cpu().numpy()
        places = (self._row.cpu().numpy(), self._col.cpu().numpy())
        return sp.coo_matrix((values, places), self._sizes).asformat(layout or "coo")

    def sum(self, dim: int | None = None) -> Tensor:
        """Of all values, of each column (dim 0) or of each row (dim 1)."""
        if dim is None:
            return self._values().sum()
        index = self._row if dim % 2 == 1 else self._col
        return scatter(self._values(), index, 0, dim_size=self._sizes[1 - dim % 2], reduce="sum")

    def mean(self, dim: int | None = None) -> Tensor:
        """As `sum`, over the entries that there are."""
        if dim is None:
            return self._values().mean()
        index = self._row if dim % 2 == 1 else self._col
        return scatter(self._values(), index, 0, dim_size=self._sizes[1 - dim % 2], reduce="mean")

    def mul(self, other: Tensor) -> SparseTensor:
        """Times a column [N, 1], a row [1, M] or one number."""
        if other.dim() == 2 and other.size(1) == 1:
            factor: Tensor = other[:, 0][self._row]
        elif other.dim() == 2 and other.size(0) == 1:
            factor = other[0][self._col]
        else:
            factor = other
        return self.set_value(self._values() * factor)

    __mul__ = mul

    def fill_diag(self, fill_value: float) -> SparseTensor:
        """With the diagonal set to a value."""
        off = self._row != self._col
        places = torch.arange(min(self._sizes), device=self.device())
        value = None
        if self._value is not None:
            value = torch.cat([self._value[off], self._value.new_full((len(places),), fill_value)])
        row, col = torch.cat([self._row[off], places]), torch.cat([self._col[off], places])
        return SparseTensor(row, None, col, value, self._sizes)

    def matmul(self, other: Any, reduce: str = "sum") -> Any:
        """Times a dense [M, D] (sum, mean, max or min over the entries of a row) or sparse matrix."""
        return matmul(self, other, reduce)

    spmm = __matmul__ = matmul

    def __repr__(self) -> str:
        return f"SparseTensor({self._sizes[0]} x {self._sizes[1]}, {self.nnz()} entries)"


def _merged(row: Tensor, col: Tensor, value: Tensor, sizes: Sizes, reduce: str) -> tuple[Tensor, Tensor, Tensor]:
    columns = max(sizes[1], 1)
    keys, places = torch.unique(row * columns + col, return_inverse=True)
    merged = scatter(value, places, 0, dim_size=len(keys), reduce=reduce)
    return keys.div(columns, rounding_mode="floor"), keys % columns, merged


def matmul(src: SparseTensor, other: Any, reduce: str = "sum") -> Any:
    """src times a dense or a sparse matrix."""
    if isinstance(other, SparseTensor):
        product = torch.sparse.mm(src.to_torch_sparse_coo_tensor(), other.to_torch_sparse_coo_tensor())
        return SparseTensor.from_torch_sparse_coo_tensor(product)
    row, col, value = src.coo()
    entries = other.unsqueeze(-1) if other.dim() == 1 else other
    messages = entries[col] if value is None else value[:, None].to(entries.dtype) * entries[col]
    result = scatter(messages, row, 0, dim_size=src.size(0), reduce=reduce)
    return result.squeeze(-1) if other.dim() == 1 else result


def spmm(index: Tensor, value: Tensor, m: int, n: int, matrix: Tensor) -> Tensor:
    """The sparse matrix [m, n] of index [2, E] and value [E], times a dense one [n, D]."""
    return matmul(SparseTensor(row=index[0], col=index[1], value=value, sparse_sizes=(m, n)), matrix)  # type: ignore[no-any-return]


def spspmm(
    indexA: Tensor, valueA: Tensor, indexB: Tensor, valueB: Tensor, m: int, k: int, n: int, coalesced: bool = False
) -> Any:
    """The product of two sparse matrices [m, k] and [k, n]: its index and values."""
    product = matmul(
        SparseTensor(row=indexA[0], col=indexA[1], value=valueA, sparse_sizes=(m, k)),
        SparseTensor(row=indexB[0], col=indexB[1], value=valueB, sparse_sizes=(k, n)),
    )
    row, col, value = product.coo()
    return torch.stack([row, col]), value


def coalesce(index: Tensor, value: Tensor | None, m: int, n: int, op: str = "add") -> tuple[Tensor, Tensor | None]:
    """Each place once, values of equal ones reduced."""
    given = torch.ones(index.shape[1], device=index.device) if value is None else value
    row, col, merged = _merged(index[0], index[1], given, (m, n), op)
    return torch.stack([row, col]), None if value is None else merged


def transpose(
    index: Tensor, value: Tensor | None, m: int, n: int, coalesced: bool = True
) -> tuple[Tensor, Tensor | None]:
    """The transpose of a matrix [m, n]."""
    return coalesce(index.flip(0), value, n, m) if coalesced else (index.flip(0), value)


def sum(src: SparseTensor, dim: int | None = None) -> Tensor:
    """As `SparseTensor.sum`."""
    return src.sum(dim)


def mul(src: SparseTensor, other: Tensor) -> SparseTensor:
    """As `SparseTensor.mul`."""
    return src.mul(other)


def fill_diag(src: SparseTensor, fill_value: float) -> SparseTensor:
    """As `SparseTensor.fill_diag`."""
    return src.fill_diag(fill_value)
