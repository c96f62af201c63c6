"""GTC in a stock MMRec tree: a stand-in with MMRec's file names and interface, and what docs/plugins.md copies."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from cli_tools import ROOT
from helpers import problems_of
from toys import all_scores, build, one_batch, total, toy_dataset

from common.host import checked
from models.gtc import GTC
from utils.config.schema import keys_of

# The files of MMRec whose names are those of ours; GTC may import but one of them.
TAKEN = {
    "common": ("init", "loss", "encoders", "trainer"),
    "utils": (
        *(
            "utils",
            "dataset",
            "dataloader",
            "configurator",
            "logger",
            "misc",
            "quick_start",
            "topk_evaluator",
            "metrics",
        ),
        "data_utils",
    ),
}
BASE = """
import numpy as np
import torch
from torch import nn


class GeneralRecommender(nn.Module):
    def __init__(self, config, dataloader):
        super().__init__()
        self.USER_ID, self.ITEM_ID = config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]
        self.NEG_ITEM_ID = config["NEG_PREFIX"] + self.ITEM_ID
        self.n_users, self.n_items = dataloader.dataset.get_user_num(), dataloader.dataset.get_item_num()
        self.batch_size, self.device = config["train_batch_size"], config["device"]
        self.v_feat = self.t_feat = None
        if config["is_multimodal_model"] and not config["end2end"]:
            self.v_feat, self.t_feat = (self.read(config, f"{kind}_feature_file") for kind in ("vision", "text"))

    def read(self, config, key):
        path = config["data_path"] / config["dataset"] / config[key]
        return torch.from_numpy(np.load(path, allow_pickle=False)).float().to(self.device) if path.exists() else None

    def pre_epoch_processing(self):
        pass

    def post_epoch_processing(self):
        pass
"""
MAIN = """
import argparse
import collections
import importlib
import json
import pathlib

import numpy as np
import scipy.sparse as sp
import torch
import yaml

words = argparse.ArgumentParser()
words.add_argument("-m")
words.add_argument("-d")
words = words.parse_args()
config = collections.defaultdict(lambda: None, dataset=words.d, device=torch.device("cpu"), data_path=pathlib.Path("data"))
for file in ("configs/overall.yaml", f"configs/model/{words.m}.yaml", "changed.yaml"):
    config.update(yaml.safe_load(open(file)))


class Data:
    def __init__(self, rows):
        self.rows = rows
        self.dataset = self

    def inter_matrix(self, form):
        assert form == "coo"
        shape = self.get_user_num(), self.get_item_num()
        return sp.coo_matrix((np.ones(self.rows.shape[1], dtype=np.float32), tuple(self.rows)), shape=shape)

    def get_user_num(self):
        return config["n_users"]

    def get_item_num(self):
        return config["n_items"]


data = config["data_path"] / words.d
train_data = Data(np.load(data / "train.npy", allow_pickle=False))
model = getattr(importlib.import_module(f"models.{words.m.lower()}"), words.m)(config, train_data)
model = model.to(config["device"])
model.load_state_dict(torch.load("start.pt", weights_only=True))
batch = torch.from_numpy(np.load(data / "batch.npy", allow_pickle=False))
optimizer = torch.optim.Adam(model.parameters(), lr=config["learning_rate"])
torch.manual_seed(0)
losses, scores = [], []
for epoch in range(config["epochs"] + 1):
    model.eval()
    with torch.no_grad():
        parts = [model.full_sort_predict([users]) for users in torch.arange(config["n_users"]).split(7)]
    scores.append(torch.cat(parts).numpy())
    model.train()
    model.pre_epoch_processing()
    loss = model.calculate_loss(batch)
    loss = sum(loss) if isinstance(loss, tuple) else loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    model.post_epoch_processing()
    losses.append(loss.item())
