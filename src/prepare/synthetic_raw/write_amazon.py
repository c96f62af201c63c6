"""The raw files of Amazon 2014 and 2023, as published."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from prepare.synthetic_raw.planted import Planted, write_images, write_meta, write_ratings, write_reviews
from prepare.synthetic_raw.raw_spec import Drawn, RawSpec
from utils.files import atomic_file

# Lines that a reader has to refuse, one kind after the other; {n} tells them apart.
BAD_RATINGS = ("ABAD{n},B00BAD\n", "ABAD{n},B000000BAD,five,1369612800\n", "ABAD{n},B000000BAD,5.0,yesterday\n",
               ",B000000BAD,5.0,136961{n}\n", "ABAD{n},B000000BAD,5.0,1369612800,1,2\n")  # fmt: skip
BAD_META = ("{{'asin': 'B00BAD\n", "{{'asin': __import__('os').getcwd(), 'title': 'Code {n}'}}\n", "['asin', {n}]\n",
            "{{'title': 'No asin {n}'}}\n")  # fmt: skip
BAD_META_2023 = ('{{"parent_asin": "B00BAD\n', "no JSON at all {n}\n", "[{n}]\n", '{{"title": "No parent {n}"}}\n')


def write_amazon_2014(spec: RawSpec, drawn: Drawn, folder: Path) -> dict[str, Any]:
    """ratings_<Category>.csv, reviews_<Category>_5.json.gz, meta_<Category>.json.gz and image_features_<Category>.b."""
    planted = Planted(spec, drawn, "A", 14)
    files: dict[str, Any] = {}
    rating_line = "{},{},{}.0,{}\n"
    files[f"ratings_{spec.category}.csv"] = write_ratings(
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
    files[name] = write_reviews(planted, folder / name, review, np.flatnonzero(drawn.core))

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
    files[name] = write_meta(planted, folder / name, meta, BAD_META)
    files[f"image_features_{spec.category}.b"] = _write_features(planted, folder / f"image_features_{spec.category}.b")
    if spec.image_files:
        files["images"] = write_images(planted, folder / "images")
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
        known = text or {"title": None, "brand": None, "categories": [], "description": ""}
        line = {
            "main_category": spec.category.replace("_", " "),
            "title": known["title"],
            "average_rating": 4.0 + item % 10 / 10,
            "rating_number": item % 500,
            "features": [part for part in str(known["description"]).split(". ") if part][:1],
            "description": [known["description"]] if known["description"] else [],
            "price": None if item % 4 else round(5 + item % 977 / 10, 2),
            "images": [] if item in planted.no_image else [image],
            "videos": [],
            "store": known["brand"] or None,
            "categories": known["categories"],
            "details": {"Item model number": str(item)},
            "parent_asin": name,
            "bought_together": None,
        }
        return f"{json.dumps(line)}\n".encode()

    files: dict[str, Any] = {}
    name = f"{spec.category}.jsonl.gz"
    files[name] = write_reviews(planted, folder / name, review, np.arange(len(drawn.users)))
    name = f"meta_{spec.category}.jsonl.gz"
    files[name] = write_meta(planted, folder / name, meta, BAD_META_2023)
    if spec.image_files:
        files["images"] = write_images(planted, folder / "images")
    return files


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
    with atomic_file(path) as file:
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
