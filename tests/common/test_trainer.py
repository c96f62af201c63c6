"""The training loop: stopping, schedule, clipping, divergence, resuming, one test at the end."""

import csv
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from toys import CPU, ignore_progress, make_config, toy_dataset, train_loader

from common import trainer as trainer_module
from common.abstract_recommender import GeneralRecommender
from common.calibration import by_validation
from common.scorers import ScorerWeights
from common.trainer import Diverged, Trainer, loss_terms
from runner import quick_start, session
from runner.registry import model_class
from utils.config.settings import LEARNERS
from utils.errors import UserError
from utils.runs.run_folder import RunFolder

STEPS = 3  # per epoch: 150 training interactions in batches of 64


class Slope(GeneralRecommender):
    """A weight [4] whose loss is `slope` times its sum: every step's gradient is known."""

    slope = 1.0

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.weight = nn.Parameter(torch.zeros(4))
        self.log = []

    def calculate_loss(self, batch):
        assert self.training
        self.log.append("loss")
        return {"first": self.slope * self.weight.sum(), "second": 0 * self.weight.sum()}

    def forward(self):
        self.log.append("forward")
        return torch.ones(self.n_users, 1), torch.arange(float(self.n_items))[:, None]

    def pre_epoch_processing(self):
        self.log.append("pre")

    def pre_step_processing(self, batch):
        assert batch.shape[0] == 3
        self.log.append("step")

    def post_epoch_processing(self):
        self.log.append("post")


class Scripted:
    """A validator that gives one score after the other and the weight's state at that time."""

    def __init__(self, scores):
        self.scores, self.calls = scores, 0

    def evaluate(self, scorer):
        scorer(torch.tensor([0]))
        score = self.scores[self.calls]
        self.calls += 1
        return SimpleNamespace(means=lambda: {"recall@5": score})


def make_trainer(folder, scores=None, model=Slope, progress=ignore_progress, **overrides):
    overrides = {"learner": "sgd", "epochs": 1000} | overrides
    config, data = make_config("BPR", **overrides), toy_dataset()
    scores = [epoch / 1000 for epoch in range(1, 1001)] if scores is None else scores
    validator: Any = Scripted(scores)
    loader = train_loader(data, config["train_batch_size"])
    assert len(loader) == STEPS
    return Trainer(config, model(config, data), loader, validator, RunFolder(folder), progress)


def saved_weight(folder):
    best = torch.load(folder / "checkpoint.pt", weights_only=True)
    return best["epoch"], best["model"]["weight"]


def history(folder):
    with open(folder / "history.csv") as file:
        return list(csv.DictReader(file))


# Early stopping


@pytest.mark.parametrize(
    ("scores", "patience", "decimals", "stops_at", "best"),
    [
        ([0.1, 0.1, 0.1, 0.1], 2, None, 4, 1),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.4, 0.4], 2, None, 8, 5),
        ([0.1, 0.05, 0.05, 0.11, 0.05, 0.11, 0.05], 2, None, 7, 4),
        ([0.3, 0.2], 0, None, 2, 1),
        ([0.0, 0.0], 0, None, 2, 1),
        ([0.10001, 0.10002, 0.10003, 0.10004], 2, 4, 4, 1),
        ([0.10001, 0.10002, 0.10003, 0.10004, 0, 0, 0], 2, None, 7, 4),
        ([0.10004, 0.10006, 0.1, 0.1, 0.1], 2, 4, 5, 2),
    ],
)
def test_training_stops_after_the_evaluation_that_exceeds_the_patience(
    scores, patience, decimals, stops_at, best, tmp_path
):
    trainer = make_trainer(tmp_path, scores, stopping_step=patience, valid_decimals=decimals)
    trainer.fit()
    assert trainer.validator.calls == stops_at == len(history(tmp_path))
    assert trainer.state.stopping.best_epoch == best
    epoch, weight = saved_weight(tmp_path)
    assert epoch == best
    assert weight[0].item() == pytest.approx(-best * STEPS * 1e-3, rel=1e-4), "the weights of that very epoch"
    assert trainer.restore_best() == best
    assert torch.equal(trainer.model.weight, weight)


