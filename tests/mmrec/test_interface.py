"""What a foreign file finds: settings, the loader, features by every family's names, hooks; and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cli_tools import places, run_here, trained, write_dataset
from helpers import problems_of
from plugin_tools import begun, built, settings_of, write_plugin
from toys import N_ITEMS, N_USERS, one_batch, toy_dataset, train_loader

from mmrec.config import ForeignConfig
from mmrec.foreign import unset_keys
from mmrec.loader import TrainingData
from mmrec.plugin import load_class, read_model_file

FEW = ("--epochs", "2", "--quiet")


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    """Folders of models go below the test's own."""
    monkeypatch.setattr("mmrec.running.default_cache_path", lambda: tmp_path / "default_cache")


# Settings


def config_for(tmp_path, yaml: str = "", init: str = "pass", **overrides) -> ForeignConfig:
    (tmp_path / "SHORT.yaml").write_text(yaml)
    return ForeignConfig(begun(write_plugin(tmp_path, init=init), **overrides))


def test_get_in_and_defaults(tmp_path):
    config = config_for(tmp_path, "beta: 0.5\nnothing: null\n", "config['gamma']; config.get('delta', 3)")
    assert config["gamma"] is config["delta"] is config["unheard"] is None
    assert (config.get("gamma", 7), config.get("delta", 3), config.get("unheard", "x")) == (7, 3, "x")
    assert (config.get("beta", 9), config["beta"]) == (0.5, 0.5)
    assert [key in config for key in ("beta", "gamma", "delta", "unheard")] == [True, False, False, False]
    assert "nothing" not in config
    assert config.get("nothing", 4) == 4, "so a run's config.yaml, which holds null for what is not set, means the same"
    assert config.get("embedding_size", 1) == config["embedding_size"] == 64
    assert config["n_layers"] is None
    config["gamma"] = 2
    assert config.get("gamma", 7) == 2
    assert "gamma" in config


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("embedding_size", 64), ("train_batch_size", 2048), ("end2end", False), ("is_multimodal_model", True),
        ("use_raw_features", False), ("save_recommended_topk", False), ("inter_splitting_label", "x_label"),
        ("user_graph_dict_file", "user_graph_dict.npy"), ("vision_feature_file", "image_feat.npy"),
        ("text_feature_file", "text_feat.npy"), ("audio_feature_file", "audio_feat.npy"), ("use_neg_sampling", True),
        ("TIME_FIELD", "timestamp"), ("field_separator", "\t"), ("hidden_size", 4), ("dataset", "demo"),
        ("model", "SHORT"), ("valid_metric", "Recall@5"), ("learning_rate", 1e-3), ("filter_out_cod_start_users", True),
    ],
)  # fmt: skip
def test_overall_keys_of_mmrec(key, value, tmp_path):
    config = config_for(tmp_path)
    assert config[key] == value
    assert key in config
    assert config.final_config_dict[key if key in list(config) else "seed"] is not None


def test_values_that_its_repository_has_for_all_models(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "overall.yaml").write_text("width: 5\nsizes: [1, 2]\nlearning_rate: 0.5\nother: 1\n")
    path = write_plugin(tmp_path / "models", init='self.x = config["width"], config["sizes"], config["tau"]')
    assert built(path).x == (5, [1, 2], None)
    assert built(path, width=7).x[0] == 7
    assert unset_keys(settings_of(path), read_model_file(path)) == ("tau",)
    assert settings_of(path)["learning_rate"] == 1e-3, "the harness's keys are the harness's"
    assert "other" not in settings_of(path)


def test_unset_keys_are_those_without_anything_in_their_place(tmp_path):
    init = """self.a, self.b = config["a_key"], config.get("b_key")
        self.c, self.d = config.get("c_key", 1), config["d_key"] or 2
        if "e_key" in config:
            self.e = config["e_key"]
        config["f_key"] = 3
        self.f, self.g, self.h = config["f_key"], config["embedding_size"], self.config["h_key"] if False else 0"""
    path = write_plugin(tmp_path, init=init)
    file = read_model_file(path)
    assert set(file.reads) == {"a_key", "b_key", "c_key", "d_key", "e_key", "f_key", "embedding_size", "h_key"}
    assert unset_keys(settings_of(path), file) == ("a_key", "b_key", "h_key")
    assert unset_keys(settings_of(path, a_key=1, h_key=0), file) == ("b_key",)


