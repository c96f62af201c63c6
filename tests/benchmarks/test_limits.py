"""Counts of work: those of products, exponentials and an optimiser's pass whose work is known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from common.graph import SparseSymmetric


@pytest.fixture(scope="module")
def counted():
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        from limits import counted

        return counted
    finally:
        sys.path.remove(folder)


def test_the_graph_product_counts_forward_and_backward(counted):
    matrix = sp.csr_matrix(np.array([[0, 0.5, 1], [0.5, 0, 0], [1, 0, 0]], dtype=np.float32))
    graph, x = SparseSymmetric(matrix), torch.randn(3, 8, requires_grad=True)
    # 4 entries: a row of 8 floats each, an index of 8 bytes and a weight of 4; 4 offsets; 3 rows written.
    once = 4 * (32 + 8 + 4) + 4 * 8 + 3 * 32
    assert counted(lambda: graph(x)) == {"sparse": once}
    assert counted(lambda: graph(x).sum().backward()) == {"sparse": 2 * once}


def test_a_dense_product_counts_both_gradients(counted):
    left, right = torch.randn(3, 5, requires_grad=True), torch.randn(5, 7, requires_grad=True)
    assert counted(lambda: left @ right) == {"dense": 2 * 3 * 5 * 7}
    assert counted(lambda: (left @ right).sum().backward()) == {"dense": 3 * 2 * 3 * 5 * 7}


def test_exponentials_count_by_element_also_in_place(counted):
    x = torch.randn(6, 4)
    assert counted(lambda: x.exp()) == {"exp": 24}
    assert counted(lambda: x.exp_()) == {"exp": 24}
    assert counted(lambda: x * x + 1) == {}


def test_fused_adam_reads_four_tables_and_writes_three(counted):
    weights = torch.nn.Parameter(torch.randn(10, 4))
    weights.grad = torch.randn(10, 4)
    optimizer = torch.optim.Adam([weights], fused=True)
    optimizer.step()
    assert counted(optimizer.step) == {"optimiser": 7 * 160}
