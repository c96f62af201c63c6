"""Splits of interactions into training, validation and test; all of them deterministic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prepare.interactions import Interactions
from utils.data.dataset import SPLITS
from utils.errors import UserError

KINDS = ("mmrec", "chronological", "leave_one_out", "global_time", "cold_items", "given")
DRAWN = ("mmrec", "cold_items")  # by a seed
TRAIN, VALID, TEST = 0, 1, 2
FEWEST = 3  # rows of a user: one for each split


def split(
    table: Interactions,
    kind: str,
    seed: int = 0,
    ratios: Sequence[float] = (0.8, 0.1, 0.1),
    few: int = 10,
    least: int = FEWEST,
) -> NDArray[np.int8]:
    """Labels of the rows: 0 train, 1 validation, 2 test, int8 [E].

    Of a user with n rows, `mmrec` and `chronological` hold out the last h in random order, or in order of time: two, one
    each for validation and test, if n < few; else floor((1 - train) n), of which floor(h valid / (valid + test)) are
    validation. `leave_one_out` holds out the last two in time. Users with fewer than `least` rows stay in training.
    `global_time` cuts everybody's rows at two moments, so that train, then train + valid of all rows lie before. Equal
    times of a user are ordered by item number. `cold_items` draws floor(valid I) and floor(test I) of the I items, at least
    one each, and holds out all of their rows; the rows of the other items are split as by `mmrec`.

    Args:
        table: the interactions.
        kind: one of `KINDS`; `given` takes the labels that the table has.
        seed: of random orders.
        ratios: shares of train, validation and test; their sum is 1.
        few: see above.
        least: see above, at least 3.

    Raises:
        UserError: if the split needs times and there are none, or a split comes out empty.
    """
    if kind == "given":
        if table.labels is None:
            raise UserError("--split given: the interactions have no such column; name it with --columns split=NAME")
        labels = table.labels
    elif kind in DRAWN:
        random = np.random.Generator(np.random.PCG64(seed))
        cold = _cold_items(len(table.item_ids), ratios, random) if kind == "cold_items" else None
        labels = np.zeros(len(table), dtype=np.int8) if cold is None else cold[table.items]
        warm = labels == TRAIN
        part = table.rows(warm)
        labels[warm] = _last(part, random.random(len(part)), _held_out(part, ratios, few, least))
    else:
        if table.times is None:
            raise UserError(
                f"--split {kind}: the interactions have no times; name their column with --columns time=NAME, or use "
                "--split mmrec"
            )
        if kind == "global_time":
            labels = _by_moments(table.times, ratios)
        elif kind == "chronological":
            labels = _last(table, table.times, _held_out(table, ratios, few, least))
        else:
            n = np.bincount(table.users, minlength=len(table.user_ids))
            labels = _last(table, table.times, (np.where(n < least, 0, 2), np.where(n < least, 0, 1)))
    empty = [name for label, name in enumerate(SPLITS) if not (labels == label).any()]
    if empty:
        raise UserError(
            f"--split {kind}: {' and '.join(empty)} would be empty ({len(table):,} interactions); "
            "choose other --ratios or another --split"
        )
    return np.asarray(labels, dtype=np.int8)


def _cold_items(n_items: int, ratios: Sequence[float], random: np.random.Generator) -> NDArray[np.int8]:
    """The label of every row of an item [I]: TRAIN where it is not held out as a whole."""
    n_valid, n_test = (max(1, int(np.floor(share * n_items + 1e-9))) for share in ratios[1:])
    drawn = random.permutation(n_items)
    labels = np.full(n_items, TRAIN, dtype=np.int8)
    labels[drawn[:n_valid]], labels[drawn[n_valid : n_valid + n_test]] = VALID, TEST
    return labels


def _held_out(
    table: Interactions, ratios: Sequence[float], few: int, least: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many rows of each user are held out [U], and how many of them are validation [U]."""
    n = np.bincount(table.users, minlength=len(table.user_ids))
    # 0.2 * 15 is a hair above 3 in floating point and 0.1 / 0.2 might be one below a half: floors are of the exact numbers.
    held = np.where(n < few, 2, np.floor((ratios[1] + ratios[2]) * n + 1e-9).astype(np.int64))
    valid = np.where(n < few, 1, np.floor(held * ratios[1] / (ratios[1] + ratios[2]) + 1e-9).astype(np.int64))
    return np.where(n < least, 0, held), np.where(n < least, 0, valid)


def _last(
    table: Interactions, key: NDArray[Any], counts: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> NDArray[np.int8]:
    """Of each user's rows in order of `key`, the last `held` are held out, the first `valid` of them for validation."""
    held, valid = counts
    order = np.lexsort((table.items, key, table.users))
    users = table.users[order]
    ends = np.cumsum(np.bincount(users, minlength=len(held)))
    from_end = ends[users] - np.arange(len(users))  # 1 for a user's last row
    ordered = np.where(from_end <= held[users] - valid[users], TEST, np.where(from_end <= held[users], VALID, TRAIN))
    labels = np.empty(len(users), dtype=np.int8)
    labels[order] = ordered
    return labels


def _by_moments(times: NDArray[np.int64], ratios: Sequence[float]) -> NDArray[np.int8]:
    ordered = np.sort(times)
    places = [int(np.floor(share * len(times) + 1e-9)) for share in (ratios[0], ratios[0] + ratios[1])]
    first, second = (ordered[min(place, len(times) - 1)] for place in places)
    return np.where(times < first, TRAIN, np.where(times < second, VALID, TEST)).astype(np.int8)
