"""Initialisers against the moments that their names promise."""

import pytest
import torch

from common.initial import (
    as_constants,
    xavier_normal_embedding,
    xavier_normal_linear,
    xavier_uniform_embedding,
    xavier_uniform_linear,
)


def test_xavier_uniform_embedding_has_its_bound():
    torch.manual_seed(0)
    table = xavier_uniform_embedding(400, 30)
    bound = (6 / 430) ** 0.5
    assert table.shape == (400, 30)
    assert table.requires_grad
    assert 0.999 * bound < table.abs().max() <= bound
    assert table.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert abs(table.mean().item()) < 0.02 * bound


def test_xavier_normal_embedding_has_its_standard_deviation():
    torch.manual_seed(0)
    table = xavier_normal_embedding(400, 30)
    deviation = (2 / 430) ** 0.5
    assert table.shape == (400, 30)
    assert table.requires_grad
    assert table.std().item() == pytest.approx(deviation, rel=0.02)
    assert table.abs().max() > 3 * deviation, "a normal has tails that a uniform has not"


def test_xavier_normal_linear_has_its_standard_deviation_and_no_bias_at_first():
    torch.manual_seed(0)
    layer = xavier_normal_linear(400, 30)
    deviation = (2 / 430) ** 0.5
    assert layer.weight.shape == (30, 400)
    assert layer.weight.std().item() == pytest.approx(deviation, rel=0.02)
    assert layer.weight.abs().max() > 3 * deviation
    assert not layer.bias.any()
    assert layer.bias.requires_grad


def test_xavier_uniform_linear_has_its_bound_and_pytorch_s_bias():
    torch.manual_seed(0)
    layer = xavier_uniform_linear(400, 300)
    bound = (6 / 700) ** 0.5
    assert 0.999 * bound < layer.weight.abs().max() <= bound
    assert 0.9 / 20 < layer.bias.abs().max() <= 1 / 20
    assert xavier_uniform_linear(4, 3, bias=False).bias is None


def test_xavier_normal_linear_with_pytorch_s_bias_or_none():
    torch.manual_seed(0)
    assert 0.9 / 20 < xavier_normal_linear(400, 300, zero_bias=False).bias.abs().max() <= 1 / 20
    assert xavier_normal_linear(4, 3, bias=False).bias is None


@pytest.mark.parametrize(
    "make", [xavier_uniform_embedding, xavier_normal_embedding, xavier_normal_linear, xavier_uniform_linear]
)
def test_the_seed_decides(make):
    def draw(seed):
        torch.manual_seed(seed)
        made = make(5, 4)
        return made if isinstance(made, torch.Tensor) else made.weight

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_constants_keep_their_values_and_stay_in_the_state():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ModuleDict({"a": torch.nn.Linear(3, 2)})["a"])
    before = {key: value.clone() for key, value in module.state_dict().items()}
    x = torch.randn(5, 4)
    given = module(x).detach()
    constant = as_constants(module)
    assert constant is module
    assert not list(module.parameters())
    assert list(module.state_dict()) == list(before)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert torch.equal(module(x), given)
    assert not module(x).requires_grad
