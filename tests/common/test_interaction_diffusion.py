"""Diffusion over interaction rows: the published constants, the network and the reverse steps from their formulas."""

import math

import naive
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from naive import rows_of

from common.interaction_diffusion import RowDenoiser, RowSchedule
from common.neighbours import SparseRows

N_ITEMS, WIDTH, STEPS = 9, 6, 5


def published():
    return RowSchedule(STEPS, 0.1, 1e-4, 0.02)


def test_the_schedule_has_the_constants_of_the_published_settings():
    schedule = published()
    noise = (1 - schedule.alpha_bar.double())[1:].tolist()
    assert noise == pytest.approx([1.000e-4, 5.975e-4, 1.0949e-3, 1.5924e-3, 2.0898e-3], rel=1e-3)
    of_start, of_now = schedule.posterior[1:].T.tolist()
    assert of_start == pytest.approx([1, 0.8327, 0.4545, 0.3126, 0.2382], abs=5e-5)
    assert of_now == pytest.approx([0, 0.1673, 0.5455, 0.6874, 0.7618], abs=5e-5)
    assert schedule.loss_weights[1:].tolist() == pytest.approx([1, 8326.2, 760.4, 285.3, 149.5], rel=1e-4)


def make():
    torch.manual_seed(0)
    denoiser = RowDenoiser(N_ITEMS, WIDTH, STEPS).double()
    with torch.no_grad():  # biases that matter
        for layer in (denoiser.time, denoiser.first, denoiser.second):
            layer.bias.normal_(std=0.5)
    return denoiser


def estimate_by_formula(denoiser, row, t):
    """x^ for one row at time t in 1..T."""
    frequencies = [10_000 ** (-k / 5) for k in range(5)]
    code = [math.cos((t - 1) * f) for f in frequencies] + [math.sin((t - 1) * f) for f in frequencies]
    hidden = naive.affine(row + naive.affine(code, denoiser.time), denoiser.first)
    return naive.affine([math.tanh(value) for value in hidden], denoiser.second)


def test_the_estimate_is_that_of_the_formula():
    denoiser = make()
    x = torch.randn(4, N_ITEMS, dtype=torch.float64)
    times = torch.tensor([1, 5, 3, 1])
    expected = [estimate_by_formula(denoiser, row, t) for row, t in zip(rows_of(x), times.tolist(), strict=True)]
    torch.testing.assert_close(
        denoiser(x, times).detach(), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-6
    )


def test_generation_takes_the_reverse_steps_one_by_one():
    denoiser, schedule = make(), RowSchedule(STEPS, 3.0, 0.01, 0.2).double()
    histories = np.random.default_rng(0).random((4, N_ITEMS)) < 0.4
    histories[2] = False
    offsets, items, _ = SparseRows(sp.csr_matrix(histories.astype(np.float32))).take(torch.arange(4))
    found = denoiser.generator(schedule)(offsets, items)
    for row, start in zip(rows_of(found), histories.astype(float).tolist(), strict=True):
        x = start
        for t in range(STEPS, 0, -1):
            of_start, of_now = schedule.posterior[t].tolist()
            x = [of_start * e + of_now * v for e, v in zip(estimate_by_formula(denoiser, x, t), x, strict=True)]
        assert row == pytest.approx(x, rel=1e-5, abs=1e-5)
