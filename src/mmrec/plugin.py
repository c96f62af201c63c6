"""Model files from elsewhere: reading, loading, and the names that files written for MMRec expect to find.

A *foreign* file is one whose class declares no `settings` dataclass. It is imported with builtins of its own, whose
`__import__` hands it MMRec's base class and stand-ins for what newer libraries removed; the libraries themselves stay as
they are, and nobody else sees the stand-ins.
"""

from __future__ import annotations

import ast
import builtins
import functools
import hashlib
import importlib.abc
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from utils.config.schema import Key, keys_of, setting
from utils.config.settings import SETTINGS
from utils.errors import UserError
from utils.paths import PACKAGE, own_module

OWN_MODULES = ("common", "utils", "models")  # of the project, and of MMRec
NAMES_OF_PACKAGES = {"sklearn": "scikit-learn", "yaml": "pyyaml", "cv2": "opencv-python", "PIL": "pillow"}

# What a foreign file gets for a module that it imports from.
STAND_INS = {
    "common.abstract_recommender": "mmrec.foreign",
    "common.encoders": "mmrec.stand_ins.encoders",
    "common.init": "mmrec.stand_ins.init",
    "common.loss": "mmrec.stand_ins.loss",
    "utils.utils": "mmrec.stand_ins.utils",
}
WITHOUT_PACKAGE = {"torch_scatter": "mmrec.stand_ins.torch_scatter"}  # only where the package is not installed

# Names that NumPy 1.20 to 2.4 removed.
REMOVED_FROM_NUMPY = {
    "float": "builtins.float", "int": "builtins.int", "bool": "builtins.bool", "object": "builtins.object",
    "str": "builtins.str", "complex": "builtins.complex", "long": "builtins.int", "unicode": "builtins.str",
    "float_": "float64", "complex_": "complex128", "bool8": "bool_", "int0": "intp", "unicode_": "str_",
    "string_": "bytes_", "Inf": "inf", "Infinity": "inf", "infty": "inf", "PINF": "inf", "NaN": "nan",
    "product": "prod", "cumproduct": "cumprod", "alltrue": "all", "sometrue": "any", "in1d": "isin",
    "row_stack": "vstack", "trapz": "trapezoid", "round_": "round",
}  # fmt: skip


@dataclass(frozen=True)
class ModelFile:
    """What the source of a model file says, without importing it.

    Attributes:
        path: absolute.
        name: of its class.
        foreign: whether it is written for MMRec: its class declares no `settings`.
        sha256: of the file.
        source: its bytes.
        reads: the keys that it reads as `config["key"]`.
        settings_file: its YAML file, or None.
    """

    path: Path
    name: str
    foreign: bool
    sha256: str
    source: bytes
    reads: tuple[str, ...]
    settings_file: Path | None

    @property
    def needs_features(self) -> bool:
        """Whether a foreign file mentions the feature matrices, which is all that tells whether it needs them."""
        return re.search(rb"\b[vt]_feat\b", self.source) is not None


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
    return source, ast.parse(source, str(path))