def test_patience_counts_evaluations_and_not_epochs(tmp_path):
    trainer = make_trainer(tmp_path, [0.2, 0.1, 0.1], stopping_step=1, eval_step=3)
    trainer.fit()
    assert trainer.state.epoch == 9
    assert [row["epoch"] for row in history(tmp_path) if row["valid_recall@5"]] == ["3", "6", "9"]
    assert saved_weight(tmp_path)[0] == 3


@pytest.mark.parametrize(("min_steps", "stops_at"), [(0, 2), (2 * STEPS, 2), (2 * STEPS + 1, 3), (5 * STEPS, 5)])
def test_no_run_is_stopped_early_before_as_many_steps(min_steps, stops_at, tmp_path):
    trainer = make_trainer(tmp_path, [0.2, *[0.1] * 9], stopping_step=0, min_steps=min_steps)
    trainer.fit()
    assert trainer.state.epoch == stops_at
    assert trainer.state.stopping.best_epoch == 1


def test_what_is_better_before_those_steps_starts_patience_anew(tmp_path):
    trainer = make_trainer(tmp_path, [0.2, 0.1, 0.1, 0.3, 0.1, 0.1, 0.1], stopping_step=1, min_steps=4 * STEPS)
    trainer.fit()
    assert (trainer.state.epoch, trainer.state.stopping.best_epoch) == (6, 4)


def test_an_evaluation_takes_place_however_few_the_epochs(tmp_path):
    trainer = make_trainer(tmp_path, epochs=2, eval_step=10)
    trainer.fit()
    assert trainer.validator.calls == 1
    assert saved_weight(tmp_path)[0] == 2


# Steps


def test_an_epoch_runs_hooks_steps_and_one_evaluation_in_order(tmp_path):
    trainer = make_trainer(tmp_path, epochs=2)
    trainer.model.eval()  # the losses of `Slope` insist on training mode
    trainer.fit()
    assert trainer.model.log == ["pre", *["step", "loss"] * STEPS, "post", "forward"] * 2


@pytest.mark.parametrize("amp", [False, True])
def test_losses_alone_are_computed_in_mixed_precision(amp, tmp_path):
    class Watched(Slope):
        def calculate_loss(self, batch):
            assert torch.is_autocast_enabled("cpu") == amp
            return super().calculate_loss(batch)

        def forward(self):
            assert not torch.is_autocast_enabled("cpu")
            return super().forward()

        def pre_epoch_processing(self):
            assert not torch.is_autocast_enabled("cpu")

    trainer = make_trainer(tmp_path, model=Watched, epochs=2, amp=amp)
    trainer.fit()
    assert trainer.model.log == [*["step", "loss"] * STEPS, "post", "forward"] * 2


def test_learning_rate_decays_smoothly_and_is_the_one_that_steps(tmp_path):
    epochs, rate = 52, 0.01
    trainer = make_trainer(tmp_path, epochs=epochs, learning_rate=rate, learning_rate_scheduler=[0.96, 50])
    trainer.fit()
    rates = [row["learning_rate"] for row in trainer.state.history]
    assert rates == pytest.approx([rate * 0.96 ** (epoch / 50) for epoch in range(epochs)], rel=1e-12)
    assert rates[50] == pytest.approx(0.96 * rate, rel=1e-12)
    assert trainer.model.weight[0].item() == pytest.approx(-STEPS * sum(rates), rel=1e-4)


