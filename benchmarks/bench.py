"""What the benchmark scripts share: the source path, synthetic data sets in memory, alternating timings."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from runner.registry import model_class
from utils.config.configuration import Config
from utils.config.request import Request, resolve
from utils.data.dataset import Dataset
from utils.data.loading import load_dataset
from utils.memory import keep_freed_memory

keep_freed_memory()  # as a run does


def config_for(model: str, dataset: str, **overrides: Any) -> Config:
    """The settings of one run, as the command line would resolve them."""
    words = {key: [value] for key, value in overrides.items()}
    configs, _ = resolve(Request([model], [dataset], words), {model: model_class(model).settings})
    return configs[0]


def synthetic(size: Mapping[str, Any], features: bool) -> Dataset:
    """A generated data set with the sizes of a `SyntheticSpec`."""
    return load_dataset(config_for("LightGCN", "demo", synthetic=dict(size)), needs_features=features)


def alternate(
    tasks: Mapping[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each task, the tasks taking turns so that all see the same state of the machine; one round unmeasured."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for name, task in tasks.items():
            start = clock()
            task()
            if number:
                seconds[name].append(clock() - start)
    return seconds


def median(values: list[float]) -> float:
    """The median, in seconds."""
    return statistics.median(values)
