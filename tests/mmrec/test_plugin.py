"""Model files from elsewhere, most of them written for MMRec: loading, settings, runs, mistakes."""

from __future__ import annotations

import gc
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import yaml
from cli_tools import (
    ROOT,
    contents,
    copy_of_code,
    metrics_of,
    places,
    run_here,
    run_process,
    trained,
    write_dataset,
)
from helpers import problems_of
from plugin_tools import PLUGINS, begun, built, settings_of, write_plugin
from toys import N_ITEMS, N_USERS, one_batch, toy_dataset

from mmrec.config import ForeignConfig
from mmrec.loader import TrainingData
from mmrec.plugin import load_class, read_model_file
from runner.registry import class_of
from utils.runs.run_folder import identity, read_torch, write_torch

FEW = ("--epochs", "3", "--quiet")


def plugin(name: str) -> Path:
    """A file of tests/plugins."""
    return PLUGINS / f"{name.lower()}.py"


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    """Folders of models go below the test's own."""
    monkeypatch.setattr("mmrec.running.default_cache_path", lambda: tmp_path / "default_cache")


def foreign_config(name: str, data) -> ForeignConfig:
    return ForeignConfig(begun(plugin(name), data))


def scores_of(model):
    with model.scoring():
        return model.full_sort_predict((torch.arange(model.n_users),)).clone()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder with the data set toy; no test writes into it."""
    folder = tmp_path_factory.mktemp("shared")
    write_dataset(folder / "data" / "toy")
    return folder


@pytest.fixture
def own(shared, tmp_path):
    """Words for the shared data, and output and cache folders of the test's own."""
    words = places(shared)
    words[words.index("--output_dir") + 1] = str(tmp_path / "runs")
    words[words.index("--cache_dir") + 1] = str(tmp_path / "cache")
    return words


# Running


@pytest.mark.parametrize("name", ["graphrank", "contentgraph", "selfpair", "keepslast"])
def test_file_written_for_mmrec_trains_and_recommends(name, own):
    outcome = trained("--plugin", PLUGINS / f"{name}.py", "-d", "toy", *own, *FEW)
    for folder in outcome.folders:
        found = metrics_of(folder)
        assert found["status"] == "finished"
        assert found["epochs"] == 3
        assert 0 < found["test"]["recall@20"] <= 1
    assert trained("recommend", folder, "--users", 0, "--k", 3).out.startswith("user 0: ")


def test_lists_that_hyper_parameters_names_are_a_grid_and_other_lists_are_lists(own):
    outcome = trained("--plugin", PLUGINS / "graphrank.py", PLUGINS / "contentgraph.py", "-d", "toy", *own, *FEW)
    first, second, third = (yaml.safe_load((folder / "config.yaml").read_text()) for folder in outcome.folders)
    assert [first["n_layers"], second["n_layers"]] == [1, 2]
    assert first["lambda"] == 1e-3
    assert third["layers"] == [8, 4]
    assert third["learning_rate"] == 0.01, "keys of the harness count too"


def test_command_line_sets_keys_of_the_file_and_no_others(own):
    words = ("--plugin", PLUGINS / "contentgraph.py", "-d", "toy", *own, *FEW)
    (folder,) = trained(*words, "--knn_k", 2, "--layers", 3, 4, 5, "--cf_model", "mf").folders
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    assert (settings["knn_k"], settings["layers"], settings["cf_model"]) == (2, [3, 4, 5], "mf")
    outcome = run_here(*words, "--knn_kk", 2)
    assert (outcome.code, outcome.err) == (
        2,
        "error: unknown option --knn_kk (did you mean 'knn_k'?)\n",
    )


def test_settings_file_is_found_beside_the_model_in_a_tree_like_mmrec_s_or_given(own, tmp_path):
    models, configs = tmp_path / "src" / "models", tmp_path / "src" / "configs" / "model"
    models.mkdir(parents=True)
    configs.mkdir(parents=True)
    path = Path(shutil.copy(PLUGINS / "selfpair.py", models))
    assert read_model_file(path).settings_file is None
    (configs / "SELFPAIR.yaml").write_text((PLUGINS / "SELFPAIR.yaml").read_text())
    assert read_model_file(path).settings_file == configs / "SELFPAIR.yaml"
    shutil.copy(configs / "SELFPAIR.yaml", models)
    assert read_model_file(path).settings_file == models / "SELFPAIR.yaml"
    given = tmp_path / "given.yaml"
    given.write_text((PLUGINS / "SELFPAIR.yaml").read_text().replace("n_layers: 2", "n_layers: 1"))
    (folder,) = trained("--plugin", path, "--plugin_config", given, "-d", "toy", *own, *FEW).folders
    assert yaml.safe_load((folder / "config.yaml").read_text())["n_layers"] == 1


