"""The main table as LaTeX, laid out as in papers: metrics down in a block for each data set, entries across.

Many entries stand down and the metrics across. Nothing is scaled: all text has the size of the document's tables.
"""

from __future__ import annotations

from runner.extras import numbered
from study.report.figure import metric_name
from study.report.tables import Content, marks, percent, results_of
from study.report.templates import latex_environment
from study.select import mean_and_spread

SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "\N{EN DASH}": "--",
    "\n": " ",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}
WIDE = 6  # entries from which they stand down and the metrics across, so that the table keeps to the width of a page


def escape(text: str) -> str:
    """A text that pdflatex sets as it stands; a sign that its standard fonts lack becomes a question mark."""
    return "".join(SPECIAL.get(sign, sign if sign.isascii() or "À" <= sign <= "ÿ" else "?") for sign in text)


def to_latex(content: Content) -> str:
    """A document that compiles by itself and holds the main table."""
    study, comparisons = content.study, content.comparisons
    labels = [entry.label for entry in study.entries]
    improved = ["Improv."] if comparisons.runner_up else []
    blocks = []
    for dataset in study.datasets:
        of_label = {one.label: one for one in content.chosen if one.dataset == dataset}
        rows = []
        for metric in study.report.metrics:
            found = []
            for label in labels:
                one = of_label.get(label)
                found.append(mean_and_spread(one.best.result(metric)) if one and one.best else None)
            signs = marks([value[0] if value else None for value in found])
            cells = [_cell(value, sign) for value, sign in zip(found, signs, strict=True)]
            comparison = comparisons.find(dataset, metric)
            last = [_improvement(percent(comparison) if comparison else "--")] if improved else []
            rows.append([*cells, *last])
        blocks.append(rows)
    across, down = [escape(metric_name(metric)) for metric in study.report.metrics], [*_names(content), *improved]
    wide = len(labels) >= WIDE
    if wide:
        blocks = [[list(row) for row in zip(*rows, strict=True)] for rows in blocks]
    else:
        across, down = down, across
    named = []
    for dataset, rows in zip(study.datasets, blocks, strict=True):
        first = [escape(dataset), *[""] * (len(rows) - 1)]
        named.append([[of, name, *row] for of, name, row in zip(first, down, rows, strict=True)])
    return (
        latex_environment()
        .get_template("main.tex.j2")
        .render(
            caption=_caption(content),
            label=f"tab:{study.name}",
            columns="ll" + "c" * len(across),
            head=["Data set", "Model" if wide else "Metric", *across],
            blocks=named,
            notes=[escape(note) for note in content.footnotes()],
        )
    )


def _names(content: Content) -> list[str]:
    """The labels of the entries with the numbers of their footnotes."""
    numbers, found = numbered(content.apart.values()), []
    for entry in content.study.entries:
        mine = sorted({numbers[note] for (_, of), note in content.apart.items() if of == entry.label and note})
        found.append(escape(entry.label) + (f"$^{{[{','.join(map(str, mine))}]}}$" if mine else ""))
    return found


def _cell(value: tuple[float, float | None] | None, mark: str) -> str:
    if value is None:
        return "--"
    mean, spread = value
    text = f"{mean:.4f}"
    text = {"best": rf"\textbf{{{text}}}", "second": rf"\underline{{{text}}}"}.get(mark, text)
    return text + (rf"\,{{\tiny$\pm${spread:.4f}}}" if spread is not None else "")


def _improvement(text: str) -> str:
    number = text.rstrip("*")
    stars = text[len(number) :]
    number = f"$-${number[1:]}" if number.startswith("-") and number != "--" else number
    return number.replace("%", r"\%") + (f"$^{{{stars}}}$" if stars else "")


def _caption(content: Content) -> str:
    study, comparisons = content.study, content.comparisons
    n = len(study.reported_seeds)
    over = f"mean and standard deviation over {n} seeds" if n > 1 else "one seed"
    text = f"{results_of(content)}, {over}. The best is bold, the second underlined."
    if comparisons.runner_up:
        text += (
            f" Improv.: {study.reference} over the best other. * p < 0.05, ** p < 0.01 (paired t-test over users, Holm "
            f"correction over {len(comparisons.runner_up)} comparisons)."
        )
    return escape(f"{study.title.rstrip('.')}. {text}")
