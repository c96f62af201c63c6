"""The LightGCN encoder of MMRec's files."""

from __future__ import annotations

import naive
import pytest
import torch
from naive import rows_of
from toys import N_ITEMS, N_USERS, toy_dataset

from mmrec.stand_ins.encoders import LightGCN_Encoder

N_LAYERS = 2


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return LightGCN_Encoder({"embedding_size": 4, "n_layers": N_LAYERS}, toy_dataset())


def expected_nodes(encoder, graph):
    ego = rows_of(encoder.embedding_dict["user_emb"]) + rows_of(encoder.embedding_dict["item_emb"])
    return torch.tensor(naive.mean_of_layers(graph, ego, N_LAYERS))


def full_graph():
    train = toy_dataset().train
    return naive.dense_normalized(naive.dense_adjacency(train.users, train.items, N_USERS, N_ITEMS))


def test_embedding_is_lightgcn_s_on_the_whole_graph_in_either_mode(encoder):
    expected = expected_nodes(encoder, full_graph()).split([N_USERS, N_ITEMS])
    for mode in (True, False):
        found = encoder.train(mode).get_embedding()
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs.float(), rtol=1e-5, atol=1e-6)
            assert not ours.requires_grad


def test_batch_rows_are_the_same_from_a_batch_and_from_two_vectors(encoder):
    users, items = torch.tensor([0, 3, 3]), torch.tensor([5, 1, 1])
    encoder.eval()
    all_users, all_items = encoder.get_embedding()
    for found in (encoder(torch.stack([users, items])), encoder(users, items)):
        torch.testing.assert_close(found[0], all_users[users])
        torch.testing.assert_close(found[1], all_items[items])
        assert found[0].requires_grad


def test_training_pass_drops_directed_entries_and_scales_the_rest(encoder):
    everyone = torch.arange(N_USERS), torch.arange(N_ITEMS)
    a = torch.from_numpy(full_graph())
    torch.manual_seed(0)
    found = torch.cat(encoder(*everyone))
    torch.manual_seed(0)
    share = torch.rand(()).item()
    rows, columns = a.nonzero(as_tuple=True)
    kept = torch.rand(len(rows)) >= share
    dropped = torch.zeros_like(a)
    dropped[rows[kept], columns[kept]] = a[rows[kept], columns[kept]] / (1 - share)
    assert 0.1 < kept.float().mean() < 0.9
    assert not torch.equal(dropped, dropped.T)
    torch.testing.assert_close(found, expected_nodes(encoder, dropped.numpy()).float(), rtol=1e-4, atol=1e-5)
    assert not torch.equal(torch.cat(encoder(*everyone)), found), "another pass, another mask"


def test_both_tables_learn_and_the_graph_is_no_part_of_a_checkpoint(encoder):
    sum(rows.square().sum() for rows in encoder(torch.arange(N_USERS), torch.arange(N_ITEMS))).backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in encoder.parameters())
    assert set(encoder.state_dict()) == {"embedding_dict.user_emb", "embedding_dict.item_emb"}
