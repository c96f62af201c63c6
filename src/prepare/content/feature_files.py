"""Feature matrices of the kept items, written row by row from matrices that need not fit memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prepare.lines import NOT_KEPT, Advance, Tally
from prepare.pipeline import whole_file
from utils.data.missing_modalities import mask_path
from utils.errors import UserError

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
    with whole_file(path) as file:
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
    write_mask(path, present)
    return present


def write_mask(path: Path, present: NDArray[np.bool_]) -> None:
    """Writes the mask beside a feature file, or takes it away where nothing is missing."""
    mask = mask_path(path)
    if present.all():
        with contextlib.suppress(FileNotFoundError):
            mask.unlink()
        return
    with whole_file(mask) as file:
        np.lib.format.write_array(file, present, allow_pickle=False)


# image_features_<Category>.b: records of an ASIN and 4096 little-endian float32


def from_records(
    source: Path,
    item_of: Mapping[str, int],
    target: Path,
    fill: str,
    accept_truncated: bool = False,
    advance: Advance | None = None,
    width: int = 4096,
) -> tuple[Tally, NDArray[np.bool_]]:
    """Writes the rows of the kept items of an image feature file.

    Args:
        source: the file.
        item_of: number of each item by its ASIN.
        target: `image_feat.npy`.
        fill: for items without a record, `zero` or `mean`.
        accept_truncated: take a file that ends within a record.
        width: values of a record.

    Raises:
        UserError: if the file ends within a record, or is not made of such records.
    """
    tally = Tally(source.name, "records")
    size = KEY_BYTES + 4 * width
    try:
        length = source.stat().st_size
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror})") from None
    whole, rest = divmod(length, size)
    if rest and not accept_truncated:
        raise UserError(
            f"{source.name}: {length:,} bytes are {whole:,} records of {size:,} bytes ({KEY_BYTES} of ASIN and {width} "
            f"float32) and {rest:,} bytes more: wrong record size or a file that ends early; fetch it again, or go on "
            "with the whole records by --accept_truncated"
        )
    mask = write_rows(target, len(item_of), width, _records(source, item_of, tally, size, whole, advance), fill)
    if rest:
        tally.read += 1
        tally.drop("cut off at the end of the file", whole + 1, f"{rest:,} of {size:,} bytes")
    return tally, mask


def _records(
    source: Path, item_of: Mapping[str, int], tally: Tally, size: int, whole: int, advance: Advance | None
) -> Iterable[tuple[int, NDArray[np.float32]]]:
    seen: set[int] = set()
    bad = 0
    try:
        with open(source, "rb") as file:
            for first in range(0, whole, ROWS):
                n = min(ROWS, whole - first)
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
                if advance:
                    advance(first + n, whole)
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror})") from None
    if bad > MAX_BAD * whole:
        entry = tally.dropped["without an ASIN at the start"]
        raise UserError(
            f"{source.name}: {bad:,} of {whole:,} records of {size:,} bytes do not begin with an ASIN (first: record "
            f"{entry['first']:,}): wrong record size or a damaged file; expected {KEY_BYTES} bytes of ASIN and "
            f"{(size - KEY_BYTES) // 4} little-endian float32 each"
        )


# A user's own matrix


def from_matrix(
    source: Path,
    row_ids: Sequence[str] | None,
    item_of: Mapping[str, int],
    target: Path,
    fill: str,
    advance: Advance | None = None,
) -> tuple[Tally, NDArray[np.bool_]]:
    """Writes the rows of the kept items of a .npy matrix [rows, F].

    Args:
        source: the matrix, of floats or integers; written as float32, float16 stays.
        row_ids: original item id of each row; None: row = item id.
        item_of: number of each item by its original id.
        target: `NAME_feat.npy`.
        fill: for items without a row, `zero` or `mean`.

    Raises:
        UserError: if it is no such matrix, or has another number of rows than there are ids.
    """
    tally = Tally(source.name, "rows")
    try:
        matrix = np.load(source, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = (
            "it holds Python objects"
            if "Python objects" in str(error) or "allow_pickle" in str(error)
            else str(error).partition("\n")[0]
        )
        raise UserError(f"{source.name}: not a numeric .npy array: {reason}") from None
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.shape[1] == 0 or matrix.dtype.kind not in "fiu":
        what = f"{matrix.dtype} {list(matrix.shape)}" if isinstance(matrix, np.ndarray) else "an archive"
        raise UserError(f"{source.name}: expected numbers of shape [items, features], got {what}")
    if row_ids is not None and len(row_ids) != len(matrix):
        raise UserError(f"{source.name}: {len(matrix):,} rows, but {len(row_ids):,} ids were given for them")
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
            if advance and place % 1000 == 0:
                advance(place, len(names))

    dtype = "<f2" if matrix.dtype == np.float16 else "<f4"
    return tally, write_rows(target, len(item_of), matrix.shape[1], rows(), fill, dtype)
