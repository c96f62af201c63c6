"""What a source of raw data is: the files it needs, its interactions, its items.

A new source is one file here and one YAML file of the same name in configs/sources. The YAML file says where the files are
published and what they are called; the Python file has a `Published` source named SOURCE that reads them.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from prepare.interactions import Interactions
from prepare.lines import NOT_KEPT, Reading, Tally
from utils.config.yaml_files import read_yaml
from utils.errors import UserError, nearest
from utils.paths import CONFIGS, own_module

REPLACED = "\ufffd"


@dataclass(frozen=True)
class Item:
    """An item's text and the address of its image; empty where there is none."""

    id: str
    text: str
    image: str = ""


class Source(Protocol):
    """Raw data of one layout. `files` is the mapping of kinds of files to their paths, as `find` gives it."""

    name: str

    def interaction_file(self, files: Mapping[str, Path]) -> Path:
        """The file that holds the interactions."""

    def item_file(self, files: Mapping[str, Path]) -> Path | None:
        """The file that describes the items, if there is one."""

    def interactions(self, files: Mapping[str, Path], how: Reading) -> tuple[Interactions, Tally, dict[str, str]]:
        """The interactions, what became of the rows, and the columns that were used (role to name)."""

    def items(self, files: Mapping[str, Path], wanted: Mapping[str, int], how: Reading) -> Iterator[Item | Tally]:
        """Each wanted item that is described, once, in the order of the file; then the tally."""


class Published:
    """A published data set, whose YAML file has these keys.

    categories: name of a data set to its category, which stands for {category} in the files' names.
    files: kind of file to its place below `url`; the last part is the file's name. archive: a .zip file that holds them.
    interactions, items: the kinds that hold these; the first one that is there is read.
    k_core: the default of --k_core. page: where the data are described.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @cached_property
    def settings(self) -> dict[str, Any]:
        return read_yaml(CONFIGS / "sources" / f"{self.name}.yaml", f"sources/{self.name}.yaml")

    def file_names(self, category: str) -> dict[str, str]:
        """Kind of file to its name."""
        return {kind: str(place).format(category=category).rpartition("/")[2]
                for kind, place in self.settings["files"].items()}  # fmt: skip

    def needs_category(self) -> bool:
        return any("{category}" in place for place in self.settings["files"].values())

    def address(self, kind: str, category: str, mirror: str | None = None) -> str:
        """Where a file, or the archive that holds it, is published; a mirror takes the place of the publisher's server."""
        place = self.settings.get("archive") or self.settings["files"][kind]
        return f"{(mirror or self.settings['url']).rstrip('/')}/{place.format(category=category)}"

    def _places(self, folder: Path, category: str) -> dict[str, Path]:
        """The files that are there, in the folder or in one below it called like the category."""
        found = {}
        for kind, name in self.file_names(category).items():
            for place in (folder / name, folder / (category or "?") / name):
                if kind not in found and place.exists():
                    found[kind] = place
        return found

    def find(self, folder: Path, category: str, use: str | None = None) -> dict[str, Path]:
        """The files that are there, of those with interactions only the one to read.

        Raises:
            UserError: if there are no interactions.
        """
        present, kinds = self._places(folder, category), self._kinds(use)
        chosen = next((kind for kind in kinds if kind in present), None)
        if chosen is None:
            wanted = " or ".join(self.file_names(category)[kind] for kind in kinds)
            listing = sorted(p.name for p in folder.iterdir())[:8] if folder.is_dir() else []
            what = (
                f"there is {', '.join(listing)}" if listing else "it is empty" if folder.is_dir() else "no such folder"
            )
            hint = f"published at {self.settings.get('page') or self.address(kinds[0], category)}"
            if any(name.endswith(".zip") for name in listing):
                hint = "unpack the .zip file"
            more = ", or add --download" if "url" in self.settings else ""
            raise UserError(f"{folder}: no {wanted}; {what}. Put it there ({hint}){more}")
        return {
            kind: path for kind, path in present.items() if kind == chosen or kind not in self.settings["interactions"]
        }

    def _kinds(self, use: str | None) -> list[str]:
        kinds = self.settings["interactions"]
        if use and use not in kinds:
            raise UserError(f"--use: {self.name} has {', '.join(kinds)}, got '{use}'{nearest(use, kinds)}")
        return [use] if use else kinds

    def to_download(self, folder: Path, category: str, use: str | None, mirror: str | None) -> list[tuple[str, Path]]:
        """Address and place of each published file that is missing: interactions, items and whatever else there is.

        Raises:
            UserError: if the publisher has no address that can be fetched from.
        """
        if "url" not in self.settings and not mirror:
            raise UserError(f"--download: {self.name} has to be fetched by hand from {self.settings['page']}")
        present, kinds = self._places(folder, category), self._kinds(use)
        wanted = [] if any(kind in present for kind in kinds) else [kinds[0]]
        if "archive" in self.settings:
            target = folder / self.settings["archive"].format(category=category)
            return [(self.address("", category, mirror), target)] if wanted else []
        wanted += [
            kind for kind in self.settings["files"] if kind not in present and kind not in self.settings["interactions"]
        ]
        return [(self.address(kind, category, mirror), folder / self.file_names(category)[kind]) for kind in wanted]

    def interaction_file(self, files: Mapping[str, Path]) -> Path:
        return next(files[kind] for kind in self.settings["interactions"] if kind in files)

    def item_file(self, files: Mapping[str, Path]) -> Path | None:
        return next((files[kind] for kind in self.settings.get("items", ()) if kind in files), None)


def source_names() -> list[str]:
    """The published sources: those with a YAML file and a Python file of the same name."""
    here = Path(__file__).parent
    return sorted(path.stem for path in (CONFIGS / "sources").glob("*.yaml") if (here / f"{path.stem}.py").is_file())


def published_source(name: str) -> Any:
    """The source of a name.

    Raises:
        UserError: if there is none.
    """
    if name not in source_names():
        known = source_names()
        raise UserError(f"--source: expected {', '.join(known)}, got '{name}'{nearest(name, known)}")
    return own_module(f"prepare.sources.{name}").SOURCE


# What all readers share


def is_first_wanted(name: str, wanted: Container[str], seen: set[str], tally: Tally, at: int) -> bool:
    """Whether an item's row is kept, which is counted: the first row of a wanted item, which is added to `seen`."""
    if name not in wanted:
        tally.drop(NOT_KEPT, 0, name)
    elif name in seen:
        tally.drop("of an item that has one already", at, name)
    else:
        seen.add(name)
        tally.kept += 1
        return True
    return False


def item_of_words(
    name: str, words: Sequence[str], tally: Tally, at: int, image: str = "", is_utf8: bool = False
) -> Item:
    """An item whose text is made of words, white space made single; texts that are empty or not UTF-8 are counted."""
    text = " ".join(" ".join(words).split())
    if not text:
        tally.note("kept, without any text", at, name)
    if REPLACED in text and not is_utf8:
        tally.note("kept, with text that is not UTF-8", at, name)
    return Item(name, text, image)


def id_problem(value: str, what: str) -> str:
    """Why a text cannot be an id; empty if it can."""
    if not value:
        return f"without {what}"
    if REPLACED in value:
        return f"with an id of {what} that is not UTF-8"
    return "" if value.isprintable() else f"with an id of {what} that cannot be printed"


def number(text: str) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < 1e30 else None  # NaN is not less either


def whole_number(text: str) -> int | None:
    """A whole number that float64 holds exactly, or None."""
    value = number(text)
    return int(value) if value is not None and value == value // 1 and abs(value) < 2**53 else None
