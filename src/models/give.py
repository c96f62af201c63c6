"""GIVE: gated item views with edge masking. Our own model, unpublished.

Interaction view h = [h_U ; h_I]: LightGCN's mean of layers over [E_U ; E_I]. Content view of modality m: items
a_m = E_I * sigmoid(G_m(W_m f_m + b_m)) of their standardised features f_m, smoothed over the item graph S_m,
c_m = (1 - s) S_m a_m + s a_m, and users R^ c_m, with R^ the user x item part of the normalised user-item graph.
Final embeddings z = h + mean_m sigmoid(P_m h) * c_m, scores are dot products.
Edge masking: a training step's user-item graph lacks the interactions of its own batch, degrees counted again, as the
graph at evaluation lacks the held-out interactions.
Loss: mean of -log sigmoid(s_ui - s_uj), plus `cl_weight` times the mean of |h|^2 over the batch's nodes (no gradient)
times symmetric InfoNCE between h and mean_m c_m over the batch's users and over its positives, the mean of both, plus
`reg_weight` times half the squares of the batch's rows of E_U and E_I over the batch size.

Source: none; its parts come from the search for a better GTC in this project. Gates on item ids over item graphs are
MGCN's (arXiv 2308.03588), which learns from the unmasked graph and joins its views by attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender
from common.features import standardized_features, without_fills
from common.graph import EdgesLeftOut, SparseSymmetric
from common.initial import xavier_normal_linear, xavier_uniform_embedding
from common.losses import bpr_loss, half_squared_l2_over_batch, info_nce
from common.neighbours import weighted_item_graph
from common.scoring import batch_rows
from common.sparse import SparseMatrix
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset


@dataclass(frozen=True)
class GIVEConfig:
    """Keys of GIVE; values in configs/model/GIVE.yaml."""

    embedding_size: int = setting("width D of the embeddings", low=1)
    n_ui_layers: int = setting("depth of the propagation over the user-item graph", low=0)
    feature_rank: int = setting("principal components kept of a modality's features; 0: all features", low=0)
    user_embedding: bool = setting("users have an embedding of their own; without, they are what their items make them")
    edge_masking: bool = setting("in training, the user-item graph lacks the interactions of the batch")
    gates: bool = setting("content gates the item embeddings; without, a view is those embeddings over its item graph")
    knn_k: int = setting("neighbours of an item in a modality's item graph, itself among them; 0: no graph", low=0)
    own_share: float = setting("share of an item itself in its content view, beside its neighbours", low=0, high=1)
    preferences: bool = setting("a node's interaction view weighs its content views; without, each weighs a half")
    cl_weight: float = setting("weight of the contrastive loss that aligns the views", low=0)
    cl_batch: int = setting("most nodes of a kind aligned in a step, drawn at random from the batch's", low=2)
    temperature: float = setting("temperature of the contrastive loss", above=0)
    reg_weight: float = setting("weight of half the squared norms of the batch's embeddings", low=0)


class GIVE(GeneralRecommender):
    """An interaction view and gated content views, aligned and summed."""

    settings = GIVEConfig
    needs_features = True

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: GIVEConfig = fill(GIVEConfig, config)
        options, width = self.options, self.embedding_size
        if options.user_embedding:
            self.user_embedding = xavier_uniform_embedding(self.n_users, width)
        self.item_embedding = xavier_uniform_embedding(self.n_items, width)
        self.graph = self.interaction_graph(dataset)
        self.without_edges = EdgesLeftOut(self.graph)
        dataset = without_fills(dataset)  # an item without a modality has zeros, and no neighbour but itself
        self.item_graphs, self.projections = nn.ModuleDict(), nn.ModuleDict()
        self.gates, self.preferences = nn.ModuleDict(), nn.ModuleDict()
        for modality in self.modalities:
            features = standardized_features(dataset, modality, options.feature_rank)
            self.register_buffer(f"features_{modality}", features, persistent=False)
            if options.knn_k:
                self.item_graphs[modality] = SparseMatrix(weighted_item_graph(dataset, modality, options.knn_k))
            if options.gates:
                self.projections[modality] = xavier_normal_linear(features.shape[1], width)
                self.gates[modality] = nn.Linear(width, width)
            if options.preferences:
                self.preferences[modality] = nn.Linear(width, width)

    def encode(self, graph: SparseSymmetric) -> tuple[Tensor, list[Tensor]]:
        """Interaction view h, then the content view of each modality in order; all nodes, [N, D].

        Args:
            graph: the user-item graph, in training without the batch's edges.
        """
        options, items = self.options, self.item_embedding
        if options.user_embedding:
            interaction = graph.propagate_mean(torch.cat([self.user_embedding, items]), options.n_ui_layers)
        else:  # half the cost
            interaction = torch.cat(graph.propagate_mean_from(items, options.n_ui_layers, from_first=False))
        content = [self.item_view(modality) for modality in self.modalities]
        users = graph.to_first(torch.cat(content, dim=1)).chunk(len(content), dim=1)  # one product for all
        return interaction, [torch.cat(pair) for pair in zip(users, content, strict=True)]

    def item_view(self, modality: str) -> Tensor:
        """Content view c_m of all items [I, D]."""
        view: Tensor = self.item_embedding
        if self.options.gates:
            view = view * torch.sigmoid(self.gates[modality](self.projections[modality](self.features(modality))))
        if self.options.knn_k:
            view = self.item_graphs[modality](view).lerp(view, self.options.own_share)
        return view

    def fuse(self, interaction: Tensor, content: list[Tensor]) -> Tensor:
        """Final embeddings z [B, D] from h and c_m of the same nodes, [B, D]."""
        if not self.options.preferences:
            return interaction + torch.stack(content).mean(0) / 2
        weights = [torch.sigmoid(self.preferences[modality](interaction)) for modality in self.modalities]
        return interaction + torch.stack([w * view for w, view in zip(weights, content, strict=True)]).mean(0)

    def forward(self) -> tuple[Tensor, Tensor]:
        users, items = self.fuse(*self.encode(self.graph)).split([self.n_users, self.n_items])
        return users, items

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        options = self.options
        rows = torch.stack([batch[0], batch[1] + self.n_users, batch[2] + self.n_users])
        nodes, place = rows.unique(return_inverse=True)
        graph = self.without_edges(self.graph, batch[0], batch[1]) if options.edge_masking else self.graph
        embeddings, views = self.encode(graph)
        interaction, content = F.embedding(nodes, embeddings), [F.embedding(nodes, view) for view in views]
        users, pos, neg = F.embedding(place, self.fuse(interaction, content))
        terms = {"bpr": bpr_loss((users * pos).sum(1), (users * neg).sum(1))}
        if options.cl_weight:
            # A contrast of cosines pulls the harder the shorter its rows are, and BPR the weaker: this keeps their ratio.
            weight = options.cl_weight * interaction.detach().square().sum(dim=1).mean()
            terms["contrastive"] = weight * self.alignment(interaction, torch.stack(content).mean(0), place[:2])
        ego = batch_rows(batch, self.user_embedding, self.item_embedding)
        return terms | {"reg": options.reg_weight * half_squared_l2_over_batch(*ego)}

    def alignment(self, interaction: Tensor, content: Tensor, kinds: Tensor) -> Tensor:
        """Symmetric InfoNCE between both views of the same nodes [B, D], each node once: the mean over users and positives.

        Args:
            kinds: int64 [2, batch], rows of the views that are users and positives.
        """
        scale = interaction.new_tensor(1 / self.options.temperature)
        losses = []
        for kind in kinds:
            rows = kind.unique()
            if len(rows) > self.options.cl_batch:
                rows = rows[torch.randperm(len(rows))[: self.options.cl_batch].to(rows.device)]
            losses.append(info_nce(F.embedding(rows, interaction), F.embedding(rows, content), scale))
        return torch.stack(losses).mean()

    def modality_embeddings(self) -> dict[str, tuple[Tensor, Tensor]]:
        interaction, content = self.encode(self.graph)
        views = zip(["id", *self.modalities], [interaction, *content], strict=True)
        return {name: (view[: self.n_users], view[self.n_users :]) for name, view in views}