@pytest.mark.slow
def test_file_dropped_into_the_tree_is_a_model_like_any_other(shared, tmp_path):
    source = copy_of_code(tmp_path)
    shutil.copy(PLUGINS / "graphrank.py", source / "models")
    shutil.copy(PLUGINS / "GRAPHRANK.yaml", source / "configs" / "model")
    words = places(shared)
    words[words.index("--output_dir") + 1] = str(tmp_path / "runs")
    here = source / "main.py"
    outcome = run_process("-m", "graphrank", "BPR", "-d", "toy", *words, *FEW, "--n_layers", 1, main=here)
    assert outcome.code == 0, outcome.err
    assert [folder.parent.name for folder in outcome.folders] == ["GRAPHRANK", "BPR"]


def test_plugin_and_models_of_the_tree_share_a_comparison(own):
    outcome = trained("-m", "BPR", "--plugin", PLUGINS / "keepslast.py", "-d", "toy", *own, *FEW)
    assert [folder.parent.name for folder in outcome.folders] == ["BPR", "KEEPSLAST"]
    assert "comparison.csv" in outcome.out


def test_plugin_goes_before_a_model_of_its_name(own, tmp_path):
    path = write_plugin(tmp_path, "BPR")
    outcome = trained("-m", "BPR", "--plugin", path, "-d", "toy", *own, *FEW)
    assert f"note: BPR is that of {path}, not the project's" in outcome.out
    (folder,) = outcome.folders
    assert set(read_torch(folder / "checkpoint.pt")["model"]) == {"table", "_extra_state"}


def test_file_of_our_own_kind_can_be_a_plugin_too(own, tmp_path):
    text = (ROOT / "src" / "models" / "bpr.py").read_text().replace("BPR", "MINE")
    (tmp_path / "mine.py").write_text(text)
    shutil.copy(ROOT / "src" / "configs" / "model" / "BPR.yaml", tmp_path / "MINE.yaml")
    words = ("-d", "toy", *own, *FEW)
    (ours,) = trained("-m", "BPR", *words).folders
    (theirs,) = trained("--plugin", tmp_path / "mine.py", *words).folders
    assert metrics_of(ours) == metrics_of(theirs)
    assert trained("recommend", theirs, "--users", 0).out.startswith("user 0: ")
    assert run_here("--plugin", tmp_path / "mine.py", *words, "--reg_weight", "-1").code == 2


# Identity, resuming, recommending


def test_changed_file_is_another_run_and_an_unchanged_one_is_skipped(own, tmp_path):
    path = write_plugin(tmp_path)
    words = ("--plugin", path, "-d", "toy", *own, *FEW)
    (first,) = trained(*words).folders
    assert "finished before" in trained(*words, "--resume").out
    record = json.loads((first / "manifest.json").read_text())["plugin"]
    assert record == {"path": str(path), "sha256": read_model_file(path).sha256, "modules": {}}
    path.write_text(path.read_text() + "# changed\n")
    outcome = trained(*words, "--resume")
    assert "finished before" not in outcome.out
    assert outcome.folders[0].name != first.name
    refused = run_here("recommend", first, "--users", 0)
    assert (refused.code, refused.err) == (2, f"error: {path}: the model file has changed since this run began\n")
    path.unlink()
    refused = run_here("recommend", first, "--users", 0)
    assert (refused.code, refused.err) == (2, f"error: {path}: the model file of this run is gone\n")


def test_where_the_file_lies_is_not_part_of_the_identity(tmp_path):
    here = settings_of(plugin("KEEPSLAST"))
    shutil.copy(PLUGINS / "keepslast.py", tmp_path)
    elsewhere = here.entries | {"plugin": str(tmp_path / "keepslast.py")}
    assert identity(here) == identity(type(here)(here.model, here.dataset, elsewhere, here.sources))


