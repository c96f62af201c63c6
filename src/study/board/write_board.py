"""The board: every run as a row that sorts and filters, curves over each other, two runs compared."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from study.board.pair_tests import pair_tests
from study.board.read_runs import Found, ShownRun
from study.report.templates import FOLDER, environment
from utils.files import write_bytes


def write_board(found: Found, target: Path) -> None:
    """Writes the page; its links lead from the page's folder to those of runs and studies."""
    script = (FOLDER / "board.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = environment().get_template("board.html.j2")
    page = template.render(data=page_data(found, target.parent.resolve()), script=script, digest=digest)
    write_bytes(target, page.encode())


def page_data(found: Found, place: Path) -> dict[str, Any]:
    """All that the page knows.

    Args:
        place: folder of the page.
    """
    runs = found.runs
    metrics = list(dict.fromkeys(name for run in runs for name in (*run.valid, *run.test)))
    return {
        "runs": [_link(run.folder, place) for run in runs],
        "studies": [
            {"name": name, "folder": _link(folder, place), "report": (folder / "report.html").is_file()}
            for name, folder in sorted(found.studies.items())
        ],
        "keys": _keys(runs),
        "metrics": metrics,
        "valid_metric": [run.valid_metric for run in runs],
        "valid": [_values(run.valid, metrics) for run in runs],
        "test": [_values(run.test, metrics) for run in runs],
        "best_epoch": [run.best_epoch for run in runs],
        "seconds": [_short(run.seconds) for run in runs],
        "curves": [(run.curve[0], [_short(value) for value in run.curve[1]]) for run in runs],
        "tests": [asdict(one) for one in pair_tests(runs)],
        "left_out": found.left_out,
    }


def _keys(runs: Sequence[ShownRun]) -> dict[str, dict[str, list[Any]]]:
    """The values of each key once, and which of them each run has, -1 for none; keys that never vary are left out."""
    rows = [run.settings | {"status": run.status} | ({"study": run.study} if run.study else {}) for run in runs]
    found = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        numbers: dict[str, int] = {}
        of = [numbers.setdefault(json.dumps(row[key], default=str), len(numbers)) if key in row else -1 for row in rows]
        if len(set(of)) > 1 or key in ("model", "dataset", "seed"):
            found[key] = {"values": [json.loads(text) for text in numbers], "of": of}
    return found


def _values(values: dict[str, float], metrics: Sequence[str]) -> list[float | None] | None:
    return [_short(values.get(name)) for name in metrics] if values else None


def _short(value: float | None) -> float | None:
    """Six digits, and nothing that JSON has no word for."""
    return float(f"{value:.6g}") if isinstance(value, int | float) and abs(value) < float("inf") else None


def _link(folder: Path, place: Path) -> str:
    return Path(os.path.relpath(folder, place)).as_posix()
