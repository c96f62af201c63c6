"""The rooms of the source: imports go one way, imports inside functions included, and never in a circle."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from utils.paths import SOURCE

# Each room may import from itself and from those of the levels before its own.
LEVELS = [{"utils"}, {"common"}, {"models"}, {"mmrec"}, {"runner"}, {"audit"}, {"study", "prepare"}, {"cli"}]
ROOMS = {room for level in LEVELS for room in level}
MOST_LINES = 400
LARGEST_SHARE = 0.2  # of all lines


def modules() -> dict[str, Path]:
    """Module name to file, of every room."""
    files = [path for room in sorted(ROOMS) for path in sorted((SOURCE / room).rglob("*.py"))]
    names = {path: path.relative_to(SOURCE).with_suffix("").as_posix().replace("/", ".") for path in files}
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


def imports_of(name: str, path: Path, known: set[str]) -> Iterator[str]:
    """The modules of the rooms that a file imports, at any depth of its code."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            found = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for one in found:
            if one in known and one != name and not (path.name == "__init__.py" and one == package):
                yield one


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    """Module name to the modules that it imports."""
    found = modules()
    # A package stands for what its __init__ imports; to name it beside one of its modules says nothing more.
    graph = {name: set(imports_of(name, path, set(found))) for name, path in found.items()}
    return {
        name: {one for one in targets if not any(other.startswith(f"{one}.") for other in targets)}
        for name, targets in graph.items()
    }


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(graph.get(name, ())):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = [stack.pop()]
            while group[-1] != name:
                group.append(stack.pop())
            if len(group) > 1 or name in graph.get(name, ()):
                found.append(sorted(group))

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return found


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}, "e": {"a"}}) == [["b", "c"], ["d"]]


def test_no_module_imports_itself_through_others(graph: dict[str, set[str]]):
    assert len(graph) > 100
    assert circles(graph) == []


def test_a_room_imports_from_lower_rooms_only(graph: dict[str, set[str]]):
    level = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}
    wrong = []
    for name, targets in graph.items():
        room = name.partition(".")[0]
        for target in targets:
            other = target.partition(".")[0]
            if other != room and level[other] >= level[room]:
                wrong.append(f"{name} imports {target}")
    assert wrong == []


def test_every_folder_of_the_source_is_a_room():
    folders = {path.parent.relative_to(SOURCE).parts[0] for path in SOURCE.glob("*/**/*.py")}
    assert folders <= ROOMS


def test_no_two_rooms_have_a_file_of_the_same_name():
    rooms = defaultdict(set)
    for name, path in modules().items():
        if path.name != "__init__.py":
            rooms[path.name].add(name.partition(".")[0])
    assert {name: found for name, found in rooms.items() if len(found) > 1} == {}


def test_no_file_is_longer_than_a_reader_can_keep_in_mind():
    lines = {name: path.read_text().count("\n") for name, path in modules().items()}
    assert {name for name, n in lines.items() if n > MOST_LINES} == set()


def test_no_room_holds_more_than_a_fifth_of_the_lines():
    sizes: Counter[str] = Counter()
    for name, path in modules().items():
        sizes[name.partition(".")[0]] += path.read_text().count("\n")
    assert {room: n for room, n in sizes.items() if n > LARGEST_SHARE * sizes.total()} == {}


def test_only_the_command_line_ends_the_program():
    """Elsewhere a mistake is an exception, so that the code can be used from Python."""
    leaving = []
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Name) and node.id == "SystemExit":
                leaving.append(name)
            if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.exit":
                leaving.append(name)
            if isinstance(node, ast.Import) and any(alias.name in ("argparse", "optparse") for alias in node.names):
                leaving.append(name)
    assert {name for name in leaving if not name.startswith("cli.")} == set()


def test_no_module_needs_unix_to_be_imported():
    """`resource`, `fcntl` and the like exist on Unix alone: they are imported where they are used, with another way out."""
    unix = {"fcntl", "grp", "pwd", "resource", "syslog", "termios", "tty", "pty", "posix"}
    wrong = []
    for name, path in modules().items():
        for node in ast.parse(path.read_bytes()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            wrong += [f"{name} imports {one}" for one in names if one in unix]
    assert wrong == []
