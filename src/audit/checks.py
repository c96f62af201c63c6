"""Audit of a data set and its split: does anything that a model may read know the test interactions?

The raw files are read here, before anything is cleaned. What each check can and cannot see: docs/audit.md.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audit.check import LEAK, WARNING, Check, plural
from audit.feature_checks import check_alignment, check_arrays
from audit.graph_checks import check_graphs
from audit.split_checks import check_cold, check_pairs, check_published, check_time
from utils.config.configuration import Config
from utils.data.dataset import SPLITS, Dataset
from utils.data.missing_modalities import present_rows
from utils.data.raw_dataset import read_raw
from utils.data.reading import make_splits


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
    present = {name: rows for name, rows in present.items() if not rows.all()}
    arguments = (raw.users, raw.items, raw.labels, raw.n_users, raw.n_items)
    splits, _ = make_splits(*arguments, filter_cold=False)
    in_order, by_time = check_time(raw, random_split)
    checks = [
        *check_pairs(raw),
        *check_cold(raw, splits),
        *check_published(raw, config["expected"] or {}),
        *by_time,
        *check_arrays(raw, features),
        *check_alignment(features, splits, raw.n_users, in_order),
        *check_graphs(raw, splits["train"], user_graph),
    ]
    used, _ = make_splits(*arguments, filter_cold=config["filter_out_cold_start_users"])
    hashes = Dataset(raw.name, raw.n_users, raw.n_items, used, features, present=present).fingerprint
    sizes = {"users": raw.n_users, "items": raw.n_items, "interactions": len(raw.users)}
    sizes |= {split: int((raw.labels == label).sum()) for label, split in enumerate(SPLITS)}
    return Audit(raw.name, checks, sizes, hashes)


def table(checks: list[Check]) -> str:
    """The checks as lines: verdict, name, what was found."""
    width = max(len(check.name) for check in checks)
    return "\n".join(f"{check.verdict:7}  {check.name:{width}}  {check.text}" for check in checks)
