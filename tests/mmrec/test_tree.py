"""Helper modules of a file's own tree: found, hashed, seen by that file alone, ours before theirs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from helpers import problems_of
from plugin_tools import TREE, built, write_plugin

from mmrec.plugin import load_class, read_model_file
from mmrec.tree import Tree, absolute


def tree_at(folder: Path, **files: str) -> Path:
    """A tree with modules, named a__b for a/b.py; returns the folder of its models."""
    for name, text in files.items():
        path = folder.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "models").mkdir(parents=True, exist_ok=True)
    return folder / "models"


def test_tree_is_the_folder_above_models(tmp_path):
    assert Tree.of(tmp_path / "src" / "models" / "x.py").root == tmp_path / "src"
    assert Tree.of(tmp_path / "src" / "models" / "deep" / "x.py").root == tmp_path / "src"
    assert Tree.of(tmp_path / "alone" / "x.py").root == tmp_path / "alone"


@pytest.mark.parametrize(
    "spelling",
    ["utils.graph_cache", "src.utils.graph_cache", "models.utils.graph_cache"],
)
def test_spellings_of_one_module(spelling):
    assert Tree(TREE).find(spelling) == TREE / "utils" / "graph_cache.py"


def test_tree_of_another_name_and_folders(tmp_path):
    tree_at(tmp_path / "Repo", utils__corr="X = 1", models__common__extra="Y = 2")
    tree = Tree(tmp_path / "Repo")
    assert tree.find("Repo.utils.corr") == tmp_path / "Repo" / "utils" / "corr.py"
    assert tree.find("common.extra") == tree.find("models.common.extra") == tmp_path / "Repo/models/common/extra.py"
    assert tree.find("utils") == tmp_path / "Repo" / "utils"
    assert tree.find("utils.nothing") is None


@pytest.mark.parametrize(
    ("package", "name", "level", "expected"),
    [
        ("models", "cross", 1, "models.cross"),
        ("models", "", 1, "models"),
        ("models", "common.loss", 2, "common.loss"),
        ("models.deep", "x", 2, "models.x"),
        ("", "helper", 1, "helper"),
        ("models", "x", 3, None),
    ],
)
def test_relative_names(package, name, level, expected):
    assert absolute(package, name, level) == expected


@pytest.mark.parametrize(
    "head",
    [
        "from utils.corr import FIVE",
        "from src.utils.corr import FIVE",
        "from Repo.utils.corr import FIVE",
        "import utils.corr as corr; FIVE = corr.FIVE",
        "import utils.corr; FIVE = utils.corr.FIVE",
        "from utils import corr; FIVE = corr.FIVE",
        "from ..utils.corr import FIVE",
        "from ..utils import corr; FIVE = corr.FIVE",
        "from importlib import import_module; FIVE = import_module('utils.corr').FIVE",
        "import importlib; FIVE = importlib.import_module('utils.corr').FIVE",
        "from utils.corr import *",
        "from utils.utils import FIVE, build_sim; from torch import Tensor",
        "from common.loss import FIVE, BPRLoss; assert BPRLoss()(torch.ones(2), torch.ones(2)) > 0.6",
        "from standing import FIVE",
        "def later():\n    from utils.corr import FIVE\n    return FIVE\nFIVE = later()",
    ],
)
def test_ways_to_import(head, tmp_path):
    models = tree_at(
        tmp_path / "Repo",
        utils__corr="FIVE = 5",
        utils__utils="FIVE = 5\ndef build_sim(x):\n    raise AssertionError('ours goes before')",
        common__loss="FIVE = 5\nclass BPRLoss:\n    pass",
        standing="FIVE = 5",
    )
    model = built(write_plugin(models, head=f"import torch\n{head}", init="self.five = FIVE"))
    assert model.five == 5


def test_modules_that_import_each_other_and_what_they_take_from_us(tmp_path):
    models = tree_at(
        tmp_path,
        utils__first="from utils.second import double\nimport numpy as np\nVALUE = double(np.float(2))\nBASE = 3",
        utils__second="import utils.first\nfrom utils.utils import build_sim\n\ndef double(x):\n    return 2 * x",
    )
    path = write_plugin(models, head="from utils.first import VALUE", init="self.value = VALUE")
    assert built(path).value == 4
    assert set(read_model_file(path).module_hashes) == {"utils/first.py", "utils/second.py"}


def test_two_trees_do_not_see_each_other_and_nobody_sees_either(tmp_path):
    models = [tree_at(tmp_path / name, utils__own=f"NAME = {name!r}") for name in ("one", "two")]
    found = [built(write_plugin(m, head="from utils.own import NAME", init="self.name = NAME")).name for m in models]
    assert found == ["one", "two"]
    assert "utils.own" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        __import__("utils.own")


def test_our_own_insides_are_none_of_a_file_s(tmp_path):
    for name in ("utils.memory", "common.losses", "runner.session", "models.lightgcn"):
        path = write_plugin(tmp_path / name, head=f"import {name}")
        with pytest.raises(ModuleNotFoundError, match="No module named"):
            load_class(read_model_file(path))


def test_stand_in_alone_takes_nothing_from_the_tree(tmp_path):
    models = tree_at(tmp_path, common__loss="raise AssertionError", utils__utils="raise AssertionError")
    path = write_plugin(models, head="from common.loss import BPRLoss, EmbLoss\nfrom utils.utils import build_sim")
    assert read_model_file(path).module_hashes == {}
    built(path)


def test_trainer_of_the_tree_that_is_asked_for_its_models(tmp_path):
    models = tree_at(tmp_path, models__other="class OTHER:\n    pass")
    init = "from utils.utils import get_model; get_model('OTHER')"
    told = problems_of(lambda: built(write_plugin(models, init=init)))
    assert told == ["get_model: the model OTHER is not in the file's own tree"]


def test_module_whose_name_is_made_up_is_not_loaded(tmp_path):
    models = tree_at(tmp_path, utils__hidden="X = 1")
    path = write_plugin(models, init="import importlib; importlib.import_module('utils.' + 'hidden')")
    (told,) = problems_of(lambda: built(path))
    assert "is imported under a name that is made up as the program runs" in told


def test_error_in_a_module_names_that_module(tmp_path):
    from cli_tools import run_here

    models = tree_at(tmp_path, utils__broken="x = 1\ny = x / 0")
    outcome = run_here("--plugin", write_plugin(models, head="from utils.broken import y"), "-d", "demo")
    assert (outcome.code, outcome.err) == (
        2,
        f"error: {tmp_path}/utils/broken.py, line 2: ZeroDivisionError: division by zero\n",
    )


@pytest.mark.parametrize("name", ["utils.mi_estimator", "src.common.abstract", "models.common.deep", "common.magic"])
def test_module_that_is_nowhere_is_no_package_to_install(name, tmp_path):
    from cli_tools import run_here

    outcome = run_here("--plugin", write_plugin(tmp_path, head=f"from {name} import x"), "-d", "demo")
    assert outcome.code == 2
    assert f"No module named '{name}', neither here nor in the file's own tree" in outcome.err
    assert "pip install" not in outcome.err
    assert outcome.err.count("\n") == 1
