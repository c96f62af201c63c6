"""LayerGCN: each layer of the propagation is weighed, node by node, by its cosine with the id embedding.

X^0 = [E_U ; E_I]; for l = 1..L: Z = G X^(l-1), X^l_v = cos(Z_v, X^0_v) Z_v; output sum_{l=1..L} X^l, without layer 0 and
not divided. In training G is a graph of a share 1 - `edge_dropout` of the interactions, drawn again for each epoch and
normalised again; in evaluation all are used. Loss, summed over the batch: -log sigmoid(s_ui - s_uj) plus `reg_weight`
times half the squares of the batch's id embeddings.

Source: Zhou, Lin, Liu and Miao, "Layer-refined Graph Convolutional Networks for Recommendation", ICDE 2023 (arXiv
2207.11088).

Differs from the released code: nothing in the mathematics. The released code alternates degree-sensitive pruning with
uniform pruning, epoch by epoch, where the paper's method is the degree-sensitive one throughout: `pruning` says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common.abstract_recommender import GeneralRecommender
from common.graph import degree_sensitive_weights, draw_without_replacement, pruned_interaction_graph
from common.initial import xavier_uniform_embedding
from common.layer_refinement import refine
from common.losses import half_squared_l2
from common.scoring import batch_rows
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset


@dataclass(frozen=True)
class LayerGCNConfig:
    """Keys of LayerGCN; values in configs/model/LayerGCN.yaml."""

    embedding_size: int = setting("width D of the embeddings", low=1)
    n_ui_layers: int = setting("depth L of the propagation", low=1, alias=("n_layers",))
    edge_dropout: float = setting(
        "share of interactions left out of an epoch's graph", low=0, high=1, alias=("dropout",)
    )
    pruning: str = setting(
        "which interactions are left out: those of high degree more often, any alike, or in turn, degree first",
        choices=("degree", "uniform", "alternate"),
    )
    reg_weight: float = setting("weight of the embedding penalty, a sum over the batch", low=0)


class LayerGCN(GeneralRecommender):
    """Graph convolution with layers refined by their similarity to the id embeddings."""

    settings = LayerGCNConfig
    epochs_pruned: Tensor  # int64: decides what `alternate` does next, also after a run is taken up again

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: LayerGCNConfig = fill(LayerGCNConfig, config)
        self.dataset = dataset
        self.user_embedding = xavier_uniform_embedding(self.n_users, self.embedding_size)
        self.item_embedding = xavier_uniform_embedding(self.n_items, self.embedding_size)
        self.graph = self.interaction_graph(dataset)
        self.training_graph = self.graph
        # Not a buffer: what is kept is drawn on the CPU.
        self.edge_weights = degree_sensitive_weights(dataset)
        self.register_buffer("epochs_pruned", torch.zeros((), dtype=torch.int64))

    def pre_epoch_processing(self) -> None:
        """Draws the interactions that this epoch's graph keeps."""
        if self.options.edge_dropout > 0:
            turn = ("degree", "uniform")[int(self.epochs_pruned) % 2]
            pruning = turn if self.options.pruning == "alternate" else self.options.pruning
            weights = self.edge_weights if pruning == "degree" else torch.ones_like(self.edge_weights)
            kept = draw_without_replacement(weights, int(len(weights) * (1 - self.options.edge_dropout)))
            self.training_graph = pruned_interaction_graph(self.dataset, kept).to(self.device)
            self.epochs_pruned += 1

    def forward(self) -> tuple[Tensor, Tensor]:
        """Users [U, D] and items [I, D]: on the epoch's graph in training, on the full one in evaluation."""
        graph = self.training_graph if self.training else self.graph
        layer = ego = torch.cat([self.user_embedding, self.item_embedding])  # [N, D]
        nodes = torch.zeros_like(ego)
        for _ in range(self.options.n_ui_layers):
            layer = refine(graph(layer), ego)
            nodes = nodes + layer
        users, items = nodes.split([self.n_users, self.n_items])
        return users, items

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        users, pos, neg = batch_rows(batch, *self.forward())
        ego = batch_rows(batch, self.user_embedding, self.item_embedding)
        return {
            "bpr": -F.logsigmoid((users * pos).sum(1) - (users * neg).sum(1)).sum(),
            "reg": self.options.reg_weight * half_squared_l2(*ego),
        }
