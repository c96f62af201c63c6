"""From what a user asks for to the settings of every run.

Order, the later wins: configs/overall.yaml, configs/dataset/NAME.yaml, DATA_PATH/NAME/dataset.yaml,
configs/model/NAME.yaml, configs/best/DATASET/NAME.yaml with --best, files given by --config, the command line.
All mistakes are reported at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from utils.config.best import published
from utils.config.configuration import Config, problems_between_keys
from utils.config.layers import COMMAND_LINE, FEATURE_FILE_ALIASES, Layers, OwnKeys
from utils.config.settings import NOT_OFFERED, not_offered
from utils.config.yaml_files import read_yaml
from utils.errors import UserError, nearest
from utils.paths import CONFIGS, default_data_path


class Plugin(Protocol):
    """What settings need to know of a model file from elsewhere."""

    @property
    def path(self) -> Path: ...

    def entries(self) -> dict[str, Any]:
        """The keys of a run that say which file it is."""

    @property
    def settings_file(self) -> Path | None: ...


@dataclass
class Request:
    """What the command line asks for, before it is checked against the files."""

    models: list[str]
    datasets: list[str]
    overrides: dict[str, Any] = field(default_factory=dict)  # value, or a list of them
    files: list[Path] = field(default_factory=list)
    grid: bool = False
    first_combination: bool = False
    best: bool = False
    plugins: Mapping[str, Plugin] = field(default_factory=dict)  # models that come from elsewhere, by name


def data_folder(request: Request) -> Path:
    """The folder of data sets: what the command line says, else a --config file, overall.yaml or the default.

    Raises:
        UserError: for several folders, or a file that cannot be read.
    """
    overall = read_yaml(CONFIGS / "overall.yaml", "overall.yaml")
    for content in (request.overrides, *(read_yaml(path, str(path)) for path in reversed(request.files)), overall):
        value = content.get("data_path")
        if isinstance(value, list):
            if len(value) != 1:
                raise UserError(f"data_path: expected one folder, got {value}")
            value = value[0]
        if value:
            return Path(str(value)).expanduser()
    return default_data_path()


def known_datasets(folder: Path) -> list[str]:
    """Names of the data sets with a configuration file in the tree or a folder of their own under `folder`."""
    names = {path.stem for path in (CONFIGS / "dataset").glob("*.yaml")}
    if folder.is_dir():
        names |= {p.name for p in folder.iterdir() if (p / f"{p.name}.inter").is_file()}
        names |= {p.name for p in folder.iterdir() if (p / "dataset.yaml").is_file()}
    return sorted(names)


def resolve(request: Request, model_settings: Mapping[str, OwnKeys]) -> tuple[list[Config], list[str]]:
    """Returns the settings of every run that a request stands for, and notes for the user.

    Args:
        request: what the command line asks for.
        model_settings: for each model of the request, its own keys.

    Raises:
        UserError: with every mistake in files and command line.
    """
    folder = data_folder(request)
    datasets = known_datasets(folder)
    problems = [
        f"unknown data set '{name}'{nearest(name, datasets)}; there are {', '.join(datasets)}, "
        f"and any folder {folder / name} with {name}.inter"
        for name in request.datasets
        if name not in datasets
    ]
    if folder.exists() and not folder.is_dir():
        problems.append(f"data_path: expected a folder that holds one folder per data set, got the file {folder}")
    runs: list[Config] = []
    notes: list[str] = []
    unknown_to_all: set[str] | None = None
    known_words: set[str] = set()
    for dataset, model in itertools.product(request.datasets, request.models):
        layers = Layers(model, model_settings[model], dataset)
        files = [(CONFIGS / "overall.yaml", "overall.yaml")]
        files += [(CONFIGS / "dataset" / f"{dataset}.yaml", f"dataset/{dataset}.yaml")]
        files += [(folder / dataset / "dataset.yaml", str(folder / dataset / "dataset.yaml"))]
        plugin = request.plugins.get(model)
        if plugin is None:
            files += [(CONFIGS / "model" / f"{model}.yaml", f"model/{model}.yaml")]
        elif plugin.settings_file:
            files += [(plugin.settings_file, str(plugin.settings_file))]
        for path, name in files:
            if path.is_file():
                layers.add(read_yaml(path, name), name)
        if plugin:
            layers.add(plugin.entries(), "--plugin")
        best = CONFIGS / "best" / dataset / f"{model}.yaml"
        if request.best and best.is_file() and not plugin:
            name = f"best/{dataset}/{model}.yaml"
            setting = published(read_yaml(best, name), name)
            layers.add(setting.settings, f"{name} ({setting.source})" if setting.source else name)
            if setting.source:
                layers.notes.append(f"best setting of {model} on {dataset}: {setting.source}")
        elif request.best:
            layers.notes.append(f"no best setting of {model} on {dataset} is published; its defaults are used")
        for path in request.files:
            layers.add(read_yaml(path, str(path)), str(path))
        unknown = set(layers.override(request.overrides))
        unknown_to_all = unknown if unknown_to_all is None else unknown_to_all & unknown
        known_words |= {*layers.keys, *layers.aliases, *FEATURE_FILE_ALIASES}
        if layers.values.get("data_path") is None:
            layers.sources["data_path"] = "default"
        # A run folder may be read from elsewhere: its paths are absolute.
        layers.values["data_path"] = str(folder.absolute())
        if isinstance(cache := layers.values.get("cache_dir"), str):
            layers.values["cache_dir"] = str(Path(cache).expanduser().absolute())
        runs += layers.combinations(request.grid, request.first_combination)
        problems += [problem for problem in layers.problems if problem not in problems]
        notes += [note for note in layers.notes if note not in notes]
    for word in sorted(unknown_to_all or ()):
        if word in NOT_OFFERED:
            problems.append(f"{COMMAND_LINE}: {not_offered(word)}")
        else:
            problems.append(f"{COMMAND_LINE}: unknown key '--{word}'{nearest(word, known_words)}")
    if not problems:
        problems = list(dict.fromkeys(problem for run in runs for problem in problems_between_keys(run)))
    if problems:
        raise UserError(*problems)
    return runs, notes
