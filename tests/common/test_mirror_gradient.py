"""Mirror gradient: its equations, the order of its passes, and what the rest of the trainer makes of them."""

import math

import pytest
import torch
from test_trainer import (  # type: ignore[import-not-found]  # beside this file, where pytest looks
    STEPS,
    Interrupted,
    Slope,
    assert_same_weights,
    data,  # noqa: F401 (fixtures)
    failing,
    go,  # noqa: F401
    history,
    interrupt,
    make_trainer,
    numbers,
    weights,
)
from toys import make_config

from common.mirror_gradient import MirrorGradient, Pass
from common.trainer import Diverged
from utils.errors import UserError

SHIPPED = {"alpha1": 1.0, "alpha2": 0.2, "beta": 3.0}
FIRST = {"alpha1": 0.9, "alpha2": 0.4, "beta": STEPS}  # a mirror step at the first batch of an epoch alone
CURVATURE, RATE, START = 0.5, 0.1, 2.0


class Bowl(Slope):
    """Its loss is h theta^2 / 2 with h = CURVATURE, summed over four weights that begin at START."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        torch.nn.init.constant_(self.weight, START)

    def calculate_loss(self, batch):
        self.log.append(batch.clone())
        return {"bowl": CURVATURE * self.weight.square().sum() / 2}


def test_every_beta_th_step_of_an_epoch_is_a_mirror_step_and_so_is_the_first():
    mirror = MirrorGradient(SHIPPED)
    assert [len(mirror.passes(step)) for step in range(7)] == [2, 1, 1, 2, 1, 1, 2]
    assert mirror.passes(3) == (Pass(1.0, clipped=False), Pass(-0.2, clipped=True))
    assert mirror.passes(1) == (Pass(1.0, clipped=True),)
    assert {MirrorGradient(None).passes(step) for step in range(4)} == {(Pass(),)}


@pytest.mark.parametrize("epochs", [1, 2])
def test_with_sgd_a_mirror_step_is_the_paper_s_equation(epochs, tmp_path):
    trainer = make_trainer(tmp_path, model=Bowl, epochs=epochs, learning_rate=RATE, mirror_gradient=FIRST)
    trainer.fit()
    shrink = RATE * CURVATURE
    of_epoch = (1 - FIRST["alpha1"] * shrink) * (1 + FIRST["alpha2"] * shrink) * (1 - shrink) ** (STEPS - 1)
    expected = torch.full((4,), START * of_epoch**epochs)
    torch.testing.assert_close(trainer.model.weight.detach(), expected, rtol=1e-5, atol=0)


def test_without_an_ascent_it_is_an_ordinary_step_scaled(tmp_path):
    settings = {"alpha1": 0.7, "alpha2": 0.0, "beta": 1}
    mirrored = make_trainer(tmp_path / "a", model=Bowl, epochs=2, learning_rate=RATE, mirror_gradient=settings)
    plain = make_trainer(tmp_path / "b", model=Bowl, epochs=2, learning_rate=0.7 * RATE)
    for trainer in (mirrored, plain):
        trainer.folder.path.mkdir()
        trainer.fit()
    torch.testing.assert_close(mirrored.model.weight, plain.model.weight)


@pytest.mark.parametrize("beta", [1, 2, 3, 5])
def test_there_are_n_plus_n_over_beta_updates_and_both_passes_see_one_batch(beta, tmp_path):
    trainer = make_trainer(tmp_path, model=Bowl, epochs=2, mirror_gradient={"alpha1": 1.0, "alpha2": 0.2, "beta": beta})
    updates = []
    trainer.optimizer.register_step_post_hook(lambda *_: updates.append(1))
    trainer.fit()
    assert len(updates) == 2 * (STEPS + math.ceil(STEPS / beta))
    batches = [entry for entry in trainer.model.log if isinstance(entry, torch.Tensor)]
    assert len(batches) == len(updates)
    assert torch.equal(batches[0], batches[1]), "the descent and the climb"
    different = {tuple(batch.flatten().tolist()) for batch in batches}
    assert len(different) == 2 * STEPS


def test_adam_takes_both_gradients_into_its_moments(tmp_path):
    trainer = make_trainer(
        tmp_path, model=Bowl, epochs=1, learner="adam", learning_rate=RATE, mirror_gradient=FIRST, train_batch_size=64
    )
    trainer.fit()
    theta, first, second = START, 0.0, 0.0
    for number, scale in enumerate([FIRST["alpha1"], -FIRST["alpha2"], 1.0, 1.0], 1):
        gradient = scale * CURVATURE * theta
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        theta -= RATE * (first / (1 - 0.9**number)) / (math.sqrt(second / (1 - 0.999**number)) + 1e-8)
    torch.testing.assert_close(trainer.model.weight.detach(), torch.full((4,), theta), rtol=1e-5, atol=0)


def test_the_climb_is_clipped_and_the_descent_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(Slope, "slope", 100.0)
    settings = {"alpha1": 1.0, "alpha2": 0.5, "beta": STEPS}
    trainer = make_trainer(tmp_path, epochs=1, learning_rate=0.01, clip_grad_norm=0.5, mirror_gradient=settings)
    trainer.fit()
    clipped = 0.5 / 2  # the norm of four equal entries is twice an entry
    expected = torch.full((4,), -0.01 * (100 - clipped + (STEPS - 1) * clipped))
    torch.testing.assert_close(trainer.model.weight.detach(), expected, rtol=1e-4, atol=0)


def test_the_moving_average_takes_in_whole_mirror_steps_only(tmp_path):
    decay = 0.3
    trainer = make_trainer(
        tmp_path, model=Bowl, epochs=1, learning_rate=RATE, weight_average=decay, mirror_gradient=FIRST
    )
    trainer.fit()
    shrink = RATE * CURVATURE
    theta, average = START, START
    for step in range(1, STEPS + 1):
        mirror = (1 - FIRST["alpha1"] * shrink) * (1 + FIRST["alpha2"] * shrink)
        theta *= mirror if step == 1 else 1 - shrink
        own = min(decay, (1 + step) / (10 + step))
        average = own * average + (1 - own) * theta
    assert trainer.average is not None
    assert trainer.average.steps == STEPS
    (kept,) = trainer.average.averaged.parameters()
    assert kept[0].item() == pytest.approx(average, rel=1e-5)


def test_both_passes_run_in_mixed_precision(tmp_path):
    class Watched(Bowl):
        def calculate_loss(self, batch):
            assert torch.is_autocast_enabled("cpu")
            return super().calculate_loss(batch)

    make_trainer(tmp_path, model=Watched, epochs=1, amp=True, mirror_gradient=SHIPPED).fit()


def test_the_history_shows_the_loss_before_a_mirror_step(tmp_path):
    trainer = make_trainer(tmp_path, model=Bowl, epochs=1, learning_rate=RATE, mirror_gradient=FIRST)
    trainer.fit()
    shrink = RATE * CURVATURE
    theta = [START, START * (1 - FIRST["alpha1"] * shrink) * (1 + FIRST["alpha2"] * shrink)]
    theta.append(theta[-1] * (1 - shrink))
    (row,) = history(tmp_path)
    assert float(row["loss_bowl"]) == pytest.approx(sum(2 * CURVATURE * x**2 for x in theta) / STEPS, rel=1e-5)


@pytest.mark.parametrize(("call", "step"), [(1, 1), (2, 1), (3, 2), (5, 4)])
def test_a_loss_that_is_not_finite_in_either_pass_ends_the_run_at_its_step(call, step, tmp_path):
    settings = {"alpha1": 1.0, "alpha2": 0.2, "beta": 4}
    trainer = make_trainer(tmp_path, model=failing(call), mirror_gradient=settings, train_batch_size=64)
    epoch, of_epoch = (step - 1) // STEPS + 1, (step - 1) % STEPS + 1
    with pytest.raises(Diverged, match=f"^epoch {epoch}, step {of_epoch}: loss term 'second' is nan$"):
        trainer.fit()


@pytest.mark.parametrize("model", ["BM3", "DGMRec", "GTC", "LATTICE", "MMSSL"])  # each is trained in a way of its own
def test_models_train_with_it_to_other_weights_than_without(model, go):  # noqa: F811
    mirrored, plain = (go(model, epochs=1, mirror_gradient=value) for value in (SHIPPED, None))
    assert mirrored.metrics["status"] == "finished"
    assert any(not torch.equal(w, weights(plain)["model"][name]) for name, w in weights(mirrored)["model"].items())


def test_a_model_without_training_takes_no_notice(go):  # noqa: F811
    assert numbers(go("MostPop", mirror_gradient=SHIPPED)) == numbers(go("MostPop"))


@pytest.mark.parametrize(
    ("model", "options"),
    [("LightGCN", {"weight_average": 0.8, "clip_grad_norm": 0.1}), ("LATTICE", {})],
    ids=str,
)
def test_a_run_interrupted_in_either_pass_goes_on_to_the_same_bits(model, options, go, monkeypatch):  # noqa: F811
    options = {"epochs": 3, "mirror_gradient": {"alpha1": 1.0, "alpha2": 0.2, "beta": 2}} | options
    whole = go(model, **options)
    calls_of_epoch = STEPS + math.ceil(STEPS / 2)
    for call in (calls_of_epoch + 2, 2 * calls_of_epoch + 4):
        with monkeypatch.context() as patch:
            interrupt(patch, model, "step", call)
            with pytest.raises(Interrupted):
                go(model, **options)
        torch.rand(3)  # the stream that the next process starts with is another one
        resumed = go(model, resume=True, **options)
        assert resumed.folder != whole.folder
        assert numbers(resumed) == numbers(whole), call
        assert_same_weights(weights(resumed), weights(whole))


@pytest.mark.parametrize(
    "value",
    [
        {"alpha1": 1.0, "alpha2": 1.0, "beta": 3},
        {"alpha1": 0.1, "alpha2": 0.2, "beta": 3},
        {"alpha1": 1.0, "alpha2": -0.1, "beta": 3},
        {"alpha1": 1.0, "alpha2": 0.2, "beta": 0},
        {"alpha1": 1.0, "alpha2": 0.2, "beta": 2.5},
        {"alpha1": 1.0, "alpha2": 0.2},
        {"alpha1": 1.0, "alpha2": 0.2, "beta": 3, "gamma": 1.0},
        {"alpha1": 1.0, "alpha2": "much", "beta": 3},
        3,
    ],
    ids=str,
)
def test_bad_values_are_refused_in_one_line(value):
    with pytest.raises(UserError, match="mirror_gradient: expected ") as error:
        make_config("BPR", mirror_gradient=value)
    (line,) = error.value.problems
    assert "\n" not in line
    assert "got" in line
