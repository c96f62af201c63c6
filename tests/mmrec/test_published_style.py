"""Whole model files in the manner of MMRec and its offspring: each trains, recommends, and goes on where it was killed."""

from __future__ import annotations

import gc
import json
import re
import shutil
from pathlib import Path

import pytest
from cli_tools import contents, metrics_of, places, run_here, trained, write_dataset
from plugin_tools import PLUGINS, PUBLISHED, TREE

from mmrec.plugin import read_model_file

FEW = ("--epochs", "2", "--quiet")
SMALL = {"freedom": ("--knn_k", 3), "mgcn": ("--knn_k", 3)}
KEEP_STATE = (TREE / "models" / "dualgnn.py", TREE / "models" / "lattice.py", PLUGINS / "selfpair.py")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder with data sets with and without sound; no test writes into it."""
    folder = tmp_path_factory.mktemp("shared")
    write_dataset(folder / "data" / "toy", features=("image", "text", "audio"))
    return folder


@pytest.fixture
def own(shared, tmp_path):
    """Words for the shared data, and output and cache folders of the test's own."""
    words = places(shared)
    words[words.index("--output_dir") + 1] = str(tmp_path / "runs")
    words[words.index("--cache_dir") + 1] = str(tmp_path / "cache")
    return words


def words_of(name: str) -> tuple[object, ...]:
    return ("--plugin", TREE / "models" / f"{name}.py", "-d", "toy", *SMALL.get(name, ()))


@pytest.mark.parametrize("name", PUBLISHED)
def test_file_trains_without_touching_data_or_tree(name, own, shared):
    before, tree = contents(shared / "data"), contents(TREE)
    (folder,) = trained(*words_of(name), *own, *FEW).folders
    found = metrics_of(folder)
    assert (found["status"], found["epochs"]) == ("finished", 2)
    assert 0 < found["test"]["recall@20"] <= 1
    assert (contents(shared / "data"), contents(TREE)) == (before, tree)
    gc.collect()
    cache = Path(own[own.index("--cache_dir") + 1])
    assert not list((cache / "plugins").iterdir()), "what it wrote goes with it"
    assert trained("recommend", folder, "--users", 0, "--k", 3).out.startswith("user 0: ")


@pytest.mark.parametrize("path", KEEP_STATE, ids=lambda path: path.stem)
def test_killed_run_goes_on_to_the_same_numbers(path, own, monkeypatch):
    from common.trainer import Trainer

    words = ("--plugin", path, "-d", "toy", *own, "--quiet", "--epochs", 4)
    (whole,) = trained(*words).folders
    save = Trainer._save

    def killed(self):
        save(self)
        if self.state.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_save", killed)
    assert run_here(*words).code == 130
    monkeypatch.setattr(Trainer, "_save", save)
    outcome = trained(*words, "--resume")
    assert "continues in" in outcome.out
    assert metrics_of(outcome.folders[0]) == metrics_of(whole)
    losses = [
        [line.split(",")[2] for line in (f / "history.csv").read_text().splitlines()]
        for f in (whole, outcome.folders[0])
    ]
    assert losses[0][0] == "loss"
    assert losses[0] == losses[1], "to the bit"


def test_modules_of_its_tree_are_part_of_the_run(own, tmp_path):
    tree = tmp_path / "repository" / "src"
    shutil.copytree(TREE, tree)
    path = tree / "models" / "relative.py"
    words = ("--plugin", path, "-d", "toy", *own, *FEW)
    (first,) = trained(*words).folders
    record = json.loads((first / "manifest.json").read_text())["plugin"]
    taken = {"common/depths.py", "common/loss.py", "models/helpers/__init__.py", "models/helpers/cross.py",
             "utils/graph_cache.py", "utils/tools/shapes.py"}  # fmt: skip
    assert set(record["modules"]) == taken
    assert record["modules"] == read_model_file(path).module_hashes
    assert "finished before" in trained(*words, "--resume").out
    changed = tree / "utils" / "tools" / "shapes.py"
    changed.write_text(changed.read_text() + "# changed\n")
    outcome = trained(*words, "--resume")
    assert "finished before" not in outcome.out
    assert outcome.folders[0].name != first.name
    refused = run_here("recommend", first, "--users", 0)
    told = "utils/tools/shapes.py of the model file's tree has changed since this run began"
    assert (refused.code, refused.err) == (2, f"error: {path}: {told}\n")


def test_sound_is_missed_by_name(tmp_path):
    write_dataset(tmp_path / "data" / "silent")
    outcome = run_here("--plugin", TREE / "models" / "sound.py", "-d", "silent", *places(tmp_path), *FEW)
    assert outcome.code == 2
    assert re.search(r"sound\.py, line \d+: AssertionError", outcome.err)
