"""A user graph from a file: what is read, what is refused and in which words, and the conversion of MMRec's pickled one."""

from __future__ import annotations

import io
import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ROWS, Planted, problems_of, random_dataset, toy_config, write_set

from cli.command_line import main
from runner.quick_start import DatasetShelf
from utils.data.dataset import Dataset, Split
from utils.data.loading import load_dataset
from utils.data.user_graph_file import convert_user_graph, read_user_graph, shared_items

# Of ROWS: training items of the users 0, 1, 2 are {0, 1}, {2}, {1, 3}; so 0 and 2 share one item.
GOOD = {"indptr": [0, 1, 1, 2], "indices": [2, 0], "counts": [1, 1]}


class OwnGraph:
    """The settings of a run with a user graph; only the model's own key file is missing."""

    def __new__(cls, data: Path, file: str | None) -> Any:
        config = toy_config("toy", data_path=str(data), cache_dir=str(data / "cache"))
        config.entries["user_graph_file"] = file
        return config


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **{name: np.asarray(values) for name, values in arrays.items()})
    return path


def read(path: Path, dataset: Dataset | None = None) -> Any:
    matrix = (dataset or random_dataset()).inter_matrix("csr")
    return read_user_graph(path, matrix)


def true_lists(splits: list[Split], n_users: int) -> dict[int, list[list[int]]]:
    """MMRec's dictionary, {user: [co-users, counts]} by descending count, of the interactions of some splits."""
    items: list[set[int]] = [set() for _ in range(n_users)]
    for split in splits:
        for user, item in zip(split.users.tolist(), split.items.tolist(), strict=True):
            items[user].add(item)
    lists = {}
    for user, mine in enumerate(items):
        counts = [(len(mine & theirs), other) for other, theirs in enumerate(items) if other != user and mine & theirs]
        counts.sort(key=lambda pair: -pair[0])
        lists[user] = [[other for _, other in counts], [count for count, _ in counts]]
    return lists


def as_npz(path: Path, lists: dict[int, list[list[int]]]) -> Path:
    indptr = np.cumsum([0, *(len(ids) for ids, _ in lists.values())])
    indices, counts = (np.array([x for pair in lists.values() for x in pair[part]], dtype=np.int64) for part in (0, 1))
    return save(path, indptr=indptr, indices=indices, counts=counts)


# Reading


def test_a_good_file_is_read_in_its_own_order(tmp_path):
    dataset = random_dataset()
    lists = true_lists([dataset.train], dataset.n_users)
    lists[0] = [lists[0][0][::-1], lists[0][1][::-1]]
    graph = read(as_npz(tmp_path / "g.npz", lists))
    for user, (ids, counts) in lists.items():
        row = slice(graph.indptr[user], graph.indptr[user + 1])
        assert graph.indices[row].tolist() == ids
        assert graph.data[row].tolist() == counts
    assert graph.nnz > 100


def test_a_file_may_know_less_than_the_training_split(tmp_path):
    graph = read(save(tmp_path / "g.npz", indptr=[0, 1], indices=[3], counts=[1]))
    assert graph.shape == (30, 30)
    assert (graph.indices.tolist(), graph.data.tolist()) == ([3], [1])


@pytest.mark.parametrize("others", [["valid"], ["test"], ["valid", "test"]])
def test_a_graph_with_leaked_interactions_stops_the_run(tmp_path, others):
    dataset = random_dataset()
    right = true_lists([dataset.train], dataset.n_users)
    leaked = true_lists([dataset.train, *(dataset.splits[name] for name in others)], dataset.n_users)
    known = {(user, other): count for user, pair in right.items() for other, count in zip(*pair, strict=True)}
    pairs = [(user, other, count) for user, pair in leaked.items() for other, count in zip(*pair, strict=True)]
    wrong = [pair for pair in pairs if pair[2] > known.get(pair[:2], 0)]
    assert 0 < len(wrong) < len(pairs)
    assert any(pair[:2] not in known for pair in wrong), "some pairs share nothing in training"
    (line,) = problems_of(lambda: read(as_npz(tmp_path / "g.npz", leaked)))
    user, other, count = wrong[0]
    assert line.startswith(
        f"g.npz: {len(wrong)} of {len(pairs)} user pairs share more training items than the training split has (first: "
        f"users {user} and {other}: {count} in the file, {known.get((user, other), 0)} in the training split): validation "
        "or test interactions leaked into the graph"
    )


