"""A model file of this project inside a stock MMRec tree: `portable` makes up for what differs there.

There `common.abstract_recommender` is MMRec's: its base class takes MMRec's configuration and training loader, its trainer
wants loss terms as a tuple, its evaluation leaves scoring to the model. Which files go there is in docs/plugins.md.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from types import MappingProxyType, SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender
from common.graph import SparseSymmetric, normalized_interaction_graph
from utils.config.schema import Key, check_value, keys_of
from utils.errors import UserError

Model = TypeVar("Model", bound=type[GeneralRecommender])


def portable(model: Model) -> Model:
    """The class as it is; in an MMRec tree, a class of the same name that is at home there."""
    if hasattr(GeneralRecommender, "scoring"):  # our own base class
        return model
    own = {"__module__": model.__module__, "__doc__": model.__doc__}
    return type(model.__name__, (_InMMRec, model), own)  # type: ignore[return-value]


class _InMMRec(nn.Module):
    """Comes before the model in the order of classes: what MMRec gives and asks for, in the model's terms."""

    settings: type
    options: Any
    _embeddings: tuple[Tensor, Tensor] | None = None

    def __init__(self, config: Any, dataset: Any) -> None:
        values = checked(config, keys_of(self.settings), type(self).__name__)
        super().__init__(ChainMap(values, config), TrainingData(config["dataset"], dataset, self))

    @property
    def embedding_size(self) -> int:
        size: int = self.options.embedding_size
        return size

    @property
    def modalities(self) -> list[str]:
        return list(self.content())

    def content(self) -> dict[str, Tensor]:
        """The features [I, F] that MMRec has read, by modality."""
        read = {"visual": getattr(self, "v_feat", None), "textual": getattr(self, "t_feat", None)}
        return {modality: matrix for modality, matrix in read.items() if matrix is not None}

    def features(self, modality: str) -> Tensor:
        features: Tensor = getattr(self, f"features_{modality}")
        return features

    def interaction_graph(self, dataset: Any) -> SparseSymmetric:
        return normalized_interaction_graph(dataset)

    def calculate_loss(self, batch: Tensor) -> tuple[Tensor, ...]:
        self._embeddings = None
        return tuple(super().calculate_loss(batch).values())  # type: ignore[misc]

    def train(self, mode: bool = True) -> _InMMRec:
        self._embeddings = None
        return super().train(mode)

    @torch.no_grad()
    def full_sort_predict(self, batch: Sequence[Tensor]) -> Tensor:
        users, items = self._embeddings or self()
        if not self.training:  # kept until the mode is set again, which each evaluation begins with
            self._embeddings = users, items
        return users[batch[0]] @ items.T


class TrainingData:
    """MMRec's training loader, which also answers to what the code of this project asks of a `Dataset`.

    Args:
        name: of the data set.
        loader: MMRec's.
        model: the one that is being built; its features are read once its base class has them.
    """

    user_graph = None
    present: Mapping[str, NDArray[np.bool_]] = MappingProxyType({})  # MMRec knows of no item that lacks a modality

    def __init__(self, name: str, loader: Any, model: _InMMRec) -> None:
        self.name, self._loader, self._model = name, loader, model
        matrix = sp.csr_matrix(loader.inter_matrix(form="coo"))  # repeated pairs are added up
        matrix.sort_indices()
        matrix.data = np.ones_like(matrix.data, dtype=np.float32)
        self.n_users, self.n_items = matrix.shape
        users, items = (ids.astype(np.int64) for ids in (matrix.tocoo().row, matrix.tocoo().col))
        self.train, self._matrix = SimpleNamespace(users=users, items=items), matrix

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def inter_matrix(self, form: str = "coo") -> Any:
        """The 0/1 training matrix [U, I], float32, as a scipy matrix in `form`."""
        return self._matrix.asformat(form)

    @cached_property
    def features(self) -> dict[str, NDArray[np.float32]]:
        """Modality name to float32 [I, F].

        Raises:
            UserError: if MMRec has read none.
        """
        found = {modality: matrix.detach().cpu().numpy() for modality, matrix in self._model.content().items()}
        if not found:
            raise UserError(
                f"{self.name}: expected content features, MMRec has read none; vision_feature_file and text_feature_file "
                "name the files, and is_multimodal_model must be True"
            )
        return found

    @property
    def fingerprint(self) -> dict[str, str]:
        """Nothing to tell data sets apart by: nothing is kept here."""
        return dict.fromkeys(["train", *self.features], "")

    def derived(self, name: str, version: int, inputs: Any, build: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `build` makes, new each time."""
        return build()


def checked(config: Any, keys: Mapping[str, Key], model: str) -> dict[str, Any]:
    """The values of a model's keys out of MMRec's configuration.

    Raises:
        UserError: with a line for each that is missing, of another type or out of range.
    """
    values, problems = {}, []
    for name, key in keys.items():
        value = config[name]
        if isinstance(value, str) and not key.is_word:
            with suppress(ValueError):
                value = float(value)  # plain PyYAML takes 1e-4 for a word
        try:
            values[name] = check_value(key, value)
        except ValueError as error:
            problems.append(f"{model}: {name}: {error}")
    if problems:
        raise UserError(*problems)
    return values
