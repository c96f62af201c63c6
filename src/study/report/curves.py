"""Figures of training: validation by epoch and by setting, balance and dot products of the modalities."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from study.report.figure import EPOCH, OVER, Figure, figure, metric_name, with_best
from study.results import TrialResult
from study.select import Chosen, Tried, mean_and_spread, plain
from study.spec import Study
from utils.charts import Axis, Series, line_chart


def convergence(study: Study, dataset: str, chosen: list[Chosen]) -> list[Figure]:
    lines, metric = [], ""
    for number, one, best in with_best(chosen):
        metric = best.trials[0].metrics["valid_metric"]
        line = _curve(one.label, number, best.trials, f"valid_{metric}")
        lines += [line] if line else []
    if not lines:
        return []
    last = max(line.x[-1] for line in lines)
    lines = [_level(line, last) if len(line.x) == 1 else line for line in lines]
    y = Axis(f"validation {metric_name(metric)} (share, 0 to 1)")
    caption = f"Validation by epoch on {dataset}, each entry as selected; {OVER}, as far as all seeds went."
    title = f"Convergence on {dataset}"
    return [figure("convergence", [dataset], caption, line_chart(title, Axis(EPOCH), y, lines))]


def _level(line: Series, last: float) -> Series:
    """A model that is evaluated once, as a level line."""
    return replace(line, x=[line.x[0], last], y=[line.y[0]] * 2, spread=[*line.spread] * 2)


def hyper_parameters(study: Study, dataset: str, chosen: list[Chosen]) -> list[Figure]:
    figures = []
    for number, one, best in with_best(chosen):
        complete = [point for point in one.tried if point.complete]
        metric = best.trials[0].metrics["valid_metric"]
        for key in best.point:
            around = [point for point in complete if _others(point, key) == _others(best, key)]
            joined = len(around) > 1
            shown = around if joined else complete
            values = _sorted([point.point[key] for point in shown])
            if len(values) < 2:
                continue
            axis, place = _axis_of(key, values)
            shown = sorted(shown, key=lambda point, key=key, place=place: place(point.point[key]))  # type: ignore[misc]
            means = [mean_and_spread(point.searched()) for point in shown]
            line = Series(
                one.label,
                [mean for mean, _ in means],
                [place(point.point[key]) for point in shown],
                [spread or 0.0 for _, spread in means],
                joined,
                number,
            )
            held = "the other keys as selected" if joined else "all points tried, the other keys differ between them"
            caption = f"Validation of {one.label} on {dataset} against {key}; {held}; {OVER}."
            title = f"{one.label} on {dataset}: {key}"
            y = Axis(f"validation {metric_name(metric)} (share, 0 to 1)")
            chart = line_chart(title, axis, y, [line])
            figures.append(figure("hyper_parameters", [dataset, one.label, key], caption, chart))
    return figures


def _others(point: Tried, key: str) -> dict[str, Any]:
    return {name: value for name, value in point.point.items() if name != key}


def _sorted(values: Sequence[Any]) -> list[Any]:
    """Each value once, numbers by size, others as they come."""
    once = [value for place, value in enumerate(values) if value not in values[:place]]
    return sorted(once) if all(_is_number(value) for value in once) else once


def _axis_of(key: str, values: Sequence[Any]) -> tuple[Axis, Callable[[Any], float]]:
    """The axis of a key's values and where each stands: numbers by size, in powers of ten if they span decades."""
    if all(_is_number(value) for value in values):
        above = [value for value in values if value > 0]
        gaps = [b - a for a, b in itertools.pairwise(above)]
        ratio = max(above) / min(above) if above else 1.0
        wide = ratio >= 50 or (ratio >= 10 and max(gaps) > (max(above) - min(above)) / 2)
        if not wide or len(above) == len(values):
            return Axis(f"{key} (no unit)", log=wide), float
    words = [plain(value) for value in values]
    return Axis(f"{key} (value)", categories=tuple(words)), lambda value: float(words.index(plain(value)))


def balance(study: Study, dataset: str, chosen: list[Chosen]) -> list[Figure]:
    found = [_curve(one.label, number, best.trials, "balance") for number, one, best in with_best(chosen)]
    lines = [line for line in found if line]
    if not lines:
        return []
    y = Axis("modality balance (no unit; 1 is even)")
    caption = f"Balance of the modalities in the users' representations by epoch on {dataset}; {OVER}."
    title = f"Modality balance on {dataset}"
    return [figure("balance", [dataset], caption, line_chart(title, Axis(EPOCH), y, lines))]


def dot_products(study: Study, dataset: str, chosen: list[Chosen]) -> list[Figure]:
    figures = []
    for _, one, best in with_best(chosen):
        columns = dict.fromkeys(key for t in best.trials for row in t.history for key in row if key.startswith("dot_"))
        found = [_curve(c.removeprefix("dot_"), k, best.trials, c) for k, c in enumerate(columns)]
        lines = [line for line in found if line]
        if lines:
            title = f"Dot products of {one.label} on {dataset}"
            caption = f"Mean dot product of users and items by modality and epoch, {one.label} on {dataset}; {OVER}."
            chart = line_chart(title, Axis(EPOCH), Axis("mean dot product (no unit)"), lines)
            figures.append(figure("dot_products", [dataset, one.label], caption, chart))
    return figures


def _curve(label: str, number: int, trials: Sequence[TrialResult], column: str) -> Series | None:
    epochs, means, spread = _over_seeds(trials, column)
    return Series(label, means, epochs, spread if len(trials) > 1 else (), number=number) if epochs else None


def _over_seeds(trials: Sequence[TrialResult], column: str) -> tuple[list[float], list[float], list[float]]:
    """Epochs that every seed has reached, with mean and standard deviation of a column of the histories."""
    curves = [{row["epoch"]: row[column] for row in t.history if _is_number(row.get(column))} for t in trials]
    epochs = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    values = [mean_and_spread([curve[epoch] for curve in curves]) for epoch in epochs]
    return epochs, [mean for mean, _ in values], [spread or 0.0 for _, spread in values]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
