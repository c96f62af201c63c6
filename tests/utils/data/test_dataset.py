"""Reading a data set: what is taken, what is refused with which words, what only draws a warning."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ROWS, Planted, ones, problems_of, toy_config, write_set
from numpy.typing import NDArray

from utils.data.dataset import Dataset, Split, content_hash
from utils.data.loading import load_dataset
from utils.data.reading import discover_features, make_splits
from utils.data.synthetic import generate
from utils.data.synthetic_spec import SyntheticSpec
from utils.errors import UserError


def load(data: Path, needs_features: bool = True, **overrides: Any) -> Dataset:
    return load_dataset(toy_config("toy", data_path=str(data), **overrides), needs_features)


def problems(data: Path, **overrides: Any) -> list[str]:
    return problems_of(lambda: load(data, **overrides))


def pairs(split: Split) -> list[tuple[int, int]]:
    return list(zip(split.users.tolist(), split.items.tolist(), strict=True))


def npy(array: NDArray[Any]) -> bytes:
    """The bytes of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


# A good data set


def test_rows_go_to_their_split_sorted_by_user_then_item(tmp_path):
    image = np.arange(8, dtype=np.float64).reshape(4, 2)
    write_set(tmp_path, ROWS[::-1], {"image_feat.npy": image})
    dataset = load(tmp_path)
    assert (dataset.name, dataset.n_users, dataset.n_items) == ("toy", 3, 4)
    assert pairs(dataset.train) == [(0, 0), (0, 1), (1, 2), (2, 1), (2, 3)]
    assert pairs(dataset.splits["valid"]) == [(0, 3), (1, 0), (2, 2)]
    assert pairs(dataset.splits["test"]) == [(0, 2), (1, 3), (2, 0)]
    assert dataset.warnings == []
    assert dataset.truth is None
    assert {split.users.dtype for split in dataset.splits.values()} == {np.dtype(np.int64)}
    np.testing.assert_array_equal(dataset.features["visual"], image.astype(np.float32), strict=True)


def test_names_and_separator_of_the_file_are_the_users(tmp_path):
    folder = write_set(tmp_path)
    lines = ["label;extra;user;item", *(f"{label};x;{user};{item}" for user, item, label in ROWS)]
    (folder / "other.csv").write_text("\n".join(lines))
    dataset = load(
        tmp_path,
        inter_file_name="other.csv",
        field_separator=";",
        user_id_field="user",
        item_id_field="item",
        split_field="label",
    )
    assert pairs(dataset.splits["test"]) == [(0, 2), (1, 3), (2, 0)]


def test_sizes_are_taken_over_all_splits(tmp_path):
    write_set(tmp_path, [*ROWS, (5, 0, 0), (0, 7, 2)], {"image_feat.npy": ones(8, 2)})
    dataset = load(tmp_path)
    assert (dataset.n_users, dataset.n_items) == (6, 8)


def test_features_are_read_only_where_they_are_needed(tmp_path):
    write_set(tmp_path, features={"image_feat.npy": b"broken"})
    assert load(tmp_path, needs_features=False).features == {}


def test_generated_set_is_that_of_its_specification(tmp_path):
    sizes: dict[str, Any] = {"n_users": 20, "n_items": 30, "n_interactions": 200, "seed": 3}
    dataset = load_dataset(toy_config("demo", synthetic=sizes))
    data = generate(SyntheticSpec(**sizes))
    for label, name in enumerate(("train", "valid", "test")):
        rows = data.labels == label
        expected = sorted(zip(data.users[rows].tolist(), data.items[rows].tolist(), strict=True))
        assert pairs(dataset.splits[name]) == expected
    assert dataset.truth is not None
    for name, matrix in data.features.items():
        np.testing.assert_array_equal(dataset.features[name], matrix)
    assert load_dataset(toy_config("demo", synthetic=sizes), needs_features=False).features == {}


