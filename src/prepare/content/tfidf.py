"""TF-IDF of hashed words and pairs of words, reduced by truncated SVD: features of texts that need no model.

scikit-learn (extra `text`) counts words and pairs of neighbouring words, in lower case, under MurmurHash3 modulo 2^18.
With c the count of a term in a text, n texts and d those with the term, its weight is (1 + ln c)(ln((1 + n)/(1 + d)) + 1);
rows are scaled to length 1. The features are U S of the leading singular triplets, from a fixed random state.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from prepare.content.encoder_registry import BadContent, Encoder, EncoderSpec, versions

N_TERMS = 2**18
WORD = r"(?u)\b\w+\b"
OVERSAMPLES, ITERATIONS, SEED = 32, 5, 0
SMALLEST = 1e-3  # of the largest singular value: below it there is nothing but rounding errors


class TfIdfEncoder(Encoder):
    """Sparse counts by batch; weights and SVD once all items are counted."""

    block = 4096

    def __init__(self, spec: EncoderSpec, reads: str) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer

        self.dim = spec.dim
        self.transform = with_a_word
        self.counter = HashingVectorizer(
            n_features=N_TERMS,
            ngram_range=(1, 2),
            token_pattern=WORD,
            alternate_sign=False,
            norm=None,
            dtype=np.float32,
        )

    def encode(self, batch: Sequence[Any]) -> sp.csr_matrix:
        return sp.csr_matrix(self.counter.transform(batch))

    def finish(self, table: sp.csr_matrix, tick: Callable[[float], object]) -> NDArray[np.float32]:
        return reduce(weighted(table), self.dim)

    def record(self) -> dict[str, Any]:
        return {
            "model": f"words and pairs of words, {N_TERMS} terms, SVD to {self.dim}",
            "versions": versions("numpy", "scipy", "scikit-learn"),
        }


def with_a_word(text: str) -> str:
    if not re.search(r"\w", text):
        raise BadContent("no word in it")
    return text


def weighted(table: sp.csr_matrix) -> sp.csr_matrix:
    """Counts [n, N_TERMS] as TF-IDF, float32, rows of length 1; columns of terms that no text has are left out."""
    from sklearn.feature_extraction.text import TfidfTransformer

    table = table[:, np.flatnonzero(table.getnnz(axis=0))]
    return sp.csr_matrix(TfidfTransformer(sublinear_tf=True).fit_transform(table), dtype=np.float32)


def reduce(matrix: sp.csr_matrix, dim: int) -> NDArray[np.float32]:
    """U S of the `dim` leading singular triplets of a matrix [n, V]: float32 [n, min(dim, rank)]."""
    from sklearn.utils.extmath import randomized_svd

    left, values, _ = randomized_svd(
        matrix, min(dim, *matrix.shape), n_oversamples=OVERSAMPLES, n_iter=ITERATIONS, power_iteration_normalizer="QR",
        random_state=SEED,
    )  # fmt: skip
    kept = values > SMALLEST * values[0]
    return (left[:, kept] * values[kept]).astype(np.float32)
