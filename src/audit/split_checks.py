"""Checks of the interactions and their split: repeated and shared pairs, cold users and items, published sizes, time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from audit.check import LEAK, PASS, WARNING, Check, plural
from utils.data.dataset import SPLITS, Split
from utils.data.raw_dataset import TIME_COLUMNS, Raw

IN_ORDER = 0.9  # share of users whose validation comes before their test: such a split goes by time


def check_pairs(raw: Raw) -> list[Check]:
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


def check_cold(raw: Raw, splits: Mapping[str, Split]) -> list[Check]:
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


def check_published(raw: Raw, expected: Mapping[str, int]) -> list[Check]:
    """Whether sizes are those published with the data set, where they are known."""
    if not expected:
        return []
    found = {"users": raw.n_users, "items": raw.n_items}
    found |= {split: int((raw.labels == label).sum()) for label, split in enumerate(SPLITS)}
    other = [f"{found[key]:,} {key} for {n:,}" for key, n in expected.items() if found.get(key, n) != n]
    text = "not the published split: " + ", ".join(other) if other else "those of the published split"
    return [Check("published sizes", WARNING if other else PASS, text, {"expected": dict(expected)})]


def check_time(raw: Raw, random_split: bool) -> tuple[bool, list[Check]]:
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
