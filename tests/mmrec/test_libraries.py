"""What foreign files see of libraries: removed names, and nothing that unpickles."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import problems_of
from plugin_tools import begun, built, write_plugin

from mmrec import running
from mmrec.plugin import load_class, read_model_file

MARK: list[int] = []


def mark() -> int:
    """What a pickle from outside would run."""
    MARK.append(1)
    return 1


class Harmful:
    def __reduce__(self):
        return mark, ()


def made(tmp_path: Path, body: str, head: str = "") -> object:
    """What a function of a foreign file gives, called as in a run."""
    begun(write_plugin(tmp_path / "run"))
    text = "".join(f"    {line}\n" for line in body.splitlines())
    path = write_plugin(tmp_path, "MADE", head=head, tail=f"\ndef made():\n{text}")
    module = sys.modules[load_class(read_model_file(path)).__module__]
    with running.inside():
        return module.made()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("np.float(2)", 2.0),
        ("np.mat([[1, 2]]).shape", (1, 2)),
        ("np.asfarray([1]).dtype", np.dtype("float64")),
        ("np.asscalar(np.array([3]))", 3),
        ("np.math.sqrt(4)", 2.0),
        ("issubclass(np.VisibleDeprecationWarning, Warning)", True),
        ("sp.csr_matrix(np.eye(2)).A.tolist()", [[1.0, 0.0], [0.0, 1.0]]),
        ("sp.csr_matrix(np.eye(2) * 1j).H.toarray()[0, 0]", -1j),
        ("np.asmatrix(np.eye(2)).A.tolist()", [[1.0, 0.0], [0.0, 1.0]]),
        ("torch.symeig(torch.eye(2))[0].tolist()", [1.0, 1.0]),
    ],
)
def test_removed_names(expression, expected, tmp_path):
    assert made(tmp_path, f"return {expression}", "import numpy as np\nimport scipy.sparse as sp") == expected


PICKLES = {
    "pickle.load(file)": "import pickle",
    "pickle.loads(file.read())": "import pickle",
    "load(file)": "from pickle import load",
    "pickle.Unpickler(file).load()": "import pickle",
    "pd.read_pickle(path)": "import pandas as pd",
    "np.load(path, allow_pickle=True)": "import numpy as np",
    "np.load(file, allow_pickle=True)": "import numpy as np",
    "torch.load(path)": "",
    "torch.load(path, weights_only=False)": "",
}


@pytest.mark.parametrize("call", PICKLES)
def test_no_pickle_is_loaded(call, tmp_path):
    path = tmp_path / "data.bin"
    if "np.load" in call:
        np.save(path, np.array([Harmful()], dtype=object), allow_pickle=True)
        path = path.with_suffix(".bin.npy")
    elif "torch" in call:
        torch.save({"x": Harmful()}, path)
    else:
        path.write_bytes(pickle.dumps(Harmful()))
    MARK.clear()
    body = f"path = {str(path)!r}\nwith open(path, 'rb') as file:\n    return {call}"
    (told,) = problems_of(lambda: made(tmp_path, body, PICKLES[call]))
    assert MARK == []
    assert any(word in told for word in ("not unpickled", "holds more than tensors"))


def test_what_a_file_writes_itself_it_can_read(tmp_path):
    body = """import os
