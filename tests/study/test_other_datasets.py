"""A ready study on other data sets and seeds than its file names."""

from __future__ import annotations

import json

import pytest
from cli_tools import places, run_here, trained, write_dataset

from study.spec import read_study

FILE = """
name: parts
datasets: [sports, baby]
seeds: [1, 2, 3]
settings: &few {topk: 5, valid_metric: Recall@5}
entries:
  - MostPop
  - {label: again, model: MostPop, settings: {<<: *few}}
report: {metrics: [recall@5], figures: []}
"""


@pytest.fixture
def world(tmp_path):
    write_dataset(tmp_path / "data" / "toy")
    (tmp_path / "parts.yaml").write_text(FILE)
    return tmp_path


def test_it_runs_on_them_under_a_name_of_its_own_and_the_folder_keeps_what_ran(world):
    words = ("study", world / "parts.yaml", "-d", "toy", "--seed", 4, 5, *places(world), "--quiet")
    trained(*words)
    folder = world / "runs" / "studies" / "parts-toy"
    plan = json.loads((folder / "plan.json").read_text())
    assert sorted((trial["label"], trial["dataset"], trial["seed"]) for trial in plan) == [
        ("MostPop", "toy", 4), ("MostPop", "toy", 5), ("again", "toy", 4), ("again", "toy", 5)
    ]  # fmt: skip
    kept = read_study(folder / "study.yaml", world / "data")
    assert (kept.name, kept.datasets, kept.seeds) == ("parts-toy", ("toy",), (4, 5))
    report = (folder / "report" / "report.md").read_bytes()
    trained("report", folder)
    assert (folder / "report" / "report.md").read_bytes() == report


def test_seeds_alone_leave_the_name(world):
    trained("study", world / "parts.yaml", "--dataset", "toy", "--seed", 4, *places(world), "--quiet")
    trained("study", world / "parts.yaml", "--dataset", "toy", "--seed", 4, 6, *places(world), "--quiet")
    plan = json.loads((world / "runs" / "studies" / "parts-toy" / "plan.json").read_text())
    assert {trial["seed"] for trial in plan} == {4, 6}, "a study may grow"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("-d", "toys"), "datasets: unknown data set 'toys' (did you mean 'toy'?)"),
        (("-d",), "study: --dataset: a value is missing"),
        (("-d", "toy", "--seed"), "study: --seed: a value is missing"),
        (("-d", "toy", "--seed", "first"), "study: --seed: expected a list of integers"),
        (("-d", "toy", "--seed", "1", "1"), "seeds: a seed stands twice"),
        (("--datasets", "toy"), "study: unknown option --datasets (did you mean 'dataset'?)"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_mistake_is_a_line_and_nothing_is_run(world, words, says):
    outcome = run_here("study", world / "parts.yaml", *words, *places(world))
    assert outcome.code == 2
    assert says in outcome.err
    assert not (world / "runs").exists()
