"""Raw files in the formats of the public Amazon sets (2014, 2023) and of people's own tables, of any size.

Interactions come from the planted model of utils/data/synthetic.py, so that there is something to learn. Around this core,
of which every user and item has at least five, lie ratings that the 5-core takes away, in two rounds. Defects are planted in
counted numbers; what was planted is returned and written to `generated.json`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.data.synthetic import Truth, generate
from utils.data.synthetic_spec import SIZES as SETS
from utils.data.synthetic_spec import SyntheticSpec
from utils.errors import UserError, nearest

CORE = 5  # interactions that every user and item of the core has
MANY_ITEMS = 2000
DIMS = {"visual": 1, "textual": 1}  # which modalities the attributes show in; the features are made here
DAY = 86_400
FIRST_DAY, LAST_DAY = 11_688, 16_273  # 1 January 2002 to 22 July 2014, as Amazon's reviews have it, in days since 1970
EXTRA_COUNTS = (0.70, 0.17, 0.08, 0.05)  # shares of users outside the core with 1, 2, 3, 4 ratings
CUTTABLE = ("reviews", "meta", "images")
SOURCES = ("amazon2014", "amazon2023", "own")
LOWEST = {"users": 10, "items": 10, "image_width": 1}  # of all other counts: 0


@dataclass(frozen=True)
class RawSpec:
    """What to generate.

    Args:
        category: in the files' names, as in ratings_Baby.csv.
        users: of the 5-core.
        items: of the 5-core.
        interactions: of the 5-core, at least 6 for each item and 5 for each user.
        extra_ratings: ratings outside the 5-core.
        extra_items: items outside the 5-core.
        extra_images: of these, how many have image features.
        image_width: floats of an image feature; the published files have 4096.
        image_files: whether images/ITEM.png is written, 1 or 0; own data always has them.
        image_base: what the images' addresses begin with.
        malformed: lines in each text file that cannot be read.
        duplicated: reviews that stand twice, every other one with another rating and a later time.
        missing_metadata: items of the core that have no line of metadata.
        empty_text: items of the core whose metadata holds no text.
        non_utf8: lines of metadata, and as many of reviews, that are not UTF-8.
        missing_images: items of the core without image features, address or file.
        broken_images: items of the core whose image features hold NaN, or whose file is no image.
        cut: which files break off: of reviews, meta (compressed) and images (in the middle of a record).
        seed: of all draws.
    """

    category: str = "Baby"
    users: int = 1200
    items: int = 500
    interactions: int = 14_400
    extra_ratings: int = 6_000
    extra_items: int = 900
    extra_images: int = 20
    image_width: int = 4096
    image_files: int = 0
    image_base: str = "https://images.invalid/"
    malformed: int = 0
    duplicated: int = 0
    missing_metadata: int = 0
    empty_text: int = 0
    non_utf8: int = 0
    missing_images: int = 0
    broken_images: int = 0
    cut: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = []
        for entry in dataclasses.fields(self):
            value, low = getattr(self, entry.name), LOWEST.get(entry.name, 0)
            if entry.type == "int" and (isinstance(value, bool) or not isinstance(value, int) or value < low):
                wrong.append(f"{entry.name}: expected a whole number of at least {low}, got {value!r}")
        if not isinstance(self.category, str) or not re.fullmatch(r"\w+", self.category, re.ASCII):
            wrong.append(f"category: expected letters, digits and _, got {self.category!r}")
        wrong += [
            f"cut: there is no '{name}'{nearest(str(name), CUTTABLE)}" for name in self.cut if name not in CUTTABLE
        ]
        wrong = wrong or self._contradictions()
        if wrong:
            raise UserError(*(f"generate_raw: {line}" for line in wrong))

    def _contradictions(self) -> list[str]:
        wrong = []
        low, high = max(CORE * self.users, (CORE + 1) * self.items), self.users * (self.items - 1) // 2
        if not low <= self.interactions <= high:
            wrong.append(f"interactions: expected {low:,} to {high:,} by users and items, got {self.interactions:,}")
        of_meta = self.missing_metadata + self.empty_text + self.non_utf8
        for what, n in (("defects of metadata", of_meta), ("of images", self.missing_images + self.broken_images)):
            if n > self.items:
                wrong.append(f"{what}: {n:,} for {self.items:,} items; expected no more than items")
        if max(self.duplicated, self.non_utf8) > self.interactions:
            wrong.append("duplicated and non_utf8: expected no more than interactions")
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


def write_raw(spec: RawSpec, folder: Path, source: str = "amazon2014") -> dict[str, Any]:
    """Writes the files of a source into a folder, and what was planted to `generated.json` as its last.

    Args:
        spec: what to generate.
        folder: where to; made if it is not there.
        source: amazon2014, amazon2023 or own.

    Returns:
        What is in generated.json: by file name its lines and how many of which kind, the sizes of the 5-core, the spec.

    Raises:
        UserError: if the folder already holds generated.json or cannot be written.
    """
    from prepare.pipeline import make_place
    from prepare.synthetic_raw import raw_formats
    from utils.files import write_json

    if (folder / "generated.json").exists():
        raise UserError(f"generate_raw: {folder} holds generated files already: delete it or choose another folder")
    make_place(folder, "DIR")
    writers: dict[str, Callable[[RawSpec, Drawn, Path], dict[str, Any]]] = {
        "amazon2014": raw_formats.write_amazon_2014,
        "amazon2023": raw_formats.write_amazon_2023,
        "own": raw_formats.write_own,
    }
    drawn = draw(spec)
    record = {
        "source": source,
        "core": {"users": spec.users, "items": spec.items, "interactions": spec.interactions},
        "interactions": len(drawn.users),
        "files": writers[source](spec, drawn, folder),
        "spec": dataclasses.asdict(spec),
    }
    write_json(folder / "generated.json", record)
    return dict(json.loads(json.dumps(record)))


def raw_command(arguments: list[str]) -> int:
    """The command `generate_raw`; returns the exit code."""
    from cli.words import take_apart
    from utils.config.yaml_files import parse_yaml

    usage = f"generate_raw DIR [--source {'|'.join(SOURCES)}] [--size {'|'.join(SIZES)}] [--KEY VALUE ...]"
    fields = {entry.name: entry for entry in dataclasses.fields(RawSpec)}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: main.py {usage}\n\nkeys (value of the size small in brackets):")
        helps = dict(re.findall(r"^ +(\w+): (.+)$", RawSpec.__doc__ or "", re.MULTILINE))
        for name in fields:
            print(f"  --{name} [{getattr(SIZES['small'], name)}]\n        {helps[name]}")
        return 0
    if arguments[0].startswith("-"):
        raise UserError(f"generate_raw: the folder is missing; usage: {usage}")
    words = take_apart(arguments[1:], ())
    known = [*fields, "source", "size"]
    problems = [f"generate_raw: unknown option --{n}{nearest(n, known)}" for n in words.options if n not in known]
    size, source = words.one("size", "small") or "", words.one("source", SOURCES[0]) or ""
    for what, value, choices in (("size", size, list(SIZES)), ("source", source, list(SOURCES))):
        if value not in choices:
            problems.append(f"generate_raw: --{what}: expected {', '.join(choices)}, got '{value}'")
    if problems:
        raise UserError(*problems)
    values: dict[str, Any] = {}
    for name in (name for name in words.options if name in fields):
        if name == "cut":
            values[name] = tuple(words.options[name])
        elif fields[name].type == "str":
            values[name] = words.one(name)
        else:
            values[name] = parse_yaml(words.one(name) or "", f"--{name}")
    folder = Path(arguments[0]).expanduser()
    record = write_raw(dataclasses.replace(SIZES[size], **values), folder, source)
    for name, counts in record["files"].items():
        print(f"{name}: " + ", ".join(f"{key} {value:,}" for key, value in counts.items()))
    print(
        f"written to {folder}; what the 5-core must find: " + ", ".join(f"{n:,} {k}" for k, n in record["core"].items())
    )
    return 0
