"""What the Amazon reviews of 2014 and 2023 share: lines of reviews and of metadata, each read by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prepare.interactions import Collector, Interactions
from prepare.lines import Reading, Tally, records
from prepare.sources.source import Item, id_problem, is_first_wanted, item_of_words, number, whole_number

# What json.loads and ast.literal_eval raise for text that is something else, or is built to break them.
UNREADABLE = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


def read_reviews(
    path: Path, names: tuple[str, str, str, str], how: Reading
) -> tuple[Interactions, Tally, dict[str, str]]:
    """Reads JSON lines of reviews.

    Args:
        path: the file.
        names: the fields for user, item, rating and time.
        how: see `Reading`.
    """
    tally, collector = Tally(path.name), Collector(ratings=True, times=True)
    for at, line, content in records(path, tally, how, "a JSON object", lambda line: _mapping(line, json_of)):
        fields = [_word(content.get(name)) for name in names]
        if add_row(collector, tally, at, line, fields) and not is_utf8(line):
            tally.note("kept, with text that is not UTF-8", at, line)
    return collector.table(), tally, {}


def read_ratings(path: Path, separator: str, what: str, how: Reading) -> tuple[Interactions, Tally, dict[str, str]]:
    """Reads lines of user, item, rating and time without a header; `what` is what a line should be."""

    def fields_of(line: bytes) -> list[str] | None:
        fields = line.decode("utf-8", "replace").split(separator)
        return fields if len(fields) == 4 else None

    tally, collector = Tally(path.name), Collector(ratings=True, times=True)
    for at, line, fields in records(path, tally, how, what, fields_of):
        add_row(collector, tally, at, line, fields)
    return collector.table(), tally, {}


def add_row(collector: Collector, tally: Tally, at: int, line: bytes, fields: list[str]) -> bool:
    """Adds user, item, rating and time of a line as an interaction, or counts why not; whether it was added."""
    user, item = fields[0].strip(), fields[1].strip()
    rating, time = number(fields[2]), whole_number(fields[3])
    problem = id_problem(user, "user") or id_problem(item, "item")
    if not problem and rating is None:
        problem = "without a rating that is a number"
    if not problem and time is None:
        problem = "without a time that is a whole number"
    if problem or rating is None or time is None:
        tally.drop(f"malformed: {problem}", at, line)
        return False
    tally.kept += 1
    collector.add(user, item, rating, time)
    return True


def read_meta(
    path: Path,
    key: str,
    fields: tuple[str, ...],
    form: tuple[str, Callable[[bytes], Any]],
    wanted: Mapping[str, int],
    how: Reading,
    early_id: Callable[[bytes], str | None] = lambda line: None,
) -> Iterator[Item | Tally]:
    """Reads metadata of the wanted items: each once, in the order of the file, then the tally.

    Args:
        path: the file.
        key: the field of the item's id.
        fields: those that make the text.
        form: what a line is called and how it is read.
        wanted: the items' ids.
        how: see `Reading`.
        early_id: the item's id from the beginning of a line, where it can be told; other items' lines are not read.
    """
    tally, seen = Tally(path.name), set[str]()

    def parse(line: bytes) -> dict[Any, Any] | None:
        early = early_id(line)
        return _mapping(line, form[1]) if early is None or early in wanted else {key: early}

    for at, line, content in records(path, tally, how, f"a {form[0]}", parse):
        name = _word(content.get(key)).strip()
        if problem := id_problem(name, key):
            tally.drop(f"malformed: {problem}", at, line)
        elif is_first_wanted(name, wanted, seen, tally, at):
            words = [word for field in fields for word in _words(content.get(field))]
            yield item_of_words(name, words, tally, at, image_url(content), is_utf8(line))
    yield tally


def json_of(line: bytes) -> Any:
    return json.loads(line.decode("utf-8", "replace"))


def _mapping(line: bytes, read: Callable[[bytes], Any]) -> dict[Any, Any] | None:
    try:
        content = read(line)
    except UNREADABLE:
        return None
    return content if isinstance(content, dict) else None


def _word(value: Any) -> str:
    """A text without halves of surrogate pairs, which JSON may hold and UTF-8 may not; numbers as they are written."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _words(value: Any) -> Iterable[str]:
    """The words of a text, or of all texts in nested lists."""
    if isinstance(value, list | tuple):
        for part in value:
            yield from _words(part)
    elif value:
        yield from _word(value).split()


def is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def image_url(content: Mapping[Any, Any]) -> str:
    """The address of an item's main image, the largest of its sizes; empty where there is none."""
    images = content.get("images")
    candidates: list[Any] = [content.get("imUrl"), content.get("imageURLHighRes")]
    if isinstance(images, dict):  # a list for each size
        candidates += [images.get(size) for size in ("hi_res", "large", "thumb")]
    elif isinstance(images, list):
        mappings = [image for image in images if isinstance(image, dict)]
        main = [image for image in mappings if image.get("variant") == "MAIN"] + mappings
        candidates += [image.get(size) for image in main[:1] for size in ("hi_res", "large", "thumb")]
    for candidate in candidates:
        first = next((c for c in candidate if c), None) if isinstance(candidate, list) else candidate
        if isinstance(first, str) and first.startswith(("http://", "https://")):
            return _word(first)
    return ""
