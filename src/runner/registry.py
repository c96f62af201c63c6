"""Models by name: one file in models/, one YAML in configs/model/. Names are read from the source without importing it.

A model may also come from a file elsewhere, a plugin; either may be written for MMRec, see mmrec/plugin.py.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mmrec.plugin import ModelFile, class_in, load_class, own_keys, parse, plugin_keys, read_model_file
from runner.code_version import code_versions
from utils.config.configuration import Config
from utils.config.declared import declared_keys
from utils.config.schema import Key, keys_of
from utils.config.yaml_files import read_yaml
from utils.errors import UserError, nearest
from utils.paths import CONFIGS, MODELS, SOURCE, own_module


def available_models() -> dict[str, Path]:
    """Class name to file, for every file of models/ with a class of its own name (but for case).

    A file that is no Python is none of them: `model_name` says so to whoever asks for it, and other models work.
    """
    found = {}
    for path in sorted(MODELS.glob("*.py")):
        with contextlib.suppress(UserError):
            node = class_in(path, parse(path)[1])
            if node is not None:
                found[node.name] = path
    return dict(sorted(found.items()))


def summary(path: Path) -> str:
    """The first line of a model file's docstring."""
    text = ast.get_docstring(parse(path)[1]) or ""
    return text.partition("\n")[0]


def model_name(word: str, plugins: Iterable[str] = ()) -> str:
    """The model's name in its own spelling; that of a plugin goes before one of the tree.

    Raises:
        UserError: for an unknown model, naming the nearest known one, or what is wrong with its file.
    """
    models = list(dict.fromkeys([*plugins, *available_models()]))
    for name in models:
        if name.lower() == word.lower():
            return name
    if (path := MODELS / f"{word.lower()}.py").is_file():
        read_model_file(path)  # says what is wrong with it
    raise UserError(f"unknown model '{word}'{nearest(word, models)}; there are {', '.join(models)}")


def model_class(name: str, plugin: ModelFile | None = None) -> Any:
    """Imports the class of a model.

    Args:
        name: of the class.
        plugin: the file it comes from, if not from the tree.

    Raises:
        UserError: if a model of the tree has no configuration file, or a file holds no model.
    """
    if plugin:
        return load_class(plugin)
    file = _file_in_tree(name)
    return load_class(file) if file.foreign else getattr(own_module(f"models.{file.path.stem}"), name)


def model_keys(
    name: str,
    plugin: ModelFile | None = None,
    axes: Iterable[Any] = (),
    content: Mapping[str, Any] | None = None,
) -> dict[str, Key]:
    """The keys of a model besides those of the harness.

    Args:
        name: of the class.
        plugin: the file it comes from, if not from the tree.
        axes: the value of `hyper_parameters` in other files than the model's.
        content: what sets the keys of a model that is written for MMRec; None: its YAML file.
    """
    file = plugin or _file_in_tree(name)
    if file.foreign:
        if content is None:
            content = read_yaml(file.settings_file, str(file.settings_file)) if file.settings_file else {}
        keys = own_keys(file, content, axes)
    else:
        declared = declared_keys(parse(file.path)[1], file.name, SOURCE)
        keys = keys_of(model_class(name, plugin).settings or {}) if declared is None else declared
    return keys | (plugin_keys() if plugin else {})


def _file_in_tree(name: str) -> ModelFile:
    if not (CONFIGS / "model" / f"{name}.yaml").is_file():
        raise UserError(f"model '{name}' has no configs/model/{name}.yaml: write one with a value for each of its keys")
    return read_model_file(available_models()[name], CONFIGS / "model" / f"{name}.yaml")


def code_of(name: str, plugin: str | None = None) -> dict[str, str]:
    """The versions of the code that a run of a model depends on, as the files are now; see runner/code_version.py.

    Args:
        name: of the class.
        plugin: path of its file, if not from the tree.

    Raises:
        UserError: if a file cannot be read, is not Python or has no such class.
    """
    file = read_model_file(Path(plugin), name=name) if plugin else _file_in_tree(name)
    stand_ins = sorted((SOURCE / "mmrec" / "stand_ins").glob("*.py")) if file.foreign else []
    return code_versions(file.path, [*stand_ins, *(module.path for module in file.modules)])


def is_older(record: Mapping[str, Any], code: Callable[[str, str | None], Mapping[str, str]] = code_of) -> bool:
    """Whether other code than this has made a run; `record` is what its manifest.json holds."""
    now = code(record["model"], record["plugin"] and record["plugin"]["path"])
    return not now.items() <= record["versions"].items()


def class_of(config: Config) -> Any:
    """The class of a run's model.

    Raises:
        UserError: if the model file was given by --plugin and is gone or has changed.
    """
    return model_class(config.model, plugin_of(config))


def plugin_of(content: Mapping[str, Any]) -> ModelFile | None:
    """The model file that a run's settings name, or None if its model is one of the tree.

    Raises:
        UserError: if it is gone or has changed.
    """
    path, sha256 = content.get("plugin"), content.get("plugin_sha256")
    if not path:
        return None
    if not Path(str(path)).is_file():
        raise UserError(f"{path}: the model file of this run is gone")
    file = read_model_file(Path(str(path)), name=content["model"])
    if file.sha256 != sha256:
        raise UserError(f"{path}: the model file has changed since this run began")
    before = content.get("plugin_modules") or {}
    if changed := sorted(dict(before.items() ^ file.module_hashes.items())):
        raise UserError(f"{path}: {changed[0]} of the model file's tree has changed since this run began")
    return file
