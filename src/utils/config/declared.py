"""The keys of a model, read from its source: checking a command line then takes no import of PyTorch.

A model file declares its keys as a dataclass whose fields are calls of `setting` with constants as arguments, and names it
by `settings = NAME` in the model's class. That much is read from the syntax tree; nothing of the file is run.
"""

from __future__ import annotations

import ast
import operator
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.config.schema import Key, setting

TYPES: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool, "Any": Any}
ARITHMETIC: dict[type, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
CONTAINERS: dict[str, Any] = {"list": list, "dict": dict}


class NotConstant(Exception):
    """An expression whose value only running the file would tell."""


def declared_keys(tree: ast.Module, model: str, source: Path) -> dict[str, Key] | None:
    """The keys of a model by name, in order.

    Args:
        tree: of the model's file.
        model: name of its class.
        source: the folder that the project's modules are imported from; constants are looked up there.

    Returns:
        The keys; None where the file does not declare them by constants.
    """
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    assigned = _assignments(classes[model].body).get("settings") if model in classes else None
    if isinstance(assigned, ast.Constant) and assigned.value is None:
        return {}
    declaration = classes.get(assigned.id) if isinstance(assigned, ast.Name) else None
    if declaration is None or declaration.bases:
        return None
    names = _Constants(tree, source)
    try:
        return {
            node.target.id: Key(node.target.id, _type(node.annotation), _setting(node.value, names))
            for node in declaration.body
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        }
    except NotConstant:
        return None


class _Constants:
    """Values of the names that a module assigns constants to, or imports from a module that does."""

    def __init__(self, tree: ast.Module, source: Path) -> None:
        self.source = source
        self.values = _assignments(tree.body)
        self.imported = {
            alias.asname or alias.name: (node.module, alias.name)
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.module and not node.level
            for alias in node.names
        }

    def value(self, name: str) -> Any:
        if name in self.values:
            return _constant(self.values[name], self)
        if name in self.imported:
            module, original = self.imported[name]
            path = self.source.joinpath(*module.split(".")).with_suffix(".py")
            if path.is_file():
                return _Constants(ast.parse(path.read_bytes(), str(path)), self.source).value(original)
        raise NotConstant(name)


def _assignments(body: list[ast.stmt]) -> dict[str, ast.expr]:
    """Name to expression, for the assignments of a module or class."""
    found: dict[str, ast.expr] = {}
    for node in body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                found[target.id] = node.value
    return found


def _constant(node: ast.expr, names: _Constants) -> Any:
    if isinstance(node, ast.Name):
        return names.value(node.id)
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        return ARITHMETIC[type(node.op)](_constant(node.left, names), _constant(node.right, names))
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise NotConstant(ast.unparse(node)) from None


def _setting(node: ast.expr | None, names: _Constants) -> Any:
    """The field that a call of `setting` makes."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id != "setting":
        raise NotConstant("setting")
    keywords: Mapping[str, Any] = {word.arg: _constant(word.value, names) for word in node.keywords if word.arg}
    return setting(*(_constant(argument, names) for argument in node.args), **keywords)


def _type(node: ast.expr) -> Any:
    """The type that an annotation names."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _type(node.left) | _type(node.right)
    if isinstance(node, ast.Constant) and node.value is None:
        return type(None)
    if isinstance(node, ast.Name) and node.id in TYPES:
        return TYPES[node.id]
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in CONTAINERS:
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return types.GenericAlias(CONTAINERS[node.value.id], tuple(_type(one) for one in inner))
    raise NotConstant(ast.unparse(node))
