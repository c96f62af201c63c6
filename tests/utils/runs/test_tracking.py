"""Trackers, with small modules in the place of their libraries; without a library one line, before anything runs."""

import csv
import os
import sys
from types import ModuleType, SimpleNamespace

import pytest
from cli_tools import places, run_here, trained

SPEC = "{n_users: 40, n_items: 30, n_interactions: 400}"
RUN = ["-m", "BPR", "-d", "demo", "--synthetic", SPEC, "--epochs", 3, "--quiet", "--topk", 5, 20, "--eval_step", 2]
MODULES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb", "mlflow": "mlflow"}


@pytest.fixture
def logged(monkeypatch):
    """Puts modules in place that keep what they are given: (name, value, epoch), and how they were called."""
    found = SimpleNamespace(scalars=[], calls={}, closed=0)

    def close(*_):
        found.closed += 1

    def called(name, result):
        return lambda *words, **options: found.calls.update({name: (words, options)}) or result

    def log(values, step):
        found.scalars += [(name, value, step) for name, value in values.items()]

    def log_metric(run_id, name, value, step):
        assert run_id == "7"
        log({name: value}, step)

    writer = SimpleNamespace(add_scalar=lambda name, value, step: log({name: value}, step), flush=int, close=close)
    client = SimpleNamespace(
        get_experiment_by_name=lambda name: None,
        create_experiment=called("create_experiment", "3"),
        create_run=called("create_run", SimpleNamespace(info=SimpleNamespace(run_id="7"))),
        log_param=called("log_param", None),
        log_metric=log_metric,
        set_terminated=close,
    )
    tools = {
        "tensorboard": {"SummaryWriter": called("start", writer)},
        "wandb": {"init": called("start", SimpleNamespace(log=log, finish=close))},
        "mlflow": {"MlflowClient": called("start", client)},
    }
    for name, content in tools.items():
        module = ModuleType(MODULES[name])
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, MODULES[name], module)
    for variable in ("WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    return found


@pytest.mark.parametrize("name", MODULES)
def test_every_column_of_the_history_is_logged_under_one_set_of_names_and_offline(name, logged, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    outcome = trained(*RUN, "--tracker", name, *places(tmp_path))
    (folder,) = outcome.folders
    with open(folder / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [
        (k.replace("@", "_at_"), float(v), int(row["epoch"])) for row in rows for k, v in row.items() if k != "epoch" and v
    ]
    assert sorted(logged.scalars) == sorted(expected)
    assert ("valid_recall_at_20", float(rows[1]["valid_recall@20"]), 2) in logged.scalars
    assert logged.closed == 1
    words, options = logged.calls["start"]
    if name == "tensorboard":
        assert options == {"log_dir": str(folder / "tensorboard"), "purge_step": 1}
    elif name == "wandb":
        assert os.environ["WANDB_MODE"] == "offline"
        assert options["dir"] == str(folder)
        assert options["config"]["seed"] == "999"
    else:
        assert words == ((tmp_path / "runs" / "mlruns").as_uri(),)
        assert logged.calls["create_run"][0] == ("3",)


@pytest.mark.parametrize("name", MODULES)
def test_without_the_library_it_is_one_line_before_the_run(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, MODULES[name], None)  # importing it fails
    outcome = run_here(*RUN, "--tracker", name, *places(tmp_path))
    assert outcome.code == 2
    assert outcome.err == f"error: tracker: {name} is not installed: pip install {name}\n"
    assert not (tmp_path / "runs").exists()
    assert run_here(*RUN, *places(tmp_path)).code == 0, "who does not ask for it does not need it"


@pytest.mark.parametrize("value", [[], ["true"]])
def test_the_old_key_names_the_new_one(value, tmp_path):
    outcome = run_here(*RUN, "--tensorboard", *value, *places(tmp_path))
    assert outcome.code == 2
    assert outcome.err == "error: command line: tensorboard: True is tracker: tensorboard now\n"
    assert run_here(*RUN, "--tensorboard", "false", *places(tmp_path)).code == 0, "as files of earlier runs have it"
