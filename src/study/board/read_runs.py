"""Run folders as the board shows them: settings, results and learning curves; a folder that cannot be read is named."""

from __future__ import annotations

import csv
import functools
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from study.results import read_json, status_of
from utils.config.settings import NOT_IDENTITY
from utils.config.yaml_files import parse_yaml, read_yaml
from utils.errors import UserError

POINTS = 60  # of a learning curve


@dataclass(frozen=True)
class ShownRun:
    """One run.

    Attributes:
        study: name of the study that it is a trial of, or empty.
        settings: model, data set and every setting that changes what is computed, the seed among them.
        valid, test: metric to value; empty where there is none, as `test` with no_test.
        valid_metric: by which its epoch was chosen.
        curve: that metric by epoch, thinned.
        data: SHA-256 of the splits, so that only runs of the same data are tested against each other.
    """

    folder: Path
    study: str
    settings: dict[str, Any]
    status: str
    valid: dict[str, float] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)
    valid_metric: str = ""
    best_epoch: int | None = None
    seconds: float | None = None
    curve: tuple[list[int], list[float]] = ([], [])
    data: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What was found below some folders: runs, study folders by name, and what is left out, a line each."""

    runs: list[ShownRun]
    studies: dict[str, Path]
    left_out: list[str]


def find_runs(folders: Iterable[Path]) -> Found:
    """Reads every run folder (it has config.yaml) at or below the folders, once each, in the order of their paths."""
    places: dict[Path, str] = {}
    studies: dict[str, Path] = {}
    for folder in folders:
        for path, study in _walk(folder.resolve(), ""):
            if study and (path / "study.yaml").is_file():
                studies[study] = path
            if (path / "config.yaml").is_file():
                places.setdefault(path, study)
    runs, left_out = [], []
    for path, study in sorted(places.items()):
        try:
            runs.append(_read(path, study))
        except UserError as error:
            left_out.append(str(error.problems[0]))
    return Found(runs, studies, left_out)


def _walk(folder: Path, study: str) -> Iterator[tuple[Path, str]]:
    """Every folder below and the study that it belongs to; a run folder's own folders are not looked into."""
    study = folder.name if (folder / "study.yaml").is_file() else study
    yield folder, study
    if not (folder / "config.yaml").is_file():
        with os.scandir(folder) as entries:
            below = sorted(Path(one.path) for one in entries if one.is_dir(follow_symlinks=False))
        for one in below:
            yield from _walk(one, study)


def _read(path: Path, study: str) -> ShownRun:
    settings = _settings(path / "config.yaml")
    if not all(isinstance(settings.get(name), str) for name in ("model", "dataset")):
        raise UserError(f"{path / 'config.yaml'}: expected the names of a model and a data set, as a run writes them")
    settings = {key: value for key, value in settings.items() if key not in NOT_IDENTITY}
    manifest = read_json(path / "manifest.json")
    hashes = manifest.get("hashes") if isinstance(manifest, dict) else None
    data = tuple(str(hashes.get(split)) for split in ("train", "valid", "test")) if isinstance(hashes, dict) else ()
    status = status_of(path)
    found = read_json(path / "metrics.json") if status in ("finished", "diverged") else {}
    metric = str(found.get("valid_metric", ""))
    return ShownRun(
        path,
        study,
        settings,
        status,
        _numbers(found.get("valid")),
        _numbers(found.get("test")),
        metric,
        found.get("best_epoch"),
        found.get("seconds"),
        _curve(path / "history.csv", f"valid_{metric}"),
        data,
    )


def _settings(path: Path) -> dict[str, Any]:
    """What config.yaml holds: a setting a line, and most lines of two runs are equal."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return {key: value for line in lines for key, value in _setting(line)}
    except (OSError, UnicodeDecodeError, UserError):
        return read_yaml(path, str(path))  # says what is wrong, or reads what stands on several lines


@functools.lru_cache(maxsize=100_000)
def _setting(line: str) -> tuple[tuple[str, Any], ...]:
    content = parse_yaml(line, "line")
    if content is not None and not isinstance(content, dict):
        raise UserError("expected key: value")
    return tuple((content or {}).items())


def _numbers(values: Any) -> dict[str, float]:
    return {str(key): float(value) for key, value in (values or {}).items() if isinstance(value, int | float)}


def _curve(path: Path, column: str) -> tuple[list[int], list[float]]:
    epochs, values = [], []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            if column not in header or "epoch" not in header:
                return [], []
            at, epoch = header.index(column), header.index("epoch")
            for row in rows:
                if len(row) == len(header) and row[at]:  # an epoch without an evaluation has no value
                    epochs.append(int(float(row[epoch])))
                    values.append(float(row[at]))
    except (OSError, ValueError):
        return [], []
    step = math.ceil(len(epochs) / POINTS) or 1
    return epochs[::step], values[::step]
