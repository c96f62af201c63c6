"""What `prepare` is asked to do: from words of the command line to checked options."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cli.words import Words, whole_number
from prepare.content.encoder_registry import check_spec
from prepare.content.feature_files import FILLS
from prepare.sources import amazon
from prepare.sources.separated import KNOWN_COLUMNS
from prepare.splits import KINDS, LEAST
from prepare.steps import OWN, SOURCES, STEMS, Options
from utils.config.request import Request, data_folder
from utils.config.yaml_files import parse_yaml, read_yaml
from utils.data.dataset import SPLITS
from utils.errors import UserError, nearest

USAGE = """\
usage: main.py prepare NAME --raw DIR [--source amazon2014|amazon2023] [--category C] [options]
       main.py prepare NAME --interactions FILE [--images DIR] [--texts FILE] [--features NAME=FILE.npy ...] [options]

Makes DATA_PATH/NAME from raw files, step by step; the same command goes on after a kill and skips what is done.
NAME baby, sports, cell, clothing or elec stands for its Amazon category. See docs/data.md.

source:
  --raw DIR                folder of the published files
  --source S               amazon2014 (default) or amazon2023
  --category C             as in the files' names: Baby, Electronics...
  --use reviews|ratings    which interactions, where both are there (default reviews)
  --download               fetch files that are not in DIR, and images for --image_encoder
  --mirror URL             instead of the publishers' server
  --fetch_threads N        images fetched at a time (default 8)
own data:
  --interactions FILE      CSV or TSV with a header, plain or gzip
  --columns ROLE=NAME ...  columns for user, item, rating, time, split, where their names do not tell
  --texts FILE             CSV or TSV with a row for each item; --text_id NAME, --text_columns NAME ...
  --images DIR             files named by item id
  --features NAME=FILE ... .npy matrices; --feature_ids FILE (or NAME=FILE ...): the item id of each row, one a line
  --keep_ids               ids are numbers from 0 already: take them as they are (feature rows then go by item id)
interactions:
  --threshold R            only those rated R or better
  --duplicates first|last  of a repeated pair, by time (default first)
  --k_core K               users and items with at least K (default 5 for Amazon, 0 = off for own data)
  --split KIND             mmrec (default), chronological, leave_one_out, global_time, given
  --seed N                 of the split mmrec (default 0)
  --ratios T V E           shares of train, validation, test (default 0.8 0.1 0.1)
  --few N                  users with fewer rows hold out one each for validation and test (default 10)
  --least N                users with fewer rows stay in training (default 3)
content:
  --text_encoder E         a name, {encoder: tfidf, dim: 384}, a YAML file, or none
                           (default: sentence-transformers if it is installed, else tfidf)
  --image_encoder E        the same; without: published or own features only
  --fill_missing zero|mean rows of items without content (default zero); a mask file tells which
other:
  --accept_truncated       take the whole lines or records of files that end early
  --data_path DIR          the folder of data sets
  --dry_run                only say what would be done and why
  --quiet                  no progress bars
