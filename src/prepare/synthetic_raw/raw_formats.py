"""The writers of generated raw files: Amazon 2014, Amazon 2023, own tables; see raw.py."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prepare.pipeline import whole_file
from prepare.synthetic_raw.raw_files import broken_png, names, png, whole_lines, write_lines
from prepare.synthetic_raw.raw_spec import Drawn, RawSpec
from prepare.synthetic_raw.raw_words import item_text, review_text
from utils.files import make_folder

BLOCK = 2**16  # rows handled at once
CUT = 0.3  # share of a file's bytes that is left out where it is to break off
Between = dict[int, list[bytes]]

# Lines that a reader has to refuse, one kind after the other; {n} tells them apart.
BAD_RATINGS = ("ABAD{n},B00BAD\n", "ABAD{n},B000000BAD,five,1369612800\n", "ABAD{n},B000000BAD,5.0,yesterday\n",
               ",B000000BAD,5.0,136961{n}\n", "ABAD{n},B000000BAD,5.0,1369612800,1,2\n")  # fmt: skip
BAD_REVIEWS = ('{{"reviewerID": "ABAD{n}", "asin": \n', "no JSON at all {n}\n", "[{n}]\n", '{{"overall": {n}}}\n')
BAD_META = ("{{'asin': 'B00BAD\n", "{{'asin': __import__('os').getcwd(), 'title': 'Code {n}'}}\n", "['asin', {n}]\n",
            "{{'title': 'No asin {n}'}}\n")  # fmt: skip
BAD_META_2023 = ('{{"parent_asin": "B00BAD\n', "no JSON at all {n}\n", "[{n}]\n", '{{"title": "No parent {n}"}}\n')
BAD_ROWS = ("ABAD{n},B000000BAD\n", "ABAD{n},B000000BAD,five,1369612800\n", "ABAD{n},B000000BAD,5.0,yesterday\n",
            ",B000000BAD,5.0,136961{n}\n")  # fmt: skip


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
        return CUT if what in self.spec.cut else 0.0


def _shared(attribute_names: tuple[str, ...]) -> int:
    return sum(name.startswith("shared_") for name in attribute_names)


def write_amazon_2014(spec: RawSpec, drawn: Drawn, folder: Path) -> dict[str, Any]:
    """ratings_<Category>.csv, reviews_<Category>_5.json.gz, meta_<Category>.json.gz and image_features_<Category>.b."""
    planted = Planted(spec, drawn, "A", 14)
    files: dict[str, Any] = {}
    rating_line = "{},{},{}.0,{}\n"
    files[f"ratings_{spec.category}.csv"] = _write_ratings(
        planted, folder / f"ratings_{spec.category}.csv", "", rating_line, BAD_RATINGS
    )

    def review(row: int, user: str, item: str, rating: int, when: int, text: str) -> dict[str, Any]:
        return {
            "reviewerID": user,
            "asin": item,
            "reviewerName": f"Reader {user[-4:]}",
            "helpful": [0, row % 3],
            "reviewText": text,
            "overall": float(rating),
            "summary": text.partition(";")[0],
            "unixReviewTime": when,
            "reviewTime": time.strftime("%m %d, %Y", time.gmtime(when)),
        }

    name = f"reviews_{spec.category}_5.json.gz"
    files[name] = _write_reviews(planted, folder / name, review, np.flatnonzero(drawn.core))

    def meta(item: int, name: str, text: dict[str, Any] | None) -> bytes:
        # Categories and other fields as public files have them; a text stands as Python writes it.
        line: dict[str, Any] = {"asin": name}
        if text:
            line |= {"description": text["description"], "title": text["title"]}
        line |= {"price": round(5 + item % 977 / 10, 2)}
        if item not in planted.no_image:
            line["imUrl"] = f"{spec.image_base}{name}.png"
        line["related"] = {"also_viewed": [planted.item_names[(item + k) % drawn.n_items].decode() for k in (1, 2)]}
        line["salesRank"] = {spec.category.replace("_", " "): item + 1}
        if text:
            line |= {"brand": text["brand"]} if text["brand"] else {}
            line["categories"] = [text["categories"]]
        return f"{line!r}\n".encode()

    name = f"meta_{spec.category}.json.gz"
    files[name] = _write_meta(planted, folder / name, meta, BAD_META)
    files[f"image_features_{spec.category}.b"] = _write_features(planted, folder / f"image_features_{spec.category}.b")
    if spec.image_files:
        files["images"] = _write_images(planted, folder / "images")
    return files


def write_amazon_2023(spec: RawSpec, drawn: Drawn, folder: Path) -> dict[str, Any]:
    """<Category>.jsonl.gz and meta_<Category>.jsonl.gz, with images by address."""
    planted = Planted(spec, drawn, "A", 28)

    def review(row: int, user: str, item: str, rating: int, when: int, text: str) -> dict[str, Any]:
        return {
            "rating": float(rating),
            "title": text.partition(";")[0],
            "text": text,
            "images": [],
            "asin": item if row % 3 else f"B0V{item[3:]}",  # a variant of the product
            "parent_asin": item,
            "user_id": user,
            "timestamp": when * 1000 + row % 1000,
            "helpful_vote": row % 3,
            "verified_purchase": bool(row % 5),
        }

    def meta(item: int, name: str, text: dict[str, Any] | None) -> bytes:
        address = f"{spec.image_base}{name}.png"
        image = {"thumb": address, "large": address, "variant": "MAIN", "hi_res": address if item % 2 else None}
        told = text or {"title": None, "brand": None, "categories": [], "description": ""}
        line = {
            "main_category": spec.category.replace("_", " "),
            "title": told["title"],
            "average_rating": 4.0 + item % 10 / 10,
            "rating_number": item % 500,
            "features": [part for part in str(told["description"]).split(". ") if part][:1],
            "description": [told["description"]] if told["description"] else [],
            "price": None if item % 4 else round(5 + item % 977 / 10, 2),
            "images": [] if item in planted.no_image else [image],
            "videos": [],
            "store": told["brand"] or None,
            "categories": told["categories"],
            "details": {"Item model number": str(item)},
            "parent_asin": name,
            "bought_together": None,
        }
        return f"{json.dumps(line)}\n".encode()

    files: dict[str, Any] = {}
    name = f"{spec.category}.jsonl.gz"
    files[name] = _write_reviews(planted, folder / name, review, np.arange(len(drawn.users)))
    name = f"meta_{spec.category}.jsonl.gz"
    files[name] = _write_meta(planted, folder / name, meta, BAD_META_2023)
    if spec.image_files:
        files["images"] = _write_images(planted, folder / "images")
    return files


def write_own(spec: RawSpec, drawn: Drawn, folder: Path) -> dict[str, Any]:
    """interactions.csv, items.csv and images/ITEM.png, as somebody with data of their own has them."""
    planted = Planted(spec, drawn, "user-", 12)
    files: dict[str, Any] = {}
    header = "user,item,rating,time\n"
    files["interactions.csv"] = _write_ratings(planted, folder / "interactions.csv", header, "{},{},{},{}\n", BAD_ROWS)
    counts = {"lines": 1, "items": 0, "empty_text": 0, "non_utf8": 0, "missing": len(planted.no_meta)}

    def lines() -> Iterator[bytes]:
        yield b"item,title,brand,categories,description\n"
        for item, name, text in planted.texts():
            told = text or {"title": "", "brand": "", "categories": [], "description": ""}
            row = [name, told["title"], told["brand"], " > ".join(told["categories"]), told["description"]]
            buffer = io.StringIO()
            csv.writer(buffer, lineterminator="\n").writerow(row)
            counts["items"] += 1
            counts["empty_text"] += text is None
            yield _not_utf8(buffer.getvalue().encode(), b"Made", item in planted.latin, counts)

    counts["lines"] = write_lines(folder / "items.csv", lines())
    files["items.csv"] = counts
    files["images"] = _write_images(planted, folder / "images")
    return files


def _write_ratings(planted: Planted, path: Path, header: str, form: str, bad: tuple[str, ...]) -> dict[str, Any]:
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

    again = (line(row, *_again(drawn, row, number)) for number, row in enumerate(planted.repeated.tolist()))
    between = planted.between(len(drawn.users), bad, again)
    if header and 0 in between:  # nothing stands before the header
        between.setdefault(1, []).extend(between.pop(0))
    written = write_lines(path, lines(), between)
    return {
        "lines": written - bool(header),
        "interactions": len(drawn.users),
        "malformed": planted.spec.malformed,
        "duplicated": planted.spec.duplicated,
    }


def _again(drawn: Drawn, row: int, number: int) -> tuple[int, int]:
    """Rating and time of a repeated interaction: the same, or others for every second one."""
    rating, when = int(drawn.ratings[row]), int(drawn.times[row])
    return (rating % 5 + 1, when + 30 * 86_400) if number % 2 else (rating, when)


def _write_reviews(
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
        return _not_utf8(f"{json.dumps(form(row, *name, rating, when, text))}\n".encode(), b"said", latin, counts)

    def lines() -> Iterator[bytes]:
        for row in rows.tolist():
            yield line(row, int(drawn.ratings[row]), int(drawn.times[row]), row in planted.latin_reviews)

    again = [line(row, *_again(drawn, row, number), False) for number, row in enumerate(planted.repeated.tolist())]
    written = write_lines(
        path, lines(), planted.between(len(rows), BAD_REVIEWS, iter(again)), planted.is_cut("reviews")
    )
    out = {
        "lines": written,
        "interactions": len(rows),
        "malformed": planted.spec.malformed,
        "duplicated": planted.spec.duplicated,
        **counts,
    }
    return _cut_lines(out, path, planted.is_cut("reviews"))


def _write_meta(
    planted: Planted, path: Path, form: Callable[[int, str, dict[str, Any] | None], bytes], bad: tuple[str, ...]
) -> dict[str, Any]:
    """A line for each item that has metadata, with broken ones in between; its counts."""
    counts = {"items": 0, "empty_text": 0, "non_utf8": 0}

    def lines() -> Iterator[bytes]:
        for item, name, text in planted.texts():
            counts["items"] += 1
            counts["empty_text"] += text is None
            yield _not_utf8(form(item, name, text), b"Made", item in planted.latin, counts)

    written = write_lines(path, lines(), planted.between(planted.drawn.n_items, bad), planted.is_cut("meta"))
    out = {"lines": written, "malformed": planted.spec.malformed, "missing": len(planted.no_meta), **counts}
    return _cut_lines(out, path, planted.is_cut("meta"))


def _not_utf8(line: bytes, word: bytes, wanted: bool, counts: dict[str, int]) -> bytes:
    """The line, where wanted with a letter in Latin-1 in its text, which is counted."""
    if not wanted:
        return line
    counts["non_utf8"] += 1
    return line.replace(word, word + b"\xe9", 1)


def _cut_lines(counts: dict[str, Any], path: Path, cut: float) -> dict[str, Any]:
    """The counts, with the number of whole lines that are left where the file breaks off."""
    return counts | {"whole_lines": whole_lines(path)} if cut else counts


def _write_features(planted: Planted, path: Path) -> dict[str, Any]:
    """Records of 10 bytes of ASIN and the float32 features, little-endian: a mix of the visual signs, noise and offset."""
    spec, signs = planted.spec, planted.signs[0]
    random = np.random.Generator(np.random.PCG64([spec.seed, 5]))
    width, n_signs = spec.image_width, signs.shape[1]
    mixing = random.standard_normal((n_signs, width), dtype=np.float32) / np.float32(np.sqrt(n_signs))
    offset = random.standard_normal(width, dtype=np.float32)
    kept = [i for i in range(min(spec.items + spec.extra_images, len(signs))) if i not in planted.no_image]
    record = np.dtype([("asin", "S10"), ("feature", "<f4", (width,))])
    size, step = record.itemsize, 256
    with whole_file(path) as file:
        for start in range(0, len(kept), step):
            items = np.array(kept[start : start + step])
            block = np.float32(0.5) * random.standard_normal((len(items), width), dtype=np.float32) + offset
            for visible, direction in zip(signs[items].astype(np.float32).T, mixing, strict=True):
                block += visible[:, None] * direction  # the last bits of a matrix product depend on the machine
            block[np.isin(items, list(planted.bad_image)), :: max(1, width // 8)] = np.nan
            records = np.empty(len(items), dtype=record)
            records["asin"], records["feature"] = planted.item_names[items], block
            file.write(records.tobytes())
        if planted.is_cut("images"):
            file.truncate(len(kept) * size - size // 2)
    counts = {"records": len(kept), "missing": len(planted.no_image), "broken": len(planted.bad_image)}
    return counts | ({"broken_off": 1} if planted.is_cut("images") else {})


def _write_images(planted: Planted, folder: Path) -> dict[str, Any]:
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
        with whole_file(folder / f"{name.decode()}.png") as file:
            file.write(broken_png(content, written) if item in planted.bad_image else content)
        written += 1
    return {"files": written, "missing": len(planted.no_image), "broken": len(planted.bad_image)}
