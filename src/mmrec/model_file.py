"""What the source of a model file says, without importing it: its class, the keys and features that it reads."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrec.tree import Module, Tree, modules_reached, parse
from utils.errors import UserError, nearest

CONFIG_NAMES = ("config", "cfg", "conf", "configs")  # what files call their settings
FEATURE = re.compile(r"\b([A-Za-z]\w*?)_feat\b")
ANY_FEATURE = re.compile(r"""\}_feat\b|['"]_feats?\b""")  # f"{name}_feat", name + "_feat"
STUB_METHODS = ("calculate_loss", "full_sort_predict")


@dataclass(frozen=True)
class ModelFile:
    """What the source of a model file says, without importing it.

    Attributes:
        path: absolute.
        name: of its class.
        foreign: whether it is written for MMRec: its class declares no `settings`.
        sha256: of the file.
        source: its bytes.
        reads: the keys that it and its modules read as `config["key"]` or `config.get("key")`.
        needs: those of `reads` for which it has nothing of its own to put in their place.
        settings_file: its YAML file, or None.
        modules: what it imports of the tree that it lies in; foreign files only.
    """

    path: Path
    name: str
    foreign: bool
    sha256: str
    source: bytes
    reads: tuple[str, ...]
    settings_file: Path | None
    needs: tuple[str, ...] = ()
    modules: tuple[Module, ...] = ()

    @property
    def tree(self) -> Tree:
        return Tree.of(self.path)

    @property
    def module_hashes(self) -> dict[str, str]:
        """Path from the tree's root to SHA-256 of each module that it takes from there."""
        return {module.path.relative_to(self.tree.root).as_posix(): module.sha256 for module in self.modules}

    def entries(self) -> dict[str, Any]:
        """What the settings of a run hold of it."""
        return {"plugin": str(self.path), "plugin_sha256": self.sha256, "plugin_modules": self.module_hashes or None}

    @property
    def features(self) -> tuple[str, ...]:
        """The names of feature matrices that a foreign file mentions: v_feat, textual_feat..."""
        text = self._text
        found = [f"{name}_feat" for name in FEATURE.findall(text)]
        return tuple(dict.fromkeys(name for name in found if not name.startswith("_")))

    @property
    def any_feature(self) -> bool:
        """Whether it makes up names of feature matrices."""
        return ANY_FEATURE.search(self._text) is not None

    @property
    def needs_features(self) -> bool:
        """Whether a foreign file mentions the feature matrices, which is all that tells whether it needs them."""
        return self.any_feature or any(
            name in ("v_feat", "t_feat") or self.mentions(rf"""(self\.|['"]){name}\b""") for name in self.features
        )

    @property
    def _text(self) -> str:
        return b"\n".join([self.source, *(module.source for module in self.modules)]).decode("utf-8", "replace")

    def mentions(self, pattern: str) -> bool:
        """Whether its source or that of its modules matches a regular expression."""
        return re.search(pattern, self._text) is not None


def class_in(path: Path, tree: ast.Module, name: str | None = None) -> ast.ClassDef | None:
    """The class of that name, or with the file's name but for case."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and (node.name == name if name else node.name.lower() == path.stem.lower()):
            return node
    return None


def split_class(path: Path) -> tuple[Path, str | None]:
    """`file.py:ClassName` in its parts; without a class, the path and None."""
    name, colon, word = path.name.rpartition(":")
    return (path.with_name(name), word) if colon and name and word.isidentifier() else (path, None)


def read_model_file(path: Path, settings_file: Path | None = None, name: str | None = None) -> ModelFile:
    """Reads the source of a model file.

    Args:
        path: of the file, `:ClassName` after it where its class is called otherwise.
        settings_file: its YAML file; None: NAME.yaml beside it, or in configs/model/ of the tree that it stands in.
        name: of its class, or None.

    Raises:
        UserError: if it is not there, not Python, or without such a class.
    """
    path, word = split_class(path.expanduser().absolute())
    name = name or word
    source, tree = parse(path)
    found = class_in(path, tree, name)
    if found is None:
        raise UserError(_no_class(path, tree, name))
    assigned = [node.targets for node in found.body if isinstance(node, ast.Assign)]
    assigned += [[node.target] for node in found.body if isinstance(node, ast.AnnAssign)]
    names = [target.id for targets in assigned for target in targets if isinstance(target, ast.Name)]
    foreign = "settings" not in names
    home = Tree.of(path)
    modules = tuple(modules_reached(path, home)) if foreign else ()
    if settings_file is None:
        places = (path.parent, path.parent.parent / "configs" / "model", home.root / "configs" / "model")
        settings_file = next((p / f"{found.name}.yaml" for p in places if (p / f"{found.name}.yaml").is_file()), None)
    read: dict[str, bool] = {}
    for each in (tree, *(parse(module.path)[1] for module in modules)):
        for key, needed in _keys_read(each):
            read[key] = read.get(key, True) and needed
    return ModelFile(
        path,
        found.name,
        foreign,
        hashlib.sha256(source).hexdigest(),
        source,
        tuple(read),
        settings_file and settings_file.absolute(),
        tuple(key for key, needed in read.items() if needed),
        modules,
    )


def _no_class(path: Path, tree: ast.Module, name: str | None) -> str:
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    models = [node.name for node in classes if any("Recommender" in base for base in base_names(node))]
    names = models or [node.name for node in classes]
    there = f"it has {', '.join(names)}" if names else "it has no class at all"
    if name:
        return f"{path}: there is no class {name}{nearest(name, names)}; {there}"
    choice = f"; --plugin {path}:{names[0]} picks one" if names else ""
    return f"{path}: expected a class with the file's name, {path.stem} in upper or lower case; {there}{choice}"


def base_names(node: ast.ClassDef) -> list[str]:
    """The last words of a class's bases."""
    return [base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "") for base in node.bases]


