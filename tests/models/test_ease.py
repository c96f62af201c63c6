"""EASE's weights by the conditions that make them the minimum, and its bound on memory."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from toys import N_ITEMS, N_USERS, all_scores, build, make_config, toy_dataset

from common.neighbours import SparseRows
from models.ease import EASE
from utils.data.dataset import Dataset
from utils.errors import UserError
from utils.memory import check_fits


def dense(data):
    x = np.zeros((data.n_users, data.n_items))
    x[data.train.users, data.train.items] = 1
    return x


@pytest.mark.parametrize("ridge", [0.5, 20.0])
def test_weights_are_those_of_the_closed_form(ridge):
    data = toy_dataset([])
    model = build("EASE", data, reg_weight=ridge)
    x = dense(data)
    p = np.linalg.inv(x.T @ x + ridge * np.eye(N_ITEMS))
    b = np.array([[0 if i == j else -p[i, j] / p[j, j] for j in range(N_ITEMS)] for i in range(N_ITEMS)])
    torch.testing.assert_close(model.weights, torch.from_numpy(b).float(), rtol=1e-5, atol=1e-7)
    scores = [[sum(b[i, j] for i in range(N_ITEMS) if x[u, i]) for j in range(N_ITEMS)] for u in range(N_USERS)]
    torch.testing.assert_close(all_scores(model), torch.tensor(scores).float(), rtol=1e-5, atol=1e-6)


def test_each_column_is_the_ridge_regression_on_all_other_items():
    data = toy_dataset([])
    weights = build("EASE", data, reg_weight=2.0).weights.double().numpy()
    x = dense(data)
    for j in range(N_ITEMS):
        others = np.arange(N_ITEMS) != j
        system = x[:, others].T @ x[:, others] + 2.0 * np.eye(N_ITEMS - 1)
        np.testing.assert_allclose(weights[others, j], np.linalg.solve(system, x[:, others].T @ x[:, j]), atol=1e-6)
        assert weights[j, j] == 0


def test_the_weights_are_not_part_of_a_checkpoint():
    assert not build("EASE", toy_dataset([])).state_dict()


def test_a_data_set_too_large_is_refused_before_the_start(monkeypatch):
    data = Dataset("elec", 192403, 63001, toy_dataset([]).splits)
    needed = EASE.memory_needed(make_config("EASE"), data)
    assert sum(needed.values()) == 2 * 63001 * 63001 * 8
    monkeypatch.setattr("utils.memory.memory_of", lambda device: 32 * 2**30)
    with pytest.raises(UserError, match=r"more memory than the 32\.0 GiB of cpu: two float64 .* 59\.1 GiB"):
        check_fits("EASE", needed, torch.device("cpu"))
    check_fits("EASE", EASE.memory_needed(make_config("EASE"), toy_dataset([])), torch.device("cpu"))


def test_rows_of_a_sparse_matrix_are_taken_in_any_order_and_more_than_once():
    data = toy_dataset([])
    matrix = data.inter_matrix("csr")
    rows = torch.tensor([N_USERS - 1, 3, 0, 3])  # the last user has no entry
    offsets, columns, weights = SparseRows(matrix).take(rows)
    found = sp.csr_matrix((weights.numpy(), columns.numpy(), offsets.numpy()), shape=(4, N_ITEMS))
    assert (found.toarray() == matrix.toarray()[rows]).all()
    offsets, columns, weights = SparseRows(matrix).take(rows[:0])
    assert offsets.tolist() == [0]
    assert not len(columns)
    assert not len(weights)
