"""A command that was given before says so, and with --resume what is of older code."""

from __future__ import annotations

import pytest
from cli_tools import copy_of_code, places, run_here, trained, write_dataset

WORDS = ("-m", "MostPop", "-d", "toy", "--quiet", "--valid_metric", "0.5*Recall@5 + 0.5*NDCG@5", "--topk", "5")


@pytest.fixture
def words(tmp_path):
    write_dataset(tmp_path / "data" / "toy")
    return (*WORDS, *places(tmp_path))


def test_finished_runs_are_named_and_older_ones_run_again_on_request(words, tmp_path, monkeypatch):
    first = trained(*words)
    assert "note:" not in first.out
    assert f"({first.folders[0]}); --resume shows that result in place of training again" in trained(*words).out
    code = copy_of_code(tmp_path / "code")
    with open(code / "models" / "mostpop.py", "a") as file:
        file.write("\n")
    monkeypatch.setattr("utils.paths.SOURCE", code)
    monkeypatch.setattr("runner.registry.MODELS", code / "models")
    said = "MostPop: 1 run is of older code; --rerun_changed trains it again"
    assert said in trained(*words, "--resume").out
    again = trained(*words, "--resume", "--rerun_changed").out
    assert said not in again
    assert "finished before" not in again
    assert run_here(*words, "--rerun_changed").err.startswith("error: --rerun_changed goes with --resume")
