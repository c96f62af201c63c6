"""The figures of a report, drawn from what the trials left behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from study.report import curves, outcomes
from study.report.figure import Figure
from study.select import Chosen, without_test
from study.spec import Study

OF_TEST = ("ablation", "groups", "missing", "cost")


def draw(study: Study, chosen: Sequence[Chosen]) -> tuple[list[Figure], list[str]]:
    """Every figure that the study asks for, and a sentence for each that the runs do not give."""
    makers: dict[str, Callable[[Study, str, list[Chosen]], list[Figure]]] = {
        "convergence": curves.convergence,
        "hyper_parameters": curves.hyper_parameters,
        "ablation": outcomes.ablation,
        "balance": curves.balance,
        "dot_products": curves.dot_products,
        "groups": outcomes.groups,
        "missing": outcomes.missing,
        "cost": outcomes.cost,
    }
    missing = {
        "convergence": "no run has finished",
        "hyper_parameters": "no entry has finished two values of a searched key",
        "ablation": "no run has finished",
        "balance": "the runs have no balance; it takes the setting `analyses: [balance]`",
        "dot_products": "the runs have no dot products; they take the setting `analyses: [dot_products]`",
        "groups": "the runs have no groups; they take the setting `group_by`",
        "missing": "no two entries differ in the share of `missing_share` alone",
        "cost": "no run has finished",
    }
    figures: list[Figure] = []
    notes = []
    no_test = without_test(chosen)
    for kind in study.report.figures:
        if no_test and kind in OF_TEST:
            notes.append(f"No figure {kind}: it shows test results, and the runs have none (no_test).")
            continue
        for dataset in study.datasets:
            mine = [one for one in chosen if one.dataset == dataset]
            found = makers[kind](study, dataset, mine)
            figures += found
            if not found:
                notes.append(f"No figure {kind} for {dataset}: {missing[kind]}.")
    return figures, notes
