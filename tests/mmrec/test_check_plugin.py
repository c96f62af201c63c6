"""`check_plugin`: what a file reads, what is missing, whether it runs."""

from __future__ import annotations

import re

import pytest
from cli_tools import ROOT, run_here
from plugin_tools import TREE, write_plugin

from mmrec.plugin import read_model_file
from mmrec.plugin_report import check_plugin


def rows(text: str) -> dict[tuple[str, str], str]:
    """(kind, name) to the rest of each row."""
    found = [re.split(r"  +", line) for line in text.splitlines()]
    return {(row[0], row[1]): "  ".join(row[2:]) for row in found if len(row) > 2}


def test_report_of_a_file_that_runs():
    outcome = run_here("check_plugin", TREE / "models" / "dualgnn.py")
    assert outcome.code == 0, outcome.out
    found = rows(outcome.out)
    assert found["file", "user_graph_dict.npy"] == "user graph, made from the training rows"
    assert found["key", "embedding_size"] == "8 (DUALGNN.yaml)"
    assert found["key", "user_graph_dict_file"] == "'user_graph_dict.npy' (MMRec's value)"
    assert "stand-in" in found["package", "torch_geometric"] or "installed" in found["package", "torch_geometric"]
    assert found["features", "v_feat"].startswith("given")
    assert outcome.out.endswith("runs: is imported, is built, trains 2 steps, scores all items\n")


def test_report_of_modules():
    found = rows(run_here("check_plugin", TREE / "models" / "relative.py").out)
    assert found["module", "utils/graph_cache.py"] == f"taken from {TREE}"
    assert ("package", "common") not in found
    assert ("package", "src") not in found


def test_report_of_a_file_that_lacks_things(tmp_path):
    init = 'self.x = torch.nn.Linear(2, config["width"]); self.y = config.get("tau", 2)'
    path = write_plugin(tmp_path, head="import no_such_package\nimport dgl", init=init)
    outcome = run_here("check_plugin", path)
    assert outcome.code == 1
    found = rows(outcome.out)
    assert found["key", "width"] == "not set: None  --width VALUE, or a line in SHORT.yaml"
    assert found["key", "tau"] == "not set; the file has a default"
    assert found["package", "no_such_package"] == "not installed  only if it is used: pip install no_such_package"
    assert "is compiled for one version of PyTorch" in found["package", "dgl"]
    assert "does not run: " in outcome.out
    assert "no file sets width" in outcome.out
    assert run_here("check_plugin", path, "--width", 3).code == 0


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"more": ", trainer"}, "needs further arguments (trainer)"),
        ({"loss": "return self.table.sum() * float('nan')"}, "calculate_loss: nan at step 1"),
        ({"scores": "return self.table[0]"}, "full_sort_predict: expected finite scores"),
        ({"head": "import no_such\nno_such.x()"}, "pip install no_such"),
    ],
)
def test_reason_why_it_does_not_run(parts, told, tmp_path):
    report = check_plugin(read_model_file(write_plugin(tmp_path, **parts)))
    assert told in report.failure
    assert f"does not run: {report.failure}" in report.text()


def test_file_of_our_own_kind():
    report = check_plugin(read_model_file(ROOT / "src" / "models" / "bpr.py", ROOT / "src/configs/model/BPR.yaml"))
    assert report.failure == ""


def test_mistakes_of_the_command():
    assert run_here("check_plugin", "--plugin_config", "x").code == 2
    assert "cannot be read as a model file" in run_here("check_plugin", "no_such.py").err
    assert run_here("check_plugin").out.startswith("usage: main.py check_plugin FILE")
