"""Reading the files of a data set: interactions with their splits, and feature matrices.

Format (that of MMRec): `NAME.inter`, a separated text file with a header and at least the columns userID, itemID
(integers from 0) and x_label (0 train, 1 validation, 2 test); one array [items, F] per modality, `.npy` or `.pt`, row =
itemID. Other separators, known names of columns and words for splits are found by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from utils.data.dataset import SPLITS, Split
from utils.data.interaction_file import SPLIT_WORDS, layout_of
from utils.data.missing_modalities import present_rows, read_mask
from utils.errors import UserError

SPARSEST = 1000  # largest id over number of interactions
FILE_STEMS = {"image": "visual", "text": "textual", "audio": "acoustic"}


def read_interactions(
    path: Path, config: Mapping[str, Any], remarks: list[str] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Reads user ids, item ids and split labels, each int64 [E], in file order.

    Args:
        path: the file.
        config: names of columns, and the separator; others that are known are found, see `layout_of`.
        remarks: is added what was read otherwise than the settings say.

    Raises:
        UserError: for a missing column, an id that is no integer from 0 up, an unknown word for a split, or no rows.
    """
    layout = layout_of(path, config)
    columns = layout.columns
    try:
        table = pd.read_csv(
            path, sep=layout.separator, header=0, names=layout.header, usecols=columns, engine="c", low_memory=False,
            skipinitialspace=layout.separator != "\t",
        )  # fmt: skip
    except (ValueError, OSError) as error:  # among them ParserError and UnicodeDecodeError
        raise UserError(f"{path.name}: cannot be read as a separated text file: {error}".splitlines()[0]) from None
    if table.empty:
        raise UserError(f"{path.name}: no rows below the header; expected interactions")
    problems = []
    arrays = []
    for column in columns:
        series = table[column]
        wanted = "0, 1 or 2" if column == columns[2] else "an integer from 0 up"
        parsed = pd.to_numeric(series, errors="coerce")
        if column == columns[2]:
            words = series[parsed.isna()].astype(str).str.strip().str.lower()
            parsed = parsed.fillna(words.map(SPLIT_WORDS))
        elif parsed.isna().mean() > 0.5:
            first = series[parsed.isna()].iloc[0]
            problems.append(
                f"{path.name}: {column} holds ids that are no numbers, such as {first!r}; {_numbering(path)}"
            )
            continue
        numbers = parsed.to_numpy(dtype=np.float64)
        # 2^53 bounds what float64 holds exactly; ids that large are a mistake anyway.
        with np.errstate(invalid="ignore"):
            bad = ~((numbers >= 0) & (numbers == np.floor(numbers)) & (numbers < 2**53))
            if column == columns[2]:
                bad |= ~np.isin(numbers, (0, 1, 2))
        if bad.any():
            row = int(np.argmax(bad))
            (value,) = series.iloc[[row]].tolist()  # of Python's own type
            problems.append(
                f"{path.name}: line {row + 2}: {column} is {value!r}, expected {wanted}"
                + (f" ({int(bad.sum()):,} such rows)" if bad.sum() > 1 else "")
            )
        else:
            arrays.append(numbers.astype(np.int64))
    if problems:
        raise UserError(*problems)
    largest = max(int(arrays[0].max()), int(arrays[1].max()))
    # Ids this far apart are raw ones: tables with a row for each would not fit memory.
    if largest >= 2**31 - 1 or largest > SPARSEST * len(table):
        raise UserError(f"{path.name}: an id of {largest}; ids count from 0 without gaps; {_numbering(path)}")
    if remarks is not None and layout.remark:
        remarks.append(layout.remark)
    return arrays[0], arrays[1], arrays[2]


def _numbering(path: Path) -> str:
    folder = path.absolute().parent
    return f"`main.py convert mmrec {folder} {folder}-numbered --renumber` numbers users and items"


