"""The training loop: epochs, early stopping on validation, best checkpoint, resuming, one test at the end."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.abstract_recommender import GeneralRecommender, Loss
from common.averaging import WeightAverage
from common.calibration import by_validation
from common.mirror_gradient import MirrorGradient
from common.precision import mixed_precision
from common.scorers import Scorers, ScorerWeights
from utils.config.configuration import Config
from utils.data.dataloader import TrainLoader
from utils.errors import UserError
from utils.evaluation.topk_evaluator import Evaluation, TopKEvaluator
from utils.files import write_csv
from utils.runs.run_folder import RunFolder, on_cpu, read_torch, write_torch

CHECK_EVERY = 50  # steps between two looks at the losses: on a GPU each look waits for it

Progress = Callable[[int, float, dict[str, float]], None]
Analyse = Callable[[GeneralRecommender], dict[str, float]]


class Diverged(Exception):
    """A loss term became NaN or infinite."""


def loss_terms(loss: Loss) -> dict[str, Tensor]:
    """The terms of a model's loss by name; a tuple, as MMRec models return it, is numbered."""
    if isinstance(loss, dict):
        return loss
    if isinstance(loss, tuple):
        return {f"loss_{number}": term for number, term in enumerate(loss, 1)}
    return {"loss": loss}


