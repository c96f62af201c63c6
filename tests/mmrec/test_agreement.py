"""Files in the manner of MMRec beside ours: from the same parameters and batches, the same losses, steps and scores."""

from __future__ import annotations

import pytest
import torch
from plugin_tools import TREE, built
from toys import all_scores, build, total, toy_dataset, train_loader

from common.trainer import loss_terms

STEPS = 12
NAMES = {
    "LightGCN": {"embedding_dict.user_emb": "user_embedding", "embedding_dict.item_emb": "item_embedding"},
    "FREEDOM": {
        "user_embedding.weight": "user_embedding", "item_id_embedding.weight": "item_embedding",
        "image_embedding.weight": "features_visual", "text_embedding.weight": "features_textual",
        "image_trs.weight": "projections.visual.weight", "image_trs.bias": "projections.visual.bias",
        "text_trs.weight": "projections.textual.weight", "text_trs.bias": "projections.textual.bias",
    },
    "MGCN": {
        "user_embedding.weight": "user_embedding", "item_id_embedding.weight": "item_embedding",
        "image_embedding.weight": "features_visual", "text_embedding.weight": "features_textual",
        "image_trs.weight": "projections.visual.weight", "image_trs.bias": "projections.visual.bias",
        "text_trs.weight": "projections.textual.weight", "text_trs.bias": "projections.textual.bias",
        "gate_v.0.weight": "gates.visual.weight", "gate_v.0.bias": "gates.visual.bias",
        "gate_t.0.weight": "gates.textual.weight", "gate_t.0.bias": "gates.textual.bias",
        "gate_image_prefer.0.weight": "preferences.visual.weight", "gate_image_prefer.0.bias": "preferences.visual.bias",
        "gate_text_prefer.0.weight": "preferences.textual.weight", "gate_text_prefer.0.bias": "preferences.textual.bias",
        "query_common.0.weight": "query.0.weight", "query_common.0.bias": "query.0.bias",
        "query_common.2.weight": "query.2.weight",
    },
}  # fmt: skip
OURS = {
    "LightGCN": {"n_ui_layers": 2, "reg_weight": 1e-2},
    "FREEDOM": {"n_ui_layers": 2, "n_mm_layers": 1, "knn_k": 3, "edge_dropout": 0.0, "reg_weight": 1e-2},
    "MGCN": {"n_ui_layers": 2, "n_mm_layers": 1, "knn_k": 3, "cl_weight": 0.1, "reg_weight": 1e-2},
}
THEIRS = {
    "LightGCN": {"n_layers": 2, "reg_weight": 1e-2},
    "FREEDOM": {
        "n_ui_layers": 2,
        "n_mm_layers": 1,
        "knn_k": 3,
        "dropout": 0.0,
        "reg_weight": 1e-2,
        "feat_embed_dim": 8,
    },
    "MGCN": {"n_ui_layers": 2, "n_layers": 1, "knn_k": 3, "cl_loss": 0.1, "reg_weight": 1e-2},
}


@pytest.mark.parametrize("name", NAMES)
def test_same_losses_steps_and_scores(name, tmp_path, monkeypatch):
    monkeypatch.setattr("mmrec.running.default_cache_path", lambda: tmp_path)
    data = toy_dataset()
    # The item without features has a cosine of NaN with all in such files, which no two ways of sorting treat alike.
    for matrix in data.features.values():
        matrix[-1] = matrix[0] * 0.5 + matrix[1]
    ours = build(name, data, **OURS[name])
    path = TREE / "models" / f"{name.lower()}.py"
    theirs = built(path, data, embedding_size=8, train_batch_size=64, **THEIRS[name])
    own = dict(theirs.named_parameters())
    assert set(own) == set(NAMES[name])
    assert set(NAMES[name].values()) == {key for key, _ in ours.named_parameters()}
    given = dict(ours.named_parameters())
    with torch.no_grad():
        for key, parameter in own.items():
            parameter.copy_(given[NAMES[name][key]])
    steps = [torch.optim.Adam(model.parameters(), lr=0.01) for model in (ours, theirs)]
    loader = train_loader(data)
    batches = [batch for _ in range(4) for batch in loader.epoch()][:STEPS]
    for model in (ours, theirs):
        model.train()
        model.pre_epoch_processing()
    losses = []
    for batch in batches:
        row = []
        for model, step in zip((ours, theirs), steps, strict=True):
            loss = total(loss_terms(model.calculate_loss(batch.clone())))
            step.zero_grad()
            loss.backward()
            step.step()
            row.append(float(loss.detach()))
        losses.append(row)
    one, two = torch.tensor(losses, dtype=torch.float64).T
    torch.testing.assert_close(one, two, rtol=2e-4, atol=1e-5)
    assert float(one[0]) > float(one[-1])
    torch.testing.assert_close(all_scores(ours), all_scores(theirs), rtol=2e-3, atol=2e-4)
