"""GTC-Bench as a package: train, load and read from Python.

    import gtc_bench

    result = gtc_bench.run("LightGCN", "demo", epochs=50, seed=1)
    print(result.test["recall@20"])
    trained = gtc_bench.load(result.folder)
    trained.recommend([0, 1], k=5)

The project's own modules name each other as in its source (`from utils.errors import UserError`). Here they are parts of
this package, `gtc_bench.utils.errors`, and a `utils` or `common` of somebody else's stays what it is: each module of the
package is run with an `__import__` of its own that looks for these names in the package first.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Dataset, Result, Trained, load, run  # type: ignore[import-not-found]  # no package in a checkout

__all__ = ["Dataset", "Result", "Trained", "load", "run"]
__version__ = "0.1.0"

FOLDER = Path(__file__).resolve().parent
OWN = {path.name for path in FOLDER.iterdir() if path.is_dir() and any(path.glob("*.py"))}


def own_import(
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """`__import__` of this package's modules: the project's own names mean its modules."""
    if level or name.partition(".")[0] not in OWN:
        return builtins.__import__(name, globals, locals, fromlist or (), level)
    module = importlib.import_module(f"{__name__}.{name}")
    for word in fromlist or ():
        if word != "*" and not hasattr(module, word) and hasattr(module, "__path__"):
            importlib.import_module(f"{module.__name__}.{word}")
    return module if fromlist else importlib.import_module(f"{__name__}.{name.partition('.')[0]}")


class _Loader(importlib.machinery.SourceFileLoader):
    """Runs a module of this package with its `__import__`."""

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": own_import}
        super().exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of this package, and nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(f"{__name__}.") or path is None:
            return None
        finders = [importlib.machinery.FileFinder(entry, (_Loader, [".py"])) for entry in path]
        return next((spec for finder in finders if (spec := finder.find_spec(fullname)) is not None), None)


if __name__ == "gtc_bench" and not any(type(finder).__name__ == _Finder.__name__ for finder in sys.meta_path):
    sys.meta_path.insert(0, _Finder())


def __getattr__(name: str) -> Any:
    """The interface, loaded when it is asked for: it loads PyTorch, which the command line does not need for its help."""
    if name in __all__:
        return getattr(importlib.import_module(f"{__name__}.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
