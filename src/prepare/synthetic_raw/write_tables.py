"""Raw files of a user's own tables, of MovieLens (100K and 1M) and of MicroLens, as published."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prepare.sources.movielens import GENRES
from prepare.synthetic_raw.planted import Planted, not_utf8, write_images, write_meta, write_ratings
from prepare.synthetic_raw.raw_lines import write_lines
from prepare.synthetic_raw.raw_spec import Drawn, RawSpec

BAD_ROWS = ("ABAD{n},B000000BAD\n", "ABAD{n},B000000BAD,five,1369612800\n", "ABAD{n},B000000BAD,5.0,yesterday\n",
            ",B000000BAD,5.0,136961{n}\n")  # fmt: skip
BAD_TABS = tuple(line.replace(",", "\t") for line in BAD_ROWS)
BAD_FILMS = ("12\n", "|no id|\n", "::no id::Drama\n", "a|b|c|d|e|f\n")
BAD_PAIRS = ("9\n", ",9,1\n", "9,9,soon\n", "9,,1\n")


def write_own(spec: RawSpec, drawn: Drawn, folder: Path) -> dict[str, Any]:
    """interactions.csv, items.csv and images/ITEM.png, as somebody with data of their own has them."""
    planted = Planted(spec, drawn, "user-", 12)
    files: dict[str, Any] = {}
    header = "user,item,rating,time\n"
    files["interactions.csv"] = write_ratings(planted, folder / "interactions.csv", header, "{},{},{},{}\n", BAD_ROWS)
    counts = {"lines": 1, "items": 0, "empty_text": 0, "non_utf8": 0, "missing": len(planted.no_meta)}

    def lines() -> Iterator[bytes]:
        yield b"item,title,brand,categories,description\n"
        for item, name, text in planted.texts():
            words = text or {"title": "", "brand": "", "categories": [], "description": ""}
            row = [name, words["title"], words["brand"], " > ".join(words["categories"]), words["description"]]
            buffer = io.StringIO()
            csv.writer(buffer, lineterminator="\n").writerow(row)
            counts["items"] += 1
            counts["empty_text"] += text is None
            yield not_utf8(buffer.getvalue().encode(), b"Made", item in planted.latin, counts)

    counts["lines"] = write_lines(folder / "items.csv", lines())
    files["items.csv"] = counts
    files["images"] = write_images(planted, folder / "images")
    return files


def write_movielens(spec: RawSpec, drawn: Drawn, folder: Path) -> dict[str, Any]:
    """u.data and u.item, or where the category is ml-1m ratings.dat and movies.dat; ids are numbers from 1."""
    planted = _numbered(spec, drawn)
    films = spec.category == "ml-1m"
    files: dict[str, Any] = {}
    name, form = ("ratings.dat", "{}::{}::{}::{}\n") if films else ("u.data", "{}\t{}\t{}\t{}\n")
    files[name] = write_ratings(planted, folder / name, "", form, BAD_TABS)

    def film(item: int, name: str, text: dict[str, Any] | None) -> bytes:
        genres = [k for k, sign in enumerate(planted.signs[1][item][: len(GENRES) - 1], 1) if sign > 0]
        title = f"{text['title']} ({1950 + item % 50})" if text else ""
        if films:
            words = "|".join(GENRES[k] for k in genres) if text else ""
            return f"{name}::{title}::{words}\n".encode("latin-1")
        flags = "|".join("1" if k in genres and text else "0" for k in range(len(GENRES)))
        return f"{name}|{title}|01-Jan-{1950 + item % 50}||http://images.invalid/{name}|{flags}\n".encode("latin-1")

    name = "movies.dat" if films else "u.item"
    files[name] = write_meta(planted, folder / name, film, BAD_FILMS)
    return files


def write_microlens(spec: RawSpec, drawn: Drawn, folder: Path) -> dict[str, Any]:
    """CATEGORY_pairs.csv, CATEGORY_titles.csv and the covers; ids are numbers from 1."""
    planted = _numbered(spec, drawn)
    pairs, titles, covers = (f"{spec.category}_{what}" for what in ("pairs.csv", "titles.csv", "covers"))
    files: dict[str, Any] = {}
    # {2:.0s} leaves the rating out.
    files[pairs] = write_ratings(planted, folder / pairs, "user,item,timestamp\n", "{0},{1},{3}000\n", BAD_PAIRS)

    def title(item: int, name: str, text: dict[str, Any] | None) -> bytes:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerow([name, text["title"] if text else ""])
        return buffer.getvalue().encode()

    files[titles] = write_meta(planted, folder / titles, title, BAD_PAIRS[:1])
    files[covers] = write_images(planted, folder / covers)
    return files


def _numbered(spec: RawSpec, drawn: Drawn) -> Planted:
    """What is planted, with numbers from 1 as ids, in another order than that of the items."""
    planted = Planted(spec, drawn, "A", 14)
    planted.user_names, planted.item_names = (
        (1 + planted.random.permutation(n)).astype(bytes) for n in (drawn.n_users, drawn.n_items)
    )
    return planted