def make_splits(
    users: NDArray[np.int64],
    items: NDArray[np.int64],
    labels: NDArray[np.int64],
    n_users: int,
    n_items: int,
    filter_cold: bool = True,
) -> tuple[dict[str, Split], list[str]]:
    """Sorts rows into splits without repeated rows and cold-start users; returns them and warnings about what it met."""
    warnings = []
    pairs: dict[str, NDArray[np.int64]] = {}
    for label, name in enumerate(SPLITS):
        rows = labels == label
        keys = users[rows] * n_items + items[rows]
        pairs[name] = np.unique(keys)
        if repeated := len(keys) - len(pairs[name]):
            warnings.append(f"{name}: {repeated:,} repeated (user, item) rows; each pair counts once")
    for first, second in (("train", "valid"), ("train", "test"), ("valid", "test")):
        both = np.intersect1d(pairs[first], pairs[second], assume_unique=True)
        if len(both):
            user, item = divmod(int(both[0]), n_items)
            warnings.append(
                f"{len(both):,} interactions are in both {first} and {second} (first: user {user}, item {item}); "
                + ("masked there, they can never be hit" if first == "train" else "the split overlaps")
            )
    trained = np.zeros(n_users, dtype=bool)
    trained[pairs["train"] // n_items] = True
    for name in ("valid", "test"):
        cold = ~trained[pairs[name] // n_items]
        if cold.any():
            n_cold = len(np.unique(pairs[name][cold] // n_items))
            what = "their rows are left out" if filter_cold else "they are ranked without a history"
            warnings.append(f"{n_cold:,} users of {name} have no training row ({int(cold.sum()):,} rows); {what}")
            if filter_cold:
                pairs[name] = pairs[name][~cold]
    return {name: Split(keys // n_items, keys % n_items) for name, keys in pairs.items()}, warnings


def discover_features(folder: Path) -> dict[str, str]:
    """Modality name to file, for every `*_feat.npy` or `.pt` of a folder: image = visual, text = textual, audio = acoustic.

    Raises:
        UserError: if two files stand for one modality, or a file's name cannot name one.
    """
    files = sorted((*folder.glob("*_feat.npy"), *folder.glob("*_feat.pt")), key=lambda path: path.suffix, reverse=True)
    stems = {path.stem.removesuffix("_feat"): path.name for path in files}  # of two, the .npy
    ordered = [*(s for s in FILE_STEMS if s in stems), *sorted(s for s in stems if s not in FILE_STEMS)]
    found: dict[str, str] = {}
    for stem in ordered:
        modality = FILE_STEMS.get(stem, stem)
        if modality in found:
            raise UserError(
                f"{folder}: {found[modality]} and {stems[stem]} are both {modality}; name one in `modalities`"
            )
        if not modality.isidentifier() or modality in SPLITS:
            raise UserError(f"{stems[stem]}: '{modality}' cannot name a modality; expected letters, digits and _")
        found[modality] = stems[stem]
    return found


def existing_file(folder: Path, name: str) -> str:
    """The name of a feature file, or that of a .pt file in its place where only this is there."""
    other = Path(name).with_suffix(".pt")
    return other.as_posix() if not (folder / name).is_file() and (folder / other).is_file() else name


def read_features(
    path: Path, modality: str, n_items: int, warnings: list[str], nan_is_missing: bool, remarks: list[str] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Reads one feature matrix as float32 [n_items, F], and which items have a row of their own, bool [n_items].

    Raises:
        UserError: if it is no numeric matrix, has fewer rows than items, holds infinite values or, unless they count as
            missing, NaN; if the mask beside it does not fit.
    """
    matrix = read_matrix(path, modality)
    mask = read_mask(path, len(matrix))
    if len(matrix) < n_items:
        raise UserError(
            f"{path.name} ({modality}): {len(matrix):,} rows, but items go up to {n_items - 1:,}: "
            f"{n_items - len(matrix):,} items have no feature row"
        )
    if len(matrix) > n_items:
        warnings.append(
            f"{path.name} ({modality}): {len(matrix):,} rows for {n_items:,} items; the rows beyond are left out"
        )
    if remarks is not None and matrix.dtype != np.float32:
        remarks.append(f"{path.name}: {matrix.dtype}, read as float32")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
        matrix = np.ascontiguousarray(matrix[:n_items], dtype=np.float32)
    present = present_rows(matrix, mask, nan_is_missing)
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        how = "; --nan_features missing takes rows with NaN for missing" if np.isnan(matrix).any() else ""
        raise UserError(
            f"{path.name} ({modality}): NaN or infinite values in {int((~finite).sum()):,} rows "
            f"(first: item {int(np.argmin(finite))}){how}"
        )
    return matrix, present


def read_matrix(path: Path, modality: str) -> NDArray[Any]:
    """Reads a numeric matrix of any number of rows as it is.

    Raises:
        UserError: if it is no numeric matrix.
    """
    try:
        with open(path, "rb") as file:
            if path.suffix == ".pt":
                tensor = torch.load(file, map_location="cpu", weights_only=True).detach()
                matrix: NDArray[Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
            else:  # not np.load: .npy and nothing else
                matrix = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # a broken header raises many kinds, TokenError and MemoryError among them
        reason = "it holds Python objects" if "allow_pickle" in str(error) else str(error).partition("\n")[0]
        raise UserError(f"{path.name} ({modality}): not a numeric {path.suffix} array: {reason}") from None
    if matrix.dtype.kind not in "fiu":
        raise UserError(f"{path.name} ({modality}): expected an array of numbers, got {matrix.dtype}")
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise UserError(f"{path.name} ({modality}): expected shape [items, features], got {list(matrix.shape)}")
    return matrix
