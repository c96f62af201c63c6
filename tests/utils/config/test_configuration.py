"""From YAML files and words to checked settings: precedence, mistakes, aliases of MMRec, grids, reading back."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers import TOY_VALUES, ToyKeys, problems_of, toy_config

from utils.config.configuration import Config
from utils.config.layers import config_from_values
from utils.config.request import Request, known_datasets, resolve
from utils.config.schema import setting
from utils.config.yaml_files import parse_yaml, read_yaml
from utils.errors import UserError
from utils.paths import CONFIGS

MODEL_FILE = "embedding_size: 8\nn_ui_layers: 2\nreg_weight: 0.1\n"


@dataclass(frozen=True)
class OtherKeys:
    """Keys of a second model: one of its own, one shared with Toy."""

    embedding_size: int = setting("width of the embeddings", low=1)
    heads: int = setting("number of heads", low=1, default=2)


class Project:
    """Configuration files and a data folder of its own, with data set `toy` and models `Toy` and `Other`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "data"
        self.configs = folder / "configs"
        for part in (self.configs / "dataset", self.configs / "model", self.data):
            part.mkdir(parents=True)
        shutil.copy(CONFIGS / "overall.yaml", self.configs)
        self.write("configs/dataset/toy.yaml", "")
        self.write("configs/model/Toy.yaml", MODEL_FILE)
        self.write("configs/model/Other.yaml", "embedding_size: 4\n")

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def append(self, name: str, text: str) -> None:
        self.write(name, (self.folder / name).read_text() + text)

    def runs(
        self,
        text: str | None = None,
        *,
        models: Sequence[str] = ("Toy",),
        datasets: Sequence[str] = ("toy",),
        files: Sequence[Path] = (),
        grid: bool = False,
        first: bool = False,
        **words: Any,
    ) -> tuple[list[Config], list[str]]:
        """Resolves a request; `text` is a --config file, a tuple among `words` stands for several values."""
        if text is not None:
            files = [*files, self.write("mine.yaml", text)]
        overrides = {name: list(word) if isinstance(word, tuple) else [word] for name, word in words.items()}
        request = Request(list(models), list(datasets), overrides, list(files), grid, first)
        return resolve(request, {"Toy": ToyKeys, "Other": OtherKeys})

    def one(self, text: str | None = None, **words: Any) -> Config:
        (config,), _ = self.runs(text, **words)
        return config

    def problems(self, text: str | None = None, **words: Any) -> list[str]:
        mine = str(self.folder / "mine.yaml")
        return [line.replace(mine, "mine.yaml") for line in problems_of(lambda: self.runs(text, **words))]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = Project(tmp_path)
    monkeypatch.setattr("utils.config.request.CONFIGS", made.configs)
    monkeypatch.setenv("MMR_DATA_PATH", str(made.data))
    return made


# YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("-1E+4", -1e4),
        ("1.e5", 1e5),
        (".5e-1", 0.05),
        ("1e5", 1e5),
        ("0.1", 0.1),
        ("10", 10),
        ("'1e5'", "1e5"),
        ("e5", "e5"),
        ("1e", "1e"),
        ("cuda:1", "cuda:1"),
        ("[1e-4, 2]", [1e-4, 2]),
        ("null", None),
        ("true", True),
    ],
)
def test_yaml_reads_numbers_with_an_exponent_as_numbers(text, value):
    got = parse_yaml(text, "x")
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml, line 1: not valid YAML: key 'a' stands twice"),
        ("b:\n  a: 1\n  a: 1\n", "f.yaml, line 2: not valid YAML: key 'a' stands twice"),
        ("a: [1\n", "f.yaml, line 2: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("- a\n", "f.yaml: expected keys and values ('key: value'), got list"),
        ("word", "f.yaml: expected keys and values ('key: value'), got str"),
        ("1: 2", "f.yaml: expected keys and values ('key: value'), got dict"),
        ("a: 2020-99-99", "f.yaml: not valid YAML: month must be in 1..12"),
        ("a: !!python/object/apply:os.getcwd []", None),
        (b"\xff\xfe", "f.yaml: cannot be read (not UTF-8 text)"),
    ],
)
def test_file_that_is_no_mapping_is_refused_with_its_line(tmp_path, text, line):
    path = tmp_path / "f.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    (problem,) = problems_of(lambda: read_yaml(path, "f.yaml"))
    if line is None:
        assert problem.startswith("f.yaml, line 1: not valid YAML: could not determine a constructor")
    else:
        assert problem == line


