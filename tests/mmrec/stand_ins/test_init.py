"""Initialisers of whole models, as MMRec's files use them, against the moments that their names promise."""

import pytest
import torch
from torch import nn

from mmrec.stand_ins.init import xavier_normal_initialization, xavier_uniform_initialization


def test_initialisation_of_a_whole_model_reaches_embeddings_and_linear_layers_alone():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Embedding(400, 300), nn.Linear(400, 300), nn.Linear(4, 3, bias=False), nn.LayerNorm(3), nn.PReLU()
    )
    bound = (6 / 700) ** 0.5
    model.apply(xavier_uniform_initialization)
    for layer in model[:2]:
        assert 0.999 * bound < layer.weight.abs().max() <= bound
    model.apply(xavier_normal_initialization)
    for layer in model[:2]:
        assert layer.weight.std().item() == pytest.approx((2 / 700) ** 0.5, rel=0.02)
        assert layer.weight.abs().max() > 1.2 * bound
    assert not model[1].bias.any()
    assert torch.equal(model[3].weight, torch.ones(3))
