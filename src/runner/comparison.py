"""From finished runs to tables: mean over seeds, selection by validation, terminal, Markdown and CSV."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner.extras import RULES, extras, note_of, numbered, unlike
from runner.quick_start import Result
from utils.runs.run_folder import folders_text, identity

ORACLE = "Oracle"


@dataclass
class Row:
    """One line of a comparison: a grid point of a model on a data set, over its seeds.

    Attributes:
        settings: the settings that vary in this grid, but for the seed and the split.
        splits: columns of the splits that the runs are of; their runs are pooled as those of seeds are.
        valid, test: metric to one value per seed; empty if no seed finished, and `test` of runs with no_test.
        folders: of its runs.
        note: what it has beside its paper or unlike the other rows, in words.
        selected: whether validation picked this grid point for its model and data set.
    """

    dataset: str
    model: str
    settings: dict[str, Any]
    valid_metric: str
    seeds: list[int]
    valid: dict[str, list[float]]
    test: dict[str, list[float]]
    best_epochs: list[int]
    seconds: float
    failed: int = 0
    selected: bool = False
    folders: tuple[Path, ...] = ()
    note: str = ""
    splits: tuple[str, ...] = ()

    def of(self, split: str) -> dict[str, list[float]]:
        """Metrics of a split, valid or test."""
        return self.valid if split == "valid" else self.test

    def score(self) -> float:
        """The mean validation score, by which a grid point is selected; a diverged run excludes it."""
        values = self.valid.get(self.valid_metric)
        return statistics.fmean(values) if values and not self.failed else -1.0


def summarize(results: Sequence[Result], oracles: dict[str, dict[str, float]]) -> list[Row]:
    """Groups runs by grid point and marks, for each model and data set, the one with the best mean validation score.

    Args:
        results: finished runs, in the order of the request.
        oracles: data set name to the test metrics of its oracle, for generated data sets.
    """
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        config = result.config
        pooled = replace(config, entries=config.entries | {"split_field": ""})
        groups.setdefault((config.dataset, config.model, identity(pooled)), []).append(result)
    rows = []
    rules: dict[str, list[list[str]]] = {}  # data set to what its rows have unlike each other, in their order
    for dataset in dict.fromkeys(dataset for dataset, _, _ in groups):
        configs = [runs[0].config for (of, _, _), runs in groups.items() if of == dataset]
        rules[dataset] = unlike([{k: c[k] for k in RULES if k not in c.axes} for c in configs])  # an axis has a column
    for (dataset, model, _), runs in groups.items():
        good = [run.metrics for run in runs if run.metrics["status"] == "finished"]
        config = runs[0].config
        rows.append(
            Row(
                dataset,
                model,
                {axis: config[axis] for axis in config.axes if axis not in ("seed", "split_field")},
                config["valid_metric"].lower(),
                [run.config["seed"] for run in runs],
                {name: [m["valid"][name] for m in good] for name in (good[0]["valid"] if good else ())},
                {name: [m["test"][name] for m in good] for name in ((good[0]["test"] or ()) if good else ())},
                [m["best_epoch"] for m in good],
                sum(run.metrics["seconds"] for run in runs),
                len(runs) - len(good),
                folders=tuple(run.folder for run in runs),
                note=note_of(
                    extras(config, [m["calibration"] for m in good if m.get("calibration")]), rules[dataset].pop(0)
                ),
                splits=tuple(dict.fromkeys(run.config["split_field"] for run in runs)),
            )
        )
    for dataset, model in dict.fromkeys((row.dataset, row.model) for row in rows):
        peers = [row for row in rows if (row.dataset, row.model) == (dataset, model)]
        best = max(peers, key=Row.score)
        best.selected = bool(best.valid) and not best.failed
    for dataset, metrics in oracles.items():
        of_dataset = [row for row in rows if row.dataset == dataset]
        oracle = Row(
            dataset, ORACLE, {}, of_dataset[0].valid_metric, [], {}, {k: [v] for k, v in metrics.items()}, [], 0.0
        )
        rows.insert(rows.index(of_dataset[-1]) + 1, oracle)
    return rows


def to_records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One flat record per line, full precision: mean and standard deviation (over seeds, n - 1) of every metric."""
    axes = list(dict.fromkeys(axis for row in rows for axis in row.settings))
    records = []
    for row in rows:
        record: dict[str, Any] = {"dataset": row.dataset, "model": row.model}
        record |= {axis: row.settings.get(axis, "") for axis in axes}
        record |= {
            "selected": row.selected,
            "note": row.note,
            "seeds": " ".join(map(str, row.seeds)),
            "splits": " ".join(row.splits),
            "diverged": row.failed,
            "best_epoch": " ".join(map(str, row.best_epochs)),
            "seconds": round(row.seconds, 2),
        }
        for split in ("valid", "test"):
            for name, values in getattr(row, split).items():
                record[f"{split}_{name}"] = statistics.fmean(values)
                record[f"{split}_{name}_std"] = statistics.stdev(values) if len(values) > 1 else ""
        record["run"] = folders_text(Path(*folder.parts[-3:]) for folder in row.folders)  # below output_dir
        records.append(record)
    return records


