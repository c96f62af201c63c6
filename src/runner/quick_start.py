"""One run from settings to results: the walk through the whole system, each piece once."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from common.abstract_recommender import GeneralRecommender
from common.analyses import Analyses
from common.compiling import compile_dense_methods
from common.initialization import initialize
from common.scorers import Scorers, ScorerWeights
from common.trainer import Diverged, Progress, Trainer, seed_everything
from runner.registry import class_of, code_of, is_older
from utils.config.configuration import Config
from utils.config.valid_metric import is_sum, weights_of
from utils.data.dataloader import TrainLoader
from utils.data.dataset import Dataset
from utils.data.id_mapping import original_ids
from utils.data.loading import load_dataset
from utils.errors import UserError
from utils.evaluation.beyond_accuracy import beyond_accuracy
from utils.evaluation.by_item import per_item
from utils.evaluation.groups import evaluate_groups
from utils.evaluation.topk_evaluator import Evaluation, TopKEvaluator
from utils.files import make_folder, write_bytes, write_json
from utils.memory import keep_freed_memory
from utils.runs.run_folder import RunFolder, manifest, peak_memory_bytes, write_topk
from utils.runs.tracking import Scalars, library


@dataclass(frozen=True)
class Result:
    """A finished run: its settings, what metrics.json holds, and its folder."""

    config: Config
    metrics: dict[str, Any]
    folder: Path


@dataclass
class DatasetShelf:
    """Keeps the data set read last, since the runs of a grid share it."""

    key: str = ""
    dataset: Dataset | None = None

    def get(self, config: Config, needs_features: bool) -> Dataset:
        """The data set that `config` names, read if it is not the one at hand."""
        wanted = {k: config[k] for k in _DATA_KEYS} | {"dataset": config.dataset, "features": needs_features}
        key = json.dumps(wanted, sort_keys=True)
        if self.dataset is None or key != self.key:
            self.dataset, self.key = load_dataset(config, needs_features), key
        return self.dataset


DEFAULTS = "overall.yaml"
CALIBRATION_USERS = 10_000  # the most by whom settings of evaluation are chosen

_DATA_KEYS = (
    "data_path", "cache_dir", "inter_file_name", "field_separator", "user_id_field", "item_id_field", "split_field",
    "modalities", "modality_input", "nan_features", "missing_share", "filter_out_cold_start_users", "data_checks",
    "synthetic", "user_graph_file",
)  # fmt: skip


def pick_device(word: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `cuda:N` stands for.

    Raises:
        UserError: if CUDA is asked for and not there.
    """
    if word == "cpu" or (word == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(f"device: '{word}' is asked for, but this PyTorch sees no CUDA device; use --device cpu")
    device = torch.device("cuda:0" if word == "auto" else word)
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise UserError(f"device: there is no '{word}'; CUDA devices are 0 to {torch.cuda.device_count() - 1}")
    return device


def cutoffs(config: Config, dataset: Dataset) -> list[int]:
    """The cut-offs K of a run: of the default those that the data set has items for, else all."""
    fitting = [k for k in config["topk"] if k <= dataset.n_items]
    return fitting if config.sources["topk"] == DEFAULTS else list(config["topk"])


def make_evaluator(
    config: Config,
    dataset: Dataset,
    split: str,
    device: torch.device,
    most_users: int | None = None,
    items: NDArray[np.bool_] | None = None,
) -> TopKEvaluator:
    """The evaluator of one split under the settings of a run: of at most `most_users` of its users, and some items."""
    metric = config["valid_metric"].lower()
    return TopKEvaluator(
        dataset,
        split,
        config["metrics"],
        cutoffs(config, dataset),
        config["protocol"],
        config["eval_batch_size"],
        device,
        most_users,
        {metric: weights_of(metric)} if is_sum(metric) else None,
        items,
    )


def make_loader(config: Config, dataset: Dataset, model: GeneralRecommender, device: torch.device) -> TrainLoader:
    """The training batches that a model takes under the settings of a run."""
    return TrainLoader(
        dataset,
        config["train_batch_size"],
        config["seed"],
        device,
        model.needs_negatives,
        model.batches_by_user,
        config["training_neg_sample_num"],
        config["neg_sampling"],
    )


def build_model(config: Config, dataset: Dataset, device: torch.device) -> GeneralRecommender:
    """The seeded, untrained model of a run, on its device."""
    seed_everything(config["seed"])
    model: GeneralRecommender = class_of(config).build(config, dataset, device)
    if config["initialization"] == "spectral":
        initialize(model, dataset, config["initialization_power"])
    return model


def run(config: Config, folder: RunFolder, dataset: Dataset, progress: Progress, resume: bool = False) -> Result:
    """Trains, picks the best epoch by validation, tests once from its checkpoint, and writes the run folder.

    With `refit` the test is of a model trained on train and validation, for as many epochs as validation picked. With
    `no_test` nothing is computed from the test split.

    Raises:
        UserError: if the data do not fit the settings or, on resuming, are not those of the run.
    """
    device = pick_device(config["device"])
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    torch.use_deterministic_algorithms(config["deterministic"] and device.type == "cuda", warn_only=True)
    keep_freed_memory()
    record = manifest(config, dataset, device)
    record["versions"] |= _imported_code(
        config.model, config["plugin"], f"{config['plugin_sha256']} {config['plugin_modules']}"
    )
    if config["tracker"]:
        library(config["tracker"])
    if resume:
        check_resumable(folder, dataset)
    folder.lock()
    try:
        start = time.perf_counter()
        write_bytes(folder.file("config.yaml"), config.to_yaml().encode())
        write_json(folder.file("manifest.json"), record)
        model = build_model(config, dataset, device)
        if config["compile"]:
            compile_dense_methods(model, device)
        loader = make_loader(config, dataset, model, device)
        analyses = Analyses(config["analyses"], dataset.splits["valid"]) if config["analyses"] else None
        validator = make_evaluator(config, dataset, "valid", device)
        scorers = Scorers(dataset, device, ScorerWeights.of(config))
        trainer = Trainer(config, model, loader, validator, folder, progress, analyses, scorers)
        done = trainer.state.epoch if resume and trainer.resume() else -1
        progress(trainer.state.epoch, 0.0, {})
        metrics: dict[str, Any] = {"status": "finished", "valid": None, "test": None, "best_epoch": None}
        trainer.record = scalars = _scalars(config, folder, trainer.state.epoch)
        state, evaluations = trainer.state, {}
        try:
            trainer.fit()
            metrics["best_epoch"] = trainer.restore_best()
            if config["calibration"]:
                some = make_evaluator(config, dataset, "valid", device, CALIBRATION_USERS)
                metrics["calibration"] = trainer.calibrate(metrics["best_epoch"], some)
            evaluations["valid"] = trainer.evaluate(validator)
            tested = dataset
            if refits(config):
                tested = dataset.for_refit()
                trainer = _refit(config, tested, trainer, metrics["best_epoch"], resume=done == state.epoch)
                metrics["refit"] = {"epochs": trainer.state.epoch, "interactions": len(tested.train)}
                # Ranked for the same test; what it was trained on is masked, validation too.
                tested = replace(tested, splits=tested.splits | {"test": dataset.splits["test"]})
            if not config["no_test"]:
                evaluations["test"] = trainer.evaluate(make_evaluator(config, tested, "test", device))
                metrics |= _of_test(config, dataset, folder, evaluations["test"])
                if "cold_items" in (config["group_by"] or ()):
                    metrics["groups"]["cold_items"] = _by_coldness(trainer, tested, evaluations["test"])
        except Diverged as error:
            metrics |= {"status": "diverged", "error": str(error)}
        finally:
            if scalars:
                scalars.close()
        if analyses and analyses.note:
            metrics["note"] = analyses.note
        metrics |= {"epochs": state.epoch, "valid_metric": trainer.valid_metric}
        if metrics["status"] == "finished":
            metrics |= {split: evaluation.means() for split, evaluation in evaluations.items()}
            _write_per_user(folder, evaluations)
        epochs = max(state.epoch, 1)
        record |= {
            "status": metrics["status"],
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "seconds": {
                "train_per_epoch": state.train_seconds / epochs,
                "evaluation": state.eval_seconds / max(state.epoch // trainer.eval_step, 1),
                "last_session": time.perf_counter() - start,
                "total": state.train_seconds
                + state.eval_seconds
                + (trainer.state.train_seconds if refits(config) else 0),
            },
            "peak_memory_bytes": peak_memory_bytes(device),
        }
        metrics["seconds"] = record["seconds"]["total"]
        write_json(folder.file("manifest.json"), record)
        write_json(folder.file("metrics.json"), metrics)
        for left in folder.path.rglob("last.pt"):
            left.unlink()
    finally:
        folder.unlock()
    return Result(config, metrics, folder.path)


def refits(config: Config) -> bool:
    """Whether the test of a run is of a model trained on train and validation; without a test there is none."""
    return bool(config["refit"] and not config["no_test"])


def _refit(config: Config, dataset: Dataset, picked: Trainer, epochs: int, resume: bool) -> Trainer:
    """Trains the model again on train and validation, with the same seed and settings, in the folder `refit` of the run.

    Args:
        dataset: as `for_refit` makes it: its graphs are of both, and it holds no test row.
        picked: the trainer that validation has picked with; its scorers keep their weights.
        epochs: how many.
        resume: go on with what is there.

    Raises:
        Diverged: if it does.
    """
    device = picked.loader.device
    folder = RunFolder(picked.folder.file("refit"))
    make_folder(folder.path)
    if not resume:
        folder.file("last.pt").unlink(missing_ok=True)
    model = build_model(config, dataset, device)
    if config["compile"]:
        compile_dense_methods(model, device)
    loader = make_loader(config, dataset, model, device)
    assert picked.scorers is not None
    scorers = Scorers(dataset, device, picked.scorers.weights)
    shorter = replace(config, entries=config.entries | {"epochs": epochs})
    trainer = Trainer(shorter, model, loader, None, folder, picked.progress, scorers=scorers)
    trainer.resume()
    try:
        trainer.fit()
    except Diverged as error:
        raise Diverged(f"refit: {error}") from None
    trainer.keep_last()
    return trainer


def _scalars(config: Config, folder: RunFolder, done: int) -> Scalars | None:
    return Scalars(config, folder.path, done) if config["tracker"] else None


def with_modalities(config: Config, dataset: Dataset) -> Dataset:
    """The data set with its features where results by modality are asked for of a model that reads none."""
    wanted = "modalities" in (config["group_by"] or ()) and not dataset.features
    return load_dataset(config) if wanted else dataset


def oracle_metrics(config: Config, dataset: Dataset) -> dict[str, float] | None:
    """Test metrics of the oracle of a generated data set, which ranks by the truth; with no_test and else None."""
    truth = dataset.truth
    if truth is None or config["no_test"]:
        return None
    evaluator = make_evaluator(config, dataset, "test", torch.device("cpu"))
    return evaluator.evaluate(lambda users: torch.from_numpy(truth.scores(users.numpy()))).means()


def check_resumable(folder: RunFolder, dataset: Dataset) -> None:
    """Checks that what a run folder holds was made from the data there are now, and, to go on with it, by this code.

    Raises:
        UserError: if not.
    """
    finished = folder.metrics() is not None
    if not finished and not folder.file("last.pt").is_file():
        return  # killed in its first epoch: there is nothing to go on from
    if folder.manifest()["hashes"] != dataset.fingerprint:
        raise UserError(f"{folder.path}: the data have changed since this run began; start it again without --resume")
    if not finished and is_older(folder.manifest()):
        raise UserError(
            f"{folder.path}: the code has changed since this run began; --rerun_changed beside --resume begins it again"
        )


_IMPORTED: dict[str, str] = {}  # the harness is imported once


@functools.cache
def _imported_code(model: str, plugin: str | None, content: str) -> dict[str, str]:
    """The versions of the code as this process imported it: a model of the tree that is edited meanwhile is not imported
    again, a plugin is, which `content` tells.
    """
    versions = code_of(model, plugin)
    return versions | {"code": _IMPORTED.setdefault("code", versions["code"])}


def _of_test(config: Config, dataset: Dataset, folder: RunFolder, test: Evaluation) -> dict[str, Any]:
    """What else the settings ask of the test users, for metrics.json; their best items are written."""
    found: dict[str, Any] = {}
    dataset = with_modalities(config, dataset)
    if config["group_by"]:
        groups = [name for name in config["group_by"] if name != "cold_items"]  # which are ranked again
        found["groups"] = evaluate_groups(test, dataset, "test", groups)
    if config["beyond_accuracy"]:
        found["beyond"] = beyond_accuracy(
            test.topk, test.users, dataset.train, dataset.n_items, cutoffs(config, dataset)
        )
    if config["save_per_item"]:
        columns = {"item": original_ids(config, config["item_id_field"], dataset.n_items)}
        _write_table(folder.file("per_item.csv"), pd.DataFrame(columns | per_item(test, dataset, "test")))
    if config["save_topk"]:
        users = original_ids(config, config["user_id_field"], dataset.n_users)
        items = original_ids(config, config["item_id_field"], dataset.n_items)
        write_topk(
            folder.file("topk.tsv"),
            [users[user] for user in test.users],
            [[items[item] for item in row if item >= 0] for row in test.topk],
        )
    return found


def _by_coldness(trainer: Trainer, dataset: Dataset, test: Evaluation) -> dict[str, dict[str, float]]:
    """Test results over all items; over warm items, which have a training interaction; over cold items, which have none.

    Only items of a group are ranked, and only they count as relevant.
    """
    warm = np.bincount(dataset.train.items, minlength=dataset.n_items) > 0
    found: dict[str, dict[str, float]] = {"all": {"n_users": len(test.users), "n_items": len(warm)} | test.means()}
    for name, items in (("warm", warm), ("cold", ~warm)):
        if items[dataset.splits["test"].items].any():
            evaluator = make_evaluator(trainer.config, dataset, "test", trainer.loader.device, items=items)
            part = trainer.evaluate(evaluator)
            found[name] = {"n_users": len(part.users), "n_items": int(items.sum())} | part.means()
    return found


def _write_per_user(folder: RunFolder, evaluations: Mapping[str, Evaluation]) -> None:
    tables = [pd.DataFrame({"split": name, "user": part.users} | part.values) for name, part in evaluations.items()]
    _write_table(folder.file("per_user.csv"), pd.concat(tables))


def _write_table(path: Path, table: pd.DataFrame) -> None:
    write_bytes(path, table.to_csv(None, index=False, float_format=_number, lineterminator="\n").encode())


def _number(value: float) -> str:
    return np.format_float_positional(value, trim="-")
