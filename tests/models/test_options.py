"""The options of the harness over every registered model: each works with it, or says in one line that it does not."""

import csv
import json

import numpy as np
import pytest
import torch
from toys import CPU, all_scores, build, ignore_progress, make_config, toy_dataset, train_loader, uneven

from common.initialization import table_of
from common.scorers import Scorers, ScorerWeights
from common.spectral import spectral_embeddings
from common.trainer import Trainer
from runner import quick_start
from runner.registry import available_models, model_class
from utils.errors import UserError
from utils.runs.run_folder import RunFolder, read_torch

MODELS = list(available_models())
TRAINED = [name for name in MODELS if model_class(name).needs_training]
STEPS = 3  # per epoch: 150 training interactions in batches of 64
# Whose user and item tables are plain; a model of another name may have them, too.
WITH_TABLES = {"BM3", "BPR", "FREEDOM", "LATTICE", "LayerGCN", "LightGCN", "MGCN", "SelfCF", "SLMRec", "SMORE", "VBPR"}
WITHOUT_TABLES = {"EASE", "GRCN", "ItemKNN", "ItemKNNCBF", "MMGCN", "MostPop"}

every_model = pytest.mark.parametrize("name", MODELS)
# The trainer treats all alike but for these: no training, steps before and hooks after each batch and epoch, gradients
# kept at zero, no negatives, batches of all items of a user.
DIFFERENT = [name for name in ("BPR", "EASE", "BM3", "DGMRec", "LATTICE", "MMSSL", "MostPop") if name in MODELS]
different_models = pytest.mark.parametrize("name", DIFFERENT)
different_trained_models = pytest.mark.parametrize("name", [name for name in DIFFERENT if name in TRAINED])


@pytest.fixture
def go(tmp_path):
    def run(model, **overrides):
        config = make_config(model, **{"epochs": 2, "output_dir": str(tmp_path), "learning_rate": 0.01} | overrides)
        return quick_start.run(config, RunFolder.new(config), toy_dataset(), ignore_progress)

    return run


def history(result):
    with open(result.folder / "history.csv") as file:
        return list(csv.DictReader(file))


def losses(result):
    return [row.get("loss") for row in history(result)]


def test_models_are_those_that_the_lists_name():
    assert set(MODELS) >= WITH_TABLES | WITHOUT_TABLES


@every_model
def test_scorers_are_added_to_what_it_scores(name, tmp_path):
    """The lists of an evaluation are those of ranking the model's own scores with the scorers added, one user at a time."""
    data = uneven(toy_dataset())
    weights = {"popularity": 0.3, "popularity_damping": 0.5, "co_occurrence": 1.0, "co_occurrence_damping": 0.25}
    config = make_config(name, **weights)
    model = build(name, data, **weights)
    evaluator = quick_start.make_evaluator(config, data, "valid", CPU)
    scorers = Scorers(data, CPU, ScorerWeights.of(config))
    loader = train_loader(data, negatives=model.needs_negatives)
    parts = (config, model, loader, evaluator, RunFolder(tmp_path), ignore_progress)
    own = all_scores(model)
    with_both = torch.cat([scorers.add(own[user : user + 1].clone(), torch.tensor([user])) for user in range(len(own))])
    found = Trainer(*parts, scorers=scorers).evaluate(evaluator)
    expected = evaluator.evaluate(lambda users: with_both[users])
    np.testing.assert_array_equal(found.topk, expected.topk)
    plain = Trainer(*parts).evaluate(evaluator)
    np.testing.assert_array_equal(plain.topk, evaluator.evaluate(lambda users: own[users].clone()).topk)
    assert (plain.topk != found.topk).any()


@different_models
def test_scorers_do_not_change_how_it_trains(name, go):
    assert losses(go(name)) == losses(go(name, popularity=0.5, co_occurrence=1.0))


@different_models
def test_scorers_are_tuned_by_validation(name, go):
    result = go(name, calibration=True)
    told = result.metrics["calibration"]
    assert told["from"] == ScorerWeights().values()
    assert told["gain"] > 0 or told["to"] == told["from"]
    assert read_torch(result.folder / "checkpoint.pt")["scorers"] == told["to"]
    chosen = go(name, **told["to"])
    if result.metrics["best_epoch"] == chosen.metrics["best_epoch"]:
        assert result.metrics["test"] == chosen.metrics["test"], "tuned or configured, weights mean the same"


@different_trained_models
def test_its_weights_are_averaged(name, go):
    plain, averaged = go(name), go(name, weight_average=0.5)
    assert losses(plain) == losses(averaged), "it trains as without"
    kept = [read_torch(result.folder / "checkpoint.pt")["model"] for result in (plain, averaged)]
    assert kept[0].keys() == kept[1].keys()
    parameters = dict(build(name, toy_dataset()).named_parameters())
    assert any(not torch.equal(kept[0][key], kept[1][key]) for key in parameters)
    assert np.isfinite(list(averaged.metrics["test"].values())).all()


@different_trained_models
def test_it_is_not_stopped_before_its_least_number_of_steps(name, go):
    stopped = {"stopping_step": 0, "epochs": 30, "learning_rate": 1e-9}  # nothing gets better
    assert go(name, **stopped).metrics["epochs"] < 6
    assert go(name, **stopped, min_steps=6 * STEPS).metrics["epochs"] >= 6


@every_model
def test_its_tables_begin_with_singular_vectors_or_it_refuses_by_name(name):
    data = toy_dataset()
    plain = build(name, data)
    tables = {side: table_of(plain, side, n) for side, n in (("user", data.n_users), ("item", data.n_items))}
    fills = all(table is not None for table in tables.values())
    assert fills or name not in WITH_TABLES
    assert not (fills and name in WITHOUT_TABLES)
    if not fills:
        with pytest.raises(UserError, match=rf"^initialization: {name} has no plain table of [^\n]*xavier$"):
            build(name, data, initialization="spectral")
        return
    model = build(name, data, initialization="spectral", initialization_power=2.0)
    vectors = dict(zip(tables, spectral_embeddings(data, 8, 2.0), strict=True))
    changed = []
    for key, parameter in model.named_parameters():
        before = plain.get_parameter(key)
        if not torch.equal(parameter, before):
            side = next(side for side, table in tables.items() if table is before)
            found = parameter[:, : vectors[side].shape[1]].detach()
            torch.testing.assert_close(found, vectors[side] * before.std())
            changed.append(side)
    assert sorted(changed) == ["item", "user"], "and nothing else"


@different_models
def test_it_runs_without_a_test(name, go):
    result = go(name, no_test=True)
    written = json.loads((result.folder / "metrics.json").read_text())
    assert written["test"] is None
    assert written["valid"] == go(name).metrics["valid"]
    text = (result.folder / "per_user.csv").read_text().splitlines()[1:]
    assert {line.partition(",")[0] for line in text} == {"valid"}
