"""Models by name: one file in models/, one YAML in configs/model/. Names are read from the source without importing it."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

from utils.errors import UserError, nearest
from utils.paths import CONFIGS, MODELS


def available_models() -> dict[str, Path]:
    """Class name to file, for every file of models/ with a class of its own name (but for case)."""
    found = {}
    for path in sorted(MODELS.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name.lower() == path.stem.lower():
                found[node.name] = path
    return dict(sorted(found.items()))


def summary(path: Path) -> str:
    """The first line of a model file's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def model_name(word: str) -> str:
    """The model's name in its own spelling.

    Raises:
        UserError: for an unknown model, naming the nearest known one.
    """
    models = available_models()
    for name in models:
        if name.lower() == word.lower():
            return name
    raise UserError(f"unknown model '{word}'{nearest(word, models)}; there are {', '.join(models)}")


def model_class(name: str) -> Any:
    """Imports the class of a model.

    Raises:
        UserError: if the model has no configuration file.
    """
    if not (CONFIGS / "model" / f"{name}.yaml").is_file():
        raise UserError(f"model '{name}' has no configs/model/{name}.yaml")
    return getattr(importlib.import_module(f"models.{available_models()[name].stem}"), name)
