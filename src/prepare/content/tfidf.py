"""Hashed TF-IDF and truncated SVD: a textual modality that needs no further package.

Words and pairs of neighbouring words, lower-case, are counted under CRC-32 modulo 2^18, which is the same on every machine.
With c the count of a term in a text, n texts and d those with the term, its weight is (1 + ln c)(ln((1 + n)/(1 + d)) + 1);
rows are scaled to length 1. The features are U S of the leading singular triplets, found by subspace iteration.
Source: Halko, Martinsson, Tropp, SIAM Review 2011 (arXiv 0909.4061), Algorithm 4.4.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray

N_TERMS = 2**18
DIM = 384
OVERSAMPLING, ITERATIONS, SEED = 32, 5, 0
LEAST = 1e-6  # of the largest eigenvalue: below it there is rounding only
ROWS = 2**15  # of a float64 product at a time

_WORD = re.compile(r"\w+")


def terms(text: str) -> NDArray[np.int32]:
    """The codes of a text's words and pairs of neighbouring words, in order, each from 0 to N_TERMS - 1."""
    words = [word.encode("utf-8", "surrogatepass") for word in _WORD.findall(text.lower())]
    pairs = [first + b" " + second for first, second in itertools.pairwise(words)]
    return np.array([zlib.crc32(term) % N_TERMS for term in (*words, *pairs)], dtype=np.int32)


def counts(batch: Sequence[NDArray[np.int32]]) -> sp.csr_matrix:
    """How often each term stands in each text: int32 [B, N_TERMS]."""
    found = [np.unique(codes, return_counts=True) for codes in batch]
    starts = np.concatenate([[0], np.cumsum([len(codes) for codes, _ in found])])
    columns, times = (np.concatenate([entry[part] for entry in found]) for part in (0, 1))
    return sp.csr_matrix((times.astype(np.int32), columns, starts), shape=(len(batch), N_TERMS))


def weighted(table: sp.csr_matrix) -> sp.csr_matrix:
    """Counts [n, N_TERMS] as TF-IDF, float32, rows of length 1; columns of terms that no text has are left out."""
    frequency = np.bincount(table.indices, minlength=table.shape[1])
    rarity = np.log((1 + table.shape[0]) / (1 + frequency)) + 1
    values = (1 + np.log(table.data)) * rarity[table.indices]
    row_of = np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))
    lengths = np.sqrt(np.bincount(row_of, weights=values**2, minlength=table.shape[0]))
    values /= np.maximum(lengths[row_of], 1e-12)
    number = np.cumsum(frequency > 0) - 1
    shape = (table.shape[0], int(number[-1]) + 1)
    return sp.csr_matrix((values.astype(np.float32), number[table.indices], table.indptr), shape=shape)


def reduce(matrix: sp.csr_matrix, dim: int, tick: Callable[[float], object]) -> NDArray[np.float32]:
    """U S of the `dim` leading singular triplets of a matrix [n, V]: float32 [n, min(dim, rank)].

    Each column's entry of largest size is positive, so that equal texts give equal bits.

    Args:
        tick: called with the share that is done.
    """
    width = min(dim + OVERSAMPLING, *matrix.shape)
    across = matrix.T.tocsr()
    start = np.random.default_rng(SEED).standard_normal((matrix.shape[1], width), dtype=np.float32)
    image = matrix @ start
    del start
    for step in range(ITERATIONS):
        image = matrix @ (across @ _orthonormal(image))
        tick((step + 1) / (ITERATIONS + 1))
    basis = _orthonormal(image)
    gram = np.zeros((width, width))
    projected = across @ basis  # [V, width]
    for begin in range(0, len(projected), ROWS):
        rows = projected[begin : begin + ROWS].astype(np.float64)
        gram += rows.T @ rows
    values, vectors = np.linalg.eigh(gram)
    kept = [k for k in range(width - 1, -1, -1)[:dim] if values[k] > LEAST * values[-1]]
    left = basis.astype(np.float64) @ (vectors[:, kept] * np.sqrt(values[kept]))
    largest = left[np.abs(left).argmax(axis=0), np.arange(len(kept))]
    tick(1.0)
    return (left * np.where(largest < 0, -1.0, 1.0)).astype(np.float32)


def _orthonormal(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    basis: NDArray[np.float32] = scipy.linalg.qr(matrix, mode="economic", overwrite_a=True, check_finite=False)[0]
    return basis
