"""The main table as LaTeX, laid out as in papers: metrics down in a block for each data set, entries across."""

from __future__ import annotations

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
WIDE = 8  # entries from which the table is scaled to the width of the page


def escape(text: str) -> str:
    """A text that pdflatex sets as it stands; a sign that its standard fonts lack becomes a question mark."""
    return "".join(SPECIAL.get(sign, sign if sign.isascii() or "À" <= sign <= "ÿ" else "?") for sign in text)


def to_latex(content: Content) -> str:
    """A document that compiles by itself and holds the main table."""
    study, comparisons = content.study, content.comparisons
    labels = [entry.label for entry in study.entries]
    improved = bool(comparisons.runner_up)
    blocks = []
    for dataset in study.datasets:
        of_label = {one.label: one for one in content.chosen if one.dataset == dataset}
        rows = []
        for place, metric in enumerate(study.report.metrics):
            found = []
            for label in labels:
                one = of_label.get(label)
                found.append(mean_and_spread(one.best.result(metric)) if one and one.best else None)
            signs = marks([value[0] if value else None for value in found])
            cells = [_cell(value, sign) for value, sign in zip(found, signs, strict=True)]
            comparison = comparisons.find(dataset, metric)
            last = [_improvement(percent(comparison) if comparison else "--")] if improved else []
            rows.append([escape(dataset) if place == 0 else "", escape(metric_name(metric)), *cells, *last])
        blocks.append(rows)
    return (
        latex_environment()
        .get_template("main.tex.j2")
        .render(
            caption=_caption(content),
            label=f"tab:{study.name}",
            columns="ll" + "c" * len(labels) + ("r" if improved else ""),
            head=["Data set", "Metric", *map(escape, labels), *(["Improv."] if improved else [])],
            blocks=blocks,
            scaled=len(labels) >= WIDE,
        )
    )


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
