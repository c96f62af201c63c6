"""Training batches: every positive once an epoch, negatives uniform over what the user does not own."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from helpers import dataset_of, problems_of, random_dataset
from scipy.stats import chi2

from utils.data.dataloader import TrainLoader
from utils.data.dataset import Dataset

CPU = torch.device("cpu")


def loader_of(dataset: Dataset, batch_size: int = 16, seed: int = 0) -> TrainLoader:
    return TrainLoader(dataset, batch_size, seed, CPU)


def owned(dataset: Dataset) -> list[set[int]]:
    """The training items of each user."""
    sets: list[set[int]] = [set() for _ in range(dataset.n_users)]
    for user, item in zip(dataset.train.users.tolist(), dataset.train.items.tolist(), strict=True):
        sets[user].add(item)
    return sets


def rows_of(loader: TrainLoader) -> torch.Tensor:
    """All batches of one epoch side by side."""
    return torch.cat(list(loader.epoch()), dim=1)


@pytest.mark.parametrize("seed", range(3))
def test_every_rank_of_a_users_complement_is_the_naive_one(monkeypatch, seed):
    dataset = random_dataset(seed)
    loader, own = loader_of(dataset), owned(dataset)
    pool = set(dataset.train.items.tolist())
    users, draws, expected = [], [], []
    for user in range(dataset.n_users):
        free = sorted(pool - own[user])
        for rank, item in enumerate(free):
            for share in (0.0, 0.5, 0.999):
                users.append(user)
                draws.append((rank + share) / len(free) + 1e-15)
                expected.append(item)
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor(draws, dtype=torch.float64))
    assert loader.negatives(torch.tensor(users)).tolist() == expected
    assert len(set(users)) == dataset.n_users, "the user without a training item has the whole pool"


def test_largest_draw_is_the_last_free_item(monkeypatch):
    dataset = random_dataset()
    monkeypatch.setattr(torch, "rand", lambda n, **_: torch.ones(n, dtype=torch.float64))
    own, pool = owned(dataset), set(dataset.train.items.tolist())
    drawn = loader_of(dataset).negatives(torch.arange(dataset.n_users))
    assert drawn.tolist() == [max(pool - own[user]) for user in range(dataset.n_users)]


def test_negatives_are_training_items_that_the_user_does_not_own():
    dataset = random_dataset(1)
    own, pool = owned(dataset), set(dataset.train.items.tolist())
    assert len(pool) < dataset.n_items, "some items are never trained on"
    loader = loader_of(dataset)
    for _ in range(20):
        for user, _, negative in rows_of(loader).T.tolist():
            assert negative in pool - own[user]


def test_validation_and_test_items_can_be_negatives():
    dataset = dataset_of([(0, 0, 0), (0, 1, 1), (0, 2, 2), (1, 1, 0), (1, 2, 0)], 2, 3)
    loader = loader_of(dataset)
    drawn = {negative for _ in range(50) for user, _, negative in rows_of(loader).T.tolist() if user == 0}
    assert drawn == {1, 2}


@pytest.mark.parametrize("sampling", ["uniform", "popularity"])
def test_negatives_are_as_likely_as_the_sampling_says(sampling):
    dataset = random_dataset(2)
    own, pool = owned(dataset), set(dataset.train.items.tolist())
    weight = np.bincount(dataset.train.items, minlength=dataset.n_items) if sampling == "popularity" else None
    n = 2000
    users = torch.arange(dataset.n_users).repeat_interleave(n)
    loader = TrainLoader(dataset, 16, 5, CPU, sampling=sampling)
    statistic, freedom = 0.0, 0
    for user, items in enumerate(loader.negatives(users).reshape(-1, n)):
        free = sorted(pool - own[user])
        counts = np.bincount(items.numpy(), minlength=dataset.n_items)[free]
        assert counts.sum() == n
        expected = n * (weight[free] / weight[free].sum() if weight is not None else np.ones(len(free)) / len(free))
        statistic += float(((counts - expected) ** 2 / expected).sum())
        freedom += len(free) - 1
    assert chi2.ppf(1e-3, freedom) < statistic < chi2.ppf(1 - 1e-3, freedom)


@pytest.mark.parametrize("by_user", [False, True])
def test_each_positive_stands_in_its_batch_once_for_each_negative(by_user):
    dataset = random_dataset()
    own = owned(dataset)
    loader = TrainLoader(dataset, 16, 0, CPU, by_user=by_user, per_positive=3, sampling="popularity")
    batches = list(loader.epoch())
    assert len(batches) == len(loader)
    assert all(batch.shape == (3, 15) for batch in batches[:-1]), "5 positives with 3 negatives each"
    triples = torch.cat(batches, dim=1).unflatten(1, (-1, 3))
    assert (triples[:2] == triples[:2, :, :1]).all()
    assert (triples[2] != triples[2, :, :1]).any()
    assert all(j not in own[u] for u, j in triples[[0, 2]].flatten(1).T.tolist())
    if not by_user:
        pairs = sorted(map(tuple, triples[:2, :, 0].T.tolist()))
        assert pairs == sorted(zip(dataset.train.users.tolist(), dataset.train.items.tolist(), strict=True))


@pytest.mark.parametrize("batch_size", [1, 7, 16, 1000])
def test_an_epoch_holds_every_positive_once_and_its_last_batch_is_short(batch_size):
    dataset = random_dataset()
    loader = loader_of(dataset, batch_size)
    n = len(dataset.train)
    assert n % 7, "or no batch of 7 is short"
    for _ in range(2):
        batches = list(loader.epoch())
        assert len(batches) == len(loader) == -(-n // batch_size)
        sizes = [batch.shape for batch in batches]
        assert sizes[:-1] == [(3, batch_size)] * (len(batches) - 1)
        assert sizes[-1] == (3, n - batch_size * (len(batches) - 1))
        assert {batch.dtype for batch in batches} == {torch.int64}
        rows = torch.cat(batches, dim=1)
        positives = Counter(zip(rows[0].tolist(), rows[1].tolist(), strict=True))
        assert positives == Counter(zip(dataset.train.users.tolist(), dataset.train.items.tolist(), strict=True))
    assert loader.n_interactions == n


def test_every_epoch_is_a_new_permutation_with_new_negatives():
    dataset = random_dataset()
    loader = loader_of(dataset)
    first, second = rows_of(loader), rows_of(loader)
    assert not torch.equal(first[:2], second[:2])
    order = torch.argsort(first[0] * dataset.n_items + first[1])
    other = torch.argsort(second[0] * dataset.n_items + second[1])
    assert torch.equal(first[:2, order], second[:2, other])
    assert not torch.equal(first[2, order], second[2, other])


def test_every_place_of_an_epoch_is_as_likely_for_every_positive():
    dataset = dataset_of([(user, item, 0) for user in range(4) for item in range(user, user + 2)], 4, 5)
    loader, n, n_epochs = loader_of(dataset), len(dataset.train), 2000
    counts = np.zeros((n, n))
    number = {pair: k for k, pair in enumerate(zip(dataset.train.users, dataset.train.items, strict=True))}
    for _ in range(n_epochs):
        for place, (user, item) in enumerate(rows_of(loader)[:2].T.tolist()):
            counts[number[user, item], place] += 1
    statistic = ((counts - n_epochs / n) ** 2 / (n_epochs / n)).sum()
    assert statistic < chi2.ppf(1 - 1e-3, (n - 1) ** 2)


def test_a_seed_is_a_stream_apart_from_the_global_ones():
    dataset = random_dataset()
    torch.manual_seed(1)
    loader = loader_of(dataset, seed=3)
    first = [rows_of(loader) for _ in range(2)]
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002 (the global stream is what is tested)
    again = loader_of(dataset, seed=3)
    assert all(torch.equal(rows, rows_of(again)) for rows in first)
    assert not torch.equal(first[0], rows_of(loader_of(dataset, seed=4)))
    before = torch.get_rng_state()
    rows_of(again)
    assert torch.equal(torch.get_rng_state(), before), "nothing is drawn from the global stream"


def test_the_stream_goes_on_from_its_saved_state():
    dataset = random_dataset()
    loader = loader_of(dataset)
    rows_of(loader)
    state = loader.generator.get_state()
    expected = rows_of(loader)
    resumed = loader_of(dataset, seed=99)
    resumed.generator.set_state(state)
    assert torch.equal(rows_of(resumed), expected)


def test_the_stream_is_not_the_one_that_a_model_is_initialised_with():
    loader = loader_of(random_dataset(), seed=3)
    assert not torch.equal(
        torch.rand(8, generator=loader.generator), torch.rand(8, generator=torch.Generator().manual_seed(3))
    )


def test_without_negatives_a_batch_has_users_and_positives_of_every_interaction():
    rows = [(0, item, 0) for item in range(3)] + [(1, 0, 0), (2, 1, 0), (3, 4, 2)]
    dataset = dataset_of(rows, 4, 5)
    loader = TrainLoader(dataset, 2, 0, CPU, negatives=False)
    epoch = rows_of(loader)
    assert epoch.shape == (2, 5)
    assert sorted(zip(*epoch.tolist(), strict=True)) == [(0, 0), (0, 1), (0, 2), (1, 0), (2, 1)]
    assert not torch.equal(epoch, rows_of(loader)), "shuffled again"


def test_users_who_own_every_item_are_not_sampled():
    rows = [(0, item, 0) for item in range(3)] + [(1, 0, 0), (2, 1, 0), (2, 2, 0), (3, 4, 2)]
    loader = loader_of(dataset_of(rows, 4, 5))
    assert loader.n_saturated_users == 1
    assert loader.n_interactions == 3
    epoch = rows_of(loader)
    assert sorted(zip(epoch[0].tolist(), epoch[1].tolist(), strict=True)) == [(1, 0), (2, 1), (2, 2)]
    assert set(epoch[2][epoch[0] == 2].tolist()) == {0}


def test_set_in_which_all_users_own_every_item_is_refused():
    rows = [(user, item, 0) for user in range(3) for item in range(2)]
    assert problems_of(lambda: loader_of(dataset_of(rows, 3, 4))) == [
        "every user has interacted with every training item: there is nothing to rank them against"
    ]


def test_batches_by_user_hold_each_user_once_with_an_item_of_its_own():
    dataset = random_dataset()
    loader, own = TrainLoader(dataset, 10, 0, CPU, by_user=True), owned(dataset)
    batches = list(loader.epoch())
    assert len(batches) == len(loader) == len(dataset.train) // 10 + 1
    for batch in batches:
        users, pos, neg = batch.tolist()
        assert len(users) == len(set(users)) == 10
        assert all(i in own[u] and j not in own[u] for u, i, j in zip(users, pos, neg, strict=True))
    assert not torch.equal(batches[0], batches[1])


def test_by_user_every_user_is_as_likely_and_so_is_each_of_its_items():
    dataset = random_dataset()
    loader, own = TrainLoader(dataset, 10, 0, CPU, by_user=True), owned(dataset)
    pairs = torch.cat([rows_of(loader)[:2] for _ in range(150)], dim=1)
    by_user = Counter(pairs[0].tolist())
    expected = pairs.shape[1] / (dataset.n_users - 1)  # the last one has no item
    assert sum((by_user[u] - expected) ** 2 / expected for u in range(dataset.n_users - 1)) < chi2.isf(1e-4, 28)
    assert dataset.n_users - 1 not in by_user
    user = max(range(dataset.n_users), key=lambda u: len(own[u]))
    counts = Counter(pairs[1][pairs[0] == user].tolist())
    expected = by_user[user] / len(own[user])
    statistic = sum((counts[item] - expected) ** 2 / expected for item in own[user])
    assert statistic < chi2.isf(1e-4, len(own[user]) - 1)


def test_fewer_users_than_a_batch_are_drawn_with_repetition():
    dataset = random_dataset()
    batches = list(TrainLoader(dataset, 64, 0, CPU, by_user=True).epoch())
    assert all(batch.shape == (3, 64) for batch in batches)
    assert TrainLoader(dataset, 64, 0, CPU, negatives=False, by_user=True).epoch().__next__().shape == (2, 64)
