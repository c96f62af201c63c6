"""What GTC's denoisers have learned, from a run folder; validation only.

    python benchmarks/gtc_denoiser.py RUN [--data_path DIR]

The first table: mean squared error of each trained denoiser over all nodes, at noise levels drawn as in training, beside
that of leaving the noise in and that of predicting the mean row. The second: validation metrics with the generated content;
with that of users exchanged among users; generated with the conditions of users exchanged; and with the content as it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench import keep_freed_memory
from torch import Tensor

from common.diffusion import root_mean_square, unit_rows
from runner.quick_start import make_evaluator
from runner.stored_run import StoredRun

Views = dict[str, Tensor]


def errors(denoiser: Any, rows: Tensor, condition: Tensor) -> tuple[float, float, float]:
    """Mean squared errors [of x_0, or of the noise]: of the denoiser, of leaving the noise in, of predicting the mean."""
    schedule, start = denoiser.schedule, rows / root_mean_square(rows)
    t = torch.randint(1, schedule.n_steps + 1, (len(start),))
    noise = torch.randn_like(start)
    x_t = schedule.add_noise(start, t, noise)
    found, predicted = denoiser._predict(x_t, t, unit_rows(condition))
    if denoiser.predicts_start:
        pairs = (found, start), (x_t, start), (start.mean(dim=0), start)
    else:
        pairs = (
            (predicted, noise),
            (torch.zeros_like(noise), noise),
            (schedule.estimate_noise(x_t, t, start.mean(0)), noise),
        )
    learned, left, mean = (float((a - b).square().mean()) for a, b in pairs)
    return learned, left, mean


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data_path")
    arguments = parser.parse_args()
    keep_freed_memory()
    stored = StoredRun.open(arguments.run, arguments.data_path)
    model: Any = stored.model.eval()
    if model.options.denoising != "nodes":
        parser.error(f"{arguments.run} has denoising {model.options.denoising}; expected nodes")
    content = {m: model.projections[m](model.features(m)) for m in model.modalities}
    interaction, views = model._encode(model.graph, content)
    torch.manual_seed(0)
    print("| modality | denoiser | noise left in | mean row |\n| --- | --- | --- | --- |")
    for modality, rows in views.items():
        print(
            f"| {modality} | "
            + " | ".join(f"{x:.4f}" for x in errors(model.denoisers[modality], rows, interaction))
            + " |"
        )

    def exchanged(x: Tensor) -> Tensor:
        """The users' rows in another order, the items' as they are."""
        return torch.cat([x[: model.n_users][torch.randperm(model.n_users)], x[model.n_users :]])

    def generate(condition: Tensor) -> Views:
        found: Views = model.denoise(views, condition, None)[0]
        return found

    ways: dict[str, Callable[[], Views]] = {
        "generated": lambda: generate(interaction),
        "generated, exchanged among users": lambda: {m: exchanged(x) for m, x in generate(interaction).items()},
        "conditions exchanged among users": lambda: generate(exchanged(interaction)),
        "not denoised": lambda: views,
    }
    evaluator = make_evaluator(stored.config, stored.dataset, "valid", torch.device("cpu"))
    print("\n| content of users | recall@20 | ndcg@20 |\n| --- | --- | --- |")
    for name, way in ways.items():
        users, items = model.fuse(interaction, way()).split([model.n_users, model.n_items])
        values = evaluator.evaluate(lambda batch, users=users, items=items: users[batch] @ items.T).means()
        print(f"| {name} | {values['recall@20']:.4f} | {values['ndcg@20']:.4f} |", flush=True)


if __name__ == "__main__":
    main()