def test_missing_file_is_named_and_an_empty_one_is_empty(tmp_path):
    assert problems_of(lambda: read_yaml(tmp_path / "no.yaml", "no.yaml")) == [
        "no.yaml: cannot be read (No such file or directory)"
    ]
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "empty.yaml", "x") == {}


# Precedence and provenance


def test_each_layer_wins_over_those_before_and_is_named_as_the_source(project):
    first, second = project.folder / "first.yaml", project.folder / "second.yaml"
    layers = [
        ("configs/overall.yaml", "overall.yaml"),
        ("configs/dataset/toy.yaml", "dataset/toy.yaml"),
        ("data/toy/dataset.yaml", str(project.data / "toy" / "dataset.yaml")),
        ("configs/model/Toy.yaml", "model/Toy.yaml"),
        ("first.yaml", str(first)),
        ("second.yaml", str(second)),
    ]
    first.write_text("")
    second.write_text("")
    for number, (path, source) in enumerate(layers, 1):
        if number == 1:
            config = project.one(files=[first, second])
            assert (config["epochs"], config.sources["epochs"]) == (1000, source)
            continue
        text = (project.folder / path).read_text() if (project.folder / path).exists() else ""
        project.write(path, f"{text}epochs: {number}\n")
        config = project.one(files=[first, second])
        assert (config["epochs"], config.sources["epochs"]) == (number, source)
    config = project.one(files=[first, second], epochs=7)
    assert (config["epochs"], config.sources["epochs"]) == (7, "command line")


def test_a_layer_leaves_what_it_does_not_name(project):
    project.write("configs/dataset/toy.yaml", "eval_step: 3\nepochs: 4\n")
    config = project.one("epochs: 5")
    assert (config["eval_step"], config["epochs"], config["stopping_step"]) == (3, 5, 20)
    assert config.sources["eval_step"] == "dataset/toy.yaml"
    assert config.sources["stopping_step"] == "overall.yaml"


def test_default_of_the_model_is_used_and_named(project):
    config = project.one()
    assert (config["dropout"], config.sources["dropout"]) == (0.5, "default")
    assert project.one("dropout: 0.25")["dropout"] == 0.25


def test_data_folder_is_looked_up_in_the_same_order(project, monkeypatch):
    def found(**words: Any) -> tuple[str, str]:
        config = project.one(**words)
        return config["data_path"], config.sources["data_path"]

    assert found() == (str(project.data), "default")
    monkeypatch.setenv("MMR_DATA_PATH", "/elsewhere")
    assert found() == ("/elsewhere", "default")
    text = (project.configs / "overall.yaml").read_text()
    project.write("configs/overall.yaml", text.replace("data_path: null", "data_path: /overall"))
    assert found() == ("/overall", "overall.yaml")
    mine = project.write("mine.yaml", "data_path: /mine")
    assert found(files=[mine]) == ("/mine", str(mine))
    later = project.write("later.yaml", "data_path: /later")
    assert found(files=[mine, later]) == ("/later", str(later))
    assert found(files=[mine, later], data_path="/given") == ("/given", "command line")


def test_several_data_folders_are_refused(project):
    assert project.problems(data_path=("a", "b")) == ["data_path: expected one folder, got ['a', 'b']"]


def test_data_set_is_known_by_its_yaml_or_its_folder(project):
    (project.data / "mine").mkdir()
    (project.data / "mine" / "mine.inter").touch()
    (project.data / "yours").mkdir()
    (project.data / "yours" / "dataset.yaml").touch()
    (project.data / "neither").mkdir()
    assert known_datasets(project.data) == ["mine", "toy", "yours"]
    assert project.one(datasets=["mine"]).dataset == "mine"


