"""The moving average of the weights."""

import pytest
import torch
from torch import nn

from common.averaging import WeightAverage


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.table, self.layer = nn.Parameter(torch.randn(4, 3)), nn.Linear(3, 2)
        self.register_buffer("features", torch.randn(1000, 3))


def step(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))


@pytest.mark.parametrize("decay", [0.2, 0.5, 0.99])
def test_it_is_that_of_the_formula(decay):
    model = Two()
    average = WeightAverage(model, decay)
    expected = [parameter.detach().double() for parameter in model.parameters()]
    for n in range(1, 8):
        step(model)
        average.update()
        own = min(decay, (1 + n) / (10 + n))
        expected = [
            own * a + (1 - own) * w.detach().double() for a, w in zip(expected, model.parameters(), strict=True)
        ]
    for found, wanted in zip(average.averaged.parameters(), expected, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)


def test_within_it_the_model_has_the_averages_and_after_it_its_own_weights():
    model = Two()
    average = WeightAverage(model, 0.9)
    step(model)
    average.update()
    own, held = model.table.detach().clone(), model.table
    with average.in_place():
        assert torch.equal(model.table, next(iter(average.averaged.parameters())))
        assert not torch.equal(model.table, own)
    assert torch.equal(model.table, own)
    assert model.table is held, "the optimiser has this one"
    with pytest.raises(ZeroDivisionError), average.in_place():
        _ = 1 / 0
    assert torch.equal(model.table, own), "and after an error, too"


def test_a_copy_that_takes_up_its_state_goes_on_to_the_same_bits():
    model = Two()
    average = WeightAverage(model, 0.99)
    for _ in range(3):
        step(model)
        average.update()
    other = WeightAverage(model, 0.99)
    other.load_state_dict({name: tensor.clone() for name, tensor in average.state_dict().items()})
    for _ in range(3):
        step(model)
        average.update()
        other.update()
    for one, two in zip(average.averaged.parameters(), other.averaged.parameters(), strict=True):
        assert torch.equal(one, two)


def test_features_and_graphs_are_not_copied():
    model = Two()
    average = WeightAverage(model, 0.9)
    held = sum(tensor.numel() for tensor in average.averaged.state_dict().values())
    assert held == sum(parameter.numel() for parameter in model.parameters()) + 1
