"""Models by name: found in the source without importing it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from helpers import problems_of

from mmrec.plugin import mistakes_of_plugins
from runner import registry
from runner.registry import available_models, model_class, model_name, summary
from utils.paths import CONFIGS, MODELS


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of model files of its own."""
    monkeypatch.setattr(registry, "MODELS", tmp_path)
    files = {
        "zeta.py": '"""ZETA: first line.\n\nMore."""\nraise RuntimeError("imported")\nclass Helper: ...\nclass ZETA: ...\n',
        "alpha.py": "def f():\n    class Alpha: ...\n",
        "beta.py": "class Alpha: ...\n",
        "gamma.py": "class GaMMa: ...\n",
        "notes.txt": "class Notes: ...\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_model_is_a_class_with_its_files_name_but_for_case(models):
    assert available_models() == {"GaMMa": models / "gamma.py", "ZETA": models / "zeta.py"}
    assert list(available_models()) == ["GaMMa", "ZETA"]


def test_summary_is_the_first_line_of_the_docstring(models):
    assert summary(models / "zeta.py") == "ZETA: first line."
    assert summary(models / "gamma.py") == ""


def test_name_is_taken_in_any_case_and_given_in_its_own(models):
    assert [model_name(word) for word in ("zeta", "Zeta", "GAMMA")] == ["ZETA", "ZETA", "GaMMa"]


def test_unknown_model_is_told_with_the_nearest_and_all(models):
    assert problems_of(lambda: model_name("zetta")) == [
        "unknown model 'zetta' (did you mean 'ZETA'?); there are GaMMa, ZETA"
    ]
    assert problems_of(lambda: model_name("")) == ["unknown model ''; there are GaMMa, ZETA"]


def test_model_without_settings_file_is_told_before_it_is_imported(models):
    (problem,) = problems_of(lambda: model_class("ZETA"))
    assert problem.startswith("model 'ZETA' has no configs/model/ZETA.yaml: write one with a value for")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("class Delta(:\n", "delta.py, line 1: not Python: invalid syntax"),
        (
            "class Delda:\n    pass\n",
            "expected a class with the file's name, delta in upper or lower case; it has Delda",
        ),
    ],
)
def test_a_broken_file_of_the_tree_is_told_to_who_asks_for_it_and_leaves_the_others(models, text, says):
    (models / "delta.py").write_text(text)
    assert list(available_models()) == ["GaMMa", "ZETA"]
    (problem,) = problems_of(lambda: model_name("delta"))
    assert says in problem


def test_an_error_in_the_code_of_a_model_is_a_line_with_its_place():
    source = compile("def build():\n    return 1 / 0\n", "/models/delta.py", "exec")
    names: dict = {"__name__": "models.delta"}
    exec(source, names)

    def fail():
        with mistakes_of_plugins():
            names["build"]()

    assert problems_of(fail) == ["/models/delta.py, line 2: ZeroDivisionError: division by zero"]


def test_every_model_of_the_tree_has_its_file_settings_and_summary():
    names = available_models()
    assert {"BPR", "GTC", "LightGCN", "VBPR"} <= set(names)
    assert {path.stem for path in MODELS.glob("*.py")} == {path.stem for path in names.values()}
    assert {path.stem for path in (CONFIGS / "model").glob("*.yaml")} == set(names)
    for name, path in names.items():
        assert model_class(name).__name__ == name
        assert model_class(name).__module__ == f"models.{path.stem}"
        assert summary(path).startswith(f"{name}: ")


def test_listing_imports_no_model(models):
    before = set(sys.modules)
    available_models()
    model_name("zeta")
    assert set(sys.modules) == before