def test_key_that_no_file_sets_is_named(project):
    project.write("configs/model/Toy.yaml", "embedding_size: 8\nreg_weight: 1\n")
    assert project.problems() == ["no file sets 'n_ui_layers' (depth of the propagation)"]


# Mistakes


def test_all_mistakes_are_told_at_once_with_the_nearest_key(project):
    project.append("configs/overall.yaml", "eval_stp: 1\n")
    project.write("configs/dataset/toy.yaml", "data_checks: maybe\n")
    project.append("configs/model/Toy.yaml", "n_layer: 2\n")
    problems = project.problems("epochs: 0\nlearning_rate: 1e\nqqq: 1", reg_wait=1, seed=1.5)
    assert sorted(problems) == sorted(
        [
            "overall.yaml: unknown key 'eval_stp' (did you mean 'eval_step'?)",
            "model/Toy.yaml: unknown key 'n_layer' (did you mean 'n_layers'?)",
            "mine.yaml: unknown key 'qqq'",
            "dataset/toy.yaml: data_checks: expected a word out of warn, error, got 'maybe'",
            "mine.yaml: epochs: expected an integer of at least 1, got 0",
            "mine.yaml: learning_rate: expected a number above 0, got '1e'",
            "command line: seed: expected an integer from 0 to 4294967295, got 1.5",
            "command line: unknown key '--reg_wait' (did you mean 'reg_weight'?)",
        ]
    )


def test_unknown_data_set_is_told_with_those_there_are(project):
    (problem,) = [line for line in project.problems(datasets=["toi"]) if "data set" in line]
    assert problem.startswith("unknown data set 'toi' (did you mean 'toy'?); there are toy, ")


def test_a_mistake_that_two_models_share_is_told_once(project):
    assert project.problems("epochs: 0", models=["Toy", "Other"]) == [
        "mine.yaml: epochs: expected an integer of at least 1, got 0"
    ]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("learning_rate_scheduler: [0.96]", "learning_rate_scheduler: expected two numbers [g, s], got [0.96]"),
        ("valid_metric: Recall@7", "valid_metric: expected one of metrics x topk (recall@5, "),
        ("clip_grad_norm: {norm_type: 2}", "clip_grad_norm: expected a number or {max_norm: a, norm_type: p}"),
        ("clip_grad_norm: {max_norm: 1, norm: 2}", "clip_grad_norm: expected a number or {max_norm: a, norm_type: p}"),
        ("device: gpu", "device: expected auto, cpu, cuda or cuda:N, got 'gpu'"),
        ("field_separator: ', '", "field_separator: expected one character, got ', '"),
    ],
)
def test_keys_that_contradict_each_other_are_told(project, text, start):
    (problem,) = project.problems(text)
    assert problem.startswith(start)


# MMRec


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("n_layers: 3", "n_ui_layers", 3),
        ("USER_ID_FIELD: uid", "user_id_field", "uid"),
        ("ITEM_ID_FIELD: iid", "item_id_field", "iid"),
        ("inter_splitting_label: split", "split_field", "split"),
        ("filter_out_cod_start_users: false", "filter_out_cold_start_users", False),
        ("checkpoint_dir: saved", "output_dir", "saved"),
        ("save_recommended_topk: true", "save_topk", True),
        ("clip_grad_norm: {'max_norm': 5, 'norm_type': 2}", "clip_grad_norm", {"max_norm": 5.0, "norm_type": 2.0}),
        ("vision_feature_file: v.npy", "modalities", {"visual": "v.npy"}),
        ("text_feature_file: t.npy", "modalities", {"textual": "t.npy"}),
        (
            "vision_feature_file: v.npy\ntext_feature_file: t.npy",
            "modalities",
            {"visual": "v.npy", "textual": "t.npy"},
        ),
        ("metrics: ['Recall', 'NDCG', 'Precision', 'MAP']", "metrics", ["recall", "ndcg", "precision", "map"]),
        ("learner: Adam", "learner", "adam"),
        ("weight_decay: 1e-4", "weight_decay", 1e-4),
    ],
)
def test_key_of_mmrec_means_ours(project, text, key, value):
    config = project.one(text)
    assert config[key] == value
    assert config.sources[key] == str(project.folder / "mine.yaml")


