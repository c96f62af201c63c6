"""Item graphs of behaviour: which items have the most training users in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from common.neighbours import largest_co_occurrences, normalize_by_row_sums

if TYPE_CHECKING:
    from utils.data.dataset import Dataset


def behaviour_item_graph(dataset: Dataset, k: int, least: int = 2) -> sp.csr_matrix:
    """Each item and the k others with the most training users in common, at least `least`: each weighs 1.

    Directed: row i holds i's neighbours, ties to the smaller id. The weights are normalised by row sums, which gives 1/k
    where all rows are full. Sparse and exact, through the data set's cache. float64 [I, I].

    Args:
        k: neighbours of an item at most, itself not counted.
        least: an item that shares fewer users is no neighbour.

    Source: DA-MRS (KDD 2024, arXiv 2406.12501), with k = 2.
    """

    def build() -> dict[str, NDArray[np.generic]]:
        lists = largest_co_occurrences(dataset.inter_matrix("csr").T.tocsr(), k)
        return {"indptr": lists.indptr, "indices": lists.indices, "counts": lists.data.astype(np.int32)}

    inputs = {"train": dataset.fingerprint["train"], "k": k}
    arrays = dataset.derived("item-co-occurrences", 1, inputs, build)
    shape = (dataset.n_items, dataset.n_items)
    lists = sp.csr_matrix((arrays["counts"], arrays["indices"], arrays["indptr"]), shape=shape)
    graph = sp.csr_matrix(lists >= least, dtype=np.float64) + sp.eye(dataset.n_items, format="csr")
    return normalize_by_row_sums(graph)
