"""Generated raw files: a folder as a publisher or a user would have it, and what was planted in it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prepare.file_tools import make_named_folder
from prepare.synthetic_raw.raw_spec import Drawn, RawSpec, draw
from prepare.synthetic_raw.write_amazon import write_amazon_2014, write_amazon_2023
from prepare.synthetic_raw.write_tables import write_microlens, write_movielens, write_own
from utils.errors import UserError, nearest
from utils.files import write_json

WRITERS: dict[str, Callable[[RawSpec, Drawn, Path], dict[str, Any]]] = {
    "amazon2014": write_amazon_2014,
    "amazon2023": write_amazon_2023,
    "movielens": write_movielens,
    "microlens": write_microlens,
    "own": write_own,
}
CATEGORIES = {"movielens": "ml-100k", "microlens": "MicroLens-50k"}  # in place of RawSpec's


def write_raw(spec: RawSpec, folder: Path, source: str = "amazon2014") -> dict[str, Any]:
    """Writes the files of a source into a folder, then what was planted to `generated.json`.

    Args:
        spec: what to generate.
        folder: where to; made if it is not there.
        source: one of WRITERS.

    Returns:
        What is in generated.json: by file name its lines and how many of which kind, the sizes of the 5-core, the spec.

    Raises:
        UserError: if there is no such source, or the folder already holds generated.json or cannot be written.
    """
    if source not in WRITERS:
        raise UserError(
            f"generate_raw: --source: expected {', '.join(WRITERS)}, got '{source}'{nearest(source, WRITERS)}"
        )
    if (folder / "generated.json").exists():
        raise UserError(f"generate_raw: {folder} holds generated files already: delete it or choose another folder")
    if source in CATEGORIES and spec.category == RawSpec.category:
        spec = dataclasses.replace(spec, category=CATEGORIES[source])
    make_named_folder(folder, "DIR")
    drawn = draw(spec)
    record = {
        "source": source,
        "core": {"users": spec.users, "items": spec.items, "interactions": spec.interactions},
        "interactions": len(drawn.users),
        "files": WRITERS[source](spec, drawn, folder),
        "spec": dataclasses.asdict(spec),
    }
    write_json(folder / "generated.json", record)
    return dict(json.loads(json.dumps(record)))
