"""Checks of the feature matrices: broken, empty, constant and repeated values, and whether they know the test split."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.check import LEAK, PASS, WARNING, Check, plural
from audit.feature_alignment import Alignment, alignments, encodings
from utils.data.dataset import SPLITS, Split
from utils.data.raw_dataset import Raw

SURE, DOUBTFUL, CERTAIN = 0.001, 0.01, 1e-4  # p-values; the last is a bound that permutations are too few for
LEAST_EFFECT = 0.05  # a correlation: below, a split that is not quite random would do it


def check_arrays(raw: Raw, features: Mapping[str, NDArray[np.float32]]) -> list[Check]:
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


def check_alignment(
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
