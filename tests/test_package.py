"""The installed package: `import gtc_bench` from anywhere, beside other packages called utils and common."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_tools import ROOT

from utils.paths import SOURCE

if sys.version_info >= (3, 11):
    import tomllib

USE = """
import json, sys
import common, utils
import gtc_bench

assert "torch" not in sys.modules, "PyTorch is loaded when it is needed"
places = {"device": "cpu", "output_dir": "runs", "cache_dir": "cache"}
result = gtc_bench.run("LightGCN", "demo", epochs=2, seed=1, **places)
own = gtc_bench.run("mine.py", "demo", epochs=1, **places)
trained = gtc_bench.load(result.folder)
dataset = gtc_bench.Dataset.read("demo")
users, items = trained.embeddings()
scores = trained.score([0, 1])
best = trained.recommend([0, 1], k=3)
seen = {int(item) for user, item in dataset.train if user == 0}
try:
    gtc_bench.run("LightGNC", "demo")
    refused = ""
except Exception as error:
    refused = f"{type(error).__name__}: {error}"
assert (utils.mine, common.mine) == (1, 2), "other packages of these names are what they were"
print(json.dumps({
    "status": result.status, "recall": result.test["recall@20"], "epochs": result.settings["epochs"],
    "model": own.model, "shapes": [list(x.shape) for x in (users, items, scores, dataset.train)],
    "dot": float(abs(users[:2] @ items.T - scores).max()), "best": best["item"].tolist(),
    "columns": list(best.columns), "seen": sorted(seen), "refused": refused, "metrics": trained.metrics["test"]["recall@20"],
    "foreign": sorted(m for m in sys.modules if m.partition(".")[0] in ("common", "utils", "models", "runner")),
}))
"""
MINE = """
from common.abstract_recommender import GeneralRecommender
from common.losses import bpr_loss
from torch import nn


class Mine(GeneralRecommender):
    settings = None

    def __init__(self, config, dataset):
        super().__init__({"embedding_size": 4, "train_features": False}, dataset)
        self.users, self.items = nn.Embedding(self.n_users, 4), nn.Embedding(self.n_items, 4)

    def forward(self):
        return self.users.weight, self.items.weight

    def calculate_loss(self, batch):
        users, items = self()
        return {"bpr": bpr_loss((users[batch[0]] * items[batch[1]]).sum(1), (users[batch[0]] * items[batch[2]]).sum(1))}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package installed in it, built from a copy of what it is made of."""
    folder = tmp_path_factory.mktemp("package")
    names = ["src", "pyproject.toml", "README.md", "LICENSE", "requirements.txt"]
    subprocess.run(["cp", "-r", *(str(ROOT / name) for name in names), str(folder)], check=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    command += ["--disable-pip-version-check", "--no-index", "--target", str(folder / "site"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if "BackendUnavailable" in done.stderr or "Cannot import 'setuptools" in done.stderr:
        pytest.skip("setuptools is not installed")
    assert done.returncode == 0, done.stderr
    return folder / "site"


def environment(site: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("MMR_DATA_PATH", "PYTHONPATH")}
    return kept | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}


@pytest.mark.slow
def test_the_interface_works_outside_the_clone_beside_other_packages(site: Path, tmp_path: Path):
    (tmp_path / "utils.py").write_text("mine = 1\n")
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "__init__.py").write_text("mine = 2\n")
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "use.py").write_text(USE)
    done = subprocess.run(
        [sys.executable, "use.py"], cwd=tmp_path, env=environment(site), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["status"], found["epochs"], found["model"]) == ("finished", 2, "Mine")
    assert 0 < found["recall"] == found["metrics"] < 1
    assert found["shapes"] == [[1200, 64], [500, 64], [2, 500], [found["shapes"][3][0], 2]]
    assert found["dot"] < 1e-5, "scores are dot products of the embeddings"
    assert found["columns"] == ["user", "rank", "item", "score"]
    assert len(found["best"]) == 6
    assert not {int(item) for item in found["best"][:3]} & set(found["seen"])
    assert found["refused"].startswith("UserError: unknown model 'LightGNC' (did you mean 'LightGCN'?)")
    assert found["foreign"] == ["common", "utils"], "nothing of the project is a module outside its package"
    assert {path.name for path in tmp_path.iterdir()} >= {"runs", "cache"}, "it writes where it was started"


CELLS = """
import json, sys
names = {}
for cell in json.load(open(sys.argv[1]))["cells"]:
    if cell["cell_type"] == "code":
        exec("".join(cell["source"]), names)
print(json.dumps({name: str(value) for name, value in names.items() if name in ("users", "lists", "best", "shared")}))
"""


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_and_is_stored_without_outputs(path: Path, site: Path, tmp_path: Path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 4
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    command = [sys.executable, "-c", CELLS, str(path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment(site), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) >= 2, "its last cells were reached"
    assert list((tmp_path / "runs").glob("demo/LightGCN/*/metrics.json"))


def test_the_command_of_the_package(site: Path, tmp_path: Path):
    start = "import sys; from gtc_bench.cli.command_line import main; sys.exit(main(sys.argv[1:]))"
    for words, code, says in (
        (["recommend", "--help"], 0, "usage: gtc-bench recommend RUN_FOLDER [options]"),
        (["--list"], 0, "LightGCN"),
        (["-m", "LightGCN", "-d", "demo", "--epocs", "3"], 2, "unknown option --epocs (did you mean 'epochs'?)"),
    ):
        command = [sys.executable, "-c", start, *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment(site), capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert says in done.stdout + done.stderr


def test_everything_is_in_the_package(site: Path):
    wanted = {path.relative_to(SOURCE) for path in SOURCE.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    present = {path.relative_to(site / "gtc_bench") for path in (site / "gtc_bench").rglob("*") if path.is_file()}
    assert wanted - present == set()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is not there")
def test_the_console_script_is_declared():
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert content["project"]["scripts"] == {"gtc-bench": "gtc_bench.cli.command_line:main"}
