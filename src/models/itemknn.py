"""ItemKNN: an item is scored by its similarity to the user's items, similarity being that of their sets of users.

s(u, j) = sum of c_ij over the training items i of u among the `knn_k` nearest neighbours of j, with the shrunk cosine
c_ij = <x_i, x_j> / (|x_i| |x_j| + `shrink`). x_i has an entry for each user u of i: 1, or with `weighting` tf_idf
log(I / (1 + n_u)), n_u the number of u's items: what users of long histories share counts less. An item is no neighbour
of its own. Nothing is learned.

Source: Sarwar et al., "Item-based collaborative filtering recommendation algorithms", WWW 2001, in the form of Ferrari
Dacrema, Cremonesi and Jannach, "Are we really making much progress?", RecSys 2019 (arXiv 1907.06902).

Differs from the released code: cosine only, without BM25; ties go to the smaller item id; the 1e-6 that the source adds to
the denominator is left out. There a user's own row is weighted too, which does not change a ranking. A user of nearly all
items, whose logarithm would be negative, weighs 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from torch import Tensor

from common.abstract_recommender import GeneralRecommender
from common.neighbours import SparseRows, largest_co_occurrences, score_by_neighbours
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset


@dataclass(frozen=True)
class ItemKNNConfig:
    """Keys of ItemKNN; values in configs/model/ItemKNN.yaml."""

    knn_k: int = setting("neighbours of an item, itself not counted", low=1)
    shrink: float = setting("added to the denominator of the cosine: fewer common users count less", low=0)
    weighting: str = setting("weight of a user in the cosine", choices=("none", "tf_idf"))


class ItemKNN(GeneralRecommender):
    """Item-based nearest neighbours over interactions."""

    settings = ItemKNNConfig
    needs_training = False

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: ItemKNNConfig = fill(ItemKNNConfig, config)
        interactions = dataset.inter_matrix("csr")

        def build() -> dict[str, NDArray[np.generic]]:
            rows = interactions.T.tocsr()  # [I, U]
            if self.options.weighting == "tf_idf":
                degree = np.bincount(dataset.train.users, minlength=self.n_users)
                rows = (rows @ sp.diags(np.log(self.n_items / (1 + degree)).clip(0))).tocsr()
                rows.eliminate_zeros()
            nearest = largest_co_occurrences(rows, self.options.knn_k, True, self.options.shrink)
            weights = nearest.T.tocsr()  # row i: the items j that i is a neighbour of
            return {"indptr": weights.indptr, "indices": weights.indices, "data": weights.data.astype(np.float32)}

        inputs = {"train": dataset.fingerprint["train"], **vars(self.options)}
        arrays = dataset.derived("co-occurrence-neighbours", 1, inputs, build)
        shape = (self.n_items, self.n_items)
        similarities = sp.csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape=shape)
        self.histories, self.similarities = SparseRows(interactions), SparseRows(similarities)

    def full_sort_predict(self, batch: Sequence[Tensor]) -> Tensor:
        return score_by_neighbours(self.histories, self.similarities, batch[0])
