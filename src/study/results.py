"""What a study's folder holds, read back: one record for each trial, finished or not."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from utils.errors import UserError


@dataclass(frozen=True)
class TrialResult:
    """A trial and what became of it.

    Attributes:
        status: finished, diverged, failed or open.
        metrics: what metrics.json holds; empty unless finished or diverged.
        manifest: what manifest.json holds; empty before the trial began.
        history: one record for each epoch, numbers where they are numbers.
        error: one line for a failed or diverged trial.
    """

    label: str
    model: str
    dataset: str
    point: dict[str, Any]
    seed: int
    folder: Path
    status: str
    metrics: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""

    def per_user(self, split: str) -> pd.DataFrame:
        """A row for each evaluated user of a split: user and every metric."""
        table = pd.read_csv(self.folder / "per_user.csv")
        return table[table["split"] == split].drop(columns="split").reset_index(drop=True)


def load(folder: Path) -> list[TrialResult]:
    """Every trial of the study's plan, in its order.

    Raises:
        UserError: if the folder is not that of a study.
    """
    plan = read_json(folder / "plan.json")
    if not isinstance(plan, list):
        raise UserError(f"{folder}: not the folder of a study (no plan.json)")
    return [_result(folder, record) for record in plan]


def status_of(folder: Path) -> str:
    """finished, diverged, failed or open, from what a trial's folder holds."""
    metrics = read_json(folder / "metrics.json")
    if isinstance(metrics, dict) and metrics.get("status") in ("finished", "diverged"):
        return str(metrics["status"])
    return "failed" if isinstance(read_json(folder / "error.json"), dict) else "open"


def _result(folder: Path, record: dict[str, Any]) -> TrialResult:
    path = folder / record["folder"]
    status = status_of(path)
    metrics = read_json(path / "metrics.json") if status in ("finished", "diverged") else None
    error = (read_json(path / "error.json") or {}).get("error", "") if status == "failed" else ""
    return TrialResult(
        record["label"],
        record["model"],
        record["dataset"],
        record["point"],
        record["seed"],
        path,
        status,
        metrics or {},
        read_json(path / "manifest.json") or {},
        _history(path / "history.csv"),
        error or (metrics or {}).get("error", ""),
    )


def read_json(path: Path) -> Any:
    """The content of a JSON file, or None where there is none or it is broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _history(path: Path) -> list[dict[str, Any]]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [{key: _number(value) for key, value in row.items()} for row in csv.DictReader(file)]
    except OSError:
        return []


def _number(word: str | None) -> float | str | None:
    if not word:
        return None
    try:
        return float(word)
    except ValueError:
        return word
