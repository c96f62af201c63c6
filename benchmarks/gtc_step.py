"""The cost of one GTC training step in LightGCN steps, where it goes, and how its memory grows with the number of items.

    python benchmarks/gtc_step.py [--rounds 30] [--device cuda] [--memory | --faster | --profile | --start SIZE ...]

Generated data of Baby's size, batch 2048, 4096 visual and 384 textual features. Steps of both models
take turns. With --faster: GTC alone, with `amp` and `compile`. With --memory: peak memory of GTC steps with once, twice
and four times the items, each in its own process. With --profile: the share of each kind of operation in GTC's step,
and the bytes per second of its sparse products beside those of a sum of two long vectors, taking turns. With --start:
the seconds of what GTC computes of a data set before its first step, once for all runs, where there is no cache.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import subprocess
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from bench import alternate, config_for, median, synthetic
from torch import Tensor

from common.compiling import compile_dense_methods
from common.precision import mixed_precision
from common.trainer import make_optimizer
from runner.quick_start import build_model
from utils.data.dataloader import TrainLoader
from utils.data.dataset import Dataset
from utils.data.synthetic_spec import SIZES

CPU = torch.device("cpu")
PAPER = {"content": "projected", "prediction": "noise", "noise_steps": 600, "denoiser_widths": [128, 256], "knn_k": 0}


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
        settings: dict[str, dict[str, object]] = {"default": {}, "text": PAPER}
        ways = [{"amp": amp, "compile": compiled} for compiled in (False, True) for amp in (False, True)]
        steps = {
            f"GTC, {name}, {way}": stepper("GTC", dataset, device, **own, **way)
            for name, own in settings.items()
            for way in ways
        }
    else:
        steps = {
            "LightGCN": stepper("LightGCN", dataset, device),
            "GTC": stepper("GTC", dataset, device),
            "GTC, no denoising": stepper("GTC", dataset, device, denoising="off"),
            "GTC, no alignment": stepper("GTC", dataset, device, alignment="off"),
            "GTC, the text's network": stepper("GTC", dataset, device, **PAPER),
        }
    turn = iter(range(10**9))
    tasks = {name: (lambda step=step: step(batches[next(turn) % (len(batches) - 1)])) for name, step in steps.items()}
    seconds = {name: median(values) for name, values in alternate(tasks, rounds).items()}
    first = next(iter(seconds))
    for name, value in seconds.items():
        print(f"{name}: {1e3 * value:.1f} ms a step, {value / seconds[first]:.2f} of {first}")


KINDS = {
    "sparse products": ("_embedding_bag", "_sparse", "sparse_"),
    "dense products": ("::mm", "::addmm", "::bmm"),
    "optimiser": ("_foreach", "_fused_adam", "Optimizer"),
    "rows read and summed by index": ("index", "embedding", "gather", "scatter", "_unique"),
}


def kinds_of_operations(step: Callable[[Tensor], None], batches: list[Tensor]) -> dict[str, float]:
    """Share of each kind of operation in the time of steps, all others under `element-wise and other`."""
    for batch in batches[:3]:
        step(batch)
    with torch.profiler.profile() as profiler:
        for batch in batches[3:]:
            step(batch)
    times = dict.fromkeys([*KINDS, "element-wise and other"], 0.0)
    for event in profiler.key_averages():
        kind = next((kind for kind, words in KINDS.items() if any(word in event.key for word in words)), None)
        times[kind or "element-wise and other"] += event.self_cpu_time_total
    return {kind: time / sum(times.values()) for kind, time in times.items()}


def bandwidth(dataset: Dataset, rounds: int) -> None:
    """Prints bytes per second of GTC's sparse products and of a sum of two long vectors.

    read once: each row of the dense matrix is counted once, what must be read at least; read for each entry: once for
    each entry of the sparse matrix in its column, what is read without a cache.
    """
    model: Any = build_model(config_for("GTC", "demo"), dataset, CPU)
    width, n_views = model.embedding_size, len(model.modalities)
    graph, item_graph = model.graph, next(iter(model.item_graphs.values()))
    nodes, items = torch.randn(model.n_users + model.n_items, width), torch.randn(model.n_items, width)
    views = torch.randn(model.n_items, n_views * width)
    n_interactions = int(graph.offsets[model.n_users])
    long = [torch.randn(2**26) for _ in range(3)]
    products: dict[str, tuple[Callable[[], Any], int, Tensor, int]] = {
        f"user-item graph, {width} columns": (lambda: graph.product(nodes), len(graph.columns), nodes, len(nodes)),
        f"items to users, {n_views} views at once": (
            lambda: graph.half_product(views, True), n_interactions, views, model.n_users,
        ),
        f"item graph, {width} columns": (lambda: item_graph(items), len(item_graph.columns), items, len(items)),
    }  # fmt: skip
    tasks: dict[str, Callable[[], Any]] = {"sum": lambda: torch.add(long[0], long[1], out=long[2])}
    with torch.no_grad():
        seconds = alternate(tasks | {name: run for name, (run, *_) in products.items()}, rounds)
    peak = 3 * 4 * len(long[0]) / median(seconds["sum"])
    print(f"sum of two vectors of 256 MiB: {peak / 1e9:.1f} GB/s")
    for name, (_, entries, x, rows) in products.items():
        time, row = median(seconds[name]), 4 * x.shape[1]
        matrix = entries * 12 + rows * 8  # int64 column and float32 weight of an entry, int64 offset of a row
        least, most = matrix + row * (len(x) + rows), matrix + row * (entries + rows)
        print(f"{name}: {1e3 * time:.2f} ms; read once {least / time / 1e9:.1f} GB/s, {least / time / peak:.2f} of the sum; "
              f"read for each entry {most / time / 1e9:.1f} GB/s, {most / time / peak:.2f} of the sum")  # fmt: skip


def profile(rounds: int) -> None:
    """Prints where the time of a GTC step goes, and the bandwidth of its sparse products."""
    for size in ("baby", "elec"):
        spec = dataclasses.replace(SIZES[size], feature_dims={"visual": 256, "textual": 256})
        dataset = synthetic(vars(spec), features=True)
        print(f"data of the size of {size}")
        if size == "baby":
            batches = list(TrainLoader(dataset, 2048, 1, CPU).epoch())[: rounds + 3]
            for kind, share in kinds_of_operations(stepper("GTC", dataset), batches).items():
                print(f"{kind}: {100 * share:.0f}% of a step")
        bandwidth(dataset, rounds)


def start(size: str) -> None:
    """Prints the seconds of each piece that GTC derives from generated data of a size."""
    dataset = synthetic(vars(SIZES[size]), features=True)
    dataset.cache = None
    taken: dict[str, float] = {}
    derived = dataset.derived

    def timed(name: str, *rest: Any) -> Any:
        begin, inner = perf_counter(), sum(taken.values())
        found = derived(name, *rest)
        # What a piece derives on its way is counted under its own name.
        taken[name] = taken.get(name, 0) + perf_counter() - begin - (sum(taken.values()) - inner)
        return found

    vars(dataset)["derived"] = timed
    begin = perf_counter()
    build_model(config_for("GTC", "demo"), dataset, CPU)
    print(f"{size}: {perf_counter() - begin:.1f} s until the first step, "
          f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")  # fmt: skip
    for name, seconds in taken.items():
        print(f"  {name}: {seconds:.1f} s", flush=True)


def memory(factor: int) -> None:
    """Prints the peak memory that five GTC steps add, with `factor` times Baby's items."""
    spec = dataclasses.replace(SIZES["baby"], n_items=SIZES["baby"].n_items * factor, feature_dims={"a": 64, "b": 64})
    dataset = synthetic(vars(spec), features=True)
    batches = list(TrainLoader(dataset, 2048, 1, CPU).epoch())[:5]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = stepper("GTC", dataset)
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
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--start", nargs="+", choices=tuple(SIZES), default=[])
    parser.add_argument("--device", type=torch.device, default=CPU)
    parser.add_argument("--factor", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.factor:
        memory(arguments.factor)
    elif arguments.memory:
        for factor in (1, 2, 4):
            subprocess.run([sys.executable, __file__, "--factor", str(factor)], check=True)
    elif arguments.start:
        print(f"{torch.get_num_threads()} threads")
        for size in arguments.start:
            start(size)
    elif arguments.profile:
        print(f"{torch.get_num_threads()} threads")
        profile(arguments.rounds)
    else:
        print(f"{torch.get_num_threads()} threads")
        compare(arguments.rounds, arguments.device, arguments.faster)


if __name__ == "__main__":
    main()