def stubs_in(node: ast.ClassDef) -> list[str]:
    """The methods of a model that its file declares without any code."""
    return [
        entry.name
        for entry in node.body
        if isinstance(entry, ast.FunctionDef) and entry.name in STUB_METHODS and _is_empty(entry)
    ]


def _is_empty(function: ast.FunctionDef) -> bool:
    for step in function.body:
        words = step.value if isinstance(step, ast.Expr) else None
        raised = step.exc if isinstance(step, ast.Raise) else None
        raised = raised.func if isinstance(raised, ast.Call) else raised
        if not (
            isinstance(step, ast.Pass)
            or isinstance(words, ast.Constant)
            or (isinstance(raised, ast.Name) and raised.id == "NotImplementedError")
        ):
            return False
    return True


def _keys_read(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Keys that a source reads, and whether it needs them: it has no default, asks not whether they are there."""
    given: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Constant) and _is_config(node.comparators[0]):
            given.add(str(node.left.value))  # "x" in config
        elif isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
            given |= {key for value in node.values[:-1] if (key := _key_of(value))}  # config["x"] or 3
        elif isinstance(node, ast.Assign):
            given |= {key for target in node.targets if (key := _key_of(target))}  # config["x"] = 3
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Subscript | ast.Call)]
    for node in sorted(found, key=lambda node: (node.lineno, node.col_offset)):
        if key := _key_of(node):
            needed = not (isinstance(node, ast.Call) and (len(node.args) > 1 or node.keywords))
            yield key, needed and key not in given


def _key_of(node: ast.AST) -> str | None:
    """The key of `config["x"]` or `config.get("x", ...)`, else None."""
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and _is_config(node.value):
        return node.slice.value if isinstance(node.slice.value, str) else None
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get"):
        return None
    if node.args and isinstance(node.args[0], ast.Constant) and _is_config(node.func.value):
        return node.args[0].value if isinstance(node.args[0].value, str) else None
    return None


def _is_config(node: ast.AST) -> bool:
    word = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return word in (*CONFIG_NAMES, "final_config_dict")
