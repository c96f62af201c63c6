"""Is the reference better than the others, or only luckier: paired tests per user and over seeds, Holm-corrected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

from study.select import Chosen
from study.spec import Study

LEAST_SEEDS = 3  # for a test over seeds
TESTS = ("users_t", "users_wilcoxon", "seeds_t")


@dataclass
class Comparison:
    """The reference against another entry, on a data set and by a metric.

    Attributes:
        means: test means over seeds, of the reference and of the other.
        improvement: of the reference, in percent of the other; None where the other has 0.
        users: users that both were tested on.
        seeds: seeds that both have.
        p: test to p value; None where it says nothing: no variation, too few seeds, or no values per user.
        holm: the same, corrected over the family of comparisons that it belongs to.
    """

    dataset: str
    metric: str
    reference: str
    other: str
    means: tuple[float, float]
    improvement: float | None
    users: int
    seeds: int
    p: dict[str, float | None]
    holm: dict[str, float | None] = field(default_factory=dict)

    def mark(self) -> str:
        """Two stars below 0.01, one below 0.05, by the t-test over users, corrected."""
        p = self.holm.get("users_t")
        return "" if p is None or p >= 0.05 else "*" if p >= 0.01 else "**"


@dataclass(frozen=True)
class Comparisons:
    """The reference against the runner-up of each data set and metric, and against every other entry.

    The two are corrected apart: the first is one family of data sets x metrics, the second one of all its members.
    """

    runner_up: list[Comparison]
    every: list[Comparison]

    def find(self, dataset: str, metric: str) -> Comparison | None:
        """The comparison with the runner-up, if there is one."""
        return next((c for c in self.runner_up if (c.dataset, c.metric) == (dataset, metric)), None)

    def to_json(self, reference: str | None) -> dict[str, Any]:
        """What statistics.json holds."""
        return {
            "reference": reference,
            "correction": "Holm",
            "tests": {
                "users_t": "paired t-test over users, each user's value averaged over seeds",
                "users_wilcoxon": "Wilcoxon signed-rank test over the same pairs, users without a difference left out",
                "seeds_t": f"paired t-test over seeds, from {LEAST_SEEDS} seeds on",
            },
            "runner_up": [asdict(one) for one in self.runner_up],
            "every": [asdict(one) for one in self.every],
        }


def compare(study: Study, chosen: Sequence[Chosen]) -> Comparisons:
    """Tests the study's reference against every other entry with a selected point; nothing without a reference."""
    runner_up: list[Comparison] = []
    every: list[Comparison] = []
    for dataset in study.datasets:
        mine = [one for one in chosen if one.dataset == dataset and one.best]
        reference = next((one for one in mine if one.label == study.reference), None)
        others = [one for one in mine if one is not reference]
        if reference is None or not others:
            continue
        per_user = {one.label: user_means(one, study.report.metrics) for one in mine}
        for metric in study.report.metrics:
            here = [_compare(reference, other, metric, per_user) for other in others]
            every += here
            # A copy: the same comparison has another corrected p value in the smaller family.
            best = max(here, key=lambda one: one.means[1])
            runner_up.append(Comparison(**{**vars(best), "holm": {}}))
    for family in (runner_up, every):
        for test in TESTS:
            for one, p in zip(family, holm([one.p[test] for one in family]), strict=True):
                one.holm[test] = p
    return Comparisons(runner_up, every)


def user_means(chosen: Chosen, metrics: Sequence[str]) -> pd.DataFrame:
    """The test value of each user, averaged over seeds: a row per user that every seed has, a column per metric.

    Empty if per_user.csv of a seed is gone.
    """
    trials = chosen.best.trials if chosen.best else ()
    if not trials or not all((trial.folder / "per_user.csv").is_file() for trial in trials):
        return pd.DataFrame(columns=list(metrics), dtype=float)
    tables = [trial.per_user("test").set_index("user")[list(metrics)] for trial in trials]
    users = tables[0].index
    for table in tables[1:]:
        users = users.intersection(table.index)
    values = np.mean([table.loc[users].to_numpy(dtype=float) for table in tables], axis=0)
    return pd.DataFrame(values, index=users, columns=list(metrics))


def _compare(reference: Chosen, other: Chosen, metric: str, per_user: dict[str, pd.DataFrame]) -> Comparison:
    assert reference.best is not None
    assert other.best is not None
    mine, theirs = reference.best.test(metric), other.best.test(metric)
    first, second = (float(np.mean(values)) for values in (mine, theirs))
    ours, others = per_user[reference.label][metric], per_user[other.label][metric]
    users = ours.index.intersection(others.index)
    by_user = ours.loc[users].to_numpy(dtype=float) - others.loc[users].to_numpy(dtype=float)
    by_user[np.abs(by_user) < 1e-12] = 0.0  # averages of the same hits, summed in another order
    by_seed = np.array(mine) - np.array(theirs)  # a complete point has all seeds, in one order
    return Comparison(
        reference.dataset,
        metric,
        reference.label,
        other.label,
        (first, second),
        100 * (first - second) / second if second else None,
        len(users),
        len(by_seed),
        {
            "users_t": t_test(by_user),
            "users_wilcoxon": wilcoxon(by_user),
            "seeds_t": t_test(by_seed) if len(by_seed) >= LEAST_SEEDS else None,
        },
    )


def t_test(differences: NDArray[np.float64]) -> float | None:
    """Two-sided p value of the paired t-test; None for fewer than two pairs or pairs that all differ by the same."""
    size = np.abs(differences).max(initial=0.0)
    if len(differences) < 2 or differences.std() <= 1e-12 * size:
        return None
    return float(scipy.stats.ttest_1samp(differences, 0.0).pvalue)


def wilcoxon(differences: NDArray[np.float64]) -> float | None:
    """Two-sided p value of the signed-rank test over the pairs that differ; None where none does."""
    differing = differences[differences != 0]
    return float(scipy.stats.wilcoxon(differing).pvalue) if len(differing) else None


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction; what is None is no member of the family.

    The k-th smallest of m is multiplied by m - k + 1, kept from falling below the one before it and from exceeding 1.
    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statistics 6, 1979.
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        corrected[place] = largest
    return corrected
