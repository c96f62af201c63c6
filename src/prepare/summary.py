"""What was done: a report whose sums add up, for people, and manifest.json, for programs."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import time
from collections.abc import Mapping
from typing import Any

from prepare.file_tools import read_json
from prepare.lines import tally_lines
from prepare.options import Inputs, PrepareOptions
from prepare.pipeline import Hashes
from utils.data.dataset import SPLITS, split_column
from utils.files import write_json
from utils.paths import SOURCE

SHOWN = 10  # items that something went wrong with
LIBRARIES = ("numpy", "scipy", "pandas", "lmdb")
Records = Mapping[str, Mapping[str, Any]]


def write_manifest(options: PrepareOptions, inputs: Inputs, records: Records, hashes: Hashes) -> None:
    """Writes manifest.json: sources, parameters, steps, versions, files. Unchanged content keeps its date."""
    folder = options.folder
    made = dict.fromkeys(name for record in records.values() for name in record["outputs"] if (folder / name).is_file())
    features = {name: record for name, record in records.items() if name.startswith(("encode_", "features_"))}
    content = {
        "dataset": options.name,
        "source": {"name": inputs.source.name, "category": inputs.category or None},
        "inputs": [{"file": p.name, "bytes": p.stat().st_size, "sha256": hashes.of(p)} for p in inputs.paths()],
        "parameters": {name: record["parameters"] for name, record in records.items()},
        "counts": counts(records),
        "split": records["split"]["parameters"] | {"published": records["split"]["report"]["published"]},
        "modalities": {name.partition("_")[2]: record["report"] for name, record in features.items()},
        "steps": {name: record["report"] for name, record in records.items() if name != "verify"},
        "description": records["verify"]["report"]["description"],
        "files": {name: hashes.of(folder / name) for name in made},
        "code": code_version(),
        "versions": {"python": platform.python_version()} | {n: importlib.metadata.version(n) for n in LIBRARIES},
    }
    before = read_json(folder / "manifest.json") or {}
    date = before.pop("made", None)
    if before != content or date is None:
        write_json(folder / "manifest.json", {"made": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **content})


def counts(records: Records) -> dict[str, int]:
    """Users, items and rows of each split.

    Raises:
        RuntimeError: if rows got lost between two steps, which is an error of the code.
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


def report(options: PrepareOptions, inputs: Inputs, records: Records) -> list[str]:
    """All that was counted, in lines; the sums add up."""
    found = {name: record["report"] for name, record in records.items()}
    lines = [f"{options.name}, from {', '.join(path.name for path in inputs.paths())}", ""]
    lines += tally_lines(found["read"]["tally"])
    if found["read"]["columns"]:
        lines.append("  columns: " + ", ".join(f"{role} = {name}" for role, name in found["read"]["columns"].items()))
    lines += tally_lines(found["filter"]["tally"])
    lines += [
        f"  {inputs.k_core}-core, round {n}: {taken['users']:,} users, {taken['items']:,} items, {taken['rows']:,} rows"
        for n, taken in enumerate(found["filter"]["k_core_rounds"], 1)
    ]
    split = found["split"]
    parts = " + ".join(f"{split[name]:,} {name}" for name in SPLITS)
    sizes = f"{split['users']:,} users, {split['items']:,} items"
    lines.append(f"split {options.split}: {split['rows']:,} rows = {parts}; {sizes}")
    if n := split["users_without_training_rows"]:
        lines.append(f"  {n:,} users have no training row; runs leave their rows out")
    if options.splits > 1:
        others = " ".join(split_column("x_label", number) for number in range(1, options.splits))
        lines.append(f"  further splits of these rows, each for runs with --split_field: {others}")
    lines.append(f"  {split['published'] or 'no published split has these counts'}")
    if items := found.get("items"):
        lines += tally_lines(items["tally"])
        lines.append(
            f"texts: {items['items']:,} items = {items['with_text']:,} with text + {items['without_text']:,} with an entry "
            f"but no text + {items['without_entry']:,} without entry"
        )
        lines += [
            f"warning: {entry['count']:,} of {items['with_text'] + items['without_text']:,} texts are "
            f"{reason.removeprefix('kept, ')} (first: {entry['example']})"
            for reason, entry in items["tally"]["notes"].items()
            if "empty column" in reason
        ]
        if items["without_entry"]:
            lines.append(f"  without entry: {', '.join(items['first_without_entry'])}, ...")
    if fetched := found.get("fetch"):
        failed = fetched["failed"]
        lines.append(
            f"images: {fetched['addresses']:,} addresses = {fetched['fetched']:,} fetched + {len(failed):,} failed"
        )
        lines += [f"  {count:,} times: {reason}" for reason, count in fetched["reasons"].items()]
        lines += problem_lines(failed) + ["  to try these again, delete .prepare/steps/fetch.json"] * bool(failed)
    if image := found.get("content", {}).get("image"):
        lines.append(
            f"images: {found['content']['items']:,} items = {image['stored']:,} stored + {image['missing']:,} without a "
            f"file + {len(image['unreadable']):,} unreadable"
        )
        lines += problem_lines(image["unreadable"])
        if image["of_no_item"]:
            lines.append(f"  files of no item that is kept: {image['of_no_item']:,}: {image['first_of_no_item'][0]}")
        if inputs.image_encoder is None:
            lines.append("  no features are made of them: choose an --image_encoder")
    if checked := found.get("check_images"):
        n, broken = checked["items"], checked["broken"]
        if checked["by"]:
            counts = f"{n:,} stored = {n - len(broken):,} whole + {len(broken):,} broken"
            lines += [f"images decoded by {checked['by']}: {counts}", *problem_lines(broken)]
        else:
            lines.append(f"images: {n:,} stored were not checked, since Pillow is not installed: pip install pillow")
    for name, entry in found.items():
        if name.startswith("encode_"):
            lines += [f"encoder of {name.partition('_')[2]}: {entry['encoder']}", *entry["lines"]]
        elif name.startswith("features_"):
            filled = f" (filled with {'the mean' if entry['fill'] == 'mean' else 'zeros'})" if entry["missing"] else ""
            parts = f"{entry['present']:,} present + {entry['missing']:,} missing{filled}"
            lines += [*tally_lines(entry["tally"]), f"{name}: {entry['items']:,} items = {parts}"]
    lines += ["", *found["verify"]["statistics"], *(f"warning: {warning}" for warning in found["verify"]["warnings"])]
    return [*lines, f"{options.folder}: ready; train on it with -d {options.name} --data_path {options.folder.parent}"]


def problem_lines(reasons: Mapping[str, str]) -> list[str]:
    """The first items that something went wrong with, and why, and how many more there are."""
    lines = [f"  {name}: {reason}" for name, reason in list(reasons.items())[:SHOWN]]
    return lines + [f"  and {len(reasons) - SHOWN:,} more, in manifest.json"] * (len(reasons) > SHOWN)
