"""The audit: every planted leak is found, clean data pass, and the closing sentence says so."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cli_tools import run_here
from helpers import problems_of

from audit.check import Check
from audit.checks import Audit, audit, table
from audit.feature_alignment import Exchange, alignments, encodings
from audit.feature_checks import CERTAIN, SURE
from utils.config.request import Request, resolve
from utils.data.dataset import Split
from utils.data.synthetic import generate, write
from utils.data.synthetic_spec import SyntheticSpec
from utils.paths import DATA_VARIABLE

DATA = Path(os.environ.get(DATA_VARIABLE, "no-such-folder"))
SMALL = SyntheticSpec(n_users=300, n_items=200, n_interactions=4200)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A clean generated data set on disk."""
    write(generate(SMALL), tmp_path / "data" / "made")
    return tmp_path / "data" / "made"


def run(folder: Path, user_graph: Path | None = None, random_split: bool = False) -> Audit:
    request = Request(["audit"], [folder.name], {"data_path": [str(folder.parent)]})
    (config,), _ = resolve(request, {"audit": None})
    return audit(config, user_graph, random_split)


def rows_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / f"{folder.name}.inter", sep="\t")


def save_rows(folder: Path, rows: pd.DataFrame) -> None:
    rows.to_csv(folder / f"{folder.name}.inter", sep="\t", index=False)


def add_column(folder: Path, column: np.ndarray, file: str = "image_feat.npy") -> None:
    matrix = np.load(folder / file)
    np.save(folder / file, np.concatenate([matrix, column[:, None].astype(np.float32)], axis=1))


def verdict(result: Audit, name: str) -> str:
    (found,) = [check.verdict for check in result.checks if check.name == name]
    return found


def leaks(result: Audit) -> list[str]:
    return [check.name for check in result.leaks]


# Clean data


def test_clean_data_pass(folder):
    result = run(folder)
    assert {check.verdict for check in result.checks} <= {"pass", "warning"}
    assert "no leakage found" in result.sentence()


@pytest.mark.parametrize("seed", range(3))
def test_other_clean_data_pass_though_their_features_cause_the_interactions(tmp_path, seed):
    spec = SyntheticSpec(n_users=200, n_items=120, n_interactions=2600, seed=seed, feature_noise=0.0)
    write(generate(spec), tmp_path / "made")
    assert leaks(run(tmp_path / "made")) == []


@pytest.mark.skipif(not (DATA / "tiktok").is_dir(), reason=f"${DATA_VARIABLE} names no folder with tiktok/")
def test_real_data_pass_though_no_user_has_both_validation_and_test_rows():
    result = run(DATA / "tiktok")
    assert leaks(result) == []
    tested = [check for check in result.checks if check.name.endswith("alignment with test")]
    assert [check.verdict for check in tested] == ["pass", "pass"]
    assert all(check.numbers["units"] > 9000 for check in tested)


# Planted leaks: rows


def test_a_test_interaction_copied_into_training(folder):
    rows = rows_of(folder)
    copied = rows[rows.x_label == 2].iloc[[7]].assign(x_label=0)
    save_rows(folder, pd.concat([rows, copied]))
    result = run(folder)
    assert leaks(result) == ["train interactions in test"]
    (check,) = result.leaks
    assert check.numbers["pairs"] == 1
    user, item = copied.userID.item(), copied.itemID.item()
    assert f"user {user}, item {item}" in check.text


def test_a_test_interaction_copied_into_validation(folder):
    rows = rows_of(folder)
    save_rows(folder, pd.concat([rows, rows[rows.x_label == 2].iloc[[0]].assign(x_label=1)]))
    assert leaks(run(folder)) == ["valid interactions in test"]


def test_repeated_rows_and_training_in_validation_are_warnings(folder):
    rows = rows_of(folder)
    again = rows[rows.x_label == 2].iloc[:3]
    moved = rows[rows.x_label == 0].iloc[:2].assign(x_label=1)
    save_rows(folder, pd.concat([rows, again, moved]))
    result = run(folder)
    assert leaks(result) == []
    assert verdict(result, "repeated rows within a split") == "warning"
    assert verdict(result, "train interactions in valid") == "warning"
    (check,) = [check for check in result.checks if check.name == "repeated rows within a split"]
    assert check.numbers == {"train": 0, "valid": 0, "test": 3}