@pytest.mark.parametrize(
    ("clip", "step"),
    [
        (None, 100),  # slope
        (0.5, 0.5 / 2),  # the norm of four equal entries is twice an entry
        ({"max_norm": 0.5}, 0.5 / 2),
        ({"max_norm": 0.5, "norm_type": 1.0}, 0.5 / 4),
        (1e6, 100),  # larger than the norm: no clipping
    ],
    ids=str,
)
def test_gradients_are_clipped_by_their_total_norm(clip, step, tmp_path, monkeypatch):
    monkeypatch.setattr(Slope, "slope", 100.0)
    trainer = make_trainer(tmp_path, epochs=1, learning_rate=0.01, clip_grad_norm=clip)
    trainer.fit()
    expected = torch.full((4,), -STEPS * 0.01 * step)
    torch.testing.assert_close(trainer.model.weight.detach(), expected, rtol=1e-4, atol=0)


def test_the_average_of_the_weights_is_evaluated_and_kept_and_the_weights_are_trained(tmp_path):
    decay, rate, epochs = 0.3, 0.01, 2
    trainer = make_trainer(tmp_path, epochs=epochs, learning_rate=rate, weight_average=decay)
    seen: list[float] = []
    trainer.analyse = lambda model: seen.append(model.weight[0].item()) or {}
    trainer.fit()
    weight, average, expected = 0.0, 0.0, []
    for step in range(1, epochs * STEPS + 1):
        weight -= rate  # a step of Adam along a constant slope
        own = min(decay, (1 + step) / (10 + step))
        average = own * average + (1 - own) * weight
        if step % STEPS == 0:
            expected.append(average)
    assert seen == pytest.approx(expected, rel=1e-4)
    assert trainer.model.weight[0].item() == pytest.approx(weight, rel=1e-4), "the last weights go on being trained"
    assert trainer.average is not None
    (kept,) = trainer.average.averaged.parameters()
    assert kept[0].item() == pytest.approx(average, rel=1e-4)
    trainer.restore_best()
    assert trainer.model.weight[0].item() in seen


@pytest.mark.parametrize("learner", LEARNERS)
def test_every_optimiser_goes_downhill_with_the_rate_and_decay_asked_for(learner, tmp_path):
    trainer = make_trainer(tmp_path, epochs=2, learner=learner, learning_rate=0.02, weight_decay=0.5)
    trainer.fit()
    assert (trainer.model.weight < -0.02).all()
    (group,) = trainer.optimizer.param_groups
    assert (group["initial_lr"], group["weight_decay"]) == (0.02, 0.5)
    assert type(trainer.optimizer).__name__.lower() == learner


class Seldom(Slope):
    """Its weight has a gradient in the first step only."""

    def calculate_loss(self, batch):
        first = "loss" not in self.log
        self.log.append("loss")
        other = self.other.sum()
        return {"first": self.weight.sum() + other if first else other}

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.other = nn.Parameter(torch.zeros(1))


class SeldomButMoving(Seldom):
    keeps_zero_gradients = True


def test_a_parameter_without_a_gradient_rests_or_moves_on_by_momentum(tmp_path):
    moved = {}
    for model in (Seldom, SeldomButMoving):
        trainer = make_trainer(tmp_path / model.__name__, [0.1], model, epochs=1, learner="adam", learning_rate=0.1)
        trainer.folder.path.mkdir()
        trainer.fit()
        moved[model] = -trainer.model.weight[0].item()
    assert moved[Seldom] == pytest.approx(0.1, rel=1e-5)
    # Adam's first step is the learning rate; the next ones are m / sqrt(v) of a gradient of zero.
    m, v, expected = 0.1, 0.001, 0.1
    for step in (2, 3):
        m, v = 0.9 * m, 0.999 * v
        expected += 0.1 * (m / (1 - 0.9**step)) / (v / (1 - 0.999**step)) ** 0.5
    assert moved[SeldomButMoving] == pytest.approx(expected, rel=1e-5)


class Fixed(Slope):
    """Nothing to learn."""

    needs_training = False

    def __init__(self, config, dataset):
        GeneralRecommender.__init__(self, config, dataset)
        self.register_buffer("weight", torch.ones(4))
        self.log = []


