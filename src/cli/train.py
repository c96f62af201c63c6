"""Training and evaluating models on data sets: the default command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.listing import print_list
from cli.parser import Given, Parser, read_value
from mmrec.plugin import ModelFile, plugin_keys, read_model_file
from runner.registry import available_models, model_keys, model_name
from utils.config.layers import DEVICE_KEYS, FEATURE_FILE_ALIASES
from utils.config.request import Request, data_folder, resolve
from utils.config.schema import Key, keys_of, setting
from utils.config.settings import NOT_OFFERED, REPLACED, SETTINGS
from utils.config.yaml_files import read_yaml
from utils.errors import UserError
from utils.paths import CONFIGS

USAGE = "-m MODEL [MODEL ...] -d DATASET [DATASET ...] [options] [--KEY VALUE ...]"
DESCRIPTION = (
    "Trains and evaluates each model on each data set; several runs end in a comparison table. Any key below can be set; "
    "several values of a key that holds one are a grid (--seed 1 2 3). With -m MODEL the help shows the model's keys too."
)


@dataclass(frozen=True)
class TrainOptions:
    """What is trained, and how the settings are put together."""

    model: list[str] | None = setting("models, see --list", default=None)
    dataset: list[str] | None = setting(
        "data sets, see --list, or any folder DATA_PATH/NAME with NAME.inter", default=None
    )
    plugin: list[str] | None = setting(
        "models from files of your own or written for MMRec, unmodified (-m may then be left out)", default=None
    )
    plugin_config: list[str] | None = setting(
        "their YAML files, in the same order; without: NAME.yaml beside the file", default=None
    )
    config: list[str] | None = setting("YAML files laid over the model's; MMRec's key names work", default=None)
    best: bool = setting("lay the best published setting for the data set over the model's, if any", default=False)
    grid: bool = setting("run the search space that the model's file publishes under `grid:`", default=False)
    first_combination: bool = setting("of a grid, run the first combination only", default=False)
    resume: bool = setting("skip the finished runs of this command and continue the interrupted one", default=False)
    rerun_changed: bool = setting(
        "with --resume: runs that another version of the code made are done again", default=False
    )
    quiet: bool = setting("no progress bar", default=False)


NAMES = tuple(keys_of(TrainOptions))
SHOWING = {  # flags that show something in place of training
    "list": "show models and data sets, which are present, and how to get the others",
    "help": "show this; with -m MODEL, its keys too",
}


def run(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    problems: list[str] = []
    request = _models_and_files(_parser().split(words), problems)
    parser = _parser(request)
    given = parser.split(words)
    if not words or "help" in given.flags:
        _print_help(request, problems)
        return 0
    problems += given.problems + _take_keys(request, given)
    if "list" in given.flags:
        if problems:
            raise UserError(*problems)
        print_list(data_folder(request))
        return 0
    problems += [
        f"--{needed} is missing; write -{short} NAME (see --list)"
        for needed, short in (("model", "m"), ("dataset", "d"))
        if needed not in given.values and (needed == "dataset" or "plugin" not in given.values)
    ]
    if "rerun_changed" in given.flags and "resume" not in given.flags:
        problems.append("--rerun_changed goes with --resume; without it every run is done again")
    try:
        configs, notes = resolve(request, {name: _own_keys(name, request) for name in request.models})
    except UserError as error:
        raise UserError(*problems, *error.problems) from None
    if problems:
        raise UserError(*problems)
    hidden = [name for name in request.plugins if name in available_models()]
    for note in [*notes, *(f"{name} is that of {request.plugins[name].path}, not the project's" for name in hidden)]:
        print(f"note: {note}")

    from runner.session import run_all

    flags = {name: name in given.flags for name in ("resume", "quiet", "rerun_changed")}
    return run_all(configs, **flags)


def _parser(request: Request | None = None) -> Parser:
    """The parser of the command's own options, and with a request of every key that its models know."""
    parser = Parser("", DESCRIPTION, usage=USAGE)
    parser.add_options(TrainOptions, flags=SHOWING)
    if request:
        harness = [key for settings in SETTINGS for key in keys_of(settings).values()]
        values = read_yaml(CONFIGS / "overall.yaml", "overall.yaml")
        parser.add_keys(harness, values, "keys (default in brackets)")
        for name in request.models:
            plugin = request.plugins.get(name)
            path = plugin.settings_file if plugin else CONFIGS / "model" / f"{name}.yaml"
            keys = [key for key in _own_keys(name, request).values() if key.name not in plugin_keys()]
            own = values | (read_yaml(path, str(path)) if path else {})
            parser.add_keys(keys, own, f"keys of {name}")
        parser.add_silent([*DEVICE_KEYS, *FEATURE_FILE_ALIASES, *REPLACED, *NOT_OFFERED])
    return parser