def class_in(path: Path, tree: ast.Module) -> ast.ClassDef | None:
    """The class with the file's name but for case."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name.lower() == path.stem.lower():
            return node
    return None


def read_model_file(path: Path, settings_file: Path | None = None) -> ModelFile:
    """Reads the source of a model file.

    Args:
        path: of the file.
        settings_file: its YAML file; None: NAME.yaml beside it, or in configs/model/ of the tree that it stands in.

    Raises:
        UserError: if it is not there, not Python, or without a class of its own name.
    """
    path = path.expanduser().absolute()
    source, tree = parse(path)
    found = class_in(path, tree)
    if found is None:
        names = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
        there = f"it has {', '.join(names)}" if names else "it has no class at all"
        raise UserError(f"{path}: expected a class with the file's name, {path.stem} in upper or lower case; {there}")
    assigned = [node.targets for node in found.body if isinstance(node, ast.Assign)]
    assigned += [[node.target] for node in found.body if isinstance(node, ast.AnnAssign)]
    names = [target.id for targets in assigned for target in targets if isinstance(target, ast.Name)]
    if settings_file is None:
        beside = (path.with_name(f"{found.name}.yaml"), path.parent.parent / "configs" / "model" / f"{found.name}.yaml")
        settings_file = next((file for file in beside if file.is_file()), None)
    return ModelFile(
        path,
        found.name,
        "settings" not in names,
        hashlib.sha256(source).hexdigest(),
        source,
        tuple(dict.fromkeys(_keys_read(tree))),
        settings_file and settings_file.absolute(),
    )


def _keys_read(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Subscript) or not isinstance(node.slice, ast.Constant):
            continue
        holder = node.value
        word = holder.id if isinstance(holder, ast.Name) else holder.attr if isinstance(holder, ast.Attribute) else ""
        if word == "config" and isinstance(node.slice.value, str):
            yield node.slice.value


def own_keys(file: ModelFile, content: Mapping[str, Any], axes: Iterable[Any] = ()) -> dict[str, Key]:
    """The keys of a foreign model: those of its YAML file and those that its source reads; null where not set.

    A key is of any type; one whose value is a list, and no grid, takes several words on the command line as one value.

    Args:
        file: the model file.
        content: of its YAML file.
        axes: the value of `hyper_parameters` in other files, each a list, a word or None.
    """
    ours = {name for settings in SETTINGS for key in keys_of(settings).values() for name in _names_of(key)}
    ours |= {"model", "dataset", "grid", "vision_feature_file", "text_feature_file", *plugin_keys()}
    named: list[Any] = []
    for entry in (content.get("hyper_parameters"), *axes):
        named += entry if isinstance(entry, list) else [entry] if entry else []
    values = {**dict.fromkeys(file.reads), **{str(name): None for name in named}, **content}
    field = setting(f"read by {file.path.name}", default=None)
    return {
        name: Key(name, list[Any] | None if isinstance(value, list) and name not in named else Any, field)
        for name, value in values.items()
        if name not in ours
    }


def _names_of(key: Key) -> tuple[str, ...]:
    return key.name, *key.field.metadata["alias"]


def plugin_keys() -> dict[str, Key]:
    """The keys of a run whose model was given by --plugin."""
    return {
        "plugin": Key("plugin", str, setting("the model file")),
        "plugin_sha256": Key("plugin_sha256", str, setting("SHA-256 of the model file")),
    }


class _Loader(importlib.abc.SourceLoader):
    """Imports from the bytes that were hashed; nothing is written beside the file."""

    def __init__(self, file: ModelFile) -> None:
        self.file = file

    def get_filename(self, fullname: str) -> str:
        return str(self.file.path)

    def get_data(self, path: str | bytes) -> bytes:
        return self.file.source


def load_class(file: ModelFile) -> Any:
    """Imports a model file under a name of its own and returns its class.

    Raises:
        UserError: if it defines no such class after all; whatever the file raises, it raises.
    """
    digest = hashlib.sha256(f"{file.path}{file.sha256}".encode()).hexdigest()[:16]
    name = f"_plugin_{file.path.stem}_{digest}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_loader(name, loader := _Loader(file))
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        if file.foreign:
            module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _foreign_import}
        else:
            module.__dict__["__builtins__"] = globals()[
                "__builtins__"
            ]  # finds the project's modules wherever this does
        module.__dict__["__plugin__"] = True
        sys.modules[name] = module
        try:
            loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    cls = vars(sys.modules[name]).get(file.name)
    base = "mmrec.foreign" if file.foreign else "common.abstract_recommender"
    if not isinstance(cls, type) or not issubclass(cls, own_module(base).GeneralRecommender):
        raise UserError(
            f"{file.path}: {file.name} is no model: expected a class derived from "
            "common.abstract_recommender.GeneralRecommender"
        )
    if file.foreign:
        cls.needs_features = file.needs_features  # type: ignore[attr-defined]
    return cls


class _Proxy(ModuleType):
    """A module in front of another: some names of its own, the rest the other's."""

    def __init__(self, real: ModuleType, own: Mapping[str, Any]) -> None:
        super().__init__(real.__name__, real.__doc__)
        self.__dict__.update(own)
        self.__dict__["_real"] = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_real"], name)


