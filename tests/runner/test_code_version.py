from pathlib import Path

import pytest
from helpers import problems_of

from runner.code_version import code_versions, imported_files
from runner.registry import code_of
from utils.paths import MODELS, SOURCE


@pytest.fixture
def tree(tmp_path, monkeypatch):
    files = {
        "runner/quick_start.py": "import common.trainer\n",
        "common/trainer.py": "def train():\n    from utils import late\n",
        "common/graph.py": "import os\n",
        "utils/late.py": "",
        "models/a.py": "from common.graph import SparseMatrix\nfrom utils.late import x\n",
        "models/b.py": "import common.trainer\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("utils.paths.SOURCE", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ("runner/quick_start.py", {"code"}),
        ("common/trainer.py", {"code"}),
        ("utils/late.py", {"code"}),  # imported inside a function
        ("common/graph.py", {"model"}),
        ("models/a.py", {"model"}),
        ("models/b.py", set()),
        ("notes.txt", set()),
    ],
)
def test_a_change_shows_where_it_matters(tree: Path, changed, parts):
    before = code_versions(tree / "models/a.py")
    (tree / changed).touch()
    with open(tree / changed, "a") as file:
        file.write("# changed\n")
    after = code_versions(tree / "models/a.py")
    assert {part for part in after if after[part] != before[part]} == parts


def test_model_file_elsewhere_counts_by_its_content(tree: Path, tmp_path_factory):
    plugin = tmp_path_factory.mktemp("elsewhere") / "mine.py"
    plugin.write_text("from common.graph import SparseMatrix\n")
    before = code_versions(plugin)
    (tree / "common/graph.py").write_text("import sys\n")
    between = code_versions(plugin)
    plugin.write_text("")
    assert len({before["model"], between["model"], code_versions(plugin)["model"]}) == 3


def test_every_module_that_a_run_loads_is_counted():
    counted = imported_files([SOURCE / "runner/quick_start.py", MODELS / "freedom.py"], SOURCE)
    for name in ("utils/data/dataset.py", "utils/evaluation/topk_evaluator.py", "common/trainer.py", "common/graph.py"):
        assert SOURCE / name in counted
    assert MODELS / "freedom.py" in counted
    assert MODELS / "bm3.py" not in counted


def test_file_that_is_no_python_is_told(tree: Path):
    (tree / "models/a.py").write_text("def")
    assert problems_of(lambda: code_versions(tree / "models/a.py"))


def test_of_a_file_for_mmrec_its_modules_and_the_stand_ins_count(tree: Path, tmp_path_factory, monkeypatch):
    monkeypatch.setattr("runner.registry.SOURCE", tree)
    home = tmp_path_factory.mktemp("home")
    for place in (home / "models", home / "utils", tree / "mmrec" / "stand_ins"):
        place.mkdir(parents=True)
    model, helper, stand_in = home / "models/foo.py", home / "utils/tools.py", tree / "mmrec/stand_ins/loss.py"
    model.write_text("from utils.tools import x\nclass FOO: ...\n")
    found = []
    for changed in (helper, stand_in, helper):
        with open(changed, "a") as file:
            file.write("x = 1\n")
        found.append(code_of("FOO", str(model))["model"])
    assert len(set(found)) == 3
