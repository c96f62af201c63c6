"""`import` in a foreign file: MMRec's modules from our stand-ins, then from the file's own tree, libraries as proxies.

Every model file has an importer of its own, so that two files of different trees do not see each other's modules.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from mmrec import running
from mmrec.libraries import Proxy, proxy
from mmrec.model_file import ModelFile
from mmrec.rewriting import HELPER, HELPERS, guarded_lines, rewritten
from mmrec.tree import LAST_RESORT, Module, Tree, absolute, parse_bytes
from utils.errors import UserError
from utils.paths import own_module

OURS = Path(__file__).resolve().parent.parent  # its folders are no packages of a foreign file's
STAND_IN_PACKAGES = {
    "torch_scatter": "torch_scatter",
    "torch_scatter.composite": "torch_scatter",
    "torch_sparse": "torch_sparse",
    "sparsesvd": "sparsesvd",
    "torch_geometric": "torch_geometric",
    "torch_geometric.nn": "torch_geometric.nn",
    "torch_geometric.nn.conv": "torch_geometric.nn",
    "torch_geometric.nn.conv.message_passing": "torch_geometric.nn",
    "torch_geometric.nn.conv.gcn_conv": "torch_geometric.nn",
    "torch_geometric.nn.inits": "torch_geometric.inits",
    "torch_geometric.typing": "torch_geometric.typing",
    "torch_geometric.utils": "torch_geometric.edges",
}  # fmt: skip


class Missing:
    """Stands for a package that is not installed, or a part of one, until it is used: files import more than they use."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise ModuleNotFoundError(f"No module named '{self._name}'", name=self._name)

    __call__ = __mro_entries__ = __iter__ = __getitem__ = __enter__ = __len__ = __contains__ = _refuse  # type: ignore[assignment]
    __add__ = __mul__ = __sub__ = __truediv__ = __matmul__ = __lt__ = __gt__ = _refuse  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Missing(f"{self._name}.{name}")

    def __or__(self, other: Any) -> Any:  # in annotations
        return other

    __ror__ = __or__

    def __instancecheck__(self, value: object) -> bool:
        return False


class _StandIn(ModuleType):
    """A module of ours in front of the one that the file's tree has under that name; what neither has is `missing`."""

    def __init__(
        self, name: str, ours: ModuleType, last: tuple[str, ...], theirs: Callable[[], ModuleType | None],
        missing: Callable[[str], Any],
    ) -> None:  # fmt: skip
        super().__init__(name, ours.__doc__)
        self.__dict__.update(_parts=(ours, last, theirs, missing))

    def __getattr__(self, name: str) -> Any:
        ours, last, theirs, missing = self.__dict__["_parts"]
        if name in vars(ours) and name not in last and not name.startswith("__"):
            return vars(ours)[name]
        module = theirs() if name == "__all__" or not name.startswith("__") else None
        if name == "__all__":
            names = [*vars(ours), *(vars(module) if module else ())]
            return [each for each in dict.fromkeys(names) if not each.startswith("_")]
        if module is not None and name in vars(module):
            return vars(module)[name]
        if name in vars(ours) and not name.startswith("__"):
            return vars(ours)[name]
        return missing(name)


class _Package(ModuleType):
    """A folder of modules: they and what its __init__.py defines are its attributes."""

    def __init__(self, name: str, importer: Importer) -> None:
        super().__init__(name)
        self.__dict__.update(_importer=importer, __path__=[])

    def __getattr__(self, name: str) -> Any:
        importer, own = self.__dict__["_importer"], self.__dict__["__name__"]
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)
        module = importer.module(f"{own}.{name}" if own else name)
        if module is not None:
            return module
        initial = importer.initial(own)
        if initial is not None and name in vars(initial):
            return vars(initial)[name]
        raise AttributeError(f"module {own!r} has no attribute {name!r}")


class _Loader(importlib.abc.SourceLoader):
    """Imports from the bytes that were hashed; nothing is written beside the file."""

    def __init__(self, path: Path, source: bytes, foreign: bool) -> None:
        self.path, self.source, self.foreign = path, source, foreign

    def get_filename(self, fullname: str) -> str:
        return str(self.path)

    def get_data(self, path: str | bytes) -> bytes:
        return self.source

    def source_to_code(self, data: Any, path: Any = "<string>", *_: Any, **__: Any) -> Any:  # type: ignore[override]
        tree = parse_bytes(bytes(data), str(self.path))
        return compile(rewritten(tree) if self.foreign else tree, str(self.path), "exec", dont_inherit=True)


