"""Which trials a study stands for."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import problems_of

from study.plan import plan, points
from study.spec import Entry, Range, Report, Search, Study

PLACES = {"data_path": "no-such-folder", "output_dir": "out", "device": "cpu", "threads": 1}
SPACE = {"n_ui_layers": (1, 2, 3), "reg_weight": (1e-3, 1e-2)}


def study_of(
    *entries: Entry, search: Search | None = None, seeds: tuple[int, ...] = (1, 2), **settings: object
) -> Study:
    return Study("s", "S", ("demo",), seeds, entries, settings, search or Search(), None, Report())


def entry(model: str = "LightGCN", label: str = "", **options: object) -> Entry:
    return replace(Entry(label or model, model, ("demo",)), **options)  # type: ignore[arg-type]


def test_a_grid_is_the_product_of_its_lists_times_the_seeds():
    trials = plan(study_of(entry(grid=SPACE)), PLACES)
    assert [(t.point["n_ui_layers"], t.point["reg_weight"], t.seed) for t in trials] == [
        (layers, weight, seed) for layers in (1, 2, 3) for weight in (1e-3, 1e-2) for seed in (1, 2)
    ]
    assert all(t.config["n_ui_layers"] == t.point["n_ui_layers"] and t.config["seed"] == t.seed for t in trials)
    assert len({t.folder for t in trials}) == 12
    assert all(Path(t.folder).parts[:3] == ("trials", "demo", "LightGCN") for t in trials)


def test_seeds_have_the_splits_in_turn():
    study = replace(study_of(entry(), entry("BPR"), seeds=(7, 8, 9)), splits=2)
    trials = plan(study, PLACES)
    assert [(t.seed, t.config["split_field"]) for t in trials] == 2 * [(7, "x_label"), (8, "x_label_2"), (9, "x_label")]
    assert len({t.folder for t in trials}) == 6


def test_an_entry_without_a_grid_is_one_point():
    (trial,) = plan(study_of(entry(settings={"reg_weight": 0.5}), seeds=(3,), epochs=7), PLACES)
    assert (trial.point, trial.config["reg_weight"], trial.config["epochs"]) == ({}, 0.5, 7)


def test_settings_of_all_entries_reach_the_models_that_know_them():
    trials = plan(study_of(entry(), entry("GTC"), seeds=(1,), noise_steps=20), PLACES)
    assert [t.config["noise_steps"] for t in trials] == [None, 20]


def test_the_settings_of_an_entry_win_over_those_of_all():
    trials = plan(study_of(entry(settings={"epochs": 2}), seeds=(1,), epochs=7), PLACES)
    assert trials[0].config["epochs"] == 2


def test_a_budget_below_the_grid_draws_points_without_replacement_and_always_the_same():
    search = Search("grid", 4, 0)
    found = points(entry(grid=SPACE), search)
    assert len(found) == 4
    assert len({str(point) for point in found}) == 4
    assert found == points(entry(grid=SPACE), search)
    others = {str(points(entry(grid=SPACE), replace(search, seed=seed))) for seed in range(10)}
    assert len(others) > 1
    assert points(entry(grid=SPACE), Search("grid", 100)) == points(entry(grid=SPACE), Search())


def test_random_points_lie_in_their_ranges_and_follow_their_scale():
    grid = {"a": Range(1e-4, 1e-1, log=True), "b": Range(0.0, 1.0), "c": Range(1, 3, whole=True), "d": ("x", "y")}
    found = points(entry(grid=grid), Search("random", 2000))
    assert len(found) == 2000
    logs = [math.log10(point["a"]) for point in found]
    assert min(logs) >= -4
    assert max(logs) <= -1
    assert sum(logs) / 2000 == pytest.approx(-2.5, abs=5 * (3 / 12**0.5) / 2000**0.5), "uniform in the logarithm"
    assert sum(point["b"] for point in found) / 2000 == pytest.approx(0.5, abs=5 * 12**-0.5 / 2000**0.5)
    for key, values in (("c", {1, 2, 3}), ("d", {"x", "y"})):
        counts = Counter(point[key] for point in found)
        assert set(counts) == values
        assert min(counts.values()) > 0.8 * 2000 / len(values)


def test_random_points_are_distinct_even_where_the_space_is_smaller_than_the_budget():
    found = points(entry(grid=SPACE), Search("random", 50))
    assert len(found) == len({str(point) for point in found}) == 6


def test_points_that_are_the_same_run_are_refused():
    study = study_of(entry(grid={"reg_weight": (0.001, "1e-3")}), seeds=(1,))
    assert "expected a number" in problems_of(lambda: plan(study, PLACES))[0]
    study = study_of(entry(grid={"reg_weight": (0, 0.0, 1)}), seeds=(1,))
    assert "are the same run" in problems_of(lambda: plan(study, PLACES))[0]


def test_a_wrong_value_names_entry_and_key():
    problems = problems_of(lambda: plan(study_of(entry(grid={"n_ui_layers": (1, -1)})), PLACES))
    assert problems == ["LightGCN on demo: command line: n_ui_layers: expected an integer of at least 0, got -1"]


def test_tpe_proposes_generation_after_generation_from_what_it_was_told():
    optuna = pytest.importorskip("optuna", reason="optuna is not installed")
    assert optuna
    mine = entry(grid={"reg_weight": Range(1e-5, 1e-1, log=True), "n_ui_layers": (1, 2, 3)})
    search = Search("tpe", 10, 3)
    first = points(mine, search)
    assert len(first) == 4
    told = [0.1, 0.2, None, 0.05]
    second = points(mine, search, told)
    assert second[:4] == first
    assert len(second) == 8
    assert points(mine, search, told) == second, "a function of what was told"
    assert points(mine, search, told[:2]) == first, "a generation waits until it is told whole"
    third = points(mine, search, [*told, 0.3, 0.1, 0.2, 0.1])
    assert len(third) == 10
    assert len(points(mine, search, [0.1] * 10)) == 10
