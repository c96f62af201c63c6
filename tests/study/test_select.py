"""Selection by mean validation over seeds, the budget record, and what may not stand in one table."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from helpers import problems_of
from study_tools import make_study, make_trial

from study.results import TrialResult
from study.select import Chosen, budget_notes, mean_and_spread, refuse_mixture, replaced, select


def planted(root: Path) -> list[TrialResult]:
    """Three points and two seeds: the best by mean validation is a, by one seed's validation b, by test c."""
    scores = {
        ("a", 1): (0.30, 0.20), ("a", 2): (0.32, 0.22),
        ("b", 1): (0.40, 0.21), ("b", 2): (0.10, 0.23),
        ("c", 1): (0.29, 0.90), ("c", 2): (0.30, 0.80),
    }  # fmt: skip
    return [make_trial(root, "GTC", seed, valid, test, {"key": key}) for (key, seed), (valid, test) in scores.items()]


def only(results: list[TrialResult]) -> Chosen:
    (chosen,) = select(make_study(["GTC"]), results)
    return chosen


def picked(results: list[TrialResult]) -> Any:
    best = only(results).best
    return best and best.point["key"]


def with_status(result: TrialResult, status: str) -> TrialResult:
    return dataclasses.replace(result, status=status, metrics={}, error="broke")


def test_mean_validation_over_seeds_selects_and_neither_test_nor_one_seed(tmp_path):
    results = planted(tmp_path)
    chosen = only(results)
    assert picked(results) == picked(results[::-1]) == "a"
    assert chosen.best is not None
    assert chosen.best.test("recall@20") == [0.20, 0.22]
    assert chosen.best.score() == pytest.approx(0.31)
    by_test = max(chosen.tried, key=lambda point: mean_and_spread(point.test("recall@20"))[0])
    by_one_seed = max(chosen.tried, key=lambda point: max(point.valid()))
    assert (by_test.point["key"], by_one_seed.point["key"]) == ("c", "b")


def test_seeds_stand_in_the_order_of_the_study(tmp_path):
    best = only(planted(tmp_path)[::-1]).best
    assert best is not None
    assert [trial.seed for trial in best.trials] == [1, 2]


@pytest.mark.parametrize("status", ["failed", "diverged"])
def test_point_with_a_bad_seed_is_out_and_said_to_be(tmp_path, status):
    results = planted(tmp_path)
    results[1] = with_status(results[1], status)
    chosen = only(results)
    assert picked(results) == "c"
    assert [(point.why, point.open) for point in chosen.tried] == [
        (f"seed 2 {status}", False),
        ("", False),
        ("", False),
    ]
    assert not chosen.preliminary
    assert budget_notes([chosen]) == [
        f"GTC on demo: 1 of 3 points left out of the selection (key=a: seed 2 {status})."
    ]  # fmt: skip


def test_point_with_an_open_or_absent_seed_is_not_selected_yet(tmp_path):
    results = planted(tmp_path)
    results[1] = with_status(results[1], "open")
    chosen = only(results)
    assert chosen.best is not None
    assert (chosen.best.point, chosen.preliminary) == ({"key": "c"}, True)
    assert budget_notes([chosen]) == ["GTC on demo: trials not finished: 1; another point may yet be picked."]
    (grown,) = select(make_study(["GTC"], seeds=(1, 2, 3)), planted(tmp_path))
    assert (grown.best, grown.preliminary) == (None, True)


def test_where_no_point_is_complete_there_is_no_row(tmp_path):
    results = [with_status(result, "diverged") for result in planted(tmp_path)]
    assert only(results).best is None
    assert "so it has no row" in budget_notes([only(results)])[-1]


def test_entry_without_trials_is_named_as_missing():
    (chosen,) = select(make_study(["GTC"]), [])
    assert (chosen.tried, chosen.best) == ((), None)
    assert budget_notes([chosen]) == ["GTC on demo: trials not finished: all; it has no row yet."]


def test_each_entry_and_data_set_has_its_own_best_in_the_order_of_the_study(tmp_path):
    results = [
        make_trial(tmp_path, label, 1, valid, 0.1, {"key": key}, dataset)
        for dataset in ("baby", "cell")
        for label in ("B", "A")
        for key, valid in ((1, 0.2 + 0.1 * (label == "A")), (2, 0.25))
    ]
    chosen = select(make_study(["A", "B"], ("cell", "baby"), (1,)), results)
    found = [(one.dataset, one.label, one.best and one.best.point["key"]) for one in chosen]
    assert found == [("cell", "A", 1), ("cell", "B", 2), ("baby", "A", 1), ("baby", "B", 2)]


def test_a_different_number_of_points_is_noted(tmp_path):
    results = [*planted(tmp_path), *(make_trial(tmp_path, "B", seed, 0.1, 0.1) for seed in (1, 2))]
    (note,) = budget_notes(select(make_study(["GTC", "B"]), results))
    assert note == "On demo the entries were tried at different numbers of points: GTC 3, B 1."


