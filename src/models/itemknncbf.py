"""ItemKNNCBF: an item is scored by the similarity of its content to that of the user's items.

s(u, j) = sum of c_ij over the training items i of u that have j among their `knn_k` nearest items, with the shrunk cosine
c_ij = <x_i, x_j> / (|x_i| |x_j| + `shrink`), x the raw features of all modalities joined. Nothing is learned.

Source: Ferrari Dacrema, Cremonesi and Jannach, "Are we really making much progress?", RecSys 2019 (arXiv 1907.06902), in
the form of MMRec.

Differs from the released code: follows MMRec's form, where j must be in the list of the user's item i and `knn_k` counts i
itself (the source takes the lists of the scored items). Ties go to the smaller item id. An item with features of zeros is
in no list but its own, where MMRec may list it with similarity 0. The dummy parameter is not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.abstract_recommender import GeneralRecommender
from common.neighbours import SparseRows, nearest_neighbours, score_by_neighbours
from common.sparse import sparse_product
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset


@dataclass(frozen=True)
class ItemKNNCBFConfig:
    """Keys of ItemKNNCBF; values in configs/model/ItemKNNCBF.yaml."""

    knn_k: int = setting("nearest items in the list of an item, itself counted", low=1)
    shrink: float = setting("added to the denominator of the cosine: items of small norm count less", low=0)


class ItemKNNCBF(GeneralRecommender):
    """Item-based nearest neighbours over content."""

    settings = ItemKNNCBFConfig
    needs_features = True
    needs_training = False

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: ItemKNNCBFConfig = fill(ItemKNNCBFConfig, config)
        self.histories = SparseRows(dataset.inter_matrix("csr"))
        self.similarities = SparseRows(self.nearest_items(dataset))

    def nearest_items(self, dataset: Dataset) -> sp.csr_matrix:
        """[I, I], row i: the similarities of the items in the list of i; through the data set's cache."""

        def build() -> dict[str, NDArray[np.generic]]:
            joined = torch.cat([self.features(modality) for modality in self.modalities], dim=1)
            values, columns = nearest_neighbours(joined, self.options.knn_k, self.options.shrink)
            return {"values": values.numpy(), "columns": columns.numpy()}

        features = {modality: dataset.fingerprint[modality] for modality in self.modalities}
        inputs = {"features": features, "k": self.options.knn_k, "shrink": self.options.shrink}
        arrays = dataset.derived("content-neighbours", 1, inputs, build)
        found = arrays["columns"] >= 0
        bounds = np.concatenate([[0], found.sum(axis=1).cumsum()])
        shape = (self.n_items, self.n_items)
        return sp.csr_matrix((arrays["values"][found], arrays["columns"][found], bounds), shape=shape)

    def score_new_items(self, users: Tensor, features: Mapping[str, NDArray[np.float32]], dataset: Dataset) -> Tensor:
        """A new item is in the list of each item whose last neighbour it is more similar to."""
        known = torch.cat([self.features(modality) for modality in self.modalities], dim=1)
        new = torch.cat([torch.from_numpy(features[m]) for m in self.modalities], dim=1).to(known)
        lengths = known.norm(dim=1, keepdim=True), new.norm(dim=1)
        products = lengths[0] * lengths[1] + self.options.shrink
        similarities = torch.where(lengths[0] * lengths[1] > 0, known @ new.T / products, 0)  # [I, J]
        last = torch.full((self.n_items,), torch.inf)  # of each list; a list that is not full takes anything
        lists = self.similarities
        counts = lists.offsets.diff()
        rows = torch.arange(self.n_items, device=known.device).repeat_interleave(counts)
        others = rows != lists.columns  # an item is in its own list however similar
        last = last.to(known).scatter_reduce(0, rows[others], lists.weights[others], "amin")
        last[counts < self.options.knn_k] = -torch.inf
        listed = (similarities > last[:, None]) & (self.options.knn_k > 1)
        return sparse_product(*self.histories.take(users), similarities * listed)

    def full_sort_predict(self, batch: Sequence[Tensor]) -> Tensor:
        return score_by_neighbours(self.histories, self.similarities, batch[0])