def test_modalities_of_a_generated_set_can_be_left_out():
    sizes = {"n_users": 40, "n_items": 50, "n_interactions": 400}
    whole = load_dataset(toy_config("demo", synthetic=sizes))
    one = load_dataset(toy_config("demo", synthetic=sizes, modalities={"textual": "any.npy"}))
    assert list(whole.features) == ["visual", "textual"]
    assert list(one.features) == ["textual"]
    assert (one.features["textual"] == whole.features["textual"]).all()
    (line,) = problems_of(lambda: load_dataset(toy_config("demo", synthetic=sizes, modalities={"acoustic": "any.npy"})))
    assert line == "modalities: no modality 'acoustic'; there are visual, textual"
    (line,) = problems_of(lambda: load_dataset(toy_config("demo", synthetic=sizes, modalities={})))
    assert line == "modalities: expected at least one for Toy, got none"


def test_mistakes_in_the_sizes_of_a_generated_set_are_the_users():
    (line,) = problems_of(lambda: load_dataset(toy_config("demo", synthetic={"n_users": 0})))
    assert line == "synthetic: n_users: expected an integer of at least 1, got 0"
    assert problems_of(lambda: load_dataset(toy_config("demo", synthetic={"users": 3, "strenght": 1}))) == [
        "synthetic: unknown key 'users' (did you mean 'n_users'?)",
        "synthetic: unknown key 'strenght' (did you mean 'strength'?)",
    ]


# Bad interactions


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ((-1, 0, 0), "toy.inter: line 13: userID is -1, expected an integer from 0 up"),
        ((1.5, 0, 0), "toy.inter: line 13: userID is 1.5, expected an integer from 0 up"),
        (("u1", 0, 0), "toy.inter: line 13: userID is 'u1', expected an integer from 0 up"),
        (("", 0, 0), "toy.inter: line 13: userID is nan, expected an integer from 0 up"),
        ((0, 0, 3), "toy.inter: line 13: x_label is 3, expected 0, 1 or 2"),
        ((0, 0), "toy.inter: line 13: x_label is nan, expected 0, 1 or 2"),
        (
            (0, 12_001, 0),
            "toy.inter: an id of 12001; ids count from 0 without gaps; {numbers}",
        ),
        (
            (2**31, 0, 0),
            "toy.inter: an id of 2147483648; ids count from 0 without gaps; {numbers}",
        ),
    ],
)
def test_id_or_label_that_is_none_is_refused_with_its_line(tmp_path, row, line):
    folder = write_set(tmp_path, [*ROWS, row])
    numbers = f"`main.py convert mmrec {folder} {folder}-numbered --renumber` numbers users and items"
    assert problems(tmp_path) == [line.format(numbers=numbers)]


def test_bad_values_of_all_columns_are_told_at_once_with_their_number(tmp_path):
    write_set(tmp_path, [(-1, "x", 9), (-2, 0, 0), *ROWS])
    assert problems(tmp_path) == [
        "toy.inter: line 2: userID is -1, expected an integer from 0 up (2 such rows)",
        "toy.inter: line 2: itemID is 'x', expected an integer from 0 up",
        "toy.inter: line 2: x_label is 9, expected 0, 1 or 2",
    ]


def test_missing_columns_are_named_with_those_there_are(tmp_path):
    write_set(tmp_path, header=("userID", "item", "label"))
    assert problems(tmp_path) == ["toy.inter: no column x_label; its columns are userID, item, label (separator '\\t')"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "toy.inter: the file is empty; expected a header with userID, itemID, x_label"),
        (b"userID\titemID\tx_label\n", "toy.inter: no rows below the header; expected interactions"),
        (b"\xff\xfe\x00", "toy.inter: cannot be read as a separated text file: 'utf-8' codec can't decode"),
        (
            b'userID\titemID\tx_label\n"1\t2\t0\n',
            "toy.inter: cannot be read as a separated text file: Error tokenizing",
        ),
    ],
)
def test_file_without_rows_or_that_is_no_table_is_refused(tmp_path, content, line):
    (write_set(tmp_path) / "toy.inter").write_bytes(content)
    (problem,) = problems(tmp_path)
    assert problem.startswith(line)


