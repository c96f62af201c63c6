"""Splits into training, validation and test, all deterministic, and published splits told by their counts and hash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prepare.interactions import Interactions
from utils.config.yaml_files import read_yaml
from utils.data.dataset import SPLITS, content_hash
from utils.errors import UserError
from utils.paths import CONFIGS

KINDS = ("mmrec", "chronological", "leave_one_out", "global_time", "given")
TRAIN, VALID, TEST = 0, 1, 2
LEAST = 3  # rows of a user: one for each split


def split(
    table: Interactions,
    kind: str,
    seed: int = 0,
    ratios: Sequence[float] = (0.8, 0.1, 0.1),
    few: int = 10,
    least: int = LEAST,
) -> NDArray[np.int8]:
    """Labels of the rows: 0 train, 1 validation, 2 test, int8 [E].

    Of a user with n rows, `mmrec` and `chronological` hold out the last h in random order, or in order of time: two, one
    each for validation and test, if n < few; else floor((1 - train) n), of which floor(h valid / (valid + test)) are
    validation. `leave_one_out` holds out the last two in time. Users with fewer than `least` rows stay in training.
    `global_time` cuts everybody's rows at two moments, so that train, then train + valid of all rows lie before. Equal
    times of a user are ordered by item number.

    Args:
        table: the interactions.
        kind: one of `KINDS`; `given` takes the labels that the table has.
        seed: of mmrec's random order.
        ratios: shares of train, validation and test; their sum is 1.
        few: see above.
        least: see above, at least 3.

    Raises:
        UserError: if there are no times to go by, or a split comes out empty.
    """
    if kind == "given":
        if table.labels is None:
            raise UserError("--split given: the interactions have no such column; name it by --columns split=NAME")
        labels = table.labels
    elif kind == "mmrec":
        key = np.random.Generator(np.random.PCG64(seed)).random(len(table))
        labels = _last(table, key, _held_out(table, ratios, few, least))
    else:
        if table.times is None:
            raise UserError(
                f"--split {kind}: the interactions have no times; name their column by --columns time=NAME, or take "
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
            "take other --ratios or another --split"
        )
    return np.asarray(labels, dtype=np.int8)


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


# Published splits


def split_hash(users: NDArray[Any], items: NDArray[Any], labels: NDArray[Any]) -> str:
    """SHA-256 of the three splits as sets of (user, item) numbers."""
    parts = []
    for label in range(len(SPLITS)):
        rows = labels == label
        pairs = np.stack([users[rows], items[rows]], axis=1).astype("<i8")
        parts.append(np.unique(pairs, axis=0))
    return content_hash(*parts)


def published_splits() -> dict[str, dict[str, Any]]:
    """Name to counts (and hash, where known) of the published splits."""
    return read_yaml(CONFIGS / "sources" / "published.yaml", "sources/published.yaml")


def counts_of(users: NDArray[Any], items: NDArray[Any], labels: NDArray[Any]) -> dict[str, int]:
    """Users, items (one more than the largest number) and rows of each split."""
    counts = {"users": int(users.max(initial=-1)) + 1, "items": int(items.max(initial=-1)) + 1}
    return counts | {name: int((labels == label).sum()) for label, name in enumerate(SPLITS)}


def recognise(users: NDArray[Any], items: NDArray[Any], labels: NDArray[Any]) -> str:
    """A sentence on which published split, or data, these are; empty where none is alike."""
    found = counts_of(users, items, labels)
    total = len(labels)
    for name, known in published_splits().items():
        source = known["source"]
        sizes = {key: known[key] for key in ("users", "items")}
        if any(found[key] != n for key, n in sizes.items()) or total != known["interactions"]:
            continue
        if not _same(found, known):
            return f"the users, items and interactions of {name} ({source}), split anew: not the published split"
        if "sha256" not in known:
            return f"the counts of the published split of {name} ({source}); its hash is not known here, so rows may differ"
        if split_hash(users, items, labels) == known["sha256"]:
            return f"the published split of {name} ({source}), by counts and hash"
        return (
            f"the counts of the published split of {name} ({source}), but not its rows under its numbers: another draw"
        )
    return ""


def _same(found: Mapping[str, int], known: Mapping[str, Any]) -> bool:
    return all(name in known and found[name] == known[name] for name in SPLITS)
