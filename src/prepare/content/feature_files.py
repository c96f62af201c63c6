"""Feature matrices of the kept items, written row by row from matrices that need not fit memory."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prepare.lines import NOT_KEPT, Tally
from utils.data.missing_modalities import mask_path
from utils.errors import UserError
from utils.files import atomic_file

Progress = Callable[[float, float], object]
KEY_BYTES = 10  # an ASIN
FILLS = ("zero", "mean")
ROWS = 256  # read at once
MAX_BAD = 0.1  # share of records without an ASIN beyond which a file is something else


def write_rows(
    path: Path, n_items: int, width: int, rows: Iterable[tuple[int, NDArray[Any]]], fill: str, dtype: str = "<f4"
) -> NDArray[np.bool_]:
    """Writes rows into a .npy [n_items, width] in any order; items without one get zeros, or the mean of the others.

    Beside `NAME_feat.npy` goes `NAME_mask.npy`, bool [n_items], True = present, if any is missing.

    Returns:
        the mask.
    """
    present = np.zeros(n_items, dtype=bool)
    total = np.zeros(width, dtype=np.float64)
    with atomic_file(path) as file:
        header = {"descr": dtype, "fortran_order": False, "shape": (n_items, width)}
        np.lib.format.write_array_header_1_0(file, header)
        start, size = file.tell(), width * np.dtype(dtype).itemsize
        file.truncate(start + n_items * size)
        for item, row in rows:
            file.seek(start + item * size)
            file.write(np.ascontiguousarray(row, dtype=dtype).tobytes())
            present[item] = True
            total += row
        if fill == "mean" and present.any():
            mean = (total / present.sum()).astype(dtype).tobytes()
            for item in np.flatnonzero(~present).tolist():
                file.seek(start + item * size)
                file.write(mean)
        # The mask comes first, so that features in place are never without theirs.
        mask = mask_path(path)
        if present.all():
            mask.unlink(missing_ok=True)
        else:
            with atomic_file(mask) as other:
                np.lib.format.write_array(other, present, allow_pickle=False)
    return present


# image_features_<Category>.b: records of an ASIN and 4096 little-endian float32


def count_records(source: Path, accept_truncated: bool, width: int = 4096) -> tuple[int, int]:
    """How many complete records a file holds, and how many bytes there are beyond them.

    Raises:
        UserError: if it ends within a record, unless that is accepted.
    """
    size = KEY_BYTES + 4 * width
    try:
        length = source.stat().st_size
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror})") from None
    complete, rest = divmod(length, size)
    if rest and not accept_truncated:
        raise UserError(
            f"{source.name}: {length:,} bytes are {complete:,} records of {size:,} bytes ({KEY_BYTES} of ASIN and {width} "
            f"float32) and {rest:,} bytes more: wrong record size or a file that ends early; download it again, or use its "
            "complete records with --accept_truncated"
        )
    return complete, rest


def from_records(
    source: Path,
    item_of: Mapping[str, int],
    target: Path,
    fill: str,
    accept_truncated: bool = False,
    progress: Progress | None = None,
    width: int = 4096,
) -> tuple[Tally, NDArray[np.bool_]]:
    """Writes the features of the kept items from records of 10 bytes of ASIN and `width` little-endian float32.

    Args:
        source: `image_features_<Category>.b`.
        item_of: number of each item by its ASIN.
        target: `image_feat.npy`.
        fill: for items without a record, `zero` or `mean`.
        accept_truncated: take a file that ends within a record.
        progress: called with the records done and all of them.
        width: values of a record.

    Raises:
        UserError: if the file ends within a record, or is not made of such records.
    """
    tally = Tally(source.name, "records")
    size = KEY_BYTES + 4 * width
    complete, rest = count_records(source, accept_truncated, width)
    mask = write_rows(target, len(item_of), width, _records(source, item_of, tally, size, complete, progress), fill)
    if rest:
        tally.read += 1
        tally.drop("cut off at the end of the file", complete + 1, f"{rest:,} of {size:,} bytes")
    return tally, mask


def _records(
    source: Path, item_of: Mapping[str, int], tally: Tally, size: int, complete: int, progress: Progress | None
) -> Iterable[tuple[int, NDArray[np.float32]]]:
    seen: set[int] = set()
    bad = 0
    try:
        with open(source, "rb") as file:
            for first in range(0, complete, ROWS):
                n = min(ROWS, complete - first)
                block = file.read(n * size)
                for place in range(n):
                    record = block[place * size : (place + 1) * size]
                    key, at = record[:KEY_BYTES], first + place + 1
                    tally.read += 1
                    # Only letters and digits can be an ASIN; values that stand where one should be hardly are.
                    if not (key.isalnum() and key.isascii()):
                        bad += 1
                        tally.drop("without an ASIN at the start", at, key)
                        continue
                    item = item_of.get(key.decode())
                    if item is None:
                        tally.drop(NOT_KEPT, 0, key)
                        continue
                    if item in seen:
                        tally.drop("of an item that has one already", at, key)
                        continue
                    row = np.frombuffer(record, dtype="<f4", offset=KEY_BYTES)
                    if not np.isfinite(row).all():
                        tally.drop("with NaN or infinite values", at, key)
                        continue
                    seen.add(item)
                    tally.kept += 1
                    yield item, row
                if progress:
                    progress(first + n, complete)
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror})") from None
    if bad > MAX_BAD * complete:
        entry = tally.dropped["without an ASIN at the start"]
        raise UserError(
            f"{source.name}: {bad:,} of {complete:,} records of {size:,} bytes do not begin with an ASIN (first: record "
            f"{entry['first']:,}): wrong record size or a damaged file; expected {KEY_BYTES} bytes of ASIN and "
            f"{(size - KEY_BYTES) // 4} little-endian float32 each"
        )


# A user's own matrix


def read_ids(path: Path) -> list[str]:
    """The ids in a file, one a line."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a list of ids, one a line ({error})") from None


