"""Amazon Reviews 2023 (Hou et al., arXiv 2403.03952): JSON lines of reviews and metadata, items by `parent_asin`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from prepare.interactions import Interactions
from prepare.lines import Reading, Tally
from prepare.sources.amazon import json_of, read_meta, read_reviews
from prepare.sources.source import Item, Published

FIELDS = ("user_id", "parent_asin", "rating", "timestamp")
TEXT = ("title", "store", "categories", "features", "description")


class Amazon2023(Published):
    """The files of one category."""

    def interactions(self, files: Mapping[str, Path], how: Reading) -> tuple[Interactions, Tally, dict[str, str]]:
        return read_reviews(files["reviews"], FIELDS, how)

    def items(self, files: Mapping[str, Path], wanted: Mapping[str, int], how: Reading) -> Iterator[Item | Tally]:
        return read_meta(files["meta"], "parent_asin", TEXT, ("JSON object", json_of), wanted, how)


SOURCE = Amazon2023("amazon2023")
