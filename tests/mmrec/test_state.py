"""What a foreign model keeps besides its parameters, there and back through a checkpoint."""

from __future__ import annotations

import random

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from toys import CPU

from mmrec.state import can_keep, fingerprint, packed, same, unpacked
from utils.runs.run_folder import read_torch, write_torch


def through_a_file(value, there, tmp_path):
    write_torch(tmp_path / "x.pt", packed(value))
    return unpacked(read_torch(tmp_path / "x.pt"), CPU, there)


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 0.1, "x", [1, (2.5, None)], {"a": {1: "b"}}, {3, 4}, np.float32(0.1), np.int64(7)],
    ids=repr,
)  # fmt: skip
def test_plain_values(value, tmp_path):
    found = through_a_file(value, None, tmp_path)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "uint8", "bool", "uint32"])
def test_arrays(dtype, tmp_path):
    value = np.arange(6).reshape(2, 3).astype(dtype)
    found = through_a_file(value, None, tmp_path)
    assert found.dtype == value.dtype
    np.testing.assert_array_equal(found, value)
    found[0, 0] = 1
    assert through_a_file(np.zeros((0, 3)), None, tmp_path).shape == (0, 3)


@pytest.mark.parametrize("form", ["csr", "coo", "csc"])
def test_sparse_matrices(form, tmp_path):
    value = sp.random(5, 4, 0.5, format=form, rng=0)
    found = through_a_file(value, None, tmp_path)
    assert found.format == form
    np.testing.assert_array_equal(found.toarray(), value.toarray())


@pytest.mark.parametrize(
    ("make", "draw"),
    [
        (lambda: np.random.default_rng(3), lambda g: g.standard_normal()),
        (lambda: np.random.RandomState(3), lambda g: g.standard_normal()),
        (lambda: random.Random(3), lambda g: g.random()),
        (lambda: torch.Generator().manual_seed(3), lambda g: torch.rand((), generator=g).item()),
    ],
)
def test_random_streams_go_on(make, draw, tmp_path):
    generator, other = make(), make()
    draw(generator)
    assert through_a_file(generator, other, tmp_path) is other
    assert [draw(generator) for _ in range(3)] == [draw(other) for _ in range(3)]


def test_optimisers_go_on(tmp_path):
    def made():
        parameter = torch.nn.Parameter(torch.ones(3))
        return parameter, torch.optim.Adam([parameter], lr=0.1)

    def step(parameter, optimizer):
        (parameter**2).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    one, two = made(), made()
    step(*one)
    through_a_file(one[1], two[1], tmp_path)
    two[0].data.copy_(one[0].data)
    step(*one)
    step(*two)
    assert torch.equal(one[0], two[0])


@pytest.mark.parametrize("value", [object(), print, [object()], np.array([object()]), torch.nn.Linear(1, 1)])
def test_what_cannot_be_kept(value):
    assert not can_keep(value)


@pytest.mark.parametrize(
    ("value", "change"),
    [
        (torch.zeros(3), lambda v: v.add_(1)),
        (np.zeros(3), lambda v: v.__setitem__(0, 1)),
        ([1, 2], lambda v: v.append(3)),
        ({"a": 1}, lambda v: v.update(a=2)),
        ({1}, lambda v: v.add(2)),
    ],
)
def test_change_in_place_is_seen(value, change):
    before = fingerprint(value)
    assert same(before, fingerprint(value))
    change(value)
    assert not same(before, fingerprint(value))
