"""Conversions: round trips are exact, foreign files are read, and what cannot be converted is told."""

from __future__ import annotations

import gzip
import itertools
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from cli_tools import contents, run_here, write_dataset, write_mappings
from helpers import Planted, problems_of, toy_config

from prepare.conversion.convert_dataset import convert, pickle_user_graph
from utils.data.loading import load_dataset
from utils.data.user_graph_file import convert_user_graph

FORMATS = ("recbole", "mmssl", "csv")
HEADER = ("userID", "itemID", "rating", "timestamp", "x_label")


def own_set(folder: Path, others: bool = True, gap: bool = False) -> Path:
    """A data set as `prepare` writes it: sorted by user, then split; with mappings, features and a mask."""
    random = np.random.default_rng(0)
    rows = []
    for user in range(30):
        items = random.permutation(20 - gap)[: 5 + user % 4].tolist()
        labels = [*[0] * (len(items) - 3), 1, 2, 2]
        number = user + 3 * (gap and user > 20)
        for item, label in zip(items, labels, strict=True):
            more = (f"{1 + item % 5}.0", str(10**9 + 17 * item)) if others else ()
            rows.append((number, item + (gap and item > 3), *more, label))
    header = HEADER if others else (*HEADER[:2], HEADER[-1])
    write_dataset(folder, [])
    (folder / f"{folder.name}.inter").write_text("".join("\t".join(map(str, row)) + "\n" for row in (header, *rows)))
    write_mappings(folder)
    np.save(folder / "image_mask.npy", np.arange(55) % 3 > 0)
    return folder


def run(*words: Any) -> str:
    done = run_here("convert", *words)
    assert done.code == 0, done.err
    return done.out


@pytest.mark.parametrize("gap", [False, True])
@pytest.mark.parametrize("to", FORMATS)
def test_there_and_back_is_exact(tmp_path: Path, to: str, gap: bool) -> None:
    own = own_set(tmp_path / "data" / "toy", others=to != "mmssl", gap=gap)
    said = run("mmrec", own, tmp_path / to / "toy", "--to", to)
    assert ("3 of which nobody has" in said) == gap
    run(to, tmp_path / to / "toy", tmp_path / "back" / "toy")
    assert contents(tmp_path / "back" / "toy") == contents(own)


def test_one_recbole_file_keeps_any_order(tmp_path: Path) -> None:
    own = own_set(tmp_path / "data" / "toy")
    inter = own / "toy.inter"
    lines = inter.read_text().splitlines()
    order = np.random.default_rng(0).permutation(len(lines) - 1)
    inter.write_text("\n".join([lines[0], *(lines[1 + k] for k in order)]) + "\n")
    run("mmrec", own, tmp_path / "one" / "toy", "--to", "recbole", "--single")
    head = (tmp_path / "one" / "toy" / "toy.inter").read_text().partition("\n")[0]
    assert head == "user_id:token\titem_id:token\trating:float\ttimestamp:float\tx_label:token"
    run("recbole", tmp_path / "one" / "toy", tmp_path / "back" / "toy")
    assert contents(tmp_path / "back" / "toy") == contents(own)


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(FORMATS, 2)))
def test_between_foreign_formats(tmp_path: Path, first: str, second: str) -> None:
    own = own_set(tmp_path / "data" / "toy", others=False)
    run("mmrec", own, tmp_path / "a" / "toy", "--to", first)
    run(first, tmp_path / "a" / "toy", tmp_path / "b" / "toy", "--to", second)
    run("mmrec", own, tmp_path / "c" / "toy", "--to", second)
    assert contents(tmp_path / "b" / "toy") == contents(tmp_path / "c" / "toy")


def test_a_converted_set_trains(tmp_path: Path) -> None:
    own = own_set(tmp_path / "data" / "toy")
    run("mmrec", own, tmp_path / "a" / "toy", "--to", "mmssl")
    run("mmssl", tmp_path / "a" / "toy", tmp_path / "b" / "toy")
    sets = [load_dataset(toy_config("toy", data_path=str(tmp_path / place))) for place in ("data", "b")]
    assert sets[0].fingerprint == sets[1].fingerprint


