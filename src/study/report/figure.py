"""A figure and what all figures share: names of metrics, which entries are shown, and in which colour."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from study.select import Chosen, Tried
from study.spec import Study
from utils.charts import Chart

NAMES = {"recall": "Recall", "ndcg": "NDCG", "map": "MAP", "precision": "Precision", "f1": "F1", "hit": "Hit"}
OVER = "mean over seeds, spread one standard deviation"
EPOCH = "epoch (number)"


@dataclass(frozen=True)
class Figure:
    """A figure: file name without ending, kind, caption and chart."""

    name: str
    kind: str
    caption: str
    chart: Chart


def metric_name(metric: str) -> str:
    """recall@20 as Recall@20."""
    kind, at, cutoff = metric.partition("@")
    return NAMES.get(kind, kind) + at + cutoff


def figure(kind: str, parts: Sequence[str], caption: str, chart: Chart) -> Figure:
    """A figure of a kind; `parts` tell it from the others of that kind."""
    name = "-".join([kind, *(re.sub(r"[^A-Za-z0-9.+-]+", "_", part).strip("_") or "x" for part in parts)])
    return Figure(name, kind, caption, chart)


def with_best(chosen: Sequence[Chosen]) -> list[tuple[int, Chosen, Tried]]:
    """Entries that have a row, with their number in the study, which gives their colour in every figure."""
    return [(number, one, one.best) for number, one in enumerate(chosen) if one.best]


def shown_metrics(study: Study) -> list[str]:
    """Recall@20 and NDCG@20, or what of the report's metrics comes nearest."""
    usual: list[str] = [metric for metric in ("recall@20", "ndcg@20") if metric in study.report.metrics]
    return usual or list(study.report.metrics[:2])
