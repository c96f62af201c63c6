"""The cost of one GTC training step in LightGCN steps, and how its memory grows with the number of items.

    python benchmarks/gtc_step.py [--rounds 30] [--memory | --faster] [--device cuda]

Generated data of Baby's size, batch 2048, 4096 visual and 384 textual features, 600 noise steps. Steps of both models
take turns. With --faster: GTC alone, with `amp` and `compile`. With --memory: peak memory of GTC steps with once, twice
and four times the items, each in its own process.
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

from common.compiling import compile_dense_methods
from common.precision import mixed_precision
from common.trainer import make_optimizer
from utils.dataloader import TrainLoader
from utils.dataset import Dataset
from utils.quick_start import build_model
from utils.synthetic import SIZES

CPU = torch.device("cpu")
DENOISED = {"denoising": "after", "generated_in": "gates"}


def stepper(name: str, dataset: Dataset, device: torch.device = CPU, **overrides: object) -> Callable[[Tensor], None]:
    """A function that makes one training step of a model on a batch, and waits for its end."""
    config = config_for(name, "demo", **overrides)
    model = build_model(config, dataset, device)
    if config["compile"]:
        compile_dense_methods(model, device)
    precision = mixed_precision(device, config["amp"])
    optimizer = make_optimizer(config, model)

    def step(batch: Tensor) -> None:
        with precision:
            loss = sum(model.calculate_loss(batch).values())  # type: ignore[union-attr]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step


def compare(rounds: int, device: torch.device, faster: bool) -> None:
    """Prints step times in turns and their ratio to the first: of LightGCN and GTC, or of the ways to train GTC faster."""
    dataset = synthetic(vars(SIZES["baby"]), features=True)
    batches = list(TrainLoader(dataset, 2048, 1, device).epoch())
    if faster:
        settings: dict[str, dict[str, object]] = {"default": {}, "denoised": DENOISED}
        ways = [{"amp": amp, "compile": compiled} for compiled in (False, True) for amp in (False, True)]
        steps = {
            f"GTC, {name}, {way}": stepper("GTC", dataset, device, noise_steps=600, **own, **way)
            for name, own in settings.items()
            for way in ways
        }
    else:
        steps = {
            "LightGCN": stepper("LightGCN", dataset, device),
            "GTC": stepper("GTC", dataset, device, noise_steps=600),
            "GTC, feature_rank 0": stepper("GTC", dataset, device, noise_steps=600, feature_rank=0),
        }
    turn = iter(range(10**9))
    tasks = {name: (lambda step=step: step(batches[next(turn) % (len(batches) - 1)])) for name, step in steps.items()}
    seconds = {name: median(values) for name, values in alternate(tasks, rounds).items()}
    first = next(iter(seconds))
    for name, value in seconds.items():
        print(f"{name}: {1e3 * value:.1f} ms a step, {value / seconds[first]:.2f} of {first}")


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
    parser.add_argument("--faster", action="store_true")
    parser.add_argument("--device", type=torch.device, default=CPU)
    parser.add_argument("--factor", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.factor:
        memory(arguments.factor)
    elif arguments.memory:
        for factor in (1, 2, 4):
            subprocess.run([sys.executable, __file__, "--factor", str(factor)], check=True)
    else:
        print(f"{torch.get_num_threads()} threads")
        compare(arguments.rounds, arguments.device, arguments.faster)


if __name__ == "__main__":
    main()
