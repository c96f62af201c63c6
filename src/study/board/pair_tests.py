"""Paired t-tests over users between all pairs of runs at once, small enough for a page."""

from __future__ import annotations

import base64
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtr

from study.board.read_runs import ShownRun

READ_BYTES = 200_000_000  # of per_user.csv files: some 70 runs of 20,000 users
P_VALUES = 1_000_000  # two bytes each
SCALE = 1000  # of -log10(p), which is kept as a whole number
NO_TEST = 2**16 - 1


@dataclass(frozen=True)
class PairTests:
    """The tests of runs that were evaluated on the same users of the same data.

    Attributes:
        split: what was tested; `valid` of runs without a test.
        runs: their places in the list of all runs.
        p: metric to the p values of pairs (0, 1), (0, 2) ... (1, 2) ... in base64: 16 bits, little-endian, each
            -1000 log10 p; NO_TEST where it says nothing.
    """

    split: str
    users: int
    runs: list[int]
    p: dict[str, str]


def pair_tests(runs: Sequence[ShownRun]) -> list[PairTests]:
    """Tests all pairs of the runs of each data set that validation ranks first, as many as the limits let in."""
    groups: dict[Any, list[tuple[int, pd.DataFrame]]] = defaultdict(list)
    for place in _candidates(runs):
        run = runs[place]
        split = "test" if run.test else "valid"
        table = _per_user(run.folder / "per_user.csv", split)
        if table is not None:
            groups[run.data, split, table.index.to_numpy().tobytes(), tuple(table.columns)].append((place, table))
    found = []
    for (_, split, _, metrics), members in groups.items():
        if len(members) > 1:
            p = {
                str(metric): _encoded(np.stack([table[metric].to_numpy(float) for _, table in members]))
                for metric in metrics
            }
            found.append(PairTests(split, len(members[0][1]), [place for place, _ in members], p))
    return found


def _candidates(runs: Sequence[ShownRun]) -> list[int]:
    """Places of the runs to test: the best of each data set by validation, then the second best, to the limits."""
    by_data: dict[Any, list[int]] = defaultdict(list)
    for place, run in enumerate(runs):
        if run.valid and run.data:
            by_data[run.data].append(place)
    for places in by_data.values():
        places.sort(key=lambda place: -runs[place].valid.get(runs[place].valid_metric, 0.0))
    most = math.isqrt(2 * P_VALUES // max([1, *(len(run.valid) for run in runs)]))
    chosen: list[int] = []
    size = 0
    for place in chain.from_iterable(zip_longest(*by_data.values())):
        path = None if place is None else runs[place].folder / "per_user.csv"
        if place is not None and path and path.is_file():
            size += path.stat().st_size
            if size > READ_BYTES or len(chosen) == most:
                break
            chosen.append(place)
    return sorted(chosen)


def _per_user(path: Path, split: str) -> pd.DataFrame | None:
    """A row for each user in order, a float32 column for each metric; None for a file that is no such table."""
    try:
        table = pd.read_csv(path)
        table = table[table["split"] == split].drop(columns="split").set_index("user").sort_index()
        return table.astype(np.float32) if len(table) else None
    except (OSError, ValueError, KeyError):
        return None


def _encoded(values: NDArray[np.float64]) -> str:
    """The p values of all pairs of rows [R, U].

    The variance of a difference is S_ii + S_jj - 2 S_ij, so that one product of the centred values serves all pairs.
    """
    n = values.shape[1]
    mean = values.mean(axis=1)
    centred = values - mean[:, None]
    products = centred @ centred.T
    first, second = np.triu_indices(len(values), 1)
    size = products[first, first] + products[second, second]
    spread = size - 2 * products[first, second]
    known = spread > 1e-12 * size
    level = np.full(len(first), float(NO_TEST))
    if n > 1:
        error = np.sqrt(spread[known] / (n - 1) / n)
        p = 2 * stdtr(n - 1, -np.abs(mean[first] - mean[second])[known] / error)
        with np.errstate(divide="ignore"):  # p may be too small for a float
            level[known] = np.minimum(np.round(-SCALE * np.log10(p)), NO_TEST - 1)
    return base64.b64encode(level.astype("<u2").tobytes()).decode()
