"""The Python interface: `run` a model on a data set, `load` a finished run, read a `Dataset`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.errors import UserError

if TYPE_CHECKING:
    from runner.stored_run import Ranked

Id = str | int  # 3 is the same id as "3"


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        model: its name.
        dataset: its name.
        status: finished, or diverged where a loss became NaN or infinite.
        valid: metric to value, as {"recall@20": 0.07}; empty where there is none.
        test: the same of the test split.
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
        train: interactions int64 [E, 2] of users and items, sorted by user, then item.
        valid: the same of the validation split.
        test: the same of the test split.
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

    Users and items go by their original ids where the data set has mapping files, else by their numbers from 0.

    Attributes:
        folder: of the run.
        config: every setting by its key.
        metrics: all that metrics.json holds.
        history: a row for each epoch: losses and validation metrics.
        user_ids: of the rows of users' embeddings.
        item_ids: of the rows of items' embeddings.
    """

    def __init__(self, folder: Path, data_path: str | None, device: str | None) -> None:
        from runner.stored_run import StoredRun
        from utils.runs.run_folder import RunFolder

        self._stored = StoredRun.open(folder, data_path, device)
        self.folder = folder
        self.config: dict[str, Any] = dict(self._stored.config)
        self.metrics: dict[str, Any] = RunFolder(folder).metrics() or {}
        self.history = pd.read_csv(folder / "history.csv") if (folder / "history.csv").is_file() else pd.DataFrame()
        self.user_ids: list[str] = self._stored.users.ids
        self.item_ids: list[str] = self._stored.items.ids

    def score(self, users: Iterable[Id] | None = None, items: Iterable[Id] | None = None) -> NDArray[np.float32]:
        """Scores [B, J] of items for users, training items included; None: all of them.

        Raises:
            UserError: for an id that is not known.
        """
        wanted = None if items is None else self._stored.items.all_of(items)
        return self._stored.scores(self._users(users), wanted)

    def recommend(
        self,
        users: Iterable[Id] | None = None,
        k: int = 20,
        exclude: Iterable[Id | tuple[Id, Id]] = (),
        items: Iterable[Id] | None = None,
        hide: str = "train",
    ) -> pd.DataFrame:
        """The k best items of each user: columns user, rank, item, score.

        Args:
            users: None: all users.
            k: items per user; fewer where fewer are left.
            exclude: items, and pairs (user, item), that are not recommended.
            items: the only items to recommend; None: all.
            hide: interactions whose items are left out: "train", or "all" of the three splits.

        Raises:
            UserError: for an id that is not known, or a k beyond the number of items.
        """
        stored, barred = self._stored, list(exclude)
        stored.check_k(k)
        if hide not in ("train", "all"):
            raise UserError(f"hide: expected 'train' or 'all', got {hide!r}")
        pairs = [one for one in barred if isinstance(one, tuple)]
        numbers = zip(stored.users.all_of(u for u, _ in pairs), stored.items.all_of(i for _, i in pairs), strict=True)
        candidates = np.full(stored.dataset.n_items, items is None)
        candidates[stored.items.all_of(items or ())] = True
        candidates[stored.items.all_of(one for one in barred if not isinstance(one, tuple))] = False
        lists = stored.recommend(self._users(users), k, stored.hidden(hide, list(numbers)), candidates)
        return self._table(lists, self.user_ids, ["user", "rank", "item", "score"])

    def similar(self, items: Iterable[Id], k: int = 10) -> pd.DataFrame:
        """The k items with the most similar embeddings of each item: columns item, rank, similar, cosine.

        Raises:
            UserError: for an id that is not known, or a model without embeddings, such as ItemKNN.
        """
        self._stored.check_k(k)
        lists = self._stored.similar(self._stored.items.all_of(items), k)
        return self._table(lists, self.item_ids, ["item", "rank", "similar", "cosine"])

    def embeddings(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Final embeddings of users [n_users, D] and items [n_items, D]: `users @ items.T` are the scores.

        The columns are the model's own and no bias is added to them; the rows are in the order of `user_ids` and `item_ids`.

        Raises:
            UserError: for a model that has none, such as ItemKNN, or whose scores are not their products.
        """
        return self._stored.embeddings()

    def score_new(self, folder: str | Path, users: Iterable[Id] | None = None) -> pd.DataFrame:
        """Scores of items that the data set does not have: a row for each user, a column for each new item.

        Args:
            folder: `ids.txt` with an id a line, and a feature file for each modality of the run, as in a data set's folder.
            users: None: all users.

        Raises:
            UserError: for a model that cannot score items without interactions, or files that do not fit.
        """
        from runner.new_items import NewItems

        new, numbers = NewItems.read(Path(folder), self._stored), self._users(users)
        blocks = [scores.float().cpu().numpy() for _, scores in new.scores(self._stored, numbers)]
        rows = np.concatenate([np.zeros((0, len(new.names.ids)), np.float32), *blocks])
        return pd.DataFrame(rows, [self.user_ids[number] for number in numbers], new.names.ids)

    def _users(self, users: Iterable[Id] | None) -> list[int]:
        return list(range(self._stored.dataset.n_users)) if users is None else self._stored.users.all_of(users)

    def _table(self, lists: Iterable[Ranked], names: list[str], columns: list[str]) -> pd.DataFrame:
        return pd.DataFrame(
            [
                [names[number], rank, self.item_ids[item], value]
                for number, found, values in lists
                for rank, (item, value) in enumerate(zip(found, values, strict=True), 1)
            ],
            columns=columns,
        )


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