def test_alias_works_on_the_command_line_in_a_grid_and_for_reading(project):
    assert [config["n_layers"] for config in project.runs(n_layers=(1, 3))[0]] == [1, 3]
    assert [c["n_ui_layers"] for c in project.runs("hyper_parameters: [n_layers]\nn_layers: [0, 4]")[0]] == [0, 4]
    assert [c["n_ui_layers"] for c in project.runs("grid: {n_layers: [5, 6]}", grid=True)[0]] == [5, 6]
    assert project.one(vision_feature_file="v.npy")["modalities"] == {"visual": "v.npy"}


def test_feature_file_of_mmrec_changes_its_own_modality_only(project):
    project.write("configs/dataset/toy.yaml", "modalities: {visual: a.npy, acoustic: b.npy}\n")
    assert project.one("vision_feature_file: c.npy")["modalities"] == {"visual": "c.npy", "acoustic": "b.npy"}


def test_overall_and_model_file_of_mmrec_are_read_whole(project):
    config, notes = project.runs(
        """
        gpu_id: 0
        use_gpu: True
        seed: [999]
        data_path: '../data/'
        inter_splitting_label: 'x_label'
        filter_out_cod_start_users: True
        is_multimodal_model: True
        checkpoint_dir: 'saved'
        save_recommended_topk: True
        recommend_topk: 'recommend_topk/'
        embedding_size: 64
        weight_decay: 0.0
        req_training: True
        epochs: 1000
        stopping_step: 20
        train_batch_size: 2048
        learner: adam
        learning_rate: 0.001
        learning_rate_scheduler: [1.0, 50]
        eval_step: 1
        training_neg_sample_num: 1
        use_neg_sampling: True
        use_full_sampling: False
        NEG_PREFIX: neg__
        USER_ID_FIELD: userID
        ITEM_ID_FIELD: itemID
        TIME_FIELD: timestamp
        field_separator: "\\t"
        metrics: ["Recall", "NDCG", "Precision", "MAP"]
        topk: [5, 10, 20, 50]
        valid_metric: Recall@20
        eval_batch_size: 4096
        use_raw_features: False
        max_txt_len: 32
        max_img_size: 256
        vocab_size: 30522
        type_vocab_size: 2
        hidden_size: 4
        pad_token_id: 0
        max_position_embeddings: 512
        layer_norm_eps: 1e-12
        hidden_dropout_prob: 0.1
        end2end: False
        n_layers: [1, 2]
        hyper_parameters: ["n_layers", "seed"]
        """
    )
    assert [(run["n_ui_layers"], run["seed"], run["embedding_size"]) for run in config] == [(1, 999, 64), (2, 999, 64)]
    assert {run["device"] for run in config} == {"cuda:0"}
    (note,) = notes
    assert "mine.yaml: keys of MMRec that change nothing here: is_multimodal_model, recommend_topk," in note


@pytest.mark.parametrize(("given", "device"), [({"gpu_id": 1}, "cuda:1"), ({"use_gpu": False, "gpu_id": 0}, "cpu")])
def test_the_device_of_mmrec_is_ours(project, given, device):
    assert project.one(**given)["device"] == device


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"gpu_id": "x"}, "gpu_id: expected the number of one CUDA device, got 'x'"),
        ({"end2end": False}, "end2end is a key of MMRec that is not offered here (training of raw texts and images"),
        ("end2end: True", "mine.yaml: end2end is a key of MMRec that is not offered here"),
        ({"valid_metric": ["Recall@20", "NDCG@20"]}, "a weighted sum is one: --valid_metric '0.5*Recall@20 + 0.5*NDCG@20'"),
        ({"valid_metric": "0.5*Recall@20 + MRR@20"}, "or a weighted sum of them as '0.5*Recall@20 + 0.5*NDCG@20', got"),
        ({"valid_metric": "Recall@20 + Recall@20"}, "valid_metric: expected one of metrics x topk"),
    ],
)  # fmt: skip
def test_what_is_not_offered_is_refused_in_a_line(project, given, says):
    (problem,) = project.problems(given) if isinstance(given, str) else project.problems(**given)
    assert says in problem