torch.save(model.state_dict(), "end.pt")
np.save("scores.npy", np.stack(scores))
print(json.dumps(losses))
"""
OVERALL = {
    "USER_ID_FIELD": "userID", "ITEM_ID_FIELD": "itemID", "NEG_PREFIX": "neg__", "train_batch_size": 64, "epochs": 5,
    "is_multimodal_model": True, "end2end": False, "vision_feature_file": "image_feat.npy",
    "text_feature_file": "text_feat.npy", "embedding_size": 32,
}  # fmt: skip
DEFAULTS = {
    name: value
    for name, value in yaml.safe_load((ROOT / "src/configs/model/GTC.yaml").read_text()).items()
    if name in keys_of(GTC.settings)
}
EVERYTHING = {"backbone": "released", "denoising": "items", "prediction": "noise", "user_k": 3, "critic": "product"}


def command_lines() -> str:
    """The block of docs/plugins.md that copies GTC."""
    (block,) = re.findall(r"```\n(mkdir -p \.\./MMRec.*?)```", (ROOT / "docs/plugins.md").read_text(), re.DOTALL)
    return block


def contents_of(tree: Path) -> dict[str, bytes]:
    return {path.relative_to(tree).as_posix(): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


@pytest.fixture
def tree(tmp_path):
    """A stock tree with toy data, into which GTC was copied as docs/plugins.md says."""
    tree = tmp_path / "MMRec"
    for folder in ("common", "utils", "models", "configs/model", "data/toy"):
        (tree / "src" / folder).mkdir(parents=True)
    for folder, names in TAKEN.items():
        for name in names:
            (tree / "src" / folder / f"{name}.py").write_text(
                "raise ImportError('a file of MMRec with other contents')\n"
            )
    (tree / "src/common/abstract_recommender.py").write_text(BASE)
    (tree / "src/main.py").write_text(MAIN)
    data = toy_dataset()
    sizes = {"n_users": data.n_users, "n_items": data.n_items}
    (tree / "src/configs/overall.yaml").write_text(yaml.safe_dump(OVERALL | sizes))
    order = np.random.default_rng(0).permutation(len(data.train))
    arrays = {
        "train": np.stack([data.train.users, data.train.items])[:, order],
        "batch": one_batch(data).numpy(),
        "image_feat": data.features["visual"],
        "text_feat": data.features["textual"],
    }
    for name, array in arrays.items():
        np.save(tree / f"src/data/toy/{name}.npy", array)
    before = contents_of(tree)
    copying = command_lines().replace("../MMRec/", f"{tree}/")
    subprocess.run(["sh", "-ec", copying], cwd=ROOT, check=True)
    after = contents_of(tree)
    assert before.items() <= after.items(), "a file of the tree is overwritten"
    assert len(after) - len(before) == len(re.findall(r"\bsrc/\S+\.(?:py|yaml)\b", command_lines()))
    return tree / "src"


def trained_there(tree: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "main.py", "-m", "GTC", "-d", "toy"]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("changed", [{}, EVERYTHING], ids=["default", "everything"])
def test_gtc_trains_in_an_mmrec_tree_as_it_does_here(tree, changed):
    data = toy_dataset()
    model = build("GTC", data, **DEFAULTS | changed)
    (tree / "changed.yaml").write_text(yaml.safe_dump(changed))
    torch.save(model.state_dict(), tree / "start.pt")
    done = trained_there(tree)
    assert done.returncode == 0, done.stderr
    losses, scores = json.loads(done.stdout), np.load(tree / "scores.npy", allow_pickle=False)
    assert losses[-1] < losses[0]
    np.testing.assert_allclose(scores[0], all_scores(model).numpy(), rtol=1e-4, atol=1e-6)
    assert not np.array_equal(scores[-1], scores[0]), "kept from before the training"
    torch.manual_seed(0)
    loss = total(model.train().calculate_loss(one_batch(data)))
    assert losses[0] == pytest.approx(loss.item(), abs=1e-6)
    model.load_state_dict(torch.load(tree / "end.pt", weights_only=True))


def test_without_features_the_error_says_what_mmrec_reads(tree):
    (tree / "changed.yaml").write_text("is_multimodal_model: False\n")
    done = trained_there(tree)
    assert done.returncode == 1
    assert "toy: expected content features, MMRec has read none; vision_feature_file" in done.stderr.splitlines()[-1]


def test_numbers_that_plain_yaml_takes_for_words_are_numbers_and_mistakes_are_told_at_once():
    keys = keys_of(GTC.settings)
    assert checked(DEFAULTS | {"reg_weight": "1e-2", "noise_steps": "1e3"}, keys, "GTC") == DEFAULTS | {
        "reg_weight": 0.01,
        "noise_steps": 1000,
    }
    wrong = DEFAULTS | {"reg_weight": "much", "denoising": False, "knn_k": None}
    assert problems_of(lambda: checked(wrong, keys, "GTC")) == [
        "GTC: knn_k: expected an integer of at least 0, got None",
        "GTC: denoising: expected a word out of off, items, nodes, got False",
        "GTC: reg_weight: expected a number of at least 0, got 'much'",
    ]
