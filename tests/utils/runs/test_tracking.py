"""TensorBoard scalars, with a package in its place; without it one line, before anything runs."""

import csv
import sys
from types import ModuleType

import pytest
from cli_tools import places, run_here
from helpers import problems_of

from utils.runs.tracking import Scalars, writer_class


class Writer:
    """Keeps what it is given."""

    made: list["Writer"] = []  # noqa: RUF012

    def __init__(self, log_dir, purge_step):
        self.log_dir, self.purge_step = log_dir, purge_step
        self.scalars, self.flushed, self.closed = [], 0, False
        self.made.append(self)

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def flush(self):
        self.flushed += 1

    def close(self):
        self.closed = True


@pytest.fixture
def installed(monkeypatch):
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    Writer.made = []


@pytest.fixture
def absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # importing it fails


SPEC = "{n_users: 40, n_items: 30, n_interactions: 400}"
RUN = ["-m", "BPR", "-d", "demo", "--synthetic", SPEC, "--epochs", 3, "--quiet", "--topk", 5, 20, "--eval_step", 2]


@pytest.mark.usefixtures("installed")
def test_rows_are_scalars_at_their_epoch(tmp_path):
    scalars = Scalars(tmp_path, 4)
    scalars({"epoch": 5, "loss": 0.5, "valid_recall@20": 0.25})
    scalars.close()
    (writer,) = Writer.made
    assert (writer.log_dir, writer.purge_step) == (str(tmp_path), 5)
    assert writer.scalars == [("loss", 0.5, 5), ("valid_recall@20", 0.25, 5)]
    assert writer.flushed == 1
    assert writer.closed


@pytest.mark.usefixtures("installed")
def test_a_run_writes_every_column_of_its_history(tmp_path):
    outcome = run_here(*RUN, "--tensorboard", *places(tmp_path))
    assert outcome.code == 0, outcome.err
    (writer,) = Writer.made
    assert writer.log_dir == str(outcome.folders[0] / "tensorboard")
    assert writer.closed
    with open(outcome.folders[0] / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [(k, float(v), int(row["epoch"])) for row in rows for k, v in row.items() if k != "epoch" and v]
    assert sorted(writer.scalars) == sorted(expected)


@pytest.mark.usefixtures("installed")
def test_without_the_key_nothing_is_written(tmp_path):
    assert run_here(*RUN, *places(tmp_path)).code == 0
    assert Writer.made == []


@pytest.mark.usefixtures("absent")
def test_without_the_package_it_is_one_line_before_the_run(tmp_path):
    assert problems_of(writer_class) == ["tensorboard is not installed: pip install tensorboard"]
    outcome = run_here(*RUN, "--tensorboard", *places(tmp_path))
    assert outcome.code == 2
    assert outcome.err == "error: tensorboard is not installed: pip install tensorboard\n"
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("absent")
def test_a_run_that_does_not_ask_for_it_does_not_need_it(tmp_path):
    assert run_here(*RUN, *places(tmp_path)).code == 0
