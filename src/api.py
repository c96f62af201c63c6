"""The Python interface: `run` a model on a data set, `load` a finished run, read a `Dataset`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        model, dataset: names.
        status: finished, or diverged where a loss became NaN or infinite.
        valid, test: metric to value, as {"recall@20": 0.07}; empty where there is none.
        best_epoch: the epoch whose weights were kept, counted from 1; None for a diverged run.
        settings: every setting of the run by its key.
        metrics: all that metrics.json holds.
        folder: the run folder, which `load` opens.
    """

    model: str
    dataset: str
    status: str
    valid: dict[str, float]
    test: dict[str, float]
    best_epoch: int | None
    settings: dict[str, Any]
    metrics: dict[str, Any]
    folder: Path


@dataclass(frozen=True)
class Dataset:
    """A data set as runs read it: cleaned, split, with its features.

    Attributes:
        train, valid, test: interactions int64 [E, 2] of users and items, sorted by user, then item.
        features: modality to float32 [n_items, F].
        warnings: what was doubtful, a line each.
    """

    name: str
    n_users: int
    n_items: int
    train: NDArray[np.int64] = field(repr=False)
    valid: NDArray[np.int64] = field(repr=False)
    test: NDArray[np.int64] = field(repr=False)
    features: dict[str, NDArray[np.float32]] = field(repr=False)
    warnings: list[str] = field(repr=False)

    @classmethod
    def read(cls, name: str, data_path: str | Path | None = None, **settings: Any) -> Dataset:
        """Reads (or generates) a data set and checks it.

        Args:
            name: as on the command line: one of the project's, or a folder of `data_path`.
            data_path: the folder of data sets; None: $MMR_DATA_PATH, else data/.
            settings: keys of data sets, as `modalities={"visual": "image_feat.npy"}`.

        Raises:
            UserError: with a line for each thing that is wrong.
        """
        from utils.config.request import Request, resolve
        from utils.data.loading import load_dataset

        overrides = _overrides({**settings, "data_path": data_path})
        (config,), _ = resolve(Request(["Dataset"], [name], overrides, first_combination=True), {"Dataset": None})
        found = load_dataset(config)
        pairs = {split: np.stack([part.users, part.items], axis=1) for split, part in found.splits.items()}
        return cls(found.name, found.n_users, found.n_items, **pairs, features=found.features, warnings=found.warnings)


class Trained:
    """The trained model of a run folder, with the data set that it was trained on; see `load`.

    Attributes:
        folder: of the run.
        settings: every setting by its key.
        metrics: all that metrics.json holds.
    """

    def __init__(self, folder: Path, data_path: str | None, device: str | None) -> None:
        from runner.stored_run import StoredRun
        from utils.runs.run_folder import RunFolder

        self._stored = StoredRun.open(folder, data_path, device)
        self.folder = folder
        self.settings: dict[str, Any] = dict(self._stored.config)
        self.metrics: dict[str, Any] = RunFolder(folder).metrics() or {}

    def scores(self, users: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Scores of all items [B, n_items], training items included.

        Args:
            users: ids [B] from 0; None: all users.
        """
        return self._stored.scores(self._users(users))

    def recommend(self, users: Sequence[int] | None = None, k: int = 20) -> pd.DataFrame:
        """The k best items of each user without the training items: columns user, rank, item, score; original ids.

        Args:
            users: ids from 0; None: all users.
            k: items per user.
        """
        columns = ["user", "rank", "item", "score"]
        found = self._stored.recommend(self._users(users, k), k)
        return pd.DataFrame([[getattr(one, name) for name in columns] for one in found], columns=columns)

    def embeddings(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Final embeddings of users [n_users, D] and items [n_items, D].

        Raises:
            UserError: for a model that has none, such as ItemKNN.
        """
        return self._stored.embeddings()

    def _users(self, users: Sequence[int] | None, k: int = 1) -> list[int]:
        wanted = list(range(self._stored.dataset.n_users)) if users is None else [int(user) for user in users]
        self._stored.check(wanted, k)
        return wanted


def run(model: str, dataset: str, *, quiet: bool = True, **settings: Any) -> Result:
    """Trains one model on one data set, evaluates it, and writes a run folder.

    Args:
        model: a name, as "LightGCN", or a path to a model file of your own or written for MMRec, as "models/mine.py"
            or "models/mine.py:ClassName".
        dataset: a name; see `Dataset.read`.
        quiet: show no progress bar.
        settings: keys of the harness and of the model, as on the command line: epochs=50, learning_rate=1e-3,
            data_path="data". `best=True` lays the published setting for the data set over the model's, and
            `config=["more.yaml"]` files.

    Returns:
        The result; a diverged run is one too, see its `status`.

    Raises:
        UserError: for a mistake in names, settings or data, with a line for each.
    """
    from mmrec.plugin import read_model_file
    from runner.quick_start import DatasetShelf, run
    from runner.registry import class_of, model_keys, model_name
    from runner.session import check_all, epoch_progress
    from utils.config.request import Request, resolve
    from utils.config.yaml_files import read_yaml
    from utils.progress import ProgressBar
    from utils.runs.run_folder import RunFolder

    plugin = read_model_file(Path(model)) if re.search(r"\.py(:\w+)?$", model) else None
    name = plugin.name if plugin else model_name(model)
    files = [Path(path) for path in settings.pop("config", [])]
    best = bool(settings.pop("best", False))
    plugins = {name: plugin} if plugin else {}
    request = Request([name], [dataset], _overrides(settings), files, False, True, best, plugins)
    axes = [read_yaml(path, str(path)).get("hyper_parameters") for path in files]
    (config,), _ = resolve(request, {name: model_keys(name, plugin, axes)})
    shelf = DatasetShelf()
    check_all([config], shelf, say=lambda line: None)
    folder = RunFolder.new(config)
    with ProgressBar(f"{name} on {dataset}", quiet, config["epochs"]) as bar:
        found = run(config, folder, shelf.get(config, class_of(config).needs_features), epoch_progress(bar))
    metrics = found.metrics
    return Result(
        name,
        dataset,
        metrics["status"],
        metrics["valid"] or {},
        metrics["test"] or {},
        metrics["best_epoch"],
        dict(config),
        metrics,
        folder.path.absolute(),
    )


def load(run_folder: str | Path, data_path: str | Path | None = None, device: str | None = None) -> Trained:
    """Opens the folder of a finished run.

    Args:
        run_folder: `Result.folder`, or what the command line named.
        data_path: the folder of data sets, if it has moved since.
        device: auto, cpu, cuda or cuda:N; None: as in the run.

    Raises:
        UserError: for a folder that is no run, or other data than the run's.
    """
    return Trained(Path(run_folder), str(data_path) if data_path else None, device)


def _overrides(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as the command line gives them: each a list of one value."""
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()}
    return {key: [value] for key, value in plain.items() if value is not None}
