"""The report of a study: tables as Markdown, CSV, LaTeX and HTML, figures as SVG, PDF and PNG, and the tests as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runner.comparison import to_markdown, to_text
from runner.session import older_notes
from study.report.figures import draw
from study.report.inputs import input_table
from study.report.latex import to_latex
from study.report.page import HEADINGS, scope, to_html
from study.report.tables import (
    Cell,
    Content,
    beyond_table,
    main_table,
    provenance,
    records,
    runs_of,
    settings_table,
    significance_table,
    trouble_table,
)
from study.results import TrialResult
from study.select import budget_notes, describe, older, refuse_mixture, select, what_sets_apart, without_test
from study.spec import Study
from study.statistics import Comparisons, compare
from utils.charts import FORMS, rendered
from utils.files import make_folder, write_bytes, write_csv, write_json


def write_report(
    study: Study, results: Sequence[TrialResult], folder: Path, forms: Sequence[str] = tuple(FORMS)
) -> None:
    """Writes the report and prints its main table.

    Args:
        study: whose file names the entries, metrics and figures.
        results: of every trial, finished or not.
        folder: the report's.
        forms: of the figures; the page has them as SVG whatever these are.

    Raises:
        UserError: if the selected runs cannot stand in one table, or the folder cannot be written.
    """
    content = gather(study, results)
    figures = folder / "figures"
    make_folder(figures)
    write_csv(folder / "main.csv", records(content))
    write_csv(folder / "trials.csv", trial_records(content, results, folder.parent))
    write_json(folder / "statistics.json", content.comparisons.to_json(study.reference))
    write_bytes(folder / "main.tex", to_latex(content).encode())
    drawn = {f"{figure.name}.{form}": rendered(figure.chart, form) for figure in content.figures for form in forms}
    for name, picture in drawn.items():
        write_bytes(figures / name, picture)
    for path in figures.iterdir():
        if path.suffix[1:] in FORMS and path.name not in drawn:  # of an earlier report of the study
            path.unlink()
    write_bytes(folder / "report.md", markdown(content, "svg" if "svg" in forms else forms[-1]).encode())
    page = to_html(content, {figure.name: rendered(figure.chart, "svg") for figure in content.figures})
    write_bytes(folder / "report.html", page.encode())
    print(terminal(content))
    print(f"report in {folder / 'report.html'}")


def gather(study: Study, results: Sequence[TrialResult]) -> Content:
    """Selection, tests, tables and figures.

    Raises:
        UserError: if the selected runs cannot stand in one table.
    """
    chosen = select(study, results)
    refuse_mixture([trial for one in chosen if one.best for trial in one.best.trials], study.report.metrics)
    no_test = without_test(chosen)
    content = Content(study, chosen, Comparisons([], []) if no_test else compare(study, chosen))
    content.apart = what_sets_apart(chosen)
    content.main = [main_table(content, dataset) for dataset in study.datasets]
    beyond = beyond_table(content) if study.report.beyond_accuracy else None
    tables = [significance_table(content.comparisons), None if no_test else input_table(content), beyond]
    tables += [settings_table(content), trouble_table(results)]
    content.tables = [table for table in tables if table]
    content.figures, missing = draw(study, chosen)
    content.notes = [*older_notes(Counter(result.label for result in older(results)), "trial"), *budget_notes(chosen)]
    if no_test:
        content.notes.append(
            "Validation only (no_test): no test score was computed, and nothing is tested against another."
        )
    if study.report.beyond_accuracy and beyond is None:
        content.notes.append("No table beyond accuracy: the runs take the setting `beyond_accuracy: true`.")
    content.notes += [*missing, *provenance(chosen)]
    return content


def trial_records(content: Content, results: Sequence[TrialResult], root: Path) -> list[dict[str, Any]]:
    """A flat record for each trial; `root` is the study's folder."""
    found = []
    for result in results:
        metrics = result.metrics
        row: dict[str, Any] = {"dataset": result.dataset, "label": result.label, "model": result.model}
        row |= {"seed": result.seed, "status": result.status, **{f"point_{k}": v for k, v in result.point.items()}}
        for split in ("valid", "test"):
            row |= {f"{split}_{name}": value for name, value in (metrics.get(split) or {}).items()}
        row |= {name: metrics.get(name, "") for name in ("best_epoch", "epochs", "seconds")}
        inside = result.folder.is_relative_to(root)
        row |= {"code": " ".join(str(result.manifest.get("versions", {}).get(k, "")) for k in ("code", "model"))}
        row |= {"note": content.apart.get((result.dataset, result.label), "")}
        row |= {"error": result.error, "run": result.folder.relative_to(root) if inside else result.folder}
        found.append(row)
    return found


def markdown(content: Content, form: str = "svg") -> str:
    """The report in Markdown, which shows the figures of its folder, in one of their forms."""
    study = content.study
    parts = [f"# {_plain_markdown(study.title)}", f"Study `{study.name}`: {_plain_markdown(scope(content))}"]
    parts += ["\n".join(f"- {_plain_markdown(note)}" for note in content.notes)] if content.notes else []
    for table in [*content.main, *content.tables]:
        cells = [[_plain_markdown(word) for word in table.header]]
        cells += [[_markdown_cell(cell) for cell in row] for row in [*table.rows, *table.foot]]
        parts += [f"## {_plain_markdown(table.title)}", _plain_markdown(table.caption)]
        parts += [to_markdown(cells, [_plain_markdown(note) for note in table.notes]).rstrip()]
    kind = ""
    for figure in content.figures:
        if figure.kind != kind:
            kind = figure.kind
            parts.append(f"## {HEADINGS[kind]}")
        parts += [
            f"![{_plain_markdown(figure.caption)}](figures/{figure.name}.{form})",
            _plain_markdown(figure.caption),
        ]
    return "\n\n".join(parts) + "\n"


def terminal(content: Content) -> str:
    """The main tables for a terminal: (1) the best, (2) the second; what was picked, and what is of older code."""
    signs = {"best": " (1)", "second": " (2)", "": ""}
    parts = []
    for table in content.main:
        cells = [[*table.header]]
        cells += [[cell.text + signs[cell.mark] for cell in row] for row in [*table.rows, *table.foot]]
        title = f"{table.title}; (1) the best, (2) the second"
        parts.append("\n".join([title, to_text(cells), *table.notes]))
    picked = [one for one in content.chosen if one.best and len(one.tried) > 1]
    lines = [f"picked: {o.label} on {o.dataset}: {describe(o.best.point)}, in {runs_of(o)}" for o in picked if o.best]
    lines += [note for note in content.notes if "--rerun_changed" in note]
    parts += ["\n".join(lines)] if lines else []
    return "\n\n".join(parts)


def _markdown_cell(cell: Cell) -> str:
    text = _plain_markdown(cell.text)
    return {"best": f"**{text}**", "second": f"<u>{text}</u>"}.get(cell.mark, text)


def _plain_markdown(text: str) -> str:
    for sign in "\\|*<`[":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
