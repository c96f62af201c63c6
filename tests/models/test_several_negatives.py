"""Several negatives of each positive, in models of every kind: the loss of preferences is that of all pairs."""

import copy

import pytest
import torch
from toys import CPU, build, toy_dataset

from common.trainer import loss_terms
from runner.registry import model_class
from utils.data.dataloader import TrainLoader

NEGATIVES = 3


@pytest.mark.parametrize("name", ["BPR", "VBPR", "LightGCN", "LayerGCN", "FREEDOM", "GRCN", "DGMRec", "MGCN"])
@pytest.mark.parametrize("sampling", ["uniform", "popularity"])
def test_the_loss_of_a_batch_is_that_of_its_positives_with_each_of_their_negatives(name, sampling):
    dataset = toy_dataset()
    loader = TrainLoader(dataset, 64, 0, CPU, True, model_class(name).batches_by_user, NEGATIVES, sampling)
    batch = next(loader.epoch())
    assert batch.shape[1] == 63
    model = build(name, dataset)
    model.train()
    model.pre_epoch_processing()

    def bpr(rows: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return loss_terms(copy.deepcopy(model).calculate_loss(rows))["bpr"]

    parts = torch.stack([bpr(batch[:, number::NEGATIVES]) for number in range(NEGATIVES)])
    together = parts.sum() if name == "LayerGCN" else parts.mean()  # its paper sums over the batch
    torch.testing.assert_close(bpr(batch), together)
