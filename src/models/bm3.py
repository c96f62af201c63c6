"""BM3: embeddings predict perturbed copies of each other; no negatives.

U, X = mean over layers 0..L of LightGCN's propagation; users u are rows of U, items i rows of X + E_I (the id embedding is
added after the mean). Content m of an item is F_m W_m + b_m. One linear predictor P serves all of them; a target x' is
x with entries dropped out at random, without a gradient. With c(a, b) = 1 - mean cos(a, b) over the batch:

    interaction     c(P(u), i') + c(P(i), u')
    inter_modality  cl_weight sum_m c(P(m), i')
    intra_modality  cl_weight sum_m c(P(m), m')
    reg             reg_weight (||U||_F + ||X + E_I||_F) / I, of all nodes, unsquared

Scores are P(u) . P(i), of all nodes, without dropout: content acts through training alone.

Source: Zhou et al., "Bootstrap Latent Representations for Multi-modal Recommendation", WWW 2023 (arXiv 2207.05969).

Differs from the released code: nothing in the mathematics. Only the batch's items are projected, and only the batch's
nodes dropped out and predicted, one mask to a distinct node, as a mask over all nodes gives. The paper sums the three
objectives without `cl_weight` and squares the penalty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender
from common.initial import xavier_normal_linear, xavier_uniform_embedding
from common.losses import frobenius_over_batch, mean_cosine
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset


@dataclass(frozen=True)
class BM3Config:
    """Keys of BM3; values in configs/model/BM3.yaml."""

    embedding_size: int = setting("width D of the embeddings", low=1)
    n_ui_layers: int = setting("depth L of the propagation", low=0, alias=("n_layers",))
    embedding_dropout: float = setting("share of a target's entries set to 0", low=0, high=0.99, alias=("dropout",))
    cl_weight: float = setting("weight of the content terms", low=0, alias=("cl_loss",))
    reg_weight: float = setting("weight of the embedding penalty", low=0)
    train_features: bool = setting("train the raw features too: 16 bytes for each number")


class BM3(GeneralRecommender):
    """Bootstrapped id and content embeddings."""

    settings = BM3Config
    needs_features = True
    needs_negatives = False

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: BM3Config = fill(BM3Config, config)
        width = self.embedding_size
        self.user_embedding = xavier_uniform_embedding(self.n_users, width)
        self.item_embedding = xavier_uniform_embedding(self.n_items, width)
        self.projections = nn.ModuleDict()
        for modality in self.modalities:
            n_columns = self.features(modality).shape[1]
            self.projections[modality] = xavier_normal_linear(n_columns, width, zero_bias=False)
        self.predictor = xavier_normal_linear(width, width, zero_bias=False)
        self.graph = self.interaction_graph(dataset)

    def propagate(self) -> tuple[Tensor, Tensor]:
        """Users [U, D] and items [I, D] before the predictor."""
        ego = torch.cat([self.user_embedding, self.item_embedding])  # [N, D]
        users, items = self.graph.propagate_mean(ego, self.options.n_ui_layers).split([self.n_users, self.n_items])
        return users, items + self.item_embedding

    def forward(self) -> tuple[Tensor, Tensor]:
        users, items = self.propagate()
        return self.predictor(users), self.predictor(items)

    def perturb(self, x: Tensor) -> Tensor:
        """A target: x [n, D] without a gradient, entries set to 0 at random. Cosines need no rescaling."""
        kept = torch.rand(x.shape) >= self.options.embedding_dropout
        return x.detach() * kept.to(x.device)

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        users, user_rows = batch[0].unique(return_inverse=True)
        items, item_rows = batch[1].unique(return_inverse=True)
        all_users, all_items = self.propagate()

        def views(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            """Predictions and targets [B, D] of distinct nodes x [n, D], for the batch."""
            return F.embedding(rows, self.predictor(x)), F.embedding(rows, self.perturb(x))

        user, user_target = views(F.embedding(users, all_users), user_rows)
        item, item_target = views(F.embedding(items, all_items), item_rows)
        inter = intra = user.new_zeros(())
        for modality, projection in self.projections.items():
            content = projection(F.embedding(items, self.features(modality)))
            prediction, target = views(content, item_rows)
            inter = inter + 1 - mean_cosine(prediction, item_target)
            intra = intra + 1 - mean_cosine(prediction, target)
        return {
            "interaction": 2 - mean_cosine(user, item_target) - mean_cosine(item, user_target),
            "inter_modality": self.options.cl_weight * inter,
            "intra_modality": self.options.cl_weight * intra,
            # Over the number of items, not of the batch.
            "reg": self.options.reg_weight * frobenius_over_batch(all_users, all_items),
        }
