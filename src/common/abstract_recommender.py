"""The interface of a model, and what every model needs of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.graph import SparseSymmetric, normalized_interaction_graph
from common.scoring import score_all_items
from utils.data.dataset import Dataset
from utils.errors import UserError

Loss = Tensor | dict[str, Tensor] | tuple[Tensor, ...]


class GeneralRecommender(nn.Module):
    """Base class of all models: sizes, features as buffers, default scoring from `forward()`.

    A model is one file `models/<name>.py` with a class whose name is the file's but for case, and one
    `configs/model/<Class>.yaml`. It declares `settings`, a frozen dataclass of its keys, and implements `__init__`,
    `forward` and `calculate_loss`.

    Args:
        config: settings; `config[key]` is None for a key that is not set.
        dataset: sizes, training interactions and features; nothing else is read by a model.
    """

    settings: ClassVar[type | None] = None
    needs_features: ClassVar[bool] = False
    needs_negatives: ClassVar[bool] = True  # False: batches are [2, B], users and positives
    batches_by_user: ClassVar[bool] = False  # True: a batch is of distinct users, with one of their items each
    needs_training: ClassVar[bool] = True  # False: nothing to learn; it is evaluated once
    keeps_zero_gradients: ClassVar[bool] = False  # True: a parameter that a step does not touch moves on by momentum
    dense_methods: ClassVar[tuple[str, ...]] = ()  # what `compile` compiles, see common/compiling.py
    whole_batches: ClassVar[bool] = False  # True: scoring is slow to start, so many users are scored at once

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__()
        self.n_users, self.n_items = dataset.n_users, dataset.n_items
        self.embedding_size = config["embedding_size"]
        self.modalities: list[str] = list(dataset.features) if self.needs_features else []
        for modality in self.modalities:
            features = torch.from_numpy(dataset.features[modality])
            if config["train_features"]:
                self.register_parameter(f"features_{modality}", nn.Parameter(features.clone()))
            else:
                self.register_buffer(f"features_{modality}", features, persistent=False)
        self._embeddings: tuple[Tensor, Tensor] | None = None
        self._keep = False

    @classmethod
    def build(cls, config: Mapping[str, Any], dataset: Dataset, device: torch.device) -> GeneralRecommender:
        """The model on its device."""
        return cls(config, dataset).to(device)

    @classmethod
    def notes_on(cls, config: Mapping[str, Any], dataset: Dataset) -> list[str]:
        """What a user should know of this model on this data set, a line each."""
        return []

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    def features(self, modality: str) -> Tensor:
        """The raw features of a modality, float32 [I, F]: a buffer, or a parameter where `train_features` is set."""
        features: Tensor = getattr(self, f"features_{modality}")
        return features

    @property
    def v_feat(self) -> Tensor | None:
        """The visual features [I, F], or None."""
        return self.features("visual") if "visual" in self.modalities else None

    @property
    def t_feat(self) -> Tensor | None:
        """The textual features [I, F], or None."""
        return self.features("textual") if "textual" in self.modalities else None

    @classmethod
    def memory_needed(cls, config: Mapping[str, Any], dataset: Dataset) -> dict[str, int]:
        """What it holds that may not fit, in words to bytes; a run that cannot fit is refused before it starts."""
        if not (cls.needs_features and config["train_features"]):
            return {}
        entries = sum(matrix.size for matrix in dataset.features.values())
        what = "trainable raw features with gradient and two moments (train_features: false has none of it)"
        return {what: 16 * entries}

    def interaction_graph(self, dataset: Dataset) -> SparseSymmetric:
        """The normalised user-item graph of the training split, users first: D^-1/2 A D^-1/2 [N, N]."""
        return normalized_interaction_graph(dataset)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Final embeddings of all nodes: users [U, D] and items [I, D]; deterministic in eval mode."""
        raise NotImplementedError(f"{type(self).__name__} does not implement forward")

    def calculate_loss(self, batch: Tensor) -> Loss:
        """The loss of a batch int64 [3, B] of users, positives, negatives; terms by name are logged by name.

        Without `needs_negatives` a batch may be [2, B].
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement calculate_loss")

    def pre_epoch_processing(self) -> None:
        """Called before each epoch."""

    def pre_step_processing(self, batch: Tensor) -> None:
        """Called before the loss of each batch: what the model trains by itself, a critic say, takes its step here."""

    def post_epoch_processing(self) -> None:
        """Called after each epoch."""

    def modality_embeddings(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Modality name to (users [U, D], items [I, D]), for analyses; empty where a model has none."""
        return {}

    def new_item_embeddings(self, features: Mapping[str, NDArray[np.float32]], dataset: Dataset) -> Tensor:
        """Embeddings [J, D] of items that have features [J, F] by modality but no interaction, for users' of `forward()`.

        Raises:
            UserError: for a model whose equations give none.
        """
        name, why = type(self).__name__, "an item's representation needs its own interactions"
        raise UserError(f"{name} cannot score new items: {why if self.needs_features else 'it reads no features'}")

    def score_new_items(self, users: Tensor, features: Mapping[str, NDArray[np.float32]], dataset: Dataset) -> Tensor:
        """Scores [B, J] of new items for users [B], see `new_item_embeddings`."""
        known = self._embeddings or self.forward()
        if self._keep:
            self._embeddings = known
        return score_all_items(known[0][users], self.new_item_embeddings(features, dataset))

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """Within it the model is in eval mode, without gradients, and computes its embeddings once."""
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                self._embeddings = None
                self._keep = True
                yield
        finally:
            self._embeddings, self._keep = None, False
            self.train(was_training)

    def full_sort_predict(self, batch: Sequence[Tensor]) -> Tensor:
        """Scores of all items [B, I] for the users batch[0] [B]: dot products of `forward()`'s embeddings."""
        users, items = self._embeddings or self.forward()
        if self._keep:
            self._embeddings = users, items
        return score_all_items(users[batch[0]], items)