def test_missing_file_says_where_it_belongs_and_where_it_comes_from(tmp_path):
    config = toy_config("baby", data_path=str(tmp_path))
    (line,) = problems_of(lambda: load_dataset(config))
    assert line.startswith(
        f"data set 'baby': no file {tmp_path}/baby/baby.inter; set --data_path to the folder that holds"
    )
    assert "It comes from: MMRec" in line


def test_empty_splits_are_told_at_once(tmp_path):
    write_set(tmp_path, [row for row in ROWS if row[2] == 0])
    assert problems(tmp_path) == [
        "toy.inter: the valid split is empty: expected rows with x_label 1",
        "toy.inter: the test split is empty: expected rows with x_label 2",
    ]
    write_set(tmp_path, [row for row in ROWS if row[2] != 0])
    assert problems(tmp_path) == [
        "toy.inter: the train split is empty: expected rows with x_label 0",
        "toy.inter: the valid split is empty: no user of its 3 rows is in train",
        "toy.inter: the test split is empty: no user of its 3 rows is in train",
    ]


# Doubtful interactions


def test_repeated_rows_count_once_with_a_warning(tmp_path):
    write_set(tmp_path, [*ROWS, (0, 0, 0), (0, 0, 0), (0, 2, 2)])
    dataset = load(tmp_path)
    assert dataset.warnings == [
        "train: 2 repeated (user, item) rows; each pair counts once",
        "test: 1 repeated (user, item) rows; each pair counts once",
    ]
    assert pairs(dataset.train).count((0, 0)) == 1
    assert dataset.inter_matrix().toarray().max() == 1


def test_users_without_history_are_left_out_with_a_warning_or_kept(tmp_path):
    write_set(tmp_path, [*ROWS, (3, 0, 2), (3, 1, 2), (4, 0, 2), (4, 1, 1)])
    dataset = load(tmp_path)
    assert dataset.warnings == [
        "1 users of valid have no training row (1 rows); their rows are left out",
        "2 users of test have no training row (3 rows); their rows are left out",
    ]
    assert set(dataset.splits["test"].users) == set(dataset.splits["valid"].users) == {0, 1, 2}
    assert dataset.n_users == 5, "they stay isolated nodes"
    kept = load(tmp_path, filter_out_cold_start_users=False)
    assert kept.warnings[1] == "2 users of test have no training row (3 rows); they are ranked without a history"
    assert set(kept.splits["test"].users) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("row", "line"),
    [
        (
            (0, 1, 1),
            "1 interactions are in both train and valid (first: user 0, item 1); masked there, they can never be hit",
        ),
        (
            (2, 3, 2),
            "1 interactions are in both train and test (first: user 2, item 3); masked there, they can never be hit",
        ),
        ((1, 0, 2), "1 interactions are in both valid and test (first: user 1, item 0); the split overlaps"),
    ],
)
def test_interaction_in_two_splits_draws_a_warning(tmp_path, row, line):
    write_set(tmp_path, [*ROWS, row])
    assert load(tmp_path).warnings == [line]


def test_counts_other_than_the_published_draw_a_warning(tmp_path):
    write_set(tmp_path)
    dataset = load(tmp_path, expected={"users": 3, "items": 5, "train": 5, "test": 1234})
    assert dataset.warnings == [
        "toy: published with 5 items, read 4: not the published split",
        "toy: published with 1,234 test, read 3: not the published split",
    ]


def test_data_checks_turn_every_warning_into_an_error(tmp_path):
    write_set(tmp_path, [*ROWS, (0, 0, 0), (0, 1, 1)], {"image_feat.npy": ones(9, 2)})
    warnings = load(tmp_path).warnings
    assert len(warnings) == 3
    assert problems(tmp_path, data_checks="error") == warnings


