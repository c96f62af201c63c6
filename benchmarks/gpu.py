"""Seconds of an epoch and of an evaluation on a GPU.

    python benchmarks/gpu.py [--sizes baby sports elec] [--models GTC ...] [--device cuda] [--steps 60]

Generated data of the sizes of Baby, Sports and Elec, two features of 256 columns, batch 2048, default settings. An epoch
is the time of `--steps` steps (or of all, where there are fewer) after some unmeasured ones, times the batches of an
epoch over them; the loader's shuffling and negatives are within. Evaluation: all nodes encoded, full rankings of the
validation users, all metrics. Memory is the most that PyTorch had allocated on the GPU while training, above the model.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from bench import config_for, synthetic

from common.precision import mixed_precision
from common.trainer import loss_terms, make_optimizer
from runner.quick_start import build_model, make_evaluator
from utils.data.dataloader import TrainLoader
from utils.data.dataset import Dataset
from utils.data.synthetic_spec import SIZES

WARM_UP = 8  # steps


# What is measured: settings over the default.
MODELS: dict[str, dict[str, Any]] = {
    "LightGCN": {},
    "GTC": {},
    "GTC, amp": {"amp": True},
    "GTC, no denoising": {"denoising": "off"},
}


def waited(device: torch.device) -> float:
    """The time when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def steps_of(model: Any, optimizer: Any, loader: TrainLoader, precision: Any) -> Callable[[int], int]:
    """A function that makes up to some steps of a fresh epoch and returns how many it made."""

    def run(count: int) -> int:
        made = 0
        model.train()
        model.pre_epoch_processing()
        for batch in loader.epoch():
            if made == count:
                break
            model.pre_step_processing(batch)
            with precision:
                terms = loss_terms(model.calculate_loss(batch))
                loss = torch.stack([term.reshape(()) for term in terms.values()]).sum()
            optimizer.zero_grad(set_to_none=not model.keeps_zero_gradients)
            loss.backward()
            optimizer.step()
            made += 1
        model.post_epoch_processing()
        return made

    return run


def measure(size: str, arguments: argparse.Namespace) -> None:
    """Prints a line for each model on data of a size."""
    device, cuda = arguments.device, arguments.device.type == "cuda"
    begin = time.perf_counter()
    dataset: Dataset = synthetic(vars(replace(SIZES[size], feature_dims={"a": 256, "b": 256})), features=True)
    print(f"{size}: {dataset.n_users:,} users, {dataset.n_items:,} items, {len(dataset.train.users):,} training "
          f"interactions; made in {time.perf_counter() - begin:.0f} s", flush=True)  # fmt: skip
    for name in arguments.models:
        own = MODELS[name]
        config = config_for(name.partition(",")[0], "demo", **own)
        model = build_model(config, dataset, device)
        size, seed = config["train_batch_size"], config["seed"]
        loader = TrainLoader(dataset, size, seed, device, model.needs_negatives, model.batches_by_user)
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device) if cuda else 0
        run = steps_of(model, make_optimizer(config, model), loader, mixed_precision(device, config["amp"]))
        try:
            run(WARM_UP)
            start = waited(device)
            made = run(arguments.steps)
            epoch = (waited(device) - start) * len(loader) / made
        except torch.cuda.OutOfMemoryError:
            print(f"  {name}: out of the GPU's memory", flush=True)
            continue
        line = f"  {name}: epoch {epoch:.2f} s ({1e3 * epoch / len(loader):.1f} ms a step, {made} of {len(loader)})"
        if cuda:
            line += f", {(torch.cuda.max_memory_allocated(device) - before) / 2**30:.2f} GiB above the model's"
        if not own:
            evaluator = make_evaluator(config, dataset, "valid", device)
            seconds = []
            for _ in range(2):
                start = waited(device)
                with model.scoring():
                    evaluator.evaluate(lambda users, model=model: model.full_sort_predict((users,)))
                seconds.append(waited(device) - start)
            line += f", evaluation {min(seconds):.2f} s"
        print(line, flush=True)
        del run, model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=tuple(SIZES), default=["baby", "sports", "elec"])
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=list(MODELS))
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    name = torch.cuda.get_device_name(arguments.device) if arguments.device.type == "cuda" else "CPU"
    print(f"{name}, PyTorch {torch.__version__}", flush=True)
    for size in arguments.sizes:
        measure(size, arguments)


if __name__ == "__main__":
    main()