# Grids


def test_grid_runs_in_product_order_with_the_first_name_slowest(project):
    text = "hyper_parameters: [reg_weight, seed, n_ui_layers]\nseed: [3, 1]\nreg_weight: [0.5, 1e-4, 2]\n"
    configs, _ = project.runs(text)
    assert [(c["reg_weight"], c["seed"]) for c in configs] == list(itertools.product([0.5, 1e-4, 2.0], [3, 1]))
    assert {c["n_ui_layers"] for c in configs} == {2}, "one value is a list of one"
    assert {c.axes for c in configs} == {("reg_weight", "seed")}
    mine = f"{project.folder / 'mine.yaml'}, grid"
    assert {c.sources["seed"] for c in configs} == {c.sources["reg_weight"] for c in configs} == {mine}
    assert {c.sources["epochs"] for c in configs} == {"overall.yaml"}


def test_names_of_several_files_add_up_and_a_repeated_one_counts_once(project):
    project.append("configs/model/Toy.yaml", "hyper_parameters: [n_ui_layers, seed]\n")
    configs, _ = project.runs(
        "hyper_parameters: [seed, reg_weight]\nn_ui_layers: [1, 2]\nreg_weight: [3, 4]\nseed: [5]"
    )
    expected = list(itertools.product([1, 2], [5], [3.0, 4.0]))
    assert [(c["n_ui_layers"], c["seed"], c["reg_weight"]) for c in configs] == expected


def test_list_of_a_key_that_no_file_names_is_an_error(project):
    assert project.problems("seed: [1, 2]") == ["mine.yaml: seed: expected an integer from 0 to 4294967295, got [1, 2]"]
    assert project.one("topk: [7, 20]")["topk"] == [7, 20]


def test_named_key_without_a_value_has_its_default(project):
    config = project.one("hyper_parameters: [dropout]")
    assert (config["dropout"], config.axes) == (0.5, ())


def test_value_that_is_a_list_is_searched_as_a_list_of_lists(project):
    text = "hyper_parameters: [learning_rate_scheduler]\nlearning_rate_scheduler: [[0.96, 50], [1.0, 50]]"
    configs, _ = project.runs(text)
    assert [c["learning_rate_scheduler"] for c in configs] == [[0.96, 50.0], [1.0, 50.0]]
    assert project.one(text, learning_rate_scheduler=(0.5, 10))["learning_rate_scheduler"] == [0.5, 10.0]


def test_published_grid_is_run_only_on_demand(project):
    project.append("configs/model/Toy.yaml", "grid:\n  n_ui_layers: [1, 3]\n  reg_weight: [1e-3, 1e-4]\n")
    assert project.one()["n_ui_layers"] == 2
    configs, _ = project.runs(grid=True)
    expected = list(itertools.product([1, 3], [1e-3, 1e-4]))
    assert [(c["n_ui_layers"], c["reg_weight"]) for c in configs] == expected
    assert configs[0].sources["n_ui_layers"] == "model/Toy.yaml, grid"
    assert configs[0].axes == ("n_ui_layers", "reg_weight")


def test_command_line_takes_a_key_out_of_the_grid(project):
    project.append("configs/model/Toy.yaml", "grid: {n_ui_layers: [1, 3], reg_weight: [5, 6]}\n")
    configs, _ = project.runs(grid=True, reg_weight=7)
    assert [(c["n_ui_layers"], c["reg_weight"]) for c in configs] == [(1, 7.0), (3, 7.0)]
    assert configs[0].axes == ("n_ui_layers",)
    configs, _ = project.runs(grid=True, reg_weight=7, seed=(1, 2))
    expected = [(1, 1), (1, 2), (3, 1), (3, 2)]
    assert [(c["n_ui_layers"], c["seed"]) for c in configs] == expected, "what a file searches varies slowest"
    configs, _ = project.runs("hyper_parameters: [seed]\nseed: [1, 2]", seed=3)
    assert [c["seed"] for c in configs] == [3]