def test_unset_keys_are_named_before_building_and_with_what_fails(tmp_path):
    write_dataset(tmp_path / "data" / "toy")
    path = write_plugin(tmp_path, init='self.x = torch.nn.Linear(3, config["width"]); self.y = config["tau"]')
    outcome = run_here("--plugin", path, "-d", "toy", *places(tmp_path), *FEW)
    assert outcome.code == 2
    assert (
        "warning: SHORT reads width, tau, which no file sets, and gets None: set them with --width VALUE" in outcome.out
    )
    assert outcome.err.endswith("no file sets width, tau, which it reads: set them with --width VALUE --tau VALUE\n")
    trained("--plugin", path, "-d", "toy", *places(tmp_path), *FEW, "--width", 4)


# The loader


def test_loader_gives_the_batches_of_training_and_a_fresh_epoch_each_time(tmp_path):
    data = toy_dataset()
    loader = TrainingData(ForeignConfig(begun(write_plugin(tmp_path), data, train_batch_size=64)), data)
    first, second = [torch.cat(list(loader), dim=1) for _ in range(2)]
    assert first.shape == (3, len(data.train))
    pairs = sorted(zip(data.train.users.tolist(), data.train.items.tolist(), strict=True))
    for epoch in (first, second):
        assert sorted(zip(*epoch[:2].tolist(), strict=True)) == pairs
        assert not set(zip(epoch[0].tolist(), epoch[2].tolist(), strict=True)) & set(pairs)
    assert not torch.equal(first, second)
    assert len(loader) == len(list(loader))
    assert len(loader.dataset) == loader.dataset.inter_num == len(data.train)
    theirs = torch.cat(list(train_loader(data, 64, settings_of(write_plugin(tmp_path))["seed"]).epoch()), dim=1)
    assert not torch.equal(first, theirs), "the trainer's own stream is left alone"


def test_facts_of_the_loader(tmp_path):
    data = toy_dataset()
    loader = TrainingData(ForeignConfig(begun(write_plugin(tmp_path), data)), data)
    users, items = data.train.users, data.train.items
    assert loader.sparsity == 1 - len(users) / (N_USERS * N_ITEMS)
    assert loader.all_item_len == len(set(items.tolist()))
    assert loader.history_users_per_i == {i: set(users[items == i].tolist()) for i in set(items.tolist())}
    assert loader.dataset.inter_matrix("csr").nnz == len(users)
    assert loader.dataset[0]["userID"] == users[0]
    assert loader.dataset.dataset_path.endswith("/demo") or loader.dataset.dataset_path.endswith("/toy")


# Features


def test_features_under_every_name(tmp_path):
    names = ("v_feat", "t_feat", "a_feat", "visual_feat", "textual_feat", "audio_feat")
    init = "self.found = [" + ", ".join(f"self.{name}" for name in names) + "]"
    data = toy_dataset(("visual", "textual", "acoustic"))
    model = built(write_plugin(tmp_path, init=init), data)
    for matrix, modality in zip(model.found, ("visual", "textual", "acoustic") * 2, strict=True):
        np.testing.assert_array_equal(matrix.numpy(), data.features[modality])


def test_absent_features_are_none_or_not_there_by_family(tmp_path):
    init = "self.found = self.a_feat, hasattr(self, 'audio_feat'), hasattr(self, 'visual_feat')"
    assert built(write_plugin(tmp_path, init=init)).found == (None, False, True)


def test_other_names_and_all_together(tmp_path):
    data = toy_dataset(("visual", "textual"))
    data.features["keyframe"] = np.ones((N_ITEMS, 2), dtype=np.float32)
    model = built(write_plugin(tmp_path, init="self.found = self.keyframe_feat, self.item_feat"), data)
    np.testing.assert_array_equal(model.found[0].numpy(), data.features["keyframe"])
    np.testing.assert_array_equal(model.found[1].numpy(), np.concatenate(list(data.features.values()), axis=1))
    data.features["item"] = np.full((N_ITEMS, 3), 2, dtype=np.float32)
    model = built(write_plugin(tmp_path, init="self.found = self.item_feat"), data)
    assert model.found.shape == (N_ITEMS, 3)


