"""The cost of one GTC training step in LightGCN steps, and how its memory grows with the number of items.

    python benchmarks/gtc_step.py [--rounds 30] [--memory]

Generated data of Baby's size, batch 2048, 4096 visual and 384 textual features, 600 noise steps. Steps of both models
take turns. With --memory: peak memory of GTC steps with once, twice and four times the items, each in its own process.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import subprocess
import sys
from collections.abc import Callable

import torch
from bench import alternate, config_for, median, synthetic
from torch import Tensor

from common.trainer import make_optimizer
from utils.dataloader import TrainLoader
from utils.dataset import Dataset
from utils.quick_start import build_model
from utils.synthetic import SIZES

CPU = torch.device("cpu")


def stepper(name: str, dataset: Dataset, **overrides: object) -> Callable[[Tensor], None]:
    """A function that makes one training step of a model on a batch."""
    config = config_for(name, "demo", **overrides)
    model = build_model(config, dataset, CPU)
    optimizer = make_optimizer(config, model)

    def step(batch: Tensor) -> None:
        loss = sum(model.calculate_loss(batch).values())  # type: ignore[union-attr]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()

    return step


def compare(rounds: int) -> None:
    """Prints the step times and their ratio, for the default and for GTC on unreduced features."""
    dataset = synthetic(vars(SIZES["baby"]), features=True)
    batches = list(TrainLoader(dataset, 2048, 1, CPU).epoch())
    steps = {
        "LightGCN": stepper("LightGCN", dataset),
        "GTC": stepper("GTC", dataset, noise_steps=600),
        "GTC, feature_rank 0": stepper("GTC", dataset, noise_steps=600, feature_rank=0),
    }
    turn = iter(range(10**9))
    tasks = {name: (lambda step=step: step(batches[next(turn) % (len(batches) - 1)])) for name, step in steps.items()}
    seconds = {name: median(values) for name, values in alternate(tasks, rounds).items()}
    for name, value in seconds.items():
        print(f"{name}: {1e3 * value:.1f} ms a step, {value / seconds['LightGCN']:.1f} LightGCN steps")


def memory(factor: int) -> None:
    """Prints the peak memory that five GTC steps add, with `factor` times Baby's items."""
    spec = dataclasses.replace(SIZES["baby"], n_items=SIZES["baby"].n_items * factor, feature_dims={"a": 64, "b": 64})
    dataset = synthetic(vars(spec), features=True)
    batches = list(TrainLoader(dataset, 2048, 1, CPU).epoch())[:5]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = stepper("GTC", dataset, noise_steps=600)
    for batch in batches:
        step(batch)
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{spec.n_items:,} items: five GTC steps add {added:.0f} MiB; an item x item matrix: "
          f"{spec.n_items**2 * 4 / 2**20:.0f} MiB", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--factor", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.factor:
        memory(arguments.factor)
    elif arguments.memory:
        for factor in (1, 2, 4):
            subprocess.run([sys.executable, __file__, "--factor", str(factor)], check=True)
    else:
        print(f"{torch.get_num_threads()} threads")
        compare(arguments.rounds)


if __name__ == "__main__":
    main()