def test_several_values_on_the_command_line_are_a_grid(project):
    configs, _ = project.runs(seed=(1, 2), reg_weight=(0.5, 0.25))
    assert [(c["seed"], c["reg_weight"]) for c in configs] == [(1, 0.5), (1, 0.25), (2, 0.5), (2, 0.25)]
    assert configs[0].sources["seed"] == "command line, grid"
    assert [c["seed"] for c in project.runs(seed=[1, 2])[0]] == [1, 2], "one word that is a list"
    assert project.one(topk=(7, 20))["topk"] == [7, 20], "several values of a list are one list"
    configs, _ = project.runs(topk=([20], [20, 5]), hyper_parameters="topk")
    assert [c["topk"] for c in configs] == [[20], [20, 5]]


def test_first_combination_is_the_first_of_the_product(project):
    project.append("configs/model/Toy.yaml", "grid: {n_ui_layers: [3, 1]}\n")
    configs, _ = project.runs(grid=True, first=True, seed=(8, 9), models=["Toy", "Other"])
    assert [(c.model, c["n_ui_layers"], c["seed"]) for c in configs] == [("Toy", 3, 8), ("Other", None, 8)]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("hyper_parameters: [seed]\nseed: [1, 1]", "mine.yaml: seed lists 1 twice"),
        ("hyper_parameters: [seed]\nseed: []", "mine.yaml: seed: expected a list of values, got []"),
        ("hyper_parameters: [regweight]", "mine.yaml: hyper_parameters: unknown key 'regweight'"),
        ("grid: [seed]", "mine.yaml: grid: expected keys with lists of values, got ['seed']"),
        ("grid: {seed: 3}", "mine.yaml: grid: seed: expected a list of values, got 3"),
        ("grid: {seed: []}", "mine.yaml: grid: seed: expected a list of values, got []"),
        ("grid: {sead: [3]}", "mine.yaml: grid: unknown key 'sead' (did you mean 'seed'?)"),
        ("grid: {epochs: [1, 0]}", "mine.yaml: epochs: expected an integer of at least 1, got 0"),
        ("hyper_parameters: [save_topk]\nsave_topk: [true, false]", "mine.yaml: save_topk: expected one value, got 2"),
    ],
)
def test_mistake_in_a_grid_is_told(project, text, problem):
    (line,) = project.problems(text, grid=True)
    assert line.startswith(problem)


def test_each_bad_value_of_a_grid_is_told(project):
    expected = "command line: seed: expected an integer from 0 to 4294967295, got "
    assert project.problems(seed=("x", 1, "y")) == [f"{expected}'x'", f"{expected}'y'"]


# Several models


def test_key_of_one_of_the_models_is_taken_by_that_one(project):
    configs, _ = project.runs(models=["Toy", "Other"], heads=(3, 4), embedding_size=6)
    assert [(c.model, c["heads"], c["embedding_size"]) for c in configs] == [
        ("Toy", None, 6),
        ("Other", 3, 6),
        ("Other", 4, 6),
    ]
    assert project.problems(models=["Toy"], heads=3) == [
        "command line: unknown key '--heads' (did you mean 'threads'?)"
    ]
    assert project.problems(models=["Toy", "Other"], hedas=3) == [
        "command line: unknown key '--hedas' (did you mean 'heads'?)"
    ]


def test_models_vary_faster_than_data_sets(project):
    project.write("configs/dataset/next.yaml", "")
    configs, _ = project.runs(models=["Other", "Toy"], datasets=["toy", "next"])
    expected = [("toy", "Other"), ("toy", "Toy"), ("next", "Other"), ("next", "Toy")]
    assert [(c.dataset, c.model) for c in configs] == expected


