"""What every model inherits: features, scoring once per evaluation."""

import pytest
import torch
from torch import nn
from toys import BOTH, N_ITEMS, N_USERS, make_config, toy_dataset

from common.abstract_recommender import GeneralRecommender


class Counting(GeneralRecommender):
    """Two embedding tables, and how often they were asked for in which mode."""

    needs_features = True

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.user_embedding = nn.Parameter(torch.randn(self.n_users, 4))
        self.item_embedding = nn.Parameter(torch.randn(self.n_items, 4))
        self.calls = []

    def forward(self):
        self.calls.append((self.training, torch.is_grad_enabled()))
        return self.user_embedding * 1, self.item_embedding * 1


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Counting(make_config("BPR"), toy_dataset())


def users(*ids):
    return (torch.tensor(ids),)


# Scores


def test_default_scores_are_dot_products_of_what_forward_gives(model):
    batch = torch.tensor([4, 0, 4])
    found = model.full_sort_predict((batch,))
    torch.testing.assert_close(found, model.user_embedding.detach()[batch] @ model.item_embedding.detach().T)


# One evaluation, one forward


def test_an_evaluation_computes_its_embeddings_once_in_eval_mode_without_gradients(model):
    model.train()
    with model.scoring():
        first = model.full_sort_predict(users(1, 2))
        second = model.full_sort_predict(users(2, 1))
    assert model.calls == [(False, False)]
    assert torch.equal(first, second.flip(0))
    assert model.training, "the mode it came in is the mode it goes in"


def test_the_mode_stays_eval_where_it_was_eval(model):
    model.eval()
    with model.scoring():
        pass
    assert not model.training


def test_embeddings_are_not_kept_from_one_evaluation_to_the_next(model):
    with model.scoring():
        before = model.full_sort_predict(users(1))
    with torch.no_grad():
        model.user_embedding.add_(1)
    with model.scoring():
        after = model.full_sort_predict(users(1))
    assert not torch.equal(before, after)
    model.full_sort_predict(users(1))
    model.full_sort_predict(users(1))
    assert len(model.calls) == 4, "outside an evaluation nothing is kept at all"


def test_an_evaluation_that_fails_leaves_the_model_as_it_was(model):
    model.train()

    def fail():
        with model.scoring():
            model.full_sort_predict(users(1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert model.training
    model.full_sort_predict(users(1))
    assert len(model.calls) == 2, "nothing was kept"


# Features and names


def test_features_are_buffers_outside_the_state_dict(model):
    data = toy_dataset()
    assert model.modalities == list(BOTH)
    for modality in BOTH:
        assert torch.equal(model.features(modality), torch.from_numpy(data.features[modality]))
    assert torch.equal(model.v_feat, model.features("visual"))
    assert torch.equal(model.t_feat, model.features("textual"))
    assert set(model.state_dict()) == {"user_embedding", "item_embedding"}
    assert (model.n_users, model.n_items) == (N_USERS, N_ITEMS)


def test_a_missing_modality_is_none(model):
    model = Counting(make_config("BPR"), toy_dataset(["textual"]))
    assert model.v_feat is None
    assert model.t_feat is not None


def test_a_model_that_needs_no_features_holds_none():
    class Plain(Counting):
        needs_features = False

    model = Plain(make_config("BPR"), toy_dataset())
    assert model.modalities == []
    assert list(model.buffers()) == []


def test_what_a_model_must_implement_is_named():
    model = GeneralRecommender(make_config("BPR"), toy_dataset())
    with pytest.raises(NotImplementedError, match="GeneralRecommender does not implement forward"):
        model()
    with pytest.raises(NotImplementedError, match="GeneralRecommender does not implement calculate_loss"):
        model.calculate_loss(torch.zeros(3, 1))
