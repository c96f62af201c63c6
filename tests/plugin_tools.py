"""Model files in the manner of MMRec for the tests of mmrec/: those of tests/plugins, and ones of a few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toys import CPU, toy_dataset

from mmrec import running
from mmrec.plugin import read_model_file
from runner.quick_start import build_model
from runner.registry import model_keys
from utils.config.configuration import Config
from utils.config.request import Request, resolve
from utils.data.dataset import Dataset

PLUGINS = Path(__file__).parent / "plugins"
TREE = PLUGINS / "mmrec" / "src"  # laid out as MMRec's own
PUBLISHED = sorted(path.stem for path in (TREE / "models").glob("*.py"))
SHORT = """
from common.abstract_recommender import GeneralRecommender
import torch
{head}

class {name}(GeneralRecommender):
    def __init__(self, config, dataset{more}):
        super().__init__(config, dataset)
        self.table = torch.nn.Parameter(torch.randn(self.n_users, self.n_items))
        {init}

    def calculate_loss(self, interaction):
        {loss}

    def full_sort_predict(self, interaction):
        {scores}
{tail}
"""


def write_plugin(folder: Path, name: str = "SHORT", **parts: str) -> Path:
    """A model file of a few lines: head, init, loss, scores, tail and `more` arguments are its own."""
    path = folder / f"{name.lower()}.py"
    given = {
        "head": "", "more": "", "init": "pass", "tail": "",
        "loss": "return self.table[interaction[0], interaction[2]].mean()",
        "scores": "return self.table[interaction[0]]",
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SHORT.format(name=name, **{**given, **parts}))
    return path


def settings_of(path: Path, **overrides: Any) -> Config:
    """The settings of a run of a model file on toy data."""
    file = read_model_file(path)
    values = {"data_path": ["no-such-folder"], "topk": [[5]], "valid_metric": ["Recall@5"], "metrics": [["recall"]]}
    values |= {key: [value] for key, value in overrides.items()}
    request = Request([file.name], ["demo"], values, first_combination=True, plugins={file.name: file})
    (config,), _ = resolve(request, {file.name: model_keys(file.name, file)})
    return config


def built(path: Path, data: Dataset | None = None, **overrides: Any) -> Any:
    """A seeded, untrained model."""
    return build_model(settings_of(path, **overrides), data or toy_dataset(), CPU)


def begun(path: Path, data: Dataset | None = None, **overrides: Any) -> running.Run:
    """A run in which the helpers of running.py, libraries.py and graphs.py work."""
    return running.begin(settings_of(path, **overrides), data or toy_dataset(), CPU)
