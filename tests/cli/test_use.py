"""The commands that use a finished run: recommend, similar, export."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from cli_tools import N_ITEMS, N_USERS, places, run_here, toy_rows, trained, write_dataset, write_mappings

from runner.stored_run import StoredRun

FEW = ("--epochs", 2, "--learning_rate", 0.02, "--quiet")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data set named, whose ids are U0, U1... and B0, B1..."""
    folder = tmp_path_factory.mktemp("use")
    write_mappings(write_dataset(folder / "data" / "named"))
    return folder


@pytest.fixture(scope="module")
def run(world: Path) -> Path:
    (folder,) = trained("-m", "VBPR", "-d", "named", *places(world), *FEW).folders
    return folder


def lists_of(path: Path) -> dict[str, list[str]]:
    lists: dict[str, list[str]] = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            lists.setdefault(next(iter(row.values())), []).append(next(reversed(list(row.items())[:3]))[1])
    return lists


def test_recommend_hides_excludes_and_keeps_to_the_candidates(run: Path, tmp_path: Path):
    (tmp_path / "items.txt").write_text("item\n" + "".join(f"B{i}\n" for i in range(30)) + "B999\n")
    (tmp_path / "not.csv").write_text("user,item\nU3,B4\nU7,B5\nU7,nothing\n")
    (tmp_path / "never.txt").write_text("B6\nB8\n")
    out = tmp_path / "best.tsv"
    words = ["recommend", run, "--users", "U3", "U7", "U99", "--k", N_ITEMS, "--output", out]
    found = run_here(*words, "--items", tmp_path / "items.txt", "--exclude", tmp_path / "not.csv", "--hide", "all")
    assert (found.code, found.err) == (
        0,
        "warning: --users: there is no user 'U99'; left out\nwarning: --items: there is no item 'B999'; left out\n"
        "warning: --exclude: there is no item 'nothing'; left out\n",
    )
    lists = lists_of(out)
    for user, not_this in ((3, 4), (7, 5)):
        has = {item for u, item, _ in toy_rows() if u == user}
        assert set(lists[f"U{user}"]) == {f"B{i}" for i in range(30) if i not in has and i != not_this}
    trained(*words, "--exclude", tmp_path / "never.txt")
    train = {item for u, item, label in toy_rows() if u == 3 and label == 0}
    assert set(lists_of(out)["U3"]) == {f"B{i}" for i in set(range(N_ITEMS)) - train - {6, 8}}


def test_titles_are_shown_and_written(run: Path, tmp_path: Path):
    rows = "".join(f'B{i},"Title, {i}"\n' for i in range(1, N_ITEMS))
    (tmp_path / "titles.csv").write_text(f"id,title\n{rows}")
    words = ["--users", "U3", "--k", N_ITEMS, "--titles", tmp_path / "titles.csv", "--output", tmp_path / "best.tsv"]
    shown = trained("recommend", run, *words).out.splitlines()
    assert shown[0] == "user U3:"
    with open(tmp_path / "best.tsv", newline="") as file:
        written = list(csv.DictReader(file, delimiter="\t"))
    assert all(row["title"] == (f"Title, {row['item'][1:]}" if row["item"] != "B0" else "") for row in written)
    assert shown[1].split(maxsplit=2) == ["1", written[0]["item"], f"Title, {written[0]['item'][1:]}"]
    (tmp_path / "titles.csv").write_text("id,title\nelsewhere,x\n")
    warning = "warning: --titles: no title of any item; ids of items look like 'B0', 'B1', 'B2', those of the file like"
    assert run_here("recommend", run, *words).err == f"{warning} 'elsewhere'\n"


def test_similar_items_have_the_largest_cosines(run: Path, tmp_path: Path):
    outcome = run_here("similar", run, "--items", "B5", "X", "--k", 3, "--output", tmp_path / "near.tsv")
    assert (outcome.code, outcome.err) == (0, "warning: --items: there is no item 'X'; left out\n")
    items = StoredRun.open(run).embeddings()[1].astype(float)
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    cosines = items @ items[5]
    best = [f"B{i}" for i in np.argsort(-cosines) if i != 5][:3]
    assert lists_of(tmp_path / "near.tsv") == {"B5": best}
    assert outcome.out.startswith(f"item B5: {' '.join(best)}\n")


def test_after_a_refit_all_interactions_can_be_hidden(world: Path, tmp_path: Path):
    (folder,) = trained("-m", "BPR", "-d", "named", *places(world), *FEW, "--refit").folders
    for hide, labels in (("train", {0, 1}), ("all", {0, 1, 2})):
        words = ["--users", "U3", "--k", N_ITEMS, "--hide", hide, "--output", tmp_path / "best.tsv"]
        trained("recommend", folder, *words)
        has = {f"B{item}" for user, item, label in toy_rows() if user == 3 and label in labels}
        assert set(lists_of(tmp_path / "best.tsv")["U3"]) == {f"B{i}" for i in range(N_ITEMS)} - has