def seed_everything(seed: int) -> None:
    """Seeds the global streams of Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (models of others draw from the global stream)
    torch.manual_seed(seed)


def make_optimizer(config: Config, model: torch.nn.Module) -> torch.optim.Optimizer:
    """The optimiser that `learner` names over all parameters; a model without any has one that does nothing."""
    kinds: dict[str, Any] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "sgd": torch.optim.SGD,
        "adagrad": torch.optim.Adagrad,
        "rmsprop": torch.optim.RMSprop,
    }
    options: dict[str, Any] = {"lr": config["learning_rate"], "weight_decay": config["weight_decay"]}
    if config["learner"] in ("adam", "adamw", "sgd"):
        options["fused"] = True  # one pass over a table instead of ten
    parameters = list(model.parameters()) or [torch.nn.Parameter(torch.zeros(0))]
    return kinds[config["learner"]](parameters, **options)


@dataclass
class EarlyStopping:
    """Keeps the best validation score; a score must be strictly greater to count as better.

    Args:
        patience: evaluations without improvement that are let pass; the next one stops.
        decimals: scores are compared after rounding to this many; None: as they are.
    """

    patience: int
    decimals: int | None = None
    best: float = -1.0
    best_epoch: int = -1
    waited: int = 0

    def update(self, score: float, epoch: int) -> bool:
        """Takes the score of an epoch; returns whether it is the best so far."""
        score = round(score, self.decimals) if self.decimals is not None else score
        if score > self.best:
            self.best, self.best_epoch, self.waited = score, epoch, 0
            return True
        self.waited += 1
        return False

    @property
    def stop(self) -> bool:
        return self.waited > self.patience


@dataclass
class _State:
    """Where a run stands; all of it goes into last.pt. Epochs are counted from 1 wherever they are shown."""

    epoch: int = 0  # epochs done
    stopping: EarlyStopping = field(default_factory=lambda: EarlyStopping(0))
    history: list[dict[str, Any]] = field(default_factory=list)
    train_seconds: float = 0.0
    eval_seconds: float = 0.0


class Trainer:
    """Trains one model in one run folder.

    Each epoch ends with its state in `last.pt` (atomically replaced), so a kill loses at most the current epoch, and
    a resumed run goes on with the same random streams: on a CPU to the same bits.

    Args:
        config: the settings of the run.
        model: on its device.
        loader: training batches.
        validator: evaluates the validation split; None: there is none, and every epoch is trained.
        folder: of the run.
        progress: called as progress(epoch, share of the epoch done, what to show).
        analyse: gives more columns for the model at each evaluation; it must neither change it nor draw.
        scorers: what is added to the model's scores at evaluation; None: nothing.

    Raises:
        UserError: if `amp` asks for what the device does not have.
    """

    def __init__(
        self,
        config: Config,
        model: GeneralRecommender,
        loader: TrainLoader,
        validator: TopKEvaluator | None,
        folder: RunFolder,
        progress: Progress,
        analyse: Analyse | None = None,
        scorers: Scorers | None = None,
    ) -> None:
        self.config, self.model, self.loader = config, model, loader
        self.validator, self.folder, self.progress = validator, folder, progress
        self.analyse, self.scorers = analyse, scorers
        self.record: Callable[[dict[str, Any]], None] | None = None  # is given each new row of the history
        self.precision = mixed_precision(loader.device, config["amp"])
        self.valid_metric = config["valid_metric"].lower()
        self.optimizer = make_optimizer(config, model)
        decay = config["weight_average"] if model.needs_training else 0
        self.average = WeightAverage(model, decay) if decay else None
        self.mirror = MirrorGradient(config["mirror_gradient"])
        gamma, period = config["learning_rate_scheduler"]
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda epoch: gamma ** (epoch / period))
        self.state = _State(stopping=EarlyStopping(config["stopping_step"], config["valid_decimals"]))
        self.epochs = config["epochs"] if model.needs_training else 1
        self.min_epochs = -(-config["min_steps"] // len(loader)) if model.needs_training else 0
        self.eval_step = min(config["eval_step"], self.epochs)

    def fit(self) -> None:
        """Trains until the last epoch or early stopping; the best weights are then in `checkpoint.pt`.

        Raises:
            Diverged: at a NaN or infinite loss or score; the best checkpoint so far and the history stay.
        """
        state = self.state
        while state.epoch < self.epochs and not (state.stopping.stop and state.epoch >= self.min_epochs):
            row: dict[str, Any] = {"epoch": state.epoch + 1, "learning_rate": self.scheduler.get_last_lr()[0]}
            start = time.perf_counter()
            if self.model.needs_training:
                row |= self._train_epoch()
                self.scheduler.step()
            middle = time.perf_counter()
            row["train_seconds"] = middle - start
            if self.validator and (state.epoch + 1) % self.eval_step == 0:
                with self.average.in_place() if self.average else nullcontext():
                    row |= self._validate(self.validator)
                    row["eval_seconds"] = time.perf_counter() - middle
                    state.eval_seconds += row["eval_seconds"]
                    row |= self.analyse(self.model) if self.analyse else {}
            state.train_seconds += row["train_seconds"]
            state.history.append(row)
            state.epoch += 1
            self._save()
            if self.record:
                self.record(row)
            self.progress(state.epoch, 0.0, self._shown(row))

    def _train_epoch(self) -> dict[str, float]:
        model = self.model
        model.train()
        model.pre_epoch_processing()
        pending: list[Tensor] = []
        sums: Tensor | None = None
        names: list[str] = []
        n_steps = len(self.loader)
        for step, batch in enumerate(self.loader.epoch()):
            model.pre_step_processing(batch)
            names, values = self._step(step, batch)
            pending.append(values)
            if len(pending) == CHECK_EVERY or step == n_steps - 1:
                values = torch.stack(pending).double()
                self._check(values, names, step + 1 - len(pending))
                sums = values.sum(0) if sums is None else sums + values.sum(0)
                pending = []
                self.progress(self.state.epoch, (step + 1) / n_steps, {})
        model.post_epoch_processing()
        means = (sums / n_steps).tolist() if sums is not None else []
        return {"loss": sum(means)} | {f"loss_{name}": mean for name, mean in zip(names, means, strict=True)}

    def _step(self, step: int, batch: Tensor) -> tuple[list[str], Tensor]:
        """One step; returns the names and values of the loss terms before it."""
        model, clip = self.model, self.config["clip_grad_norm"]
        clip = {"max_norm": clip} if isinstance(clip, float) else clip
        shown: Tensor | None = None
        for one in self.mirror.passes(step):
            with self.precision:
                terms = loss_terms(model.calculate_loss(batch))
            self.optimizer.zero_grad(set_to_none=not model.keeps_zero_gradients)
            (one.scale * torch.stack([term.reshape(()) for term in terms.values()]).sum()).backward()
            if clip and one.clipped:
                torch.nn.utils.clip_grad_norm_(model.parameters(), **clip)
            self.optimizer.step()
            values = torch.stack([term.detach().reshape(()) for term in terms.values()])
            # A later pass of the step shows only where its loss is not finite.
            shown = values if shown is None else torch.where(values.isfinite(), shown, values)
        if self.average:
            self.average.update()
        assert shown is not None
        return list(terms), shown

    def _check(self, values: Tensor, names: list[str], first_step: int) -> None:
        bad = ~torch.isfinite(values)
        if bad.any():
            step, term = (int(index) for index in bad.nonzero()[0])
            where = f"epoch {self.state.epoch + 1}, step {first_step + step + 1}"
            raise Diverged(f"{where}: loss term '{names[term]}' is {values[step, term]}")

    def _validate(self, validator: TopKEvaluator) -> dict[str, float]:
        means = self.evaluate(validator).means()
        if self.state.stopping.update(means[self.valid_metric], self.state.epoch + 1):
            content = {"epoch": self.state.epoch + 1, "model": on_cpu(self.model.state_dict())}
            write_torch(self.folder.file("checkpoint.pt"), content)
        return {f"valid_{name}": value for name, value in means.items()}

    def evaluate(self, evaluator: TopKEvaluator) -> Evaluation:
        """Evaluates the model as it is.

        Raises:
            Diverged: if a score is NaN.
        """

        try:
            with self.model.scoring():
                return self._evaluate(evaluator)
        except FloatingPointError as error:
            raise Diverged(f"epoch {self.state.epoch + 1}: {error}") from None

    def _evaluate(self, evaluator: TopKEvaluator) -> Evaluation:
        def scorer(users: Tensor) -> Tensor:
            return self.model.full_sort_predict((users,))

        ready = evaluator.in_batches(scorer) if self.model.whole_batches else scorer
        return evaluator.evaluate(self.scorers.added_to(ready) if self.scorers else ready)

    def restore_best(self) -> int:
        """Loads the best weights; returns their epoch."""
        best = read_torch(self.folder.file("checkpoint.pt"))
        self.model.load_state_dict(best["model"])
        return int(best["epoch"])

    def keep_last(self) -> None:
        """Makes the last weights those of the run and of `checkpoint.pt`, averaged where that is asked for."""
        with self.average.in_place() if self.average else nullcontext():
            weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.model.load_state_dict(weights)
        content = {"epoch": self.state.epoch, "model": on_cpu(weights)}
        content |= {"scorers": self.scorers.weights.values()} if self.scorers else {}
        write_torch(self.folder.file("checkpoint.pt"), content)

    def calibrate(self, epoch: int, validator: TopKEvaluator) -> dict[str, Any]:
        """Tunes the weights of the scorers by validation; what is chosen is used from here on and kept in the checkpoint.

        Args:
            epoch: that of the model's weights, the best ones.
            validator: evaluates the validation split, or some of its users.

        Returns:
            "metric", "users" (how many it was measured on), "from" and "to" (each key's value before and after) and "gain",
            the difference in the mean of the metric.
        """
        assert self.scorers is not None
        scorers, before = self.scorers, self.scorers.weights
        measured: dict[ScorerWeights, NDArray[np.float64]] = {}

        def measure(values: Mapping[str, float]) -> NDArray[np.float64]:
            scorers.weights = replace(before, **values)
            key = scorers.weights.effective()
            if key not in measured:
                measured[key] = self._evaluate(validator).values[self.valid_metric]
            return measured[key]

        with self.model.scoring():  # once around all: the model's embeddings stay
            chosen = by_validation(before.choices(), measure)
        scorers.weights = replace(before, **chosen)
        gain = measured[scorers.weights.effective()].mean() - measured[before.effective()].mean()
        content = {"epoch": epoch, "model": on_cpu(self.model.state_dict()), "scorers": scorers.weights.values()}
        write_torch(self.folder.file("checkpoint.pt"), content)
        return {
            "metric": self.valid_metric,
            "users": len(validator.users),
            "from": before.values(),
            "to": scorers.weights.values(),
            "gain": float(gain),
        }

    def _shown(self, row: dict[str, Any]) -> dict[str, float]:
        shown = {"loss": row["loss"]} if "loss" in row else {}
        if (name := f"valid_{self.valid_metric}") in row:
            shown |= {self.valid_metric: row[name], "best": self.state.stopping.best}
        return shown

    def _save(self) -> None:
        state = self.state
        write_torch(
            self.folder.file("last.pt"),
            {
                "state": vars(state) | {"stopping": vars(state.stopping)},
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": {"last_epoch": self.scheduler.last_epoch},
                "random": _random_streams(self.loader),
            }
            | ({"average": self.average.state_dict()} if self.average else {}),
        )
        write_csv(self.folder.file("history.csv"), state.history)

    def resume(self) -> bool:
        """Takes up the run from `last.pt`; returns whether there was one.

        Raises:
            UserError: if the file is not of this model.
        """
        path = self.folder.file("last.pt")
        if not path.is_file():
            return False
        try:
            saved = read_torch(path)
            self.state = _State(**saved["state"] | {"stopping": EarlyStopping(**saved["state"]["stopping"])})
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            if self.average:
                self.average.load_state_dict(saved["average"])
            self.scheduler.last_epoch = saved["scheduler"]["last_epoch"]
            self.scheduler._last_lr = [group["lr"] for group in self.optimizer.param_groups]
            _set_random_streams(saved["random"], self.loader)
        except (UserError, AttributeError, LookupError, TypeError, RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0].removeprefix(f"{path}: ")
            raise UserError(f"{path}: cannot be continued from ({reason}); start again without --resume") from None
        write_csv(self.folder.file("history.csv"), self.state.history)  # a kill may have come between the two files
        return True


def _random_streams(loader: TrainLoader) -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "loader": loader.generator.get_state(),
    }


def _set_random_streams(streams: dict[str, Any], loader: TrainLoader) -> None:
    version, internal, gauss = streams["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = streams["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(streams["torch"])
    if torch.cuda.is_available() and len(streams["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(streams["cuda"])
    loader.generator.set_state(streams["loader"])
