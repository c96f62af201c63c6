"""Graphs that a file opens beside the data: made from the training rows, or the user's own after a check for leaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli_tools import places, run_here, trained, write_dataset
from helpers import problems_of
from plugin_tools import TREE, begun, write_plugin
from toys import N_ITEMS, N_USERS, toy_dataset

from mmrec import graphs, running


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    """Folders of models go below the test's own."""
    monkeypatch.setattr("mmrec.running.default_cache_path", lambda: tmp_path / "default_cache")


def shared_naively(rows: list[set[int]], least: int = 1) -> dict[int, dict[int, float]]:
    """How many entries each two rows share."""
    return {
        a: {b: float(len(own & other)) for b, other in enumerate(rows) if a != b and len(own & other) >= least}
        for a, own in enumerate(rows)
    }


def rows_of(data, kind: str) -> list[set[int]]:
    users, items = data.train.users, data.train.items
    keys, values, n = (users, items, N_USERS) if kind == "user" else (items, users, N_ITEMS)
    return [set(values[keys == row].tolist()) for row in range(n)]


@pytest.mark.parametrize(
    ("name", "kind", "least"),
    [
        ("user_graph_dict.npy", "user", 1),
        ("item_graph_dict.npy", "item", 1),
        ("item_graph_dict_2.npy", "item", 2),
        ("item_graph_dict_3.npy", "item", 3),
    ],
)
def test_graph_is_made_from_training_rows(name, kind, least, tmp_path):
    data = toy_dataset()
    begun(write_plugin(tmp_path), data)
    found = graphs.handed_over(Path("anywhere") / name)
    assert found is not None
    expected = shared_naively(rows_of(data, kind), least)
    content = found.item()
    assert set(content) == set(expected)
    for row, (neighbours, counts) in content.items():
        assert dict(zip(neighbours, counts, strict=True)) == expected[row]
        assert counts == sorted(counts, reverse=True)
        assert all(type(count) is float and type(n) is int for n, count in zip(neighbours, counts, strict=True))


def test_at_most_two_hundred_are_listed(monkeypatch, tmp_path):
    monkeypatch.setattr(graphs, "MOST", 3)
    data = toy_dataset()
    begun(write_plugin(tmp_path), data)
    found = graphs.handed_over(Path("user_graph_dict.npy"))
    assert found is not None
    assert max(len(neighbours) for neighbours, _ in found.item().values()) == 3
    every = shared_naively(rows_of(data, "user"))
    for user, (_, counts) in found.item().items():
        assert counts == sorted(every[user].values(), reverse=True)[:3]


def test_name_from_the_settings(tmp_path):
    path = write_plugin(tmp_path, init="import os; self.found = config['user_graph_dict_file']")
    (tmp_path / "SHORT.yaml").write_text("user_graph_dict_file: neighbours.npy\n")
    begun(path)
    assert graphs.handed_over(Path("x/neighbours.npy")) is not None
    assert graphs.handed_over(Path("x/others.npy")) is None
    assert graphs.handed_over(Path("x/user_graph_dict.npz")) is None


def write_graph(path: Path, content: dict) -> None:
    np.save(path, np.array(content, dtype=object), allow_pickle=True)


def given_run(tmp_path: Path, content: dict) -> running.Run:
    """A run whose data set folder holds a user graph."""
    folder = tmp_path / "data" / "demo"
    folder.mkdir(parents=True)
    write_graph(folder / "user_graph_dict.npy", content)
    run = begun(write_plugin(tmp_path))
    object.__setattr__(run.config, "entries", run.config.entries | {"data_path": str(tmp_path / "data")})
    return run


def test_graph_of_the_user_s_own_is_taken(tmp_path):
    every = shared_naively(rows_of(toy_dataset(), "user"))
    own = {user: [list(shared)[:2], [shared[other] for other in list(shared)[:2]]] for user, shared in every.items()}
    run = given_run(tmp_path, own)
    found = graphs.handed_over(run.data / "demo" / "user_graph_dict.npy")
    assert found is not None
    assert found.item() == own
    assert "checked" in run.opened["user_graph_dict.npy"]


def test_graph_with_test_interactions_is_refused(tmp_path):
    data = toy_dataset()
    every = [set() for _ in range(N_USERS)]
    for split in data.splits.values():
        for user, item in zip(split.users.tolist(), split.items.tolist(), strict=True):
            every[user].add(item)
    leaky = {u: [list(s), list(s.values())] for u, s in shared_naively(every).items()}
    given_run(tmp_path, leaky)
    (told,) = problems_of(lambda: graphs.handed_over(Path("user_graph_dict.npy")))
    assert "pairs of users share more than they do in training" in told
    assert "validation or test interactions leaked into it" in told


class Harmful:
    def __reduce__(self):
        return print, ("run",)


def test_pickle_in_a_graph_of_the_user_s_own_is_not_run(tmp_path, capsys):
    given_run(tmp_path, {0: [[1], [Harmful()]]})
    (told,) = problems_of(lambda: graphs.handed_over(Path("user_graph_dict.npy")))
    assert "nothing in it was run" in told
    assert capsys.readouterr().out == ""


def test_run_with_a_leaky_graph_ends_in_one_line(tmp_path):
    folder = write_dataset(tmp_path / "data" / "toy")
    words = ("--plugin", TREE / "models" / "dualgnn.py", "-d", "toy", *places(tmp_path), "--epochs", 1, "--quiet")
    trained(*words)
    write_graph(folder / "user_graph_dict.npy", {0: [[1], [50]]})
    outcome = run_here(*words)
    assert outcome.code == 2
    assert "share more than they do in training" in outcome.err
    assert outcome.err.count("\n") == 1
