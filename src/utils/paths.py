"""Where things are: the configuration files that ship with the code, and the default folders."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType

# What stands before the names of the project's modules: nothing in a checkout, "gtc_bench." where it is installed.
PACKAGE = __name__.removesuffix("utils.paths")

SOURCE = Path(__file__).resolve().parent.parent
CONFIGS = SOURCE / "configs"
MODELS = SOURCE / "models"
DATA_VARIABLE = "MMR_DATA_PATH"

# A checkout has pyproject.toml beside src/; an installed package has not, and then works in the current folder.
PROJECT = SOURCE.parent if (SOURCE.parent / "pyproject.toml").is_file() else Path.cwd()


def default_data_path() -> Path:
    """The folder of data sets: $MMR_DATA_PATH, else data/ of the project."""
    return Path(os.environ.get(DATA_VARIABLE) or PROJECT / "data")


def default_cache_path() -> Path:
    """The folder of derived graphs and reduced features."""
    return PROJECT / ".cache"


def own_module(name: str) -> ModuleType:
    """Imports a module of the project by its name in the source, as "models.gtc"."""
    return importlib.import_module(f"{PACKAGE}{name}")
