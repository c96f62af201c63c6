"""Items that lack a modality: told by a mask, by rows of NaN, or drawn."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ones, problems_of, toy_config, write_set

from audit.checks import audit
from runner.quick_start import DatasetShelf
from utils.data.dataset import Dataset
from utils.data.loading import load_dataset
from utils.data.missing_modalities import drawn_present, mask_path
from utils.runs.run_folder import identity

MASK = np.array([True, False, True, True])
NAN = np.array([[1.0, 2.0], [3.0, 4.0], [np.nan, 5.0], [6.0, 7.0]])


def load(data: Path, **overrides: Any) -> Dataset:
    return load_dataset(toy_config("toy", data_path=str(data), **overrides))


# Masks


@pytest.mark.parametrize(("file", "mask"), [("image_feat.npy", "image_mask.npy"), ("v.npy", "v_mask.npy")])
def test_the_mask_lies_beside_the_features(file, mask):
    assert mask_path(Path("a") / file) == Path("a") / mask


def test_a_mask_tells_who_is_missing_and_rows_stay_as_they_are(tmp_path):
    write_set(tmp_path, features={"image_feat.npy": ones(4, 2), "text_feat.npy": ones(4, 3), "image_mask.npy": MASK})
    dataset = load(tmp_path)
    assert list(dataset.present) == ["visual"]
    assert dataset.present["visual"].tolist() == MASK.tolist()
    assert dataset.features["visual"].all(), "what prepare has filled in is for models that know no mask"
    assert dataset.statistics()[2:] == ["  visual: 2 features, 1 items lack it", "  textual: 3 features"]


def test_a_mask_without_gaps_is_no_mask(tmp_path):
    write_set(tmp_path, features={"image_feat.npy": ones(4, 2)})
    plain = load(tmp_path)
    write_set(tmp_path, features={"image_feat.npy": ones(4, 2), "image_mask.npy": np.ones(4, dtype=bool)})
    assert load(tmp_path).present == {}
    assert load(tmp_path).fingerprint == plain.fingerprint


def test_the_mask_of_rows_beyond_the_items_is_cut_with_them(tmp_path):
    write_set(tmp_path, features={"image_feat.npy": ones(6, 2), "image_mask.npy": np.append(MASK, [False, False])})
    assert load(tmp_path).present["visual"].tolist() == MASK.tolist()


@pytest.mark.parametrize(
    ("mask", "line"),
    [
        (np.ones(3, dtype=bool), "expected bool [4], got bool [3]"),
        (np.ones((4, 1), dtype=bool), "expected bool [4], got bool [4, 1]"),
        (np.ones(4), "expected bool [4], got float64 [4]"),
        (np.array([{}] * 4, dtype=object), "Object arrays cannot be loaded when allow_pickle=False"),
        (b"True", "EOF: reading magic string"),
    ],
)
def test_a_mask_that_does_not_fit_is_one_line(tmp_path, mask, line):
    write_set(tmp_path, features={"image_feat.npy": ones(4, 2), "image_mask.npy": mask})
    (problem,) = problems_of(lambda: load(tmp_path))
    assert problem.startswith(f"image_mask.npy cannot be used: {line}")


# NaN


def test_rows_with_nan_are_missing_where_that_is_asked_for(tmp_path):
    write_set(tmp_path, features={"image_feat.npy": NAN, "image_mask.npy": MASK})
    (problem,) = problems_of(lambda: load(tmp_path))
    assert problem == (
        "image_feat.npy (visual): NaN or infinite values in 1 rows (first: item 2); "
        "--nan_features missing takes rows with NaN for missing"
    )
    dataset = load(tmp_path, nan_features="missing")
    assert dataset.present["visual"].tolist() == [True, False, False, True]
    assert dataset.features["visual"].tolist() == [[1, 2], [3, 4], [0, 0], [6, 7]]
    assert dataset.statistics()[2:] == [
        "  image_feat.npy: float64, read as float32",
        "  visual: 2 features, 2 items lack it",
    ]


def test_infinite_values_are_an_error_all_the_same(tmp_path):
    write_set(tmp_path, features={"image_feat.npy": np.where(np.isnan(NAN), np.inf, NAN)})
    (problem,) = problems_of(lambda: load(tmp_path, nan_features="missing"))
    assert problem == "image_feat.npy (visual): NaN or infinite values in 1 rows (first: item 2)"


def test_the_audit_has_the_hashes_of_a_run(tmp_path):
    write_set(tmp_path, features={"image_feat.npy": NAN, "image_mask.npy": MASK})
    config = toy_config("toy", data_path=str(tmp_path), nan_features="missing")
    assert audit(config).hashes == load_dataset(config).fingerprint


# A share that is drawn


def test_draws_are_nested_and_of_the_share_asked_for():
    found = [~drawn_present("visual", 503, share) for share in (0.0, 0.1, 0.25, 0.5, 0.999)]
    assert [int(missing.sum()) for missing in found] == [0, 50, 126, 252, 502]
    for smaller, larger in itertools.pairwise(found):
        assert (larger | ~smaller).all()


def test_draws_depend_on_the_name_and_the_number_of_items_alone():
    one = drawn_present("visual", 400, 0.5)
    assert np.array_equal(one, drawn_present("visual", 400, 0.5))
    both_missing = (~one & ~drawn_present("textual", 400, 0.5)).sum()
    assert 70 < both_missing < 130, "a hundred are expected of independent draws"
    assert not np.array_equal(one, drawn_present("visual", 401, 0.5)[:400])


def test_a_share_of_generated_features_is_missing_for_every_model_and_seed():
    real, half = toy_config(), toy_config(missing_share={"visual": 0.5})
    shelf = DatasetShelf()
    first, second = shelf.get(real, True), shelf.get(half, True)
    there = second.present["visual"]
    assert list(second.present) == ["visual"]
    assert int((~there).sum()) == round(first.n_items / 2)
    np.testing.assert_array_equal(second.features["visual"][there], first.features["visual"][there])
    assert not second.features["visual"][~there].any()
    assert first.features["visual"].any(axis=1).all(), "the set on the shelf stays as it is"
    assert {name for name in first.fingerprint if first.fingerprint[name] != second.fingerprint[name]} == {"visual"}
    assert second.statistics()[2] == "  visual: 64 features, 250 items lack it"
    assert identity(real) != identity(half)
    other = load_dataset(toy_config(missing_share={"visual": 0.5}, seed=5, embedding_size=4))
    assert np.array_equal(other.present["visual"], there)


def test_who_is_missing_is_part_of_the_fingerprint_even_if_the_rows_are_equal(tmp_path):
    features = {"image_feat.npy": np.zeros((4, 2)), "image_mask.npy": MASK}
    write_set(tmp_path, features=features)
    one = load(tmp_path).fingerprint
    write_set(tmp_path, features=features | {"image_mask.npy": ~MASK})
    assert {name for name, digest in load(tmp_path).fingerprint.items() if digest != one[name]} == {"visual"}


def test_a_share_is_missing_beside_those_that_are_missing_anyway(tmp_path):
    write_set(tmp_path, features={"image_feat.npy": ones(4, 2), "image_mask.npy": MASK})
    drawn = drawn_present("visual", 4, 0.5)
    dataset = load(tmp_path, missing_share={"visual": 0.5})
    assert dataset.present["visual"].tolist() == (MASK & drawn).tolist()
    assert dataset.features["visual"].any(axis=1).tolist() == drawn.tolist()


@pytest.mark.parametrize("word", ["noise", "shuffle", "zero"])
def test_other_features_stand_in_for_those_that_are_there(tmp_path, word):
    image = np.arange(1, 9).reshape(4, 2).astype(np.float32)
    write_set(tmp_path, features={"image_feat.npy": image, "image_mask.npy": MASK})
    dataset = load(tmp_path, modality_input={"visual": word})
    assert dataset.features["visual"].any(axis=1).tolist() == (MASK & (word != "zero")).tolist()
    if word == "shuffle":
        assert sorted(dataset.features["visual"][MASK].tolist()) == image[MASK].tolist()


def test_what_is_wrong_with_the_key_is_one_line():
    (problem,) = problems_of(lambda: load_dataset(toy_config(missing_share={"visuel": 0.5})))
    assert problem == "missing_share: no modality 'visuel' (did you mean 'visual'?); there are visual, textual"
    (problem,) = problems_of(lambda: toy_config(missing_share={"visual": 1}))
    assert problem.endswith(
        "missing_share: expected a mapping of words to numbers or null from 0 to 0.999, got {'visual': 1}"
    )


def test_it_is_no_matter_to_a_model_without_features():
    dataset = load_dataset(toy_config(missing_share={"visual": 0.5}), needs_features=False)
    assert (dataset.features, dataset.present) == ({}, {})
