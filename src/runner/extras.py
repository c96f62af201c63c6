"""What a run has beside its paper: options of the harness that can help any model, in words for tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def extras(config: Mapping[str, Any]) -> list[str]:
    """The options of the harness that a run has switched on, a few words each; empty for a model as its paper has it.

    Args:
        config: the settings of a run, or the content of its config.yaml, which may be of an earlier version.
    """
    words = []
    tuned = bool(config.get("calibration"))
    for name in ("popularity", "co_occurrence"):
        damping = config.get(f"{name}_damping")
        if config.get(name):
            words.append(f"{name} {config[name]:g}" + (f" (damping {damping:g})" if damping else ""))
    if tuned:
        scorers = "these" if words else "popularity and co_occurrence"
        words.append(f"{scorers} tuned on validation (calibration)")
    if config.get("weight_average"):
        words.append(f"weight_average {config['weight_average']:g}")
    if config.get("min_steps"):
        words.append(f"min_steps {config['min_steps']}")
    if config.get("initialization", "xavier") not in (None, "xavier"):
        words.append(f"initialization {config['initialization']} (power {config['initialization_power']:g})")
    if config.get("amp"):
        words.append("amp")
    return words
