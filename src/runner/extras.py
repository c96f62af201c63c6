"""What sets a run apart in a table: options of the harness that can help any model, and rules of its own; in words."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SCORERS = ("popularity", "co_occurrence")
RULES = (  # of stopping and evaluation, which should be equal for all of a data set
    "epochs", "stopping_step", "eval_step", "min_steps", "valid_metric", "valid_decimals", "protocol", "topk",
    "filter_out_cold_start_users", "inter_file_name", "split_field",
)  # fmt: skip


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
    if config.get("mirror_gradient"):
        words.append(f"mirror_gradient ({', '.join(f'{k} {v:g}' for k, v in config['mirror_gradient'].items())})")
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


def unlike(runs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """For each of the runs of a data set, which of its rules are not those of most others, and what they are there."""
    words: list[list[str]] = [[] for _ in runs]
    for rule in RULES:
        values = [str(run[rule]).lower() if rule in run else None for run in runs]
        known = [value for value in values if value is not None]
        usual = Counter(known).most_common(1)[0][0] if known else None
        for mine, value in zip(words, values, strict=True):
            if value not in (None, usual):
                mine.append(f"{rule} {value} ({usual})")
    return words


def note_of(beside: Sequence[str], other_rules: Sequence[str]) -> str:
    """A footnote of `extras` and `unlike`; empty where there is nothing to say."""
    parts = [f"beside its paper: {', '.join(beside)}"] if beside else []
    return "; ".join(parts + ([f"unlike the other rows: {', '.join(other_rules)}"] if other_rules else []))


def numbered(notes: Iterable[str]) -> dict[str, int]:
    """The number of each footnote, equal ones once."""
    return {note: number for number, note in enumerate(dict.fromkeys(note for note in notes if note), 1)}


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