def test_users_and_items_without_training_rows_are_counted(folder):
    rows = rows_of(folder)
    n_users, n_items = rows.userID.max() + 1, rows.itemID.max() + 1
    new = pd.DataFrame({"userID": [n_users, n_users, 0], "itemID": [0, 1, n_items], "x_label": [2, 2, 2]})
    save_rows(folder, pd.concat([rows, new]))
    for file in ("image_feat.npy", "text_feat.npy"):
        matrix = np.load(folder / file)
        np.save(folder / file, np.concatenate([matrix, matrix[:1] + 0.5]))
    result = run(folder)
    users, items = (check for check in result.checks if check.name.endswith("without training rows"))
    assert (users.numbers["users"], users.numbers["test_rows"]) == (1, 2)
    assert (items.numbers["items"], items.numbers["test_rows"]) == (1, 1)
    assert users.verdict == items.verdict == "warning"


# Time


def with_times(folder: Path, chronological: bool) -> pd.DataFrame:
    """Timestamps that follow the split within each user, or not at all."""
    rows = rows_of(folder).sort_values(["userID", "x_label"], kind="stable").reset_index(drop=True)
    times = rows.groupby("userID").cumcount() if chronological else np.random.default_rng(0).permutation(len(rows))
    return rows.assign(timestamp=1_500_000_000 + 60 * np.asarray(times))


def test_a_split_by_time_has_no_leak(folder):
    save_rows(folder, with_times(folder, True))
    result = run(folder)
    assert leaks(result) == []
    assert verdict(result, "training after a user's test") == "pass"
    # Other users have later rows: what a split within users cannot avoid is told, not condemned.
    assert verdict(result, "training after anybody's test") == "warning"


def test_training_on_a_user_s_future_is_a_leak(folder):
    rows = with_times(folder, True)
    at = rows[(rows.userID == 5) & (rows.x_label == 0)].index[0]
    rows.loc[at, "timestamp"] = rows.timestamp.max() + 1
    save_rows(folder, rows)
    result = run(folder)
    assert leaks(result) == ["training after a user's test"]
    assert result.leaks[0].numbers["rows"] == 1
    assert leaks(run(folder, random_split=True)) == []


def test_a_random_split_may_be_declared(folder):
    save_rows(folder, with_times(folder, False))
    assert leaks(run(folder)) == ["training after a user's test"]
    declared = run(folder, random_split=True)
    assert verdict(declared, "training after a user's test") == "warning"


def test_dates_are_read_as_well_as_numbers(folder):
    rows = with_times(folder, True)
    save_rows(folder, rows.assign(timestamp=pd.to_datetime(rows.timestamp, unit="s").dt.strftime("%Y-%m-%d %H:%M:%S")))
    assert verdict(run(folder), "training after a user's test") == "pass"


def test_unreadable_times_are_told(folder):
    rows = with_times(folder, True)
    rows["timestamp"] = rows.timestamp.astype(str)
    rows.loc[3, "timestamp"] = "long ago"
    save_rows(folder, rows)
    assert verdict(run(folder), "time") == "warning"


# Features


def column_of(rows: pd.DataFrame, n_items: int, kind: str) -> np.ndarray:
    test = rows[rows.x_label == 2]
    counts = np.bincount(test.itemID, minlength=n_items).astype(float)
    users = np.full(n_items, -1.0)
    users[test.itemID] = test.userID
    random = np.random.default_rng(0)
    held_out = np.bincount(rows[rows.x_label > 0].itemID, minlength=n_items)
    return {
        "whether an item is in test": counts > 0,
        "a test user of the item": users,
        "how often an item is held out": held_out,
        "how often, with noise": counts + random.standard_normal(n_items),
        "a test user of the item, scaled, with noise": np.where(users < 0, 0, users / users.max() - 0.5)
        + 0.05 * random.standard_normal(n_items),
    }[kind].astype(float)


EXACT = ["whether an item is in test", "a test user of the item", "how often an item is held out"]
NOISY = ["how often, with noise", "a test user of the item, scaled, with noise"]


@pytest.mark.parametrize("kind", EXACT)
def test_a_column_that_spells_out_the_test_split(folder, kind):
    add_column(folder, column_of(rows_of(folder), SMALL.n_items, kind))
    result = run(folder)
    assert "visual: exact encodings of test" in leaks(result)
    assert not any(name.startswith("textual") for name in leaks(result))
    (check,) = [check for check in result.leaks if "exact" in check.name]
    assert check.numbers["n"] == 1
    assert check.text.startswith("column 64 ")


