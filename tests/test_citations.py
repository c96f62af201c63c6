"""Each model's page ends with the BibTeX entry of its paper."""

import re
from pathlib import Path

import pytest
from cli_tools import ROOT

from runner.registry import available_models

PAGES = sorted((ROOT / "docs" / "models").glob("*.md"))
WITHOUT_PAPER = {"give", "mostpop"}
AUTHORS_UNKNOWN = {"mmgcf", "msca"}
ENTRY = re.compile(r"\n```bibtex\n@(inproceedings|article)\{([a-z]+\d{4}\w*),\n(.*)\n\}\n```\n\Z", re.DOTALL)
FIELD = re.compile(r"  (\w+) += \{((?:[^{}]|\{[^{}]*\})+)\}(?:,\n|\Z)")


def entry_of(page: Path) -> tuple[str, str, dict[str, str]]:
    found = ENTRY.search(page.read_text(encoding="utf-8"))
    assert found, f"{page.name} ends without an entry"
    kind, key, body = found.groups()
    assert "".join(field.group(0) for field in FIELD.finditer(body)) == body, "fields, one after another, and no more"
    return kind, key, dict(FIELD.findall(body))


def test_every_model_with_a_paper_has_a_page():
    assert {page.stem for page in PAGES} == {name.lower() for name in available_models()}


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem not in WITHOUT_PAPER], ids=lambda page: page.stem)
def test_the_entry_is_well_formed_and_that_of_the_page(page):
    kind, key, fields = entry_of(page)
    needed = {"title", "year", "booktitle" if kind == "inproceedings" else "journal"}
    assert needed | ({"author"} if page.stem not in AUTHORS_UNKNOWN else set()) <= set(fields)
    assert re.fullmatch(r"(19|20)\d\d", fields["year"])
    assert fields["year"] in key
    for author in re.split(r"\s+and\s+", fields.get("author", "others")):
        assert author == "others" or re.fullmatch(r"[^,]+, [^,]+", author), author
    text = page.read_text(encoding="utf-8").partition("## Cite")[0]
    if "eprint" in fields:
        assert f"arxiv.org/abs/{fields['eprint']}" in text


def test_keys_are_told_apart():
    keys = [entry_of(page)[1] for page in PAGES if page.stem not in WITHOUT_PAPER]
    assert len(set(keys)) == len(keys)
