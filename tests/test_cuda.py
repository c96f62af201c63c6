"""The same commands on a CUDA GPU give the CPU's results within float tolerance. Skipped where there is no GPU."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_tools import metrics_of, places, trained, write_dataset
from toys import CPU, WIDTHS, make_config, on_double, one_batch, total, toy_dataset, train_loader

from common.compiling import compile_dense_methods
from common.precision import mixed_precision
from common.scorers import Scorers, ScorerWeights
from common.trainer import loss_terms, make_optimizer
from runner.quick_start import build_model, make_evaluator
from runner.registry import available_models, model_class
from utils.data.dataloader import TrainLoader
from utils.data.dataset import Dataset

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")

CUDA = torch.device("cuda:0")
MODELS = list(available_models())
TRAINED = [name for name in MODELS if model_class(name).needs_training]
GTCS: dict[str, dict[str, Any]] = {
    "text": {"content": "projected", "prediction": "noise", "fusion": "product", "critic": "product", "generation_steps": 0},
    "denoised items": {"denoising": "items", "edge_masking": False},
    "pairwise, user graph": {"alignment": "pairwise", "user_k": 3},
    "released": {"backbone": "released", "denoising": "items", "prediction": "noise", "user_k": 3, "critic": "product"},
}  # fmt: skip
CASES = [(name, {}) for name in MODELS] + [("GTC", settings) for settings in GTCS.values()]
NAMES = [*MODELS, *(f"GTC {name}" for name in GTCS)]


def on_both(name: str, dataset: Dataset, **overrides: Any) -> dict[torch.device, Any]:
    """The seeded model on the CPU and on the GPU, in double precision: what differs then differs in meaning."""
    return {device: on_double(build_model(make_config(name, **overrides), dataset, device)) for device in (CPU, CUDA)}


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {key: p.grad.cpu() for key, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("name", "settings"), CASES, ids=NAMES)
def test_weights_losses_gradients_and_scores_are_those_of_the_cpu(name, settings):
    data = toy_dataset()
    found = {}
    for device, model in on_both(name, data, **settings).items():
        state = {key: tensor.cpu().clone() for key, tensor in model.state_dict().items()}
        terms = {}
        if model.needs_training:
            torch.manual_seed(0)
            model.train()
            model.pre_epoch_processing()
            batch = one_batch(data).to(device)
            model.pre_step_processing(batch)
            terms = loss_terms(model.calculate_loss(batch))
            assert all(term.device == device for term in terms.values())
            total(terms).backward()
        found[device] = (
            state,
            {key: term.detach().cpu() for key, term in terms.items()},
            gradients(model),
            scores(model),
        )
    torch.testing.assert_close(found[CUDA], found[CPU], rtol=1e-6, atol=1e-9)


def scores(model: Any) -> torch.Tensor:
    device = next((tensor.device for tensor in [*model.parameters(), *model.buffers()]), CPU)
    with model.scoring():
        found: torch.Tensor = model.full_sort_predict((torch.arange(model.n_users, device=device),))
    return found.cpu()


@pytest.mark.parametrize("name", TRAINED)
def test_training_goes_the_way_of_the_cpu(name):
    data = toy_dataset()
    found = {}
    for device, model in on_both(name, data).items():
        optimizer = make_optimizer(make_config("BPR", learning_rate=0.01), model)
        loader = TrainLoader(data, 64, 0, device, model.needs_negatives, model.batches_by_user)
        torch.manual_seed(0)
        for _ in range(2):
            model.train()
            model.pre_epoch_processing()
            for batch in loader.epoch():
                model.pre_step_processing(batch)
                optimizer.zero_grad(set_to_none=not model.keeps_zero_gradients)
                total(loss_terms(model.calculate_loss(batch))).backward()
                optimizer.step()
            model.post_epoch_processing()
        found[device] = scores(model)
    torch.testing.assert_close(found[CUDA], found[CPU], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("modalities", [["visual"], list(WIDTHS)], ids="+".join)
def test_gtc_takes_one_modality_and_three(modalities):
    data = toy_dataset(modalities)
    found = {}
    for device, model in on_both("GTC", data).items():
        torch.manual_seed(0)
        found[device] = total(model.train().calculate_loss(one_batch(data).to(device))).detach().cpu()
    torch.testing.assert_close(found[CUDA], found[CPU], rtol=1e-6, atol=1e-9)


def test_batches_are_those_of_the_cpu():
    data = toy_dataset()
    pairs = zip(train_loader(data).epoch(), TrainLoader(data, 64, 0, CUDA).epoch(), strict=True)
    assert all(other.device == CUDA and torch.equal(one, other.cpu()) for one, other in pairs)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_metrics_are_those_of_the_cpu(split):
    data = toy_dataset()
    table = torch.randn(data.n_users, data.n_items, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    results = []
    for device in (CPU, CUDA):
        moved = table.to(device)
        evaluator = make_evaluator(make_config("BPR"), data, split, device)
        results.append(evaluator.evaluate(lambda users, moved=moved: moved[users]))
    assert results[1].means() == pytest.approx(results[0].means(), abs=1e-12)
    assert (results[1].topk == results[0].topk).all(), "equal scores stand in the same order"


def test_scorers_add_what_they_add_on_the_cpu():
    data, found = toy_dataset(), []
    table = torch.randn(data.n_users, data.n_items, generator=torch.Generator().manual_seed(0))
    for device in (CPU, CUDA):
        scorers = Scorers(data, device, ScorerWeights(popularity=0.5, co_occurrence=2.0, co_occurrence_damping=0.3))
        found.append(scorers.add(table.to(device, copy=True), torch.arange(data.n_users, device=device)).cpu())
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found[0], table)


@pytest.mark.filterwarnings("ignore")  # of PyTorch's compiler
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("settings", [{}, GTCS["text"]], ids=["default", "text"])
def test_amp_and_compile_come_near(settings, compiled):
    data = toy_dataset()
    losses, directions = [], []
    for faster in (False, True):
        model = build_model(make_config("GTC", **settings), data, CUDA)
        if faster and compiled:
            compile_dense_methods(model, CUDA)
        torch.manual_seed(0)
        with mixed_precision(CUDA, faster):
            loss = total(loss_terms(model.train().calculate_loss(one_batch(data).to(CUDA))))
        loss.backward()
        losses.append(loss.item())
        directions.append(torch.cat([gradient.flatten() for gradient in gradients(model).values()]))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert torch.cosine_similarity(*directions, dim=0) > 0.99


# Whole runs


def words(folder: Path, device: str) -> list[str]:
    return [*places(folder)[:-1], device, "--epochs", "4", "--stopping_step", "4", "--train_batch_size", "64"]


@pytest.fixture
def world(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "data" / "toy")
    return tmp_path


def run_of(world: Path, device: str, *more: str) -> Path:
    outcome = trained(*more, "-d", "toy", *words(world, device))
    (folder,) = outcome.folders
    return folder


def history(folder: Path) -> list[dict[str, str]]:
    with open(folder / "history.csv", newline="") as file:
        return [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", ["BPR", "LightGCN", "GTC"])
def test_a_run_gives_the_results_of_the_cpu(name, world):
    runs = [run_of(world, device, "-m", name) for device in ("cpu", "cuda")]
    one, other = (history(run) for run in runs)
    assert len(one) == len(other)
    for row, its in zip(one, other, strict=True):
        assert float(its["loss"]) == pytest.approx(float(row["loss"]), rel=1e-3)
    checkpoint = torch.load(runs[1] / "checkpoint.pt", weights_only=True)
    assert all(tensor.device == CPU for tensor in checkpoint["model"].values()), "to be read where there is no GPU"


OPTIONS = ("--calibration", "--weight_average", "0.9", "--initialization", "spectral")


@pytest.mark.parametrize(("name", "options"), [("LightGCN", ()), ("LightGCN", OPTIONS), ("GTC", ())])
def test_a_killed_run_resumes_to_the_same_result(name, options, world, monkeypatch):
    how = ("-m", name, "--deterministic", "true", *options)
    whole = run_of(world, "cuda", *how)
    wanted = metrics_of(whole), history(whole)
    shutil.rmtree(world / "runs")
    replace, count = os.replace, iter(range(10**9))

    def dying(*arguments: Any, **options: Any) -> None:
        if next(count) == 6:
            raise KeyboardInterrupt
        replace(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        with pytest.raises((KeyboardInterrupt, AssertionError)):
            run_of(world, "cuda", *how)
    resumed = run_of(world, "cuda", *how, "--resume")
    assert (metrics_of(resumed), history(resumed)) == wanted


def test_what_the_gpu_trained_recommends_on_the_cpu(world):
    run = run_of(world, "cuda", "-m", "GTC")
    lists = [trained("recommend", run, "--data_path", world / "data", "--k", 5, "--device", device).out
             for device in ("cuda", "cpu")]  # fmt: skip
    assert lists[0].count("\n") > 5
    one, other = ([line.split()[:3] for line in found.splitlines()] for found in lists)
    assert sum(a == b for a, b in zip(one, other, strict=True)) > 0.9 * len(one)
