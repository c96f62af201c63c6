"""Items without content of a modality, as a model leaves them out: who has which view, features and graphs without them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from utils.data.dataset import Dataset


def view_presence(dataset: Dataset, made_of: Mapping[str, Sequence[str]]) -> Tensor | None:
    """Which nodes have which content view: bool [N, V], users first; None where no item lacks anything.

    An item has a view if it has every modality that the view is made of, a user if one of its training items has it.

    Args:
        made_of: view to its modalities.
    """
    if not dataset.present:
        return None
    history = dataset.inter_matrix("csr")
    columns = []
    for modalities in made_of.values():
        lacked = [dataset.present[modality] for modality in modalities if modality in dataset.present]
        items = np.logical_and.reduce(lacked, axis=0) if lacked else np.ones(dataset.n_items, dtype=bool)
        users = history @ items > 0 if lacked else np.ones(dataset.n_users, dtype=bool)
        columns.append(np.concatenate([users, items]))
    return torch.from_numpy(np.stack(columns, axis=1))


def without_fills(dataset: Dataset) -> Dataset:
    """The data set with rows of zeros where an item lacks a modality, whatever the file holds there."""
    blank = {m: np.where(there[:, None], dataset.features[m], np.float32(0)) for m, there in dataset.present.items()}
    return dataclasses.replace(dataset, features=dataset.features | blank) if blank else dataset


def imputed(dataset: Dataset) -> Dataset:
    """The data set with the mean of the items that have a modality where an item lacks it, whatever the file holds there."""
    filled = {}
    for modality, there in dataset.present.items():
        own = dataset.features[modality][there]
        mean = own.sum(axis=0, dtype=np.float64) / max(len(own), 1)
        filled[modality] = np.where(there[:, None], dataset.features[modality], mean.astype(np.float32))
    return dataclasses.replace(dataset, features=dataset.features | filled) if filled else dataset


def without_items(graph: sp.csr_matrix, present: NDArray[np.bool_]) -> sp.csr_matrix:
    """An item graph [I, I] without the edges from and to the items that are not `present` (bool [I])."""
    kept = sp.diags(present.astype(graph.dtype))
    return (kept @ graph @ kept).tocsr()


def with_lone_items(graph: sp.csr_matrix, present: NDArray[np.bool_] | None) -> sp.csr_matrix:
    """An item graph [I, I] in which an item that is not `present` has itself, with weight 1, and nobody else."""
    if present is None:
        return graph
    alone = without_items(graph, present) + sp.diags((~present).astype(graph.dtype))
    alone = alone.tocsr()
    alone.eliminate_zeros()
    return alone
