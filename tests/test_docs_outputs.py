"""What the documentation shows commands to print is what they print: each block of a page that begins with `$ `.

A line `...` stands for any lines, and `...` within a line for any text. A command without output has it left out.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from cli_tools import ROOT, run_here

BLOCKS = re.compile(r"^```\n(\$ .*?)^```", re.MULTILINE | re.DOTALL)
PAGES = {
    path.stem: found for path in sorted((ROOT / "docs").glob("*.md")) if (found := BLOCKS.findall(path.read_text()))
}


@pytest.mark.parametrize("page", PAGES)
def test_the_page_shows_what_the_commands_print(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MMR_DATA_PATH", raising=False)
    variables: dict[str, str] = {}
    for part in [part for block in PAGES[page] for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]:
        command, _, output = part.partition("\n")
        words = shlex.split(re.sub(r"\$(\w+)", lambda name: variables[name[1]], command))
        if words[0] == "cat":  # a file of the reader's own
            Path(words[1]).write_text(output)
        elif found := re.match(r"(\w+)=\$\(ls -d (.*)\)", command):
            (variables[found[1]],) = map(str, Path().glob(found[2]))
        else:
            assert words[:2] == ["python", "src/main.py"], command
            outcome = run_here(*words[2:])
            printed = "".join(f"{line.rstrip()}\n" for line in (outcome.err + outcome.out).splitlines())
            if output and not re.fullmatch(pattern(output), printed):
                assert printed == output, command


def pattern(output: str) -> str:
    """The regular expression of what a page shows."""
    lines = [
        "(?:.*\n)*?" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + "\n"
        for line in output.splitlines()
    ]
    return "".join(lines)


def test_pages_with_outputs_are_found():
    assert {"board", "data", "options", "use"} <= PAGES.keys()
    assert re.fullmatch(pattern("a (1)\n...\nb ... d\n"), "a (1)\nx\ny\nb c d\n")
    assert not re.fullmatch(pattern("a\nb ... d\n"), "a\nb c\nd\n")
