"""What a data set is: statistics as papers print them, degrees, the health of its features, how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.feature_health import Health, health_of, health_of_file
from audit.published_splits import counts_of, recognise
from utils.charts import FORMS, Axis, Series, line_chart, rendered
from utils.config.request import Request, resolve
from utils.data.dataset import SPLITS
from utils.data.raw_dataset import read_raw
from utils.data.reading import discover_features
from utils.errors import UserError
from utils.files import write_bytes

BAR = 40  # letters of the longest bar
POINTS = 200  # of a curve at most


@dataclass(frozen=True)
class Degrees:
    """How interactions are spread over users or items, of those that have any.

    Attributes:
        what: users or items.
        counts: how many have 1, 2-3, 4-7, ... interactions.
        none: how many have no interaction.
        gini: 0 all alike, near 1 one has all.
    """

    what: str
    mean: float
    median: float
    percentile_90: float
    percentile_99: float
    most: int
    gini: float
    none: int
    counts: list[int]

    def lines(self) -> list[str]:
        """A sentence and a bar for each power of two."""
        none = f", {self.none:,} have none" if self.none else ""
        lines = [
            f"interactions of {self.what}: mean {self.mean:.2f}, median {self.median:g}, 90% have at most "
            f"{self.percentile_90:g}, 99% at most {self.percentile_99:g}, most {self.most:,}; Gini {self.gini:.3f}{none}"
        ]
        names = ["1", *(f"{2**k:,}-{2 ** (k + 1) - 1:,}" for k in range(1, len(self.counts)))]
        wide, tall = max(map(len, names)), max(len(f"{n:,}") for n in self.counts)
        for name, n in zip(names, self.counts, strict=True):
            bar = "#" * (max(1, round(BAR * n / max(self.counts))) if n else 0)
            lines.append(f"  {name:>{wide}} {n:>{tall},} {bar}".rstrip())
        return lines


@dataclass
class Description:
    """All of it; `record` is the same whenever the files are.

    Attributes:
        sizes: users, items, interactions, and rows of each split.
        splits: of each split rows, users, items.
        expected: published counts of a set of this name; empty where none are known.
        published: a sentence on the published split that this is, or empty.
        degrees: of users and of items, over all splits.
        features: by modality.
        notes: what a reader should know besides.
        manifest: what manifest.json of the folder says; not part of the record.
        per_user, per_item: interactions of each [U], [I].
    """

    name: str
    sizes: dict[str, int]
    splits: dict[str, dict[str, int]]
    expected: dict[str, int]
    published: str
    times: tuple[float, float] | None
    degrees: list[Degrees]
    features: list[Health]
    notes: list[str]
    manifest: dict[str, Any]
    per_user: NDArray[np.int64]
    per_item: NDArray[np.int64]

    @property
    def sparsity(self) -> float:
        return 1 - self.sizes["interactions"] / (self.sizes["users"] * self.sizes["items"])

    def lines(self) -> list[str]:
        """Text for people."""
        sizes = ", ".join(f"{self.sizes[what]:,} {what}" for what in ("users", "items", "interactions"))
        lines = [f"{self.name}: {sizes}, sparsity {100 * self.sparsity:.3f}%"]
        for name, split in self.splits.items():
            each = split["rows"] / max(split["users"], 1), split["rows"] / max(split["items"], 1)
            lines.append(
                f"  {name}: {split['rows']:,} rows ({100 * split['rows'] / self.sizes['interactions']:.1f}%), "
                f"{split['users']:,} users ({each[0]:.2f} each), {split['items']:,} items ({each[1]:.2f} each)"
            )
        if self.times:
            lines.append(f"  timestamps from {self.times[0]:.0f} to {self.times[1]:.0f}")
        if self.expected:
            other = [f"{self.sizes[k]:,} {k} for {n:,}" for k, n in self.expected.items() if self.sizes.get(k) != n]
            compared = f"differs: {', '.join(other)}" if other else "the same: " + ", ".join(self.expected)
            lines.append(f"published counts of {self.name}: {compared}")
        if self.published:
            lines.append(f"this is {self.published}")
        lines += [line for degrees in self.degrees for line in ["", *degrees.lines()]]
        lines += ["", *(line for health in self.features for line in health.lines())]
        if not self.features:
            lines.append("no feature files")
        lines += [f"note: {note}" for note in self.notes]
        if self.manifest:
            lines += ["", *_manifest_lines(self.manifest)]
        return lines

    def record(self) -> dict[str, Any]:
        """For a JSON file."""
        names = ("sizes", "sparsity", "splits", "expected", "published")
        record = {"dataset": self.name} | {name: getattr(self, name) for name in names}
        record["times"] = list(self.times) if self.times else None
        record["degrees"] = [asdict(degrees) for degrees in self.degrees]
        record["features"] = [asdict(health) for health in self.features]
        return record | {"notes": self.notes}


def describe(folder: Path, name: str) -> Description:
    """Reads a data set's folder, or generates the set where its settings say so, and counts.

    Args:
        folder: DATA_PATH/NAME.
        name: of the data set.

    Raises:
        UserError: if there is no such data set or its interactions cannot be read.
    """
    overrides = {"data_path": [str(folder.parent)], "modalities": [{}]}  # features are read here, a block at a time
    (config,), _ = resolve(Request(["describe"], [name], overrides), {"describe": None})
    raw = read_raw(config)
    sizes = counts_of(raw.users, raw.items, raw.labels)
    sizes = {"users": sizes["users"], "items": sizes["items"], "interactions": len(raw.users)} | sizes
    splits = {}
    for label, split in enumerate(SPLITS):
        rows = raw.labels == label
        users, items = len(np.unique(raw.users[rows])), len(np.unique(raw.items[rows]))
        splits[split] = {"rows": int(rows.sum()), "users": users, "items": items}
    per_user = np.bincount(raw.users, minlength=sizes["users"])
    per_item = np.bincount(raw.items, minlength=sizes["items"])
    times = None
    if raw.times is not None and np.isfinite(raw.times).any():
        times = float(np.nanmin(raw.times)), float(np.nanmax(raw.times))
    if raw.folder is None:
        features = [
            health_of(matrix, modality, "generated", sizes["items"]) for modality, matrix in raw.matrices.items()
        ]
    else:
        files = _files(name, folder)
        features = [health_of_file(folder / file, modality, sizes["items"]) for modality, file in files.items()]
    return Description(
        name,
        sizes,
        splits,
        dict(config["expected"] or {}),
        recognise(raw.users, raw.items, raw.labels),
        times,
        [_degrees("users", per_user), _degrees("items", per_item)],
        features,
        _notes(raw.users, raw.items, raw.labels, sizes),
        _manifest(folder / "manifest.json") if raw.folder else {},
        per_user,
        per_item,
    )


def _files(name: str, folder: Path) -> dict[str, str]:
    """Modality to file: those that the settings name and that are there, else all of the folder."""
    (config,), _ = resolve(Request(["describe"], [name], {"data_path": [str(folder.parent)]}), {"describe": None})
    named: Mapping[str, str] | None = config["modalities"]
    if named is None:
        return discover_features(folder)
    return {modality: file for modality, file in named.items() if (folder / file).is_file()}


def _notes(users: NDArray[Any], items: NDArray[Any], labels: NDArray[Any], sizes: Mapping[str, int]) -> list[str]:
    notes = []
    pairs = len(users) - len(np.unique(users * sizes["items"] + items))
    if pairs:
        notes.append(f"{pairs:,} rows repeat a (user, item) pair, within a split or in two")
    for what, ids in (("users", users), ("items", items)):
        held_out, trained = np.unique(ids[labels != 0]), np.unique(ids[labels == 0])
        if cold := len(np.setdiff1d(held_out, trained, assume_unique=True)):
            notes.append(f"{cold:,} {what} of validation or test have no training row")
    return notes


def _degrees(what: str, counts: NDArray[np.int64]) -> Degrees:
    some = np.sort(counts[counts > 0])
    n = len(some)
    gini = float(((2 * np.arange(1, n + 1) - n - 1) * some).sum() / (n * some.sum()))
    half, most, nearly_all = np.percentile(some, (50, 90, 99), method="inverted_cdf").tolist()
    histogram = np.bincount(np.frexp(some.astype(np.float64))[1] - 1).tolist()
    none = int((counts == 0).sum())
    return Degrees(what, float(some.mean()), half, most, nearly_all, int(some[-1]), gini, none, histogram)


# The manifest, and the plot


def _manifest(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        return {"unreadable": str(error)}
    return content if isinstance(content, dict) else {"unreadable": "it holds no table of keys"}


def _manifest_lines(manifest: Mapping[str, Any]) -> list[str]:
    """How the data set was made, as manifest.json says."""
    if "unreadable" in manifest:
        return [f"manifest.json: cannot be read ({manifest['unreadable']})"]
    lines = [f"manifest.json: made {manifest.get('made', 'at an unknown time')}"]
    lines += [
        f"  {key}: {_flat(manifest[key])}" for key in ("source", "split", "code", "versions") if manifest.get(key)
    ]
    inputs = manifest.get("inputs")
    lines += [f"  input: {_flat(entry)}" for entry in inputs if entry] if isinstance(inputs, list) else []
    modalities = manifest.get("modalities")
    for name, entry in modalities.items() if isinstance(modalities, dict) else ():
        encoder = entry.get("encoder") if isinstance(entry, dict) else None
        lines.append(f"  {name}: {_flat(encoder or entry)}")
    return lines


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(entry)}" for key, entry in value.items() if entry not in (None, "", [], {}))
    return ", ".join(map(_flat, value)) if isinstance(value, list) else str(value)


def plot_degrees(description: Description, path: Path) -> None:
    """Writes a figure, .svg, .pdf or .png: the share of users and of items with at least so many interactions.

    Raises:
        UserError: for another ending.
    """
    form = path.suffix[1:]
    if form not in FORMS:
        raise UserError(f"{path}: expected a file that ends in {', '.join(f'.{form}' for form in FORMS)}")
    curves = []
    for name, counts in (("users", description.per_user), ("items", description.per_item)):
        some = np.sort(counts[counts > 0])
        degree, first = np.unique(some, return_index=True)
        share = 1 - first / len(some)
        if len(degree) > POINTS:  # evenly spread over the logarithm
            kept = np.unique(np.searchsorted(degree, np.geomspace(degree[0], degree[-1], POINTS)))
            degree, share = degree[kept], share[kept]
        curves.append(Series(name, share.tolist(), degree.tolist()))
    title = f"{description.name}: interactions of users and items"
    x, y = Axis("interactions", log=True), Axis("share with at least as many", log=True)
    write_bytes(path, rendered(line_chart(title, x, y, curves), form))