def test_a_model_without_training_is_evaluated_once(tmp_path):
    trainer = make_trainer(tmp_path, [0.1, 0.2], Fixed, eval_step=7)
    trainer.fit()
    assert trainer.model.log == ["forward"]
    assert [row["valid_recall@5"] for row in trainer.state.history] == [0.1]
    assert trainer.restore_best() == 1


def test_history_holds_the_mean_of_each_term_and_the_sum(tmp_path):
    trainer = make_trainer(tmp_path, epochs=1, learning_rate=0.5)
    trainer.fit()
    (row,) = history(tmp_path)
    # The weight's sum before steps 1, 2, 3 is 0, -2, -4.
    assert float(row["loss_first"]) == pytest.approx(-2, rel=1e-6)
    assert float(row["loss_second"]) == 0
    assert float(row["loss"]) == pytest.approx(-2, rel=1e-6)
    assert float(row["valid_recall@5"]) == 0.001


def test_terms_have_names_whatever_form_a_loss_has():
    one, two = torch.tensor(1.0), torch.tensor(2.0)
    assert loss_terms(one) == {"loss": one}
    assert loss_terms((one, two)) == {"loss_1": one, "loss_2": two}
    assert loss_terms({"bpr": one}) == {"bpr": one}


def test_the_terms_of_a_tuple_are_summed(tmp_path):
    class Pair(Slope):
        def calculate_loss(self, batch):
            return self.weight.sum(), 2 * self.weight[:2].sum().reshape(1)

    trainer = make_trainer(tmp_path, model=Pair, epochs=1, learning_rate=0.01)
    trainer.fit()
    expected = torch.tensor([-0.09, -0.09, -0.03, -0.03])
    torch.testing.assert_close(trainer.model.weight.detach(), expected)
    assert "loss_loss_2" in history(tmp_path)[0]


def test_progress_is_told_what_is_going_on(tmp_path):
    told = []
    make_trainer(tmp_path, [0.25, 0.125], epochs=2, progress=lambda *words: told.append(words)).fit()
    assert [(epoch, share) for epoch, share, _ in told] == [(0, 1.0), (1, 0.0), (1, 1.0), (2, 0.0)]
    assert {key: told[3][2][key] for key in ("recall@5", "best")} == {"recall@5": 0.125, "best": 0.25}


# Divergence


def failing(at_call, value=math.nan, term="second"):
    """A model one of whose terms is `value` at one of its steps, counted from 1."""

    class Failing(Slope):
        def calculate_loss(self, batch):
            terms = super().calculate_loss(batch)
            if self.log.count("loss") == at_call:
                terms[term] = terms[term] + value
            return terms

    return Failing


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(("call", "term"), [(1, "first"), (3 * STEPS + 2, "second"), (3 * STEPS + 3, "first")])
def test_a_loss_that_is_not_finite_ends_the_run_and_names_epoch_step_and_term(call, term, value, tmp_path):
    trainer = make_trainer(tmp_path, [0.1, 0.2, 0.15, 0.3], failing(call, value, term))
    epoch, step = (call - 1) // STEPS + 1, (call - 1) % STEPS + 1
    with pytest.raises(Diverged, match=f"^epoch {epoch}, step {step}: loss term '{term}' is {value}$"):
        trainer.fit()
    assert trainer.validator.calls == trainer.state.epoch == epoch - 1
    if epoch > 1:
        assert saved_weight(tmp_path)[0] == 2
        assert torch.isfinite(saved_weight(tmp_path)[1]).all()
        assert [row["epoch"] for row in history(tmp_path)] == ["1", "2", "3"]