_proxies: dict[str, ModuleType] = {}


def _proxy(module: ModuleType) -> ModuleType:
    """The proxy of NumPy or SciPy, or the module itself."""
    name = module.__name__
    if name not in ("numpy", "scipy", "scipy.sparse"):
        return module
    if name not in _proxies:
        if name == "numpy":
            given: dict[str, Any] = {"NINF": -module.inf}
            for old, new in REMOVED_FROM_NUMPY.items():
                holder = builtins if new.startswith("builtins.") else module
                if old not in vars(module):
                    given[old] = getattr(holder, new.removeprefix("builtins."))
            _proxies[name] = _Proxy(module, given)
        elif name == "scipy":
            _proxies[name] = _Proxy(module, {"sparse": _proxy(importlib.import_module("scipy.sparse"))})
        else:
            there = hasattr(module.dok_matrix, "_update")
            _proxies[name] = _Proxy(module, {} if there else {"dok_matrix": _dok_matrix(module)})
    return _proxies[name]


def _dok_matrix(sparse: Any) -> type:
    """dok_matrix with the private method that SciPy 1.13 removed, which many files build their graph with."""

    class dok_matrix(sparse.dok_matrix):  # type: ignore[name-defined,misc]
        def _update(self, data: Mapping[tuple[int, int], Any]) -> None:
            """Sets entries from (row, column) to value."""
            self._dict.update(data)

    return dok_matrix


def _foreign_import(
    name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
) -> ModuleType:
    """`__import__` of foreign files."""
    if fromlist and level == 0 and name in STAND_INS:
        return own_module(STAND_INS[name])
    try:
        return _proxy(builtins.__import__(name, globals, locals, fromlist, level))
    except ModuleNotFoundError as error:
        if error.name not in WITHOUT_PACKAGE or error.name != name:
            raise
        return own_module(WITHOUT_PACKAGE[name])


@contextmanager
def mistakes_of_plugins() -> Iterator[None]:
    """Within it, what goes wrong in a plugin's own code becomes one line that names its file and line.

    Raises:
        UserError: in place of what a plugin raised.
    """
    try:
        yield
    except (UserError, MemoryError, BrokenPipeError):
        raise
    except Exception as error:  # a plugin may raise anything; what is not of its doing goes on
        told = _told(error)
        if told is None:
            raise
        raise UserError(told) from error


def _told(error: Exception) -> str | None:
    """The line for an error that was raised in or below a plugin's code, else None."""
    place, path, innermost, step = None, None, "", error.__traceback__
    while step is not None:
        names = step.tb_frame.f_globals
        if "__plugin__" in names:
            place = f"{step.tb_frame.f_code.co_filename}, line {step.tb_lineno}"
        module = sys.modules.get(type(step.tb_frame.f_locals.get("model")).__module__)
        if module is not None and "__plugin__" in vars(module):
            path = vars(module)["__file__"]
        innermost = names.get("__name__", "")
        step = step.tb_next
    text = " ".join(str(error).split())
    if "out of memory" in text:
        return None
    if place is None and path and (innermost == f"{PACKAGE}common.trainer" or innermost.startswith("torch.autograd")):
        return (
            f"{path}: expected calculate_loss to return a number with a gradient, or a tuple of them; "
            f"with what it returned: {type(error).__name__}: {text}"
        )
    if place is None:
        return None
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        if package not in OWN_MODULES:
            return (
                f"{place}: needs the package '{package}', which is not installed; "
                f"pip install {NAMES_OF_PACKAGES.get(package, package)}"
            )
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] in OWN_MODULES:
        return f"{place}: {text}; what of MMRec's own modules is offered here is in docs/plugins.md"
    if re.search(r"\bCUDA\b|NVIDIA", text) and not importlib.import_module("torch").cuda.is_available():
        return f"{place}: asks for CUDA whatever the device, and this machine has none ({text[:120]})"
    if isinstance(error, AttributeError | TypeError) and "NoneType" in text:
        text += " (a key that no file sets and features that the data set lacks are None)"
    return f"{place}: {type(error).__name__}: {text}"
