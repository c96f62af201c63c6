"""`search: {seeds: N}`: every point with the first seeds, the best of them with all."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import yaml
from helpers import problems_of
from study_tools import make_study, make_trial

from study.execute import How
from study.results import load
from study.run_study import run_study
from study.select import budget_notes, select
from study.spec import Search, Study, read_study

SMALL = {"n_users": 60, "n_items": 40, "n_interactions": 600, "feature_dims": {"visual": 4, "textual": 3}}
STUDY = {
    "name": "two_stages",
    "datasets": ["demo"],
    "seeds": [5, 6, 7],
    "settings": {"epochs": 2, "synthetic": SMALL, "topk": [5, 10], "valid_metric": "Recall@5", "metrics": ["recall"]},
    "search": {"seeds": 1},
    "entries": ["MostPop", {"model": "LightGCN", "grid": {"n_ui_layers": [1, 2, 3]}}],
    "report": {"metrics": ["recall@5"], "figures": ["hyper_parameters"]},
}


def run_it(folder: Path, content: dict[str, object]) -> int:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(content))
    places = {"data_path": str(folder / "data"), "cache_dir": str(folder / "cache"), "device": "cpu", "threads": 1}
    (folder / "data").mkdir(exist_ok=True)
    return run_study(file, folder, places, How(quiet=True), False)


def runs(folder: Path) -> dict[tuple[str, str], list[int]]:
    """The seeds that each point of each entry was run with."""
    found: dict[tuple[str, str], list[int]] = {}
    for result in load(folder / "studies" / "two_stages"):
        assert result.status == "finished"
        found.setdefault((result.label, json.dumps(result.point)), []).append(result.seed)
    return found


def test_the_point_that_the_first_seed_picks_alone_is_run_with_the_others(tmp_path, capsys):
    assert run_it(tmp_path, STUDY) == 0
    found = runs(tmp_path)
    assert found.pop(("MostPop", "{}")) == [5, 6, 7]
    assert sorted(found.values()) == [[5], [5], [5, 6, 7]]
    by_first = {
        json.dumps(result.point): result.metrics["valid"]["recall@5"]
        for result in load(tmp_path / "studies" / "two_stages")
        if result.label == "LightGCN" and result.seed == 5
    }
    assert [point for (_, point), seeds in found.items() if len(seeds) == 3] == [
        max(by_first, key=by_first.__getitem__)
    ]
    report = (tmp_path / "studies" / "two_stages" / "report" / "report.md").read_text()
    assert "search grid by seed 5 alone; 8 of 8 trials finished" in report
    assert "8 trials in" in capsys.readouterr().out


def test_a_finished_study_runs_nothing_again_and_a_larger_grid_only_what_is_new(tmp_path):
    run_it(tmp_path, STUDY)
    before = runs(tmp_path)
    trials = tmp_path / "studies" / "two_stages" / "trials"
    times = {path: path.stat().st_mtime_ns for path in trials.rglob("metrics.json")}
    run_it(tmp_path, STUDY)
    assert {path: path.stat().st_mtime_ns for path in trials.rglob("metrics.json")} == times
    entries = [{"model": "LightGCN", "grid": {"n_ui_layers": [0, 1, 2, 3]}}, "MostPop"]
    run_it(tmp_path, {**STUDY, "entries": entries})
    after = {path: path.stat().st_mtime_ns for path in trials.rglob("metrics.json")}
    assert {path: after[path] for path in times} == times
    grown = runs(tmp_path)
    assert all(set(seeds) <= set(grown[place]) for place, seeds in before.items())
    assert len(grown[("LightGCN", '{"n_ui_layers": 0}')]) in (1, 3)


def study_of(n: int = 1) -> Study:
    return dataclasses.replace(make_study(["GTC"], seeds=(1, 2, 3)), search=Search(seeds=n))


def test_selection_is_by_the_searching_seeds_even_where_others_would_turn_it(tmp_path):
    results = [
        make_trial(tmp_path, "GTC", 1, 0.3, 0.2, {"key": "a"}),
        make_trial(tmp_path, "GTC", 1, 0.2, 0.9, {"key": "b"}),
    ]
    results += [make_trial(tmp_path, "GTC", seed, 0.0, 0.1, {"key": "a"}) for seed in (2, 3)]
    (chosen,) = select(study_of(), results)
    assert chosen.best is not None
    assert (chosen.best.point, len(chosen.best.trials), chosen.preliminary) == ({"key": "a"}, 3, False)
    assert (chosen.best.score(), chosen.best.searched()) == (0.3, [0.3])
    assert chosen.best.valid() == [0.3, 0.0, 0.0]
    assert budget_notes([chosen]) == []


def test_the_best_has_no_row_before_all_its_seeds_have_one(tmp_path):
    results = [
        make_trial(tmp_path, "GTC", 1, 0.3, 0.2, {"key": "a"}),
        make_trial(tmp_path, "GTC", 1, 0.2, 0.9, {"key": "b"}),
    ]
    results.append(make_trial(tmp_path, "GTC", 2, 0.3, 0.2, {"key": "a"}))
    results.append(make_trial(tmp_path, "GTC", 3, 0.3, 0.2, {"key": "a"}, status="open"))
    (chosen,) = select(study_of(), results)
    assert (chosen.best, chosen.preliminary) == (None, True)
    assert budget_notes([chosen]) == ["GTC on demo: trials not finished: 1; it has no row yet."]


@pytest.mark.parametrize("status", ["failed", "diverged"])
def test_where_another_seed_of_the_best_fails_the_next_takes_its_place(status, tmp_path):
    results = [
        make_trial(tmp_path, "GTC", 1, 0.3, 0.2, {"key": "a"}),
        make_trial(tmp_path, "GTC", 1, 0.2, 0.9, {"key": "b"}),
    ]
    results.append(make_trial(tmp_path, "GTC", 2, 0.0, 0.0, {"key": "a"}, status=status))
    results += [make_trial(tmp_path, "GTC", seed, 0.2, 0.9, {"key": "b"}) for seed in (2, 3)]
    (chosen,) = select(study_of(), results)
    assert chosen.best is not None
    assert chosen.best.point == {"key": "b"}
    assert budget_notes([chosen]) == [
        f"GTC on demo: 1 of 2 points left out of the selection (key=a: seed 2 {status})."
    ]  # fmt: skip


def test_a_study_whose_best_loses_a_seed_goes_on_with_the_next(tmp_path):
    run_it(tmp_path, STUDY)
    folder = tmp_path / "studies" / "two_stages"
    first = next(point for (label, point), seeds in runs(tmp_path).items() if label == "LightGCN" and len(seeds) == 3)
    victim = next(r for r in load(folder) if json.dumps(r.point) == first and r.label == "LightGCN" and r.seed == 7)
    (victim.folder / "metrics.json").unlink()
    (victim.folder / "error.json").write_text('{"error": "its process died 2 times"}')
    assert run_it(tmp_path, STUDY) == 1
    found = {r.folder.name: r for r in load(folder) if r.label == "LightGCN"}
    assert len(found) == 7, "three points with the first seed, two each of the former and the new best"
    row = (folder / "report" / "main.csv").read_text()
    assert json.loads(first)["n_ui_layers"] not in [int(word) for word in row.partition("n_ui_layers=")[2][:1]]


@pytest.mark.parametrize(
    ("seeds", "says"),
    [
        (0, "search: seeds: expected an integer or null of at least 1, got 0"),
        (True, "search: seeds: expected an integer or null of at least 1, got True"),
        (4, "search: seeds: expected at most 3, as many as the study has, got 4"),
    ],
)
def test_a_wrong_number_of_seeds_is_one_line(seeds, says, tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({**STUDY, "search": {"seeds": seeds}}))
    assert problems_of(lambda: read_study(file)) == [f"study.yaml: {says}"]


def test_a_search_without_test_scores_and_its_best_point_with_them(tmp_path):
    content = {**STUDY, "search": {"seeds": 1, "no_test": True}}
    assert run_it(tmp_path, content) == 0
    folder = tmp_path / "studies" / "two_stages"
    results = load(folder)
    assert {r.seed for r in results if r.metrics["test"] is None} == {5}, "the seed that searches, at each point"
    assert {r.seed for r in results if r.metrics["test"]} == {6, 7}
    assert len([r for r in results if r.label == "LightGCN"]) == 3 + 2, "three points, and two more seeds of the best"
    for result in results:
        tested = (result.folder / "per_user.csv").read_text().count("test,")
        assert bool(tested) == (result.seed != 5)
    (best,) = [
        one.best
        for one in select(read_study(folder / "study.yaml", tmp_path / "data"), results)
        if one.label == "LightGCN"
    ]
    assert [trial.seed for trial in best.trials] == [6, 7]
    by_first = {
        json.dumps(r.point): r.metrics["valid"]["recall@5"] for r in results if r.label == "LightGCN" and r.seed == 5
    }
    assert json.dumps(best.point) == max(by_first, key=by_first.__getitem__)
    report = (folder / "report" / "report.md").read_text()
    assert "by seed 5 alone without a test score; 8 of 8 trials finished" in report
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("metrics.json")}
    assert run_it(tmp_path, content) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("metrics.json")} == times


@pytest.mark.parametrize("search", [{"no_test": True}, {"no_test": True, "seeds": 3}])
def test_a_search_without_test_scores_leaves_seeds_for_the_test(tmp_path, search):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({**STUDY, "search": search}))
    lines = problems_of(lambda: read_study(file, tmp_path))
    assert "search: no_test: expected search: seeds from 1 to 2" in lines[0]