def test_the_step_is_named_right_in_an_epoch_of_several_looks(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "CHECK_EVERY", 2)
    trainer = make_trainer(tmp_path, model=failing(2 * STEPS + 3))
    with pytest.raises(Diverged, match="epoch 3, step 3"):
        trainer.fit()
    assert trainer.state.history[0]["loss_first"] == pytest.approx(-4e-3, rel=1e-4), "the mean is over all looks"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_that_is_not_finite_ends_the_run_and_names_the_epoch(value, tmp_path):
    class Lost(Slope):
        def forward(self):
            users, items = super().forward()
            return users, items + (value if self.log.count("forward") == 2 else 0)

    data, config = toy_dataset(), make_config("BPR")
    evaluator = quick_start.make_evaluator(config, data, "valid", CPU)
    trainer = Trainer(config, Lost(config, data), train_loader(data), evaluator, RunFolder(tmp_path), ignore_progress)
    with pytest.raises(Diverged, match=r"^epoch 2: a score is NaN or infinite$"):
        trainer.fit()
    assert saved_weight(tmp_path)[0] == 1
    assert len(history(tmp_path)) == 1


# Whole runs


@pytest.fixture
def data():
    return toy_dataset()


@pytest.fixture
def go(tmp_path, data):
    """Runs a model; equal words give the same settings and a folder of their own."""

    def run(model="LightGCN", resume=False, **overrides):
        config = make_config(model, **{"epochs": 4, "output_dir": str(tmp_path), "learning_rate": 0.01} | overrides)
        folder = RunFolder.latest(config) if resume else RunFolder.new(config)
        assert folder is not None
        return quick_start.run(config, folder, data, ignore_progress, resume=resume)

    return run


def numbers(result):
    """Everything that a run has computed, without its times."""
    rows = [{k: v for k, v in row.items() if "seconds" not in k} for row in history(result.folder)]
    metrics = json.loads((result.folder / "metrics.json").read_text())
    assert metrics.pop("seconds") > 0
    return {"history": rows, "metrics": metrics, "per_user": (result.folder / "per_user.csv").read_text()}


def weights(result):
    return torch.load(result.folder / "checkpoint.pt", weights_only=True)


def assert_same_weights(one, other):
    assert one["epoch"] == other["epoch"]
    assert one["model"].keys() == other["model"].keys()
    for name, tensor in one["model"].items():
        assert torch.equal(tensor, other["model"][name]), name


def test_the_test_split_is_scored_once_and_from_the_best_weights(go, monkeypatch):
    calls, scripted = [], [0.1, 0.4, 0.2, 0.3, 0.4]

    def make(config, dataset, split, device):
        evaluator = quick_start.TopKEvaluator(
            dataset, split, config["metrics"], config["topk"], config["protocol"], 4096, device
        )

        class Watched:
            def evaluate(self, scorer):
                calls.append((split, scorer(torch.tensor([0]))))
                evaluation = evaluator.evaluate(scorer)
                if split == "valid":
                    n = [name for name, _ in calls].count("valid")
                    evaluation.values["recall@5"] = np.full(len(evaluation.users), scripted[n - 1])
                return evaluation

        return Watched()

    monkeypatch.setattr(quick_start, "make_evaluator", make)
    result = go("LightGCN")
    assert [split for split, _ in calls] == ["valid"] * 4 + ["valid", "test"]
    assert result.metrics["best_epoch"] == 2
    assert torch.equal(calls[-1][1], calls[1][1]), "scores of the test are those of the second epoch"
    assert not torch.equal(calls[-1][1], calls[3][1])
    assert weights(result)["epoch"] == 2


@pytest.mark.parametrize("model", ["LightGCN", "GTC"])
def test_two_runs_with_one_seed_are_equal_and_with_another_are_not(model, go):
    first, second, other = go(model), go(model), go(model, seed=7)
    assert first.folder != second.folder
    assert numbers(first) == numbers(second)
    assert_same_weights(weights(first), weights(second))
    assert numbers(first)["history"] != numbers(other)["history"]


