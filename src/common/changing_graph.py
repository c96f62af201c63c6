"""An item graph of which some rows change in the course of a training."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.sparse import SparseMatrix

LEAST_WEIGHT = 1e-8  # what single precision would not show beside the weights of a row


class ChangingMatrix(SparseMatrix):
    """A `SparseMatrix` [R, C] that can be given other entries; unlike that one's, they are part of the state dict."""

    def __init__(self, matrix: sp.csr_matrix) -> None:
        super().__init__(matrix)
        self.shape = matrix.shape

    def entries(self) -> sp.csr_matrix:
        """Its entries, float64 [R, C]."""
        parts = (self.weights.double(), self.columns, self.offsets)
        return sp.csr_matrix(tuple(part.cpu().numpy() for part in parts), shape=self.shape)

    def replace(self, matrix: sp.csr_matrix) -> None:
        """Takes the entries of `matrix` [R, C], any number of them."""
        for name, tensor in SparseMatrix(matrix).named_buffers():
            old = getattr(self, name)
            self.register_buffer(name, tensor.to(old.device, old.dtype), persistent=False)

    def get_extra_state(self) -> Tensor:
        """Rows, columns and weights, float64 [3, E]: a state dict with entries of any number can be loaded."""
        matrix = self.entries().tocoo()
        return torch.from_numpy(np.stack([matrix.row, matrix.col, matrix.data]).astype(np.float64))

    def set_extra_state(self, state: Tensor) -> None:
        """Takes up what `get_extra_state` gave."""
        rows, columns, weights = state.cpu().numpy()
        self.replace(sp.csr_matrix((weights, (rows.astype(np.int64), columns.astype(np.int64))), shape=self.shape))


def blend_rows(old: sp.csr_matrix, new: sp.csr_matrix, rows: NDArray[np.bool_], share: float) -> sp.csr_matrix:
    """`old` [R, C] with row r replaced by share new_r + (1 - share) old_r where `rows` bool [R]; the rest stays as it is."""
    weight = np.where(rows, share, 0.0)
    blended = (sp.diags(1 - weight) @ old + sp.diags(weight) @ new).tocsr()
    blended.data[np.abs(blended.data) < LEAST_WEIGHT] = 0
    blended.eliminate_zeros()
    return blended
