"""The health of feature files: scale, rows that are zero, repeated or broken, constant columns, missing items."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.data.missing_modalities import read_mask
from utils.errors import UserError

BLOCK = 512  # rows of features at a time
CENTRED = 0.1  # length of the mean row over the mean length of rows, below which features count as centred


@dataclass
class Health:
    """The state of one feature file.

    Attributes:
        rows, items: of the file, and of the data set.
        zero: rows of items that are all zero; broken: rows with NaN or infinite values, left out of what follows.
        repeated: rows that are not zero and equal to another; largest_group: of equal rows.
        constant: columns with one value.
        offset: length of the mean row over the mean length of rows: 0 centred, 1 all rows alike.
        missing: items that the mask file calls missing; None: there is no such file.
    """

    modality: str
    file: str
    rows: int
    items: int
    width: int
    dtype: str
    zero: int = 0
    broken: int = 0
    repeated: int = 0
    largest_group: int = 0
    constant: int = 0
    mean: float = 0.0
    std: float = 0.0
    low: float = 0.0
    high: float = 0.0
    length: float = 0.0
    offset: float = 0.0
    missing: int | None = None
    problems: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """What there is to say."""
        share = 100 / max(self.items, 1)
        centred = "centred" if self.offset < CENTRED else f"not centred (offset {self.offset:.2f} of a row's length)"
        counted = [
            f"{n:,} {what} ({n * share:.1f}%)"
            for n, what in (
                (self.zero, "rows all zero"),
                (self.repeated, f"rows equal to another (largest group {self.largest_group:,})"),
                (self.broken, "rows with NaN or infinite values"),
            )
            if n
        ]
        counted += [f"{self.constant:,} constant columns"] * bool(self.constant)
        mask = (
            "no mask file"
            if self.missing is None
            else (f"{self.missing:,} items missing ({self.missing * share:.1f}%) by the mask")
        )
        return [
            f"{self.modality} ({self.file}): {self.rows:,} x {self.width:,} {self.dtype}; mean {self.mean:.4g}, standard "
            f"deviation {self.std:.4g}, from {self.low:.4g} to {self.high:.4g}, row length {self.length:.4g}; {centred}",
            f"  {', '.join(counted) or 'no row all zero, repeated or broken'}; {mask}",
            *(f"  problem: {problem}" for problem in self.problems),
        ]


def health_of_file(path: Path, modality: str, n_items: int) -> Health:
    """The health of a file; a file that is no matrix of numbers is a problem of it, not an error."""
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
            found = f"{matrix.dtype} {list(matrix.shape)}" if isinstance(matrix, np.ndarray) else "an archive of arrays"
            raise ValueError(f"expected a matrix of numbers, got {found}")
    except Exception as error:  # a broken header raises many kinds
        objects = "allow_pickle" in str(error) or "Python objects" in str(error)
        reason = "it holds Python objects" if objects else str(error).partition("\n")[0]
        return Health(modality, path.name, 0, n_items, 0, "", problems=[f"not a numeric .npy matrix: {reason}"])
    health = health_of(matrix, modality, path.name, n_items)
    try:
        present = read_mask(path, len(matrix))
    except UserError as error:
        health.problems += error.problems
    else:
        health.missing = None if present is None else int((~present[:n_items]).sum())
    return health


def health_of(matrix: NDArray[Any], modality: str, file: str, n_items: int) -> Health:
    """The state of a matrix, read in blocks."""
    health = Health(modality, file, len(matrix), n_items, matrix.shape[1], str(matrix.dtype))
    if len(matrix) != n_items:
        which = "fewer rows than items: runs refuse it" if len(matrix) < n_items else "the rows beyond are left out"
        health.problems.append(f"{len(matrix):,} rows for {n_items:,} items; {which}")
    width, n = health.width, 0
    total, squares = np.zeros(width), np.zeros(width)
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    lengths, groups = 0.0, dict[bytes, int]()
    for start in range(0, min(len(matrix), n_items), BLOCK):
        block = np.asarray(matrix[start : min(start + BLOCK, n_items)], dtype=np.float64)
        finite = np.isfinite(block).all(axis=1)
        health.broken += int((~finite).sum())
        block = block[finite]
        nonzero = block.any(axis=1)
        health.zero += int((~nonzero).sum())
        for row in block[nonzero]:
            digest = hashlib.blake2b((row + 0.0).tobytes(), digest_size=16).digest()  # + 0.0: one zero only
            groups[digest] = groups.get(digest, 0) + 1
        n += len(block)
        total += block.sum(axis=0)
        squares += (block * block).sum(axis=0)
        lengths += float(np.sqrt((block * block).sum(axis=1)).sum())
        low = np.minimum(low, block.min(axis=0, initial=np.inf))
        high = np.maximum(high, block.max(axis=0, initial=-np.inf))
    shared = [count for count in groups.values() if count > 1]
    health.repeated, health.largest_group = sum(shared), max(shared, default=0)
    if n:
        mean = total / n
        health.constant = int((low == high).sum())
        health.mean = float(mean.mean())
        health.std = float(np.sqrt(max(float(squares.mean()) / n - health.mean**2, 0.0)))
        health.low, health.high, health.length = float(low.min()), float(high.max()), lengths / n
        health.offset = float(np.sqrt((mean * mean).sum())) / health.length if health.length else 0.0
    return health