@pytest.mark.parametrize("kind", ["npz", "parquet", "safetensors"])
def test_exported_embeddings_give_the_scores(kind: str, run: Path, tmp_path: Path):
    library = {"parquet": "pyarrow.parquet", "safetensors": "safetensors.numpy"}.get(kind)
    reader = pytest.importorskip(library) if library else None
    trained("export", run, "--format", kind, "--output", tmp_path / "all")
    if kind == "npz":
        with np.load(tmp_path / "all") as found:
            users, items, ids = found["users"], found["items"], list(found["item_ids"])
    elif kind == "parquet":
        rows = reader.read_table(tmp_path / "all").to_pylist()
        users, items = (np.array([r["embedding"] for r in rows if r["kind"] == k]) for k in ("user", "item"))
        ids = [r["id"] for r in rows if r["kind"] == "item"]
    else:
        content = (tmp_path / "all").read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        ids = json.loads(header["__metadata__"]["item_ids"])
        users, items = (reader.load_file(tmp_path / "all")[name] for name in ("users", "items"))
    assert ids == [f"B{i}" for i in range(N_ITEMS)]
    assert np.allclose(users @ items.T, StoredRun.open(run).scores(range(N_USERS)), atol=1e-5)


@pytest.mark.parametrize(("kind", "package"), [("parquet", "pyarrow"), ("safetensors", "safetensors")])
def test_a_library_that_is_missing_is_named(kind: str, package: str, run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    outcome = run_here("export", run, "--format", kind)
    assert (outcome.code, outcome.err) == (
        2,
        f"error: export: --format {kind} needs {package}: pip install {package}\n",
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-m", "ItemKNNCBF"], "ItemKNNCBF has no embeddings of users and items: its scores are computed otherwise"),
        (["-m", "VBPR", "--popularity", 0.5], "adds popularity or co_occurrence to its scores, so that no embeddings"),
    ],
)
def test_embeddings_whose_products_are_not_the_scores_are_refused(words: list[object], says: str, world: Path):
    (folder,) = trained(*words, "-d", "named", *places(world), *FEW).folders
    outcome = run_here("export", folder)
    assert outcome.code == 2
    assert says in outcome.err
    assert not (folder / "embeddings.npz").exists()


def test_new_items_are_ranked_by_their_features(run: Path, world: Path, tmp_path: Path):
    new = tmp_path / "new"
    new.mkdir()
    (new / "ids.txt").write_text("N1\nN2\n")
    matrices = {stem: np.load(world / "data" / "named" / f"{stem}_feat.npy") for stem in ("image", "text")}
    for stem, matrix in matrices.items():
        np.save(new / f"{stem}_feat.npy", matrix[[3, 8]])
    trained("recommend", run, "--users", "U3", "--new_items", new, "--output", tmp_path / "best.tsv")
    stored = StoredRun.open(run)
    users, items = stored.embeddings()
    half = users.shape[1] // 2
    scores = users[3, half:] @ items[[3, 8], half:].T
    assert lists_of(tmp_path / "best.tsv") == {"U3": [f"N{i + 1}" for i in np.argsort(-scores)]}
    np.save(new / "text_feat.npy", matrices["text"][[3, 8], :2])
    (new / "image_feat.npy").unlink()
    outcome = run_here("recommend", run, "--new_items", new, "--output", tmp_path / "best.tsv")
    assert outcome.err.splitlines() == [
        f"error: {new}: no features of the modality visual, which this run has",
        "error: text_feat.npy: expected 5 columns as in the data set, got 2",
    ]


def test_warm_and_cold_items_are_ranked_apart(tmp_path: Path):
    rows = [(user, item, 2 if item < 5 else label) for user, item, label in toy_rows()]
    write_dataset(tmp_path / "data" / "toy", rows)
    (folder,) = trained("-m", "MostPop", "-d", "toy", *places(tmp_path), "--group_by", "cold_items").folders
    metrics = json.loads((folder / "metrics.json").read_text())
    groups = metrics["groups"]["cold_items"]
    assert {name: group["n_items"] for name, group in groups.items()} == {
        "all": N_ITEMS,
        "warm": N_ITEMS - 5,
        "cold": 5,
    }
    assert groups["all"]["recall@5"] == metrics["test"]["recall@5"] < groups["warm"]["recall@5"] < 1
    assert groups["cold"]["recall@5"] == 1, "five cold items among five"
