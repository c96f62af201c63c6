"""A data set as its files have it: nothing is cleaned, filtered or cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.config.configuration import Config
from utils.data.dataset import SPLITS
from utils.data.interaction_file import layout_of, plain_names
from utils.data.missing_modalities import Mask, read_mask
from utils.data.reading import discover_features, existing_file, read_interactions, read_matrix
from utils.data.synthetic import generate
from utils.data.synthetic_spec import synthetic_spec
from utils.errors import UserError

TIME_COLUMNS = ("timestamp", "time")


@dataclass(frozen=True)
class Raw:
    """A data set as its files have it.

    Attributes:
        users, items, labels: of each row, in file order, int64 [E].
        times: of each row, or None; NaN where there is none.
        matrices: modality to the array of its file, any number of rows.
        masks: modality to the mask beside its file, as many rows; None where there is none.
        folder: where it lies; None for a generated one.
    """

    name: str
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    labels: NDArray[np.int64]
    times: NDArray[np.float64] | None
    matrices: dict[str, NDArray[Any]]
    missing: list[str]
    folder: Path | None
    masks: dict[str, Mask | None] = field(default_factory=dict)

    @property
    def n_users(self) -> int:
        return int(self.users.max()) + 1

    @property
    def n_items(self) -> int:
        return int(self.items.max()) + 1

    def keys(self, label: int) -> NDArray[np.int64]:
        """user * I + item of the rows of a split, repeated rows included."""
        rows = self.labels == label
        return self.users[rows] * self.n_items + self.items[rows]


def read_raw(config: Config) -> Raw:
    """Reads the files of a data set, or generates it, without changing anything.

    Raises:
        UserError: for a file that is missing or cannot be read.
    """
    name = config["dataset"]
    if config["synthetic"] is not None:
        data = generate(synthetic_spec(config["synthetic"]))
        return Raw(name, data.users, data.items, data.labels.astype(np.int64), None, dict(data.features), [], None)
    folder = Path(config["data_path"]) / name
    inter = folder / (config["inter_file_name"] or f"{name}.inter")
    if not inter.is_file():
        raise UserError(f"data set '{name}': no file {inter}; set --data_path to the folder that holds {name}/")
    users, items, labels = read_interactions(inter, config)
    empty = [f"{inter.name}: the {s} split is empty" for label, s in enumerate(SPLITS) if not (labels == label).any()]
    files = config["modalities"] if config["modalities"] is not None else discover_features(folder)
    files = {modality: existing_file(folder, file) for modality, file in files.items()}
    there = {modality: file for modality, file in files.items() if (folder / file).is_file()}
    missing = [file for modality, file in files.items() if modality not in there]
    matrices: dict[str, NDArray[Any]] = {}
    masks: dict[str, Mask | None] = {}
    for modality, file in there.items():
        matrices[modality] = matrix = read_matrix(folder / file, modality)
        masks[modality] = read_mask(folder / file, len(matrix))
        if len(matrix) <= items.max():
            empty.append(f"{file} ({modality}): {len(matrix):,} rows, but items go up to {int(items.max()):,}")
    if empty:
        raise UserError(*empty)
    return Raw(name, users, items, labels, _times(inter, config), matrices, missing, folder, masks)


def _times(inter: Path, config: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """The column of timestamps, if there is one; dates are read as seconds."""
    layout = layout_of(inter, config)
    named = [
        name for name, plain in zip(layout.header, plain_names(layout.header), strict=True) if plain in TIME_COLUMNS
    ]
    if not named:
        return None
    column = pd.read_csv(inter, sep=layout.separator, header=0, names=layout.header, usecols=named[:1])[named[0]]
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.isna().all():
        dates = pd.to_datetime(column, errors="coerce", utc=True, format="ISO8601")
        numbers = (dates - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
    return numbers.to_numpy(dtype=np.float64)
