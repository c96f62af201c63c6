"""Features of items from their raw content: batched, resumable, the same bytes however often it was stopped.

What is computed is written down in blocks, in a work folder whose name hashes all that the result depends on. Batches are
the same whether the blocks before them were there or not, since a batch's make-up shows in the last digits of its rows.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import shutil
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from prepare.content.encoder_registry import TEXT, BadContent, Encoder, EncoderSpec, build, check_spec, described
from prepare.content.feature_files import write_rows
from prepare.content.images import image_of, text_of
from prepare.content.store import ContentStore
from prepare.pipeline import WORK
from utils.data.missing_modalities import mask_path
from utils.errors import UserError
from utils.files import TEMPORARY, make_folder, write_bytes

VERSION = 1  # of what is computed here
SHOWN = 20  # ids and reasons in a manifest
MISSING, EMPTY, UNREADABLE = "missing", "empty", "unreadable"
LONGEST_REASON = 200
Progress = Callable[[float, float], object]
Arrays = dict[str, NDArray[Any]]


@dataclass
class EncodeReport:
    """What became of the items: encoded, missing, empty and unreadable ones add up to all.

    Attributes:
        width: number of features.
        encoder: the encoder's record.
        problems: for each of missing, empty and unreadable the items' ids with the reason, in order of the items.
        replaced: encoded texts that were not valid UTF-8; what could not be read in them is U+FFFD.
        mask: the mask's file, or None where every item was encoded.
    """

    kind: str
    items: int
    width: int
    encoder: dict[str, Any]
    problems: dict[str, dict[str, str]]
    replaced: list[str] = field(default_factory=list)
    mask: Path | None = None

    @property
    def encoded(self) -> int:
        return self.items - sum(len(found) for found in self.problems.values())

    def lines(self) -> list[str]:
        """The numbers in words, and the first items that could not be encoded, each with its reason."""
        counts = ", ".join(f"{len(found):,} {what}" for what, found in self.problems.items())
        lines = [f"{self.kind}: {self.items:,} items: {self.encoded:,} encoded to {self.width} features, {counts}"]
        if self.replaced:
            lines.append(f"{self.kind}: {len(self.replaced):,} texts were not valid UTF-8 (first: {self.replaced[0]})")
        for what in (UNREADABLE, EMPTY):
            found = self.problems[what]
            lines += [f"  {what} {name}: {reason}" for name, reason in itertools.islice(found.items(), SHOWN)]
            if len(found) > SHOWN:
                lines.append(f"  and {len(found) - SHOWN:,} more {what}")
        return lines

    def record(self) -> dict[str, Any]:
        """What a manifest holds; of this, `made` alone differs between equal results."""
        first = {what: dict(itertools.islice(found.items(), SHOWN)) for what, found in self.problems.items() if found}
        counts = {"features": self.width, "items": self.items, "encoded": self.encoded}
        counts |= {what: len(found) for what, found in self.problems.items()}
        made = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        return {**self.encoder, **counts, "first": first, "invalid_utf8": len(self.replaced), "made": made}


class Contents(TorchDataset[Any]):
    """Decoded and transformed contents by item, read in any process: the value, or why there is none, and whether a text
    had bytes that are not UTF-8."""

    def __init__(
        self, store: ContentStore, kind: str, ids: Sequence[str], reads: str, transform: Callable[..., Any]
    ) -> None:
        self.path, self.kind, self.ids, self.reads, self.transform = store.path, kind, ids, reads, transform
        self._store: ContentStore | None = store

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_store": None}

    def __getitem__(self, index: int) -> tuple[Any, str, bool]:
        self._store = self._store or ContentStore.open(self.path)
        content = self._store.get(self.kind, self.ids[index])
        if content is None:
            raise RuntimeError(f"{self.path}: item {self.ids[index]!r} has gone while the file was locked")
        try:
            value, replaced = text_of(bytes(content)) if self.reads == TEXT else (image_of(content), False)
            return self.transform(value), "", replaced
        except BadContent as error:
            return None, f"{EMPTY if self.reads == TEXT else UNREADABLE}: {error}", False


def encode(
    store: ContentStore,
    kind: str,
    ids: Sequence[str],
    spec: Mapping[str, Any],
    out: Path,
    fill: str = "zero",
    progress: Progress = lambda done, total: None,
) -> EncodeReport:
    """Writes `out`, the features [I, F] of items in the order of `ids`, float32 or float16.

    Items without content, or with content that cannot be read, get a row of zeros, or the mean of the others. Where there
    are any, a mask (bool [I],
    True = encoded) is written beside it: `image_mask.npy` for `image_feat.npy`. Killed at any moment, the next call goes on.

    Args:
        store: open for reading.
        kind: of the content, text or image.
        ids: of the items.
        spec: the keys of EncoderSpec.
        out: a file named `..._feat.npy`.
        fill: for items without a row, `zero` or `mean`.
        progress: called with the amount done and the total.

    Raises:
        UserError: if the settings are wrong, the model cannot be loaded or no item can be encoded.
    """
    options = check_spec(spec, kind)
    digests = [store.digest(kind, name) for name in ids]
    order = [index for index, found in enumerate(digests) if found is not None]
    if not order:
        raise UserError(
            f"{kind}: none of the {len(ids):,} items has content in {store.path}; expected it under their ids"
        )
    encoder = build(options)
    record = described(options, encoder)
    if options.reads == TEXT:
        # Texts of like length make batches with little padding; the longest first, since they need the most memory.
        sizes = [store.size(kind, name) for name in ids]
        order.sort(key=lambda index: (-sizes[index], index))
    identity = [VERSION, encoder.block, record, list(ids), [found.hex() if found else "" for found in digests]]
    work = _work_folder(out, identity)
    contents = Contents(store, kind, ids, options.reads or TEXT, encoder.transform)
    # The second half of the progress is putting the blocks together: quick, but for encoders that need all items at once.
    blocks = _blocks(contents, order, encoder, options, work, lambda n: progress(n, 2 * len(order)))

    reasons: dict[int, str] = {index: f"{MISSING}: no content" for index, found in enumerate(digests) if found is None}
    replaced: list[int] = []
    for path in blocks:
        block = _read_block(path)
        reasons |= dict(zip(block["bad"].tolist(), block["reasons"].tolist(), strict=True))
        replaced += block["replaced"].tolist()
    problems: dict[str, dict[str, str]] = {MISSING: {}, EMPTY: {}, UNREADABLE: {}}
    for index in sorted(reasons):
        what, _, reason = reasons[index].partition(": ")
        problems[what][ids[index]] = reason
    if len(reasons) == len(ids):
        index, reason = next((index, reasons[index]) for index in sorted(order))
        raise UserError(f"{kind}: none of the {len(ids):,} items can be encoded (first: {ids[index]}: {reason})")

    rows = _dense(blocks, encoder, lambda share: progress(1 + share, 2))
    first = next(rows)
    width = first[1].shape[1]
    each = _each_row(itertools.chain([first], rows), options)
    present = write_rows(out, len(ids), width, each, fill, "<f2" if options.dtype == "float16" else "<f4")
    shutil.rmtree(work.parent, ignore_errors=True)
    mask = None if present.all() else mask_path(out)
    return EncodeReport(kind, len(ids), width, record, problems, [ids[index] for index in sorted(replaced)], mask)


def _work_folder(out: Path, identity: Any) -> Path:
    """The folder for blocks of this result; those of other settings or contents are removed."""
    name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    work = out.parent / WORK / f"encode_{out.stem}" / name
    for other in work.parent.glob("*"):
        if other != work:
            shutil.rmtree(other, ignore_errors=True)
    make_folder(work)
    for left in work.glob(f".*{TEMPORARY}"):  # of a process that was killed while it wrote
        left.unlink(missing_ok=True)
    return work


def _blocks(
    contents: Contents,
    order: Sequence[int],
    encoder: Encoder,
    options: EncoderSpec,
    work: Path,
    done: Callable[[int], object],
) -> list[Path]:
    """Files with the rows of all items of `order`; computes those that are not there yet."""
    step = options.batch_size
    size = step * max(1, encoder.block // step)
    parts = {
        work / f"{begin // size:06}.npz": list(order[begin : begin + size]) for begin in range(0, len(order), size)
    }
    todo = {path: part for path, part in parts.items() if not _is_complete(path)}
    batches = {path: [part[at : at + step] for at in range(0, len(part), step)] for path, part in todo.items()}
    finished = len(order) - sum(map(len, todo.values()))
    done(finished)
    loader = DataLoader(
        contents,
        batch_sampler=[batch for entries in batches.values() for batch in entries],
        num_workers=options.workers,
        collate_fn=list,
        # Forked processes would inherit the open file and its lock.
        multiprocessing_context="spawn" if options.workers else None,
        generator=torch.Generator(),
    )
    loaded = iter(loader)
    for path, entries in batches.items():
        encoded = []
        for batch in entries:
            encoded.append(_encoded(encoder, batch, next(loaded)))
            finished += len(batch)
            done(finished)
        buffer = io.BytesIO()
        np.savez(buffer, **_joined(encoded))  # type: ignore[arg-type]
        write_bytes(path, buffer.getvalue())
    return list(parts)


def _encoded(encoder: Encoder, batch: Sequence[int], entries: Sequence[tuple[Any, str, bool]]) -> tuple[Any, Arrays]:
    """The rows of a batch, dense or sparse; which items they belong to, and which have none and why."""
    reasons = {index: why for index, (_, why, _) in zip(batch, entries, strict=True) if why}
    rows = np.array([index for index in batch if index not in reasons], dtype=np.int64)
    values: Any = None
    if len(rows):
        values = encoder.encode([value for value, why, _ in entries if not why])
        if not sp.issparse(values):
            finite = np.isfinite(values).all(axis=1)
            reasons |= dict.fromkeys(rows[~finite].tolist(), f"{UNREADABLE}: the encoder gave NaN or infinite values")
            rows, values = rows[finite], values[finite]
    mended = [index for index, (_, _, mended) in zip(batch, entries, strict=True) if mended and index not in reasons]
    return values, {
        "rows": rows,
        "bad": np.array(list(reasons), dtype=np.int64),
        "reasons": np.array([why[:LONGEST_REASON] for why in reasons.values()], dtype=f"U{LONGEST_REASON}"),
        "replaced": np.array(mended, dtype=np.int64),
    }


def _joined(parts: Sequence[tuple[Any, Arrays]]) -> Arrays:
    """The batches of a block as one."""
    joined: Arrays = {name: np.concatenate([arrays[name] for _, arrays in parts]) for name in parts[0][1]}
    filled = [values for values, arrays in parts if len(arrays["rows"])]
    if filled and sp.issparse(filled[0]):
        table = sp.vstack(filled, format="csr")
        joined |= {name: getattr(table, name) for name in ("indptr", "indices", "data")}
        joined["shape"] = np.array(table.shape)
    elif filled:
        joined["values"] = np.concatenate(filled).astype(np.float32)
    return joined


def _read_block(path: Path) -> Arrays:
    # Opened here, since np.load leaves a damaged file open.
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _is_complete(path: Path) -> bool:
    try:
        return "rows" in _read_block(path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return False


def _each_row(
    parts: Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]], options: EncoderSpec
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Item numbers and rows, of length 1 if asked."""
    for rows, values in parts:
        if options.normalize:
            values = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
        if (largest := float(np.abs(values).max())) > float(np.finfo(options.dtype).max):
            raise UserError(f"dtype: values up to {largest:.3g} do not fit {options.dtype}; use float32 or normalize")
        yield from zip(rows.tolist(), values, strict=True)


def _dense(
    paths: Sequence[Path], encoder: Encoder, tick: Callable[[float], object]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Rows and values of the blocks that have any; sparse blocks are finished together, in order of the rows."""
    sparse: list[tuple[NDArray[np.int64], sp.csr_matrix]] = []
    for number, block in enumerate(map(_read_block, paths), 1):
        if "values" in block and len(block["rows"]):
            yield block["rows"], block["values"]
            tick(number / len(paths))
        elif len(block["rows"]):
            parts = block["data"], block["indices"], block["indptr"]
            sparse.append((block["rows"], sp.csr_matrix(parts, shape=tuple(block["shape"]))))
    if sparse:
        rows = np.concatenate([found for found, _ in sparse])
        order = np.argsort(rows)
        yield rows[order], encoder.finish(sp.vstack([table for _, table in sparse], format="csr")[order], tick)
        tick(1.0)
