"""What generated raw files hold: the options, and the interactions drawn for them.

Interactions come from the planted model of utils/data/synthetic.py, so that there is something to learn. Around this core,
of which every user and item has at least five, lie ratings that the 5-core takes away, in two rounds. Defects are planted in
counted numbers; what was planted is returned and written to `generated.json`.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from prepare.options import CheckedOptions
from utils.config.schema import setting
from utils.data.synthetic import Truth, generate
from utils.data.synthetic_spec import SIZES as SETS
from utils.data.synthetic_spec import SyntheticSpec
from utils.errors import UserError

CORE = 5  # interactions that every user and item of the core has
MANY_ITEMS = 2000
DIMS = {"visual": 1, "textual": 1}  # which modalities the attributes show in; the features are made here
DAY = 86_400
FIRST_DAY, LAST_DAY = 11_688, 16_273  # 1 January 2002 to 22 July 2014, as Amazon's reviews have it, in days since 1970
EXTRA_COUNTS = (0.70, 0.17, 0.08, 0.05)  # shares of users outside the core with 1, 2, 3, 4 ratings
CUTTABLE = ("reviews", "meta", "images")


def _count(help: str, default: int, low: int = 0) -> Any:
    return setting(help, default=default, low=low)


@dataclass(frozen=True)
class RawSpec(CheckedOptions):
    """What to generate; the counts of users, items and interactions are those of the 5-core."""

    command: ClassVar[str] = "generate_raw"

    category: str = setting("in the files' names, as in ratings_Baby.csv", default="Baby")
    users: int = _count("of the 5-core", 1200, 10)
    items: int = _count("of the 5-core", 500, 10)
    interactions: int = _count("of the 5-core, at least 6 for each item and 5 for each user", 14_400)
    extra_ratings: int = _count("ratings outside the 5-core", 6_000)
    extra_items: int = _count("items outside the 5-core", 900)
    extra_images: int = _count("items outside the 5-core that have image features", 20)
    image_width: int = _count("floats of an image feature; the published files have 4096", 4096, 1)
    image_files: int = _count("1: write images/ITEM.png as well; own data and MicroLens always have images", 0)
    image_base: str = setting("beginning of the images' addresses", default="https://images.invalid/")
    malformed: int = _count("lines in each text file that cannot be read", 0)
    duplicated: int = _count("reviews that occur twice, every other one with another rating and a later time", 0)
    missing_metadata: int = _count("items of the core that have no line of metadata", 0)
    empty_text: int = _count("items of the core whose metadata hold no text", 0)
    non_utf8: int = _count("lines of metadata, and as many of reviews, that are not UTF-8", 0)
    missing_images: int = _count("items of the core without image features, address or file", 0)
    broken_images: int = _count("items of the core whose image features hold NaN, or whose file is no image", 0)
    cut: list[str] | None = setting("files that end early", default=None, choices=CUTTABLE)
    seed: int = _count("of all draws", 0)

    def contradictions(self) -> list[str]:
        wrong = []
        if not re.fullmatch(r"[\w-]+", self.category, re.ASCII):
            wrong.append(f"generate_raw: --category: expected letters, digits, _ and -, got {self.category!r}")
        low, high = max(CORE * self.users, (CORE + 1) * self.items), self.users * (self.items - 1) // 2
        if not low <= self.interactions <= high:
            wrong.append(
                f"generate_raw: --interactions: expected {low:,} to {high:,} by users and items, got {self.interactions:,}"
            )
        of_meta = self.missing_metadata + self.empty_text + self.non_utf8
        for what, n in (("defects of metadata", of_meta), ("of images", self.missing_images + self.broken_images)):
            if n > self.items:
                wrong.append(f"generate_raw: {what}: {n:,} for {self.items:,} items; expected no more than items")
        if max(self.duplicated, self.non_utf8) > self.interactions:
            wrong.append("generate_raw: --duplicated, --non_utf8: expected no more than interactions")
        return wrong


def _as_published(name: str, category: str, ratings: int, items: int) -> RawSpec:
    """The core of a set of utils/data/synthetic.py, in a category of so many ratings and items in all."""
    core = SETS[name]
    return RawSpec(
        category=category,
        users=core.n_users,
        items=core.n_items,
        interactions=core.n_interactions,
        extra_ratings=ratings - core.n_interactions,
        extra_items=items - core.n_items,
    )


SIZES: dict[str, RawSpec] = {
    "small": RawSpec(),
    "baby": _as_published("baby", "Baby", 915_446, 64_426),
    "elec": _as_published("elec", "Electronics", 7_824_482, 476_002),
}


@dataclass(frozen=True)
class Drawn:
    """All interactions of the files, sorted by item, then user.

    Attributes:
        users, items: int64 [E]; those of the core come first among the ids.
        ratings: int8 [E], 1 to 5.
        times: int64 [E], seconds, whole days.
        core: bool [E], whether the row is of the core.
        truth: what the core was drawn from.
        n_users, n_items: with those outside the core.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    ratings: NDArray[np.int8]
    times: NDArray[np.int64]
    core: NDArray[np.bool_]
    truth: Truth
    n_users: int
    n_items: int


