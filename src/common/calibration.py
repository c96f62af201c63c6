"""Choosing settings of evaluation by validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

CERTAIN = 1.0  # standard errors by which a value must be better
MOST_ROUNDS = 3


def by_validation(
    choices: Mapping[str, Sequence[float]], measure: Callable[[Mapping[str, float]], NDArray[np.float64]]
) -> dict[str, float]:
    """Picks a value for each setting, one setting at a time, in rounds until none changes any more.

    The best other value takes the place of the present one where it is better by a standard error of the mean of the paired
    differences over users: where validation cannot tell them apart, what is configured stays.

    Args:
        choices: setting to its values, the one to start from first.
        measure: settings to the metric of each user [U], higher is better.
    """
    chosen = {name: values[0] for name, values in choices.items()}
    measured: dict[tuple[float, ...], NDArray[np.float64]] = {}

    def of(values: Mapping[str, float]) -> NDArray[np.float64]:
        key = tuple(values.values())
        if key not in measured:
            measured[key] = measure(values)
        return measured[key]

    for _ in range(MOST_ROUNDS):
        before = dict(chosen)
        for name, values in choices.items():
            others = [{**chosen, name: value} for value in dict.fromkeys(values) if value != chosen[name]]
            if not others:
                continue
            best = max(others, key=lambda other: of(other).mean())
            gained = of(best) - of(chosen)
            if gained.mean() > CERTAIN * gained.std() / len(gained) ** 0.5:
                chosen = best
        if chosen == before:
            break
    return chosen
