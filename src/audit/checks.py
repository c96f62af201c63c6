"""Audit of a data set and its split: does anything that a model may read know the test interactions?

The raw files are read here, before anything is cleaned. A check ends in a verdict: pass, warning (doubtful, or a fact that
a reader of results should know) or leak. What each can and cannot see: docs/audit.md.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from audit.feature_alignment import Alignment, alignments, encodings
from utils.config.configuration import Config
from utils.data.dataset import (
    MMREC_USER_GRAPH,
    SPLITS,
    Dataset,
    Split,
    discover_features,
    make_splits,
    read_interactions,
    read_matrix,
)
from utils.data.missing_modalities import Mask, present_rows, read_mask
from utils.data.synthetic import generate
from utils.data.synthetic_spec import synthetic_spec
from utils.data.user_graph_file import ARRAYS, COMMAND, convert_user_graph, read_arrays, shared_in_training
from utils.errors import UserError

PASS, WARNING, LEAK = "pass", "warning", "leak"
TIME_COLUMNS = ("timestamp", "time")
SURE, DOUBTFUL, CERTAIN = 0.001, 0.01, 1e-4  # p-values; the last is a bound that permutations are too few for
LEAST_EFFECT = 0.05  # a correlation: below, a split that is not quite random would do it
IN_ORDER = 0.9  # share of users whose validation comes before their test: such a split goes by time


@dataclass(frozen=True)
class Check:
    """One check: its name, its verdict, what was found in words and in numbers."""

    name: str
    verdict: str
    text: str
    numbers: dict[str, Any] = field(default_factory=dict)


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


@dataclass(frozen=True)
class Audit:
    """The checks of a data set.

    Attributes:
        sizes: users, items and interactions, and the rows of each split.
        hashes: SHA-256 of each split and modality, those that manifest.json of a run has.
    """

    name: str
    checks: list[Check]
    sizes: dict[str, int]
    hashes: dict[str, str]

    @property
    def leaks(self) -> list[Check]:
        return [check for check in self.checks if check.verdict == LEAK]

    @property
    def fingerprint(self) -> str:
        """One hash for all of the data."""
        text = " ".join(f"{name}={digest}" for name, digest in sorted(self.hashes.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def sentence(self) -> str:
        """The result in one sentence."""
        counts = ", ".join(f"{self.sizes[what]:,} {what}" for what in ("users", "items", "interactions"))
        warnings = sum(check.verdict == WARNING for check in self.checks)
        if self.leaks:
            found = f"leakage found by {len(self.leaks)} of {len(self.checks)} checks ({plural(warnings, 'warning')}): "
            found += "; ".join(check.name for check in self.leaks)
        else:
            found = f"{len(self.checks)} checks, {plural(warnings, 'warning')}, no leakage found"
        verdict = "FAILED" if self.leaks else "PASSED"
        return f"AUDIT {verdict}: {self.name} ({counts}), {found}; data fingerprint {self.fingerprint}"

    def record(self) -> dict[str, Any]:
        """All of it, for a JSON file."""
        return {
            "dataset": self.name,
            "verdict": "failed" if self.leaks else "passed",
            "sentence": self.sentence(),
            "fingerprint": self.fingerprint,
            "sizes": self.sizes,
            "hashes": self.hashes,
            "checks": [vars(check) for check in self.checks],
        }


def audit(config: Config, user_graph: Path | None = None, random_split: bool = False) -> Audit:
    """Checks the data set that `config` names.

    Args:
        config: keys of DataSettings and data_path are used.
        user_graph: a user graph in the .npz format to check too.
        random_split: the split is not meant to follow time, so training on later rows is a warning.

    Raises:
        UserError: if the files cannot be read.
    """
    raw = read_raw(config)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is counted
        features = {name: matrix[: raw.n_items].astype(np.float32) for name, matrix in raw.matrices.items()}
    nan_is_missing = config["nan_features"] == "missing"
    present = {name: present_rows(matrix, raw.masks.get(name), nan_is_missing) for name, matrix in features.items()}
    present = {name: there for name, there in present.items() if not there.all()}
    arguments = (raw.users, raw.items, raw.labels, raw.n_users, raw.n_items)
    splits, _ = make_splits(*arguments, filter_cold=False)
    in_order, by_time = _check_time(raw, random_split)
    checks = [
        *_check_pairs(raw),
        *_check_cold(raw, splits),
        *_check_published(raw, config["expected"] or {}),
        *by_time,
        *_check_arrays(raw, features),
        *_check_alignment(features, splits, raw.n_users, in_order),
        *_check_graphs(raw, splits["train"], user_graph),
    ]
    used, _ = make_splits(*arguments, filter_cold=config["filter_out_cold_start_users"])
    hashes = Dataset(raw.name, raw.n_users, raw.n_items, used, features, present=present).fingerprint
    sizes = {"users": raw.n_users, "items": raw.n_items, "interactions": len(raw.users)}
    sizes |= {split: int((raw.labels == label).sum()) for label, split in enumerate(SPLITS)}
    return Audit(raw.name, checks, sizes, hashes)


def plural(n: int, noun: str) -> str:
    """A count with its noun."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def table(checks: list[Check]) -> str:
    """The checks as lines: verdict, name, what was found."""
    width = max(len(check.name) for check in checks)
    return "\n".join(f"{check.verdict:7}  {check.name:{width}}  {check.text}" for check in checks)


