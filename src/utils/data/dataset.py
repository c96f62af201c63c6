"""A data set, read once and checked: interactions of three splits and one feature matrix per modality.

Format (that of MMRec): `NAME.inter`, a separated text file with a header and at least the columns userID, itemID
(integers from 0) and x_label (0 train, 1 validation, 2 test); one `.npy` array [items, F] per modality, row = itemID.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from utils.data.cache import ArrayCache, Arrays
from utils.data.missing_modalities import drawn_present, present_rows, read_mask
from utils.data.modality_input import changed_features, check_modalities
from utils.data.synthetic import Truth, generate
from utils.data.synthetic_spec import synthetic_spec
from utils.data.user_graph_file import read_user_graph
from utils.errors import UserError
from utils.paths import default_cache_path

if TYPE_CHECKING:
    from utils.config.configuration import Config

SPLITS = ("train", "valid", "test")
SPARSEST = 1000  # largest id over number of interactions
FILE_STEMS = {"image": "visual", "text": "textual", "audio": "acoustic"}
MMREC_USER_GRAPH = "user_graph_dict.npy"


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


def load_dataset(config: Config, needs_features: bool = True) -> Dataset:
    """Reads (or generates) the data set that `config` names and checks it.

    Args:
        config: the settings; keys of DataSettings and data_path are used.
        needs_features: read the feature files too.

    Raises:
        UserError: with one line for each thing that is wrong with the files.
    """
    if needs_features and config["modalities"] == {}:
        raise UserError(f"modalities: expected at least one for {config.model}, got none")
    dataset = _generated(config, needs_features) if config["synthetic"] is not None else _read(config, needs_features)
    if needs_features and config["modality_input"]:
        dataset.features = changed_features(dataset.features, config["modality_input"], dataset.present)
        dataset.inputs = {name: word for name, word in config["modality_input"].items() if word != "real"}
    if needs_features and config["missing_share"]:
        _drop(dataset, config["missing_share"])
    if config["user_graph_file"] is not None:
        dataset.user_graph = _own_user_graph(config, dataset)
    dataset.cache = ArrayCache(Path(config["cache_dir"]) if config["cache_dir"] else default_cache_path())
    if dataset.warnings and config["data_checks"] == "error":
        raise UserError(*dataset.warnings)
    return dataset


def _drop(dataset: Dataset, shares: Mapping[str, float]) -> None:
    """Takes each modality from the share of items that `missing_share` names; their rows become zeros."""
    check_modalities("missing_share", shares, dataset.features)
    for name, share in shares.items():
        kept = drawn_present(name, dataset.n_items, share)
        if not kept.all():
            dataset.features[name] = np.where(kept[:, None], dataset.features[name], np.float32(0))
            dataset.present[name] = kept & dataset.present.get(name, True)


def _own_user_graph(config: Config, dataset: Dataset) -> sp.csr_matrix | None:
    path = Path(config["data_path"]) / dataset.name / Path(config["user_graph_file"]).expanduser()
    # MMRec's files name it for every data set, whether somebody has made it or not.
    if config["user_graph_file"] == MMREC_USER_GRAPH and not path.exists():
        dataset.warnings.append(
            f"{dataset.name}: no {MMREC_USER_GRAPH}; the user graph is computed from the training split"
        )
        return None
    return read_user_graph(path, dataset.inter_matrix("csr"))


def _generated(config: Config, needs_features: bool) -> Dataset:
    spec = synthetic_spec(config["synthetic"])
    data = generate(spec, features=needs_features)
    splits = {
        name: Split(data.users[data.labels == label], data.items[data.labels == label])
        for label, name in enumerate(SPLITS)
    }
    for name, split in splits.items():
        order = np.lexsort((split.items, split.users))
        splits[name] = Split(split.users[order], split.items[order])
    features = data.features
    if needs_features and config["modalities"] is not None:
        check_modalities("modalities", config["modalities"], features)
        features = {name: features[name] for name in config["modalities"]}
    return Dataset(config["dataset"], spec.n_users, spec.n_items, splits, features, [], data.truth)


def _read(config: Config, needs_features: bool) -> Dataset:
    name = config["dataset"]
    folder = Path(config["data_path"]) / name
    inter = folder / (config["inter_file_name"] or f"{name}.inter")
    if not inter.is_file():
        how = f" It comes from: {config['source']}" if config["source"] else ""
        raise UserError(f"data set '{name}': no file {inter}; set --data_path to the folder that holds {name}/.{how}")
    users, items, labels = read_interactions(inter, config)
    n_users, n_items = int(users.max()) + 1, int(items.max()) + 1
    splits, warnings = make_splits(users, items, labels, n_users, n_items, config["filter_out_cold_start_users"])
    empty = []
    for label, split in enumerate(SPLITS):
        if not len(splits[split]):
            rows = int((labels == label).sum())
            wanted = f"expected rows with {config['split_field']} {label}"
            cold = f"no user of its {rows:,} rows is in train"
            empty.append(f"{inter.name}: the {split} split is empty: {cold if rows else wanted}")
    if empty:
        raise UserError(*empty)
    dataset = Dataset(name, n_users, n_items, splits, {}, warnings)
    found = {"users": n_users, "items": n_items}
    found |= {split: int((labels == label).sum()) for label, split in enumerate(SPLITS)}
    for key, count in (config["expected"] or {}).items():
        if found.get(key, count) != count:
            warnings.append(f"{name}: published with {count:,} {key}, read {found[key]:,}: not the published split")
    if needs_features:
        dataset.feature_files = _feature_files(config, folder, warnings)
        problems: list[str] = []
        for modality, file in dataset.feature_files.items():
            try:
                matrix, present = read_features(
                    folder / file, modality, n_items, warnings, config["nan_features"] == "missing"
                )
                dataset.features[modality] = matrix
                if not present.all():
                    dataset.present[modality] = present
            except UserError as error:
                problems += error.problems
        if problems:
            raise UserError(*problems)
    return dataset


def read_interactions(
    path: Path, config: Mapping[str, Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Reads user ids, item ids and split labels, each int64 [E], in file order.

    Raises:
        UserError: for a missing column, an id that is no integer from 0 up, a label other than 0, 1 or 2, or no rows.
    """
    columns = [config["user_id_field"], config["item_id_field"], config["split_field"]]
    try:
        header = pd.read_csv(path, sep=config["field_separator"], nrows=0, engine="c")
        missing = [column for column in columns if column not in header.columns]
        if missing:
            raise UserError(
                f"{path.name}: no column {', '.join(missing)}; its columns are {', '.join(header.columns)} "
                f"(separator {config['field_separator']!r})"
            )
        table = pd.read_csv(path, sep=config["field_separator"], usecols=columns, engine="c", low_memory=False)
    except pd.errors.EmptyDataError:
        raise UserError(f"{path.name}: the file is empty; expected a header with {', '.join(columns)}") from None
    except (ValueError, OSError) as error:  # among them ParserError, UnicodeDecodeError and a separator of two letters
        raise UserError(f"{path.name}: cannot be read as a separated text file: {error}".splitlines()[0]) from None
    if table.empty:
        raise UserError(f"{path.name}: no rows below the header; expected interactions")
    problems = []
    arrays = []
    for column in columns:
        series = table[column]
        wanted = "0, 1 or 2" if column == columns[2] else "an integer from 0 up"
        numbers = pd.to_numeric(series, errors="coerce").to_numpy(dtype=np.float64)
        # 2^53 bounds what float64 holds exactly; ids that large are a mistake anyway.
        with np.errstate(invalid="ignore"):
            bad = ~((numbers >= 0) & (numbers == np.floor(numbers)) & (numbers < 2**53))
            if column == columns[2]:
                bad |= ~np.isin(numbers, (0, 1, 2))
        if bad.any():
            row = int(np.argmax(bad))
            (value,) = series.iloc[[row]].tolist()  # of Python's own type
            problems.append(
                f"{path.name}: line {row + 2}: {column} is {value!r}, expected {wanted}"
                + (f" ({int(bad.sum()):,} such rows)" if bad.sum() > 1 else "")
            )
        else:
            arrays.append(numbers.astype(np.int64))
    if problems:
        raise UserError(*problems)
    largest = max(int(arrays[0].max()), int(arrays[1].max()))
    # Ids this far apart are raw ones: tables with a row for each would not fit memory.
    if largest >= 2**31 - 1 or largest > SPARSEST * len(table):
        raise UserError(f"{path.name}: an id of {largest}; ids count from 0 without gaps, so map them to 0..n-1 first")
    return arrays[0], arrays[1], arrays[2]


