"""Do features know which interactions are the test ones?

Features legitimately predict test interactions, since tastes do; what they cannot know is which of the held-out
interactions were called test and which validation. Without a leak the two are exchangeable within a user, so permuting
their labels gives the exact null distribution of any statistic. The largest of all statistics of a modality is compared
with its own permutation distribution: one p-value for all columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from utils.data.dataset import Split

PERMUTATIONS = 999
CLIP = 4.0  # standard deviations: no single item decides
COLUMNS = 64  # handled at a time
MOST_PAIRS = 200_000
FEWEST_UNITS = 20
LOG_CHANCE = math.log(1e-6)  # an exact encoding is one that chance gives less often

Matrix = NDArray[np.float32]
Floats = NDArray[np.float64]
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Alignment:
    """How far a modality's features prefer test to validation interactions.

    Attributes:
        p: permutation p-value of the largest statistic; 1 / (permutations + 1) at least.
        bound: Bonferroni's bound on its probability were it normal, finer than the permutations tell.
        effect: size of that statistic as a correlation, 0 to 1.
        what: which statistic it was.
        units: labels that were permuted.
    """

    p: float
    bound: float
    effect: float
    what: str
    units: int


@dataclass(frozen=True)
class Exchange:
    """Held-out rows with what may be permuted: labels of units, within strata.

    A user with rows in both splits is a stratum whose units are its rows. A user with rows in one of them only is a
    unit; its stratum are such users with as many held-out rows and as many training rows, to a factor of two.

    Attributes:
        users, items: of each row [R].
        unit: of each row [R].
        label: of each unit, true for test [N]; units are sorted by stratum.
        stratum: of each unit [N].
        alone: of each unit [N]: whether it is a row of a user with rows in both splits.
    """

    users: Ids
    items: Ids
    unit: Ids
    label: NDArray[np.bool_]
    stratum: Ids
    alone: NDArray[np.bool_]

    @classmethod
    def of(cls, valid: Split, test: Split, train_degree: Ids) -> Exchange:
        """The held-out rows of two splits; `train_degree` [U] counts training rows."""
        users = np.concatenate([valid.users, test.users])
        items = np.concatenate([valid.items, test.items])
        is_test = np.arange(len(users)) >= len(valid)
        order = np.argsort(users, kind="stable")
        users, items, is_test = users[order], items[order], is_test[order]
        n_rows = np.bincount(users, minlength=len(train_degree))
        n_test = np.bincount(users, weights=is_test, minlength=len(train_degree)).astype(np.int64)
        mixed = (n_test > 0) & (n_test < n_rows)
        first = np.append(True, users[1:] != users[:-1])
        unit = np.cumsum(mixed[users] | first) - 1
        start = np.flatnonzero(np.append(True, unit[1:] != unit[:-1]))
        owner = users[start]
        size = np.log2(train_degree[owner] + 1).astype(np.int64)
        group = np.where(mixed[owner], owner, len(train_degree) + n_rows[owner] * 64 + size)
        _, stratum = np.unique(group, return_inverse=True)
        by_stratum = np.argsort(stratum, kind="stable")
        rank = np.empty_like(by_stratum)
        rank[by_stratum] = np.arange(len(by_stratum))
        label, alone = is_test[start][by_stratum], mixed[owner][by_stratum]
        return cls(users, items, rank[unit], label, stratum[by_stratum], alone)

    @property
    def share(self) -> Floats:
        """Of each unit, the share of test labels in its stratum [N]."""
        return (np.bincount(self.stratum, weights=self.label) / np.bincount(self.stratum))[self.stratum]

    def labels(self, permutations: int) -> Iterator[NDArray[np.bool_]]:
        """The labels as they are, then permuted ones [N]."""
        random = np.random.Generator(np.random.PCG64(0))
        yield self.label
        for _ in range(permutations):
            yield self.label[np.argsort(self.stratum + random.random(len(self.stratum)))]


def alignments(
    features: Mapping[str, Matrix], train: Split, valid: Split, test: Split, n_users: int
) -> dict[str, Alignment | None]:
    """Tests each modality [I, F]; None where too few labels can be permuted.

    With a_r the label of row r (1 for test) less its stratum's mean, x_f the standardised column f, the statistics are

    - for each column, sum_r a_r x_f(i_r): do test items have other values than validation items of the same user?
    - for each column, sum_r a_r y(u_r) x_f(i_r) with y the standardised user id: does a column tell the test user?
    - sum_r a_r cos(x(i_r), mean of x over the user's training items): is the modality closer to the test interactions?
    - the similarity of two test items of a user, summed over pairs: does it know what was tested together?

    each divided by its standard deviation over the permutations.
    """
    exchange = Exchange.of(valid, test, np.bincount(train.users, minlength=n_users))
    share = exchange.share
    units, n_draws = int(((share > 0) & (share < 1)).sum()), PERMUTATIONS + 1
    if units < FEWEST_UNITS:
        return dict.fromkeys(features)
    shown, item = np.unique(exchange.items, return_inverse=True)
    user = exchange.users - exchange.users.mean()
    user = user / (user.std() or 1.0)
    pairs = _pairs(exchange)
    likeness = {name: _similarities(matrix, exchange, pairs, train, n_users) for name, matrix in features.items()}
    weights = np.empty((2, n_draws, len(shown)), dtype=np.float32)
    scalars = {name: np.empty((n_draws, 2)) for name in features}
    for number, label in enumerate(exchange.labels(PERMUTATIONS)):
        rows = label[exchange.unit]
        centred = (label - share)[exchange.unit]
        weights[0, number] = np.bincount(item, weights=centred)
        weights[1, number] = np.bincount(item, weights=centred * user)
        both = rows[pairs[0]] & rows[pairs[1]]
        for name, (to_profile, to_each_other) in likeness.items():
            scalars[name][number] = centred @ to_profile, to_each_other @ both
    found: dict[str, Alignment | None] = {}
    for name, matrix in features.items():
        largest, where, best, place = np.zeros(n_draws), 0, 0.0, 0
        parts: list[NDArray[Any]] = [scalars[name]]
        for columns in _blocks(matrix):
            parts += [part @ columns[shown] for part in weights]
        for part in parts:
            z = np.abs(_standardised(part))
            largest = np.maximum(largest, z.max(axis=1))
            if z[0].max() > best:
                best, where = float(z[0].max()), place + int(z[0].argmax())
            place += part.shape[1]
        # With rounding, a permutation that equals the data may fall a hair short of it.
        p = float((largest >= largest[0] * (1 - 1e-6)).mean())
        bound = min(1.0, sum(part.shape[1] for part in parts) * math.erfc(best / math.sqrt(2)))
        found[name] = Alignment(p, bound, min(best / math.sqrt(units), 1.0), _names(matrix.shape[1])[where], units)
    return found


def _names(width: int) -> list[str]:
    """What the statistics are, in the order in which they are computed."""
    names = ["closeness to the user's training items", "similarity of items tested together"]
    for begin in range(0, width, COLUMNS):
        numbers = range(begin, min(begin + COLUMNS, width))
        names += [f"column {number}" for number in numbers] + [f"column {number} by user id" for number in numbers]
    return names


def _standardised(values: NDArray[Any]) -> Floats:
    """Columns less their mean over their standard deviation; constant ones zero."""
    values = values.astype(np.float64)
    values = values - values.mean(axis=0)
    deviation = values.std(axis=0)
    scale = np.abs(values).max(axis=0)
    return np.divide(values, deviation, out=np.zeros_like(values), where=deviation > 1e-9 * np.maximum(scale, 1e-30))


def _blocks(matrix: Matrix) -> Iterator[Matrix]:
    """The columns a few at a time, standardised over items, clipped."""
    for begin in range(0, matrix.shape[1], COLUMNS):
        block = np.nan_to_num(matrix[:, begin : begin + COLUMNS].astype(np.float64), posinf=0.0, neginf=0.0)
        yield np.clip(_standardised(block), -CLIP, CLIP).astype(np.float32)


def _pairs(exchange: Exchange) -> tuple[Ids, Ids]:
    """Pairs of held-out rows of one user, both of them free to change their label; a fixed sample where there are many."""
    free = exchange.alone[exchange.unit]
    first: list[Ids] = []
    second: list[Ids] = []
    for step in range(1, len(free)):
        rows = np.flatnonzero(exchange.users[step:] == exchange.users[:-step])
        if not len(rows):
            break
        rows = rows[free[rows]]
        first.append(rows)
        second.append(rows + step)
    one, other = (np.concatenate(part) if part else np.zeros(0, dtype=np.int64) for part in (first, second))
    if len(one) > MOST_PAIRS:
        kept = np.random.Generator(np.random.PCG64(1)).choice(len(one), MOST_PAIRS, replace=False)
        one, other = one[kept], other[kept]
    return one, other


def _similarities(
    matrix: Matrix, exchange: Exchange, pairs: tuple[Ids, Ids], train: Split, n_users: int
) -> tuple[Floats, Floats]:
    """Cosine of each held-out item with the mean of its user's training items [R], and of each pair of items [P]."""
    ones = np.ones(len(train), dtype=np.float32)
    history = sp.csr_matrix((ones, (train.users, train.items)), shape=(n_users, len(matrix)))
    own, profile = np.zeros(len(matrix)), np.zeros(n_users)
    to_profile, together = np.zeros(len(exchange.users)), np.zeros(len(pairs[0]))
    for columns in _blocks(matrix):
        liked = history @ columns  # [U, b]; its length does not matter to a cosine
        own += np.square(columns).sum(axis=1)
        profile += np.square(liked).sum(axis=1)
        rows = columns[exchange.items]
        to_profile += (rows * liked[exchange.users]).sum(axis=1)
        together += (rows[pairs[0]] * rows[pairs[1]]).sum(axis=1)
    length, length_of_profile = np.sqrt(np.maximum(own, 1e-12)), np.sqrt(np.maximum(profile, 1e-12))
    of_row = length[exchange.items]
    return to_profile / (of_row * length_of_profile[exchange.users]), together / (of_row[pairs[0]] * of_row[pairs[1]])


# Exact encodings: what no permutation is needed for, and sets too small for one show as well


def encodings(matrix: Matrix, train: Split, valid: Split, test: Split) -> list[str]:
    """Columns of a modality [I, F] that spell out the test split, in words.

    A column whose order alone separates the items with test rows from those without, or sorts all items by how many
    test rows they have, where chance would do so less than once in a million; and a column that holds, for at least half
    of the items with test rows, the id of a user who has the item in test.
    """
    n_items, width = matrix.shape
    counts = {name: np.bincount(s.items, minlength=n_items) for name, s in
              (("train", train), ("valid", valid), ("test", test))}  # fmt: skip
    held_out = counts["valid"] + counts["test"]
    targets = [
        ("tells the items with test rows from those without", counts["test"] > 0),
        ("sorts the items by their number of test rows", counts["test"]),
        ("tells the items with held-out rows from those without", held_out > 0),
        ("sorts the items by their number of held-out rows", held_out),
    ]
    found: dict[int, str] = {}
    for what, values in targets:
        _, group = np.unique(values, return_inverse=True)
        # What training or validation tell alike is no secret of the test split.
        known = any(np.array_equal(group, np.unique(c > 0, return_inverse=True)[1]) for c in
                    (counts["train"], counts["valid"], counts["train"] + counts["valid"]))  # fmt: skip
        if known or _log_chance(group) + math.log(2 * width) > LOG_CHANCE:
            continue
        for column in np.flatnonzero(_ordered(matrix, group)).tolist():
            found.setdefault(column, f"column {column} {what}")
    for column in _user_ids(matrix, test, counts["test"] > 0):
        found.setdefault(column, f"column {column} holds users who have the item in test")
    return [found[column] for column in sorted(found)]


def _log_chance(group: Ids) -> float:
    """Log of the chance that a random order of the items keeps the groups in their order."""
    sizes = np.bincount(group)
    return sum(math.lgamma(n + 1) for n in sizes.tolist()) - math.lgamma(len(group) + 1)


def _ordered(matrix: Matrix, group: Ids) -> NDArray[np.bool_]:
    """For each column whether every value of a group lies below, or above, every value of the next [F]."""
    by_group = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[by_group], np.arange(group.max() + 1))
    result = []
    for begin in range(0, matrix.shape[1], COLUMNS):
        block = matrix[by_group, begin : begin + COLUMNS]
        low, high = np.minimum.reduceat(block, starts), np.maximum.reduceat(block, starts)
        result.append((high[:-1] < low[1:]).all(axis=0) | (low[:-1] > high[1:]).all(axis=0))
    return np.concatenate(result)


def _user_ids(matrix: Matrix, test: Split, tested: NDArray[np.bool_]) -> list[int]:
    """Columns that hold a test user of at least half of the items with test rows, more often than chance would."""
    order = np.argsort(test.items, kind="stable")
    items, users = test.items[order], test.users[order]
    starts = np.flatnonzero(np.append(True, items[1:] != items[:-1]))
    n_tested = int(tested.sum())
    found = []
    for begin in range(0, matrix.shape[1], COLUMNS):
        equal = matrix[items, begin : begin + COLUMNS] == users[:, None]
        hits = np.logical_or.reduceat(equal, starts).sum(axis=0)
        for column in np.flatnonzero(2 * hits >= n_tested).tolist():
            values, times = np.unique(matrix[:, begin + column], return_counts=True)
            place = np.minimum(np.searchsorted(values, users), len(values) - 1)
            share = np.where(values[place] == users, times[place], 0) / len(matrix)
            expected, hit = float(share.sum()), int(hits[column])
            # Chernoff's bound on a count of `hit` where `expected` are expected.
            log_chance = hit * (1 + math.log(expected / hit)) - expected if hit > expected else 0.0
            if log_chance + math.log(matrix.shape[1]) < LOG_CHANCE:
                found.append(begin + column)
    return found
