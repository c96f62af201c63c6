"""Amazon reviews of 2014 and 2023 as their authors publish them: interactions, texts and image addresses, line by line."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prepare.interactions import Collector, Interactions
from prepare.lines import NOT_KEPT, Advance, Tally, read_lines
from prepare.sources.item_texts import Item, first_wanted
from prepare.sources.separated import REPLACED, id_problem, number
from utils.config.yaml_files import read_yaml
from utils.errors import UserError
from utils.paths import CONFIGS

MAX_LITERAL = 1 << 20  # bytes of a line that is read as a Python literal
# What literal_eval and json.loads raise for text that is something else, or is built to break them.
UNREADABLE = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)
# A line of metadata whose first entry is the item: of other items nothing more needs to be read.
FIRST_ASIN = re.compile(rb"""\{(?:'asin': '([^'"\\]*)'|"asin": "([^'"\\]*)")[,}]""")


@dataclass(frozen=True)
class Fields:
    """Names of the fields of a review line, and units of its time per unit kept."""

    user: str
    item: str
    rating: str
    time: str


REVIEW_FIELDS = {
    "amazon2014": Fields("reviewerID", "asin", "overall", "unixReviewTime"),
    "amazon2023": Fields("user_id", "parent_asin", "rating", "timestamp"),
}


def source_names(source: str) -> dict[str, Any]:
    """Names of the files of a source, and where they are published."""
    return read_yaml(CONFIGS / "sources" / f"{source}.yaml", f"sources/{source}.yaml")


def raw_names(source: str, category: str) -> dict[str, str]:
    """Kind of file (reviews, ratings, meta, image_features) to its name."""
    content = source_names(source)
    kinds = ("reviews", "ratings", "meta", "image_features")
    return {kind: str(content[kind]).format(category=category) for kind in kinds if kind in content}


def raw_url(source: str, kind: str, file: str, mirror: str | None = None) -> str:
    """Where a file is published; `mirror` takes the place of the authors' server."""
    content = source_names(source)
    return f"{(mirror or content['url']).rstrip('/')}/{content['folders'][kind]}{file}"


# Interactions


def read_ratings(
    path: Path, accept_truncated: bool = False, advance: Advance | None = None
) -> tuple[Interactions, Tally]:
    """Reads `ratings_<Category>.csv`: user, item, rating, time without a header."""
    tally = Tally(path.name)
    collector = Collector(ratings=True, times=True)
    for at, line in read_lines(path, tally, accept_truncated, advance):
        tally.read += 1
        fields = line.decode("utf-8", "replace").split(",")
        if not line.strip():
            tally.drop("blank", at)
        elif len(fields) != 4:
            tally.drop("malformed: not user,item,rating,timestamp", at, line)
        else:
            user, item = fields[0].strip(), fields[1].strip()
            _take(collector, tally, at, line, user, item, number(fields[2]), _time(fields[3]))
    return collector.table(), tally


def read_reviews(
    path: Path, source: str, accept_truncated: bool = False, advance: Advance | None = None
) -> tuple[Interactions, Tally]:
    """Reads JSON lines of reviews, of 2014 (`reviews_<Category>_5.json.gz`) or 2023 (`<Category>.jsonl.gz`)."""
    tally = Tally(path.name)
    names = REVIEW_FIELDS[source]
    collector = Collector(ratings=True, times=True)
    for at, line in read_lines(path, tally, accept_truncated, advance):
        tally.read += 1
        if not line.strip():
            tally.drop("blank", at)
            continue
        content = _mapping(line, _json)
        if content is None:
            tally.drop("malformed: not a JSON object", at, line)
            continue
        user, item = content.get(names.user), content.get(names.item)
        rating, time = _number(content.get(names.rating)), _time(content.get(names.time))
        kept = _take(collector, tally, at, line, _text(user).strip(), _text(item).strip(), rating, time)
        if kept and not _is_utf8(line):
            tally.note("kept, with text that is not UTF-8", at, line)
    return collector.table(), tally


def _take(
    collector: Collector,
    tally: Tally,
    at: int,
    line: bytes,
    user: str,
    item: str,
    rating: float | None,
    time: int | None,
) -> bool:
    problem = id_problem(user, "user") or id_problem(item, "item")
    if not problem and rating is None:
        problem = "without a rating that is a number"
    if not problem and time is None:
        problem = "without a time that is a whole number"
    if problem:
        tally.drop(f"malformed: {problem}", at, line)
        return False
    assert rating is not None
    assert time is not None
    tally.kept += 1
    collector.add(user, item, rating, time)
    return True


def _number(value: Any) -> float | None:
    return None if isinstance(value, bool) or not isinstance(value, int | float | str) else number(str(value))


def _time(value: Any) -> int | None:
    floating = _number(value)
    return int(floating) if floating is not None and floating == floating // 1 and abs(floating) < 2**53 else None


def _text(value: Any) -> str:
    """A text without halves of surrogate pairs, which JSON may hold and UTF-8 may not; numbers as they are written."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _is_utf8(line: bytes) -> bool:
    if line.isascii():
        return True
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _json(line: bytes) -> Any:
    return json.loads(line.decode("utf-8", "replace"))


def _literal(line: bytes) -> Any:
    """A line that is JSON, or else a Python literal: read by `ast.literal_eval`, which makes values and runs nothing."""
    if line.startswith(b'{"'):
        try:
            return _json(line)
        except UNREADABLE:
            pass
    if len(line) > MAX_LITERAL:
        raise ValueError("too long for a literal")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of unknown escapes, which stand for themselves
        return ast.literal_eval(line.decode("utf-8", "replace"))


def _mapping(line: bytes, read: Callable[[bytes], Any]) -> dict[Any, Any] | None:
    try:
        content = read(line)
    except UNREADABLE:
        return None
    return content if isinstance(content, dict) else None


# Metadata


def read_meta(
    path: Path,
    source: str,
    wanted: Mapping[str, int],
    accept_truncated: bool = False,
    advance: Advance | None = None,
) -> Iterator[Item | Tally]:
    """Reads metadata of the wanted items: each once, in the order of the file, then the tally.

    Lines of 2014 are Python literals (JSON is read too), those of 2023 are JSON.
    """
    tally = Tally(path.name)
    key, read = ("asin", _literal) if source == "amazon2014" else ("parent_asin", _json)
    seen: set[str] = set()
    for at, line in read_lines(path, tally, accept_truncated, advance):
        tally.read += 1
        if not line.strip():
            tally.drop("blank", at)
            continue
        if key == "asin" and (early := FIRST_ASIN.match(line)):
            name = (early[1] if early[1] is not None else early[2]).decode("utf-8", "replace").strip()
            if name not in wanted:
                tally.drop(NOT_KEPT, 0, name)
                continue
        content = _mapping(line, read)
        if content is None:
            tally.drop(
                "malformed: not a " + ("Python literal or JSON object" if key == "asin" else "JSON object"), at, line
            )
            continue
        name = _text(content.get(key)).strip()
        if problem := id_problem(name, key):
            tally.drop(f"malformed: {problem}", at, line)
        elif first_wanted(name, wanted, seen, tally, at):
            text = item_text(content, source)
            if not text:
                tally.note("kept, without any text", at, name)
            if REPLACED in text and not _is_utf8(line):
                tally.note("kept, with text that is not UTF-8", at, name)
            yield Item(name, text, image_url(content))
    yield tally


def item_text(content: Mapping[Any, Any], source: str) -> str:
    """Title, brand (store), categories, (features,) description of an item, white space made single."""
    names = ("title", "brand", "categories", "description")
    if source == "amazon2023":
        names = ("title", "store", "categories", "features", "description")  # type: ignore[assignment]
    return " ".join(" ".join(_words(content.get(name))) for name in names if content.get(name)).strip()


def _words(value: Any) -> Iterable[str]:
    """The words of a text, or of all texts in nested lists."""
    if isinstance(value, list | tuple):
        for part in value:
            yield from _words(part)
    else:
        yield from _text(value).split()


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
            return _text(first)
    return ""


def find_raw(folder: Path, source: str, category: str, use: str | None) -> dict[str, Path]:
    """The raw files that are there: interactions (and which kind they are by name), meta, image_features.

    Raises:
        UserError: if the folder has no interactions of the category.
    """
    names = raw_names(source, category)
    kinds = [use] if use else [kind for kind in ("reviews", "ratings") if kind in names]
    found = {}
    for kind in kinds:
        if kind in names and (folder / names[kind]).is_file():
            found[kind] = folder / names[kind]
            break
    else:
        wanted = " or ".join(names[kind] for kind in kinds if kind in names)
        there = sorted(p.name for p in folder.iterdir() if p.is_file())[:8] if folder.is_dir() else []
        urls = " or ".join(raw_url(source, kind, names[kind]) for kind in kinds if kind in names)
        raise UserError(
            f"{folder}: no {wanted}; "
            + (f"there is {', '.join(there)}" if there else f"no {'file there' if folder.is_dir() else 'such folder'}")
            + f". Put it there (published at {urls}), or --download fetches it"
        )  # fmt: skip
    found |= {k: folder / names[k] for k in ("meta", "image_features") if k in names and (folder / names[k]).is_file()}
    return found
