"""Items without an image or a text: told by a mask file, by rows of NaN, or drawn to see what a model makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from utils.data.modality_input import stream
from utils.errors import UserError

Mask = NDArray[np.bool_]  # True = present


def mask_path(path: Path) -> Path:
    """The mask's file beside a feature file: `image_mask.npy` for `image_feat.npy`."""
    return path.with_name(f"{path.stem.removesuffix('_feat')}_mask.npy")


def read_mask(path: Path, n_rows: int) -> Mask | None:
    """The mask [n_rows] beside the feature file `path`, True = present; None where there is none.

    Raises:
        UserError: if it is no bool array of that length.
    """
    mask = mask_path(path)
    if not mask.is_file():
        return None
    try:
        with open(mask, "rb") as file:
            present: Mask = np.lib.format.read_array(file, allow_pickle=False)
        if present.dtype != bool or present.shape != (n_rows,):
            raise ValueError(f"expected bool [{n_rows}], got {present.dtype} {list(present.shape)}")
    except Exception as error:  # a broken header raises many kinds
        raise UserError(f"{mask.name} cannot be used: {error}".splitlines()[0]) from None
    return present


def present_rows(matrix: NDArray[np.float32], mask: Mask | None, nan_is_missing: bool) -> Mask:
    """Which rows of a feature matrix [I, F] are of items that have the modality: bool [I].

    Args:
        matrix: with `nan_is_missing`, rows with NaN become zeros in it.
        mask: of at least I rows; None: every item has it.
    """
    present = np.ones(len(matrix), dtype=bool) if mask is None else mask[: len(matrix)].copy()
    if nan_is_missing:
        broken = np.isnan(matrix).any(axis=1)
        matrix[broken] = 0
        present &= ~broken
    return present


def drawn_present(modality: str, n_items: int, share: float) -> Mask:
    """All items but `share` of them, rounded, bool [I]; at least one stays.

    Who is missing depends on the modality's name and the number of items alone, so all runs of a comparison miss the same
    items, and those that miss at one share miss at every larger one.
    """
    order = stream(f"{modality} {n_items} missing").permutation(n_items)
    present = np.ones(n_items, dtype=bool)
    present[order[: min(round(share * n_items), n_items - 1)]] = False
    return present
