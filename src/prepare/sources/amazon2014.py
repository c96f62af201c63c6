"""Amazon reviews of 2014 (McAuley et al., SIGIR 2015): reviews, or ratings without a header, metadata, image features."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prepare.interactions import Interactions
from prepare.lines import Reading, Tally
from prepare.sources.amazon import UNREADABLE, json_of, read_meta, read_ratings, read_reviews
from prepare.sources.source import Item, Published

MAX_LITERAL = 1 << 20  # bytes of a line that is read as a Python literal
FIELDS = ("reviewerID", "asin", "overall", "unixReviewTime")
TEXT = ("title", "brand", "categories", "description")
# A line of metadata whose first entry is the item: of other items nothing more needs to be read.
FIRST_ASIN = re.compile(rb"""\{(?:'asin': '([^'"\\]*)'|"asin": "([^'"\\]*)")[,}]""")


class Amazon2014(Published):
    """The files of one category."""

    def interactions(self, files: Mapping[str, Path], how: Reading) -> tuple[Interactions, Tally, dict[str, str]]:
        if "ratings" in files:
            return read_ratings(files["ratings"], ",", "user,item,rating,timestamp", how)
        return read_reviews(files["reviews"], FIELDS, how)

    def items(self, files: Mapping[str, Path], wanted: Mapping[str, int], how: Reading) -> Iterator[Item | Tally]:
        form = "Python literal or JSON object", _literal
        return read_meta(files["meta"], "asin", TEXT, form, wanted, how, _early_id)


SOURCE = Amazon2014("amazon2014")


def _early_id(line: bytes) -> str | None:
    found = FIRST_ASIN.match(line)
    return None if found is None else (found[1] or found[2] or b"").decode("utf-8", "replace").strip()


def _literal(line: bytes) -> Any:
    """A line that is JSON, or else a Python literal: read by `ast.literal_eval`, which makes values and runs nothing."""
    if line.startswith(b'{"'):
        try:
            return json_of(line)
        except UNREADABLE:
            pass
    if len(line) > MAX_LITERAL:
        raise ValueError("too long for a literal")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of unknown escapes, which stand for themselves
        return ast.literal_eval(line.decode("utf-8", "replace"))