"""
FLAGS = ("download", "keep_ids", "accept_truncated", "dry_run", "quiet")
SINGLE = (
    "raw", "source", "category", "use", "mirror", "interactions", "texts", "text_id", "images", "threshold", "duplicates",
    "k_core", "split", "seed", "few", "least", "text_encoder", "image_encoder", "fill_missing", "fetch_threads",
    "data_path",
)  # fmt: skip
SEVERAL = ("columns", "text_columns", "features", "feature_ids", "ratios")
OWN_ONLY = ("columns", "texts", "text_id", "text_columns", "images", "features", "feature_ids")
RAW_ONLY = ("raw", "source", "category", "use", "mirror", "fetch_threads")


def read_options(name: str, words: Words) -> tuple[list[tuple[str, Path]], Options | None]:
    """What to download first (address and place), and, if that is nothing, what to prepare.

    Raises:
        UserError: with every mistake in the words.
    """
    own = "interactions" in words.options
    problems = [
        f"prepare: --{option} does not go {'with' if own else 'without'} --interactions"
        for option in (RAW_ONLY if own else OWN_ONLY)
        if option in words.options
    ]
    source = OWN if own else words.one("source", "amazon2014") or ""
    _choose("source", source, SOURCES[:2] if not own else SOURCES, problems)
    _choose("use", words.one("use", "reviews") or "", ("reviews", "ratings"), problems)
    folder = (
        data_folder(Request([], [], {"data_path": words.one("data_path")} if "data_path" in words.options else {}))
        / name
    )
    values: dict[str, Any] = {
        "duplicates": _choose("duplicates", words.one("duplicates", "first") or "", ("first", "last"), problems),
        "split": _choose("split", words.one("split", "mmrec") or "", KINDS, problems),
        "fill": _choose("fill_missing", words.one("fill_missing", "zero") or "", FILLS, problems),
        "k_core": _whole("k_core", 0, words, "0" if own else "5", problems),
        "seed": _whole("seed", 0, words, "0", problems),
        "few": _whole("few", LEAST, words, "10", problems),
        "least": _whole("least", LEAST, words, str(LEAST), problems),
        "fetch_threads": _whole("fetch_threads", 1, words, "8", problems),
        "threshold": _number("threshold", words, problems),
        "ratios": _ratios(words.options.get("ratios"), problems),
        "columns": _pairs("columns", words, problems),
        "features": {STEMS.get(stem, stem): _path(file) for stem, file in _pairs("features", words, problems).items()},
        "text_columns": words.options.get("text_columns", []),
        "text_id": words.one("text_id"),
        "texts": _path(words.one("texts")),
        "images": _path(words.one("images")),
        "keep_ids": "keep_ids" in words.flags,
        "accept_truncated": "accept_truncated" in words.flags,
    }
    values["feature_ids"] = _feature_ids(words, values["features"], values["keep_ids"], problems)
    problems += [
        f"prepare: --features: '{stem}' cannot name a modality; expected letters, digits and _"
        for stem in values["features"]
        if not stem.isidentifier() or stem in SPLITS
    ]
    given = [
        values["texts"],
        *values["features"].values(),
        *values["feature_ids"].values(),
        _path(words.one("interactions")),
    ]
    problems += [f"prepare: there is no file {path}" for path in given if path and not path.is_file()]
    if values["images"] and not values["images"].is_dir():
        problems.append(f"prepare: --images: there is no folder {values['images']}")
    if values["split"] != "mmrec" and "seed" in words.options:
        problems.append(f"prepare: --seed: the split {values['split']} draws nothing; leave it out")
    if problems:
        raise UserError(*problems)
    category = ""
    wanted: list[tuple[str, Path]] = []
    if own:
        raw = {OWN: _path(words.one("interactions"))}
    else:
        category = words.one("category") or amazon.source_names(source)["names"].get(name, "")
        if not category:
            names = ", ".join(amazon.source_names(source)["names"])
            raise UserError(
                f"prepare: '{name}' names no Amazon category ({names} do); say --category C as in the files' names, or "
                "--interactions FILE for data of your own"
            )
        place = _path(words.one("raw")) or folder.parent / "raw"
        if "download" in words.flags:
            wanted = missing_files(place, source, category, words.one("use"), words.one("mirror"))
            if wanted:
                return wanted, None
        raw = amazon.find_raw(place, source, category, words.one("use"))  # type: ignore[assignment]
    described = values["texts"] or raw.get("meta")
    image_encoder = _encoder("image_encoder", words, problems)
    text_encoder = _encoder("text_encoder", words, problems)
    if text_encoder is None and "text_encoder" not in words.options and described and "text" not in values["features"]:
        text_encoder = default_text_encoder()
    fetch_images = image_encoder is not None and not own and "download" in words.flags
    if text_encoder and not described:
        problems.append("prepare: --text_encoder: there are no texts; " + _where_texts(own, source, category))
    if image_encoder and not (values["images"] or fetch_images):
        problems.append(
            "prepare: --image_encoder: there are no images; "
            + ("name their folder by --images" if own else "--download fetches them")
        )
    for stem, encoder in (("text", text_encoder), ("image", image_encoder)):
        if encoder and stem in values["features"]:
            problems.append(
                f"prepare: --features {stem}=... and --{stem}_encoder both make {stem}_feat.npy; leave one out"
            )
    if problems:
        raise UserError(*problems)
    for stem, encoder in (("text", text_encoder), ("image", image_encoder)):
        if encoder:
            check_spec(encoder, stem)
    if image_encoder and "image_features" in raw:
        raw = {kind: path for kind, path in raw.items() if kind != "image_features"}
    return [], Options(
        name=name,
        folder=folder,
        source=source,
        raw=raw,  # type: ignore[arg-type]
        category=category,
        text_encoder=text_encoder,
        image_encoder=image_encoder,
        fetch_images=fetch_images,
        **values,
    )


def default_text_encoder() -> dict[str, Any]:
    """Sentence-transformers where it is installed, else the one that needs nothing."""
    installed = importlib.util.find_spec("sentence_transformers") is not None
    return {"encoder": "sentence-transformers" if installed else "tfidf"}


def _where_texts(own: bool, source: str, category: str) -> str:
    return "name their table by --texts" if own else f"put {amazon.raw_names(source, category)['meta']} into --raw"


def _path(word: str | None) -> Path | None:
    return Path(word).expanduser() if word else None


def _choose(option: str, value: str, choices: Sequence[str], problems: list[str]) -> str:
    if value not in choices:
        problems.append(f"prepare: --{option}: expected {', '.join(choices)}, got '{value}'{nearest(value, choices)}")
    return value


def _whole(option: str, low: int, words: Words, default: str, problems: list[str]) -> int:
    return whole_number("prepare", option, low, words.one(option, default) or default, problems)


def _number(option: str, words: Words, problems: list[str]) -> float | None:
    word = words.one(option)
    if word is None:
        return None
    if not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)", word):
        problems.append(f"prepare: --{option}: expected a number, got '{word}'")
        return None
    return float(word)


def _ratios(given: Sequence[str] | None, problems: list[str]) -> tuple[float, ...]:
    if given is None:
        return (0.8, 0.1, 0.1)
    ratios = tuple(float(word) for word in given if re.fullmatch(r"\d*\.?\d+", word))
    if len(ratios) != len(given) or len(ratios) != 3 or min(ratios) <= 0 or abs(sum(ratios) - 1) > 1e-9:
        problems.append(f"prepare: --ratios: expected three shares above 0 whose sum is 1, got {' '.join(given)}")
    return ratios


def _pairs(option: str, words: Words, problems: list[str]) -> dict[str, str]:
    """NAME=VALUE words, also several with commas between them."""
    pairs: dict[str, str] = {}
    for word in words.options.get(option, []):
        for part in word.split(",") if option == "columns" else [word]:
            left, equals, right = part.partition("=")
            if not equals or not left or not right:
                problems.append(f"prepare: --{option}: expected NAME=VALUE, got '{part}'")
            elif left in pairs:
                problems.append(f"prepare: --{option}: {left} is given twice")
            elif option == "columns" and left not in KNOWN_COLUMNS:
                problems.append(
                    f"prepare: --columns: unknown column '{left}'{nearest(left, KNOWN_COLUMNS)}; there are "
                    f"{', '.join(KNOWN_COLUMNS)}"
                )
            pairs.setdefault(left, right)
    return pairs


def _feature_ids(words: Words, stems: Mapping[str, Any], keep_ids: bool, problems: list[str]) -> dict[str, Path]:
    given = words.options.get("feature_ids", [])
    if len(given) == 1 and "=" not in given[0]:
        found = dict.fromkeys(stems, Path(given[0]).expanduser())
    else:
        pairs = _pairs("feature_ids", words, problems)
        found = {STEMS.get(stem, stem): Path(file).expanduser() for stem, file in pairs.items()}
    problems += [f"prepare: --feature_ids: no --features {stem}=..." for stem in found if stem not in stems]
    problems += [
        f"prepare: --features {stem}: which item is which row? say --feature_ids FILE with an id a line, or --keep_ids"
        for stem in stems
        if stem not in found and not keep_ids
    ]
    return found


def _encoder(option: str, words: Words, problems: list[str]) -> dict[str, Any] | None:
    """A name, a YAML mapping or the name of a YAML file."""
    word = words.one(option)
    if word is None or word == "none":
        return None
    if word.endswith((".yaml", ".yml")):
        return read_yaml(Path(word).expanduser(), word)
    content = parse_yaml(word, f"--{option}") if word.startswith("{") else {"encoder": word}
    if not isinstance(content, dict):
        problems.append(f"prepare: --{option}: expected a name or {{encoder: NAME, ...}}, got '{word}'")
        return None
    return content


def missing_files(
    folder: Path, source: str, category: str, use: str | None, mirror: str | None
) -> list[tuple[str, Path]]:
    """Address and place of each published file that is not there: interactions, metadata, image features."""
    names = amazon.raw_names(source, category)
    kinds = [kind for kind in ("reviews", "ratings") if kind in names]
    there = [kind for kind in ([use] if use else kinds) if (folder / names.get(kind, "?")).is_file()]
    wanted = [*([] if there else [use or "reviews"]), "meta", "image_features"]
    return [
        (amazon.raw_url(source, kind, names[kind], mirror), folder / names[kind])
        for kind in wanted
        if kind in names and not (folder / names[kind]).is_file()
    ]