@pytest.mark.parametrize("kind", NOISY)
def test_a_column_that_hints_at_the_test_split(folder, kind):
    add_column(folder, column_of(rows_of(folder), SMALL.n_items, kind))
    result = run(folder)
    assert leaks(result) == ["visual: alignment with test"]
    assert result.leaks[0].numbers["statistic"].startswith("column 64")


def test_features_learnt_from_training_and_test(folder):
    rows = rows_of(folder)
    seen = rows[rows.x_label != 1]
    matrix = np.zeros((SMALL.n_items, SMALL.n_users))
    matrix[seen.itemID, seen.userID] = 1
    left, values, _ = np.linalg.svd(matrix, full_matrices=False)
    np.save(folder / "text_feat.npy", (left[:, :32] * values[:32]).astype(np.float32))
    result = run(folder)
    assert leaks(result) == ["textual: alignment with test"]
    assert result.leaks[0].numbers["statistic"] == "closeness to the user's training items"


def test_features_learnt_from_training_alone_pass(folder):
    rows = rows_of(folder)
    seen = rows[rows.x_label == 0]
    matrix = np.zeros((SMALL.n_items, SMALL.n_users))
    matrix[seen.itemID, seen.userID] = 1
    left, values, _ = np.linalg.svd(matrix, full_matrices=False)
    np.save(folder / "text_feat.npy", (left[:, :32] * values[:32]).astype(np.float32))
    add_column(folder, np.bincount(seen.itemID, minlength=SMALL.n_items), "text_feat.npy")
    assert leaks(run(folder)) == []


def test_a_split_by_time_may_differ_between_validation_and_test(folder):
    add_column(folder, column_of(rows_of(folder), SMALL.n_items, NOISY[0]))
    save_rows(folder, with_times(folder, True))
    assert verdict(run(folder), "visual: alignment with test") == "warning"


def test_broken_features_are_warnings(folder):
    matrix = np.load(folder / "image_feat.npy")
    matrix[3] = 0
    matrix[5:8] = matrix[9]
    matrix[11, 2], matrix[12, 3] = np.nan, np.inf
    matrix[:, 7] = 0.0
    np.save(folder / "image_feat.npy", np.concatenate([matrix, matrix[:2]]))
    result = run(folder)
    assert leaks(result) == []
    found = {check.name: (check.verdict, check.numbers) for check in result.checks if check.name.startswith("visual")}
    assert found["visual: values"] == ("warning", {"rows": 2, "surplus": 2})
    assert found["visual: empty rows"] == ("warning", {"rows": 1})
    assert found["visual: constant columns"] == ("warning", {"columns": 1, "first": [7]})
    assert found["visual: repeated rows"] == ("warning", {"items": 4, "largest_group": 4})


def test_a_set_without_features_is_audited(folder):
    for file in ("image_feat.npy", "text_feat.npy"):
        (folder / file).unlink()
    result = run(folder)
    assert verdict(result, "feature files") == "pass"
    assert leaks(result) == []


# Statistics


def splits_of(seed: int = 0) -> list[Split]:
    data = generate(SyntheticSpec(n_users=60, n_items=50, n_interactions=900, seed=seed))
    return [Split(data.users[data.labels == k], data.items[data.labels == k]) for k in range(3)]


def test_permuted_labels_keep_the_numbers_of_every_user():
    train, valid, test = splits_of()
    exchange = Exchange.of(valid, test, np.bincount(train.users, minlength=60))
    given, *permuted = exchange.labels(20)
    pairs = {(int(u), int(i)) for u, i in zip(test.users, test.items, strict=True)}
    marked = {(int(exchange.users[r]), int(exchange.items[r])) for r in np.flatnonzero(given[exchange.unit])}
    assert marked == pairs
    n_test = np.bincount(test.users, minlength=60)
    for label in permuted:
        assert np.array_equal(np.bincount(exchange.users, weights=label[exchange.unit], minlength=60), n_test)
    assert len({label.tobytes() for label in permuted}) == 20


