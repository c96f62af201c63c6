"""The few things in a foreign file's syntax tree that mean something else here: where its authors only had a GPU.

`x.cuda()`, `x.to("cuda")`, `device="cuda"` become calls of mmrec/running.py, which know the run's device. PyTorch stays as
it is for everybody else, and lines keep their numbers.
"""

from __future__ import annotations

import ast

METHODS = {"cuda": "to_cuda", "to": "to", "type": "to_type", "pin_memory": "pinned"}
DEVICE_WORDS = ("device", "map_location")
REMOVED_ATTRIBUTES = ("A", "H")
HELPER = "__mmrec_{}__"
HELPERS = (*METHODS.values(), "on_device", "attribute")


class _Rewriter(ast.NodeTransformer):
    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        for word in node.keywords:
            if word.arg in DEVICE_WORDS:
                word.value = _call("on_device", word.value)
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr in METHODS:
            node.func = _name(METHODS[function.attr], function)
            node.args = [function.value, *node.args]
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if node.attr in REMOVED_ATTRIBUTES and isinstance(node.ctx, ast.Load):
            return ast.copy_location(_call("attribute", node.value, ast.Constant(node.attr)), node)
        return node


def _name(helper: str, place: ast.AST) -> ast.Name:
    return ast.copy_location(ast.Name(HELPER.format(helper), ast.Load()), place)  # type: ignore[type-var]


def _call(helper: str, *arguments: ast.expr) -> ast.Call:
    return ast.copy_location(ast.Call(_name(helper, arguments[0]), list(arguments), []), arguments[0])


def rewritten(tree: ast.Module) -> ast.Module:
    """The syntax tree with these calls in place."""
    return ast.fix_missing_locations(_Rewriter().visit(tree))


def guarded_lines(tree: ast.Module) -> set[int]:
    """The lines in a `try` that has handlers: an import that fails there is the file's own affair."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Try) and node.handlers:
            for step in node.body:
                lines |= set(range(step.lineno, (step.end_lineno or step.lineno) + 1))
    return lines
