"""A run that cannot fit is refused before it starts."""

import pytest
import torch
from helpers import problems_of
from toys import CPU, make_config, toy_dataset

from common.abstract_recommender import GeneralRecommender
from utils import memory
from utils.memory import check_fits, memory_of


def test_what_does_not_fit_is_refused_in_one_line_that_says_what_it_is(monkeypatch):
    monkeypatch.setattr(memory, "memory_of", lambda device: 4 * 2**30)
    check_fits("EASE", {"a matrix": 3 * 2**30, "its inverse": 2**30}, CPU)
    assert problems_of(lambda: check_fits("EASE", {"a matrix": 3 * 2**30, "its inverse": 2**31}, CPU)) == [
        "EASE needs more memory than the 4.0 GiB of cpu: a matrix 3.0 GiB, its inverse 2.0 GiB"
    ]


def test_where_the_memory_is_not_known_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "memory_of", lambda device: 0)
    check_fits("EASE", {"a matrix": 2**60}, CPU)


def test_the_memory_of_this_machine_is_known_and_a_limit_of_its_group_counts(monkeypatch, tmp_path):
    assert memory_of(torch.device("cpu")) > 2**28
    (tmp_path / "limit").write_text("1000\n")
    monkeypatch.setattr(memory, "Path", lambda path: tmp_path / "limit")
    assert memory_of(torch.device("cpu")) == 1000
    (tmp_path / "limit").write_text("max\n")
    assert memory_of(torch.device("cpu")) > 2**28


@pytest.mark.parametrize("train_features", [True, False])
def test_trainable_features_are_a_copy_with_sixteen_bytes_a_number(train_features):
    class Holder(GeneralRecommender):
        needs_features = True

    data = toy_dataset()
    config = {**make_config("BPR"), "train_features": train_features}
    model = Holder({"train_features": train_features, "embedding_size": 8}, data)
    numbers = sum(matrix.size for matrix in data.features.values())
    assert sum(parameter.numel() for parameter in model.parameters()) == numbers * train_features
    assert sum(Holder.memory_needed(config, data).values()) == 16 * numbers * train_features
    before = data.features["visual"].copy()
    with torch.no_grad():
        model.features("visual").add_(1)
    assert (data.features["visual"] == before).all() == train_features, "what is trained is a copy"
    assert ("features_visual" in model.state_dict()) == train_features
