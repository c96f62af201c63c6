"""Figures of test results: entries side by side, groups of users and items, missing content, accuracy against cost."""

from __future__ import annotations

import re
import statistics

from study.report.figure import OVER, Figure, figure, metric_name, shown_metrics, with_best
from study.select import Chosen, Tried, mean_and_spread, missing_shares
from study.spec import Study
from utils.charts import COLOURS, Axis, Series, bar_chart, line_chart, row_chart, scatter

MIB = 2**20
MOST_BARS = len(COLOURS)  # side by side: more entries than colours are told apart by their rows


def ablation(study: Study, dataset: str, chosen: list[Chosen]) -> list[Figure]:
    """Test metrics of the entries: grouped bars, or for many entries a figure for each metric with a row for each."""
    metrics, rows = shown_metrics(study), with_best(chosen)
    title = f"Entries on {dataset}"
    if len(rows) > MOST_BARS:
        return [
            _in_rows(
                study,
                "ablation",
                [dataset, metric],
                title,
                f"test {metric_name(metric)} (share, 0 to 1)",
                [(one.label, mean_and_spread(best.test(metric))) for _, one, best in rows],
            )
            for metric in metrics
        ]
    bars = []
    for number, one, best in rows:
        values = [mean_and_spread(best.test(metric)) for metric in metrics]
        bars.append(Series(one.label, [m for m, _ in values], spread=[s or 0.0 for _, s in values], number=number))
    x = Axis("test metric", categories=tuple(metric_name(metric) for metric in metrics))
    y = Axis("value (share, 0 to 1)", zero=True)
    caption = f"Test results of the entries on {dataset}; {OVER}."
    return [figure("ablation", [dataset], caption, bar_chart(title, x, y, bars))] if bars else []


def _in_rows(
    study: Study,
    kind: str,
    parts: list[str],
    title: str,
    across: str,
    rows: list[tuple[str, tuple[float, float | None]]],
) -> Figure:
    bars = [(label, value, spread or 0.0) for label, (value, spread) in rows]
    return figure(kind, parts, f"{title}; {OVER}.", row_chart(title, across, bars, study.reference))


def groups(study: Study, dataset: str, chosen: list[Chosen]) -> list[Figure]:
    figures = []
    rows = with_best(chosen)
    groupings = dict.fromkeys(g for _, _, best in rows for t in best.trials for g in t.metrics.get("groups") or {})
    metric = next((m for m in study.report.metrics if m == "recall@20"), "")
    metric = metric or next((m for m in study.report.metrics if m.startswith("recall@")), "recall@20")
    for grouping in groupings:
        found: dict[tuple[int, str], dict[str, tuple[float, float | None]]] = {}
        for number, one, best in rows:
            groups_of = [t.metrics.get("groups", {}).get(grouping) or {} for t in best.trials]
            found[number, one.label] = {
                name: mean_and_spread([groups[name][metric] for groups in groups_of])
                for name in groups_of[0]
                if all(metric in groups.get(name, {}) for groups in groups_of)
            }
        names = list(dict.fromkeys(name for values in found.values() for name in values))
        if not names:
            continue
        words = grouping.replace("_", " ")
        title = f"{metric_name(metric)} by {words} on {dataset}"
        if len(found) > MOST_BARS:
            across = f"test {metric_name(metric)} (share, 0 to 1)"
            for name in names:
                each = [(label, values[name]) for (_, label), values in found.items() if name in values]
                of = f"{title}: {name}"
                figures.append(_in_rows(study, "groups", [dataset, grouping, name], of, across, each))
            continue
        bars = [
            Series(
                label,
                [values[name][0] if name in values else None for name in names],
                spread=[values.get(name, (0.0, None))[1] or 0.0 for name in names],
                number=number,
            )
            for (number, label), values in found.items()
        ]
        unit = re.compile(" interactions?$")  # written once, at the axis
        shared = all(unit.search(name) for name in names)
        shown = tuple(unit.sub("", name) if shared else name for name in names)
        x = Axis(f"{words} ({'training interactions' if shared else 'group'})", categories=shown)
        y = Axis(f"test {metric_name(metric)} (share, 0 to 1)", zero=True)
        figures.append(figure("groups", [dataset, grouping], f"{title}; {OVER}.", bar_chart(title, x, y, bars)))
    return figures