def test_splits_of_random_rows_are_sets_of_pairs():
    random = np.random.default_rng(0)
    users, items, labels = random.integers(0, 9, 300), random.integers(0, 7, 300), random.integers(0, 3, 300)
    splits, _ = make_splits(users, items, labels, 9, 7, filter_cold=False)
    for label, name in enumerate(("train", "valid", "test")):
        rows = {(u, i) for u, i, x in zip(users.tolist(), items.tolist(), labels.tolist(), strict=True) if x == label}
        assert pairs(splits[name]) == sorted(rows)


# Features


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (ones(3, 2), "3 rows, but items go up to 3: 1 items have no feature row"),
        (ones(4), "expected shape [items, features], got [4]"),
        (ones(4, 0), "expected shape [items, features], got [4, 0]"),
        (np.array([[1.0], [2.0], [np.nan], [np.inf]]), "NaN or infinite values in 2 rows (first: item 2)"),
        (np.array([["a"]] * 4), "expected an array of numbers, got <U1"),
        (b"", "not a numeric .npy array: EOF: reading magic string, expected 8 bytes got 0"),
        (b"1.0 2.0\n3.0 4.0\n", "not a numeric .npy array: the magic string is not correct"),
        (npy(ones(4, 2))[:-1], "not a numeric .npy array: Failed to read all data for array."),
    ],
)
def test_bad_feature_file_is_refused_with_its_reason(tmp_path, content, line):
    write_set(tmp_path, features={"image_feat.npy": content})
    (problem,) = problems(tmp_path)
    assert problem.startswith(f"image_feat.npy (visual): {line}")


@pytest.mark.parametrize("kind", ["pickle", "object array"])
def test_code_in_a_feature_file_is_refused_and_not_run(tmp_path, kind):
    mark = tmp_path / "mark"
    harmful = Planted(mark)
    payload = pickle.dumps(harmful) if kind == "pickle" else npy(np.array([[harmful]] * 4, dtype=object))
    write_set(tmp_path, features={"image_feat.npy": payload})
    (problem,) = problems(tmp_path)
    assert problem.startswith("image_feat.npy (visual): not a numeric .npy array: ")
    assert ("it holds Python objects" in problem) == (kind == "object array")
    assert not mark.exists()
    if kind == "pickle":
        pickle.loads(payload)
    else:
        np.load(tmp_path / "toy" / "image_feat.npy", allow_pickle=True)
    assert mark.exists(), "the file does run code where it is trusted"


def test_bad_features_of_all_modalities_are_told_at_once(tmp_path):
    write_set(tmp_path, features={"image_feat.npy": ones(3, 2), "text_feat.npy": ones(4), "audio_feat.npy": ones(4, 1)})
    first, second = problems(tmp_path)
    assert first.startswith("image_feat.npy (visual): 3 rows")
    assert second.startswith("text_feat.npy (textual): expected shape")


def test_rows_beyond_the_items_are_left_out_with_a_warning(tmp_path):
    image = np.arange(10, dtype=np.float32).reshape(5, 2)
    write_set(tmp_path, features={"image_feat.npy": image})
    dataset = load(tmp_path)
    assert dataset.warnings == ["image_feat.npy (visual): 5 rows for 4 items; the rows beyond are left out"]
    np.testing.assert_array_equal(dataset.features["visual"], image[:4])


@pytest.mark.parametrize("dtype", ["float64", "uint8", ">f4"])
def test_numbers_of_any_kind_become_float32_in_rows(tmp_path, dtype):
    image = np.asfortranarray(np.arange(8).reshape(4, 2).astype(dtype))
    write_set(tmp_path, features={"image_feat.npy": image})
    matrix = load(tmp_path).features["visual"]
    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous
    np.testing.assert_array_equal(matrix, np.arange(8).reshape(4, 2))


