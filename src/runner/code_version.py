"""Versions of the code: equal numbers are only owed by equal code.

A run depends on the harness and on its model's file with what that imports, not on other models' files: to work on one
model leaves the runs of the others valid. Of a file written for MMRec the stand-ins and the modules of its own tree count
too.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmrec.plugin import parse

HARNESS = "runner/quick_start.py"  # imports all that a run needs besides its model


def code_versions(model_file: Path, others: Iterable[Path] = ()) -> dict[str, str]:
    """Hashes over the project's source files that a run depends on.

    Args:
        model_file: of the run's model, in the tree or elsewhere.
        others: files that it uses beside what it imports of the project.

    Returns:
        `code`: of the harness; `model`: of the model's file and of what it imports besides.

    Raises:
        UserError: if a file cannot be read or is not Python.
    """
    from utils.paths import SOURCE

    harness = imported_files([SOURCE / HARNESS], SOURCE)
    return {
        "code": _digest(harness, SOURCE),
        "model": _digest(imported_files([model_file, *others], SOURCE) - harness, SOURCE),
    }


def imported_files(roots: Iterable[Path], source: Path) -> set[Path]:
    """The files `roots` and all files below `source` that they import, each through another, at any depth of the code."""
    found: set[Path] = set()
    waiting = list(roots)
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting.extend(_imports(path, source))
    return found


def _imports(path: Path, source: Path) -> Iterator[Path]:
    for node in ast.walk(parse(path)[1]):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            for depth in range(1, len(parts) + 1):
                place = source.joinpath(*parts[:depth])
                yield from (file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file())


def _digest(files: Iterable[Path], source: Path) -> str:
    digest = hashlib.sha256()
    names = [
        (path.relative_to(source).as_posix() if path.is_relative_to(source) else path.name, path) for path in files
    ]
    for name, path in sorted(names):
        digest.update(name.encode())
        digest.update(parse(path)[0])
    return digest.hexdigest()[:16]
