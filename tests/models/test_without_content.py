"""Every model trains on features without content: zeros, noise, other items' rows, items that have none."""

import pytest
import torch
from test_contract import WITH_FEATURES
from toys import BOTH, CPU, build, ignore_progress, make_config, toy_dataset, train_loader

from common.trainer import Trainer
from runner.quick_start import make_evaluator
from utils.data.missing_modalities import drawn_present
from utils.data.modality_input import changed_features
from utils.runs.run_folder import RunFolder


@pytest.mark.parametrize("changed", [["visual"], ["textual"], list(BOTH)], ids="+".join)
@pytest.mark.parametrize("word", ["zero", "noise", "shuffle"])
@pytest.mark.parametrize("name", WITH_FEATURES)
def test_every_model_trains_without_content(name, word, changed, tmp_path):
    data = toy_dataset()
    data.features = changed_features(data.features, dict.fromkeys(changed, word))
    trains(name, data, tmp_path)


@pytest.mark.parametrize("share", [0.5, 0.99])
@pytest.mark.parametrize("name", WITH_FEATURES)
def test_every_model_trains_where_items_lack_content(name, share, tmp_path):
    data = toy_dataset()
    for modality in BOTH:
        data.present[modality] = drawn_present(modality, data.n_items, share)
        data.features[modality][~data.present[modality]] = 0
    trains(name, data, tmp_path)


def trains(name, data, folder):
    """Two epochs and an evaluation, with finite numbers throughout."""
    config = make_config(name, epochs=2, eval_step=1)
    model = build(name, data)
    loader = train_loader(data, config["train_batch_size"], negatives=model.needs_negatives)
    validator = make_evaluator(config, data, "valid", CPU)
    trainer = Trainer(config, model, loader, validator, RunFolder(folder), ignore_progress)
    trainer.fit()  # a loss or a score that is not finite ends it
    assert trainer.state.epoch == (2 if model.needs_training else 1)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    with model.scoring():
        views = model.modality_embeddings()
        assert all(torch.isfinite(x).all() for pair in views.values() for x in pair)
