"""The checked settings of one run, each with the place that it came from."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from utils.config.valid_metric import EXAMPLE, weights_of
from utils.config.yaml_files import dump_pair

LARGEST_LOG = 700  # e to it is still a float


@dataclass(frozen=True)
class Config(Mapping[str, Any]):
    """The settings of one run. `config[key]` gives None for a key that is not set, as MMRec models expect."""

    model: str
    dataset: str
    entries: dict[str, Any]
    sources: dict[str, str]
    aliases: dict[str, str] = field(default_factory=dict)
    axes: tuple[str, ...] = ()

    def __getitem__(self, key: str) -> Any:
        if key in ("model", "dataset"):
            return getattr(self, key)
        return self.entries.get(self.aliases.get(key, key))

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, key: object) -> bool:
        return key in ("model", "dataset") or self.aliases.get(str(key), key) in self.entries

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or `default` where the key is not there or null."""
        value = self[key]
        return default if value is None else value

    def to_yaml(self) -> str:
        """The resolved settings, one a line, with the place each came from as a comment."""
        lines = [f"model: {self.model}", f"dataset: {self.dataset}"]
        for key, value in self.entries.items():
            lines.append(f"{dump_pair(key, value)}  # {self.sources[key]}")
        return "\n".join(lines) + "\n"


def problems_between_keys(config: Config) -> list[str]:
    """Rules that bind several keys at once."""
    problems = []
    schedule = config["learning_rate_scheduler"]
    if len(schedule) != 2:
        problems.append(f"learning_rate_scheduler: expected two numbers [g, s], got {schedule}")
    elif math.log(schedule[0]) * config["epochs"] / schedule[1] > LARGEST_LOG:
        problems.append(
            f"learning_rate_scheduler: expected [g, s] with a finite g^(epochs/s), got {schedule} "
            f"for {config['epochs']} epochs"
        )
    known = [f"{metric}@{k}" for metric in config["metrics"] for k in config["topk"]]
    try:
        metrics = set(weights_of(config["valid_metric"]))
    except ValueError:
        metrics = {config["valid_metric"]}
    if metrics - set(known):
        problems.append(
            f"valid_metric: expected one of metrics x topk ({', '.join(known)}), or a weighted sum of them as "
            f"'{EXAMPLE}', got '{config['valid_metric']}'"
        )
    if len(config["field_separator"]) != 1:
        problems.append(
            f"field_separator: expected one character, got {config['field_separator']!r}; "
            "a tab is \"\\t\" in YAML and $'\\t' in a shell"
        )
    clip = config["clip_grad_norm"]
    if isinstance(clip, dict) and (set(clip) - {"max_norm", "norm_type"} or "max_norm" not in clip):
        problems.append(f"clip_grad_norm: expected a number or {{max_norm: a, norm_type: p}}, got {clip}")
    mirror = config["mirror_gradient"]
    if mirror is not None and not _is_mirror_gradient(mirror):
        problems.append(
            "mirror_gradient: expected {alpha1: a, alpha2: b, beta: n} with a > b >= 0 and a whole n of at least 1, "
            f"got {mirror}"
        )
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", config["device"]):
        problems.append(f"device: expected auto, cpu, cuda or cuda:N, got '{config['device']}'")
    return problems


def _is_mirror_gradient(values: Mapping[str, float]) -> bool:
    if set(values) != {"alpha1", "alpha2", "beta"}:
        return False
    return values["alpha1"] > values["alpha2"] >= 0 and values["beta"] >= 1 and values["beta"].is_integer()