def missing(study: Study, dataset: str, chosen: list[Chosen]) -> list[Figure]:
    """Test metrics against the share of items that lack content, a line for entries that differ in nothing else.

    Where one entry is swept for several sets of modalities, each has a line of its own, and all begin at the entry's own.
    """
    entries = {entry.label: entry for entry in study.entries}
    sweeps: dict[str, dict[tuple[str, ...], dict[float, Chosen]]] = {}
    for _, one, _ in with_best(chosen):
        entry = entries[one.label]
        shares = missing_shares({**study.settings, **entry.settings})
        if len(set(shares.values())) < 2:  # otherwise there is no one place for it
            lines = sweeps.setdefault(entry.without("missing_share"), {})
            lines.setdefault(tuple(sorted(shares)), {}).setdefault(max(shares.values(), default=0.0), one)
    drawn: dict[str, list[tuple[float, Tried]]] = {}
    for lines in sweeps.values():
        whole = lines.pop((), {})
        for modalities, points in lines.items():
            line = sorted((whole | points).items())
            label = line[0][1].label + (f", {' + '.join(modalities)}" if len(lines) > 1 else "")
            if len(line) > 1:
                drawn[label] = [(share, one.best) for share, one in line if one.best]
    figures = []
    for metric in shown_metrics(study) if drawn else ():
        series = []
        for label, at in drawn.items():
            values = [mean_and_spread(best.test(metric)) for _, best in at]
            series.append(Series(label, [m for m, _ in values], [x for x, _ in at], [s or 0.0 for _, s in values]))
        title = f"{metric_name(metric)} where items lack content, on {dataset}"
        x, y = Axis("items without content (share, 0 to 1)"), Axis(f"test {metric_name(metric)} (share, 0 to 1)")
        figures.append(figure("missing", [dataset, metric], f"{title}; {OVER}.", line_chart(title, x, y, series)))
    return figures


def cost(study: Study, dataset: str, chosen: list[Chosen]) -> list[Figure]:
    metric = shown_metrics(study)[0]
    figures = []
    kinds = {
        "time": ("training and validation time of a run (s)", lambda best: statistics.fmean(_seconds(best))),
        "memory": ("peak resident memory (MiB)", lambda best: min(_memory(best)) / MIB if _memory(best) else None),
        "device_memory": ("peak memory on the device (MiB)", lambda best: _device_memory(best)),
    }
    captions = {
        "time": "mean over the seeds of the selected setting",
        "memory": "of the process, the least over seeds: a worker that ran a larger trial before keeps that trial's peak",
        "device_memory": "the least over seeds",
    }
    for kind, (label, value) in kinds.items():
        points = []
        for number, one, best in with_best(chosen):
            x = value(best)
            if x:
                points.append((number, one.label, x, statistics.fmean(best.test(metric))))
        if points:
            xs = [x for _, _, x, _ in points]
            x_axis = Axis(label, log=max(xs) / min(xs) >= 20)
            y_axis = Axis(f"test {metric_name(metric)} (share, 0 to 1)")
            title = f"{metric_name(metric)} against {kind.replace('_', ' ')} on {dataset}"
            chart = scatter(title, x_axis, y_axis, points)
            figures.append(figure("cost", [kind, dataset], f"{title}: {captions[kind]}.", chart))
    return figures


def _seconds(best: Tried) -> list[float]:
    return [trial.manifest.get("seconds", {}).get("total", 0.0) for trial in best.trials]


def _memory(best: Tried, place: str = "resident") -> list[float]:
    found = [trial.manifest.get("peak_memory_bytes", {}).get(place) for trial in best.trials]
    return [value for value in found if value]


def _device_memory(best: Tried) -> float | None:
    found = _memory(best, "cuda")
    return min(found) / MIB if found else None