def test_numbers_are_those_of_the_best_epoch_where_scores_come_from_the_last_batch(own):
    # At this rate later epochs are worse: had the tables of the last epoch been scored, validation would not agree.
    words = ("-d", "toy", *own, "--quiet", "--epochs", 12, "--learning_rate", 0.5, "--train_batch_size", 64)
    (folder,) = trained("--plugin", PLUGINS / "keepslast.py", *words).folders
    found = metrics_of(folder)
    lines = (folder / "history.csv").read_text().splitlines()
    column = lines[0].split(",").index("valid_recall@20")
    history = [float(line.split(",")[column]) for line in lines[1:]]
    assert found["best_epoch"] < len(history)
    assert history[-1] != max(history)
    assert found["valid"]["recall@20"] == max(history) == history[found["best_epoch"] - 1]
    extra = read_torch(folder / "checkpoint.pt")["model"]["_extra_state"]
    assert set(extra) == {"result", "halves"}


# What a file finds


def test_what_changes_after_building_is_in_the_state_dict_and_comes_back(tmp_path):
    data = toy_dataset()
    model = built(plugin("KEEPSLAST"), data)
    model.calculate_loss(one_batch(data))
    assert "result" not in dict(model.named_parameters()), "a plain tensor has taken the parameter's place"
    expected = scores_of(model)
    write_torch(tmp_path / "state.pt", model.state_dict())
    with torch.no_grad():
        model.ids.add_(1)
    model.calculate_loss(one_batch(data))
    assert not torch.equal(scores_of(model), expected)
    state = read_torch(tmp_path / "state.pt")
    model.load_state_dict(state)
    assert torch.equal(scores_of(model), expected)
    fresh = built(plugin("KEEPSLAST"), data, seed=5)
    fresh.load_state_dict(state)
    assert torch.equal(scores_of(fresh), expected)


def test_what_stays_as_built_is_left_out_of_the_state_dict_and_restored_by_building():
    model = built(plugin("SELFPAIR"))
    assert model.state_dict()["_extra_state"] == {}
    model.pre_epoch_processing()
    assert model.state_dict()["_extra_state"] == {"epochs_seen": 1}
    model.load_state_dict(built(plugin("SELFPAIR")).state_dict())
    assert model.epochs_seen == 0
    content = built(plugin("CONTENTGRAPH"))
    assert content.state_dict()["_extra_state"] == {}, "neither graphs nor features"


def test_state_holds_tensors_in_place_lists_and_nothing_that_needs_code(tmp_path):
    model = built(plugin("SELFPAIR"))
    model.counts = torch.zeros(2)
    model.encoder.note = {"a": [torch.ones(3)[:1], (1, "x", None)]}
    model.graph = torch.eye(2).to_sparse()
    model.matrix = sp.eye(2)
    model.matrix_of_objects = np.array([object()])
    model.function = print
    write_torch(tmp_path / "x.pt", model.state_dict())
    extra = read_torch(tmp_path / "x.pt")["_extra_state"]
    assert set(extra) == {"counts", "encoder.note", "graph", "matrix"}
    assert extra["encoder.note"] == {"a": [torch.ones(1), (1, "x", None)]}
    assert extra["encoder.note"]["a"][0].untyped_storage().nbytes() == 4, "a slice is written alone"
    assert torch.equal(extra["graph"].to_dense(), torch.eye(2))
    other = built(plugin("SELFPAIR"))
    other.load_state_dict(model.state_dict())
    assert other.encoder.note == model.encoder.note


def test_config_answers_as_mmrec_s_does(tmp_path):
    data = toy_dataset()
    config = foreign_config("SELFPAIR", data)
    assert config["device"] == torch.device("cpu")
    assert config["no such key"] is None
    assert "no such key" not in config
    assert (config["USER_ID_FIELD"], config["ITEM_ID_FIELD"], config["NEG_PREFIX"]) == ("userID", "itemID", "neg_")
    assert (config["model"], config["dataset"], config["inter_file_name"]) == ("SELFPAIR", "demo", "demo.inter")
    assert (config["train_batch_size"], config["n_layers"], config["use_neg_sampling"]) == (2048, 2, False)
    config["n_layers"] = 7
    assert config["n_layers"] == 7
    assert len(config) == len(set(config)) > 40