def test_one_leaked_pair_is_enough(tmp_path):
    dataset = random_dataset()
    lists = true_lists([dataset.train], dataset.n_users)
    lists[5][1][2] += 1
    (line,) = problems_of(lambda: read(as_npz(tmp_path / "g.npz", lists)))
    assert line.startswith("g.npz: 1 of ")
    assert f"users 5 and {lists[5][0][2]}: " in line


@pytest.mark.parametrize("block", [1, 7, 2**22])
def test_shared_items_are_counted_exactly_in_blocks_of_any_size(monkeypatch, block):
    monkeypatch.setattr("utils.data.user_graph_file.LOOKUPS", block)
    dataset = random_dataset(4)
    matrix = dataset.inter_matrix("csr")
    product = (matrix @ matrix.T).toarray()
    users, others = np.array(list(itertools.product(range(30), repeat=2))).T
    np.testing.assert_array_equal(shared_items(matrix, users, others), product[users, others])
    assert shared_items(matrix, users[:0], others[:0]).tolist() == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"indptr": [0, 1, 1, 3]}, "indptr: expected offsets that rise from 0 to the 2 indices"),
        ({"indptr": [0.0, 1.0, 1.0, 2.0]}, "indptr: expected a row of integers, got float64 [4]"),
        ({"indices": [[2, 0]]}, "indices: expected a row of integers, got int64 [1, 2]"),
        ({"counts": [1]}, "counts: expected one for each of the 2 indices, got 1"),
        ({"counts": [1, 0]}, "counts: expected at least 1 shared item, got 0"),
        ({"indices": [2, 3]}, "indices: expected user ids from 0 to 2, got 2 to 3"),
        ({"indices": [0, 0]}, "user 0 is in the list of its own co-users"),
        ({"indptr": [0, 2], "indices": [2, 2]}, "user 2 is twice in the list of user 0"),
        ({"indptr": [0, 1, 1, 2, 2]}, "lists of 4 users, but the data set has 3: it belongs to another one"),
    ],
)
def test_arrays_that_are_no_user_graph_are_refused(tmp_path, changed, words):
    write_set(tmp_path)
    save(tmp_path / "toy" / "g.npz", **(GOOD | changed))
    assert problems_of(lambda: load_dataset(OwnGraph(tmp_path, "g.npz"))) == [f"g.npz: {words}"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", pickle.dumps({0: [[1], [1]]})])
def test_what_is_no_npz_file_is_refused(tmp_path, content):
    (tmp_path / "g.npz").write_bytes(content)
    (line,) = problems_of(lambda: read(tmp_path / "g.npz"))
    assert line.startswith("g.npz: not a .npz file of numbers: ")


def test_other_files_are_refused_with_what_to_do(tmp_path):
    save(tmp_path / "a.npz", indptr=[0])
    (line,) = problems_of(lambda: read(tmp_path / "a.npz"))
    assert line.startswith("a.npz: expected the arrays indptr, indices, counts")
    (line,) = problems_of(lambda: read(tmp_path / "none.npz"))
    assert "no file" in line
    assert "leave the key out" in line
    np.save(tmp_path / "user_graph_dict.npy", {0: [[1], [1]]}, allow_pickle=True)
    (line,) = problems_of(lambda: read(tmp_path / "user_graph_dict.npy"))
    assert f"convert_user_graph {tmp_path}/user_graph_dict.npy {tmp_path}/user_graph_dict.npz" in line


def test_objects_in_an_npz_file_are_not_unpickled(tmp_path):
    mark = tmp_path / "mark"
    harmful = np.array([Planted(mark), None], dtype=object)
    np.savez(tmp_path / "g.npz", indptr=[0, 1, 1, 2], indices=harmful, counts=[1, 1])
    (line,) = problems_of(lambda: read(tmp_path / "g.npz"))
    assert line == "g.npz: not a .npz file of numbers: it holds Python objects"
    assert not mark.exists()
    with np.load(tmp_path / "g.npz", allow_pickle=True) as stored:
        assert len(stored["indices"]) == 2
    assert mark.exists(), "it would have done harm"


# As part of a data set


def test_a_data_set_holds_the_graph_and_its_hash(tmp_path):
    write_set(tmp_path)
    save(tmp_path / "toy" / "g.npz", **GOOD)
    plain, own = load_dataset(OwnGraph(tmp_path, None)), load_dataset(OwnGraph(tmp_path, "g.npz"))
    assert plain.user_graph is None
    assert own.user_graph is not None
    np.testing.assert_array_equal(own.user_graph.toarray(), [[0, 0, 1], [0, 0, 0], [1, 0, 0]])
    assert set(own.fingerprint) - set(plain.fingerprint) == {"user-graph"}
    save(tmp_path / "elsewhere.npz", **(GOOD | {"indptr": [0, 1, 1, 1], "indices": [2], "counts": [1]}))
    other = load_dataset(OwnGraph(tmp_path, str(tmp_path / "elsewhere.npz")))
    assert other.fingerprint["user-graph"] != own.fingerprint["user-graph"]


def test_the_shelf_keeps_sets_with_other_graphs_apart(tmp_path):
    write_set(tmp_path)
    save(tmp_path / "toy" / "g.npz", **GOOD)
    shelf = DatasetShelf()
    plain, own = OwnGraph(tmp_path, None), OwnGraph(tmp_path, "g.npz")
    assert shelf.get(plain, True).user_graph is None
    assert shelf.get(own, True).user_graph is not None
    assert shelf.get(plain, True).user_graph is None


def test_the_name_that_stands_in_every_mmrec_file_may_be_missing(tmp_path):
    write_set(tmp_path)
    dataset = load_dataset(OwnGraph(tmp_path, "user_graph_dict.npy"))
    assert dataset.user_graph is None
    assert dataset.warnings == ["toy: no user_graph_dict.npy; the user graph is computed from the training split"]
    assert "no file" in problems_of(lambda: load_dataset(OwnGraph(tmp_path, "user_graph.npz")))[0]


# Converting

LISTS: dict[Any, Any] = {0: [[2, 1], [3, 1]], 1: [[0], [1]], 2: [[0], [3]], 3: [[], []]}


def npy(path: Path, content: Any, **options: Any) -> Path:
    np.save(path, content, allow_pickle=True, **options)
    return path


def converted(path: Path) -> dict[int, list[list[int]]]:
    target = path.with_suffix(".npz")
    convert_user_graph(path, target)
    with np.load(target, allow_pickle=False) as stored:
        indptr, indices, counts = (stored[name] for name in ("indptr", "indices", "counts"))
    bounds = list(itertools.pairwise(indptr.tolist()))
    return {user: [indices[a:b].tolist(), counts[a:b].tolist()] for user, (a, b) in enumerate(bounds)}


@pytest.mark.parametrize(
    "make",
    [
        lambda pair: pair,
        lambda pair: tuple(pair),
        lambda pair: [pair[0], [float(count) for count in pair[1]]],
        lambda pair: [np.array(pair[0], dtype=np.int64), np.array(pair[1], dtype=np.float32)],
        lambda pair: [[np.int32(other) for other in pair[0]], [np.float64(count) for count in pair[1]]],
        lambda pair: np.array(pair, dtype=">i4"),
        lambda pair: np.asfortranarray(np.array(pair)),
    ],
    ids=["lists", "tuples", "float counts", "arrays", "scalars", "array of both", "by columns"],
)
def test_mmrec_s_dictionary_is_converted(tmp_path, make):
    path = npy(tmp_path / "user_graph_dict.npy", {user: make(pair) for user, pair in LISTS.items()})
    assert np.load(path, allow_pickle=True).item().keys() == LISTS.keys()
    assert converted(path) == LISTS


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_every_protocol_and_numpy_s_old_names_are_read(tmp_path, protocol, module):
    content = np.empty((), dtype=object)
    content[()] = {user: [np.array(ids, dtype=np.int64), counts] for user, (ids, counts) in LISTS.items()}
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, np.lib.format.header_data_from_array_1_0(content))
    payload = pickle.dumps(content, protocol=protocol)
    for known in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        if known in payload and protocol < 4:  # later protocols write the length of the name before it
            payload = payload.replace(known, module.encode())
    (tmp_path / "g.npy").write_bytes(buffer.getvalue() + payload)
    assert converted(tmp_path / "g.npy") == LISTS


