"""README is short, links of the documentation lead somewhere, the site has every page, and the page of keys is fresh."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_tools import ROOT

DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md"))])
CODE = re.compile(r"^ *```.*?^ *```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def test_the_readme_is_read_in_ten_minutes():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120
    assert [line for line in lines if len(line) > 100] == []


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as Markdown's toc makes them."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub(lambda found: found[0].strip("`"), path.read_text()), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path):
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", path.read_text())):
        name, _, anchor = target.partition("#")
        if "://" in name:
            continue
        place = (path.parent / name).resolve() if name else path
        inside = place.is_relative_to(DOCS) and place.is_file()  # a link out of the site is an error to MkDocs
        good = inside if path.is_relative_to(DOCS) else place.exists()
        if not good or (anchor and anchor not in anchors(place)):
            wrong.append(target)
    assert wrong == []


def files_of(nav: Any) -> Iterator[str]:
    for one in nav.values() if isinstance(nav, dict) else nav:
        if isinstance(one, str):
            yield one
        else:
            yield from files_of(one)


def test_the_site_has_every_page_once():
    listed = list(files_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(listed) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_the_page_of_keys_is_what_the_settings_say():
    spec = importlib.util.spec_from_file_location("write_keys", DOCS / "write_keys.py")
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    written = (DOCS / "keys.md").read_text()
    assert written == script.page(), "stale: python docs/write_keys.py writes it"
    assert "| `learning_rate` | `0.001` | a number above 0 | learning rate |" in written


@pytest.mark.parametrize("path", [path for path in PAGES if path.name != "report.md"], ids=lambda path: path.stem)
def test_lines_are_read_without_scrolling(path: Path):
    code = CODE.sub(lambda found: re.sub(r"[^\n]", "", found[0]) if "\n" in found[0] else found[0], path.read_text())
    lines = [line for line in code.splitlines() if not line.lstrip().startswith(("|", "![", "<", ">"))]
    assert [line for line in lines if len(line) > 120 and "](" not in line] == []


REPORTS = [
    path for path in (DOCS / "results").rglob("*") if path.suffix in (".csv", ".md") and path.name != "README.md"
]
FIGURE = re.compile(r"(?<![\d.])0\.\d{4}(?!\d)")


@pytest.mark.parametrize(
    "path", [path for path in PAGES if path not in REPORTS and path.name != "keys.md"], ids=lambda path: path.stem
)
def test_measured_figures_stand_in_a_report(path: Path):
    """Figures of four decimals, as metrics are, but for published ones and what a command prints of the demo data."""
    text = CODE.sub("", path.read_text())
    text = re.sub(r"^## Published.*?(?=^## |\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
    ours = [part for part in re.split(r"\n\s*\n", text) if not part.lstrip().startswith("**Published**")]
    known = {
        f"{float(figure):.4f}"
        for report in REPORTS
        for figure in re.findall(r"(?<![\d.])0\.\d{4,}", report.read_text())
    }
    assert sorted(set(FIGURE.findall("\n".join(ours))) - known) == []
