"""Writes frozen_curves.json: the first 20 losses of every model on a toy data set, term by term.

    python tests/models/freeze_curves.py            # all models
    python tests/models/freeze_curves.py GTC BPR    # these only; the others' numbers stay

To be run when a model's mathematics or keys are meant to change, and only then; the difference of the file shows what
has. The settings are frozen too: another default in a YAML file changes nothing here.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS.parent / "src")]

from toys import build, make_config, total, toy_dataset, train_loader  # noqa: E402 (the path comes first)

from common.trainer import loss_terms, make_optimizer  # noqa: E402
from runner.registry import available_models, model_class  # noqa: E402
from utils.config.schema import keys_of  # noqa: E402

FILE = Path(__file__).with_name("frozen_curves.json")
STEPS = 20
LEARNING_RATE = 0.005  # large enough for a wrong gradient to show within the steps

Curve = dict[str, list[float]]


def trained_models() -> list[str]:
    """Models that have a loss."""
    return [name for name in available_models() if model_class(name).needs_training]


def own_settings(model_name: str) -> dict[str, Any]:
    """The model's own keys as its YAML file and the toy sizes have them now."""
    config = make_config(model_name)
    return {name: config[name] for name in keys_of(model_class(model_name).settings)}


def curve(model_name: str, settings: Mapping[str, Any]) -> Curve:
    """The terms of the loss at each of the first steps, by name."""
    data = toy_dataset()
    model = build(model_name, data, **settings).train()
    optimizer = make_optimizer(make_config(model_name, learning_rate=LEARNING_RATE), model)
    loader = train_loader(data, negatives=model.needs_negatives, by_user=model.batches_by_user)
    values: Curve = {}
    for _ in range(STEPS // len(loader) + 1):
        model.pre_epoch_processing()
        for batch in loader.epoch():
            model.pre_step_processing(batch)
            terms = loss_terms(model.calculate_loss(batch))
            optimizer.zero_grad(set_to_none=not model.keeps_zero_gradients)
            total(terms).backward()
            optimizer.step()
            for name, term in terms.items():
                values.setdefault(name, []).append(term.item())
        model.post_epoch_processing()
    return {name: numbers[:STEPS] for name, numbers in values.items()}


def freeze(model_name: str) -> dict[str, Any]:
    """What the file holds of a model: the settings, kept so that a better default is no change of the model, and terms."""
    settings = own_settings(model_name)
    terms = curve(model_name, settings)
    return {"settings": settings, "terms": {name: [float(f"{x:.6g}") for x in terms[name]] for name in terms}}


def read() -> dict[str, dict[str, Any]]:
    """What is frozen, by model."""
    frozen: dict[str, dict[str, Any]] = json.loads(FILE.read_text()) if FILE.is_file() else {}
    return frozen


def write(frozen: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes a line for the settings and one for each term, so that a difference is easy to read."""
    models = []
    for model, parts in sorted(frozen.items()):
        lines = [f'  "settings": {json.dumps(parts["settings"])}', '  "terms": {']
        terms = [f"    {json.dumps(name)}: {json.dumps(numbers)}" for name, numbers in parts["terms"].items()]
        models.append(f"{json.dumps(model)}: {{\n{lines[0]},\n{lines[1]}\n" + ",\n".join(terms) + "\n  }\n}")
    FILE.write_text("{\n" + ",\n".join(models) + "\n}\n")


def main() -> None:
    """Freezes the models that the command line names."""
    parser = argparse.ArgumentParser(description="Freeze the loss curves of models on a toy data set.")
    parser.add_argument("model", nargs="*", help="models to freeze again; none: all")
    models = parser.parse_args().model
    known = trained_models()
    if unknown := [name for name in models if name not in known]:
        parser.error(f"unknown model {', '.join(unknown)}; there are {', '.join(known)}")
    kept = {name: parts for name, parts in read().items() if name in known}
    write(kept | {name: freeze(name) for name in models or known})


if __name__ == "__main__":
    main()