@pytest.mark.parametrize(
    ("init", "needed"),
    [
        ("self.x = self.v_feat", True),
        ("self.x = self.audio_feat", True),
        ("self.x = getattr(self, 'visual_feat', None)", True),
        ("self.x = self.item_feat", True),
        ("self.x = [getattr(self, f'{m}_feat') for m in ()]", True),
        ("self.x = self.cover_feat", True),
        ("item_feat = 3; self.x = item_feat", False),
        ("pass", False),
    ],
)
def test_file_that_mentions_features_needs_them(init, needed, tmp_path):
    assert read_model_file(write_plugin(tmp_path, init=init)).needs_features is needed


def test_own_name_for_something_else_is_let_be(tmp_path):
    init = "self.item_feat = torch.nn.Linear(2, 2); self.v_feat = torch.nn.Parameter(torch.ones(2))"
    model = built(write_plugin(tmp_path, init=init))
    assert isinstance(model.item_feat, torch.nn.Linear)
    assert dict(model.named_parameters())["v_feat"].tolist() == [1, 1]


def test_missing_features_are_named(tmp_path):
    write_dataset(tmp_path / "data" / "toy")
    path = write_plugin(tmp_path, init="self.x = self.audio_feat.shape")
    outcome = run_here("--plugin", path, "-d", "toy", *places(tmp_path), *FEW)
    assert "the data set has no acoustic features; see --modalities" in outcome.err


# Hooks


def test_epoch_number_goes_to_whoever_asks(tmp_path):
    tail = """
    def pre_epoch_processing(self, epoch_idx):
        self.seen = [*getattr(self, "seen", []), ("pre", epoch_idx)]

    def post_epoch_processing(self, epoch):
        self.seen = [*self.seen, ("post", epoch)]
"""
    model = built(write_plugin(tmp_path, tail=tail))
    for _ in range(2):
        model.pre_epoch_processing()
        model.post_epoch_processing()
    assert model.seen == [("pre", 0), ("post", 0), ("pre", 1), ("post", 1)]
    other = built(write_plugin(tmp_path, tail=tail))
    other.load_state_dict(model.state_dict())
    other.pre_epoch_processing()
    assert other.seen[-1] == ("pre", 2), "after --resume too"


def test_epoch_number_for_a_loss_without_hooks(tmp_path):
    path = write_plugin(tmp_path)
    text = path.read_text().replace("calculate_loss(self, interaction)", "calculate_loss(self, interaction, epoch)")
    path.write_text(text.replace(".mean()", ".mean() ** 2 * epoch"))
    model = built(path)
    losses = []
    for _ in range(3):
        model.pre_epoch_processing()
        losses.append(float(model.calculate_loss(one_batch(toy_dataset())).detach()))
    assert losses[0] == 0 < losses[1] < losses[2]


def test_hooks_without_arguments_still_work_and_super_counts_once(tmp_path):
    tail = """
    def pre_epoch_processing(self, epoch_idx):
        super().pre_epoch_processing()
        self.seen = epoch_idx
"""
    model = built(write_plugin(tmp_path, tail=tail))
    model.pre_epoch_processing()
    model.pre_epoch_processing()
    assert (model.seen, model.epochs_begun) == (1, 2)


def test_loss_with_plain_numbers_among_its_terms(tmp_path):
    model = built(write_plugin(tmp_path, loss="return self.table.sum(), 0.0, 2"))
    terms = model.calculate_loss(one_batch(toy_dataset()))
    assert [type(term) for term in terms] == [torch.Tensor] * 3
    assert [term.item() for term in terms[1:]] == [0, 2]


# What is refused


