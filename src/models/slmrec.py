"""SLMRec: one LightGCN per modality with one user table, fused by a linear layer, trained by contrast in the batch.

J_id = E_I and J_m = F_m W_m + b_m, with rows of F_m at unit length; H_m = mean over layers 0..L of propagating [E_U ; J_m];
z = [H_id | H_1 | ... | H_M] W + b with one W, b for users and one for items.

    main        cross-entropy of cos(z_u, z_i) / temperature over the batch's positives, users to items
    contrastive cl_weight sum_k cross-entropy of <a_k, f_k(H_k)> / cl_temperature over the batch's positives ("FAC")

The second term goes up a hierarchy of modalities, id first: a_1 = g_1(H_id), a_k = g_k(a_(k-1)); all f and g are linear
with bias, nothing is brought to unit length. Repeated items stay each other's negatives. Scores are z_u . z_i.

With two modalities the published code has three levels, as for three, and drops the loss of the middle one: a_2 =
g_3(g_2(a_1)) is compared with the second modality. Levels are D wide, the last of several D/2.

Source: Tao et al., "Self-Supervised Learning for Multimedia Recommendation", IEEE Transactions on Multimedia 2023
(doi 10.1109/TMM.2022.3187556); equations as in MMRec's form.

Differs from the released code: scores are the dot products without the sigmoid over them, which saturates in float32 and
ties the best items; they are computed from the current parameters, not the last batch's; no negatives are sampled. One or
more than two modalities work: see docs/models/slmrec.md. Feature dropout and masking, the paper's other two tasks, are
left out: they have no published figures on these data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender
from common.contrast import pair_contrast, row_contrast
from common.initial import xavier_uniform_embedding, xavier_uniform_linear
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset


@dataclass(frozen=True)
class SLMRecConfig:
    """Keys of SLMRec; values in configs/model/SLMRec.yaml."""

    embedding_size: int = setting("width D of the embeddings", low=2, alias=("recdim",))
    n_ui_layers: int = setting("depth L of the propagation", low=0, alias=("n_layers", "layer_num"))
    temperature: float = setting("temperature of the main loss", above=0, alias=("temp",))
    cl_temperature: float = setting("temperature of the contrast of modalities", above=0, alias=("ssl_temp",))
    cl_weight: float = setting("weight of the contrast of modalities", low=0, alias=("cl_loss", "ssl_alpha"))
    ssl_task: str = setting("the auxiliary task; FAC contrasts modalities", choices=("FAC",))
    train_features: bool = setting("train the features too, from unit length: 16 bytes for each number")


class SLMRec(GeneralRecommender):
    """Modality-wise propagation with hierarchical contrast of modalities."""

    settings = SLMRecConfig
    needs_features = True
    needs_negatives = False

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: SLMRecConfig = fill(SLMRecConfig, config)
        width, n_modalities = self.embedding_size, len(self.modalities)
        # Visual first and textual last, as in the paper's id, visual, acoustic, textual.
        self.order = sorted(self.modalities, key=lambda m: (m != "visual") + (m == "textual"))
        self.user_embedding = xavier_uniform_embedding(self.n_users, width)
        self.item_embedding = xavier_uniform_embedding(self.n_items, width)
        self.projections = nn.ModuleDict()
        for modality in self.order:
            features = self.features(modality)
            features.data = F.normalize(features.data, dim=1)  # new memory: the data set's stays as it is
            self.projections[modality] = xavier_uniform_linear(features.shape[1], width)
        self.fuse_users = xavier_uniform_linear((n_modalities + 1) * width, width)
        self.fuse_items = xavier_uniform_linear((n_modalities + 1) * width, width)
        widths = [width] * n_modalities
        if n_modalities > 1:
            widths[-1] = width // 2
        self.steps, self.heads = nn.ModuleDict(), nn.ModuleDict()  # g and f, by the modality of the level
        below = width
        for modality, here in zip(self.order, widths, strict=True):
            step: nn.Module = xavier_uniform_linear(below, here)
            if n_modalities == 2 and modality == self.order[-1]:
                step = nn.Sequential(xavier_uniform_linear(width, width), step)
            self.steps[modality] = step
            self.heads[modality] = xavier_uniform_linear(width, here)
            below = here
        self.graph = self.interaction_graph(dataset)

    def propagate(self) -> tuple[Tensor, Tensor]:
        """H of all modalities, id first: users and items side by side, [U, (M + 1) D] and [I, (M + 1) D].

        The initial user embedding is the same in every modality, so it is propagated once and added.
        """
        n_layers, n_parts = self.options.n_ui_layers, len(self.order) + 1
        content = [self.projections[modality](self.features(modality)) for modality in self.order]
        joined = torch.cat([self.item_embedding, *content], dim=1)
        shared = self.graph.propagate_mean_from(self.user_embedding, n_layers, True)
        own = self.graph.propagate_mean_from(joined, n_layers, False)
        users, items = (x + y.repeat(1, n_parts) for x, y in zip(own, shared, strict=True))
        return users, items

    def forward(self) -> tuple[Tensor, Tensor]:
        users, items = self.propagate()
        return self.fuse_users(users), self.fuse_items(items)

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        options = self.options
        all_users, all_items = self.propagate()
        user_ids, at_users = batch[0].unique(return_inverse=True)
        item_ids, at_items, counts = batch[1].unique(return_inverse=True, return_counts=True)
        pairs = torch.stack([at_users, at_items])
        users, items = F.embedding(user_ids, all_users), F.embedding(item_ids, all_items)
        anchors, *content = items.split(self.embedding_size, dim=1)
        contrast = anchors.new_zeros(())
        for modality, h in zip(self.order, content, strict=True):
            anchors = self.steps[modality](anchors)
            candidates = self.heads[modality](h)
            contrast = contrast + row_contrast(anchors, candidates, options.cl_temperature, counts, normalize=False)
        return {
            "main": pair_contrast(self.fuse_users(users), self.fuse_items(items), pairs, options.temperature),
            "contrastive": options.cl_weight * contrast,
        }

    def modality_embeddings(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Propagated embeddings of id and each modality: users [U, D] and items [I, D]."""
        users, items = (x.split(self.embedding_size, dim=1) for x in self.propagate())
        return dict(zip(["id", *self.order], zip(users, items, strict=True), strict=True))