# The result


def test_config_gives_none_for_what_is_not_set(project):
    config = project.one()
    assert config["missing"] is None
    assert config.get("missing", 3) == 3
    assert "missing" not in config
    assert "model" in config
    assert "missing" not in config
    assert (config["model"], config["dataset"]) == ("Toy", "toy")
    assert "n_layers" in config
    assert "reg_weight" in config
    assert len(config) == len(list(config)) == len(config.entries)
    with pytest.raises(TypeError):
        config["seed"] = 1  # type: ignore[index]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "output_dir: '1e5'",
        "output_dir: 'no'",
        "output_dir: 'a: #b'",
        "output_dir: 'null'",
        'output_dir: "two\\nlines"',
        "output_dir: Ünïcode",
        "output_dir: '{x}'",
        'output_dir: "it\'s"',
        "field_separator: ','",
        "reg_weight: 1e-20",
        "reg_weight: 0.1234567890123456789",
        "synthetic: {feature_dims: {visual: 4, textual: 2}, seed: 3}",
        "modalities: {visual: image_feat.npy, textual: text_feat.npy}",
        "clip_grad_norm: {max_norm: 5}",
        "group_by: [user_activity, signal]",
        "expected: {users: 3}",
        "threads: 2\nsave_topk: true\nseed: 4294967295",
    ],
)
def test_written_settings_read_back_to_the_same_values(project, text):
    config = project.one(text)
    written = config.to_yaml()
    content = read_yaml(project.write("config.yaml", written), "config.yaml")
    assert (content.pop("model"), content.pop("dataset")) == ("Toy", "toy")
    again = config_from_values("Toy", ToyKeys, "toy", content, "config.yaml")
    assert again.entries == config.entries
    assert list(again.entries) == list(config.entries)
    types = {name: type(value) for name, value in config.entries.items()}
    assert {name: type(value) for name, value in again.entries.items()} == types
    assert again.sources["epochs"] == "config.yaml"


def test_written_settings_name_where_each_came_from(project):
    lines = project.one("epochs: 3", seed=(7,)).to_yaml().splitlines()
    assert lines[:2] == ["model: Toy", "dataset: toy"]
    assert f"epochs: 3  # {project.folder / 'mine.yaml'}" in lines
    assert "seed: 7  # command line" in lines
    assert "dropout: 0.5  # default" in lines
    assert "topk: [5, 10, 20, 50]  # overall.yaml" in lines


def test_a_run_of_a_grid_reads_back_as_one_run(project):
    configs, _ = project.runs("hyper_parameters: [seed]\nseed: [1, 2]")
    content = parse_yaml(configs[1].to_yaml(), "x")
    del content["model"], content["dataset"]
    assert config_from_values("Toy", ToyKeys, "toy", content, "x").entries == configs[1].entries


def test_reading_back_tells_all_mistakes_at_once():
    with pytest.raises(UserError) as caught:
        config_from_values("Toy", ToyKeys, "toy", {"epochs": 0, "sead": 1}, "config.yaml")
    problems = caught.value.problems
    assert "config.yaml: unknown key 'sead' (did you mean 'seed'?)" in problems
    assert "config.yaml: epochs: expected an integer of at least 1, got 0" in problems
    assert "no file sets 'learning_rate' (learning rate)" in problems


def test_reading_back_checks_keys_against_each_other(project):
    content = project.one().entries | {"device": "gpu"}
    assert problems_of(lambda: config_from_values("Toy", ToyKeys, "toy", content, "config.yaml")) == [
        "device: expected auto, cpu, cuda or cuda:N, got 'gpu'"
    ]


# The files of the tree


def test_every_data_set_file_of_the_tree_resolves():
    for path in (CONFIGS / "dataset").glob("*.yaml"):
        config = toy_config(path.stem, data_path="no-such-folder")
        assert config["source"], path.stem
        assert config["embedding_size"] == TOY_VALUES["embedding_size"]