def test_validation_results_are_to_the_bit_those_of_the_best_epoch(go):
    result = go("GTC", learning_rate=0.05)
    row = history(result.folder)[result.metrics["best_epoch"] - 1]
    assert {f"valid_{name}": value for name, value in result.metrics["valid"].items()} == {
        name: float(value) for name, value in row.items() if name.startswith("valid_")
    }
    best = max(float(row["valid_recall@5"]) for row in history(result.folder))
    assert result.metrics["valid"]["recall@5"] == best


def test_metrics_do_not_depend_on_the_evaluation_batch_size(go):
    assert numbers(go("GTC", eval_batch_size=7)) == numbers(go("GTC", eval_batch_size=4096))


class Interrupted(Exception):
    """What stands for a kill."""


def interrupt(monkeypatch, model, kind="", number=0):
    """Makes a run of `model` fail at its n-th step, or at writing its n-th last.pt; returns what the run has done."""
    calls: list[str] = []
    original_loss, original_write = model_class(model).calculate_loss, trainer_module.write_torch

    def calculate_loss(self, batch):
        calls.append("step")
        if kind == "step" and calls.count("step") == number:
            raise Interrupted
        return original_loss(self, batch)

    def write_torch(path, content):
        calls.append(path.name)
        if kind == path.name and calls.count(path.name) == number:
            raise Interrupted
        original_write(path, content)

    monkeypatch.setattr(model_class(model), "calculate_loss", calculate_loss)
    monkeypatch.setattr(trainer_module, "write_torch", write_torch)
    return calls


@pytest.mark.parametrize(
    ("model", "average"), [("LightGCN", 0.0), ("GTC", 0.0), ("LightGCN", 0.8), ("DiffMM", 0.0), ("MMSSL", 0.0)]
)
def test_a_run_interrupted_in_any_epoch_goes_on_to_the_same_bits(model, average, go, monkeypatch):
    options = {"epochs": 5, "learning_rate_scheduler": [0.5, 1], "weight_average": average}
    whole = go(model, **options)
    assert len(history(whole.folder)) == 5
    places = {("step", STEPS * epoch + 1 + epoch % STEPS): epoch for epoch in range(5)}
    places |= {("last.pt", 1): 0, ("last.pt", 3): 2, ("last.pt", 5): 4, ("checkpoint.pt", 1): 0}
    if (model, average) != ("LightGCN", 0.0):
        places = {("step", 2 * STEPS + 2): 2, ("last.pt", 5): 4}
    for place, epochs_done in places.items():
        with monkeypatch.context() as patch:
            interrupt(patch, model, *place)
            with pytest.raises(Interrupted):
                go(model, **options)
        torch.rand(3)  # the stream that the next process starts with is another one
        with monkeypatch.context() as patch:
            calls = interrupt(patch, model)
            resumed = go(model, resume=True, **options)
        assert calls.count("step") == (5 - epochs_done) * STEPS, "what was done is not done again"
        assert resumed.folder != whole.folder
        assert numbers(resumed) == numbers(whole), place
        assert_same_weights(weights(resumed), weights(whole))
        assert not (resumed.folder / "last.pt").exists(), "a finished run keeps no state"


