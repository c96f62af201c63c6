"""Content features made ready for learning: standardised, reduced, and without the items that lack them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

if TYPE_CHECKING:
    from utils.data.dataset import Dataset

ITERATIONS = 4


def standardized_features(dataset: Dataset, modality: str, rank: int) -> Tensor:
    """The features of a modality with zero mean and unit mean square, float32 [I, min(F, rank)].

    With 0 < `rank` < F they are reduced to their leading `rank` principal components, the best linear approximation of
    that rank; a linear layer over them is one over the raw features restricted to those directions. Items that lack the
    modality take no part, and have rows of zeros. Computed on the CPU with a fixed seed, whatever the device, and kept
    in the data set's cache.
    """

    def build() -> dict[str, NDArray[np.float32]]:
        raw = dataset.features[modality]
        return {"features": _standardized(raw, dataset.present.get(modality), rank, raw[:0])[0]}

    inputs = {"features": dataset.fingerprint[modality], "rank": rank}
    return torch.from_numpy(dataset.derived("standardized", 1, inputs, build)["features"])


def standardized_as(dataset: Dataset, modality: str, rank: int, new: NDArray[np.float32]) -> Tensor:
    """Features [J, F] of items that the data set does not have, in the coordinates of `standardized_features`."""
    found = _standardized(dataset.features[modality], dataset.present.get(modality), rank, new)
    return torch.from_numpy(found[1])


def _standardized(
    raw: NDArray[np.float32], present: NDArray[np.bool_] | None, rank: int, new: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    own = raw if present is None else raw[present]
    n = max(len(own), 1)
    mean = (own.sum(axis=0, dtype=np.float64) / n).astype(np.float32)
    centred, others = raw - mean, new - mean
    if present is not None:
        centred[~present] = 0
    if 0 < rank < centred.shape[1]:
        directions = leading_directions(centred, rank)
        centred, others = centred @ directions, others @ directions
    scale = np.sqrt(np.mean(np.square(centred), dtype=np.float64) * (len(raw) / n))
    scale = scale if scale > 0 else 1
    return (centred / scale).astype(np.float32), (others / scale).astype(np.float32)


def leading_directions(matrix: NDArray[np.float32] | sp.csr_matrix | LinearOperator, rank: int) -> NDArray[np.float32]:
    """The leading right singular vectors [F, rank] of a matrix or operator [I, F], by randomised subspace iteration.

    Source: Halko et al., "Finding structure with randomness" (arXiv 0909.4061), with `ITERATIONS` power iterations.
    """
    rank = min(rank, *matrix.shape)
    random = np.random.Generator(np.random.PCG64(0))
    width = min(rank + 16, *matrix.shape)
    basis = matrix.T @ random.standard_normal((matrix.shape[0], width), dtype=np.float32)
    for _ in range(ITERATIONS):
        basis, _ = np.linalg.qr(basis)
        basis = matrix.T @ (matrix @ basis)
    basis, _ = np.linalg.qr(basis)
    _, _, rotation = np.linalg.svd(matrix @ basis, full_matrices=False)
    directions = basis @ rotation[:rank].T
    # The sign of a singular vector is arbitrary: the largest entry is made positive.
    largest = directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])]
    return np.ascontiguousarray(directions * np.where(largest < 0, -1, 1), dtype=np.float32)


def view_presence(dataset: Dataset, modalities_of: Mapping[str, Sequence[str]]) -> Tensor | None:
    """Which nodes have which content view: bool [N, V], users first; None where no item lacks anything.

    An item has a view if it has every modality that the view is made of, a user if one of its training items has it.

    Args:
        modalities_of: view to its modalities.
    """
    if not dataset.present:
        return None
    history = dataset.inter_matrix("csr")
    columns = []
    for modalities in modalities_of.values():
        lacked = [dataset.present[modality] for modality in modalities if modality in dataset.present]
        items = np.logical_and.reduce(lacked, axis=0) if lacked else np.ones(dataset.n_items, dtype=bool)
        users = history @ items > 0 if lacked else np.ones(dataset.n_users, dtype=bool)
        columns.append(np.concatenate([users, items]))
    return torch.from_numpy(np.stack(columns, axis=1))


def without_fills(dataset: Dataset) -> Dataset:
    """The data set with rows of zeros where an item lacks a modality, whatever the file holds there."""
    blank = {
        m: np.where(present[:, None], dataset.features[m], np.float32(0)) for m, present in dataset.present.items()
    }
    return dataclasses.replace(dataset, features=dataset.features | blank) if blank else dataset


def imputed(dataset: Dataset) -> Dataset:
    """The data set with the mean of the items that have a modality where an item lacks it, whatever the file holds there."""
    filled = {}
    for modality, present in dataset.present.items():
        own = dataset.features[modality][present]
        mean = own.sum(axis=0, dtype=np.float64) / max(len(own), 1)
        filled[modality] = np.where(present[:, None], dataset.features[modality], mean.astype(np.float32))
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