def test_feature_files_are_found_by_name(tmp_path):
    names = ["zebra_feat.npy", "text_feat.npy", "audio_feat.npy", "image_feat.npy", "brand_feat.npy"]
    folder = write_set(tmp_path, features={name: ones(4, 1) for name in names})
    (folder / "image_feat.npz").touch()
    (folder / "feat.npy").touch()
    found = discover_features(folder)
    assert list(found.items()) == [
        ("visual", "image_feat.npy"),
        ("textual", "text_feat.npy"),
        ("acoustic", "audio_feat.npy"),
        ("brand", "brand_feat.npy"),
        ("zebra", "zebra_feat.npy"),
    ]
    assert list(load(tmp_path).features) == list(found)


def test_named_modalities_are_read_and_no_others(tmp_path):
    write_set(tmp_path, features={"image_feat.npy": ones(4, 1), "mine.npy": ones(4, 3)})
    dataset = load(tmp_path, modalities={"look": "mine.npy"})
    assert {name: matrix.shape for name, matrix in dataset.features.items()} == {"look": (4, 3)}
    assert dataset.feature_files == {"look": "mine.npy"}


def test_folder_without_features_is_refused_where_they_are_needed(tmp_path):
    folder = write_set(tmp_path, features={})
    assert problems(tmp_path) == [f"data set 'toy': no *_feat.npy file in {folder}; Toy needs one"]
    assert load(tmp_path, needs_features=False).n_items == 4


def test_data_sets_own_yaml_is_read(tmp_path):
    folder = write_set(tmp_path, features={"mine.npy": ones(4, 3), "image_feat.npy": ones(4, 1)})
    (folder / "dataset.yaml").write_text("modalities: {look: mine.npy}\nexpected: {users: 4}\n")
    dataset = load(tmp_path)
    assert list(dataset.features) == ["look"]
    assert dataset.warnings == ["toy: published with 4 users, read 3: not the published split"]


def test_modality_missing_from_a_set_of_the_tree_draws_a_warning_and_a_named_one_is_an_error(tmp_path):
    folder = write_set(tmp_path, name="microlens", features={"text_feat.npy": ones(4, 1)})
    config = toy_config("microlens", data_path=str(tmp_path))
    dataset = load_dataset(config)
    assert list(dataset.features) == ["textual"]
    missing = "image_feat.npy (visual), audio_feat.npy (acoustic), video_feat.npy (video)"
    assert dataset.warnings == [f"microlens: no {missing}; going on without"]

    both = {"visual": "image_feat.npy", "textual": "text_feat.npy"}
    config = toy_config("microlens", data_path=str(tmp_path), modalities=both)
    assert problems_of(lambda: load_dataset(config)) == [
        f"data set 'microlens': no image_feat.npy (visual) in {folder}; there is text_feat.npy"
    ]

    (folder / "text_feat.npy").unlink()
    config = toy_config("microlens", data_path=str(tmp_path))
    (line,) = problems_of(lambda: load_dataset(config))
    assert line.endswith(f" in {folder}; there is no *_feat.npy file at all")


# What a data set offers


def test_interaction_matrix_is_zero_and_one_in_both_forms(tmp_path):
    write_set(tmp_path)
    dataset = load(tmp_path)
    expected = np.zeros((3, 4), dtype=np.float32)
    for user, item, label in ROWS:
        expected[user, item] = label == 0
    for form in ("coo", "csr"):
        matrix = dataset.inter_matrix(form)
        assert matrix.format == form
        np.testing.assert_array_equal(matrix.toarray(), expected, strict=True)
    assert dataset.inter_matrix().format == "coo"
    with pytest.raises(ValueError, match="'coo' or 'csr'"):
        dataset.inter_matrix("dense")
    with pytest.raises(ValueError, match="without values"):
        dataset.inter_matrix("coo", "rating")


