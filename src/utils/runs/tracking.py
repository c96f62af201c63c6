"""Trackers beside history.csv, each by its own library; a library is imported only where a run asks for its tracker.

All take the same names: the columns of history.csv with "_at_" for "@", and "_" for what else MLflow refuses.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from utils.config.configuration import Config
from utils.errors import UserError

LIBRARIES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
PROJECT = "gtc-bench"


def library(name: str) -> Any:
    """The library of a tracker.

    Raises:
        UserError: if it is not installed.
    """
    try:
        return importlib.import_module(LIBRARIES[name])
    except ImportError:
        raise UserError(f"tracker: {name} is not installed: pip install {name}") from None


class Tracker(Protocol):
    """What takes scalars."""

    def log(self, scalars: Mapping[str, float], epoch: int) -> None: ...
    def close(self) -> None: ...


class TensorBoard:
    """Event files in the folder `tensorboard` of the run; what a killed session wrote of later epochs is dropped."""

    def __init__(self, config: Config, folder: Path, done: int) -> None:
        self.writer = library("tensorboard").SummaryWriter(log_dir=str(folder / "tensorboard"), purge_step=done + 1)

    def log(self, scalars: Mapping[str, float], epoch: int) -> None:
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class WandB:
    """Files in the folder `wandb` of the run, for `wandb sync`; sent at once where WANDB_MODE says online."""

    def __init__(self, config: Config, folder: Path, done: int) -> None:
        os.environ.setdefault("WANDB_MODE", "offline")
        name = "-".join(folder.parts[-3:])
        self.run = library("wandb").init(
            project=PROJECT, name=name, id=name, resume="allow", dir=str(folder), config=_settings(config)
        )

    def log(self, scalars: Mapping[str, float], epoch: int) -> None:
        self.run.log(dict(scalars), step=epoch)

    def close(self) -> None:
        self.run.finish()


class MLflow:
    """A run of the experiment called like the data set, in OUTPUT_DIR/mlruns; elsewhere by MLFLOW_TRACKING_URI."""

    def __init__(self, config: Config, folder: Path, done: int) -> None:
        local = (Path(config["output_dir"]).expanduser() / "mlruns").resolve().as_uri()
        self.client = library("mlflow").MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or local)
        experiment = self.client.get_experiment_by_name(config.dataset)
        number = experiment.experiment_id if experiment else self.client.create_experiment(config.dataset)
        self.run_id = self.client.create_run(number, run_name="-".join(folder.parts[-2:])).info.run_id
        for name, value in _settings(config).items():
            self.client.log_param(self.run_id, name, value)

    def log(self, scalars: Mapping[str, float], epoch: int) -> None:
        for name, value in scalars.items():
            self.client.log_metric(self.run_id, name, value, step=epoch)

    def close(self) -> None:
        self.client.set_terminated(self.run_id)


TRACKERS: dict[str, Callable[[Config, Path, int], Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}


class Scalars:
    """Gives the rows of history.csv to the tracker of a run.

    Args:
        config: its settings; `tracker` names it.
        folder: of the run.
        done: epochs done before.

    Raises:
        UserError: if the tracker's library is not installed.
    """

    def __init__(self, config: Config, folder: Path, done: int) -> None:
        self.tracker = TRACKERS[config["tracker"]](config, folder, done)

    def __call__(self, row: Mapping[str, Any]) -> None:
        """Logs the columns of an epoch, but for the epoch, which is the step."""
        scalars = {re.sub(r"[^\w./-]", "_", name.replace("@", "_at_")): value for name, value in row.items() if name != "epoch"}
        self.tracker.log(scalars, int(row["epoch"]))

    def close(self) -> None:
        """Writes what is left."""
        self.tracker.close()


def _settings(config: Config) -> dict[str, Any]:
    """Settings as plain words, so that every library takes them."""
    return {"model": config.model, "dataset": config.dataset} | {key: str(value) for key, value in config.entries.items()}