def test_training_data_answer_as_mmrec_s_loader_does():
    data = toy_dataset()
    loader = TrainingData(foreign_config("SELFPAIR", data), data)
    users, items = data.train.users, data.train.items
    assert (loader.dataset.get_user_num(), loader.dataset.get_item_num()) == (N_USERS, N_ITEMS)
    assert len(loader) == -(-len(users) // 2048), "batches, as of MMRec's loader"
    assert len(loader.dataset) == loader.dataset.inter_num == len(users)
    assert list(loader.dataset.df.columns) == ["userID", "itemID"]
    assert loader.dataset.df.to_numpy().tolist() == np.stack([users, items], axis=1).tolist()
    dense = np.zeros((N_USERS, N_ITEMS))
    dense[users, items] = 1
    for form in ("coo", "csr"):
        matrix = loader.inter_matrix(form=form)
        assert matrix.format == form
        np.testing.assert_array_equal(matrix.astype(np.float32).toarray(), dense)
    assert loader.history_items_per_u == {u: set(items[users == u].tolist()) for u in set(users.tolist())}
    assert (loader.all_items, loader.all_uids.tolist()) == (sorted(set(items.tolist())), sorted(set(users.tolist())))


def test_base_class_has_its_attributes_before_any_parameter():
    model = built(plugin("CONTENTGRAPH"))
    data = toy_dataset()
    assert (model.USER_ID, model.ITEM_ID, model.NEG_ITEM_ID) == ("userID", "itemID", "neg_itemID")
    assert (model.n_users, model.n_items, model.batch_size) == (N_USERS, N_ITEMS, 2048)
    np.testing.assert_array_equal(model.v_feat.numpy(), data.features["visual"])
    np.testing.assert_array_equal(model.t_feat.numpy(), data.features["textual"])
    without = built(plugin("SELFPAIR"))
    assert without.v_feat is without.t_feat is None, "is_multimodal_model: False"


def test_features_belong_to_the_model_alone():
    data = toy_dataset()
    before = data.features["visual"].copy()
    model = built(plugin("CONTENTGRAPH"), data)
    with torch.no_grad():
        model.image_embedding.weight.add_(1)
    np.testing.assert_array_equal(data.features["visual"], before)


def test_data_without_text_say_so(tmp_path):
    folder = write_dataset(tmp_path / "data" / "odd", features=("image", "audio"))
    outcome = trained("--plugin", PLUGINS / "contentgraph.py", "-d", "odd", *places(tmp_path), *FEW)
    assert "t_feat is None, acoustic is left out" in outcome.out
    chosen = ("--modalities", "{visual: image_feat.npy, textual: audio_feat.npy}")
    outcome = trained("--plugin", PLUGINS / "contentgraph.py", "-d", "odd", *places(tmp_path), *FEW, *chosen)
    assert "warning" not in outcome.out
    assert folder.is_dir()


def test_file_that_reads_no_features_runs_without_any(tmp_path):
    write_dataset(tmp_path / "data" / "bare", features=())
    trained("--plugin", PLUGINS / "keepslast.py", "-d", "bare", *places(tmp_path), *FEW)
    assert run_here("--plugin", PLUGINS / "contentgraph.py", "-d", "bare", *places(tmp_path), *FEW).code == 2


def test_what_a_file_writes_beside_the_data_lands_in_the_cache(tmp_path):
    data = write_dataset(tmp_path / "data" / "toy")
    (data / "item_graph_3.pt").write_bytes(b"somebody's own, stale")
    before = contents(tmp_path / "data")
    words = ("--plugin", PLUGINS / "contentgraph.py", "-d", "toy", *places(tmp_path), *FEW)
    trained(*words)
    assert contents(tmp_path / "data") == before
    gc.collect()
    assert list((tmp_path / "cache" / "plugins").iterdir()) == [], "and goes with the model"


def test_every_model_has_a_folder_of_its_own_as_long_as_it_lives():
    one, two = built(plugin("CONTENTGRAPH")), built(plugin("CONTENTGRAPH"))
    folders = [Path(model._training_data.config["data_path"]) for model in (one, two)]
    assert folders[0] != folders[1]
    assert all((folder / "demo" / "item_graph_3.pt").is_file() for folder in folders)
    del one
    gc.collect()
    assert [folder.exists() for folder in folders] == [False, True]


def test_scorer_is_asked_for_whole_batches(own, tmp_path):
    path = write_plugin(tmp_path, scores="print('asked', len(interaction[0])); return self.table[interaction[0]]")
    words = ("--plugin", path, "-d", "toy", *own, "--epochs", 1, "--quiet")
    outcome = trained(*words, "--eval_batch_size", 15)
    assert re.findall(r"asked (\d+)", outcome.out)[:3] == ["15", "15", "10"]


def test_scores_that_a_file_keeps_are_not_written_into(own, tmp_path):
    body = "self.kept = self.table.detach(); assert self.kept.isfinite().all(); return self.kept"
    path = write_plugin(tmp_path, scores=body)
    (folder,) = trained("--plugin", path, "-d", "toy", *own, *FEW).folders
    trained("recommend", folder)


def test_model_that_needs_no_training_is_evaluated_once(own, tmp_path):
    path = write_plugin(tmp_path, loss="raise AssertionError")
    (tmp_path / "SHORT.yaml").write_text("req_training: False\n")
    (folder,) = trained("--plugin", path, "-d", "toy", *own, *FEW).folders
    assert metrics_of(folder)["epochs"] == 1


# Stand-ins


def test_removed_names_are_there_for_the_file_and_for_nobody_else(own, tmp_path):
    head = (
        "import numpy, numpy as np, scipy, scipy.sparse, scipy.sparse as sp\n"
        "from numpy import float as plain\n"
        "from scipy import sparse\n"
        "import torch_scatter\n"
        "assert np.float is plain is float and np.int is int and np.Inf == numpy.inf and np.float_ is np.float64\n"
        "assert np.array is numpy.array and isinstance(np.zeros(2), np.ndarray) and np.linalg.norm([3, 4]) == 5\n"
        "assert sparse is sp is scipy.sparse and sp.issparse(sp.dok_matrix((1, 1)))\n"
        "def later():\n"
        "    import numpy as inside\n"
        "    return inside.product([2, 3])\n"
        "assert later() == 6\n"
    )
    trained("--plugin", write_plugin(tmp_path, head=head), "-d", "toy", *own, *FEW)
    assert not hasattr(np, "float")
    assert not hasattr(np, "product")
    assert not hasattr(sp.dok_matrix((1, 1)), "_update")
    assert "torch_scatter" not in sys.modules
    assert __import__("numpy") is np


def test_dok_matrix_takes_entries_at_once():
    file = read_model_file(PLUGINS / "graphrank.py")
    dok = vars(sys.modules[load_class(file).__module__])["sp"].dok_matrix
    matrix = dok((2, 3), dtype=np.float32)
    matrix._update({(0, 1): 1, (1, 2): 4})
    expected = [[0, 1, 0], [0, 0, 4]]
    assert matrix.toarray().tolist() == expected
    assert matrix.T.tocsr().toarray().T.tolist() == expected
    assert (matrix > 0).sum() == 2
    assert matrix.dtype == np.float32


def test_file_is_imported_once_and_leaves_nothing_beside_it(tmp_path):
    path = write_plugin(tmp_path)
    assert load_class(read_model_file(path)) is load_class(read_model_file(path))
    assert sorted(tmp_path.iterdir()) == [path]
    assert "short" not in sys.modules


def test_class_of_a_run_is_that_of_its_file():
    assert class_of(settings_of(plugin("SELFPAIR"))) is load_class(read_model_file(PLUGINS / "selfpair.py"))


# Mistakes


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1\ny = (", "{path}, line 2: not Python: '(' was never closed"),
        ("class Other: pass", "{path}: expected a class with the file's name, short in upper or lower case; it has Other"),
        ("x = 1", "{path}: expected a class with the file's name, short in upper or lower case; it has no class at all"),
        ("class SHORT: pass", "{path}: SHORT is no model: expected a class derived from "
         "common.abstract_recommender.GeneralRecommender"),
        ("import re\nimport no_such.thing\nx = no_such.thing()\nclass SHORT: pass",
         "{path}, line 3: needs 'no_such.thing' of the package 'no_such', which is not installed; pip install no_such"),
        ("from skimage import nothing\nclass SHORT(nothing): pass",
         "{path}, line 2: needs 'skimage.nothing' of the package 'skimage', which is not installed; "
         "pip install scikit-image"),
        ("from utils.utils import magic\nclass SHORT: pass", "{path}, line 1: cannot import name 'magic'"),
        ("from common.magic import x\nclass SHORT: pass", "{path}, line 1: No module named 'common.magic', neither here nor "
         "in the file's own tree"),
        ("1 / 0\nclass SHORT: pass", "{path}, line 1: ZeroDivisionError: division by zero"),
    ],
)  # fmt: skip
def test_file_that_is_no_model_is_told_in_one_line(text, told, own, tmp_path):
    path = tmp_path / "short.py"
    path.write_text(text)
    outcome = run_here("--plugin", path, "-d", "toy", *own, *FEW)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {told.format(path=path)}")
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("loss", "scores", "told"),
    [
        (
            "return undefined",
            "return self.table[interaction[0]]",
            "{path}, line 13: NameError: name 'undefined' is not defined",
        ),
        ("return self.table.sum()", "return None + 1", "{path}, line 16: TypeError: "),
        (
            "return self.table.sum()",
            "return self.table[0]",
            "full_sort_predict: expected scores [40, 55], a row per user",
        ),
        (
            "return self.table",
            "return self.table[interaction[0]]",
            "{path}: expected calculate_loss to return a number with a gradient",
        ),
        (
            "return [self.table.sum()]",
            "return self.table[interaction[0]]",
            "{path}: expected calculate_loss to return a number with a gradient",
        ),
        (
            "return self.table.detach().sum()",
            "return self.table[interaction[0]]",
            "{path}: expected calculate_loss to return a number with a gradient",
        ),
    ],
)
def test_what_a_file_does_wrong_in_a_run_is_told_with_its_line(loss, scores, told, own, tmp_path):
    path = write_plugin(tmp_path, loss=loss, scores=scores)
    outcome = run_here("--plugin", path, "-d", "toy", *own, *FEW)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {told.format(path=path)}")
    assert outcome.err.count("\n") == 1


