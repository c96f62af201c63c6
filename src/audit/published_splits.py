"""Published splits, recognised by their counts and, where it is known, by the hash of their rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.config.yaml_files import read_yaml
from utils.data.dataset import SPLITS, content_hash
from utils.paths import CONFIGS


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
            return f"the users, items and interactions of {name} ({source}), split again: not the published split"
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
