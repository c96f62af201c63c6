"""Items that no data set holds: a folder with their ids and features, scored by a finished run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from runner.stored_run import BLOCK, Ranked, StoredRun, ranked
from utils.data.id_files import read_items
from utils.data.id_mapping import Names
from utils.data.reading import discover_features, read_features
from utils.errors import UserError

IDS = "ids.txt"
CHANGED = (
    "modality_input",
    "missing_share",
    "train_features",
)  # settings under which a file's features are not the model's


@dataclass(frozen=True)
class NewItems:
    """Items with features and without interactions: ids [J], and float32 [J, F] of each modality of the run."""

    names: Names
    features: dict[str, NDArray[np.float32]]

    @classmethod
    def read(cls, folder: Path, stored: StoredRun) -> NewItems:
        """Reads `ids.txt`, an id a line, and the feature files, named as those of the data set, with a row for each id.

        Raises:
            UserError: if a file is missing or does not fit the run's features.
        """
        ids = read_items(folder / IDS)
        if changed := [key for key in CHANGED if stored.config[key]]:
            raise UserError(
                f"{stored.folder}: {changed[0]} changed the features of this run, so new ones do not fit them"
            )
        repeated = len(ids) - len(set(ids))
        if repeated or not ids:
            raise UserError(f"{folder / IDS}: expected ids, each once; got {len(ids):,} lines, {repeated:,} repeats")
        files = discover_features(folder)
        features, problems = {}, []
        for modality, known in stored.dataset.features.items():
            if modality not in files:
                problems.append(f"{folder}: no features of the modality {modality}, which this run has")
                continue
            warnings: list[str] = []
            matrix, present = read_features(folder / files[modality], modality, len(ids), warnings, False)
            problems += [f"{folder}: {line}" for line in warnings]
            if not present.all():
                problems.append(f"{folder}: {int((~present).sum()):,} items lack {modality}; leave them out")
            if matrix.shape[1] != known.shape[1]:
                widths = f"{known.shape[1]} columns as in the data set, got {matrix.shape[1]}"
                problems.append(f"{files[modality]}: expected {widths}")
            features[modality] = matrix
        if problems:
            raise UserError(*problems)
        return cls(Names("item", ids), features)

    def scores(self, stored: StoredRun, users: Sequence[int]) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Users in blocks, with their scores of the new items [B, J]; what a run adds to scores, new items have none of.

        Raises:
            UserError: for a model that cannot.
        """
        with stored.model.scoring():
            for begin in range(0, len(users), BLOCK):
                block = list(users[begin : begin + BLOCK])
                ids = torch.tensor(block, device=stored.device)
                yield block, stored.model.score_new_items(ids, self.features, stored.dataset)

    def recommend(self, stored: StoredRun, users: Sequence[int], k: int) -> Iterator[Ranked]:
        """The k best of the new items for each user, best first."""
        for block, scores in self.scores(stored, users):
            yield from ranked(block, scores, min(k, len(self.names.ids)))
