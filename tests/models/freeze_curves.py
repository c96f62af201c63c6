"""Writes frozen_curves.json: the first 20 losses of every model on a toy data set, term by term.

    python tests/models/freeze_curves.py            # all models
    python tests/models/freeze_curves.py GTC BPR    # these only; the others' numbers stay

To be run when a model's numbers are meant to change, and only then; the difference of the file shows what has.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS.parent / "src")]

from toys import build, make_config, total, toy_dataset, train_loader  # noqa: E402 (the path comes first)

from common.trainer import loss_terms, make_optimizer  # noqa: E402
from utils.registry import available_models  # noqa: E402

FILE = Path(__file__).with_name("frozen_curves.json")
STEPS = 20
LEARNING_RATE = 0.005  # large enough for a wrong gradient to show within the steps

Curves = dict[str, dict[str, list[float]]]


def curve(model_name: str) -> dict[str, list[float]]:
    """The terms of the loss at each of the first steps, by name."""
    data = toy_dataset()
    model = build(model_name, data).train()
    optimizer = make_optimizer(make_config(model_name, learning_rate=LEARNING_RATE), model)
    loader = train_loader(data)
    values: dict[str, list[float]] = {}
    for _ in range(STEPS // len(loader) + 1):
        model.pre_epoch_processing()
        for batch in loader.epoch():
            terms = loss_terms(model.calculate_loss(batch))
            optimizer.zero_grad()
            total(terms).backward()
            optimizer.step()
            for name, term in terms.items():
                values.setdefault(name, []).append(term.item())
        model.post_epoch_processing()
    return {name: numbers[:STEPS] for name, numbers in values.items()}


def read() -> Curves:
    """The frozen curves by model."""
    curves: Curves = json.loads(FILE.read_text()) if FILE.is_file() else {}
    return curves


def write(curves: Curves) -> None:
    """Writes the curves, a line per term, so that a difference is easy to read."""
    models = []
    for model, terms in sorted(curves.items()):
        lines = [f"  {json.dumps(name)}: [{', '.join(f'{x:.6g}' for x in numbers)}]" for name, numbers in terms.items()]
        models.append(f"{json.dumps(model)}: {{\n" + ",\n".join(lines) + "\n}")
    FILE.write_text("{\n" + ",\n".join(models) + "\n}\n")


def main() -> None:
    """Freezes the models that the command line names."""
    parser = argparse.ArgumentParser(description="Freeze the loss curves of models on a toy data set.")
    parser.add_argument("model", nargs="*", help="models to freeze anew; none: all")
    models = parser.parse_args().model
    known = list(available_models())
    if unknown := [name for name in models if name not in known]:
        parser.error(f"unknown model {', '.join(unknown)}; there are {', '.join(known)}")
    curves = {name: terms for name, terms in read().items() if name in known}
    write(curves | {name: curve(name) for name in models or known})


if __name__ == "__main__":
    main()
