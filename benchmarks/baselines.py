"""Seconds per training epoch and per evaluation of every model, and large data within memory.

    python benchmarks/baselines.py --data_path DIR [-d tiktok] [--models GTC FREEDOM ...] [--rounds 3]
    python benchmarks/baselines.py --large [--models FREEDOM MGCN BM3 DRAGON] [--features 64]

The first prints, for each model, its default settings' training epoch (batches, steps and per-epoch work) and evaluation of
the validation split beside LightGCN's, both taking turns in a process of their own. The second builds each model on
generated data of Elec's size (192,403 users, 63,001 items, 4096 visual and 384 textual features), frozen features,
and takes five training steps: seconds and peak memory. Derived graphs go to a cache that is deleted at the end.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

import torch
from bench import alternate, config_for, median

from common.trainer import loss_terms, make_optimizer
from runner.quick_start import build_model, make_evaluator
from runner.registry import available_models, model_class
from utils.config.configuration import Config
from utils.data.dataloader import TrainLoader
from utils.data.dataset import Dataset
from utils.data.loading import load_dataset
from utils.data.synthetic_spec import SIZES
from utils.memory import check_fits

CPU = torch.device("cpu")
LARGE = ("FREEDOM", "MGCN", "BM3", "DRAGON")


class Bench:
    """A built model with its loader and evaluator."""

    def __init__(self, config: Config, dataset: Dataset) -> None:
        start = time.perf_counter()
        self.model = build_model(config, dataset, CPU)
        self.built = time.perf_counter() - start
        size, seed, model = config["train_batch_size"], config["seed"], self.model
        self.loader = TrainLoader(dataset, size, seed, CPU, model.needs_negatives, model.batches_by_user)
        self.optimizer = make_optimizer(config, self.model)
        self.evaluator = make_evaluator(config, dataset, "valid", CPU)

    def train(self, steps: int | None = None) -> None:
        """One epoch, or some steps of it."""
        self.model.train()
        self.model.pre_epoch_processing()
        for number, batch in enumerate(self.loader.epoch()):
            if number == steps:
                break
            self.step(batch)
        self.model.post_epoch_processing()

    def step(self, batch: torch.Tensor) -> None:
        """One training step."""
        self.model.pre_step_processing(batch)
        terms = loss_terms(self.model.calculate_loss(batch))
        self.optimizer.zero_grad(set_to_none=not self.model.keeps_zero_gradients)
        torch.stack([term.reshape(()) for term in terms.values()]).sum().backward()
        self.optimizer.step()

    def evaluate(self) -> None:
        """One evaluation of the validation split."""
        with self.model.scoring():
            self.evaluator.evaluate(lambda users: self.model.full_sort_predict((users,)))


def settings(model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """What the benchmark sets besides the model's defaults."""
    own = {"cache_dir": arguments.cache, "device": "cpu"}
    if arguments.large:
        own["synthetic"] = vars(SIZES["elec"]) | (
            {"feature_dims": dict.fromkeys(SIZES["elec"].feature_dims, arguments.features)}
            if arguments.features
            else {}
        )
        fields = getattr(model_class(model).settings, "__dataclass_fields__", {})
        return own | ({"train_features": False} if "train_features" in fields else {})
    return own | {"data_path": arguments.data_path}


def compare(model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians of the model's and LightGCN's epoch and evaluation, taking turns."""
    names = [model, "LightGCN"] if model != "LightGCN" else [model]
    benches = {}
    for name in names:
        config = config_for(name, arguments.dataset, **settings(name, arguments))
        benches[name] = Bench(config, load_dataset(config, model_class(name).needs_features))
    tasks = {f"evaluate {name}": bench.evaluate for name, bench in benches.items()}
    tasks |= {f"train {name}": bench.train for name, bench in benches.items() if bench.model.needs_training}
    seconds = {name: median(values) for name, values in alternate(tasks, arguments.rounds).items()}
    return {
        "model": model,
        "epoch": seconds.get(f"train {model}"),
        "evaluation": seconds[f"evaluate {model}"],
        "ratio": seconds.get(f"train {model}", 0) / seconds["train LightGCN"],
        "evaluation_ratio": seconds[f"evaluate {model}"] / seconds["evaluate LightGCN"],
        "parameters": sum(parameter.numel() for parameter in benches[model].model.parameters()),
    }


def large(model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Build time, five training steps and the peak memory of this process."""
    config = config_for(model, "demo", **settings(model, arguments))
    dataset = load_dataset(config, needs_features=True)
    check_fits(model, model_class(model).memory_needed(config, dataset), CPU)
    bench = Bench(config, dataset)
    start = time.perf_counter()
    bench.train(steps=5)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"model": model, "built": bench.built, "five_steps": seconds, "peak": peak}


def show(row: dict[str, Any]) -> str:
    """A line of the Markdown table."""
    if "peak" in row:
        return f"| {row['model']} | {row['built']:.0f} | {row['five_steps']:.1f} | {row['peak']:.1f} |"
    train = f"{row['epoch']:.2f} | {row['ratio']:.1f}" if row["epoch"] else "- | -"
    return f"| {row['model']} | {row['parameters']:,} | {train} | {row['evaluation']:.2f} | {row['evaluation_ratio']:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path")
    parser.add_argument("-d", "--dataset", default="tiktok")
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--features", type=int, help="of each modality, with --large; without: as Elec has them")
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        (model,) = arguments.models
        print(json.dumps(large(model, arguments) if arguments.large else compare(model, arguments)))
        return
    if not arguments.large and not arguments.data_path:
        parser.error("--data_path names the folder of the data sets")
    models = arguments.models or (LARGE if arguments.large else list(available_models()))
    print(f"{torch.get_num_threads()} threads")
    if arguments.large:
        print("| model | build [s] | five steps [s] | peak memory [GiB] |\n| --- | --- | --- | --- |", flush=True)
    else:
        print("| model | parameters | epoch [s] | of LightGCN's | evaluation [s] | of LightGCN's |")
        print("| --- | --- | --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as cache:
        for model in models:
            words = [sys.executable, __file__, *sys.argv[1:], "--one", "--cache", cache, "--models", model]
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
            print(show(json.loads(done.stdout.splitlines()[-1])), flush=True)


if __name__ == "__main__":
    main()
