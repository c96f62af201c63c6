"""Where generated raw files carry defects, and the lines that all layouts share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prepare.synthetic_raw.raw_lines import broken_png, complete_lines, names, png, write_lines
from prepare.synthetic_raw.raw_spec import Drawn, RawSpec
from prepare.synthetic_raw.raw_words import item_text, review_text
from utils.files import atomic_file, make_folder

BLOCK = 2**16  # rows handled at once
CUT = 0.3  # share of a file's bytes that is left out where it is to end early
Between = dict[int, list[bytes]]
BAD_REVIEWS = ('{{"reviewerID": "ABAD{n}", "asin": \n', "no JSON at all {n}\n", "[{n}]\n", '{{"overall": {n}}}\n')


class Planted:
    """Which items and rows carry which defect, and the names of all."""

    def __init__(self, spec: RawSpec, drawn: Drawn, user_prefix: str, user_length: int) -> None:
        self.spec, self.drawn = spec, drawn
        self.random = np.random.Generator(np.random.PCG64([spec.seed, 2]))
        self.user_names = names(np.arange(drawn.n_users), user_prefix, user_length, spec.seed)
        self.item_names = names(np.arange(drawn.n_items), "B00", 10, spec.seed)
        sizes = (spec.missing_metadata, spec.empty_text, spec.non_utf8)
        self.no_meta, self.no_text, self.latin = self._items(*sizes)
        self.no_image, self.bad_image = self._items(spec.missing_images, spec.broken_images)
        core_rows = np.flatnonzero(drawn.core)
        self.repeated = self.random.permutation(core_rows)[: spec.duplicated]
        self.latin_reviews = set(self.random.permutation(core_rows)[: spec.non_utf8].tolist())
        truth, extra = drawn.truth, drawn.n_items - spec.items
        plain = truth.item_attributes[:, : truth.item_attributes.shape[1] - truth.joint_signs.shape[2]]
        n_private = (plain.shape[1] - _shared(truth.attribute_names)) // 2
        n_shared = _shared(truth.attribute_names)
        parts = (slice(n_shared, n_shared + n_private), slice(n_shared + n_private, None))
        self.signs = []  # visual and textual, int8 [all items, S] each
        for modality, private in enumerate(parts):
            inside = np.concatenate([plain[:, :n_shared], plain[:, private], truth.joint_signs[:, modality]], axis=1)
            outside = 2 * self.random.integers(0, 2, (extra, inside.shape[1]), dtype=np.int8) - 1
            self.signs.append(np.concatenate([inside, outside]))

    def _items(self, *sizes: int) -> list[set[int]]:
        """Disjoint sets of items of the core."""
        order, ends = self.random.permutation(self.spec.items), np.cumsum(sizes)
        return [set(order[end - size : end].tolist()) for size, end in zip(sizes, ends, strict=True)]

    def between(self, n_lines: int, bad: tuple[str, ...], repeated: Iterator[bytes] = iter(())) -> Between:  # noqa: B008
        """Broken lines and repeated ones at random places among so many lines."""
        lines = [bad[n % len(bad)].format(n=n).encode() for n in range(self.spec.malformed)]
        out: Between = {}
        for line in [*lines, *repeated]:
            out.setdefault(int(self.random.integers(n_lines + 1)), []).append(line)
        return out

    def texts(self) -> Iterator[tuple[int, str, dict[str, Any] | None]]:
        """Of every item: its number, name and text; None: it has none. Items without metadata are left out."""
        random = np.random.Generator(np.random.PCG64([self.spec.seed, 3]))
        for item, name in enumerate(self.item_names.tolist()):
            text = item_text(self.signs[1][item], random, self.spec.category)
            if item not in self.no_meta:
                yield item, name.decode(), None if item in self.no_text else text

    def is_cut(self, what: str) -> float:
        return CUT if what in (self.spec.cut or ()) else 0.0


def _shared(attribute_names: tuple[str, ...]) -> int:
    return sum(name.startswith("shared_") for name in attribute_names)


def write_ratings(planted: Planted, path: Path, header: str, form: str, bad: tuple[str, ...]) -> dict[str, Any]:
    """A line for each interaction, with broken and repeated ones in between; its counts."""
    drawn = planted.drawn

    def line(row: int, rating: int, when: int) -> bytes:
        user, item = planted.user_names[drawn.users[row]], planted.item_names[drawn.items[row]]
        return form.format(user.decode(), item.decode(), rating, when).encode()

    def lines() -> Iterator[bytes]:
        if header:
            yield header.encode()
        for start in range(0, len(drawn.users), BLOCK):
            rows = slice(start, start + BLOCK)
            columns = (planted.user_names[drawn.users[rows]], planted.item_names[drawn.items[rows]])
            numbers = (drawn.ratings[rows].tolist(), drawn.times[rows].tolist())
            for user, item, rating, when in zip(*(c.astype(str).tolist() for c in columns), *numbers, strict=True):
                yield form.format(user, item, rating, when).encode()

    repeated = (line(row, *again(drawn, row, number)) for number, row in enumerate(planted.repeated.tolist()))
    between = planted.between(len(drawn.users), bad, repeated)
    if header and 0 in between:  # nothing stands before the header
        between.setdefault(1, []).extend(between.pop(0))
    written = write_lines(path, lines(), between)
    return {
        "lines": written - bool(header),
        "interactions": len(drawn.users),
        "malformed": planted.spec.malformed,
        "duplicated": planted.spec.duplicated,
    }


def again(drawn: Drawn, row: int, number: int) -> tuple[int, int]:
    """Rating and time of a repeated interaction: the same, or others for every second one."""
    rating, when = int(drawn.ratings[row]), int(drawn.times[row])
    return (rating % 5 + 1, when + 30 * 86_400) if number % 2 else (rating, when)


def write_reviews(
    planted: Planted, path: Path, form: Callable[..., dict[str, Any]], rows: NDArray[np.int64]
) -> dict[str, Any]:
    """A JSON line for each of the rows, with broken and repeated ones in between; its counts."""
    drawn, signs = planted.drawn, planted.signs[1]
    random = np.random.Generator(np.random.PCG64([planted.spec.seed, 4]))
    counts = {"non_utf8": 0}

    def line(row: int, rating: int, when: int, latin: bool) -> bytes:
        user, item = int(drawn.users[row]), int(drawn.items[row])
        text = review_text(signs[item], random)
        name = planted.user_names[user].decode(), planted.item_names[item].decode()
        return not_utf8(f"{json.dumps(form(row, *name, rating, when, text))}\n".encode(), b"said", latin, counts)

    def lines() -> Iterator[bytes]:
        for row in rows.tolist():
            yield line(row, int(drawn.ratings[row]), int(drawn.times[row]), row in planted.latin_reviews)

    repeated = [line(row, *again(drawn, row, number), False) for number, row in enumerate(planted.repeated.tolist())]
    written = write_lines(
        path, lines(), planted.between(len(rows), BAD_REVIEWS, iter(repeated)), planted.is_cut("reviews")
    )
    out = {
        "lines": written,
        "interactions": len(rows),
        "malformed": planted.spec.malformed,
        "duplicated": planted.spec.duplicated,
        **counts,
    }
    return cut_lines(out, path, planted.is_cut("reviews"))


def write_meta(
    planted: Planted, path: Path, form: Callable[[int, str, dict[str, Any] | None], bytes], bad: tuple[str, ...]
) -> dict[str, Any]:
    """A line for each item that has metadata, with broken ones in between; its counts."""
    counts = {"items": 0, "empty_text": 0, "non_utf8": 0}

    def lines() -> Iterator[bytes]:
        for item, name, text in planted.texts():
            counts["items"] += 1
            counts["empty_text"] += text is None
            yield not_utf8(form(item, name, text), b"Made", item in planted.latin, counts)

    written = write_lines(path, lines(), planted.between(planted.drawn.n_items, bad), planted.is_cut("meta"))
    out = {"lines": written, "malformed": planted.spec.malformed, "missing": len(planted.no_meta), **counts}
    return cut_lines(out, path, planted.is_cut("meta"))


def not_utf8(line: bytes, word: bytes, wanted: bool, counts: dict[str, int]) -> bytes:
    """The line, where wanted with a letter in Latin-1 in its text, which is counted."""
    if not wanted or word not in line:
        return line
    counts["non_utf8"] += 1
    return line.replace(word, word + b"\xe9", 1)


def cut_lines(counts: dict[str, Any], path: Path, cut: float) -> dict[str, Any]:
    """The counts, with the number of whole lines that are left where the file breaks off."""
    return counts | {"complete_lines": complete_lines(path)} if cut else counts


def write_images(planted: Planted, folder: Path) -> dict[str, Any]:
    """An image of each item, 16 x 16: bars whose brightness follows its visual signs; some missing, some broken."""
    make_folder(folder)
    random = np.random.Generator(np.random.PCG64([planted.spec.seed, 6]))
    written = 0
    for item, name in enumerate(planted.item_names.tolist()):
        noise = random.integers(-30, 31, (16, 16, 3))
        if item in planted.no_image:
            continue
        bars = np.resize(planted.signs[0][item].astype(np.int64), (3, 16)).T[None]  # [1, 16, 3]
        content = png((128 + 80 * bars + noise).astype(np.uint8))
        with atomic_file(folder / f"{name.decode()}.png") as file:
            file.write(broken_png(content, written) if item in planted.bad_image else content)
        written += 1
    return {"files": written, "missing": len(planted.no_image), "broken": len(planted.bad_image)}
