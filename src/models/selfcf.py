"""SelfCF: user and item of an observed pair predict each other's perturbed embedding; no negatives.

E* = LightGCN's mean over layers 0..L; in training each pass goes over a graph whose entries are kept with probability
1 - r and multiplied by 1/(1 - r), r ~ Uniform[0, 1) again for each batch, both directions of an edge apart. With the batch's
rows u, v, their copies u~, v~ without a gradient and with a share of entries zeroed, and the linear predictor P:
-1/2 mean cos(P u, v~) - 1/2 mean cos(P v, u~) + `reg_weight` times half the squares of u and v, summed.
Score: <P u, v> + <u, P v> on the full graph.

Source: Zhou, Sun, Liu, Zhang and Miao, "SelfCF: A Simple Framework for Self-supervised Collaborative Filtering", ACM TORS
2023 (arXiv 2107.03019); the variant with embedding dropout (ed) and a LightGCN encoder.

Differs from the released code: nothing in the mathematics. The paper's variant has embedding dropout alone; the released
encoder drops edges too, and so does this one unless `drop_edges` is false.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender
from common.initial import xavier_uniform_embedding
from common.losses import half_squared_l2, mean_cosine
from common.sparse import EdgePattern
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset


@dataclass(frozen=True)
class SelfCFConfig:
    """Keys of SelfCF; values in configs/model/SelfCF.yaml."""

    embedding_size: int = setting("width D of the embeddings", low=1)
    n_ui_layers: int = setting("depth L of the propagation", low=0, alias=("n_layers",))
    embedding_dropout: float = setting("share of a target's entries that are zeroed", low=0, high=1, alias=("dropout",))
    drop_edges: bool = setting("drop a random share of the graph's entries in each pass")
    reg_weight: float = setting("weight of the penalty on propagated embeddings, a sum over the batch", low=0)


class SelfCF(GeneralRecommender):
    """Self-supervised collaborative filtering without negatives."""

    settings = SelfCFConfig
    needs_negatives = False

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: SelfCFConfig = fill(SelfCFConfig, config)
        self.user_embedding = xavier_uniform_embedding(self.n_users, self.embedding_size)
        self.item_embedding = xavier_uniform_embedding(self.n_items, self.embedding_size)
        self.predictor = nn.Linear(self.embedding_size, self.embedding_size)
        self.graph = self.interaction_graph(dataset)
        n = self.n_users + self.n_items
        rows = torch.arange(n).repeat_interleave(self.graph.offsets.diff())
        self.entries = EdgePattern(rows, self.graph.columns, (n, n))

    def propagate(self) -> tuple[Tensor, Tensor]:
        """The encoder's users [U, D] and items [I, D]; in training over a graph with entries dropped at random."""
        ego = torch.cat([self.user_embedding, self.item_embedding])  # [N, D]
        if self.training and self.options.drop_edges:
            rate = torch.rand(())
            kept = (torch.rand(len(self.graph.weights)) >= rate) / (1 - rate)
            weights = self.graph.weights * kept.to(ego.device)
            nodes = layer = ego
            for _ in range(self.options.n_ui_layers):
                layer = self.entries(weights, layer)
                nodes = nodes + layer
            nodes = nodes / (self.options.n_ui_layers + 1)
        else:
            nodes = self.graph.propagate_mean(ego, self.options.n_ui_layers)
        users, items = nodes.split([self.n_users, self.n_items])
        return users, items

    def target(self, x: Tensor) -> Tensor:
        """x [B, D] without a gradient, entries zeroed at random; a scale of 1/(1 - p) would not change a cosine."""
        x = x.detach()
        if self.training and self.options.embedding_dropout > 0:
            x = x * (torch.rand(x.shape) >= self.options.embedding_dropout).to(x.device)
        return x

    def forward(self) -> tuple[Tensor, Tensor]:
        """Users [P u | u] [U, 2D] and items [v | P v] [I, 2D]: their dot product is the score."""
        users, items = self.propagate()
        return torch.cat([self.predictor(users), users], dim=1), torch.cat([items, self.predictor(items)], dim=1)

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        all_users, all_items = self.propagate()
        users, items = F.embedding(batch[0], all_users), F.embedding(batch[1], all_items)
        target_users, target_items = self.target(users), self.target(items)
        return {
            "user_to_item": -mean_cosine(self.predictor(users), target_items) / 2,
            "item_to_user": -mean_cosine(self.predictor(items), target_users) / 2,
            "reg": self.options.reg_weight * half_squared_l2(users, items),
        }
