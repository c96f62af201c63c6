"""What a data set is: statistics as papers print them, degrees, the health of its features, how it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prepare.splits import counts_of, recognise
from utils.config.request import Request, resolve
from utils.data.dataset import SPLITS
from utils.data.missing_modalities import read_mask
from utils.data.raw_dataset import read_raw
from utils.data.reading import discover_features
from utils.errors import UserError

BLOCK = 512  # rows of features at a time
CENTRED = 0.1  # length of the mean row over the mean length of rows, below which features count as centred
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
class Health:
    """The state of one feature file.

    Attributes:
        rows, items: of the file, and of the data set.
        zero: rows of items that are all zero; broken: rows with NaN or infinite values, left out of what follows.
        repeated: rows that are not zero and equal to another; largest_group: of equal rows.
        constant: columns with one value.
        offset: length of the mean row over the mean length of rows: 0 centred, 1 all rows alike.
        missing: items that the mask file calls missing; None: there is no such file.
    """

    modality: str
    file: str
    rows: int
    items: int
    width: int
    dtype: str
    zero: int = 0
    broken: int = 0
    repeated: int = 0
    largest_group: int = 0
    constant: int = 0
    mean: float = 0.0
    std: float = 0.0
    low: float = 0.0
    high: float = 0.0
    length: float = 0.0
    offset: float = 0.0
    missing: int | None = None
    problems: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """What there is to say."""
        share = 100 / max(self.items, 1)
        centred = "centred" if self.offset < CENTRED else f"not centred (offset {self.offset:.2f} of a row's length)"
        counted = [
            f"{n:,} {what} ({n * share:.1f}%)"
            for n, what in (
                (self.zero, "rows all zero"),
                (self.repeated, f"rows equal to another (largest group {self.largest_group:,})"),
                (self.broken, "rows with NaN or infinite values"),
            )
            if n
        ]
        counted += [f"{self.constant:,} constant columns"] * bool(self.constant)
        mask = (
            "no mask file"
            if self.missing is None
            else (f"{self.missing:,} items missing ({self.missing * share:.1f}%) by the mask")
        )
        return [
            f"{self.modality} ({self.file}): {self.rows:,} x {self.width:,} {self.dtype}; mean {self.mean:.4g}, standard "
            f"deviation {self.std:.4g}, from {self.low:.4g} to {self.high:.4g}, row length {self.length:.4g}; {centred}",
            f"  {', '.join(counted) or 'no row all zero, repeated or broken'}; {mask}",
            *(f"  problem: {problem}" for problem in self.problems),
        ]


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
            told = f"differs: {', '.join(other)}" if other else "the same: " + ", ".join(self.expected)
            lines.append(f"published counts of {self.name}: {told}")
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
        return {
            "dataset": self.name,
            "sizes": self.sizes,
            "sparsity": self.sparsity,
            "splits": self.splits,
            "expected": self.expected,
            "published": self.published,
            "times": list(self.times) if self.times else None,
            "degrees": [asdict(degrees) for degrees in self.degrees],
            "features": [asdict(health) for health in self.features],
            "notes": self.notes,
        }


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
        features = [_health(matrix, modality, "generated", sizes["items"]) for modality, matrix in raw.matrices.items()]
    else:
        files = _files(name, folder)
        features = [_file_health(folder / file, modality, sizes["items"]) for modality, file in files.items()]
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
    return Degrees(
        what, float(some.mean()), half, most, nearly_all, int(some[-1]), gini, int((counts == 0).sum()), histogram
    )


# Features


def _file_health(path: Path, modality: str, n_items: int) -> Health:
    """The health of a file; one that is no matrix of numbers is told, not an error."""
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
            found = f"{matrix.dtype} {list(matrix.shape)}" if isinstance(matrix, np.ndarray) else "an archive of arrays"
            raise ValueError(f"expected a matrix of numbers, got {found}")
    except Exception as error:  # a broken header raises many kinds
        objects = "allow_pickle" in str(error) or "Python objects" in str(error)
        reason = "it holds Python objects" if objects else str(error).partition("\n")[0]
        return Health(modality, path.name, 0, n_items, 0, "", problems=[f"not a numeric .npy matrix: {reason}"])
    health = _health(matrix, modality, path.name, n_items)
    try:
        present = read_mask(path, len(matrix))
    except UserError as error:
        health.problems += error.problems
    else:
        health.missing = None if present is None else int((~present[:n_items]).sum())
    return health


def _health(matrix: NDArray[Any], modality: str, file: str, n_items: int) -> Health:
    """The state of a matrix, read in blocks."""
    health = Health(modality, file, len(matrix), n_items, matrix.shape[1], str(matrix.dtype))
    if len(matrix) != n_items:
        which = "fewer rows than items: runs refuse it" if len(matrix) < n_items else "the rows beyond are left out"
        health.problems.append(f"{len(matrix):,} rows for {n_items:,} items; {which}")
    width, n = health.width, 0
    total, squares = np.zeros(width), np.zeros(width)
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    lengths, groups = 0.0, dict[bytes, int]()
    for start in range(0, min(len(matrix), n_items), BLOCK):
        block = np.asarray(matrix[start : min(start + BLOCK, n_items)], dtype=np.float64)
        finite = np.isfinite(block).all(axis=1)
        health.broken += int((~finite).sum())
        block = block[finite]
        nonzero = block.any(axis=1)
        health.zero += int((~nonzero).sum())
        for row in block[nonzero]:
            digest = hashlib.blake2b((row + 0.0).tobytes(), digest_size=16).digest()  # + 0.0: one zero only
            groups[digest] = groups.get(digest, 0) + 1
        n += len(block)
        total += block.sum(axis=0)
        squares += (block * block).sum(axis=0)
        lengths += float(np.sqrt((block * block).sum(axis=1)).sum())
        low = np.minimum(low, block.min(axis=0, initial=np.inf))
        high = np.maximum(high, block.max(axis=0, initial=-np.inf))
    shared = [count for count in groups.values() if count > 1]
    health.repeated, health.largest_group = sum(shared), max(shared, default=0)
    if n:
        mean = total / n
        health.constant = int((low == high).sum())
        health.mean = float(mean.mean())
        health.std = float(np.sqrt(max(float(squares.mean()) / n - health.mean**2, 0.0)))
        health.low, health.high, health.length = float(low.min()), float(high.max()), lengths / n
        health.offset = float(np.sqrt((mean * mean).sum())) / health.length if health.length else 0.0
    return health


# The manifest, plots, the command


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


def degree_plot(description: Description) -> bytes:
    """SVG: the share of users and of items with at least so many interactions, both axes logarithmic."""
    from utils.charts import Axis, Series, line_chart, rendered

    curves = []
    for name, counts in (("users", description.per_user), ("items", description.per_item)):
        some = np.sort(counts[counts > 0])
        degree, first = np.unique(some, return_index=True)
        share = 1 - first / len(some)
        if len(degree) > POINTS:  # evenly spread over the logarithm
            kept = np.unique(np.searchsorted(degree, np.geomspace(degree[0], degree[-1], POINTS)))
            degree, share = degree[kept], share[kept]
        curves.append(Series(name, share.tolist(), degree.tolist()))
    title = f"{description.name}: how many have at least so many interactions"
    return rendered(line_chart(title, Axis("interactions", log=True), Axis("share", log=True), curves), "svg")


def describe_command(arguments: list[str]) -> int:
    """The command `describe`; returns the exit code."""
    from cli.words import take_apart
    from prepare.pipeline import make_place
    from utils.config.request import data_folder
    from utils.errors import nearest
    from utils.files import write_bytes, write_json

    usage = "describe NAME [--data_path DIR] [--output FILE.json] [--plots DIR]"
    if not arguments or arguments[0] in ("-h", "--help"):
        print(
            f"usage: main.py {usage}\n\n"
            "Tells what DATA_PATH/NAME is: sizes, splits, how interactions are spread, and the health of its features.\n\n"
            "  --output FILE.json   the same in full precision, with manifest.json\n"
            "  --plots DIR          DIR/degrees.svg: the share of users and of items with at least so many interactions"
        )
        return 0
    if arguments[0].startswith("-"):
        raise UserError(f"describe: the name of the data set is missing; usage: {usage}")
    words = take_apart(arguments[1:], ())
    known = ("data_path", "output", "plots")
    problems = [f"describe: unknown option --{n}{nearest(n, known)}" for n in words.options if n not in known]
    problems += [f"describe: --{n}: a value is missing" for n, v in words.options.items() if n in known and not v]
    if problems:
        raise UserError(*problems)
    data_path, output, plots = (words.one(name) for name in known)
    target = Path(output).expanduser() if output else None
    if target and (target.is_dir() or not target.parent.is_dir()):
        raise UserError(f"describe: --output: expected a file to write in a folder that is there, got {target}")
    request = Request(["describe"], [arguments[0]], {"data_path": [data_path]} if data_path else {})
    description = describe(data_folder(request) / arguments[0], arguments[0])
    print("\n".join(description.lines()))
    if target:
        write_json(target, description.record() | {"manifest": description.manifest})
        print(f"written to {target}")
    if plots:
        folder = Path(plots).expanduser()
        make_place(folder, "--plots")
        write_bytes(folder / "degrees.svg", degree_plot(description))
        print(f"written to {folder / 'degrees.svg'}")
    return 0
