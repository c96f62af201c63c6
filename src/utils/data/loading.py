"""From the settings of a run to its data set: read or generated, checked, and changed as the settings say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from utils.config.configuration import Config
from utils.data.cache import ArrayCache
from utils.data.dataset import SPLITS, Dataset, Split
from utils.data.missing_modalities import drawn_present
from utils.data.modality_input import changed_features, check_modalities
from utils.data.reading import discover_features, existing_file, make_splits, read_features, read_interactions
from utils.data.synthetic import generate
from utils.data.synthetic_spec import synthetic_spec
from utils.data.user_graph_file import read_user_graph
from utils.errors import UserError
from utils.paths import default_cache_path

MMREC_USER_GRAPH = "user_graph_dict.npy"


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
    if config["split_field"] != "x_label":
        raise UserError(
            f"split_field: '{config['dataset']}' is generated and has one split, got '{config['split_field']}'"
        )
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
    remarks: list[str] = []
    users, items, labels = read_interactions(inter, config, remarks)
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
    dataset = Dataset(name, n_users, n_items, splits, {}, warnings, remarks=remarks)
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
                    folder / file, modality, n_items, warnings, config["nan_features"] == "missing", remarks
                )
                dataset.features[modality] = matrix
                if not present.all():
                    dataset.present[modality] = present
            except UserError as error:
                problems += error.problems
        if problems:
            raise UserError(*problems)
    return dataset


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
    named = {modality: existing_file(folder, file) for modality, file in named.items()}
    missing = {modality: file for modality, file in named.items() if not (folder / file).is_file()}
    if missing:
        listing = ", ".join(f"{file} ({modality})" for modality, file in missing.items())
        there = ", ".join(sorted(path.name for path in folder.glob("*_feat.npy"))) or "no *_feat.npy file at all"
        # The data set files of the tree name all that is published; a user's own words are taken as they stand.
        if not config.sources["modalities"].startswith("dataset/") or len(missing) == len(named):
            raise UserError(f"data set '{config['dataset']}': no {listing} in {folder}; there is {there}")
        warnings.append(f"{config['dataset']}: no {listing}; going on without")
    return {modality: file for modality, file in named.items() if modality not in missing}