def test_users_with_held_out_rows_of_one_split_alone_are_exchanged_whole():
    valid = Split(np.array([0, 0, 1, 1, 4]), np.array([1, 2, 3, 4, 5]))
    test = Split(np.array([2, 2, 3, 3, 5]), np.array([5, 6, 7, 8, 9]))
    exchange = Exchange.of(valid, test, np.array([3, 3, 3, 3, 3, 300]))
    assert len(exchange.label) == 6
    for label in exchange.labels(10):
        by_user = {u: set(label[exchange.unit[exchange.users == u]].tolist()) for u in range(6)}
        assert all(len(found) == 1 for found in by_user.values())
        assert sum(True in by_user[u] for u in range(4)) == 2
        # Nobody is like them: one held-out row, and another number of training rows.
        assert (by_user[4], by_user[5]) == ({False}, {True})


@pytest.mark.slow
def test_p_values_of_clean_data_are_spread_evenly():
    found = []
    for seed in range(40):
        train, valid, test = splits_of(seed)
        matrix = np.random.default_rng(seed).standard_normal((50, 6)).astype(np.float32)
        result = alignments({"m": matrix}, train, valid, test, 60)["m"]
        assert result is not None
        assert result.p > SURE or result.bound > CERTAIN
        found.append(result.p)
    assert [sum(low <= p < low + 0.25 for p in found) in range(3, 20) for low in (0, 0.25, 0.5, 0.75)] == [True] * 4


def test_too_few_held_out_rows_are_not_tested():
    train = Split(np.arange(5), np.arange(5))
    one, other = Split(np.arange(5), np.arange(5) + 5), Split(np.arange(5), np.arange(5) + 10)
    assert alignments({"m": np.zeros((15, 2), dtype=np.float32)}, train, one, other, 5) == {"m": None}


def test_what_training_tells_too_is_no_encoding():
    random = np.random.default_rng(0)
    pairs = random.integers(0, 30, (200, 2))
    split = Split(pairs[:, 0], pairs[:, 1])  # the items of 0 to 29 in every split alike
    column = (np.arange(60) < 30)[:, None].astype(np.float32)
    assert encodings(column, split, split, split) == []
    other = Split(pairs[:, 0], pairs[:, 1] + 30)
    (found,) = encodings(column, other, other, split)
    assert found == "column 0 tells the items with test rows from those without"


# Graphs


def user_graph(rows: pd.DataFrame, path: Path, of_items: bool = False) -> dict[int, list[Any]]:
    """Counts of shared items over `rows`, written as .npz, and as MMRec's dictionary."""
    one, other = ("itemID", "userID") if of_items else ("userID", "itemID")
    n = int(rows[one].max()) + 1
    matrix = np.zeros((n, int(rows[other].max()) + 1), dtype=int)
    matrix[rows[one], rows[other]] = 1
    shared = matrix @ matrix.T
    np.fill_diagonal(shared, 0)
    lists = {u: [np.flatnonzero(row).tolist(), row[row > 0].tolist()] for u, row in enumerate(shared)}
    if path.suffix == ".npy":
        np.save(path, np.array(lists, dtype=object), allow_pickle=True)
    else:
        indptr = np.cumsum([0, *(len(ids) for ids, _ in lists.values())])
        ids, counts = (np.concatenate([np.array(pair[k], dtype=int) for pair in lists.values()]) for k in (0, 1))
        np.savez(path, indptr=indptr, indices=ids, counts=counts)
    return lists


@pytest.mark.parametrize("splits", [[0, 1, 2], [0, 2]])
def test_a_user_graph_of_held_out_interactions_is_found(folder, tmp_path, splits):
    rows = rows_of(folder)
    user_graph(rows[rows.x_label.isin(splits)], tmp_path / "graph.npz")
    result = run(folder, tmp_path / "graph.npz")
    assert leaks(result) == ["user graph graph.npz"]
    assert result.leaks[0].numbers["leaking_pairs"] > 100


def test_a_user_graph_of_the_training_split_passes(folder, tmp_path):
    rows = rows_of(folder)
    user_graph(rows[rows.x_label == 0], tmp_path / "graph.npz")
    assert verdict(run(folder, tmp_path / "graph.npz"), "user graph graph.npz") == "pass"


def test_graphs_in_the_folder_are_found_unasked(folder):
    rows = rows_of(folder)
    user_graph(rows, folder / "mine.npz")
    np.savez(folder / "other.npz", a=np.zeros(3))
    result = run(folder)
    assert leaks(result) == ["user graph mine.npz"]
    assert leaks(run(folder, Path("mine.npz"))) == ["user graph mine.npz"], "checked once"


