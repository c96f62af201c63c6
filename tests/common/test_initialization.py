"""User and item tables that begin with the singular vectors of the interactions."""

import pytest
import torch
from torch import nn
from toys import N_ITEMS, N_USERS, toy_dataset

from common.initialization import initialize, table_of
from common.spectral import spectral_embeddings
from utils.errors import UserError


def table(rows, width=4):
    return nn.Parameter(torch.randn(rows, width))


class Holder(nn.Module):
    """A model with the parameters that are given, `embedding_dict.user_emb` in a module of that name."""

    def __init__(self, **tables):
        super().__init__()
        for name, value in tables.items():
            setattr(self, name, value)


def both(user="user_embedding", item="item_embedding"):
    return Holder(**{user: table(N_USERS), item: table(N_ITEMS)})


@pytest.mark.parametrize(
    ("user", "item"),
    [
        ("user_embedding", "item_embedding"),
        ("user_embedding", "item_id_embedding"),
        ("u_embedding", "i_embedding"),
        ("embedding_user", "embedding_item"),
        ("user_embeddings", "item_embeddings"),
        ("userEmbedding", "itemEmb"),
    ],
)
def test_tables_are_found_by_name_and_shape(user, item):
    model = both(user, item)
    model.image_embedding, model.user_bias = table(N_ITEMS), table(N_USERS, 1)
    assert table_of(model, "user", N_USERS) is getattr(model, user)
    assert table_of(model, "item", N_ITEMS) is getattr(model, item)


def test_embedding_layers_and_dictionaries_are_seen_through():
    model = Holder(user_embedding=nn.Embedding(N_USERS, 4), parts=nn.ParameterDict({"item_emb": table(N_ITEMS)}))
    assert table_of(model, "user", N_USERS) is model.user_embedding.weight
    assert table_of(model, "item", N_ITEMS) is model.parts["item_emb"]


@pytest.mark.parametrize(
    "model",
    [
        Holder(item_embedding=table(N_ITEMS)),
        Holder(user_embedding=table(N_USERS + 1), item_embedding=table(N_ITEMS)),
        Holder(
            user_embedding=table(N_USERS), item_embedding=nn.Parameter(torch.randn(N_ITEMS, 3), requires_grad=False)
        ),
        Holder(id_embedding=table(N_USERS + N_ITEMS)),
        Holder(user_a_emb=table(N_USERS), user_b_emb=table(N_USERS), item_embedding=table(N_ITEMS)),
        Holder(),
    ],
)
def test_a_model_without_them_is_refused_by_name(model):
    with pytest.raises(UserError, match=r"^initialization: Holder has no plain table of (user|item) .*xavier$"):
        initialize(model, toy_dataset(), 1.0)


def test_of_several_tables_the_one_of_the_plain_name_is_taken():
    model = both()
    model.user_visual_embedding = table(N_USERS)
    assert table_of(model, "user", N_USERS) is model.user_embedding


@pytest.mark.parametrize("power", [0.0, 1.0, 3.0])
def test_they_become_singular_vectors_at_the_deviation_that_they_had(power):
    data, model = toy_dataset(), both()
    model.user_embedding.data.mul_(0.01)
    deviations = [t.std().item() for t in (model.user_embedding, model.item_embedding)]
    initialize(model, data, power)
    users, items = spectral_embeddings(data, 4, power)
    torch.testing.assert_close(model.user_embedding.detach(), users * deviations[0])
    torch.testing.assert_close(model.item_embedding.detach(), items * deviations[1])


def test_columns_beyond_the_rank_or_the_narrower_table_keep_their_draws():
    data = toy_dataset()
    model = Holder(user_embedding=table(N_USERS, 40), item_embedding=table(N_ITEMS, 30))
    users, items = model.user_embedding.detach().clone(), model.item_embedding.detach().clone()
    initialize(model, data, 1.0)
    rank = spectral_embeddings(data, 30, 1.0)[0].shape[1]
    assert rank < 30
    assert torch.equal(model.user_embedding[:, rank:], users[:, rank:])
    assert torch.equal(model.item_embedding[:, rank:], items[:, rank:])
    narrow = Holder(user_embedding=table(N_USERS, 8), item_embedding=table(N_ITEMS, 3))
    before = narrow.user_embedding.detach().clone()
    initialize(narrow, data, 1.0)
    assert torch.equal(narrow.user_embedding[:, 3:], before[:, 3:])
    assert not torch.equal(narrow.user_embedding[:, :3], before[:, :3])