def test_users_without_an_entry_have_no_co_users(tmp_path):
    assert converted(npy(tmp_path / "g.npy", {1: [[4], [2]]})) == {1: [[4], [2]]} | {u: [[], []] for u in (0, 2, 3, 4)}


def test_a_converted_graph_is_what_a_run_reads(tmp_path, capsys):
    dataset = random_dataset()
    path = npy(tmp_path / "user_graph_dict.npy", true_lists([dataset.train], dataset.n_users))
    assert main(["convert_user_graph", str(path), str(tmp_path / "out.npz")]) == 0
    assert f"use it by --user_graph_file {tmp_path / 'out.npz'}" in capsys.readouterr().out
    graph = read(tmp_path / "out.npz", dataset)
    matrix = dataset.inter_matrix("csr")
    product = (matrix @ matrix.T).toarray()
    np.fill_diagonal(product, 0)
    np.testing.assert_array_equal(graph.toarray(), product)


@pytest.mark.parametrize("arguments", [["a.npy"], ["a.npy", "b.npz", "c"], ["a.npy", "b.txt"], ["a.npy", "b.npz"]])
def test_mistakes_on_the_command_line_are_the_user_s(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    assert main(["convert_user_graph", *arguments]) == 2
    assert capsys.readouterr().err.startswith("error: convert_user_graph: ")
    assert list(tmp_path.iterdir()) == []


class Named:
    """An object of this module."""


def test_a_harmful_pickle_is_refused_and_not_run(tmp_path):
    """All kinds of these: test_pickles.py."""
    mark = tmp_path / "mark"
    path = npy(tmp_path / "g.npy", {**LISTS, 4: [[np.int64(3)], [Planted(mark)]]})
    (line,) = problems_of(lambda: convert_user_graph(path, tmp_path / "out.npz"))
    assert line.startswith("g.npy: refused: it names ")
    assert "mkdir" in line
    assert not mark.exists()
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(Named(), "it names test_user_graph_file.Named", id="a class"),
        ({0: [[1], [1]], "a": [[], []]}, "a user's id: expected a whole number from 0 up, got str"),
        ({0: [[1], [1]], -1: [[], []]}, "a user's id: expected a whole number from 0 up, got -1"),
        ({0: [[1.5], [1]]}, "an id or count of user 0: expected a whole number from 0 up, got 1.5"),
        ({0: [[1], [float("nan")]]}, "an id or count of user 0: expected a whole number from 0 up, got nan"),
        ({0: [[1, 2], [1]]}, "user 0: expected [co-users, counts], two lists of one length"),
        ({0: [[0], [1]]}, "user 0 is in the list of its own co-users"),
        ({}, "expected a dictionary of users, got dict"),
        ([1, [2]], "expected the dictionary that MMRec saves, got"),
    ],
    ids=str,
)
def test_other_contents_are_refused(tmp_path, content, words):
    if isinstance(content, list):
        content = np.array(content, dtype=object)
    path = npy(tmp_path / "g.npy", content)
    (line,) = problems_of(lambda: convert_user_graph(path, tmp_path / "out.npz"))
    assert line.startswith("g.npy: ")
    assert words in line
    assert not (tmp_path / "out.npz").exists()


def test_a_list_that_holds_itself_is_refused(tmp_path):
    endless: list[Any] = []
    endless.append(endless)
    path = npy(tmp_path / "g.npy", {0: [endless, [1]]})
    assert problems_of(lambda: convert_user_graph(path, tmp_path / "out.npz"))[0].startswith("g.npy: ")


def test_rows_of_the_toy_set_are_as_this_file_says():
    trained = [{item for user, item, label in ROWS if user == wanted and label == 0} for wanted in range(3)]
    assert trained == [{0, 1}, {2}, {1, 3}]