class Poor(GeneralRecommender):
    """Scores that rank the items by their id, whatever anybody took: what is counted is better."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.weight = nn.Parameter(torch.zeros(4))

    def calculate_loss(self, batch):
        return self.weight.square().sum()

    def forward(self):
        return torch.ones(self.n_users, 1), torch.linspace(1, 0, self.n_items)[:, None]


TUNED = {"epochs": 1, "calibration": True}


def test_scorers_are_tuned_by_validation_once_and_kept(go, monkeypatch):
    monkeypatch.setattr(quick_start, "class_of", lambda config: Poor)
    asked = []

    def make_evaluator(*arguments, original=quick_start.make_evaluator):
        asked.append(arguments[2:])
        return original(*arguments)

    monkeypatch.setattr(quick_start, "make_evaluator", make_evaluator)
    result = go("BPR", **TUNED)
    assert [split for split, *_ in asked] == ["valid", "valid", "test"]
    assert asked[1][-1] == quick_start.CALIBRATION_USERS
    told = result.metrics["calibration"]
    assert told["metric"] == "recall@5"
    assert told["users"] == 30
    assert told["from"] == ScorerWeights().values()
    assert told["to"] != told["from"]
    chosen = ScorerWeights.of(told["to"])
    assert weights(result)["scorers"] == told["to"], "it is in the checkpoint"
    plain, configured = go("BPR", epochs=1), go("BPR", epochs=1, **chosen.values())
    assert told["gain"] == pytest.approx(result.metrics["valid"]["recall@5"] - plain.metrics["valid"]["recall@5"])
    assert told["gain"] > 0
    for split in ("valid", "test"):
        assert result.metrics[split] == configured.metrics[split], "as if they had been configured"
        assert result.metrics[split] != plain.metrics[split]
    assert "scorers" not in weights(plain)
    assert plain.metrics.get("calibration") is None


def test_what_nothing_beats_stays(go, monkeypatch):
    monkeypatch.setattr(quick_start, "class_of", lambda config: Poor)
    monkeypatch.setattr(
        trainer_module, "by_validation", lambda choices, measure: by_validation(choices, rounded(measure))
    )

    def rounded(measure):
        return lambda values: 0 * measure(values)

    result = go("BPR", popularity=0.5, **TUNED)
    told = result.metrics["calibration"]
    assert told["to"] == told["from"] == ScorerWeights(popularity=0.5).values()
    assert told["gain"] == 0


def test_scorers_count_in_the_validation_that_picks_the_epoch(go):
    plain, added = go("LightGCN"), go("LightGCN", popularity=1.0, co_occurrence=2.0)
    first = [[float(row["valid_recall@5"]) for row in history(result.folder)] for result in (plain, added)]
    assert first[0] != first[1]
    assert [row["loss"] for row in history(plain.folder)] == [row["loss"] for row in history(added.folder)]


def test_a_run_interrupted_while_scorers_are_tuned_goes_on_to_the_same(go, monkeypatch):
    monkeypatch.setattr(quick_start, "class_of", lambda config: Poor)
    whole = go("BPR", **TUNED)
    assert whole.metrics["calibration"]["gain"] > 0
    for last in (False, True):  # before and after the checkpoint holds them

        def interrupted(self, epoch, validator, original=Trainer.calibrate, last=last):
            if last:
                original(self, epoch, validator)
            raise Interrupted

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "calibrate", interrupted)
            with pytest.raises(Interrupted):
                go("BPR", **TUNED)
        resumed = go("BPR", resume=True, **TUNED)
        assert resumed.folder != whole.folder
        assert numbers(resumed) == numbers(whole)
        assert_same_weights(weights(resumed), weights(whole))
        assert weights(resumed)["scorers"] == weights(whole)["scorers"]


# Without a test


@pytest.mark.parametrize("model", ["LightGCN", "EASE"])
def test_without_a_test_nothing_of_it_is_computed_or_stored(model, go, monkeypatch):
    whole = go(model, calibration=True)

    def make_evaluator(config, dataset, split, *rest, original=quick_start.make_evaluator):
        assert split == "valid"
        return original(config, dataset, split, *rest)

    monkeypatch.setattr(quick_start, "make_evaluator", make_evaluator)
    monkeypatch.setattr(quick_start, "evaluate_groups", None)
    monkeypatch.setattr(quick_start, "beyond_accuracy", None)
    asked = {"save_topk": True, "group_by": ["user_activity"], "beyond_accuracy": True}
    result = go(model, no_test=True, calibration=True, **asked)
    assert result.metrics["test"] is None
    assert not {"groups", "beyond"} & set(result.metrics)
    assert not (result.folder / "topk.tsv").exists()
    assert {line.partition(",")[0] for line in numbers(result)["per_user"].splitlines()} == {"split", "valid"}
    for key in ("valid", "best_epoch", "calibration"):
        assert result.metrics[key] == whole.metrics[key]
    assert numbers(result)["history"] == numbers(whole)["history"]
    assert result.folder.name != whole.folder.name, "it is another run"


def test_data_with_a_known_truth_have_no_oracle_without_a_test():
    data = toy_dataset()
    data.truth = SimpleNamespace(scores=None)
    assert quick_start.oracle_metrics(make_config("BPR", no_test=True), data) is None


def test_patience_is_remembered_by_a_resumed_run(tmp_path):
    scores = [0.3, 0.2, 0.2, 0.2, 0.2]
    with pytest.raises(IndexError):
        make_trainer(tmp_path, scores[:2], stopping_step=2).fit()
    trainer = make_trainer(tmp_path, scores[2:], stopping_step=2)
    assert trainer.resume()
    trainer.fit()
    assert trainer.state.epoch == 4
    assert trainer.state.stopping.best_epoch == 1


def test_there_is_nothing_to_resume_in_an_empty_folder(tmp_path):
    assert not make_trainer(tmp_path).resume()


def test_the_state_of_another_model_is_refused_in_one_line(tmp_path):
    class Wider(Slope):
        def __init__(self, config, dataset):
            super().__init__(config, dataset)
            self.weight = nn.Parameter(torch.zeros(5))

    make_trainer(tmp_path, epochs=1).fit()
    with pytest.raises(UserError, match=r"last\.pt: cannot be continued from .*loading state_dict for Wider") as error:
        make_trainer(tmp_path, model=Wider).resume()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"something else"])
def test_a_state_that_is_broken_is_refused_in_one_line(content, tmp_path):
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"last\.pt: cannot be continued from .*start again without --resume") as error:
        make_trainer(tmp_path).resume()
    assert "\n" not in str(error.value)


def test_a_run_that_diverges_says_so_in_its_results_and_keeps_what_there_was(go, monkeypatch):
    original, calls = model_class("GTC").calculate_loss, []

    def calculate_loss(self, batch):
        calls.append(1)
        terms = original(self, batch)
        return terms | {"alignment": terms["alignment"] * math.nan} if len(calls) == 2 * STEPS + 2 else terms

    monkeypatch.setattr(model_class("GTC"), "calculate_loss", calculate_loss)
    result = go("GTC")
    assert result.metrics["status"] == "diverged"
    assert result.metrics["error"] == "epoch 3, step 2: loss term 'alignment' is nan"
    assert result.metrics["epochs"] == 2
    assert result.metrics["test"] is None
    assert len(history(result.folder)) == 2
    assert all(torch.isfinite(tensor).all() for tensor in weights(result)["model"].values())


def test_the_line_of_a_run_says_what_was_tuned_from_what_to_what_and_what_it_gained():
    config = make_config("BPR")
    scores = {"recall@5": 0.25}
    metrics = {"status": "finished", "valid_metric": "recall@5", "valid": scores, "test": scores, "seconds": 1.0}
    metrics |= {"best_epoch": 3, "epochs": 9}

    def line():
        return session._outcome(quick_start.Result(config, metrics, Path()))

    plain = line()
    assert plain.endswith("test recall@5 0.2500 (1.0 s)")
    before = ScorerWeights(popularity=0.5)
    metrics["calibration"] = {"metric": "recall@5", "users": 30, "from": before.values(), "gain": 0.0012}
    metrics["calibration"]["to"] = ScorerWeights(co_occurrence=2).values()
    assert line() == f"{plain}; tuned on validation: popularity 0.5 -> 0, co_occurrence 0 -> 2 (+0.0012 recall@5)"
    metrics["calibration"] |= {"to": before.values(), "gain": 0.0}
    assert line().startswith(f"{plain}; tuned on validation: nothing beats what is configured by a standard error")
    metrics |= {"test": None, "calibration": None}
    assert line().endswith("validation recall@5 0.2500, no test (1.0 s)")
