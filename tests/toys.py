"""Toy data sets and settings shared by the tests of common/ and models/."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.abstract_recommender import GeneralRecommender
from runner.quick_start import build_model
from runner.registry import model_class
from utils.config.configuration import Config
from utils.config.request import Request, resolve
from utils.config.schema import keys_of
from utils.data.dataloader import TrainLoader
from utils.data.dataset import Dataset, Split

CPU = torch.device("cpu")

# Sizes that no width of a toy model equals, so that a parameter's shape tells whether it is indexed by users or items.
N_USERS, N_ITEMS = 31, 23
WIDTHS = {"visual": 6, "textual": 5, "acoustic": 7}
BOTH = ("visual", "textual")

SMALL: dict[str, dict[str, Any]] = {
    "COHESION": {"knn_k": 3},
    "DGMRec": {"knn_k": 4},
    "DRAGON": {"knn_k": 3},
    "DiffMM": {"denoiser_width": 16},
    "GIVE": {"knn_k": 3},
    "GTC": {"noise_steps": 20, "denoiser_widths": [12, 10], "knn_k": 3, "n_ui_layers": 2},
    "FREEDOM": {"knn_k": 3},
    "GUME": {"knn_k": 6},
    "MENTOR": {"knn_k": 3},
    "MGCN": {"knn_k": 3},
    "MMSSL": {"graph_share": 0.1},
    "PGL": {"knn_k": 3},
    "LATTICE": {"feat_embed_dim": 10, "knn_k": 3},
    "GRCN": {"latent_embedding": 10},
    "MMGCN": {"visual_width": 12},
    "MSCA": {"knn_k": 3},
    "DAMRS": {"knn_k": 5},
    "MVGAE": {"preference_width": 12},
    "ItemKNN": {"knn_k": 30},  # all: where equals are cut, the smaller id decides, which relabelling would show
    "EASE": {"reg_weight": 5.0},
    "SMORE": {"n_ui_layers": 2, "image_knn_k": 4, "text_knn_k": 3},
}


def make_config(model: str, **overrides: Any) -> Config:
    """The settings of a small run: the model's YAML file, small sizes over it, `overrides` over these."""
    values: dict[str, Any] = {
        "data_path": "no-such-folder",
        "device": "cpu",
        "train_batch_size": 64,
        "topk": [1, 5, 10],
        "valid_metric": "Recall@5",
    }
    settings = model_class(model).settings
    if "embedding_size" in keys_of(settings):
        values["embedding_size"] = 8
    values |= SMALL.get(model, {}) | overrides
    request = Request([model], ["demo"], {name: [value] for name, value in values.items()})
    (config,), _ = resolve(request, {model: settings})
    return config


def build(model: str, dataset: Dataset, **overrides: Any) -> Any:
    """A seeded, untrained model with the settings of `make_config`; Any, for its class is known by name only."""
    return build_model(make_config(model, **overrides), dataset, CPU)


def split_of(users: Any, items: Any) -> Split:
    """A split sorted by user, then item."""
    users, items = np.asarray(users, dtype=np.int64), np.asarray(items, dtype=np.int64)
    order = np.lexsort((items, users))
    return Split(users[order], items[order])


def toy_dataset(modalities: Sequence[str] = BOTH, seed: int = 0) -> Dataset:
    """Seven interactions a user out of tastes that the features show.

    The last user has no interaction at all. The last item has none either, and features of zeros; the item before
    it stands in the test split only.
    """
    random = np.random.default_rng(seed)
    tastes, traits = random.standard_normal((N_USERS, 3)), random.standard_normal((N_ITEMS, 3))
    warm = N_ITEMS - 2
    wishes = 2 * tastes @ traits[:warm].T + random.gumbel(size=(N_USERS, warm))
    taken = np.argsort(-wishes, axis=1)[: N_USERS - 1, :7]  # [U - 1, 7]
    users = np.arange(N_USERS - 1)
    splits = {
        "train": split_of(users.repeat(5), taken[:, 2:].ravel()),
        "valid": split_of(users, taken[:, 0]),
        "test": split_of(np.append(users, 0), np.append(taken[:, 1], warm)),
    }
    features = {}
    for modality, width in WIDTHS.items():
        matrix = traits @ random.standard_normal((3, width)) + 0.3 * random.standard_normal((N_ITEMS, width)) + 0.5
        matrix[-1] = 0
        features[modality] = matrix.astype(np.float32)
    return Dataset("toy", N_USERS, N_ITEMS, splits, {modality: features[modality] for modality in modalities})


