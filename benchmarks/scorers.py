"""What the scorers cost at evaluation, and what their calibration costs after training.

    python benchmarks/scorers.py [--sizes demo baby] [--model LightGCN] [--rounds 9] [--calibration]

Generated data. Evaluations of all users of the test split without and with `popularity` and `co_occurrence` take turns:
their medians, and the ratio. With --calibration also the seconds of one calibration from weights of 0, and how many
evaluations of how many users that is. The model is untrained: the cost does not depend on its weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path
from time import perf_counter

import torch
from bench import alternate, config_for, median, synthetic

from common.scorers import Scorers, ScorerWeights
from common.trainer import Trainer
from runner.quick_start import CALIBRATION_USERS, build_model, make_evaluator
from utils.data.dataloader import TrainLoader
from utils.data.synthetic_spec import SIZES
from utils.runs.run_folder import RunFolder

CPU = torch.device("cpu")
BOTH = ScorerWeights(popularity=0.5, co_occurrence=1.0)


def measure(size: str, name: str, rounds: int, calibration: bool) -> None:
    """Prints the medians and their ratio, and with `calibration` its seconds."""
    dataset = synthetic(vars(dataclasses.replace(SIZES[size], feature_dims={"a": 8, "b": 8})), features=True)
    config = config_for(name, "demo")
    model = build_model(config, dataset, CPU)
    loader = TrainLoader(dataset, 2048, 1, CPU, model.needs_negatives)
    scorers = Scorers(dataset, CPU, BOTH)
    begin = perf_counter()
    scorers.popularity(0.0)
    scorers.co_occurrence(0.0)
    counting = perf_counter() - begin
    test = make_evaluator(config, dataset, "test", CPU)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, model, loader, test, RunFolder(Path(folder)), lambda *_: None, scorers=scorers)

        def evaluate(weights: ScorerWeights) -> None:
            scorers.weights = weights
            trainer.evaluate(test)

        times = alternate({"plain": lambda: evaluate(ScorerWeights()), "both": lambda: evaluate(BOTH)}, rounds)
        plain, both = median(times["plain"]), median(times["both"])
        shape = f"{len(test.users):,} users x {dataset.n_items:,} items"
        print(f"{size}: counting {counting:.2f} s once; an evaluation of {shape} {plain:.3f} s, "
              f"with both scorers {both:.3f} s: {both / plain:.2f} times", flush=True)  # fmt: skip
        if calibration:
            some = make_evaluator(config, dataset, "valid", CPU, CALIBRATION_USERS)
            scorers.weights, calls, evaluate_once = ScorerWeights(), [0], some.evaluate

            def counted(scorer):  # type: ignore[no-untyped-def]
                calls[0] += 1
                return evaluate_once(scorer)

            vars(some)["evaluate"] = counted
            begin = perf_counter()
            trainer.calibrate(1, some)
            print(f"  calibration {perf_counter() - begin:.1f} s: {calls[0]} evaluations of {len(some.users):,} users")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=tuple(SIZES), default=["demo", "baby"])
    parser.add_argument("--model", default="LightGCN")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calibration", action="store_true")
    arguments = parser.parse_args()
    print(f"{torch.get_num_threads()} threads")
    for size in arguments.sizes:
        measure(size, arguments.model, arguments.rounds, arguments.calibration)


if __name__ == "__main__":
    main()
