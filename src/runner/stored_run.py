"""A finished run, opened again from its folder: settings, data set and trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.abstract_recommender import GeneralRecommender
from common.scorers import Scorers, ScorerWeights
from runner.quick_start import build_model, pick_device, refits
from runner.registry import class_of, model_keys, model_name, plugin_of
from utils.config.configuration import Config
from utils.config.layers import config_from_values
from utils.config.yaml_files import read_yaml
from utils.data.dataset import Dataset
from utils.data.id_mapping import original_ids
from utils.data.loading import load_dataset
from utils.errors import UserError
from utils.evaluation.topk import ranked_topk
from utils.runs.run_folder import RunFolder, read_torch

BLOCK = 1024  # users scored at a time


def stored_config(folder: Path, changed: Mapping[str, Any]) -> Config:
    """The settings of a run folder, from its config.yaml with some changed, checked against the model's keys.

    Raises:
        UserError: if the folder is not a run folder of this code.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder}: not a run folder (no config.yaml)")
    content = read_yaml(path, str(path))
    if not isinstance(content.get("model"), str) or not isinstance(content.get("dataset"), str):
        raise UserError(f"{path}: expected the names of a model and a data set, as a run writes them")
    plugin = plugin_of(content)
    model, dataset = model_name(content.pop("model"), [plugin.name] if plugin else []), content.pop("dataset")
    keys = model_keys(model, plugin, content=content)
    return config_from_values(model, keys, dataset, {**content, **changed}, str(path))


@dataclass(frozen=True)
class Recommendation:
    """One item recommended to one user, both by their original ids; ranks count from 1."""

    user: str
    rank: int
    item: str
    score: float


@dataclass(frozen=True)
class StoredRun:
    """A finished run with its data set and its trained model, in eval mode only."""

    folder: Path
    config: Config
    dataset: Dataset
    model: GeneralRecommender
    device: torch.device
    scorers: Scorers

    @classmethod
    def open(cls, folder: Path, data_path: str | None = None, device: str | None = None) -> StoredRun:
        """Reads a run folder, the data set that it was trained on, and the best weights.

        Args:
            folder: with config.yaml, manifest.json and checkpoint.pt.
            data_path: the folder of data sets, if it has moved since.
            device: auto, cpu, cuda or cuda:N; None: as in the run.

        Raises:
            UserError: for a folder that is no run, or other data than the run's.
        """
        given = {"data_path": data_path, "device": device}
        config = stored_config(folder, {key: value for key, value in given.items() if value})
        trained_on = RunFolder(folder).manifest()["hashes"]
        if config["modalities"]:  # a data set file of the tree may name some that were not there
            there = {name: file for name, file in config["modalities"].items() if name in trained_on}
            config = replace(config, entries=config.entries | {"modalities": there or None})
        place = pick_device(config["device"])
        path = folder / ("refit/checkpoint.pt" if refits(config) else "checkpoint.pt")
        if not path.is_file():
            raise UserError(
                f"{folder}: no checkpoint.pt: the run is not through its first evaluation; --resume continues it"
            )
        checkpoint = read_torch(path)
        dataset = load_dataset(config, class_of(config).needs_features)
        if trained_on != dataset.fingerprint:
            raise UserError(
                f"{folder}: '{config.dataset}' in {config['data_path']} is not the data that this run trained on; "
                "--data_path names another folder"
            )
        dataset = dataset.for_refit() if refits(config) else dataset
        model = build_model(config, dataset, place)
        try:
            model.load_state_dict(checkpoint["model"])
            # A run that tuned its scorers has the weights that it chose in its checkpoint.
            scorers = Scorers(dataset, place, ScorerWeights.of(checkpoint.get("scorers", config)))
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not of this model ({error})".splitlines()[0]) from None
        return cls(folder, config, dataset, model, place, scorers)

    def check(self, users: Sequence[int], k: int) -> None:
        """Checks users and a number of items.

        Raises:
            UserError: for a user that is not there, or more items than there are.
        """
        n_users, n_items = self.dataset.n_users, self.dataset.n_items
        outside = [user for user in users if not 0 <= user < n_users]
        if outside:
            raise UserError(f"--users: there is no user {outside[0]}; ids go from 0 to {n_users - 1}")
        if k > n_items:
            raise UserError(f"--k: {k} is more than the {n_items} items of '{self.config.dataset}'")

    def scores(self, users: Sequence[int]) -> NDArray[np.float32]:
        """Scores of all items [B, I] for users [B], training items included, as evaluation has them."""
        with self.model.scoring():
            blocks = [self._scores(users[begin : begin + BLOCK]) for begin in range(0, len(users), BLOCK)]
        return torch.cat(blocks).float().cpu().numpy() if blocks else np.zeros((0, self.dataset.n_items), np.float32)

    def _scores(self, users: Sequence[int]) -> torch.Tensor:
        # A copy, since a plugin may hand out a table that it keeps.
        ids = torch.tensor(users, device=self.device)
        return self.scorers.add(self.model.full_sort_predict((ids,)).clone(), ids)

    def recommend(self, users: Sequence[int], k: int) -> list[Recommendation]:
        """The k best items of each user, best first; training items are left out."""
        seen = self.dataset.inter_matrix("csr")
        user_names = original_ids(self.config, self.config["user_id_field"], self.dataset.n_users)
        item_names = original_ids(self.config, self.config["item_id_field"], self.dataset.n_items)
        found = []
        with self.model.scoring():
            for begin in range(0, len(users), BLOCK):
                block = users[begin : begin + BLOCK]
                scores = self._scores(block)
                row, item = seen[np.asarray(block)].nonzero()
                scores[torch.from_numpy(row).long(), torch.from_numpy(item).long()] = -torch.inf
                best, items = ranked_topk(scores, k)
                for user, values, columns in zip(block, best.tolist(), items.tolist(), strict=True):
                    found += [
                        Recommendation(user_names[user], rank, item_names[column], value)
                        for rank, (value, column) in enumerate(zip(values, columns, strict=True), 1)
                        if value > -np.inf
                    ]
        return found

    def embeddings(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The final embeddings of users [U, D] and items [I, D].

        Raises:
            UserError: for a model that scores without embeddings.
        """
        with self.model.scoring():
            try:
                found = self.model()
            except NotImplementedError:
                found = None
        if not isinstance(found, tuple) or len(found) != 2:
            raise UserError(
                f"{self.config.model} has no embeddings of users and items: its scores are computed otherwise"
            )
        users, items = (part.detach().float().cpu().numpy() for part in found)
        return users, items