os.makedirs("cache", exist_ok=True)
torch.save({"adj": torch.eye(2).to_sparse(), "array": np.arange(3), "n": [1, "a"]}, "cache/graph.pt")
np.save("cache/a.npy", np.arange(3)); np.savez("cache/b.npz", x=np.eye(2)); sp.save_npz("cache/c.npz", sp.eye(2).tocsr())
kept = torch.load("cache/graph.pt", map_location="cuda")
self.found = kept["adj"].to_dense().tolist(), kept["array"].tolist(), np.load("cache/a.npy", allow_pickle=True).tolist()
self.found += (np.load("cache/b.npz")["x"].tolist(), sp.load_npz("cache/c.npz").toarray().tolist())
with open("cache/b.txt", "w") as file:
    file.write("x")"""
    head = "import numpy as np\nimport scipy.sparse as sp"
    before = Path.cwd()
    model = built(write_plugin(tmp_path, head=head, init=body.replace("\n", "\n        ")))
    eye = [[1.0, 0.0], [0.0, 1.0]]
    assert model.found == (eye, [0, 1, 2], [0, 1, 2], eye, eye)
    assert Path.cwd() == before
    assert not Path("cache/graph.pt").exists()


def test_data_are_found_as_from_mmrec_s_own_folder(tmp_path):
    init = "import numpy, os; self.widths = [numpy.load(p + 'image_feat.npy').shape[1] for p in ('../data/demo/', "
    init += "config['data_path'] + config['dataset'] + '/')]; assert self.v_feat.shape[1] == self.widths[0]"
    assert built(write_plugin(tmp_path, init=init)).widths == [6, 6]


def test_features_read_from_files_are_those_of_the_run(tmp_path):
    from cli_tools import places, trained, write_dataset

    write_dataset(tmp_path / "data" / "toy")
    init = "import numpy; x = numpy.load(config['data_path'] + 'toy/' + config['vision_feature_file'])\n        "
    init += "print('visual', x.any(), self.v_feat.any().item(), 'text', numpy.load('../data/toy/text_feat.npy').any())"
    path = write_plugin(tmp_path, init=init)
    words = ("--plugin", path, "-d", "toy", *places(tmp_path), "--epochs", 1, "--quiet")
    assert "visual True True text True" in trained(*words).out
    assert "visual False False text True" in trained(*words, "--modality_input", "{visual: zero}").out


UNUSED = [
    "import no_such_package",
    "import no_such_package.deep as deep",
    "from no_such_package.deep import Thing, other",
    "import matplotlib_of_old.pyplot as plt",
    "from torch_geometric.nn import GATv9Conv",
    "from torch_sparse import nothing_like_it",
]


@pytest.mark.parametrize("line", UNUSED)
def test_import_that_is_never_used_stops_nothing(line, tmp_path):
    built(write_plugin(tmp_path, head=line))


@pytest.mark.parametrize(
    ("head", "told"),
    [
        ("import no_such\nno_such.thing.call()", "needs 'no_such.thing.call' of the package 'no_such', which is not "
         "installed; pip install no_such"),
        ("from no_such import Base\nclass Own(Base): pass", "needs 'no_such.Base' of the package 'no_such'"),
        ("import no_such as n\n@n.jit\ndef f(): pass", "pip install no_such"),
        ("from skimage import io\nio.imread('x')", "pip install scikit-image"),
        ("import dgl\ng = dgl.graph(([0], [1]))", "dgl is compiled for one version of PyTorch each"),
        ("from recbole.model.layers import MLP\nMLP([1])", "a file written for RecBole is none for MMRec"),
        ("from torch_geometric.nn import GATv9Conv\nGATv9Conv(1, 2)", "(what is offered here in its place has no such "
         "part); pip install torch_geometric"),
        ("from torch_cluster import knn\nknn(1)", "pip install --no-build-isolation torch_cluster"),
    ],
)  # fmt: skip
def test_use_of_what_is_missing_is_told_with_what_to_do(head, told, tmp_path):
    from cli_tools import run_here

    outcome = run_here("--plugin", write_plugin(tmp_path, head=head), "-d", "demo")
    assert outcome.code == 2
    assert told in outcome.err
    assert outcome.err.count("\n") == 1


def test_installed_package_wins_over_the_stand_in(tmp_path, monkeypatch):
    site = tmp_path / "site"
    (site / "torch_geometric" / "utils").mkdir(parents=True)
    (site / "torch_geometric" / "__init__.py").write_text("WHO = 'installed'")
    (site / "torch_geometric" / "utils" / "__init__.py").write_text("def degree(*_):\n    return 'installed'")
    monkeypatch.syspath_prepend(str(site))
    head = "import torch_geometric\nfrom torch_geometric.utils import degree, dropout_adj"
    found = made(tmp_path, "return torch_geometric.WHO, degree(1), dropout_adj.__module__", head)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch_geometric"]:
        del sys.modules[name]
    assert found == ("installed", "installed", "mmrec.stand_ins.torch_geometric.edges"), "and ours where it has none"


def test_warnings_of_old_ways_are_not_shown(tmp_path):
    init = "torch.tensor(torch.ones(2)); import numpy; numpy.power(numpy.zeros(2), -0.5); torch.nn.Softmax()(torch.ones(2))"
    path = write_plugin(tmp_path, init=init, head="PATTERN = '\\d'")
    built(path)  # warnings are errors in tests
