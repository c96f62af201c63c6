"""The raw images and texts of a data set: what there is, whether it is undamaged, and the file without free space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cli.arguments import dataset_folder
from cli.parser import parse_options
from utils.config.schema import setting

SHOWN = 50  # damaged records


@dataclass(frozen=True)
class ContentOptions:
    """What is done with the content of which data set."""

    action: str = setting(
        "list: kinds of content and how many items have it; verify: recompute every hash, exit code 1 if any is wrong; "
        "compact: write the file again without free space, if nothing is damaged",
        choices=("list", "verify", "compact"),
    )
    name: str = setting("name of the data set")
    data_path: str | None = setting("folder of data sets", default=None)


def run(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parse_options("content", ContentOptions, words, ["action", "name"], __doc__ or "")
    if options is None:
        return 0
    folder = dataset_folder("content", options.name, options.data_path)

    from prepare.content.store import FILE, ContentStore, compact

    path = folder / FILE
    if options.action == "compact":
        before, after = compact(path)
        print(f"{path}: {before:,} bytes before, {after:,} after")
        return 0
    with ContentStore.open(path) as store:
        print(store.summary())
        problems = store.verify() if options.action == "verify" else []
    for problem in problems[:SHOWN]:
        print(f"damaged: {problem}")
    if len(problems) > SHOWN:
        print(f"and {len(problems) - SHOWN:,} more")
    if options.action == "verify":
        intact = "every record has the hash it was written with"
        print(f"{len(problems):,} damaged records" if problems else intact)
    return 1 if problems else 0