# What others have


def test_mmssl_dictionaries_and_matrices(tmp_path: Path) -> None:
    source = tmp_path / "foreign"
    source.mkdir()
    train = sp.csr_matrix(np.array([[1, 0, 2], [0, 0, 1]], dtype=np.float64))  # 2: a pair that stood twice
    (source / "train_mat").write_bytes(pickle.dumps(train, 2).replace(b"scipy.sparse._csr", b"scipy.sparse.csr"))
    (source / "val.json").write_text('{"0": [1]}')
    (source / "test_mat").write_bytes(pickle.dumps(sp.coo_matrix(([1], ([1], [0])), shape=(2, 3))))
    run("mmssl", source, tmp_path / "data" / "toy")
    rows = (tmp_path / "data" / "toy" / "toy.inter").read_text().splitlines()
    assert rows == ["userID\titemID\tx_label", "0\t0\t0", "0\t2\t0", "0\t1\t1", "1\t2\t0", "1\t0\t2"]
    (source / "train.json").write_text('{"0": [0, 2], "1": [2]}')
    convert(source, tmp_path / "data" / "again", "mmssl", "mmrec")
    (source / "train.json").write_text('{"0": [0, 2], "1": [1]}')
    (problem,) = problems_of(lambda: convert(source, tmp_path / "x", "mmssl", "mmrec"))
    assert problem.startswith("train.json and train_mat differ in 2 interactions (first: user 1, item 1)")
    assert not (tmp_path / "x").exists()


def test_lattice_keeps_them_in_a_folder_below(tmp_path: Path) -> None:
    source = tmp_path / "foreign"
    (source / "5-core").mkdir(parents=True)
    for name, content in (("train", {"0": [0, 1], "1": [1]}), ("val", {"0": [2]}), ("test", {"1": [0], "0": []})):
        (source / "5-core" / f"{name}.json").write_text(json.dumps(content))
    np.save(source / "image_feat.npy", np.ones((3, 2)))
    run("mmssl", source, tmp_path / "data" / "toy")
    assert sorted(contents(tmp_path / "data" / "toy")) == ["image_feat.npy", "toy.inter"]


def test_recbole_ids_of_any_kind_are_numbered(tmp_path: Path) -> None:
    source = tmp_path / "foreign"
    source.mkdir()
    for split, user, item in (
        ("train", "anna", "é 1"),
        ("train", "bob", "007"),
        ("valid", "anna", "007"),
        ("test", "bob", "é 1"),
    ):
        path = source / f"x.{split}.inter"
        before = path.read_text() if path.exists() else "item_id:token\tuser_id:token\trating:float\n"
        path.write_text(f"{before}{item}\t{user}\t4.5\n")
    np.save(source / "image_feat.npy", np.ones((2, 2)))
    said = run("recbole", source, tmp_path / "toy")
    assert "numbered again, so files whose rows follow the old ones are left out: image_feat.npy" in said
    assert (tmp_path / "toy" / "toy.inter").read_text().splitlines() == [
        "userID\titemID\trating\tx_label", "0\t0\t4.5\t0", "0\t1\t4.5\t1", "1\t1\t4.5\t0", "1\t0\t4.5\t2"
    ]  # fmt: skip
    assert (tmp_path / "toy" / "i_id_mapping.csv").read_text() == "original\titemID\né 1\t0\n007\t1\n"
    assert (tmp_path / "toy" / "u_id_mapping.csv").read_text() == "original\tuserID\nanna\t0\nbob\t1\n"
    assert sorted(contents(tmp_path / "toy")) == ["i_id_mapping.csv", "toy.inter", "u_id_mapping.csv"]


