"""The report as one HTML page: it needs no other file and no network, its tables sort, and it prints."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from study.report.figure import Figure
from study.report.tables import Content
from study.report.templates import environment
from study.spec import Study

HEADINGS = {
    "convergence": "Convergence",
    "hyper_parameters": "Validation against hyper-parameters",
    "ablation": "Entries side by side",
    "balance": "Modality balance",
    "dot_products": "Dot products by modality",
    "groups": "Groups of users and items",
    "missing": "Items that lack content",
    "cost": "Accuracy against cost",
}


def to_html(content: Content, drawn: Mapping[str, bytes]) -> str:
    """The page.

    Args:
        content: of the report.
        drawn: name of each figure to its SVG.
    """
    figures: dict[str, list[tuple[Figure, str]]] = {}
    for figure in content.figures:
        address = "data:image/svg+xml;base64," + base64.b64encode(drawn[figure.name]).decode()
        figures.setdefault(figure.kind, []).append((figure, address))
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            study=content.study,
            scope=scope(content),
            notes=content.notes,
            tables=[*content.main, *content.tables],
            figures=figures,
            headings=HEADINGS,
        )
    )


def scope(content: Content) -> str:
    """What the study ran, in a line."""
    study = content.study
    trials = sum(len(one.trials) for one in content.chosen)
    done = sum(one.count("finished") for one in content.chosen)
    return (
        f"{len(study.entries)} entries, data sets {', '.join(study.datasets)}, seeds "
        f"{', '.join(map(str, study.seeds))}, search {study.search.method}{_by_seeds(study)}; {done} of {trials} trials "
        "finished."
    )


def _by_seeds(study: Study) -> str:
    if study.search.seeds is None:
        return ""
    words = ", ".join(map(str, study.search_seeds))
    alone = f" by seed {words} alone" if study.search.seeds == 1 else f" by seeds {words} alone"
    return f"{alone} without a test score" if study.search.no_test else alone
