"""A finished run, opened again from its folder: settings, data set and trained model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from common.abstract_recommender import GeneralRecommender
from common.scorers import Scorers, ScorerWeights
from runner.quick_start import build_model, pick_device, refits
from runner.registry import class_of, model_keys, model_name, plugin_of
from utils.config.configuration import Config
from utils.config.layers import config_from_values
from utils.config.yaml_files import read_yaml
from utils.data.dataset import Dataset, Split
from utils.data.id_mapping import Names, original_ids
from utils.data.loading import load_dataset
from utils.errors import UserError
from utils.evaluation.topk import ranked_topk
from utils.memory import keep_freed_memory
from utils.runs.run_folder import RunFolder, read_torch

BLOCK = 128  # users scored at a time: their scores of 63,001 items stay below what glibc can keep
LARGE_BLOCK = 1024  # where scoring is slow to start
CHECKED_USERS = 64  # whose scores are compared with the products of embeddings

Ranked = tuple[int, list[int], list[float]]  # a user or an item, its best items, and their values


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
class StoredRun:
    """A finished run with its data set and its trained model, in eval mode only."""

    folder: Path
    config: Config
    dataset: Dataset
    model: GeneralRecommender
    device: torch.device
    scorers: Scorers
    splits: dict[str, Split]  # of the data set, whatever the model was trained on

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
        keep_freed_memory()
        given = {"data_path": data_path, "device": device}
        config = stored_config(folder, {key: value for key, value in given.items() if value})
        trained_on = RunFolder(folder).manifest()["hashes"]
        if config["modalities"]:  # a data set file of the tree may name some that were not there
            used = {name: file for name, file in config["modalities"].items() if name in trained_on}
            config = replace(config, entries=config.entries | {"modalities": used or None})
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
        splits = dataset.splits
        dataset = dataset.for_refit() if refits(config) else dataset
        model = build_model(config, dataset, place)
        try:
            model.load_state_dict(checkpoint["model"])
            # A run that tuned its scorers has the weights that it chose in its checkpoint.
            scorers = Scorers(dataset, place, ScorerWeights.of(checkpoint.get("scorers", config)))
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not of this model ({error})".splitlines()[0]) from None
        return cls(folder, config, dataset, model, place, scorers, splits)

    @cached_property
    def users(self) -> Names:
        """Original ids of the users."""
        return Names("user", original_ids(self.config, self.config["user_id_field"], self.dataset.n_users))

    @cached_property
    def items(self) -> Names:
        """Original ids of the items."""
        return Names("item", original_ids(self.config, self.config["item_id_field"], self.dataset.n_items))

    def check_k(self, k: int) -> None:
        """Checks a number of items.

        Raises:
            UserError: for more items than there are.
        """
        if not 1 <= k <= self.dataset.n_items:
            raise UserError(f"--k: {k} is not from 1 to the {self.dataset.n_items} items of '{self.config.dataset}'")

    def blocks(self, users: Sequence[int]) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Users in blocks, with their scores of all items [B, I], training items included, as evaluation has them."""
        step = LARGE_BLOCK if self.model.whole_batches or self.device.type == "cuda" else BLOCK
        with self.model.scoring():
            for begin in range(0, len(users), step):
                block = list(users[begin : begin + step])
                ids = torch.tensor(block, device=self.device)
                # A copy, since a plugin may hand out a table that it keeps.
                yield block, self.scorers.add(self.model.full_sort_predict((ids,)).clone(), ids)

    def scores(self, users: Sequence[int], items: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Scores [B, J] of items (None: all) for users [B]."""
        chosen = slice(None) if items is None else torch.tensor(items, device=self.device, dtype=torch.long)
        found = [scores[:, chosen].float().cpu().numpy() for _, scores in self.blocks(users)]
        width = self.dataset.n_items if items is None else len(items)
        return np.concatenate([np.zeros((0, width), np.float32), *found])

    def hidden(self, hide: str, pairs: Sequence[tuple[int, int]] = ()) -> sp.csr_matrix:
        """What is not recommended [U, I], as entries that are not 0: pairs, and the interactions that `hide` names.

        "train" are those that the model was trained on, after a refit validation too; "all" are those of every split.
        """
        parts = [self.dataset.train, *(self.splits.values() if hide == "all" else ())]
        more = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
        users = np.concatenate([*(part.users for part in parts), more[:, 0]])
        items = np.concatenate([*(part.items for part in parts), more[:, 1]])
        shape = (self.dataset.n_users, self.dataset.n_items)
        return sp.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=shape)

    def recommend(
        self, users: Sequence[int], k: int, hidden: sp.csr_matrix, candidates: NDArray[np.bool_] | None = None
    ) -> Iterator[Ranked]:
        """The k best items of each user, best first; fewer where fewer are left.

        Args:
            users: numbers.
            k: at most as many as there are items.
            hidden: [U, I], see the method of this name.
            candidates: bool [I]; None: all items.
        """
        barred = None if candidates is None else torch.from_numpy(~candidates).to(self.device)
        for block, scores in self.blocks(users):
            row, item = hidden[np.asarray(block)].nonzero()
            scores[torch.from_numpy(row).long(), torch.from_numpy(item).long()] = -torch.inf
            if barred is not None:
                scores[:, barred] = -torch.inf
            yield from ranked(block, scores, k)

    def similar(self, items: Sequence[int], k: int) -> Iterator[Ranked]:
        """The k items whose embeddings have the largest cosine with that of each item, itself left out.

        Raises:
            UserError: for a model that scores without embeddings.
        """
        unit = torch.nn.functional.normalize(self._tables()[1].float(), dim=1)
        for begin in range(0, len(items), BLOCK):
            block = list(items[begin : begin + BLOCK])
            cosines = unit[block] @ unit.T
            cosines[torch.arange(len(block)), block] = -torch.inf
            yield from ranked(block, cosines, k)

    def embeddings(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The final embeddings of users [U, D] and items [I, D], whose products are the scores.

        Raises:
            UserError: for a model that scores without embeddings, or a run whose scores are not their products.
        """
        if self.scorers.weights.any:
            raise UserError(
                f"{self.folder}: this run adds popularity or co_occurrence to its scores, so that no embeddings give them"
            )
        users, items = self._tables()
        some = np.unique(np.linspace(0, len(users) - 1, CHECKED_USERS).astype(int)).tolist()
        scores = torch.from_numpy(self.scores(some))
        products = (users[some] @ items.T).float().cpu()
        if scores.shape != products.shape or not torch.allclose(
            products, scores, 1e-4, 1e-4 * float(scores.abs().max())
        ):
            raise UserError(f"{self.config.model}: its scores are not the products of its embeddings")
        return users.float().cpu().numpy(), items.float().cpu().numpy()

    def _tables(self) -> tuple[torch.Tensor, torch.Tensor]:
        with self.model.scoring():
            try:
                found = self.model()
            except NotImplementedError:
                found = None
        if not isinstance(found, tuple) or len(found) != 2:
            raise UserError(
                f"{self.config.model} has no embeddings of users and items: its scores are computed otherwise"
            )
        return found[0].detach(), found[1].detach()


def ranked(numbers: Sequence[int], values: torch.Tensor, k: int) -> Iterator[Ranked]:
    """Rows of values [B, I] as lists of the k best; -inf is never listed."""
    best, columns = ranked_topk(values, k)
    for number, row, items in zip(numbers, best.tolist(), columns.tolist(), strict=True):
        left = sum(value > -np.inf for value in row)
        yield number, items[:left], row[:left]