def to_cells(rows: Sequence[Row]) -> list[list[str]]:
    """A short table as text cells, header first: validation score, recall and NDCG at the two middle cut-offs.

    These are of the test split, or of the validation split where no run has a test score. What a row has beside its paper or
    unlike the other rows is marked [1], [2]... beside its model; see `footnotes`.
    """
    split = "test" if any(row.test for row in rows) else "valid"
    some: dict[str, list[float]] = next((row.of(split) for row in rows if row.of(split)), {})
    shown = [name for name in ("recall@10", "recall@20", "ndcg@10", "ndcg@20") if name in some] or list(some)[:4]
    metric = rows[0].valid_metric
    if split == "valid":
        shown = [name for name in shown if name != metric]
    marks = numbered(row.note for row in rows)
    several = len({(row.dataset, row.model) for row in rows if row.model != ORACLE}) < sum(
        row.model != ORACLE for row in rows
    )
    axes = list(dict.fromkeys(axis for row in rows for axis in row.settings))
    oracle = {row.dataset: row.test[metric][0] for row in rows if row.model == ORACLE and metric in row.test}
    header = ["data set", "model", *axes, f"valid {metric}", *(f"{split} {name}" for name in shown)]
    header += [f"% of oracle ({metric})"] if oracle else []
    header += ["best epoch", "seconds", "run"]
    cells = [header]
    for row in rows:
        mark = (" *" if row.selected and several else "") + (f" [{marks[row.note]}]" if row.note else "")
        line = [row.dataset, row.model + mark, *(_plain(row.settings.get(axis, "")) for axis in axes)]
        line.append(_mean(row.valid.get(metric)) if row.model != ORACLE else "")
        if row.failed and row.valid:
            line[-1] += f" ({row.failed} diverged)"
        line += [_mean(row.of(split).get(name)) if not row.failed or row.valid else "diverged" for name in shown]
        if oracle:
            values = row.test.get(metric)
            known = values and row.dataset in oracle
            line.append(f"{100 * statistics.fmean(values) / oracle[row.dataset]:.1f}" if known and values else "")
        line.append("/".join(map(str, row.best_epochs)))
        line.append(f"{row.seconds:.0f}" if row.model != ORACLE else "")
        line.append(folders_text(Path(folder.name) for folder in row.folders))
        cells.append(line)
    return cells


def footnotes(rows: Sequence[Row]) -> list[str]:
    """What the marks of `to_cells` stand for, and whether there is no test score: a line each."""
    lines = [f"[{number}] {note}" for note, number in numbered(row.note for row in rows).items()]
    pooled = dict.fromkeys(row.splits for row in rows if len(row.splits) > 1)
    lines += [f"mean ± standard deviation over seeds and {len(each)} splits: {', '.join(each)}" for each in pooled]
    if not any(row.test or row.failed for row in rows):
        lines.append("validation only (no_test): no test score was computed")
    return lines


def to_text(cells: Sequence[Sequence[str]]) -> str:
    """Aligned columns for a terminal."""
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def to_markdown(cells: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """A Markdown table, with notes under it."""
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    table = "\n".join([lines[0], "|" + " --- |" * len(cells[0]), *lines[1:]]) + "\n"
    return table + "".join(f"\n{note}  " for note in notes) + ("\n" if notes else "")


def _mean(values: Sequence[float] | None) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{spread}"


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
