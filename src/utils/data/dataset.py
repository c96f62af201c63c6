"""A data set in memory: interactions of three splits and one feature matrix per modality."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from utils.data.cache import ArrayCache, Arrays
from utils.data.synthetic import Truth

SPLITS = ("train", "valid", "test")


def split_column(field: str, number: int) -> str:
    """The column of the n-th of several splits, from 0: x_label, x_label_2, x_label_3..."""
    return f"{field}_{number + 1}" if number else field


@dataclass(frozen=True)
class Split:
    """The interactions of one split, sorted by user, then item: users [E] and items [E], both int64."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.users)


@dataclass
class Dataset:
    """What a model and the evaluator may know of a data set.

    Attributes:
        n_users, n_items: one more than the largest id of all three splits; ids without interactions are isolated.
        splits: train, valid and test; cold-start users and repeated rows already left out.
        features: modality name to float32 [n_items, F].
        warnings: what was doubtful, a line each.
        remarks: what was read otherwise than the settings say, a line each.
        truth: what a generated data set was made from, for the oracle; None for real data.
        user_graph: the user's own co-occurrence counts [U, U], rows best first, for a model with the key
            `user_graph_file`; None: such a model computes them.
        inputs: modality name to what stands in for its features, where that is not the features themselves.
        present: modality name to bool [n_items], True where the item has it; only for modalities that some item lacks.
    """

    name: str
    n_users: int
    n_items: int
    splits: dict[str, Split]
    features: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    truth: Truth | None = None
    feature_files: dict[str, str] = field(default_factory=dict)
    cache: ArrayCache | None = None
    user_graph: sp.csr_matrix | None = None
    inputs: dict[str, str] = field(default_factory=dict)
    present: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def train(self) -> Split:
        return self.splits["train"]

    @property
    def dataset(self) -> Dataset:
        """Itself: MMRec models reach sizes through `dataset.dataset`."""
        return self

    def get_user_num(self) -> int:
        """Number of users, under MMRec's name."""
        return self.n_users

    def get_item_num(self) -> int:
        """Number of items, under MMRec's name."""
        return self.n_items

    def inter_matrix(self, form: str = "coo", value_field: str | None = None) -> Any:
        """The 0/1 training matrix [U, I], float32, as a scipy matrix in `form` coo or csr.

        Raises:
            ValueError: for another form or a value field, which the format does not have.
        """
        if form not in ("coo", "csr") or value_field is not None:
            raise ValueError(f"inter_matrix gives 'coo' or 'csr' without values, not {form!r} with {value_field!r}")
        ones = np.ones(len(self.train), dtype=np.float32)
        shape = (self.n_users, self.n_items)
        return sp.coo_matrix((ones, (self.train.users, self.train.items)), shape=shape).asformat(form)

    def for_refit(self) -> Dataset:
        """The interactions of training and validation as its training split, and no others: none of the test is in it."""
        parts = [self.splits[name].users * self.n_items + self.splits[name].items for name in ("train", "valid")]
        keys = np.union1d(*parts)
        none = Split(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
        joined = Split(keys // self.n_items, keys % self.n_items)
        return replace(self, splits={"train": joined, "valid": none, "test": none})

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of the interactions of each split, each feature matrix and a user graph, for manifests and cache keys.

        That of a modality which some items lack is also of which they are.
        """
        digests = {
            name: content_hash(split.users, split.items, np.array([self.n_users, self.n_items]))
            for name, split in self.splits.items()
        }
        if (graph := self.user_graph) is not None:
            digests["user-graph"] = content_hash(graph.indptr, graph.indices, graph.data)
        parts = {name: [matrix, self.present[name]] if name in self.present else [matrix]
                 for name, matrix in self.features.items()}  # fmt: skip
        return digests | {name: content_hash(*arrays) for name, arrays in parts.items()}

    def derived(self, name: str, version: int, inputs: Mapping[str, Any], build: Callable[[], Arrays]) -> Arrays:
        """Arrays made from this data set, through the cache where there is one; see `ArrayCache.get`."""
        return self.cache.get(name, version, inputs, build) if self.cache else build()

    def statistics(self) -> list[str]:
        """Lines that describe the data set as papers print it."""
        n = sum(len(split) for split in self.splits.values())
        train = self.train
        seen_users, seen_items = len(np.unique(train.users)), len(np.unique(train.items))
        lines = [
            f"{self.name}: {self.n_users:,} users, {self.n_items:,} items, {n:,} interactions, "
            f"sparsity {100 * (1 - n / (self.n_users * self.n_items)):.3f}%",
            "  "
            + ", ".join(f"{name} {len(split):,}" for name, split in self.splits.items())
            + f"; in train {seen_users:,} users ({len(train) / seen_users:.2f} interactions each), "
            f"{seen_items:,} items ({len(train) / seen_items:.2f} each)",
        ]
        lines += [f"  {remark}" for remark in self.remarks]
        for name, matrix in self.features.items():
            there = self.present.get(name, np.ones(self.n_items, dtype=bool))
            zero = int((there & ~matrix.any(axis=1)).sum())
            lacking = f", {int((~there).sum()):,} items lack it" if name in self.present else ""
            instead = f", {self.inputs[name]} in their place" if name in self.inputs else ""
            zeros = f", {zero:,} rows all zero" if zero else ""
            lines.append(f"  {name}: {matrix.shape[1]} features{instead}{lacking}{zeros}")
        return lines


def content_hash(*arrays: NDArray[Any]) -> str:
    """SHA-256 over dtypes, shapes and bytes of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
