"""The modules of `prepare` import each other in one direction, imports inside functions included."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter

from utils.paths import SOURCE


def imports() -> dict[str, set[str]]:
    """Module to the modules that it imports anywhere in its file."""
    found: dict[str, set[str]] = {}
    for path in (SOURCE / "prepare").rglob("*.py"):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        found[name] = names
    return found


def test_there_is_no_circle():
    found = imports()
    order = list(TopologicalSorter({name: names & found.keys() for name, names in found.items()}).static_order())
    assert len(order) == len(found) > 30


def test_nothing_but_the_command_line_reaches_up():
    above = {name: {n for n in names if n.split(".")[0] in ("cli", "study")} for name, names in imports().items()}
    assert {name for name, names in above.items() if names} <= {"prepare.command"}


def test_no_two_files_have_one_name():
    names = [path.name for path in (SOURCE / "prepare").rglob("*.py") if path.name != "__init__.py"]
    assert len(names) == len(set(names))
    assert all(len(path.read_text().splitlines()) <= 400 for path in (SOURCE / "prepare").rglob("*.py"))
