"""What a report says, before it is Markdown, HTML or LaTeX: tables of cells, and sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.extras import numbered
from study.report.figure import Figure, metric_name
from study.results import TrialResult
from study.select import Chosen, describe, mean_and_spread, plain, without_test
from study.spec import Study
from study.statistics import Comparison, Comparisons
from utils.runs.run_folder import folders_text


@dataclass(frozen=True)
class Cell:
    """A cell: its text, what it is sorted by, and whether it is the best or the second of its column."""

    text: str
    value: float | str | None = None
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A table: title, caption, header, rows, rows that stay below when it is sorted, and footnotes."""

    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    foot: tuple[tuple[Cell, ...], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers."""
        return [any(isinstance(row[k].value, int | float) for row in self.rows) for k in range(len(self.header))]


@dataclass
class Content:
    """A whole report."""

    study: Study
    chosen: list[Chosen]
    comparisons: Comparisons
    main: list[Table] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    apart: dict[tuple[str, str], str] = field(default_factory=dict)  # data set and label to a footnote

    def named(self, one: Chosen) -> Cell:
        """The label of an entry with the number of its footnote."""
        number = numbered(self.apart.values()).get(self.apart.get((one.dataset, one.label), ""))
        return Cell(one.label + (f" [{number}]" if number else ""), one.label)

    def footnotes(self, dataset: str | None = None) -> list[str]:
        """The footnotes of a data set's entries, or of all."""
        shown = {note for (of, _), note in self.apart.items() if dataset in (None, of)}
        return [f"[{number}] {note}" for note, number in numbered(self.apart.values()).items() if note in shown]


def marks(values: Sequence[float | None], decimals: int = 4) -> list[str]:
    """For each value best, second or nothing, by what is printed: equals share a mark, one alone has none."""
    shown = [None if value is None else round(value, decimals) for value in values]
    ranked = sorted({value for value in shown if value is not None}, reverse=True)
    alone = sum(value is not None for value in values) < 2
    words = {} if alone else dict(zip(ranked, ("best", "second"), strict=False))
    return ["" if value is None else words.get(value, "") for value in shown]


def cell_of(values: Sequence[float], mark: str = "") -> Cell:
    """Mean and standard deviation over seeds, as a cell."""
    mean, spread = mean_and_spread(values)
    return Cell(f"{mean:.4f}" + (f" ± {spread:.4f}" if spread is not None else ""), mean, mark)


def percent(comparison: Comparison | None) -> str:
    """The improvement as papers print it, with its marks of significance."""
    if comparison is None or comparison.improvement is None:
        return "n/a"
    return f"{comparison.improvement:.2f}%{comparison.mark()}"


def main_table(content: Content, dataset: str) -> Table:
    """The results on a data set: a row for each entry, the reference's improvement below."""
    study, metrics = content.study, content.study.report.metrics
    mine = [one for one in content.chosen if one.dataset == dataset]
    columns = {
        metric: marks([mean_and_spread(one.best.result(metric))[0] if one.best else None for one in mine])
        for metric in metrics
    }
    rows = []
    for place, one in enumerate(mine):
        row = [content.named(one)]
        if one.best:
            row += [cell_of(one.best.valid()), *(cell_of(one.best.result(m), columns[m][place]) for m in metrics)]
        else:
            row += [Cell("-")] * (1 + len(metrics))
        rows.append(tuple(row))
    found = [content.comparisons.find(dataset, metric) for metric in metrics]
    foot = []
    if any(found):
        said = f"{study.reference} over the best other"
        foot.append((Cell(said), Cell(""), *(Cell(percent(one)) for one in found)))
    metric = next((one.best.trials[0].metrics["valid_metric"] for one in mine if one.best), "")
    header = ("entry", f"validation {metric_name(metric)}".strip(), *(metric_name(m) for m in metrics))
    n = len(study.reported_seeds)
    over = f"mean ± standard deviation over {n} seeds" if n > 1 else "one seed"
    caption = (
        f"{results_of(content)} on {dataset}, {over}, each entry at the setting that the mean validation score picked."
    )
    if foot:
        caption += (
            f" {said}: improvement in percent; * p < 0.05, ** p < 0.01 by the paired t-test over users, Holm-corrected over "
            f"{len(content.comparisons.runner_up)} comparisons."
        )
    notes = tuple(content.footnotes(dataset))
    return Table(f"Results on {dataset}", caption, header, tuple(rows), tuple(foot), notes)


def results_of(content: Content) -> str:
    """What the results of the main table are, for its caption."""
    return (
        "Validation results (no_test: no test score was computed)" if without_test(content.chosen) else "Test results"
    )


def beyond_table(content: Content) -> Table | None:
    """Catalogue-wide measures, where the runs have them."""
    rows = []
    keys = list(dict.fromkeys(key for one in content.chosen if one.best for key in beyond_keys(content.study, one)))
    for one in content.chosen:
        if one.best and beyond_keys(content.study, one):
            values = [[t.metrics["beyond"][key] for t in one.best.trials if key in t.metrics["beyond"]] for key in keys]
            cells = [cell_of(found) if found else Cell("-") for found in values]
            rows.append((Cell(one.dataset, one.dataset), content.named(one), *cells))
    if not rows:
        return None
    caption = (
        "Of the recommended lists at test: coverage: share of the catalogue recommended to anybody; novelty: mean "
        "information of a recommendation (bits); gini: inequality of how often items are recommended (0 even, 1 one item); "
        "popularity: popularity of what is recommended over that of what users had. See docs/conventions.md."
    )
    return Table("Beyond accuracy", caption, ("data set", "entry", *keys), tuple(rows), notes=(*content.footnotes(),))


def beyond_keys(study: Study, one: Chosen) -> list[str]:
    """The catalogue-wide measures that all seeds of an entry have, at the cut-offs of the report."""
    if one.best is None or not all(trial.metrics.get("beyond") for trial in one.best.trials):
        return []
    cutoffs = {metric.partition("@")[2] for metric in study.report.metrics}
    keys = list(one.best.trials[0].metrics["beyond"])
    return [key for key in keys if key.partition("@")[2] in cutoffs] or keys


def settings_table(content: Content) -> Table:
    """What was tried and picked: the budget of each entry."""
    rows = []
    for one in content.chosen:
        trials = len(one.trials)
        picked = describe(one.best.point) if one.best else "none yet" if one.preliminary else "none"
        seconds = sum(trial.metrics.get("seconds") or 0.0 for trial in one.trials)
        counts = [len(one.tried), sum(point.complete for point in one.tried), trials]
        counts += [one.count(status) for status in ("finished", "diverged", "failed", "open")]
        rows.append(
            (
                Cell(one.dataset, one.dataset),
                content.named(one),
                *(Cell(str(count), count) for count in counts),
                Cell(f"{seconds:.0f}", seconds),
                Cell(picked, picked),
                Cell(runs_of(one)),
            )
        )
    caption = "The budget of each entry, and the point picked by the mean validation score over the seeds that search."
    header = ("data set", "entry", "points", "complete", "trials", "finished", "diverged", "failed", "open", "seconds")
    notes = tuple(content.footnotes())
    return Table("Search budget and selection", caption, (*header, "selected", "run"), tuple(rows), notes=notes)


def runs_of(one: Chosen) -> str:
    """The folders of the selected runs of an entry, below that of the study."""
    return folders_text(Path(_below(trial.folder)) for trial in one.best.trials) if one.best else ""


def _below(folder: Path) -> str:
    """The folder of a trial below that of its study: trials/DATASET/ENTRY/ID-sSEED."""
    return Path(*folder.parts[-4:]).as_posix()


def significance_table(comparisons: Comparisons) -> Table | None:
    """The tests of the reference against the runner-up."""
    if not comparisons.runner_up:
        return None
    rows = tuple(
        (
            Cell(one.dataset, one.dataset),
            Cell(metric_name(one.metric), one.metric),
            Cell(one.other, one.other),
            Cell(percent(one), one.improvement),
            Cell(str(one.users), one.users),
            *(_p(one.holm[test]) for test in ("users_t", "users_wilcoxon")),
            Cell(str(one.seeds), one.seeds),
            _p(one.holm["seeds_t"]),
        )
        for one in comparisons.runner_up
    )
    caption = (
        f"{comparisons.runner_up[0].reference} against the best other entry by test mean; p values two-sided, "
        f"Holm-corrected over {len(rows)} comparisons for each test. n/a: too few seeds, or no variation. "
        "Against every other entry: statistics.json."
    )
    header = ("data set", "metric", "runner-up", "improvement", "users", "p (t, users)", "p (Wilcoxon, users)")
    return Table("Significance", caption, (*header, "seeds", "p (t, seeds)"), rows)


def _p(value: float | None) -> Cell:
    text = "n/a" if value is None else f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"
    return Cell(text, value)


def trouble_table(results: Iterable[TrialResult]) -> Table | None:
    """Trials that failed or diverged, with their error."""
    bad = [result for result in results if result.status in ("failed", "diverged")]
    rows = tuple(
        tuple(
            Cell(text, text)
            for text in (r.dataset, r.label, describe(r.point), str(r.seed), r.status, r.error, _below(r.folder))
        )
        for r in bad
    )
    header = ("data set", "entry", "point", "seed", "status", "error", "run")
    caption = "A point with such a seed cannot be selected."
    return Table("Failed and diverged trials", caption, header, rows) if rows else None


def provenance(chosen: Sequence[Chosen]) -> list[str]:
    """Sentences on how the selected runs were made."""
    trials = [trial for one in chosen if one.best for trial in one.best.trials]
    facts: dict[str, dict[str, None]] = {}
    for trial in trials:
        manifest = trial.manifest
        versions = manifest.get("versions", {})
        for what, value in (
            ("protocol", manifest.get("protocol")),
            ("code of the harness", versions.get("code")),
            (f"code of {manifest.get('model', trial.model)}", versions.get("model")),
            ("PyTorch", versions.get("torch")),
            ("processor", manifest.get("device_name")),
        ):
            facts.setdefault(what, {})[plain(value)] = None
        hashes = manifest.get("hashes", {})
        splits = ", ".join(f"{name} {hashes[name][:12]}" for name in ("train", "valid", "test") if name in hashes)
        facts.setdefault(f"interactions of {trial.dataset}", {})[splits] = None
    dates = [trial.manifest["started"][:10] for trial in trials if "started" in trial.manifest]
    newest = [f"newest run: {max(dates)}"] if dates else []
    return [*(f"{what}: {' and '.join(values)}" for what, values in facts.items()), *newest]


def records(content: Content) -> list[dict[str, Any]]:
    """A flat record for each data set and entry with everything of the main table, in full precision."""
    found = []
    metrics = content.study.report.metrics
    for one in content.chosen:
        row: dict[str, Any] = {"dataset": one.dataset, "label": one.label, "model": one.model}
        row |= {"points": len(one.tried), "complete": sum(point.complete for point in one.tried)}
        row |= {"selected": describe(one.best.point) if one.best else "", "preliminary": one.preliminary}
        row |= {"note": content.apart.get((one.dataset, one.label), ""), "run": runs_of(one)}
        if one.best:
            row["seeds"] = " ".join(str(trial.seed) for trial in one.best.trials)
            values = {f"valid_{one.best.trials[0].metrics['valid_metric']}": one.best.valid()}
            values |= {f"{one.best.split}_{metric}": one.best.result(metric) for metric in metrics}
            keys = beyond_keys(content.study, one) if content.study.report.beyond_accuracy else []
            values |= {key: [trial.metrics["beyond"][key] for trial in one.best.trials] for key in keys}
            for name, over_seeds in values.items():
                mean, spread = mean_and_spread(over_seeds)
                row |= {name: mean, f"{name}_std": "" if spread is None else spread}
        for comparison in content.comparisons.runner_up:
            if (comparison.dataset, comparison.reference) == (one.dataset, one.label):
                row[f"improvement_percent_{comparison.metric}"] = comparison.improvement
                row[f"runner_up_{comparison.metric}"] = comparison.other
                row[f"p_holm_{comparison.metric}"] = comparison.holm["users_t"]
        found.append(row)
    return found
