"""What stands in for features: zeros, noise of the same scale, other items' rows."""

import numpy as np
import pytest
from helpers import ones, problems_of, toy_config, write_set

from runner.quick_start import DatasetShelf
from utils.data.loading import load_dataset
from utils.data.modality_input import changed_features
from utils.runs.run_folder import identity


@pytest.fixture
def features():
    random = np.random.default_rng(0)
    scale = np.linspace(0.1, 3, 8)
    return {
        "visual": (random.standard_normal((4000, 8)) * scale + np.arange(8)).astype(np.float32),
        "textual": random.standard_normal((4000, 5)).astype(np.float32),
    }


def test_real_changes_nothing(features):
    assert changed_features(features, {"visual": "real"})["visual"] is features["visual"]


@pytest.mark.parametrize("word", ["zero", "noise", "shuffle"])
def test_only_what_is_named_changes_and_the_given_matrix_stays(features, word):
    before = features["visual"].copy()
    found = changed_features(features, {"visual": word})
    assert list(found) == ["visual", "textual"]
    assert found["textual"] is features["textual"]
    assert np.array_equal(features["visual"], before)
    assert not np.array_equal(found["visual"], before)
    assert (found["visual"].shape, found["visual"].dtype) == (before.shape, np.float32)
    assert np.array_equal(found["visual"], changed_features(features, {"visual": word})["visual"]), "the same each time"


def test_zero(features):
    assert not changed_features(features, {"visual": "zero"})["visual"].any()


def test_noise_has_the_mean_and_deviation_of_each_column_and_no_content(features):
    found, real = changed_features(features, {"visual": "noise"})["visual"], features["visual"]
    deviation = real.std(axis=0)
    assert np.abs((found.mean(axis=0) - real.mean(axis=0)) / deviation).max() < 5 / 4000**0.5
    assert np.abs(found.std(axis=0) / deviation - 1).max() < 0.06
    between = np.corrcoef(np.concatenate([found, real], axis=1).T)[:8, 8:]
    assert np.abs(between).max() < 0.08


def test_shuffle_permutes_the_rows(features):
    found, real = changed_features(features, {"visual": "shuffle"})["visual"], features["visual"]
    assert np.array_equal(np.sort(found, axis=0), np.sort(real, axis=0))
    assert np.array_equal(found[np.lexsort(found.T)], real[np.lexsort(real.T)])
    assert (found == real).all(axis=1).mean() < 0.01


def test_draws_depend_on_the_name_and_the_shape(features):
    matrix = features["visual"]
    found = changed_features({"visual": matrix, "acoustic": matrix}, {"visual": "shuffle", "acoustic": "shuffle"})
    assert not np.array_equal(found["visual"], found["acoustic"])


# In a run


def test_it_is_part_of_identity_fingerprint_and_shelf():
    real, changed = toy_config(), toy_config(modality_input={"visual": "noise"})
    assert identity(real) != identity(changed)
    shelf = DatasetShelf()
    first, second = shelf.get(real, True), shelf.get(changed, True)
    different = {name for name in first.fingerprint if first.fingerprint[name] != second.fingerprint[name]}
    assert different == {"visual"}
    assert second.statistics()[2] == "  visual: 64 features, noise in their place"
    assert first.statistics()[3] == second.statistics()[3]


def test_it_is_no_matter_to_a_model_without_features():
    assert load_dataset(toy_config(modality_input={"visual": "zero"}), needs_features=False).features == {}


def test_features_of_files_are_changed_too(tmp_path):
    write_set(tmp_path, features={"image_feat.npy": ones(4, 2), "text_feat.npy": 2 * ones(4, 3)})
    config = toy_config("toy", data_path=str(tmp_path), modality_input={"textual": "zero"})
    dataset = load_dataset(config)
    assert dataset.features["visual"].all()
    assert not dataset.features["textual"].any()


def test_an_unknown_modality_is_one_line():
    config = toy_config(modality_input={"visuel": "zero"})
    assert problems_of(lambda: load_dataset(config)) == [
        "modality_input: no modality 'visuel' (did you mean 'visual'?); there are visual, textual"
    ]


def test_an_unknown_word_is_one_line():
    (problem,) = problems_of(lambda: toy_config(modality_input={"visual": "none"}))
    assert "modality_input: expected a mapping of words to words or null out of real, zero, noise, shuffle" in problem
