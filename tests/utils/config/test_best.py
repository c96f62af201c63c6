"""Published settings: what a file may hold, and that every file of the tree can be used."""

import pytest
from helpers import problems_of

from runner.registry import available_models, model_class
from utils.config.best import Published, published
from utils.config.layers import config_from_values
from utils.config.request import Request, resolve
from utils.config.yaml_files import read_yaml
from utils.paths import CONFIGS

FILES = sorted((CONFIGS / "best").glob("*/*.yaml"))
KNOWN = [path for path in FILES if path.stem in available_models()]


def test_a_file_holds_settings_and_where_they_come_from():
    content = {"source": "a log", "n_ui_layers": 2, "others": [{"source": "a comparison", "n_ui_layers": 1}]}
    other = Published({"n_ui_layers": 1}, "a comparison")
    assert published(content, "file") == Published({"n_ui_layers": 2}, "a log", (other,))
    assert published({"reg_weight": 0}, "file") == Published({"reg_weight": 0})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"source": 3}, "file: source: expected a text that says where"),
        ({"others": {"n_ui_layers": 1}}, "file: others: expected a list of settings, each with its source"),
        ({"others": [{"n_ui_layers": 1}]}, "file: others: expected a list of settings, each with its source"),
        ({"others": ["a comparison"]}, "file: others: expected a list of settings, each with its source"),
    ],
    ids=str,
)
def test_a_malformed_file_is_refused_in_one_line(content, problem):
    (line,) = problems_of(lambda: published(content, "file"))
    assert line.startswith(problem)


def test_every_file_is_of_a_data_set_that_is_known():
    assert {path.parent.name for path in FILES} <= {path.stem for path in (CONFIGS / "dataset").glob("*.yaml")}
    assert len(KNOWN) > 40


@pytest.mark.parametrize("path", KNOWN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_published_setting_is_one_of_the_model_s_keys(path):
    model, dataset, name = path.stem, path.parent.name, path.name
    setting = published(read_yaml(path, name), name)
    assert setting.source, "it says where it comes from"
    (config, *_), notes = resolve(Request([model], [dataset], best=True), {model: model_class(model).settings})
    assert f"best setting of {model} on {dataset}: {setting.source}" in notes
    for raw, value in setting.settings.items():
        if raw != "grid":
            assert config[raw] == value
            assert config.sources[config.aliases.get(raw, raw)] == f"best/{dataset}/{name} ({setting.source})"
    for other in setting.others:
        values = {**config, **other.settings}
        again = config_from_values(model, model_class(model).settings, dataset, values, name)
        assert all(again[raw] == value for raw, value in other.settings.items())