class Importer:
    """`__import__` of one foreign file and of the modules that it takes from its own tree."""

    def __init__(self, file: ModelFile) -> None:
        self.tree: Tree = file.tree
        own = Module(file.path, file.tree.name_of(file.path), file.source)
        self.sources = {module.path: module for module in (own, *file.modules)}
        digest = hashlib.sha256(f"{file.path}{file.sha256}{sorted(file.module_hashes.items())}".encode()).hexdigest()
        self.prefix = f"_plugin_{file.path.stem}_{digest[:16]}"
        self.loaded: dict[Path, ModuleType] = {}
        self.stand_ins: dict[str, ModuleType] = {}
        self.missing: set[str] = set()  # packages that are not installed
        self.guarded: dict[str, set[int]] = {}

    def __call__(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Any = None,
        fromlist: Any = (),
        level: int = 0,
    ) -> Any:
        if level:
            package = (globals or {}).get("__tree_package__", "")
            full = absolute(package, name, level)
            if full is None:
                raise ImportError(f"relative import above the file's own tree {self.tree.root}", name="common")
            return self._own(full, fromlist=True)
        if self.tree.is_own(name) or self.tree.stand_in(name):
            return self._own(name, bool(fromlist))
        ours = (OURS / name.partition(".")[0]).is_dir() or (OURS / f"{name}.py").is_file()
        if ours and name.partition(".")[0] != "mmrec":
            return self._own(name, bool(fromlist))
        try:
            return self._completed(name, proxy(builtins.__import__(name, globals, locals, fromlist, 0)), fromlist or ())
        except ModuleNotFoundError as error:
            top = name.partition(".")[0]
            if name in STAND_IN_PACKAGES and not _installed(top):
                return self._package(name if fromlist else top)
            if self.tree.find(name) is not None:
                return self._own(name, bool(fromlist))
            frame = sys._getframe(1)
            if frame.f_lineno in self.guarded.get(frame.f_code.co_filename, ()):
                raise
            missing = error.name or name
            self.missing.add(missing)
            return Missing(name if fromlist and name.startswith(f"{missing}.") else missing)

    def _completed(self, name: str, module: ModuleType, names: Any) -> ModuleType:
        """An installed package, with what newer versions of it have removed and our stand-in has."""
        if name not in STAND_IN_PACKAGES or all(hasattr(module, each) for each in names):
            return module
        ours = vars(own_module(f"mmrec.stand_ins.{STAND_IN_PACKAGES[name]}"))
        return Proxy(module, {each: ours[each] for each in names if each in ours and not hasattr(module, each)})

    def module_named(self, name: str, package: str | None = None) -> Any:
        """`importlib.import_module`."""
        return self(name, None, None, ("*",), 0)

    def _own(self, name: str, fromlist: bool) -> ModuleType:
        module = self.module(name)
        if module is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return module if fromlist else _Package(name.partition(".")[0], self)

    def module(self, name: str) -> ModuleType | None:
        """The module of a dotted name of the tree: ours, laid over the tree's own; None if neither has it."""
        stand_in, place = self.tree.stand_in(name), self.tree.find(name)
        if stand_in:
            if name not in self.stand_ins:
                ours = own_module(stand_in)
                file = place if place is not None and place.is_file() else None
                theirs = (lambda: self.load(file)) if file else (lambda: None)
                last = LAST_RESORT.get(".".join(name.split(".")[-2:]), ())
                self.stand_ins[name] = _StandIn(name, ours, last, theirs, lambda word: _lacking(name, word))
            return self.stand_ins[name]
        if place is None:
            # A folder that only stand-ins make up, as where a file lies alone: common.loss is there, and so is common.
            return _Package(name, self) if name in ("common", "utils", "models", "src", "") else None
        return self.load(place) if place.is_file() else _Package(name, self)

    def initial(self, name: str) -> ModuleType | None:
        """The __init__.py of a package, run when a name is asked of it."""
        place = self.tree.find(name) if name else self.tree.root
        path = place / "__init__.py" if place is not None and place.is_dir() else None
        return self.load(path) if path and path.is_file() else None

    def load(self, path: Path) -> ModuleType:
        """Runs a file of the tree, once.

        Raises:
            UserError: if it is none of those that were found, and hashed, without running anything.
        """
        if path in self.loaded:
            return self.loaded[path]
        if path not in self.sources:
            raise UserError(
                f"{path}: is imported under a name that is made up as the program runs; such a module would not be part of "
                "the run's identity, so it is not loaded"
            )
        module = self.sources[path]
        name = self.prefix if module.path == next(iter(self.sources)) else f"{self.prefix}.{module.name}"
        return run_source(name, path, module.source, True, self, module.package)

    def _package(self, name: str) -> ModuleType:
        """A stand-in for a package that is not installed."""
        if name not in self.stand_ins:
            ours = own_module(f"mmrec.stand_ins.{STAND_IN_PACKAGES[name]}")
            self.stand_ins[name] = _StandIn(name, ours, (), lambda: None, lambda word: self._part(name, word))
        return self.stand_ins[name]

    def _part(self, package: str, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if f"{package}.{name}" in STAND_IN_PACKAGES:
            return self._package(f"{package}.{name}")
        return Missing(f"{package}.{name}")


def _lacking(module: str, name: str) -> Any:
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def run_source(
    name: str, path: Path, source: bytes, foreign: bool, importer: Importer | None = None, package: str = ""
) -> ModuleType:
    """Makes a module of a source and runs it under a name of its own; whatever the file raises, it raises."""
    spec = importlib.util.spec_from_loader(name, loader := _Loader(path, source, foreign))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    if importer is not None:
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": importer}
        module.__dict__["__tree_package__"] = package
        module.__dict__.update({HELPER.format(helper): getattr(running, helper) for helper in HELPERS})
        importer.loaded[path] = module  # modules may import each other
        importer.guarded[str(path)] = guarded_lines(parse_bytes(source, str(path)))
    else:
        module.__dict__["__builtins__"] = globals()["__builtins__"]  # finds the project's modules wherever this does
    module.__dict__["__plugin__"] = True
    sys.modules[name] = module
    try:
        with running.quiet():
            loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        if importer is not None:
            del importer.loaded[path]
        raise
    return module


_importers: dict[str, Importer] = {}


def load(file: ModelFile) -> ModuleType:
    """Imports a model file, once as long as neither it nor what it takes from its tree changes."""
    if not file.foreign:
        digest = hashlib.sha256(f"{file.path}{file.sha256}".encode()).hexdigest()[:16]
        name = f"_plugin_{file.path.stem}_{digest}"
        return sys.modules.get(name) or run_source(name, file.path, file.source, False)
    importer = Importer(file)
    importer = _importers.setdefault(importer.prefix, importer)
    return importer.load(file.path)