@pytest.mark.parametrize("name", ["user_graph_dict.npy", "item_graph_dict.npy"])
def test_dictionaries_are_checked_though_no_run_reads_them(folder, name):
    rows, of_items = rows_of(folder), name.startswith("item")
    user_graph(rows[rows.x_label == 0], folder / name, of_items)
    (clean,) = [check for check in run(folder).checks if name in check.name]
    assert clean.verdict == "warning"
    assert "runs do not read it" in clean.text
    assert ("convert_user_graph" in clean.text) == (not of_items)
    user_graph(rows, folder / name, of_items)
    assert [name in found for found in leaks(run(folder))] == [True]


def test_a_dictionary_of_another_kind_is_told(folder):
    np.save(folder / "item_graph.npy", np.zeros((3, 3)))
    (check,) = [check for check in run(folder).checks if "item_graph.npy" in check.name]
    assert check.verdict == "warning"
    assert check.text.startswith("not checked: ")


# The command


def test_the_command_prints_a_table_and_a_sentence_and_returns_0(folder, tmp_path):
    outcome = run_here("audit", "made", "--data_path", folder.parent, "--output", tmp_path / "audit.json")
    assert (outcome.code, outcome.err) == (0, "")
    *lines, sentence, written = outcome.out.strip().splitlines()
    assert sentence.startswith("AUDIT PASSED: made (300 users, 200 items, 4,200 interactions), 20 checks, ")
    assert " no leakage found; data fingerprint " in sentence
    assert written == f"written to {tmp_path / 'audit.json'}"
    assert len([line for line in lines if line.startswith(("pass ", "warning "))]) == 20
    record = json.loads((tmp_path / "audit.json").read_text())
    assert (record["verdict"], record["sentence"], len(record["checks"])) == ("passed", sentence, 20)
    assert set(record["hashes"]) == {"train", "valid", "test", "visual", "textual"}


def test_the_command_returns_1_on_leakage(folder):
    rows = rows_of(folder)
    user_graph(rows, folder.parent / "graph.npz")
    save_rows(folder, pd.concat([rows, rows[rows.x_label == 2].assign(x_label=0)]))
    outcome = run_here("audit", "made", "--data_path", folder.parent)
    assert outcome.code == 1
    assert "AUDIT FAILED: made" in outcome.out
    assert "train interactions in test" in outcome.out.splitlines()[-1]


def test_the_fingerprint_is_that_of_the_data(folder):
    before = run(folder)
    assert before.fingerprint == run(folder).fingerprint
    add_column(folder, np.zeros(SMALL.n_items))
    assert run(folder).fingerprint != before.fingerprint


def test_the_embedded_data_set_passes():
    outcome = run_here("audit", "demo")
    assert outcome.code == 0
    assert "AUDIT PASSED: demo (1,200 users, 500 items, 14,400 interactions), 20 checks, 0 warnings" in outcome.out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--output", "x"], "DATASET is missing"),
        (["made", "--output", "no/such/folder/x.json"], "audit: --output: expected a file to write"),
        (["made", "--user_graph_file", "none.npz"], "no file none.npz"),
    ],
)
def test_mistakes_are_one_line_and_code_2(folder, words, problem):
    outcome = run_here("audit", *words, "--data_path", folder.parent)
    assert outcome.code == 2
    assert problem in outcome.err
    assert outcome.err.count("\n") == 1


def test_files_that_cannot_be_audited_are_mistakes(folder):
    matrix = np.load(folder / "image_feat.npy")
    np.save(folder / "image_feat.npy", matrix[:-1])
    assert problems_of(lambda: run(folder)) == ["image_feat.npy (visual): 199 rows, but items go up to 199"]


def test_the_sentence_counts():
    checks = [Check("a", "leak", "x"), Check("b", "leak", "y"), Check("c", "warning", "z")]
    result = Audit("set", checks, {"users": 1, "items": 2, "interactions": 3000}, {"train": "0"})
    expected = (
        "AUDIT FAILED: set (1 users, 2 items, 3,000 interactions), leakage found by 2 of 3 checks (1 warning): a; b; "
    )
    assert result.sentence() == f"{expected}data fingerprint {result.fingerprint}"
    assert table(checks).splitlines() == ["leak     a  x", "leak     b  y", "warning  c  z"]