def _models_and_files(given: Given, problems: list[str]) -> Request:
    """What is to be run, without the keys that are set; what is wrong with names and files is added to `problems`."""
    plugins = _plugins(given, problems)
    names: list[str] = []
    for word in given.values.get("model", []):
        try:
            names.append(model_name(word, plugins))
        except UserError as error:
            problems += error.problems
    names += plugins  # who gives a model file wants it run
    request = Request(list(dict.fromkeys(names)), list(dict.fromkeys(given.values.get("dataset", []))), plugins=plugins)
    request.files = [Path(value).expanduser() for value in given.values.get("config", [])]
    request.grid, request.best = "grid" in given.flags, "best" in given.flags
    request.first_combination = "first_combination" in given.flags
    return request


def _plugins(given: Given, problems: list[str]) -> dict[str, ModelFile]:
    """The model files that --plugin names, by the name of their model, each with its YAML file."""
    paths = [Path(value).expanduser() for value in given.values.get("plugin", [])]
    settings = [Path(value).expanduser() for value in given.values.get("plugin_config", [])]
    if settings and len(settings) != len(paths):
        problems.append(f"--plugin_config: expected a file for each --plugin ({len(paths)}), got {len(settings)}")
        settings = []
    problems += [f"--plugin_config: there is no file {path}" for path in settings if not path.is_file()]
    found: dict[str, ModelFile] = {}
    for number, path in enumerate(paths):
        try:
            file = read_model_file(path, settings[number] if settings else None)
            if file.name in found:
                problems.append(f"--plugin: {found[file.name].path} and {path} are both called {file.name}")
            found[file.name] = file
        except UserError as error:
            problems += error.problems
    return found


def _own_keys(name: str, request: Request) -> dict[str, Key]:
    """The keys of a model besides those of the harness."""
    # A list in a file is a grid if any file says so; the keys of a model are those of its own file.
    axes = [read_yaml(path, str(path)).get("hyper_parameters") for path in request.files]
    plugin = request.plugins.get(name)
    assert plugin is None or isinstance(plugin, ModelFile)
    return model_keys(name, plugin, axes)


def _take_keys(request: Request, given: Given) -> list[str]:
    """Puts the keys that are set into the request; returns what is wrong with them."""
    problems = []
    groups: list[Any] = [*SETTINGS, *(_own_keys(name, request) for name in request.models)]
    keys = [key for settings in groups for key in keys_of(settings).values()]
    by_name = {name: key for key in keys for name in (key.name, *key.field.metadata["alias"])}
    for name, words in given.values.items():
        key = by_name.get(name)
        if not words and (name in REPLACED or (key is not None and key.type is bool)):
            request.overrides[name] = [True]
        elif not words:
            problems.append(f"--{name}: a value is missing")
        elif name not in NAMES:
            try:
                request.overrides[name] = [read_value(word, name, key) for word in words]
            except UserError as error:
                problems += error.problems
    return problems


def _print_help(request: Request, problems: list[str]) -> None:
    if problems:
        raise UserError(*problems)
    from cli.command_line import COMMANDS

    print(_parser(request).format_help())
    print("other commands (each has --help):")
    for name, what in COMMANDS.items():
        print(f"  {name:20} {what}")
