"""Hashed TF-IDF against a naive computation, and its reduction against an exact one."""

from __future__ import annotations

import itertools

import numpy as np
import scipy.sparse as sp

from prepare.content import tfidf
from prepare.content.encoder_registry import build, check_spec


def table_of(*texts: str) -> sp.csr_matrix:
    return build(check_spec({"encoder": "tfidf"}, "text")).encode(list(texts))


def test_weights_against_a_naive_computation() -> None:
    texts = ["a B a", "b c", "c c c d"]
    documents = []
    for text in texts:
        words = text.lower().split()
        documents.append([*words, *map(" ".join, itertools.pairwise(words))])
    vocabulary = sorted({term for terms in documents for term in terms})
    naive = np.zeros((3, len(vocabulary)))
    for row, terms in enumerate(documents):
        for column, term in enumerate(vocabulary):
            if term in terms:
                having = sum(term in other for other in documents)
                naive[row, column] = (1 + np.log(terms.count(term))) * (np.log((1 + 3) / (1 + having)) + 1)
        naive[row] /= np.sqrt((naive[row] ** 2).sum())
    matrix = tfidf.weighted(table_of(*texts))
    assert (matrix.shape, matrix.dtype) == (naive.shape, np.float32)
    # Columns are in the order of hashes; inner products and sorted columns tell them alike.
    found = matrix.toarray()
    np.testing.assert_allclose(found @ found.T, naive @ naive.T, rtol=1e-5)
    np.testing.assert_allclose(sorted(found.T.tolist()), sorted(naive.T.tolist()), rtol=1e-5, atol=1e-7)


def test_hashes_are_the_same_on_every_machine() -> None:
    # Worked out once: another hash would change everybody's features.
    assert sorted(table_of("red shoe").indices.tolist()) == [66937, 70596, 252163]


def test_reduced_rows_have_the_inner_products_of_the_best_approximation() -> None:
    random = np.random.default_rng(0)
    dense = (random.standard_normal((80, 12)) @ random.standard_normal((12, 300))).astype(np.float32)
    dense += 0.01 * random.standard_normal(dense.shape).astype(np.float32)
    rows = tfidf.reduce(sp.csr_matrix(dense), 10)
    left, values, _ = np.linalg.svd(dense.astype(np.float64), full_matrices=False)
    assert (rows.shape, rows.dtype) == ((80, 10), np.float32)
    np.testing.assert_allclose(np.abs(rows), np.abs(left[:, :10] * values[:10]), atol=1e-3 * values[0])


def test_reducing_twice_gives_the_same_bits_and_no_more_columns_than_the_rank() -> None:
    texts = [f"item number {k} is about topic {k % 5}" for k in range(40)]
    first, second = (tfidf.reduce(tfidf.weighted(table_of(*texts)), 384) for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert first.shape[1] <= 40
    same = tfidf.reduce(tfidf.weighted(table_of("one text", "one text", "one text")), 384)
    np.testing.assert_allclose(np.abs(same), np.ones((3, 1)), rtol=1e-5)


def test_texts_about_the_same_are_near() -> None:
    texts = [
        "soft cotton baby blanket",
        "baby blanket of soft wool",
        "camera lens for portraits",
        "portraits camera with lens",
    ]
    rows = tfidf.reduce(tfidf.weighted(table_of(*texts)), 384)
    near = rows @ rows.T
    np.fill_diagonal(near, -1)
    assert near.argmax(axis=1).tolist() == [1, 0, 3, 2]