# Reading


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
    columns = pd.read_csv(inter, sep=config["field_separator"], nrows=0).columns
    named = [column for column in columns if str(column).lower() in TIME_COLUMNS]
    if not named:
        return None
    column = pd.read_csv(inter, sep=config["field_separator"], usecols=named[:1])[named[0]]
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.isna().all():
        dates = pd.to_datetime(column, errors="coerce", utc=True, format="ISO8601")
        numbers = (dates - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
    return numbers.to_numpy(dtype=np.float64)


# The split


def _check_pairs(raw: Raw) -> list[Check]:
    """Pairs that stand more than once, within a split or in two."""
    keys = {name: raw.keys(label) for label, name in enumerate(SPLITS)}
    unique = {name: np.unique(found) for name, found in keys.items()}
    repeated = {name: len(keys[name]) - len(unique[name]) for name in SPLITS}
    total = sum(repeated.values())
    said = ", ".join(f"{n:,} in {name}" for name, n in repeated.items() if n)
    checks = [
        Check(
            "repeated rows within a split",
            WARNING if total else PASS,
            f"{plural(total, 'repeated row')}: {said}; each pair counts once" if total else "none",
            repeated,
        )
    ]
    for first, second in (("train", "test"), ("valid", "test"), ("train", "valid")):
        both = np.intersect1d(unique[first], unique[second], assume_unique=True)
        text = "none"
        if len(both):
            user, item = divmod(int(both[0]), raw.n_items)
            share = len(both) / len(unique[second])
            text = (
                f"{plural(len(both), 'interaction')} of {second} ({share:.2%}) stand in {first} too "
                f"(first: user {user}, item {item})"
            )
        # Of training and validation no test interaction is learnt; validation numbers suffer, since they are masked.
        verdict = (LEAK if second == "test" else WARNING) if len(both) else PASS
        checks.append(Check(f"{first} interactions in {second}", verdict, text, {"pairs": len(both)}))
    return checks


def _check_cold(raw: Raw, splits: Mapping[str, Split]) -> list[Check]:
    """Users and items of test that have no training row."""
    test = splits["test"]
    checks = []
    for what, column, then in (
        ("users", "users", "left out unless filter_out_cold_start_users is off"),
        ("items", "items", "ranked without a training interaction"),
    ):
        trained = getattr(splits["train"], column)
        ids = getattr(test, column)
        cold = ~np.isin(ids, trained)
        in_valid = int(np.isin(np.unique(ids[cold]), getattr(splits["valid"], column)).sum())
        n = len(np.unique(ids[cold]))
        numbers = {
            what: n,
            "test_rows": int(cold.sum()),
            "share_of_test_rows": float(cold.mean()),
            "in_valid": in_valid,
        }
        text = (
            f"{n:,} of {len(np.unique(ids)):,} test {what}, {int(cold.sum()):,} test rows ({cold.mean():.1%}); {then}"
            if n
            else "none"
        )
        checks.append(Check(f"test {what} without training rows", WARNING if n else PASS, text, numbers))
    return checks


def _check_published(raw: Raw, expected: Mapping[str, int]) -> list[Check]:
    """Whether sizes are those published with the data set, where they are known."""
    if not expected:
        return []
    found = {"users": raw.n_users, "items": raw.n_items}
    found |= {split: int((raw.labels == label).sum()) for label, split in enumerate(SPLITS)}
    other = [f"{found[key]:,} {key} for {n:,}" for key, n in expected.items() if found.get(key, n) != n]
    text = "not the published split: " + ", ".join(other) if other else "those of the published split"
    return [Check("published sizes", WARNING if other else PASS, text, {"expected": dict(expected)})]


def _check_time(raw: Raw, random_split: bool) -> tuple[bool, list[Check]]:
    """Training on what came later than the test; and whether the split goes by time."""
    if raw.times is None:
        return False, [
            Check("time", PASS, f"no column {' or '.join(TIME_COLUMNS)}: whether training is later is unknown")
        ]
    known = np.isfinite(raw.times)
    if not known.all():
        text = f"{plural(int((~known).sum()), 'row')} without a readable timestamp: time is not checked"
        return False, [Check("time", WARNING, text, {"rows": int((~known).sum())})]
    infinity = np.full(raw.n_users, np.inf)
    earliest = {}
    for label, split in enumerate(SPLITS):
        earliest[split] = infinity.copy()
        rows = raw.labels == label
        np.minimum.at(earliest[split], raw.users[rows], raw.times[rows])
    train, test = raw.labels == 0, raw.labels == 2
    of_tested = train & np.isfinite(earliest["test"])[raw.users]
    later = of_tested & (raw.times > earliest["test"][raw.users])
    n_users = len(np.unique(raw.users[later]))
    n_tested = len(np.unique(raw.users[test]))
    n_rows, share = int(later.sum()), float(later.sum() / max(of_tested.sum(), 1))
    numbers = {"rows": n_rows, "users": n_users, "share_of_rows": share}
    text = "no user's training row is later than the user's first test row"
    if n_users:
        text = (
            f"{plural(n_rows, 'training row')} ({share:.1%}) of {n_users:,} of {n_tested:,} test users are later than the "
            "user's first test row"
        )
        text += (
            "; the split is declared random" if random_split else "; --random_split if the split is random by intent"
        )
    own = Check("training after a user's test", (WARNING if random_split else LEAK) if n_users else PASS, text, numbers)
    start = float(raw.times[test].min())
    share = float((raw.times[train] > start).mean())
    text = f"{share:.1%} of the training rows are later than the first test row of anybody"
    text += "; models may learn later trends from other users" if share else ""
    everybody = Check(
        "training after anybody's test", WARNING if share else PASS, text, {"share": share, "from": start}
    )
    both = np.isfinite(earliest["valid"]) & np.isfinite(earliest["test"])
    in_order = bool(both.any()) and float((earliest["valid"] < earliest["test"])[both].mean()) >= IN_ORDER
    return in_order, [own, everybody]


# Features


def _check_arrays(raw: Raw, features: Mapping[str, NDArray[np.float32]]) -> list[Check]:
    """Broken, empty, constant and repeated features."""
    checks = []
    if not features or raw.missing:
        text = f"no {', '.join(raw.missing)} in the folder" if raw.missing else "none in the folder"
        checks.append(Check("feature files", WARNING if raw.missing else PASS, text, {"missing": raw.missing}))
    for name, matrix in features.items():
        n_items, width = matrix.shape
        surplus = len(raw.matrices[name]) - n_items
        finite = np.isfinite(matrix)
        broken = int((~finite.all(axis=1)).sum())
        zero = int((~matrix.any(axis=1)).sum())
        constant = np.flatnonzero((matrix == matrix[0]).all(axis=0)).tolist()
        digests: dict[bytes, int] = {}
        for row in matrix[matrix.any(axis=1)]:
            digest = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
            digests[digest] = digests.get(digest, 0) + 1
        shared = [n for n in digests.values() if n > 1]
        problems = [f"{broken:,} rows with NaN or infinite values (a run refuses them)"] * bool(broken)
        problems += [f"{surplus:,} rows beyond the items"] * bool(surplus)
        text = ", ".join(problems) or "all finite, a row for each item"
        numbers: dict[str, Any] = {"rows": broken, "surplus": surplus}
        checks.append(Check(f"{name}: values", WARNING if problems else PASS, text, numbers))
        text = f"{zero:,} of {n_items:,} items ({zero / n_items:.1%}) have zeros only" if zero else "none"
        checks.append(Check(f"{name}: empty rows", WARNING if zero else PASS, text, {"rows": zero}))
        first = f" (first: column {constant[0]})" if constant else ""
        text = f"{len(constant):,} of {plural(width, 'column')} constant{first}" if constant else "none"
        numbers = {"columns": len(constant), "first": constant[:10]}
        checks.append(Check(f"{name}: constant columns", WARNING if constant else PASS, text, numbers))
        n_shared = sum(shared)
        text = "none"
        if shared:
            text = f"{n_shared:,} items ({n_shared / n_items:.1%}) share their row with others (most: {max(shared):,} items)"
        numbers = {"items": n_shared, "largest_group": max(shared, default=0)}
        checks.append(Check(f"{name}: repeated rows", WARNING if shared else PASS, text, numbers))
    return checks


def _check_alignment(
    features: Mapping[str, NDArray[np.float32]], splits: Mapping[str, Split], n_users: int, in_order: bool
) -> list[Check]:
    """Whether features know the test split; see audit/feature_alignment.py."""
    train, valid, test = (splits[name] for name in SPLITS)
    found = alignments(features, train, valid, test, n_users)
    checks = []
    for name, matrix in features.items():
        exact = encodings(matrix, train, valid, test)
        more = f" (and {len(exact) - 1} more columns)" if len(exact) > 1 else ""
        text = f"{exact[0]}{more}" if exact else "no column spells out the test split"
        numbers: dict[str, Any] = {"columns": exact[:10], "n": len(exact)}
        checks.append(Check(f"{name}: exact encodings of test", LEAK if exact else PASS, text, numbers))
        checks.append(_aligned(f"{name}: alignment with test", found[name], in_order))
    return checks


def _aligned(name: str, found: Alignment | None, in_order: bool) -> Check:
    if found is None:
        text = "too few held-out interactions whose split could be exchanged: not tested"
        return Check(name, WARNING, text)
    numbers = {
        "p": found.p,
        "bound": found.bound,
        "effect": found.effect,
        "statistic": found.what,
        "units": found.units,
    }
    seen = f"p = {found.p:.3f}, largest: {found.what} (correlation {found.effect:.3f})"
    if found.p > DOUBTFUL:
        return Check(name, PASS, f"test and validation look alike to it: {seen}", numbers)
    if found.p > SURE or found.bound > CERTAIN or found.effect < LEAST_EFFECT:
        return Check(name, WARNING, f"test and validation differ a little to it: {seen}", numbers)
    if in_order:
        text = f"test and validation differ to it, which a split by time may do too: {seen}"
        return Check(name, WARNING, text, numbers)
    return Check(name, LEAK, f"it tells test from validation: {seen}", numbers)


# Graphs


def _check_graphs(raw: Raw, train: Split, user_graph: Path | None) -> list[Check]:
    """Graphs in the folder, and a user graph named on the command line, against the training split."""
    ones = np.ones(len(train), dtype=np.float32)
    matrix = sp.csr_matrix((ones, (train.users, train.items)), shape=(raw.n_users, raw.n_items))
    checks = []
    paths = sorted(raw.folder.glob("*.npz")) if raw.folder else []
    if user_graph is not None:
        inside = raw.folder / user_graph if raw.folder and not user_graph.exists() else user_graph
        path = inside if inside.exists() else user_graph
        paths = [other for other in paths if not path.exists() or not other.samefile(path)]
        checks.append(_overlaps(f"user graph {path.name}", read_arrays(path, raw.n_users), matrix))
    checks += [_graph_of_file(f"user graph {path.name}", path, matrix) for path in paths if _holds_graph(path)]
    for path in sorted(raw.folder.glob("*graph*.npy")) if raw.folder else []:
        of_items = "item" in path.name
        shared = matrix.T.tocsr() if of_items else matrix
        checks.append(_pickled(path, "item" if of_items else "user", shared))
    return checks or [Check("graph files", PASS, "none in the folder: graphs are computed from the training split")]


def _holds_graph(path: Path) -> bool:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            return set(ARRAYS) <= set(stored.files)
    except (OSError, ValueError, EOFError):
        return False


def _graph_of_file(name: str, path: Path, matrix: sp.csr_matrix) -> Check:
    try:
        return _overlaps(name, read_arrays(path, matrix.shape[0]), matrix)
    except UserError as error:
        return Check(name, WARNING, f"not checked: {error.problems[0]}")


def _pickled(path: Path, kind: str, matrix: sp.csr_matrix) -> Check:
    """A dictionary of co-users or co-items as MMRec saves it: no run reads it, but what it holds is checked."""
    name = f"{kind} graph {path.name}"
    advice = f"; runs do not read it (`{COMMAND} {path.name} OUT.npz` converts it)" if path.name == MMREC_USER_GRAPH else (
        "; runs do not read it, graphs are computed from the training split"
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "graph.npz"
        try:
            convert_user_graph(path, target)
        except UserError as error:
            return Check(name, WARNING, f"not checked: {error.problems[0]}{advice}")
        check = _graph_of_file(name, target, matrix)
    verdict = check.verdict if check.verdict != PASS else WARNING
    return Check(name, verdict, check.text.replace("graph.npz", path.name) + advice, check.numbers)


def _overlaps(name: str, graph: sp.csr_matrix, matrix: sp.csr_matrix) -> Check:
    """Counts of a graph against those of the training split [R, C]."""
    rows, true = shared_in_training(graph, matrix)
    wrong = np.flatnonzero(graph.data > true)
    numbers = {"pairs": len(rows), "leaking_pairs": len(wrong), "surplus": int((graph.data - true)[wrong].sum())}
    if not len(wrong):
        return Check(name, PASS, f"none of its {len(rows):,} pairs share more than they do in training", numbers)
    at = int(wrong[0])
    text = (
        f"{len(wrong):,} of {len(rows):,} pairs ({len(wrong) / len(rows):.1%}) share more than they do in training (first: "
        f"{rows[at]} and {graph.indices[at]}: {graph.data[at]:,} for {true[at]:,}): counted with held-out interactions"
    )
    return Check(name, LEAK, text, numbers)
