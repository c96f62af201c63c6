"""Seconds and peak memory of the user-user co-occurrence graph of DRAGON and DualGNN, in a process of its own.

    python benchmarks/user_graph.py [--data_path DIR --dataset NAME | --size sports]

On generated data of Sports' size (35,598 users, 296,337 interactions) unless a data set is named. Prints the seconds of the
graph (neighbour lists and first draw) and of an epoch's fresh draw, and the most memory that the process has held, with
Python, PyTorch and the interactions in it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import torch
from bench import config_for, synthetic

from common.user_graph import UserGraph
from utils.data.loading import load_dataset
from utils.data.synthetic_spec import SIZES
from utils.runs.run_folder import peak_memory_bytes

K = 40


def measure(arguments: argparse.Namespace) -> None:
    """Builds the graph once, without the cache, and prints what it took."""
    if arguments.data_path:
        config = config_for("LightGCN", arguments.dataset, data_path=arguments.data_path)
        dataset = load_dataset(config, needs_features=False)
    else:
        dataset = synthetic(vars(SIZES[arguments.size]), features=False)
    dataset.cache = None
    print(f"{dataset.n_users:,} users, {len(dataset.train):,} training interactions, {torch.get_num_threads()} threads")
    before = peak_memory_bytes(torch.device("cpu"))["resident"]
    graph: list[UserGraph] = []
    tasks = {
        "user graph, from interactions to the first draw": lambda: graph.append(UserGraph(dataset, K)),
        "an epoch's fresh draw": lambda: graph[0].draw(),
    }
    for name, task in tasks.items():
        wall, processor = time.perf_counter(), time.process_time()
        task()
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        print(f"{name}: {wall:.2f} s ({processor:.2f} s of processor time)")
    print(f"{int((graph[0].counts > 0).sum()):,} listed pairs")
    peak = peak_memory_bytes(torch.device("cpu"))["resident"]
    print(f"peak memory of the process: {peak / 2**30:.2f} GiB ({before / 2**30:.2f} GiB before)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path")
    parser.add_argument("--dataset", default="sports")
    parser.add_argument("--size", default="sports", choices=SIZES)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        measure(arguments)
    else:
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--here"], check=True)


if __name__ == "__main__":
    main()
