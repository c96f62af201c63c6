"""MicroLens (Ni et al., arXiv 2309.15379): pairs of user and item with a time, titles, and a folder of cover images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from prepare.interactions import Interactions
from prepare.lines import Reading, Tally
from prepare.sources.own import read_interactions, read_items
from prepare.sources.source import Item, Published


class MicroLens(Published):
    """The files of one size; some releases have a header, others have not."""

    def interactions(self, files: Mapping[str, Path], how: Reading) -> tuple[Interactions, Tally, dict[str, str]]:
        return read_interactions(files["pairs"], how, ("user", "item", "timestamp"))

    def items(self, files: Mapping[str, Path], wanted: Mapping[str, int], how: Reading) -> Iterator[Item | Tally]:
        path = self.item_file(files)
        assert path is not None
        return read_items(path, wanted, how, ("item", "title"))


SOURCE = MicroLens("microlens")
