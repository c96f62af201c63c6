"""What was done, for people (a report whose sums add up) and for programs (manifest.json)."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pandas as pd
import scipy

from prepare.content.image_check import STRUCTURE
from prepare.lines import tally_lines
from prepare.pipeline import Hashes, read_record
from prepare.steps import Options
from utils.data.dataset import SPLITS
from utils.files import write_json
from utils.paths import SOURCE

SHOWN = 10  # items that something went wrong with


def sources(options: Options) -> list[Path]:
    """The files that all was made from."""
    files = [*options.raw.values(), options.texts, *options.features.values(), *options.feature_ids.values()]
    return list(dict.fromkeys(path for path in files if path))


def write_manifest(
    options: Options, records: Mapping[str, Mapping[str, Any]], source_files: Sequence[Any], hashes: Hashes
) -> None:
    """Writes manifest.json: sources, parameters, steps, versions, files. Unchanged content keeps its date."""
    folder = options.folder
    made = [name for record in records.values() for name in record["outputs"] if (folder / name).is_file()]
    content = {
        "dataset": options.name,
        "source": {"name": options.source, "category": options.category or None},
        "inputs": [{"file": name, "bytes": size, "sha256": digest} for name, size, digest in source_files],
        "parameters": {name: record["parameters"] for name, record in records.items()},
        "counts": counts(records),
        "split": records["split"]["parameters"] | {"published": records["split"]["report"]["published"]},
        "modalities": {
            name.partition("_")[2]: record["report"]
            for name, record in records.items()
            if name.startswith(("encode_", "features_"))
        },
        "steps": {name: record["report"] for name, record in records.items() if name != "verify"},
        "description": records["verify"]["report"]["description"],
        "files": {name: hashes.of(folder / name) for name in dict.fromkeys(made)},
        "code": code_version(),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "pandas": pd.__version__,
            "lmdb": lmdb.__version__,
        },
    }
    before = read_record(folder / "manifest.json") or {}
    date = before.pop("made", None)
    if before != content or date is None:
        write_json(folder / "manifest.json", {"made": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **content})


def counts(records: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Users, items and rows of each split.

    Raises:
        RuntimeError: if rows got lost between two steps, which is a mistake of the code.
    """
    read, kept, split = (records[name]["report"] for name in ("read", "filter", "split"))
    rows = [read["tally"]["kept"], kept["tally"]["read"]], [kept["tally"]["kept"], sum(split[name] for name in SPLITS)]
    if any(before != after for before, after in rows):
        raise RuntimeError(f"the rows of the steps do not add up: {rows}")
    return {name: split[name] for name in ("users", "items", "rows", *SPLITS)}


def code_version() -> str:
    """Hash of the code that prepares data."""
    digest = hashlib.sha256()
    for path in sorted((SOURCE / "prepare").rglob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def report(options: Options, records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """All that was counted, in lines; the sums add up."""
    found = {name: record["report"] for name, record in records.items()}
    lines = [f"{options.name}, from {', '.join(path.name for path in sources(options))}", ""]
    lines += tally_lines(found["read"]["tally"])
    if found["read"]["columns"]:
        lines.append("  columns: " + ", ".join(f"{role} = {name}" for role, name in found["read"]["columns"].items()))
    lines += tally_lines(found["filter"]["tally"])
    for number, round_ in enumerate(found["filter"]["k_core_rounds"], 1):
        lines.append(
            f"  {options.k_core}-core, round {number}: {round_['users']:,} users and {round_['items']:,} items, "
            f"{round_['rows']:,} rows"
        )
    split = found["split"]
    parts = " + ".join(f"{split[name]:,} {name}" for name in SPLITS)
    lines.append(
        f"split {options.split}: {split['rows']:,} rows = {parts}; {split['users']:,} users, {split['items']:,} items"
    )
    if split["users_without_training_rows"]:
        lines.append(
            f"  {split['users_without_training_rows']:,} users have no training row; runs leave their rows out"
        )
    lines.append(f"  {split['published'] or 'no published split has these counts'}")
    if "items" in found:
        items = found["items"]
        lines += tally_lines(items["tally"])
        lines.append(
            f"texts: {items['items']:,} items = {items['with_text']:,} with text + {items['without_text']:,} with an entry "
            f"but no text + {items['without_entry']:,} without entry"
        )
        if items["without_entry"]:
            lines.append(f"  without entry: {', '.join(items['first_without_entry'])}, ...")
    if "fetch" in found:
        fetched = found["fetch"]
        lines.append(
            f"images: {fetched['addresses']:,} addresses = {fetched['fetched']:,} fetched + "
            f"{len(fetched['failed']):,} failed"
        )
        lines += [f"  {count:,} times: {reason}" for reason, count in fetched["reasons"].items()]
        lines += problem_lines(fetched["failed"])
        if fetched["failed"]:
            lines.append("  to try these again, delete .prepare/steps/fetch.json")
    if "image" in found.get("content", {}):
        image, n = found["content"]["image"], found["content"]["items"]
        lines.append(
            f"images: {n:,} items = {image['stored']:,} stored + {image['missing']:,} without a file + "
            f"{len(image['unreadable']):,} unreadable"
        )
        lines += problem_lines(image["unreadable"])
        if image["of_no_item"]:
            lines.append(f"  files of no item that is kept: {image['of_no_item']:,}: {image['first_of_no_item'][0]}")
        if options.image_encoder is None:
            lines.append("  no features are made of them: choose an --image_encoder")
    if "check_images" in found:
        checked = found["check_images"]
        how = (
            "their structure (Pillow is not installed)" if checked["by"] == STRUCTURE else f"decoding ({checked['by']})"
        )
        lines.append(
            f"images checked by {how}: {checked['items']:,} stored = {checked['items'] - len(checked['broken']):,} whole + "
            f"{len(checked['broken']):,} broken"
        )
        lines += problem_lines(checked["broken"])
    for name, entry in found.items():
        if name.startswith("encode_"):
            lines += [f"encoder of {name.partition('_')[2]}: {entry['encoder']}", *entry["lines"]]
        elif name.startswith("features_"):
            lines += tally_lines(entry["tally"])
            filled = f" (filled with {'the mean' if entry['fill'] == 'mean' else 'zeros'})" if entry["missing"] else ""
            lines.append(
                f"{name}: {entry['items']:,} items = {entry['present']:,} present + {entry['missing']:,} missing{filled}"
            )
    lines += ["", *found["verify"]["statistics"], *(f"warning: {warning}" for warning in found["verify"]["warnings"])]
    lines.append(f"{options.folder}: ready; train on it with -d {options.name} --data_path {options.folder.parent}")
    return lines


def problem_lines(reasons: Mapping[str, str]) -> list[str]:
    """The first items that something went wrong with, and why, and how many more there are."""
    lines = [f"  {name}: {reason}" for name, reason in list(reasons.items())[:SHOWN]]
    return lines + ([f"  and {len(reasons) - SHOWN:,} more, in manifest.json"] if len(reasons) > SHOWN else [])