def draw(spec: RawSpec) -> Drawn:
    """Draws the interactions of the core and around it; the same spec gives the same.

    Raises:
        UserError: where the sizes leave no room for five interactions of each item.
    """
    data = generate(core_spec(spec), features=False)
    random = np.random.Generator(np.random.PCG64([spec.seed, 1]))
    users, items = data.users, _five_each(data.users, data.items, spec.items, random)
    ordered = np.sort(random.integers(FIRST_DAY, LAST_DAY, len(users)))
    # Ascending within each user: the rows of a user are in the order of use.
    shuffled = random.permutation(ordered)
    days = shuffled[np.lexsort((shuffled, users))]
    more_users, more_items = _around(spec, data.truth, random)
    more_days = random.integers(FIRST_DAY, LAST_DAY, len(more_users))
    core = np.arange(len(users) + len(more_users)) < len(users)
    users, items = np.concatenate([users, more_users]), np.concatenate([items, more_items])
    times = np.concatenate([days, more_days]) * DAY
    ratings = random.choice(np.arange(1, 6, dtype=np.int8), len(users), p=(0.06, 0.05, 0.09, 0.2, 0.6))
    order = np.lexsort((users, items))
    n_users = max(spec.users, int(users.max()) + 1)
    columns = (users[order], items[order], ratings[order], times[order], core[order])
    return Drawn(*columns, data.truth, n_users, spec.items + spec.extra_items)


def core_spec(spec: RawSpec) -> SyntheticSpec:
    """The planted model of the core."""
    sizes: dict[str, Any] = {
        "n_users": spec.users,
        "n_items": spec.items,
        "n_interactions": spec.interactions,
        "seed": spec.seed,
    }
    # Few items cannot tell many attributes apart.
    return dataclasses.replace(SETS["baby" if spec.items >= MANY_ITEMS else "demo"], **sizes, feature_dims=DIMS)


def _five_each(
    users: NDArray[np.int64], items: NDArray[np.int64], n_items: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """The items [E] with rows of frequent ones handed to those with fewer than five; users keep their counts."""
    counts = np.bincount(items, minlength=n_items)
    rare = np.flatnonzero(counts < CORE)
    holders: dict[int, set[int]] = {int(item): set() for item in rare}
    for row in np.flatnonzero(np.isin(items, rare)).tolist():
        holders[int(items[row])].add(int(users[row]))
    out, waiting = items.copy(), list(holders)
    for row in random.permutation(len(items)).tolist():
        if not waiting:
            return out
        item, user = waiting[-1], int(users[row])
        if counts[out[row]] > CORE and user not in holders[item]:
            counts[out[row]] -= 1
            out[row] = item
            holders[item].add(user)
            counts[item] += 1
            if counts[item] == CORE:
                waiting.pop()
    if waiting:
        raise UserError(
            f"generate_raw: {len(waiting)} items are left with fewer than {CORE} interactions; ask for more interactions"
        )
    return out


def _around(spec: RawSpec, truth: Truth, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Users and items, int64 [extra_ratings] each, that the 5-core takes away whole.

    Most users have one to four ratings. A few have four of items of the core and one of an item outside: they go when that
    item, which has less than five, is gone.
    """
    total, extra = spec.extra_ratings, spec.extra_items
    if not total:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    n_late = min(extra, total // (20 * CORE))
    counts = random.choice(np.arange(1, 5), total, p=EXTRA_COUNTS)
    ends = np.cumsum(counts)
    left = total - CORE * n_late
    counts = counts[: int(np.searchsorted(ends, left)) + 1] if left else counts[:0]
    if left:
        counts[-1] -= int(counts.sum()) - left
    late = np.arange(CORE * n_late)  # row within the late users' ratings
    users = np.concatenate([np.repeat(np.arange(len(counts)), counts), len(counts) + late // CORE])
    # At most 3 ratings of an item outside: two of small users, one of a late one.
    n_outside = min(2 * extra, left // 2)
    outside = spec.items + np.arange(n_outside) % max(extra, 1)
    popularity = np.exp(truth.log_popularity)
    inside = random.choice(spec.items, left - n_outside, p=popularity / popularity.sum())
    small = random.permutation(np.concatenate([outside, inside]))
    # Late users: four consecutive items of the core and their own outside.
    start = random.integers(0, spec.items, n_late)
    late_items = (start[:, None] + np.arange(CORE)) % spec.items  # [n_late, 5]
    late_items[:, -1] = spec.items + np.arange(n_late)
    items = np.concatenate([small, late_items.reshape(-1)])
    n_all = spec.items + extra
    while True:
        keys = users * n_all + items
        _, first = np.unique(keys, return_index=True)
        again = np.ones(len(keys), dtype=bool)
        again[first] = False
        if not again.any():
            return spec.users + users, items
        items[again] = random.integers(0, spec.items, int(again.sum()))
