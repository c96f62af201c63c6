"""The stand-in for torch_sparse: everything against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mmrec.stand_ins import torch_sparse
from mmrec.stand_ins.torch_sparse import SparseTensor


@pytest.fixture
def dense():
    matrix = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
    return torch.where(matrix > 0.4, matrix, torch.zeros(()))


@pytest.fixture
def made(dense):
    row, col = dense.nonzero(as_tuple=True)
    order = torch.randperm(len(row), generator=torch.Generator().manual_seed(1))
    row, col = row[order], col[order]
    return SparseTensor(row=row, col=col, value=dense[row, col], sparse_sizes=(5, 4))


def test_there_and_back(made, dense):
    torch.testing.assert_close(made.to_dense(), dense)
    others = [
        SparseTensor.from_dense(dense),
        SparseTensor.from_scipy(sp.csr_matrix(dense.numpy())),
        SparseTensor.from_torch_sparse_coo_tensor(dense.to_sparse()),
        SparseTensor.from_edge_index(torch.stack(made.coo()[:2]), made.storage.value(), (5, 4)),
        SparseTensor(rowptr=made.csr()[0], col=made.csr()[1], value=made.csr()[2], sparse_sizes=(5, 4)),
    ]
    for other in others:
        torch.testing.assert_close(other.to_dense(), dense)
    np.testing.assert_allclose(made.to_scipy("csr").toarray(), dense.numpy())
    row, col, _ = made.coo()
    assert (row * 4 + col).tolist() == sorted((row * 4 + col).tolist())
    assert (made.sizes(), made.sparse_sizes(), made.size(0), made.nnz()) == ([5, 4], (5, 4), 5, int((dense > 0).sum()))
    torch.testing.assert_close(made.t().to_dense(), dense.T)
    with pytest.raises(ValueError, match="expected row"):
        SparseTensor(row=row)


@pytest.mark.filterwarnings("ignore:Sparse")
def test_products(made, dense):
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(made @ x, dense @ x)
    torch.testing.assert_close(made.matmul(x), dense @ x)
    torch.testing.assert_close(torch_sparse.matmul(made, x[:, 0]), dense @ x[:, 0])
    counts = (dense > 0).sum(1, keepdim=True).clamp(min=1)
    torch.testing.assert_close(torch_sparse.matmul(made, x, reduce="mean"), dense @ x / counts)
    torch.testing.assert_close((made @ made.t()).to_dense(), dense @ dense.T)
    index, value = torch.stack(made.coo()[:2]), made.storage.value()
    torch.testing.assert_close(torch_sparse.spmm(index, value, 5, 4, x), dense @ x)
    back = torch_sparse.transpose(index, value, 5, 4)
    product, values = torch_sparse.spspmm(index, value, *back, 5, 4, 5)
    torch.testing.assert_close(torch.sparse_coo_tensor(product, values, (5, 5)).to_dense(), dense @ dense.T)


def test_gradients_go_to_values_and_factor(dense):
    row, col = dense.nonzero(as_tuple=True)
    value = dense[row, col].requires_grad_()
    x = torch.ones(4, 2, requires_grad=True)
    (SparseTensor(row=row, col=col, value=value, sparse_sizes=(5, 4)) @ x).sum().backward()
    torch.testing.assert_close(value.grad, torch.full((len(row),), 2.0))
    torch.testing.assert_close(x.grad, dense.sum(0)[:, None].expand(4, 2))


def test_sums_factors_and_diagonal(made, dense):
    torch.testing.assert_close(made.sum(1), dense.sum(1))
    torch.testing.assert_close(torch_sparse.sum(made, dim=0), dense.sum(0))
    torch.testing.assert_close(made.sum(), dense.sum())
    torch.testing.assert_close(made.mean(1), dense.sum(1) / (dense > 0).sum(1).clamp(min=1))
    scale = torch.arange(5.0)[:, None]
    torch.testing.assert_close(torch_sparse.mul(made, scale).to_dense(), dense * scale)
    torch.testing.assert_close((made * torch.arange(4.0)[None]).to_dense(), dense * torch.arange(4.0))
    filled = torch_sparse.fill_diag(made, 7.0).to_dense()
    assert filled.diagonal().tolist() == [7.0] * 4
    off = ~torch.eye(5, 4, dtype=torch.bool)
    torch.testing.assert_close(filled[off], dense[off])
    assert made.fill_value(2.0).sum() == 2 * made.nnz()
    assert torch.equal(SparseTensor.eye(3).to_dense(), torch.eye(3))


def test_equal_places_are_merged():
    index = torch.tensor([[0, 0, 1], [1, 1, 0]])
    value = torch.tensor([1.0, 2.0, 4.0])
    assert [part.tolist() for part in torch_sparse.coalesce(index, value, 2, 2)] == [[[0, 1], [1, 0]], [3.0, 4.0]]
    assert torch_sparse.coalesce(index, value, 2, 2, "max")[1].tolist() == [2.0, 4.0]
    merged = SparseTensor(row=index[0], col=index[1], value=value).coalesce()
    assert merged.nnz() == 2
    without = SparseTensor(row=index[0], col=index[1])
    assert not without.has_value()
    assert without.to(torch.device("cpu")).coalesce().nnz() == 2
