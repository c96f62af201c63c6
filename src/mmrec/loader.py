"""The training split under the names of MMRec's training loader, and of its data set."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmrec.config import ForeignConfig
from utils.data.dataloader import TrainLoader
from utils.data.dataset import Dataset

STREAM = 7_919  # added to the seed: a loader that a model iterates over draws no number of the trainer's


class TrainingRows:
    """What MMRec calls the data set of the training split: its rows and sizes."""

    def __init__(self, config: ForeignConfig, dataset: Dataset) -> None:
        self.config, self._dataset = config, dataset
        self.dataset_name = dataset.name
        self.dataset_path = f"{config['data_path']}{dataset.name}"
        self.uid_field, self.iid_field = config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]
        self.user_num, self.item_num = dataset.n_users, dataset.n_items
        self.inter_num = len(dataset.train)

    @cached_property
    def df(self) -> pd.DataFrame:
        """The training interactions, a row each, with the columns of users and items."""
        train = self._dataset.train
        return pd.DataFrame({self.uid_field: train.users, self.iid_field: train.items})

    def get_user_num(self) -> int:
        """Number of users U."""
        return self.user_num

    def get_item_num(self) -> int:
        """Number of items I."""
        return self.item_num

    def inter_matrix(self, form: str = "coo", value_field: str | None = None) -> Any:
        """The 0/1 training matrix [U, I], float32, as a scipy matrix in `form` coo or csr."""
        return self._dataset.inter_matrix(form, value_field)

    def __len__(self) -> int:
        return self.inter_num

    def __getitem__(self, place: Any) -> pd.DataFrame:
        return self.df.iloc[place]


class TrainingData:
    """MMRec's training loader: facts of the training split, and batches as training gets them when iterated over."""

    def __init__(self, config: ForeignConfig, dataset: Dataset) -> None:
        self.config, self._dataset = config, dataset
        self.dataset = self.dataset_bk = TrainingRows(config, dataset)
        self.batch_size = self.step = config["train_batch_size"]
        self.device: torch.device = config["device"]
        self.sparsity = 1 - len(dataset.train) / (dataset.n_users * dataset.n_items)

    @cached_property
    def all_items(self) -> list[int]:
        """The items of the training split."""
        return np.unique(self._dataset.train.items).tolist()

    @cached_property
    def all_item_len(self) -> int:
        """How many items the training split has."""
        return len(self.all_items)

    @cached_property
    def all_uids(self) -> NDArray[np.int64]:
        """The users of the training split."""
        return np.unique(self._dataset.train.users)

    @cached_property
    def history_items_per_u(self) -> dict[int, set[int]]:
        """User to the set of the user's training items."""
        train = self._dataset.train
        return _grouped(train.users, train.items)

    @cached_property
    def history_users_per_i(self) -> dict[int, set[int]]:
        """Item to the set of its training users."""
        train = self._dataset.train
        return _grouped(train.items, train.users)

    def inter_matrix(self, form: str = "coo", value_field: str | None = None) -> Any:
        """The 0/1 training matrix [U, I], float32, as a scipy matrix in `form` coo or csr."""
        return self._dataset.inter_matrix(form, value_field)

    @cached_property
    def batches(self) -> TrainLoader:
        """Where the batches come from that a model asks for, with a stream of its own."""
        seed = (int(self.config["seed"]) + STREAM) % 2**32
        negatives = bool(self.config["use_neg_sampling"])
        return TrainLoader(self._dataset, self.batch_size, seed, self.device, negatives)

    @property
    def stream(self) -> Tensor | None:
        """The state of that stream; None as long as the model has asked for none."""
        return self.batches.generator.get_state() if "batches" in vars(self) else None

    @stream.setter
    def stream(self, state: Tensor) -> None:
        self.batches.generator.set_state(state.cpu())

    def __iter__(self) -> Iterator[Tensor]:
        return self.batches.epoch()

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)


def _grouped(keys: NDArray[np.int64], values: NDArray[np.int64]) -> dict[int, set[int]]:
    groups: dict[int, set[int]] = {}
    for key, value in zip(keys.tolist(), values.tolist(), strict=True):
        groups.setdefault(key, set()).add(value)
    return groups
