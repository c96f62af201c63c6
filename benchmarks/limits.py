"""How far a training step of each model is from what its products, exponentials and optimiser cost at least here.

    python benchmarks/limits.py --data_path DIR [-d tiktok] [--models GTC FREEDOM ...] [--threads N] [--rounds 5]

Counts the work of one step, forward, backward and optimiser: bytes that sparse products and look-ups of rows move,
operations of dense products, elements of exponentials and their like, bytes of the optimiser's pass. Each count is
divided by a rate that is measured in turns with the step: of a product with the training graph, of a dense product, of
exp over a tensor that stays in the cache, of fused Adam over a table of the model's size. Elementwise passes, Fourier
transforms, random numbers and sorting are not counted, nor is what a model does once an epoch. With `--threads 1` times
are processor time, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from baselines import Bench
from bench import config_for, median
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from common.graph import normalized_interaction_graph
from runner.registry import available_models, model_class
from utils.data.dataset import Dataset
from utils.data.loading import load_dataset
from utils.errors import UserError

PARTS = ("sparse", "dense", "exp", "optimiser")
WIDTH = 64  # columns of the measured product with the graph
SIDE = 1024  # of the measured dense product
ELEMENTS = 2**16  # of the measured exponential
LONGEST = 4  # seconds of measured steps of a model after which no further round begins
ROW_READS = ("embedding", "index_select")
# Each element costs a transcendental function; the backward passes that are not named need none.
NAMES = """
exp exp2 expm1 log log2 log10 log1p logaddexp logsumexp sigmoid log_sigmoid_forward tanh softplus softplus_backward
gelu gelu_backward elu silu silu_backward erf sin cos _softmax _log_softmax _log_softmax_backward_data
"""
TRANSCENDENTAL = frozenset(NAMES.split())


class Counts(TorchDispatchMode):
    """Within it `totals` grows by the work of every operation, those of backward passes and autograd functions included."""

    def __init__(self) -> None:
        super().__init__()
        self.totals: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        name = packet.__name__.removesuffix("_")
        if name in ("_embedding_bag", "_embedding_bag_forward_only"):  # a row of the table for each entry
            moved = args[1].numel() * size(args[0][:1]) + sum(map(size, tensors(args[1:]))) + size(result[0])
            self.totals["sparse"] += moved
        elif name in ROW_READS and args[0].dim() > 1:
            self.totals["sparse"] += size(result) + sum(map(size, tensors(args[1:])))
        elif name == "embedding_dense_backward":
            self.totals["sparse"] += size(args[0]) + size(args[1]) + size(result)
        elif name.startswith("_fused_"):  # parameters, gradients, moments: all are read, all but gradients written
            lists = [sum(map(size, tensors(part))) for part in args[:4] if isinstance(part, list | tuple)]
            self.totals["optimiser"] += 2 * sum(lists) - lists[1]
        elif name in ("mv", "dot"):
            self.totals["dense"] += 2 * args[0].numel()
        elif packet in flop_registry:
            self.totals["dense"] += flop_registry[packet](*args, **(kwargs or {}), out_val=result)
        elif name in TRANSCENDENTAL:
            self.totals["exp"] += args[0].numel()
        return result


def tensors(nested: Any) -> Iterator[Tensor]:
    """Every tensor in nested lists."""
    if isinstance(nested, Tensor):
        yield nested
    elif isinstance(nested, list | tuple):
        for part in nested:
            yield from tensors(part)


def size(tensor: Tensor) -> int:
    """Bytes of a dense tensor."""
    return tensor.numel() * tensor.element_size()


def counted(task: Callable[[], Any]) -> Counter[str]:
    """The work of a task by part."""
    with Counts() as counts:
        task()
    return counts.totals


def yardsticks(dataset: Dataset, n_parameters: int) -> dict[str, Callable[[], Any]]:
    """One task of each kind, whose work over its time is the rate of the kind."""
    graph = normalized_interaction_graph(dataset)
    table = torch.randn(dataset.n_users + dataset.n_items, WIDTH)
    square, product = torch.randn(SIDE, SIDE), torch.empty(SIDE, SIDE)
    row, out = torch.randn(ELEMENTS), torch.empty(ELEMENTS)
    weights = torch.nn.Parameter(torch.randn(n_parameters))
    weights.grad = torch.randn(n_parameters)
    optimizer = torch.optim.Adam([weights], fused=True)
    return {
        "sparse": lambda: graph.product(table),
        "dense": lambda: torch.mm(square, square, out=product),
        "exp": lambda: torch.exp(row, out=out),
        "optimiser": optimizer.step,
    }


def measure(name: str, arguments: argparse.Namespace) -> tuple[float, dict[str, float]]:
    """Seconds of a model's step and of the least that each of its parts takes; medians."""
    config = config_for(name, arguments.dataset, data_path=arguments.data_path, device="cpu")
    dataset = load_dataset(config, model_class(name).needs_features)
    bench = Bench(config, dataset)
    bench.model.train()
    bench.model.pre_epoch_processing()
    batches = itertools.cycle(itertools.islice(bench.loader.epoch(), arguments.rounds + 2))
    tasks = yardsticks(dataset, sum(parameter.numel() for parameter in bench.model.parameters()))
    tasks = {"step": lambda: bench.step(next(batches))} | tasks
    seconds: dict[str, list[float]] = defaultdict(list)
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for task in tasks.values():  # first calls set up what later ones find
        task()
    while len(seconds["step"]) < arguments.rounds and sum(seconds["step"]) < LONGEST:
        for part, task in tasks.items():
            start = clock()
            task()
            seconds[part].append(clock() - start)
    work = counted(tasks["step"])
    unit = {part: median(seconds[part]) / counted(tasks[part])[part] for part in PARTS}
    return median(seconds["step"]), {part: work[part] * unit[part] for part in PARTS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", required=True, help="the folder of the data sets")
    parser.add_argument("-d", "--dataset", default="tiktok")
    parser.add_argument("--models", nargs="+", default=list(available_models()))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if min(arguments.threads, arguments.rounds) < 1:
        parser.error("--threads and --rounds are at least 1")
    torch.set_num_threads(arguments.threads)
    print(f"{arguments.threads} threads, {arguments.dataset}; milliseconds\n")
    print(f"| model | step | {' | '.join(PARTS)} | step over the sum of its limits |\n|{' --- |' * (len(PARTS) + 3)}")
    try:
        for name in arguments.models:
            if model_class(name).needs_training:
                step, least = measure(name, arguments)
                cells = [f"{1000 * seconds:.1f}" for seconds in (step, *least.values())]
                print(f"| {name} | {' | '.join(cells)} | {step / sum(least.values()):.1f} |", flush=True)
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
