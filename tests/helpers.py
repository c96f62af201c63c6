"""Settings, data folders and errors as the tests of utils/ need them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from utils.config.configuration import Config
from utils.config.request import Request, resolve
from utils.config.schema import setting
from utils.data.dataset import Dataset
from utils.data.reading import make_splits
from utils.errors import UserError

ROWS = (
    *((0, 0, 0), (0, 1, 0), (0, 3, 1), (0, 2, 2)),
    *((1, 2, 0), (1, 0, 1), (1, 3, 2)),
    *((2, 1, 0), (2, 3, 0), (2, 2, 1), (2, 0, 2)),
)  # (user, item, label): three users, four items


@dataclass(frozen=True)
class ToyKeys:
    """Keys of a model that is nowhere but in these tests."""

    embedding_size: int = setting("width of the embeddings", low=1)
    n_ui_layers: int = setting("depth of the propagation", low=0, alias=("n_layers",))
    reg_weight: float = setting("weight of the penalty", low=0)
    dropout: float = setting("share of what is dropped", low=0, high=1, default=0.5)


TOY_VALUES: dict[str, Any] = {"embedding_size": 8, "n_ui_layers": 2, "reg_weight": 0.1}


def toy_configs(dataset: str = "demo", **overrides: Any) -> list[Config]:
    """Every run of a grid of the model Toy: a tuple is an axis, anything else one value."""
    values = {k: list(v) if isinstance(v, tuple) else [v] for k, v in (TOY_VALUES | overrides).items()}
    configs, _ = resolve(Request(["Toy"], [dataset], values), {"Toy": ToyKeys})
    return configs


def toy_config(dataset: str = "demo", **overrides: Any) -> Config:
    """The settings of one run of the model Toy."""
    (config,) = toy_configs(dataset, **overrides)
    return config


def problems_of(call: Callable[[], object]) -> list[str]:
    """The lines of the UserError that the call must raise."""
    with pytest.raises(UserError) as caught:
        call()
    return list(caught.value.problems)


def write_set(
    data: Path,
    rows: Sequence[Sequence[Any]] = ROWS,
    features: Mapping[str, NDArray[Any] | bytes] | None = None,
    header: Sequence[str] = ("userID", "itemID", "x_label"),
    name: str = "toy",
) -> Path:
    """Writes a data set's folder: NAME.inter and arrays, or raw bytes, by file name. Returns the folder."""
    folder = data / name
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(map(str, row)) for row in (header, *rows)]
    (folder / f"{name}.inter").write_text("\n".join(lines) + "\n")
    for file, content in ({"image_feat.npy": ones(4, 2)} if features is None else features).items():
        if isinstance(content, bytes):
            (folder / file).write_bytes(content)
        else:
            np.save(folder / file, content)
    return folder


def ones(*shape: int) -> NDArray[np.float32]:
    return np.ones(shape, dtype=np.float32)


class Planted:
    """An object whose unpickling makes a file: what a harmful pickle would do."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def dataset_of(rows: Sequence[Sequence[int]], n_users: int, n_items: int) -> Dataset:
    """A data set of rows (user, item, label), without features."""
    users, items, labels = np.asarray(rows, dtype=np.int64).reshape(-1, 3).T
    splits, _ = make_splits(users, items, labels, n_users, n_items, filter_cold=False)
    return Dataset("toy", n_users, n_items, splits)


def random_dataset(seed: int = 0, n_users: int = 30, n_items: int = 25, test_users: int = 20) -> Dataset:
    """Each user has 1 to 14 training items; only some users have 1 to 3 items for validation and for test.

    The last item and the last user have no interaction; the item before the last stands in the test split only.
    """
    random = np.random.default_rng(seed)
    rows = [(0, n_items - 2, 2)]
    for user in range(n_users - 1):
        items = random.permutation(n_items - 2)
        cut = int(random.integers(1, 15))
        rows += [(user, int(item), 0) for item in items[:cut]]
        if user < test_users:
            n_valid, n_test = random.integers(1, 4, size=2)
            rows += [(user, int(item), 1) for item in items[cut : cut + n_valid]]
            rows += [(user, int(item), 2) for item in items[cut + n_valid : cut + n_valid + n_test]]
    return dataset_of(rows, n_users, n_items)
