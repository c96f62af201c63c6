"""The stand-in for sparsesvd: against the dense decomposition, the same each time."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from mmrec.stand_ins.sparsesvd import sparsesvd


@pytest.mark.parametrize("k", [1, 4, 9])
def test_largest_singular_values_and_their_vectors(k):
    matrix = sp.random(12, 9, 0.4, format="csc", rng=0)
    ut, s, vt = sparsesvd(matrix, k)
    assert (ut.shape, s.shape, vt.shape) == ((k, 12), (k,), (k, 9))
    expected = np.linalg.svd(matrix.toarray(), compute_uv=False)
    np.testing.assert_allclose(s, expected[:k], rtol=1e-8)
    np.testing.assert_allclose(ut @ matrix.toarray(), s[:, None] * vt, atol=1e-8)
    again = sparsesvd(matrix, k)
    assert all(np.array_equal(one, two) for one, two in zip((ut, s, vt), again, strict=True))
