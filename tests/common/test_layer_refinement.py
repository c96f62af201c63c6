"""The refinement of a layer and its derivative."""

import pytest
import torch

from common.layer_refinement import refine


def test_the_derivative_of_the_refinement():
    random = torch.Generator().manual_seed(1)
    z, ego = (torch.randn(6, 4, dtype=torch.float64, generator=random).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(refine, (z, ego))
    similarities = torch.nn.functional.cosine_similarity(z, ego, dim=1)
    torch.testing.assert_close(refine(z, ego), similarities[:, None] * z)
    assert similarities.min() < 0 < similarities.max()


def test_the_refinement_of_rows_too_short_for_a_cosine():
    z, ego = torch.zeros(3, 4, dtype=torch.float64), torch.ones(3, 4, dtype=torch.float64)
    z[1], ego[2] = 1e-10, 0
    z.requires_grad_()
    ego.requires_grad_()
    out = refine(z, ego)
    # cos = <z, ego> / 1e-8 where the product of lengths is less.
    torch.testing.assert_close(out.detach()[1], z.detach()[1] * 4e-10 / 1e-8)
    assert not out[[0, 2]].any()
    by_z, by_ego = torch.autograd.grad(out.sum(), [z, ego])
    # d/dz_k of <z, 1> z_l 1e8 summed over l: 1e8 (sum_l z_l + <z, 1>), both 4e-10.
    torch.testing.assert_close(by_z[1], torch.full((4,), 0.08, dtype=torch.float64))
    torch.testing.assert_close(by_ego[1], torch.full((4,), 1e8 * 1e-10 * 4e-10, dtype=torch.float64))
    assert not by_z[0].any()
    assert torch.isfinite(by_ego).all()


def test_a_second_derivative_of_the_refinement_is_refused():
    z = torch.randn(3, 4).requires_grad_()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(refine(z, torch.ones(3, 4)).sum(), z, create_graph=True)
