"""Embeddings of users and items of a finished run, with their original ids, for other programs.

The product of a user's and an item's embedding is the model's score. Where that is not so nothing is written.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cli.lists import places
from cli.parser import parse_options
from utils.config.schema import setting
from utils.errors import UserError
from utils.files import atomic_file

Table = tuple[list[str], NDArray[np.float32]]  # ids [N] and embeddings [N, D]


def _npz(file: BinaryIO, users: Table, items: Table) -> None:
    """Arrays users, items, user_ids and item_ids."""
    np.savez(file, users=users[1], items=items[1], user_ids=np.array(users[0]), item_ids=np.array(items[0]))


def _parquet(file: BinaryIO, users: Table, items: Table) -> None:
    """Columns kind (user or item), id and embedding."""
    arrow, parquet = _library("parquet", "pyarrow"), _library("parquet", "pyarrow.parquet")
    kinds = ["user"] * len(users[0]) + ["item"] * len(items[0])
    flat = arrow.array(np.concatenate([users[1], items[1]]).reshape(-1))
    rows = arrow.FixedSizeListArray.from_arrays(flat, users[1].shape[1])
    parquet.write_table(arrow.table({"kind": kinds, "id": users[0] + items[0], "embedding": rows}), file)


def _safetensors(file: BinaryIO, users: Table, items: Table) -> None:
    """Tensors users and items; the ids are JSON lists in the metadata."""
    library = _library("safetensors", "safetensors.numpy")
    tensors = {"users": np.ascontiguousarray(users[1]), "items": np.ascontiguousarray(items[1])}
    file.write(library.save(tensors, {"user_ids": json.dumps(users[0]), "item_ids": json.dumps(items[0])}))


FORMATS: dict[str, Callable[[BinaryIO, Table, Table], None]] = {
    "npz": _npz,
    "parquet": _parquet,
    "safetensors": _safetensors,
}
NEEDED = {"parquet": "pyarrow", "safetensors": "safetensors"}


@dataclass(frozen=True)
class ExportOptions:
    """What is exported as what."""

    run_folder: str = setting("folder of a finished run")
    format: str = setting("of the file", choices=tuple(FORMATS), default="npz")
    output: str | None = setting("file to write; without: embeddings.FORMAT in the run folder", default=None)
    data_path: str | None = setting("folder of data sets, if it is elsewhere now", default=None)
    device: str | None = setting("auto, cpu, cuda or cuda:N; without: that of the run", default=None)


def run(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parse_options("export", ExportOptions, words, ["run_folder"], __doc__ or "")
    if options is None:
        return 0
    folder, output = places("export", options.run_folder, options.output, f"embeddings.{options.format}")
    if options.format in NEEDED:
        _library(options.format, NEEDED[options.format])

    from runner.stored_run import StoredRun

    stored = StoredRun.open(folder, options.data_path, options.device)
    users, items = stored.embeddings()
    with atomic_file(output) as file:
        FORMATS[options.format](file, (stored.users.ids, users), (stored.items.ids, items))
    print(f"users [{len(users)}, {users.shape[1]}] and items [{len(items)}, {items.shape[1]}]; products are the scores")
    print(f"written to {output}")
    return 0


def _library(kind: str, name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise UserError(f"export: --format {kind} needs {package}: pip install {package}") from None
