"""Merging the layers of settings of one model on one data set: files, then the command line; the later wins.

Every layer is checked by the typed keys, and all mistakes are collected.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

from utils.config.configuration import Config, problems_between_keys
from utils.config.schema import Key, check_value, keys_of
from utils.config.settings import NOT_IDENTITY, NOT_OFFERED, REPLACED, SETTINGS, not_offered
from utils.config.valid_metric import EXAMPLE
from utils.errors import UserError, nearest

OwnKeys = type | Mapping[str, Key] | None  # of a model: a settings dataclass, or the keys themselves

DEVICE_KEYS = ("gpu_id", "use_gpu")
FEATURE_FILE_ALIASES = {"vision_feature_file": "visual", "text_feature_file": "textual"}
COMMAND_LINE = "command line"


def config_from_values(
    model: str, model_settings: OwnKeys, dataset: str, content: Mapping[str, Any], source: str
) -> Config:
    """The settings that a run folder's config.yaml holds, checked like any other file.

    Raises:
        UserError: with every mistake in it.
    """
    layers = Layers(model, model_settings, dataset)
    layers.add({key: value for key, value in content.items() if key != "hyper_parameters"}, source)
    layers.values["hyper_parameters"] = None
    runs = layers.combinations(use_grid=False, first=True)
    problems = layers.problems or problems_between_keys(runs[0])
    if problems:
        raise UserError(*problems)
    return runs[0]


class Layers:
    """The layers of one (model, data set) pair, and every mistake in them."""

    def __init__(self, model: str, model_settings: OwnKeys, dataset: str) -> None:
        self.model, self.dataset = model, dataset
        self.keys: dict[str, Key] = {}
        for settings in (*SETTINGS, *([model_settings] if model_settings else [])):
            self.keys.update(keys_of(settings))
        self.aliases = {a: key.name for key in self.keys.values() for a in key.field.metadata["alias"]}
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.grid: dict[str, tuple[list[Any], str]] = {}  # values and where they stand
        self.named: list[str] = []
        self.problems: list[str] = []
        self.notes: list[str] = []

    def add(self, content: Mapping[str, Any], source: str) -> None:
        """Lays one file over what is there; unknown keys are noted as mistakes."""
        passed_over: list[str] = []
        for raw, value in content.items():
            if raw in DEVICE_KEYS:
                self._take_device(raw, value, source)
            elif raw in FEATURE_FILE_ALIASES:
                before = self.values.get("modalities") or {}
                files = {**before, FEATURE_FILE_ALIASES[raw]: value} if isinstance(before, dict) else before
                self._put("modalities", files, source)
            elif raw in ("model", "dataset"):  # a run folder's config.yaml says what it is of
                if value != getattr(self, raw):
                    self.problems.append(
                        f"{source}: these are settings of {raw} '{value}', not of '{getattr(self, raw)}'"
                    )
            elif raw == "grid":
                self._take_grid(value, source)
            elif raw == "hyper_parameters":
                self._name_axes(value, source)
                self._put(raw, None, source)
            elif (name := self.aliases.get(raw, raw)) in self.keys:
                self._put(name, value, source)
            elif raw in REPLACED:
                self.problems += [f"{source}: {raw}: {value} is {REPLACED[raw]} now"] if value else []
            elif raw in NOT_OFFERED and value in NOT_OFFERED[raw][1]:
                passed_over.append(raw)
            elif raw in NOT_OFFERED:
                self.problems.append(f"{source}: {not_offered(raw)}, got {value!r}")
            else:
                known = [*self.keys, *self.aliases]
                self.problems.append(f"{source}: unknown key '{raw}'{nearest(raw, known)}")

        if content.get("use_gpu") is False:  # wherever gpu_id stands
            self._put("device", "cpu", source)
        if passed_over:
            self.notes.append(f"{source}: keys of MMRec that change nothing here: {', '.join(passed_over)}")

    def _take_device(self, raw: str, value: Any, source: str) -> None:
        """MMRec's two keys for the device: `gpu_id: 1` is cuda:1, `use_gpu: false` is cpu."""
        if raw == "gpu_id" and isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            self._put("device", f"cuda:{value}", source)
        elif raw == "gpu_id":
            self.problems.append(f"{source}: gpu_id: expected the number of one CUDA device, got {value!r}")
        elif not isinstance(value, bool):
            self.problems.append(f"{source}: use_gpu: expected true or false, got {value!r}")

    def override(self, overrides: Mapping[str, Any]) -> list[str]:
        """Lays the command line over the files; several values for a plain key are a grid. Returns unknown keys."""
        unknown = []
        # What a file searches, the command line sets; an axis that is named here too is named below.
        given = {self.aliases.get(raw, raw) for raw in overrides}
        self.named = [axis for axis in self.named if axis not in given]
        self.grid = {axis: found for axis, found in self.grid.items() if axis not in given}
        devices = {raw: w[0] if len(w) == 1 else w for raw, w in overrides.items() if raw in DEVICE_KEYS}
        self.add(devices, COMMAND_LINE)
        for raw, words in overrides.items():
            if raw in devices:
                continue
            name = self.aliases.get(raw, raw)
            if raw in (*FEATURE_FILE_ALIASES, *REPLACED, "hyper_parameters"):
                flat = [e for word in words for e in (word if isinstance(word, list) else [word])]
                self.add({raw: flat if raw == "hyper_parameters" else words[0]}, COMMAND_LINE)
            elif name not in self.keys:
                unknown.append(raw)
            elif self.keys[name].is_list:
                self._put(name, words[0] if len(words) == 1 else words, COMMAND_LINE)
            else:
                several = words[0] if len(words) == 1 and isinstance(words[0], list) else words
                self._put(name, several[0] if len(several) == 1 else list(several), COMMAND_LINE)
                if len(several) > 1:
                    self.named.append(name)
        return unknown

    def combinations(self, use_grid: bool, first: bool) -> list[Config]:
        """The settings of every run: one, or the product of the grid's axes, the first varying slowest."""
        axes: dict[str, list[Any]] = {}
        for name in self.named:
            if name in self.values:
                value = self.values[name]
                axes[name] = list(value) if isinstance(value, list) else [value]
        if use_grid:
            searched = {name: found for name, found in self.grid.items() if name not in axes}
            axes = {**{name: values for name, (values, _) in searched.items()}, **axes}
            self.sources |= {name: source for name, (_, source) in searched.items()}
        checked: dict[str, Any] = {}
        for name, key in self.keys.items():
            if name in axes:
                n_problems = len(self.problems)
                axes[name] = [self._checked(key, value) for value in axes[name]]
                doubled = [value for i, value in enumerate(axes[name]) if value in axes[name][:i]]
                if not axes[name]:
                    self.problems.append(f"{self._place(name)}: {name}: expected a list of values, got []")
                elif doubled and len(self.problems) == n_problems:
                    self.problems.append(f"{self._place(name)}: {name} lists {doubled[0]!r} twice")
                elif name == "valid_metric" and len(axes[name]) > 1:
                    self.problems.append(
                        f"{self._place(name)}: valid_metric: expected one metric, by which a grid is picked, got "
                        f"{len(axes[name])}; a weighted sum is one: --valid_metric '{EXAMPLE}'"
                    )
                elif name in NOT_IDENTITY and len(axes[name]) > 1:
                    self.problems.append(
                        f"{self._place(name)}: {name}: expected one value, got {len(axes[name])}: it does not change "
                        "what a run computes"
                    )
            elif name in self.values:
                checked[name] = self._checked(key, self.values[name])
            elif key.default is not dataclasses.MISSING:
                checked[name], self.sources[name] = key.default, "default"
            else:
                self.problems.append(f"no file sets '{name}' ({key.field.metadata['help']})")
        if self.problems:
            return []
        runs = []
        for point in itertools.product(*axes.values()):
            values = {**checked, **dict(zip(axes, point, strict=True))}
            ordered = {name: values[name] for name in self.keys}
            varied = tuple(name for name, options in axes.items() if len(options) > 1)
            sources = {name: self._place(name) + (", grid" if name in axes else "") for name in ordered}
            runs.append(Config(self.model, self.dataset, ordered, sources, self.aliases, varied))
        return runs[:1] if first else runs

    def _place(self, name: str) -> str:
        return self.sources.get(name, "default")

    def _put(self, name: str, value: Any, source: str) -> None:
        self.values[name], self.sources[name] = value, source

    def _checked(self, key: Key, value: Any) -> Any:
        try:
            return check_value(key, value)
        except ValueError as error:
            self.problems.append(f"{self._place(key.name)}: {key.name}: {error}")
            return None

    def _take_grid(self, content: Any, source: str) -> None:
        if not isinstance(content, dict):
            self.problems.append(f"{source}: grid: expected keys with lists of values, got {content!r}")
            return
        for raw, values in content.items():
            name = self.aliases.get(raw, raw)
            if name not in self.keys:
                self.problems.append(f"{source}: grid: unknown key '{raw}'{nearest(str(raw), self.keys)}")
            elif not isinstance(values, list) or not values:
                self.problems.append(f"{source}: grid: {raw}: expected a list of values, got {values!r}")
            else:
                self.grid[name] = values, source

    def _name_axes(self, content: Any, source: str) -> None:
        names = content if isinstance(content, list) else [content] if content else []
        for raw in names:
            name = self.aliases.get(str(raw), str(raw))
            if name not in self.keys:
                self.problems.append(f"{source}: hyper_parameters: unknown key '{raw}'{nearest(str(raw), self.keys)}")
            else:
                self.named.append(name)
