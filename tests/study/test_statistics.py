"""Paired tests against scipy and hand computation, Holm's correction, and where a test says nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from study_tools import make_study, make_trial

from study.select import select
from study.statistics import Comparisons, compare, holm, t_test, user_means, wilcoxon


def compared(
    root: Path,
    tests: Mapping[str, list[float]],
    users: Mapping[str, list[Mapping[int, float]]] | None = None,
    metrics: tuple[str, ...] = ("recall@20",),
) -> Comparisons:
    """GTC against the others, from the test value of each seed and the users of each seed."""
    seeds = tuple(range(1, 1 + len(tests["GTC"])))
    results = [
        make_trial(root, label, seed, 0.5, values[seed - 1], users=users[label][seed - 1] if users else None)
        for label, values in tests.items()
        for seed in seeds
    ]
    study = make_study(list(tests), seeds=seeds, reference="GTC", metrics=metrics)
    return compare(study, select(study, results))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]
    assert holm([None, 0.02]) == [None, 0.02]
    assert holm([]) == []


def test_holm_never_falls_with_p_and_never_below_it():
    values = np.random.default_rng(0).random(40) ** 3
    corrected = holm(values.tolist())
    assert all(q is not None and q >= p for p, q in zip(values, corrected, strict=True))
    assert np.argsort(values).tolist() == sorted(range(40), key=lambda k: (corrected[k], values[k]))


def test_t_test_by_hand():
    differences = np.array([0.1, 0.3, 0.2, -0.1, 0.25])
    t = differences.mean() / (differences.std(ddof=1) / math.sqrt(5))
    assert t_test(differences) == pytest.approx(2 * scipy.stats.t.sf(t, 4), rel=1e-12)


def test_wilcoxon_by_hand():
    # The only negative has rank 1: of the 16 sign patterns 4 have a rank sum of at most 1 or at least 9.
    assert wilcoxon(np.array([-0.1, 0.2, 0.3, 0.4])) == pytest.approx(4 / 16)
    assert wilcoxon(np.array([0.0, -0.1, 0.0, 0.2, 0.3, 0.4])) == pytest.approx(4 / 16), (
        "pairs that are equal do not count"
    )


@pytest.mark.parametrize("values", [[], [0.2], [0.0, 0.0, 0.0], [0.1, 0.1, 0.1], [0.1, 0.1 + 1e-17]])
def test_t_test_says_nothing_without_variation(values):
    assert t_test(np.array(values)) is None


def test_wilcoxon_says_nothing_without_a_difference():
    assert wilcoxon(np.zeros(5)) is None


def test_per_user_test_averages_over_seeds_and_pairs_the_users_of_both(tmp_path):
    random = np.random.default_rng(1)
    ours = [{user: float(random.random()) for user in range(30)} for _ in range(2)]
    theirs = [{user: float(random.random()) for user in range(5, 40)} for _ in range(2)]
    del theirs[1][7]  # a user that a seed has not
    (one,) = compared(tmp_path, {"GTC": [0.5, 0.6], "B": [0.4, 0.5]}, {"GTC": ours, "B": theirs}).runner_up
    both = [user for user in range(5, 30) if user != 7]
    a = [(ours[0][user] + ours[1][user]) / 2 for user in both]
    b = [(theirs[0][user] + theirs[1][user]) / 2 for user in both]
    assert one.users == len(both)
    assert one.p["users_t"] == pytest.approx(scipy.stats.ttest_rel(a, b).pvalue, rel=1e-9)
    assert one.p["users_wilcoxon"] == pytest.approx(scipy.stats.wilcoxon(a, b).pvalue, rel=1e-9)
    assert one.holm == one.p, "one comparison needs no correction"


def test_test_over_seeds_pairs_equal_seeds(tmp_path):
    a, b = [0.50, 0.52, 0.49, 0.55], [0.48, 0.47, 0.48, 0.51]
    (one,) = compared(tmp_path, {"GTC": a, "B": b}).runner_up
    assert one.seeds == 4
    assert one.p["seeds_t"] == pytest.approx(scipy.stats.ttest_rel(a, b).pvalue, rel=1e-9)
    assert one.improvement == pytest.approx(100 * (np.mean(a) / np.mean(b) - 1))
    assert (one.p["users_t"], one.users, one.mark()) == (None, 0, ""), "no per_user.csv, no test over users"


def test_too_few_seeds_or_equal_seeds_give_no_test(tmp_path):
    (two,) = compared(tmp_path / "a", {"GTC": [0.5, 0.6], "B": [0.1, 0.4]}).runner_up
    (same,) = compared(tmp_path / "b", {"GTC": [0.5] * 3, "B": [0.4] * 3}).runner_up
    assert (two.p["seeds_t"], same.p["seeds_t"]) == (None, None)


def test_runner_up_is_the_best_other_by_test_and_every_other_is_in_the_matrix(tmp_path):
    found = compared(tmp_path, {"A": [0.3] * 3, "GTC": [0.6] * 3, "B": [0.5] * 3, "C": [0.4] * 3})
    assert [one.other for one in found.runner_up] == ["B"]
    assert [one.other for one in found.every] == ["A", "B", "C"]
    assert found.runner_up[0].improvement == pytest.approx(20)


def test_reference_behind_the_best_other_has_a_negative_improvement(tmp_path):
    (one,) = compared(tmp_path, {"GTC": [0.3], "B": [0.4]}).runner_up
    assert one.improvement == pytest.approx(-25)
    (zero,) = compared(tmp_path, {"GTC": [0.3], "B": [0.0]}).runner_up
    assert zero.improvement is None


def test_the_two_families_are_corrected_apart(tmp_path):
    random = np.random.default_rng(2)
    users = {
        label: [{user: float(random.random() + shift) for user in range(25)} for _ in range(2)]
        for label, shift in (("GTC", 0.4), ("B", 0.2), ("C", 0.0))
    }
    tests = {"GTC": [0.5, 0.5], "B": [0.4, 0.4], "C": [0.3, 0.3]}
    found = compared(tmp_path, tests, users, ("recall@20", "ndcg@20"))
    p = [one.p["users_t"] for one in found.every]
    assert [one.holm["users_t"] for one in found.every] == holm(p)
    assert [one.holm["users_t"] for one in found.runner_up] == holm([p[0], p[2]])
    assert len(found.every) == 4
    assert found.to_json("GTC")["every"][1]["other"] == "C"


@pytest.mark.parametrize(("p", "mark"), [(0.05, ""), (0.049, "*"), (0.01, "*"), (0.0099, "**"), (None, "")])
def test_marks(tmp_path, p, mark):
    (one,) = compared(tmp_path, {"GTC": [0.3], "B": [0.4]}).runner_up
    one.holm["users_t"] = p
    assert one.mark() == mark


def test_nothing_is_compared_without_a_reference_or_its_row(tmp_path):
    results = [make_trial(tmp_path, "B", 1, 0.5, 0.4)]
    for reference in (None, "GTC"):
        study = make_study(["GTC", "B"], seeds=(1,), reference=reference)
        assert compare(study, select(study, results)) == Comparisons([], [])


def test_user_means_are_empty_where_a_seed_lacks_its_file(tmp_path):
    results = [make_trial(tmp_path, "GTC", seed, 0.5, 0.4, users={0: 1.0} if seed == 1 else None) for seed in (1, 2)]
    (chosen,) = select(make_study(["GTC"]), results)
    assert user_means(chosen, ("recall@20",)).empty
