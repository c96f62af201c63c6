"""A study says what is of older code, what has changed in its file, and what is left; models may be plugins."""

from __future__ import annotations

import re

import pytest
from cli_tools import places, run_here, trained, write_dataset

MODEL = """
import torch
from common.abstract_recommender import GeneralRecommender

class Mine(GeneralRecommender):
    settings = None
    needs_training = False

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.sign = 1

    def full_sort_predict(self, batch):
        return self.sign * torch.arange(self.n_items).float().repeat(len(batch[0]), 1)
"""
FILE = """
name: parts
title: First
datasets: [toy]
seeds: [1, 2]
settings: {topk: 5, valid_metric: Recall@5, epochs: 2}
entries: [{plugin: models/mine.py, label: own}, {model: MostPop, settings: {popularity: 1, stopping_step: 3}}]
report: {metrics: [recall@5], figures: [cost]}
"""


@pytest.fixture
def world(tmp_path):
    write_dataset(tmp_path / "data" / "toy")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.py").write_text(MODEL)
    (tmp_path / "parts.yaml").write_text(FILE)
    return tmp_path


def study(world, *words):
    return trained("study", world / "parts.yaml", *places(world), "--quiet", *words)


def test_trials_of_an_edited_plugin_are_said_to_be_older_until_they_are_run_again(world):
    assert "older code" not in study(world).out
    (world / "models" / "mine.py").write_text(MODEL.replace("sign = 1", "sign = -1"))
    said = "own: 2 trials are of older code; --rerun_changed trains them again"
    before = study(world).out
    report = world / "runs" / "studies" / "parts" / "report"
    assert said in before
    assert all(said in (report / name).read_text().replace("\\", "") for name in ("report.md", "report.html"))
    assert "own on toy: 2 of 2 trials open" in study(world, "--dry_run", "--rerun_changed").out
    after = study(world, "--rerun_changed").out
    assert "older code" not in after
    rows = [re.search(r"^own .*", text, re.MULTILINE)[0] for text in (before, after)]
    assert rows[0] != rows[1]


def test_the_report_marks_who_had_what_and_where_it_is(world):
    out = study(world, "--figure_format", "pdf").out
    note = "[1] beside its paper: popularity 1; unlike the other rows: stopping_step 3 (20)"
    assert re.search(r"^MostPop \[1\] ", out, re.MULTILINE)
    report = world / "runs" / "studies" / "parts" / "report"
    texts = [out, *((report / name).read_text().replace("\\", "") for name in ("report.md", "report.html", "main.tex"))]
    assert all(note in text for text in texts)
    rows = (report / "main.csv").read_text()
    assert note[4:] in rows
    assert re.search(r"trials/toy/MostPop/\w{8}-s\{1,2\}", rows)
    assert {path.suffix for path in (report / "figures").iterdir()} == {".pdf"}


def test_a_changed_key_is_named_with_the_way_out(world):
    study(world)
    (world / "parts.yaml").write_text(FILE.replace("epochs: 2", "epochs: 3"))
    outcome = run_here("study", world / "parts.yaml", *places(world))
    assert outcome.code == 2
    assert "what has changed: settings.epochs: 2 -> 3. A study may grow, not change: change it back" in outcome.err


def test_the_report_reads_an_edited_file_and_says_which(world):
    study(world)
    (world / "parts.yaml").write_text(FILE.replace("First", "Second"))
    folder = world / "runs" / "studies" / "parts"
    for given in ([folder], [world / "parts.yaml", "--output_dir", world / "runs"]):
        (folder / "report" / "report.md").unlink()
        assert trained("report", *given).out.startswith(f"read {world / 'parts.yaml'} and the trials in {folder}\n")
        assert (folder / "report" / "report.md").read_text().startswith("# Second")
    (world / "parts.yaml").write_text(FILE.replace("epochs: 2", "epochs: 3"))
    outcome = run_here("report", world / "parts.yaml", "--output_dir", world / "runs")
    assert "says of the trials what" in outcome.err
    assert "(settings.epochs: 2 -> 3)" in outcome.err


def test_a_dry_run_counts_what_is_open_by_what_is_done(world):
    study(world)
    (world / "parts.yaml").write_text(FILE.replace("[1, 2]", "[1, 2, 3]"))
    out = study(world, "--dry_run").out
    assert out.startswith("First: 2 of 6 trials open, in")
    assert re.search(r"own on toy: 1 of 3 trials open, about [\d.]+ s \([\d.]+ s a trial, as 2 took\)", out)