def uneven(dataset: Dataset) -> Dataset:
    """`dataset` with 1 to 5 of each user's training interactions."""
    train = dataset.train
    place = np.arange(len(train)) - np.searchsorted(train.users, train.users)  # among the user's own
    kept = place <= train.users % 5
    dataset.splits["train"] = Split(train.users[kept], train.items[kept])
    return dataset


def checkerboard(n_blocks: int = 2, users: int = 10, items: int = 10, modalities: Sequence[str] = BOTH) -> Dataset:
    """Users of a block interact with that block's items only; three of these are held out for each user (test)."""
    random = np.random.default_rng(1)
    rows: dict[str, list[tuple[int, int]]] = {"train": [], "valid": [], "test": []}
    for user in range(n_blocks * users):
        own = random.permutation(items) + user // users * items
        for place, item in enumerate(own.tolist()):
            rows["test" if place < 3 else "train"].append((user, item))
    rows["valid"] = rows["test"]
    splits = {name: split_of(*zip(*pairs, strict=True)) for name, pairs in rows.items()}
    block = np.arange(n_blocks * items) // items
    features = {
        modality: (random.standard_normal((n_blocks, WIDTHS[modality]))[block]
                   + 0.3 * random.standard_normal((len(block), WIDTHS[modality]))).astype(np.float32)
        for modality in modalities
    }  # fmt: skip
    return Dataset("checkerboard", n_blocks * users, n_blocks * items, splits, features)


def relabelled(dataset: Dataset, users: NDArray[np.int64], items: NDArray[np.int64]) -> Dataset:
    """The same data set with user u called users[u] and item i called items[i]."""
    splits = {name: split_of(users[split.users], items[split.items]) for name, split in dataset.splits.items()}
    back = np.argsort(items)
    features = {name: matrix[back] for name, matrix in dataset.features.items()}
    return Dataset(dataset.name, dataset.n_users, dataset.n_items, splits, features)


def train_loader(
    dataset: Dataset, batch_size: int = 64, seed: int = 0, negatives: bool = True, by_user: bool = False
) -> TrainLoader:
    """Batches on the CPU."""
    return TrainLoader(dataset, batch_size, seed, CPU, negatives, by_user)


def one_batch(dataset: Dataset, size: int = 64, seed: int = 0) -> Tensor:
    """The first batch int64 [3, B] of a fresh loader."""
    return next(iter(train_loader(dataset, size, seed).epoch())).clone()


def total(terms: dict[str, Tensor]) -> Tensor:
    """The sum of a loss's terms."""
    return torch.stack([term.reshape(()) for term in terms.values()]).sum()


def all_scores(model: GeneralRecommender) -> Tensor:
    """Scores [U, I] as an evaluation computes them."""
    with model.scoring():
        return model.full_sort_predict((torch.arange(model.n_users),))


def on_double(model: Any) -> Any:
    """A copy whose parameters and buffers are float64."""
    return copy.deepcopy(model).double()


def saved_by(function: Callable[[], Any]) -> list[Tensor]:
    """The tensors that autograd keeps while `function` runs."""
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        function()
    return kept


def ignore_progress(epoch: int, share: float, shown: dict[str, float]) -> None:
    """A progress callback that shows nothing."""