def open_matrix(source: Path, n_ids: int | None = None) -> NDArray[Any]:
    """A matrix of numbers [rows, F] from a .npy file (not read into memory) or a tensor in a .pt file.

    Raises:
        UserError: if it is something else, or has another number of rows than there are ids.
    """
    try:
        if source.suffix in (".pt", ".pth"):
            content = torch.load(source, map_location="cpu", weights_only=True)
            matrix = content.detach().numpy() if isinstance(content, torch.Tensor) else content
        else:
            matrix = np.load(source, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, RuntimeError, TypeError, pickle.UnpicklingError) as error:
        objects = "Python objects" in str(error) or "allow_pickle" in str(error)
        reason = "it holds Python objects" if objects else str(error).partition("\n")[0]
        raise UserError(f"{source.name}: not a numeric array: {reason}") from None
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.shape[1] == 0 or matrix.dtype.kind not in "fiu":
        what = f"{matrix.dtype} {list(matrix.shape)}" if isinstance(matrix, np.ndarray) else type(matrix).__name__
        raise UserError(f"{source.name}: expected numbers of shape [items, features], got {what}")
    if n_ids is not None and n_ids != len(matrix):
        raise UserError(f"{source.name}: {len(matrix):,} rows, but {n_ids:,} ids were given for them")
    return matrix


def from_matrix(
    source: Path,
    row_ids: Sequence[str] | None,
    item_of: Mapping[str, int],
    target: Path,
    fill: str,
    progress: Progress | None = None,
) -> tuple[Tally, NDArray[np.bool_]]:
    """Writes the rows of the kept items of a matrix [rows, F], as float32; float16 stays.

    Args:
        source: see `open_matrix`.
        row_ids: original item id of each row; None: row = item id.
        item_of: number of each item by its original id.
        target: `NAME_feat.npy`.
        fill: for items without a row, `zero` or `mean`.
        progress: called with the rows done and all of them.
    """
    tally = Tally(source.name, "rows")
    matrix = open_matrix(source, None if row_ids is None else len(row_ids))
    names = row_ids if row_ids is not None else [str(row) for row in range(len(matrix))]

    def rows() -> Iterable[tuple[int, NDArray[Any]]]:
        seen: set[int] = set()
        for place, name in enumerate(names):
            tally.read += 1
            item = item_of.get(name)
            if item is None:
                tally.drop(NOT_KEPT, 0, name)
            elif item in seen:
                tally.drop("of an item that has one already", place + 1, name)
            else:
                with np.errstate(over="ignore"):
                    row = np.asarray(matrix[place]).astype(np.float32)
                if np.isfinite(row).all():
                    seen.add(item)
                    tally.kept += 1
                    yield item, row
                else:
                    tally.drop("with NaN or infinite values", place + 1, name)
            if progress and place % 1000 == 0:
                progress(place, len(names))

    dtype = "<f2" if matrix.dtype == np.float16 else "<f4"
    return tally, write_rows(target, len(item_of), matrix.shape[1], rows(), fill, dtype)
