"""What a run has beside its paper: options of the harness that can help any model, in words for tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

SCORERS = ("popularity", "co_occurrence")


def extras(config: Mapping[str, Any], calibrations: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """The options of the harness that a run has switched on, a few words each; empty for a model as its paper has it.

    Args:
        config: the settings of a run, or the content of its config.yaml, which may be of an earlier version.
        calibrations: `calibration` of metrics.json of each seed, where runs are finished.
    """
    words = []
    for name in SCORERS:
        damping = config.get(f"{name}_damping")
        if config.get(name):
            words.append(f"{name} {config[name]:g}" + (f" (damping {damping:g})" if damping else ""))
    if config.get("calibration"):
        words.append(f"scorers {tuned(calibrations)}" if calibrations else "scorers tuned on validation")
    if config.get("weight_average"):
        words.append(f"weight_average {config['weight_average']:g}")
    if config.get("min_steps"):
        words.append(f"min_steps {config['min_steps']}")
    if config.get("initialization") == "spectral":
        words.append(f"initialization spectral (power {config['initialization_power']:g})")
    if (number := config.get("training_neg_sample_num") or 1) > 1:
        words.append(f"{number} negatives per positive")
    if config.get("neg_sampling", "uniform") != "uniform":
        words.append(f"negatives by {config['neg_sampling']}")
    if config.get("refit") and not config.get("no_test"):
        words.append("test of a refit on train and validation, which has no validation of its own")
    if config.get("amp"):
        words.append("amp")
    return words


def tuned(calibrations: Sequence[Mapping[str, Any]]) -> str:
    """What calibration changed and gained: "tuned on validation: co_occurrence 0 -> 2 (+0.0012 recall@20)".

    Of several seeds that chose differently the values stand one after the other, and the gain is the mean.

    Args:
        calibrations: `calibration` of metrics.json, one for each seed, all from the same values.
    """
    before = calibrations[0]["from"]
    changes = []
    for key, value in before.items():
        after = [calibration["to"][key] for calibration in calibrations]
        if any(one != value for one in after):
            values = after if len(set(after)) > 1 else after[:1]
            changes.append(f"{key} {value:g} -> {'/'.join(f'{one:g}' for one in values)}")
    if not changes:
        return "tuned on validation: nothing beats what is configured by a standard error"
    gain = statistics.fmean(calibration["gain"] for calibration in calibrations)
    return f"tuned on validation: {', '.join(changes)} ({gain:+.4f} {calibrations[0]['metric']})"
