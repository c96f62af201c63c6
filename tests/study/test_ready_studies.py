"""The studies that come with the project are free of mistakes, and what they ask for can be planned."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from study.plan import plan
from study.spec import FIGURES, read_study

STUDIES = sorted((Path(__file__).resolve().parents[2] / "studies").glob("*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_study_reads_and_plans(path, tmp_path):
    study = read_study(path)
    assert study.name == path.stem
    small = dataclasses.replace(
        study,
        seeds=study.seeds[:1],
        entries=tuple(dataclasses.replace(entry, datasets=study.datasets[:1]) for entry in study.entries),
        search=dataclasses.replace(study.search, trials=1),
    )
    trials = plan(small, {"output_dir": str(tmp_path)})
    assert [trial.label for trial in trials] == [entry.label for entry in study.entries]
    settings = trials[-1].config
    figures = set(study.report.figures)
    assert figures <= set(FIGURES)
    assert ("groups" in figures) <= bool(settings["group_by"])
    assert study.report.beyond_accuracy <= settings["beyond_accuracy"]
    for figure in figures & {"balance", "dot_products"}:
        assert figure in settings["analyses"]


def test_paper_study_has_the_models_of_the_paper_with_one_budget():
    study = read_study(next(path for path in STUDIES if path.stem == "gtc_paper"))
    assert [entry.model for entry in study.entries] == [
        "FREEDOM", "SMORE", "GRCN", "LATTICE", "BM3", "PGL", "SLMRec", "LGMRec", "MGCN", "DRAGON", "GTC"
    ]  # fmt: skip
    assert (study.datasets, len(study.seeds), study.search.trials) == (("sports", "baby", "cell"), 10, 8)
    sizes = {entry.model: 1 for entry in study.entries}
    for entry in study.entries:
        for values in entry.grid.values():
            assert isinstance(values, tuple)
            sizes[entry.model] *= len(values)
    assert {model for model, size in sizes.items() if size < 8} == {"MGCN"}