def test_names_of_mmrec_give_the_sizes(tmp_path):
    write_set(tmp_path)
    dataset = load(tmp_path)
    assert (dataset.dataset.get_user_num(), dataset.dataset.get_item_num()) == (3, 4)


def test_statistics_are_those_of_papers(tmp_path):
    image = ones(4, 2)
    image[1] = 0
    write_set(tmp_path, features={"image_feat.npy": image, "text_feat.npy": ones(4, 7)})
    assert load(tmp_path).statistics() == [
        "toy: 3 users, 4 items, 11 interactions, sparsity 8.333%",
        "  train 5, valid 3, test 3; in train 3 users (1.67 interactions each), 4 items (1.25 each)",
        "  visual: 2 features, 1 rows all zero",
        "  textual: 7 features",
    ]


def test_fingerprint_is_of_the_content_and_changes_with_any_of_it(tmp_path):
    image = ones(4, 2)

    def fingerprint(rows: Any, image: NDArray[Any]) -> dict[str, str]:
        write_set(tmp_path, rows, {"image_feat.npy": image})
        return load(tmp_path).fingerprint

    base = fingerprint(ROWS, image)
    assert set(base) == {"train", "valid", "test", "visual"}
    assert fingerprint(ROWS[::-1], image.astype(np.float64)) == base, "neither order nor type of the file counts"

    def changed(rows: Any = ROWS, image: NDArray[Any] = image) -> set[str]:
        other = fingerprint(rows, image)
        return {part for part in base if other[part] != base[part]}

    other_image = image.copy()
    other_image[3, 1] = np.nextafter(np.float32(1), np.float32(2))
    assert changed(image=other_image) == {"visual"}
    assert changed(image=ones(4, 4)) == {"visual"}
    for number, (user, _, label) in enumerate(ROWS):
        rest = [*ROWS[:number], *ROWS[number + 1 :]]
        free = next(item for item in range(4) if (user, item, label) not in ROWS)
        part = ("train", "valid", "test")[label]
        assert part in changed(rest), "an interaction fewer"
        assert part in changed([*rest, (user, free, label)]), "another item"
    assert changed([*ROWS, (3, 0, 2)]) == {"train", "valid", "test"}, "sizes count"


def test_content_hash_is_of_shape_type_and_values():
    base = np.arange(6)
    others = [base + 1, base[:5], base.reshape(2, 3), base.view(np.uint64), base[::-1]]
    hashes = [content_hash(base), *(content_hash(other) for other in others), content_hash(base[:3], base[3:])]
    assert len(set(hashes)) == len(hashes)
    assert content_hash(np.arange(12)[::2] // 2) == content_hash(base), "strides do not count"


def test_derived_arrays_go_through_the_cache(tmp_path):
    write_set(tmp_path)
    built = []

    def build() -> dict[str, NDArray[Any]]:
        built.append(1)
        return {"a": np.arange(3)}

    for _ in range(2):
        dataset = load(tmp_path, cache_dir=str(tmp_path / "cache"))
        np.testing.assert_array_equal(dataset.derived("thing", 1, dataset.fingerprint, build)["a"], np.arange(3))
    assert len(built) == 1
    dataset.cache = None
    dataset.derived("thing", 1, dataset.fingerprint, build)
    assert len(built) == 2


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("image_feat.npy", "visual_feat.npy"), "image_feat.npy and visual_feat.npy are both visual"),
        (("a.b_feat.npy",), "'a.b' cannot name a modality"),
        (("train_feat.npy",), "'train' cannot name a modality"),
    ],
)
def test_feature_files_that_cannot_be_told_apart_or_named_are_refused(tmp_path, files, words):
    for file in files:
        (tmp_path / file).write_bytes(npy(np.ones((2, 2), dtype=np.float32)))
    with pytest.raises(UserError, match=words):
        discover_features(tmp_path)