REFUSED = {
    "further arguments of __init__": (
        {"more": ", trainer, n_items"},
        "SHORT.__init__ needs further arguments (trainer, n_items) than config and dataset",
    ),
    "stub": ({"loss": "raise NotImplementedError"}, "SHORT was published with stubs: calculate_loss without code"),
    "stubs": ({"loss": "...", "scores": "pass"}, "published with stubs: calculate_loss, full_sort_predict without code"),
    "further arguments of the loss": (
        {"tail": "\n    calculate_loss = lambda self, interaction, discriminator: 0\n"},
        "SHORT.calculate_loss needs further arguments (discriminator): it is called by a trainer of its own",
    ),
    "sequences": ({"init": "self.x = self.ITEM_SEQ"}, "SHORT is a sequential model: batches with histories are not offered"),
    "full sampling": ({"init": "raise KeyError"}, "KeyError"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_refusal_says_which_it_is_in_one_line(kind, tmp_path):
    parts, told = REFUSED[kind]
    outcome = run_here("--plugin", write_plugin(tmp_path, **parts), "-d", "demo")
    assert outcome.code == 2
    assert told in outcome.err
    assert outcome.err.count("\n") == 1


def test_stub_of_a_loss_is_let_be_where_nothing_trains(tmp_path):
    path = write_plugin(tmp_path, loss="pass")
    (tmp_path / "SHORT.yaml").write_text("req_training: False\n")
    built(path)


def test_sequential_base(tmp_path):
    path = write_plugin(tmp_path)
    path.write_text(path.read_text().replace("GeneralRecommender", "SequentialRecommender"))
    (told,) = problems_of(lambda: load_class(read_model_file(path)))
    assert "is a sequential model" in told


def test_class_without_what_training_calls(tmp_path):
    path = tmp_path / "short.py"
    path.write_text(
        "from common.abstract_recommender import GeneralRecommender\nclass SHORT(GeneralRecommender): pass\n"
    )
    (told,) = problems_of(lambda: load_class(read_model_file(path)))
    assert "SHORT has no calculate_loss" in told


def test_classes_of_other_names_are_told_and_one_can_be_picked(tmp_path):
    write_dataset(tmp_path / "data" / "toy")
    path = write_plugin(
        tmp_path, "ONE", tail="\nclass TWO(ONE):\n    pass\n\nclass Layer(torch.nn.Module):\n    pass\n"
    )
    other = path.rename(tmp_path / "other.py")
    words = ("-d", "toy", *places(tmp_path), *FEW)
    refused = run_here("--plugin", other, *words)
    assert refused.code == 2
    assert refused.err == (
        f"error: {other}: expected a class with the file's name, other in upper or lower case; it has ONE; "
        f"--plugin {other}:ONE picks one\n"
    )
    assert "there is no class THREE; it has ONE" in run_here("--plugin", f"{other}:THREE", *words).err
    (folder,) = trained("--plugin", f"{other}:TWO", *words).folders
    assert folder.parent.name == "TWO"
    assert trained("recommend", folder, "--users", 0).out.startswith("user 0: ")
    assert "finished before" in trained("--plugin", f"{other}:TWO", *words, "--resume").out


def test_attribute_that_the_tree_s_trainer_sets_is_told(tmp_path):
    write_dataset(tmp_path / "data" / "toy")
    path = write_plugin(
        tmp_path / "models", loss="return self.estimator(self.table)", tail="\n    def mine(self):\n        pass\n"
    )
    (tmp_path / "common").mkdir()
    text = "class Trainer:\n    def fit(self):\n        self.model.estimator = 3\n        self.model.mine()\n"
    (tmp_path / "common" / "trainer.py").write_text(text)
    outcome = run_here("--plugin", path, "-d", "toy", *places(tmp_path), *FEW)
    assert "(its own trainer, common/trainer.py, line 3, sets it: the model needs that trainer" in outcome.err
    assert "warning: SHORT: the trainer of its own tree also uses mine; the one here does not" in outcome.out


def test_batches_with_more_rows_are_told(tmp_path):
    write_dataset(tmp_path / "data" / "toy")
    path = write_plugin(tmp_path, loss="return self.table[interaction[3]].mean()")
    outcome = run_here("--plugin", path, "-d", "toy", *places(tmp_path), *FEW)
    assert "a batch has rows of users, positives and negatives" in outcome.err
