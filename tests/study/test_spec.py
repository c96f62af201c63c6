"""A study file is checked whole before anything runs."""

from pathlib import Path

import pytest
from helpers import problems_of

from study.spec import Range, read_study

GOOD = """
name: mine
title: Two models
datasets: [demo]
seeds: [1, 2]
settings: {epochs: 3, noise_steps: 20}
search: {method: random, trials: 4, seed: 7}
entries:
  - MostPop
  - model: lightgcn
    grid: {n_layers: [1, 2], reg_weight: {low: 1e-5, high: 1e-2, log: true}}
  - {label: GTC w/o TC, model: GTC, settings: {tc_weight: 0}, best: true}
reference: GTC w/o TC
report: {metrics: [Recall@20], figures: [cost], beyond_accuracy: true}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def test_a_good_file_is_read_as_it_says(tmp_path):
    study = read_study(written(tmp_path, GOOD))
    assert (study.name, study.title, study.datasets, study.seeds) == ("mine", "Two models", ("demo",), (1, 2))
    assert [entry.label for entry in study.entries] == ["MostPop", "LightGCN", "GTC w/o TC"]
    assert [entry.slug for entry in study.entries] == ["MostPop", "LightGCN", "GTC_w_o_TC"]
    assert study.entries[1].grid == {"n_layers": (1, 2), "reg_weight": Range(1e-5, 1e-2, log=True)}
    assert study.entries[2].settings == {"tc_weight": 0}
    assert [entry.best for entry in study.entries] == [False, False, True]
    assert study.entries[0].datasets == ("demo",)
    assert (study.search.method, study.search.trials, study.search.seed) == ("random", 4, 7)
    assert (study.reference, study.report.metrics, study.report.figures) == ("GTC w/o TC", ("recall@20",), ("cost",))
    assert study.report.beyond_accuracy


def test_what_is_left_out_has_a_default(tmp_path):
    study = read_study(written(tmp_path, "datasets: demo\nentries: [LightGCN]\n"))
    assert (study.name, study.seeds, study.search.method, study.search.trials) == ("study", (999,), "grid", None)
    assert study.reference is None


def test_the_published_grid_is_that_of_the_model_s_file(tmp_path):
    study = read_study(written(tmp_path, "datasets: demo\nentries: [{model: LightGCN, grid: published}]\n"))
    assert study.entries[0].grid["n_ui_layers"] == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("datasets: demo", "entries: expected a list"),
        ("entries: [BPR]", "datasets: expected a list of words, got nothing"),
        ("{datasets: [dmo], entries: [BPR]}", "unknown data set 'dmo' (did you mean 'demo'?)"),
        ("{datasets: demo, entries: [LightGNC]}", "entries: 1: unknown model 'LightGNC' (did you mean 'LightGCN'?)"),
        ("{datasets: demo, entries: [BPR, BPR]}", "two have the label 'BPR'"),
        ("{datasets: demo, entries: [{model: BPR, label: a b}, {model: BPR, label: a+b}, {model: BPR, label: a/b}]}",
         "two have the folder name 'a_b'"),
        ("{datasets: demo, entries: [BPR], seeds: [1, 1]}", "a seed stands twice"),
        ("{datasets: demo, entries: [BPR], seeds: [-1]}", "seeds: expected a list of integers"),
        ("{datasets: demo, entries: [BPR], sead: 1}", "unknown key 'sead' (did you mean 'seeds'?)"),
        ("{datasets: demo, entries: [BPR], settings: {epoch: 1}}", "settings: unknown key 'epoch'"),
        ("{datasets: demo, entries: [BPR], settings: {seed: 1}}", "seed is not set in a study"),
        ("{datasets: demo, entries: [{model: BPR, settings: {n_ui_layers: 1}}]}", "unknown key 'n_ui_layers'"),
        ("{datasets: demo, entries: [{model: BPR, grid: {reg_weigt: [1]}}]}", "(did you mean 'reg_weight'?)"),
        ("{datasets: demo, entries: [{model: BPR, grid: {reg_weight: 1}}]}", "reg_weight: expected a list of values"),
        ("{datasets: demo, entries: [{model: BPR, grid: {reg_weight: [1, 1]}}]}", "reg_weight lists 1 twice"),
        ("{datasets: demo, entries: [{model: BPR, grid: {device: [cpu]}}]}", "device does not change what"),
        ("{datasets: demo, entries: [{model: BPR, grid: {reg_weight: {low: 1, high: 2}}}]}", "a range needs search"),
        ("{datasets: demo, search: {method: tpe}, entries: [BPR]}", "tpe needs a number of trials"),
        ("{datasets: demo, search: {method: best}, entries: [BPR]}", "method: expected a word out of grid, random, tpe"),
        ("{datasets: demo, search: {method: random, trials: 2}, entries: "
         "[{model: BPR, grid: {reg_weight: {low: 2, high: 1}}}]}", "expected low < high"),
        ("{datasets: demo, entries: [BPR], reference: GTC}", "reference: expected the label of an entry, got 'GTC'"),
        ("{datasets: demo, entries: [BPR], report: {metrics: [recal@20]}}", "got 'recal@20' (did you mean 'recall'?)"),
        ("{datasets: demo, entries: [BPR], report: {figures: [costs]}}", "got ['costs'] (did you mean 'cost'?)"),
        ("{datasets: demo, entries: [{model: BPR, datasets: [baby]}]}", "'baby' is not among those of the study"),
        ("{name: a b, datasets: demo, entries: [BPR]}", "name: expected letters, digits"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_line_that_names_it(text, says, tmp_path):
    problems = problems_of(lambda: read_study(written(tmp_path, text)))
    assert len(problems) == 1
    assert says in problems[0]
    assert problems[0].startswith("study.yaml: ")


def test_all_mistakes_are_told_at_once(tmp_path):
    text = "{datasets: [dmo], entries: [LightGNC, {model: BPR, grid: {reg: [1]}}], reference: x, seeds: no}"
    assert len(problems_of(lambda: read_study(written(tmp_path, text)))) == 5