def test_large_numbers_are_raw_ids(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("user,item,split\n5000,1,train\n5000,2,valid\n9000,1,train\n9000,2,test\n")
    run("csv", tmp_path / "x.csv", tmp_path / "toy")
    assert (tmp_path / "toy" / "u_id_mapping.csv").read_text() == "original\tuserID\n5000\t0\n9000\t1\n"
    assert not (tmp_path / "toy" / "i_id_mapping.csv").exists()
    run("csv", tmp_path / "x.csv", tmp_path / "new", "--renumber")
    assert (tmp_path / "new" / "i_id_mapping.csv").read_text() == "original\titemID\n1\t0\n2\t1\n"


def test_csv_with_quotes(tmp_path: Path) -> None:
    text = '\ufeffsplit,user,item,note\ntrain,"a, b",x,"said ""no"""\nval,"a, b",y,\n2,"a, b",z,\n'
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    run("csv", tmp_path / "x.csv", tmp_path / "toy")
    inter = (tmp_path / "toy" / "toy.inter").read_text()
    assert inter == 'userID\titemID\tnote\tx_label\n0\t0\tsaid "no"\t0\n0\t1\t\t1\n0\t2\t\t2\n'


# What goes wrong


def bad(folder: Path, form: str, **files: str | bytes) -> str:
    """The single line that a source of these files is refused with."""
    folder.mkdir()
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = run_here("convert", form, folder, folder.parent / "out")
    assert done.code == 2, done.out
    assert not (folder.parent / "out").exists()
    (line,) = done.err.splitlines()
    return line.removeprefix("error: ")


HEAD = "user,item,split\n"


@pytest.mark.parametrize(
    ("form", "files", "words"),
    [
        ("csv", {"a__csv": ""}, "a.csv: expected a header with the names of the columns"),
        ("csv", {"a__csv": HEAD}, "a.csv: no rows below the header"),
        ("csv", {"a__csv": HEAD + "1,2\n"}, "a.csv: line 2: 2 fields, expected the 3 of the header"),
        ("csv", {"a__csv": HEAD + "1,2,train,4\n"}, "a.csv: line 2: 4 fields, expected the 3"),
        ("csv", {"a__csv": HEAD + "1,2,0\n\n1,2,0,4\n"}, "a.csv: line 4: 4 fields, expected the 3"),
        ("csv", {"a__csv": HEAD + "1,2,0\n1,,0\n"}, "a.csv: row 2 below the header: item is empty, expected an id"),
        ("csv", {"a__csv": HEAD + "1,2,late\n"}, "a.csv: row 1 below the header: the split is 'late', expected 0, 1"),
        ("csv", {"a__csv": HEAD.encode() + b"1,\xff\xfe,0\n"}, "a.csv: cannot be read as a separated text file"),
        ("csv", {"a__csv": "user,item\n1,2\n"}, "`main.py prepare NAME --interactions a.csv` makes one"),
        ("csv", {"a__csv": "who,item,split\n1,2,0\n"}, "a.csv: no column for the user"),
        ("csv", {"a__csv": HEAD, "b__csv": HEAD}, "expected one .csv file, got a.csv, b.csv"),
        ("csv", {"a__csv": HEAD + '1,2,0\n"3,4,0\n'}, "a.csv: cannot be read as a separated text file"),
        ("csv", {"a__csv": 'user,item,x,split\na,b,"p\tq",0\n'}, "column x holds a tab or the end of a line"),
        ("recbole", {"a__train__inter": "user_id:token\n"}, "no column for the item|no column that tells|no rows"),
        ("recbole", {"a__inter": "", "b__inter": ""}, "expected one .inter file or NAME.train.inter"),
        ("recbole", {"a__inter": "user_id:token\titem_id:token\n1\t2\n"}, "no column that tells the split"),
        ("mmssl", {"train__json": "{}", "val__json": "{}"}, "no test.json and no test_mat; there is train.json, val.json"),
        ("mmssl", {"train__json": "{}", "val__json": "{}", "test__json": "{}"}, "no interactions in any"),
        ("mmssl", {"train__json": "[1]"}, "train.json: expected an object of users and lists of items, got list"),
        ("mmssl", {"train__json": '{"a": [1]}'}, "train.json: user 'a': expected a number"),
        ("mmssl", {"train__json": '{"1": [1.5]}'}, "train.json: user '1': expected a number and a list of numbers"),
        ("mmssl", {"train__json": '{"1": ['}, "train.json: cannot be read as JSON"),
        ("mmssl", {"train_mat": pickle.dumps([1])}, "train_mat: expected a sparse matrix, got list"),
        ("mmssl", {"train_mat": gzip.compress(b"x")}, "train_mat: not a pickle that can be read"),
    ],
)  # fmt: skip
def test_sources_that_are_not_of_the_format(tmp_path: Path, form: str, files: dict[str, Any], words: str) -> None:
    line = bad(tmp_path / "in", form, **files)
    assert any(word in line for word in words.split("|")), line


def test_a_harmful_matrix_is_refused_before_it_runs(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    line = bad(tmp_path / "in", "mmssl", train_mat=pickle.dumps(Planted(mark)))
    assert "refused: it names posix.mkdir" in line
    assert not mark.exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    own = own_set(tmp_path / "data" / "toy")
    before = contents(own)
    run("mmrec", own, tmp_path / "a" / "toy", "--to", "csv")
    done = run_here("convert", "csv", tmp_path / "a" / "toy", own)
    assert (done.code, "holds toy.inter already" in done.err) == (2, True)
    assert contents(own) == before


def test_mistakes_in_the_command(tmp_path: Path) -> None:
    for words, expected in (
        (["csv"], "SOURCE, TARGET are missing"),
        (["cvs", "a", "b"], "unknown format 'cvs' (did you mean 'csv'?)"),
        (["csv", "a", "b", "--too", "csv"], "unknown option --too (did you mean 'to'?)"),
        (["csv", "a", "b", "--to", "csv"], "nothing to convert"),
        (["csv", "a", "b", "--single"], "--single goes with --to recbole"),
        (["csv", "a", "b", "--to", "user_graph"], "write `convert user_graph SOURCE TARGET`"),
        (["csv", tmp_path / "none.csv", tmp_path / "b"], "there is no"),
        (["mmssl", tmp_path / "none", tmp_path / "b"], "there is no"),
        (["user_graph", "a.npy", "b.txt"], "expected a .npy and a .npz file"),
        (["user_graph", tmp_path / "a.npz", tmp_path / "b.npy"], "not a user graph in .npz form"),
    ):
        done = run_here("convert", *words)
        assert done.code == 2
        assert expected in done.err, done.err
        assert done.err.count("\n") == 1
    assert "recbole" in run_here("convert", "--help").out


# User graphs


def test_user_graphs_there_and_back(tmp_path: Path) -> None:
    lists = {0: [[2, 1], [3, 1]], 1: [[0], [1]], 2: [[0], [3]], 3: [[], []]}
    np.save(tmp_path / "user_graph_dict.npy", np.array(lists, dtype=object), allow_pickle=True)
    assert "4 users, 4 co-users" in run("user_graph", tmp_path / "user_graph_dict.npy", tmp_path / "a.npz")
    run("user_graph", tmp_path / "a.npz", tmp_path / "b.npy")
    found = np.load(tmp_path / "b.npy", allow_pickle=True).item()
    assert found == lists
    assert convert_user_graph(tmp_path / "b.npy", tmp_path / "c.npz") == (4, 4)
    for name, array in np.load(tmp_path / "a.npz").items():
        assert np.array_equal(array, np.load(tmp_path / "c.npz")[name])
    assert pickle_user_graph(tmp_path / "c.npz", tmp_path / "d.npy") == (4, 4)
    assert (tmp_path / "d.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    assert run_here("convert", "user_graph", tmp_path / "a.npz", tmp_path / "b.npy").code == 2