def test_key_that_nobody_sets_is_none_and_the_error_says_so(own, tmp_path):
    path = Path(shutil.copy(PLUGINS / "graphrank.py", tmp_path))
    outcome = run_here("--plugin", path, "-d", "toy", *own, *FEW)
    assert outcome.code == 2
    assert f"{path}, line " in outcome.err
    named = "no file sets n_layers, lambda, which it reads: set them with --n_layers VALUE --lambda VALUE"
    assert outcome.err.endswith(f"{named}\n")
    assert "warning: GRAPHRANK reads n_layers, lambda, which no file sets, and gets None" in outcome.out
    trained("--plugin", path, "-d", "toy", *own, *FEW, "--n_layers", 1, "--lambda", 0.1)


def test_mistakes_of_the_command_line(own, tmp_path):
    path = write_plugin(tmp_path)
    twin = tmp_path / "twin"
    twin.mkdir()
    words = ("-d", "toy", *own, *FEW)
    cases = {
        ("--plugin", tmp_path / "none.py"): "none.py: cannot be read as a model file (No such file or directory)",
        ("--plugin", path, "--plugin_config", path, path): "expected a file for each --plugin (1), got 2",
        ("--plugin", path, write_plugin(twin)): "are both called SHORT",
        ("--plugin", path, "-m", "SHORTT"): "unknown model 'SHORTT' (did you mean 'SHORT'?)",
        ("--plugin_config", path): "expected a file for each --plugin (0), got 1",
    }
    for given, told in cases.items():
        outcome = run_here(*given, *words)
        assert outcome.code == 2, given
        assert told in outcome.err, given
    (tmp_path / "SHORT.yaml").write_text("use_full_sampling: True\n")
    assert "use_full_sampling: batches of that kind are not offered" in run_here("--plugin", path, *words).err


def test_file_that_changes_while_the_command_runs_is_refused(tmp_path):
    path = write_plugin(tmp_path)
    config = settings_of(plugin("KEEPSLAST"))
    changed = type(config)("SHORT", "demo", config.entries | {"plugin": str(path)}, config.sources)
    assert problems_of(lambda: class_of(changed)) == [f"{path}: the model file has changed since this run began"]


def test_help_shows_the_keys_of_a_file():
    out = trained("--plugin", PLUGINS / "contentgraph.py", "--help").out
    keys = out.partition("keys of CONTENTGRAPH")[2]
    assert re.search(r"--knn_k \S+ +read by contentgraph.py; a value \[3\]", keys)
    assert re.search(r"--layers \S+.*read by contentgraph.py;[^\[]*\[\[8, 4\]\]", keys)
    assert "--epochs" not in keys


# Mistakes of our own stay tracebacks


def test_error_outside_a_plugin_is_not_blamed_on_it(own, tmp_path, monkeypatch):
    path = write_plugin(tmp_path)

    def broken(*_):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("common.trainer.Trainer.restore_best", broken)
    with pytest.raises(ZeroDivisionError, match="ours"):
        run_here("--plugin", path, "-d", "toy", *own, *FEW)
