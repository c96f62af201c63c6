"""The tree that a model file lies in: which of its modules the file imports, found without running anything.

`ROOT/models/foo.py` lies in the tree ROOT; a file that stands in no folder `models` has its own folder as tree. A module
may be written `common.x`, `src.common.x`, `ROOT.common.x`, `models.common.x` or relative; all mean the same file.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError

FAMILIES = ("common", "utils", "models", "src")  # names that mean the file's own tree, never a package to install
DEEPEST = 200  # modules of one tree that a file may reach

# What a foreign file gets for a module that it imports from, whatever its own tree has under that name.
STAND_INS = {
    "common.abstract_recommender": "mmrec.foreign",
    "common.encoders": "mmrec.stand_ins.encoders",
    "common.init": "mmrec.stand_ins.init",
    "common.loss": "mmrec.stand_ins.loss",
    "utils.utils": "mmrec.stand_ins.utils",
}
LAST_RESORT = {"utils.utils": ("get_model", "get_trainer")}  # names of ours that the tree's own go before


def parse(path: Path) -> tuple[bytes, ast.Module]:
    """The bytes and the syntax tree of a Python file, kept until the file changes.

    Raises:
        UserError: if it cannot be read or is not Python.
    """
    try:
        state = path.stat()
        return _parse(path, state.st_mtime_ns, state.st_size)
    except OSError as error:
        raise UserError(f"{path}: cannot be read as a model file ({error.strerror})") from None
    except (SyntaxError, ValueError) as error:  # ValueError: null bytes
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UserError(f"{path}{line}: not Python: {reason}") from None


@functools.lru_cache(maxsize=256)
def _parse(path: Path, changed: int, size: int) -> tuple[bytes, ast.Module]:
    source = path.read_bytes()
    return source, parse_bytes(source, str(path))


def parse_bytes(source: bytes, name: str) -> ast.Module:
    """The syntax tree; `\\d` in a plain string, which newer Pythons warn of, is let pass."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source, name)


@dataclass(frozen=True)
class Module:
    """A module of a tree as it was read.

    Attributes:
        path: absolute.
        name: dotted, from the tree's root.
        source: its bytes.
    """

    path: Path
    name: str
    source: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.source).hexdigest()

    @property
    def package(self) -> str:
        """What relative imports in it start from."""
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Tree:
    """The modules below one folder."""

    root: Path

    @classmethod
    def of(cls, path: Path) -> Tree:
        """The tree that a model file lies in."""
        above = [folder for folder in path.parents if folder.name == "models"]
        return cls(above[0].parent if above else path.parent)

    def name_of(self, path: Path) -> str:
        """The dotted name of a file of the tree."""
        parts = path.relative_to(self.root).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def find(self, name: str) -> Path | None:
        """The file of a dotted name, or the folder if it is a package; None if the tree has neither."""
        for candidate in self._spellings(name):
            place = self.root.joinpath(*candidate.split("."))
            if place.with_suffix(".py").is_file():
                return place.with_suffix(".py")
            if candidate and place.is_dir():
                return place
        return None

    def _spellings(self, name: str) -> list[str]:
        first, _, rest = name.partition(".")
        found = [name]
        if rest and first in ("src", self.root.name):
            found.append(rest)
        for spelling in list(found):
            if spelling.startswith("models."):
                found.append(spelling.removeprefix("models."))
            elif spelling.startswith(("common.", "utils.")):
                found.append(f"models.{spelling}")
        return found

    def is_own(self, name: str) -> bool:
        """Whether an absolute name can only mean a module of the tree."""
        if name.partition(".")[0] in FAMILIES:
            return True
        return name.startswith(f"{self.root.name}.") and self.find(name) is not None

    def stand_in(self, name: str) -> str | None:
        """The module here that stands in for a dotted name, or None."""
        return next((STAND_INS[spelling] for spelling in self._spellings(name) if spelling in STAND_INS), None)


def absolute(package: str, name: str, level: int) -> str | None:
    """The dotted name that a relative import means, from the tree's root; None if it points above the root."""
    parts = package.split(".") if package else []
    if level - 1 > len(parts):
        return None
    parts = parts[: len(parts) - (level - 1)]
    return ".".join([*parts, *([name] if name else [])])


def modules_reached(path: Path, tree: Tree) -> list[Module]:
    """The modules of its own tree that a file imports, each through another, at any depth of the code; sorted.

    A module for which there is a stand-in counts only where it has to give a name that the stand-in lacks.

    Raises:
        UserError: if one is not Python, or if there are too many.
    """
    waiting, found = [path], {path}
    while waiting:
        here = waiting.pop()
        for file in _imported(here, tree):
            if file not in found:
                found.add(file)
                waiting.append(file)
        if len(found) > DEEPEST:
            raise UserError(f"{path}: imports more than {DEEPEST} modules of its own tree {tree.root}")
    return [Module(file, tree.name_of(file), parse(file)[0]) for file in sorted(found - {path})]


def _imported(path: Path, tree: Tree) -> Iterator[Path]:
    package = Module(path, tree.name_of(path), b"").package
    for name, names in imports_in(parse(path)[1], package):
        stand_in = tree.stand_in(name)
        if stand_in and names and set(names) <= offered_by(stand_in) - set(LAST_RESORT.get(name, ())):
            continue
        yield from _files(tree.find(name))
        for each in names:
            if tree.stand_in(f"{name}.{each}") is None:
                yield from _files(tree.find(f"{name}.{each}" if name else each))


def _files(place: Path | None) -> Iterator[Path]:
    if place is not None and place.is_file():
        yield place
    elif place is not None and (place / "__init__.py").is_file():
        yield place / "__init__.py"


def imports_in(tree: ast.Module, package: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What a source imports, at any depth: (dotted name, names taken from it)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = absolute(package, node.module or "", node.level) if node.level else node.module
            if name is not None:
                yield name, tuple(alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called == "import_module" and isinstance(node.args[0].value, str):
                yield node.args[0].value, ()


@functools.lru_cache(maxsize=16)
def offered_by(stand_in: str) -> set[str]:
    """The names that a stand-in has, read from its source so that nothing is imported for it."""
    path = Path(__file__).resolve().parent.parent.joinpath(*stand_in.split(".")).with_suffix(".py")
    names: set[str] = set()
    for node in parse(path)[1].body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names |= {alias.asname or alias.name for alias in node.names}
    return names
