"""Every model trains on features without content and where items lack content."""

import pytest
import torch
from test_contract import WITH_FEATURES
from toys import BOTH, CPU, build, ignore_progress, make_config, toy_dataset, train_loader

from common.trainer import Trainer
from runner.quick_start import make_evaluator
from utils.data.missing_modalities import drawn_present
from utils.data.modality_input import changed_features
from utils.runs.run_folder import RunFolder


@pytest.mark.parametrize("case", ["zero", "missing"])
@pytest.mark.parametrize("name", WITH_FEATURES)
def test_every_model_trains_without_content(name, case, tmp_path):
    """Two epochs and an evaluation, with finite numbers throughout."""
    data = toy_dataset()
    if case == "zero":
        data.features = changed_features(data.features, dict.fromkeys(BOTH, "zero"))
    else:
        for modality in BOTH:
            data.present[modality] = drawn_present(modality, data.n_items, 0.99)
            data.features[modality][~data.present[modality]] = 0
    config = make_config(name, epochs=2, eval_step=1)
    model = build(name, data)
    loader = train_loader(data, config["train_batch_size"], negatives=model.needs_negatives)
    validator = make_evaluator(config, data, "valid", CPU)
    trainer = Trainer(config, model, loader, validator, RunFolder(tmp_path), ignore_progress)
    trainer.fit()  # a loss or a score that is not finite ends it
    assert trainer.state.epoch == (2 if model.needs_training else 1)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    with model.scoring():
        views = model.modality_embeddings()
        assert all(torch.isfinite(x).all() for pair in views.values() for x in pair)