def test_equals_of_one_kind_may_stand_in_one_table(tmp_path):
    other = {"hashes": {"train": "t", "valid": "v", "test": "e"}, "features": {}}
    refuse_mixture(planted(tmp_path), ("recall@20",))
    refuse_mixture([make_trial(tmp_path, "A", 1, 0.1, 0.1), make_trial(tmp_path, "B", 1, 0.1, 0.1, dataset="cell",
                                                                       manifest=other)])  # fmt: skip


def hashes(**changed: str) -> dict[str, Any]:
    return {"hashes": {"train": "t-demo", "valid": "v-demo", "test": "e-demo", "visual": "feat", **changed}}


@pytest.mark.parametrize(
    ("manifest", "metrics", "said"),
    [
        ({"protocol": "strict"}, {}, "protocol: mmrec (A on demo, seed 1) but strict (B on demo, seed 1)"),
        ({"versions": {"code": "0ther"}}, {}, "code version: c0de (A on demo, seed 1) but 0ther (B on demo, seed 1)"),
        (hashes(test="e2"), {}, "interactions (test) of demo: e-demo (A on demo, seed 1) but e2 (B on demo, seed 1)"),
        (hashes(visual="f2"), {}, "features (visual) of demo: feat (A on demo, seed 1) but f2 (B on demo, seed 1)"),
        ({}, {"valid_metric": "ndcg@20"}, "valid_metric: recall@20 (A on demo, seed 1) but ndcg@20"),
        ({}, {"test": {"recall@20": 0.1}}, "metrics: ndcg@10 not computed by B on demo, seed 1"),
    ],
)
def test_mixtures_are_refused_in_one_line(tmp_path, manifest, metrics, said):
    results = [
        make_trial(tmp_path, "A", 1, 0.1, 0.1),
        make_trial(tmp_path, "B", 1, 0.1, 0.1, manifest=manifest, metrics=metrics),
    ]
    (line,) = problems_of(lambda: refuse_mixture(results, ("recall@20", "ndcg@10")))
    assert said in line
    assert "\n" not in line


def test_everything_that_differs_is_named_at_once(tmp_path):
    results = [
        make_trial(tmp_path, "A", 1, 0.1, 0.1),
        make_trial(tmp_path, "B", 1, 0.1, 0.1, manifest={"protocol": "strict", **hashes(train="x", visual="y")}),
    ]
    (line,) = problems_of(lambda: refuse_mixture(results))
    assert all(word in line for word in ("protocol:", "interactions (train) of demo:", "features (visual) of demo:"))


def test_features_may_differ_where_modality_input_says_so_and_nowhere_else(tmp_path):
    plain = make_trial(tmp_path, "A", 1, 0.1, 0.1)
    noise = [make_trial(tmp_path, "B", seed, 0.1, 0.1, manifest=hashes(visual=f"n{seed}")) for seed in (1, 2)]
    (noise[0].folder / "config.yaml").write_text("modality_input:\n  visual: noise\n")
    refuse_mixture([plain, noise[0]])
    (noise[1].folder / "config.yaml").write_text("modality_input:\n  visual: noise\n")
    (line,) = problems_of(lambda: refuse_mixture([plain, *noise]))
    assert "features (visual, noise) of demo: n1 (B on demo, seed 1) but n2 (B on demo, seed 2)" in line


def test_features_may_differ_by_the_share_that_is_missing(tmp_path):
    trials = [make_trial(tmp_path, "A", 1, 0.1, 0.1)]
    for label, share, digest in (("B", 0.5, "half"), ("C", 0.125, "eighth"), ("D", 0.125, "other")):
        trials.append(make_trial(tmp_path, label, 1, 0.1, 0.1, manifest=hashes(visual=digest)))
        (trials[-1].folder / "config.yaml").write_text(f"missing_share:\n  visual: {share}\n")
    refuse_mixture(trials[:3])
    (line,) = problems_of(lambda: refuse_mixture(trials))
    assert "features (visual, 12.5% missing) of demo: eighth (C on demo, seed 1) but other (D on demo, seed 1)" in line


def test_modalities_that_are_not_their_own_in_words():
    assert replaced({"modality_input": None, "missing_share": {"visual": 0}}) == {}
    settings = {
        "modality_input": {"visual": "noise", "textual": "real"},
        "missing_share": {"visual": 0.29, "textual": 0.5},
    }
    assert replaced(settings) == {"visual": "noise and 29% missing", "textual": "50% missing"}


def test_mean_and_spread_by_hand():
    assert mean_and_spread([1.0, 2.0, 4.0]) == pytest.approx((7 / 3, (7 / 3) ** 0.5))
    assert mean_and_spread([0.5]) == (0.5, None)
