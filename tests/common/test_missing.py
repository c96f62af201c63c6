"""Features and graphs of items that lack a modality."""

import numpy as np
import pytest
import scipy.sparse as sp
from toys import N_ITEMS, toy_dataset

from common.features import imputed, with_lone_items, without_fills


def lacking():
    data = toy_dataset()
    data.present["visual"] = np.arange(N_ITEMS) % 3 > 0
    return data


def test_the_mean_of_those_that_have_it_stands_in():
    data = lacking()
    before = data.features["visual"].copy()
    filled = imputed(data)
    present = data.present["visual"]
    assert np.array_equal(data.features["visual"], before), "the data set stays as it is"
    assert np.array_equal(filled.features["visual"][present], before[present])
    mean = before[present].astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(filled.features["visual"][~present], np.tile(mean, ((~present).sum(), 1)), rtol=1e-6)
    assert filled.features["textual"] is data.features["textual"]
    assert filled.features["visual"].dtype == np.float32
    assert filled.fingerprint["visual"] != data.fingerprint["visual"]


def test_a_modality_that_nobody_has_is_zero_and_complete_data_are_themselves():
    data = lacking()
    data.present["visual"][:] = False
    assert not imputed(data).features["visual"].any()
    whole = toy_dataset()
    assert imputed(whole) is whole


def test_zeros_stand_in_whatever_the_file_holds():
    data = lacking()
    blank = without_fills(data).features["visual"]
    assert not blank[~data.present["visual"]].any()
    assert np.array_equal(blank[data.present["visual"]], data.features["visual"][data.present["visual"]])


@pytest.mark.parametrize("present", [[True, False, True], [False, False, False]])
def test_an_item_that_lacks_it_has_itself_alone(present):
    graph = np.array([[1.0, 0.5, 0.2], [0.3, 1.0, 0.4], [0.6, 0.7, 0.9]], dtype=np.float32)
    present = np.array(present)
    expected = graph * np.outer(present, present) + np.diag(~present)
    found = with_lone_items(sp.csr_matrix(graph), present)
    np.testing.assert_array_equal(found.toarray(), expected.astype(np.float32))
    assert found.nnz == np.count_nonzero(expected)
    assert found.dtype == np.float32
    whole = sp.csr_matrix(graph)
    assert with_lone_items(whole, None) is whole