def make_splits(
    users: NDArray[np.int64],
    items: NDArray[np.int64],
    labels: NDArray[np.int64],
    n_users: int,
    n_items: int,
    filter_cold: bool = True,
) -> tuple[dict[str, Split], list[str]]:
    """Sorts rows into splits without repeated rows and cold-start users; returns them and warnings about what it met."""
    warnings = []
    pairs: dict[str, NDArray[np.int64]] = {}
    for label, name in enumerate(SPLITS):
        rows = labels == label
        keys = users[rows] * n_items + items[rows]
        pairs[name] = np.unique(keys)
        if repeated := len(keys) - len(pairs[name]):
            warnings.append(f"{name}: {repeated:,} repeated (user, item) rows; each pair counts once")
    for first, second in (("train", "valid"), ("train", "test"), ("valid", "test")):
        both = np.intersect1d(pairs[first], pairs[second], assume_unique=True)
        if len(both):
            user, item = divmod(int(both[0]), n_items)
            warnings.append(
                f"{len(both):,} interactions are in both {first} and {second} (first: user {user}, item {item}); "
                + ("masked there, they can never be hit" if first == "train" else "the split overlaps")
            )
    trained = np.zeros(n_users, dtype=bool)
    trained[pairs["train"] // n_items] = True
    for name in ("valid", "test"):
        cold = ~trained[pairs[name] // n_items]
        if cold.any():
            n_cold = len(np.unique(pairs[name][cold] // n_items))
            what = "their rows are left out" if filter_cold else "they are ranked without a history"
            warnings.append(f"{n_cold:,} users of {name} have no training row ({int(cold.sum()):,} rows); {what}")
            if filter_cold:
                pairs[name] = pairs[name][~cold]
    return {name: Split(keys // n_items, keys % n_items) for name, keys in pairs.items()}, warnings


def discover_features(folder: Path) -> dict[str, str]:
    """Modality name to file, for every `*_feat.npy` of a folder: image = visual, text = textual, audio = acoustic.

    Raises:
        UserError: if two files stand for one modality, or a file's name cannot name one.
    """
    stems = {path.name.removesuffix("_feat.npy"): path.name for path in folder.glob("*_feat.npy")}
    ordered = [*(s for s in FILE_STEMS if s in stems), *sorted(s for s in stems if s not in FILE_STEMS)]
    found: dict[str, str] = {}
    for stem in ordered:
        modality = FILE_STEMS.get(stem, stem)
        if modality in found:
            raise UserError(
                f"{folder}: {found[modality]} and {stems[stem]} are both {modality}; name one in `modalities`"
            )
        if not modality.isidentifier() or modality in SPLITS:
            raise UserError(f"{stems[stem]}: '{modality}' cannot name a modality; expected letters, digits and _")
        found[modality] = stems[stem]
    return found


def _feature_files(config: Config, folder: Path, warnings: list[str]) -> dict[str, str]:
    named = config["modalities"]
    unusable = [name for name in named or () if not name.isidentifier() or name in SPLITS]
    if unusable:
        raise UserError(f"modalities: '{unusable[0]}' cannot name a modality; expected letters, digits and _")
    if named is None:
        found = discover_features(folder)
        if not found:
            raise UserError(f"data set '{config['dataset']}': no *_feat.npy file in {folder}; {config.model} needs one")
        return found
    missing = {modality: file for modality, file in named.items() if not (folder / file).is_file()}
    if missing:
        listing = ", ".join(f"{file} ({modality})" for modality, file in missing.items())
        there = ", ".join(sorted(path.name for path in folder.glob("*_feat.npy"))) or "no *_feat.npy file at all"
        # The data set files of the tree name all that is published; a user's own words are taken as they stand.
        if not config.sources["modalities"].startswith("dataset/") or len(missing) == len(named):
            raise UserError(f"data set '{config['dataset']}': no {listing} in {folder}; there is {there}")
        warnings.append(f"{config['dataset']}: no {listing}; going on without")
    return {modality: file for modality, file in named.items() if modality not in missing}


def read_features(
    path: Path, modality: str, n_items: int, warnings: list[str], nan_is_missing: bool
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Reads one feature matrix as float32 [n_items, F], and which items have a row of their own, bool [n_items].

    Raises:
        UserError: if it is no numeric matrix, has fewer rows than items, holds infinite values or, unless they count as
            missing, NaN; if the mask beside it does not fit.
    """
    matrix = read_matrix(path, modality)
    mask = read_mask(path, len(matrix))
    if len(matrix) < n_items:
        raise UserError(
            f"{path.name} ({modality}): {len(matrix):,} rows, but items go up to {n_items - 1:,}: "
            f"{n_items - len(matrix):,} items have no feature row"
        )
    if len(matrix) > n_items:
        warnings.append(
            f"{path.name} ({modality}): {len(matrix):,} rows for {n_items:,} items; the rows beyond are left out"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
        matrix = np.ascontiguousarray(matrix[:n_items], dtype=np.float32)
    present = present_rows(matrix, mask, nan_is_missing)
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        how = "; --nan_features missing takes rows with NaN for missing" if np.isnan(matrix).any() else ""
        raise UserError(
            f"{path.name} ({modality}): NaN or infinite values in {int((~finite).sum()):,} rows "
            f"(first: item {int(np.argmin(finite))}){how}"
        )
    return matrix, present


def read_matrix(path: Path, modality: str) -> NDArray[Any]:
    """Reads a numeric matrix of any number of rows as it is.

    Raises:
        UserError: if it is no numeric matrix.
    """
    try:
        with open(path, "rb") as file:
            # Not np.load: .npy and nothing else.
            matrix: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # a broken header raises many kinds, TokenError and MemoryError among them
        reason = "it holds Python objects" if "allow_pickle" in str(error) else str(error).partition("\n")[0]
        raise UserError(f"{path.name} ({modality}): not a numeric .npy array: {reason}") from None
    if matrix.dtype.kind not in "fiu":
        raise UserError(f"{path.name} ({modality}): expected an array of numbers, got {matrix.dtype}")
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise UserError(f"{path.name} ({modality}): expected shape [items, features], got {list(matrix.shape)}")
    return matrix
