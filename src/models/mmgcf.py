"""MMGCF: LightGCN on ids; projected content is fused into the items' final embeddings alone.

x = LightGCN's mean of layers 0..L over [E_U ; E_I], f_m = W_m F_m + b_m, users are x_u. Items are, with Phi the mean,
the sum or a linear layer over the concatenation of its arguments,
    equal       Phi(x, Phi(f_1, ..., f_M)),
    alpha       Phi(a x, (1 - a) f_1, ..., (1 - a) f_M) with one learned a = sigmoid(.), 0.5 at the start,
    normalized  Phi(M rownorm(x), rownorm(f_1), ..., rownorm(f_M)).
Per epoch a share `edge_dropout` of the interactions is left out, as in FREEDOM. Scores are dot products. Loss: mean
of -log sigmoid(s_ui - s_uj) plus `reg_weight` times half the squares of the batch's initial id rows over the batch
size.

Source: "Multimodal Graph Collaborative Filtering for Recommendation with Graph Convolutional Networks", UMAP 2026.

Differs from the released code: any number of modalities; only the batch's items are projected and fused, with the same
loss and gradients; the layers of a concatenation exist only where they are used; unknown words are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender
from common.graph import degree_sensitive_weights, draw_without_replacement, pruned_interaction_graph
from common.initial import xavier_uniform_embedding
from common.losses import half_squared_l2_over_batch, log_sigmoid_bpr_loss
from common.scoring import batch_rows
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset
from utils.errors import UserError


@dataclass(frozen=True)
class MMGCFConfig:
    """Keys of MMGCF; values in configs/model/MMGCF.yaml."""

    embedding_size: int = setting("width D of the embeddings", low=1)
    feat_embed_dim: int | None = setting("width of the projected features; null: D, which mean and sum need", low=1)
    n_ui_layers: int = setting("depth L of the user-item propagation", low=0, alias=("n_layers",))
    fusion_mode: str = setting("how parts become one row", choices=("mean", "sum", "concat"))
    weighting: str = setting("weights of ids and content", choices=("equal", "alpha", "normalized"))
    edge_dropout: float = setting(
        "share of interactions left out of an epoch's graph", low=0, high=1, alias=("dropout",)
    )
    reg_weight: float = setting("weight of the embedding penalty", low=0)
    train_features: bool = setting("train the raw features too: 16 bytes for each number")


class Fusion(nn.Module):
    """Rows that belong together [n, *], one of each part, made one row: their mean, sum, or a layer over all."""

    def __init__(self, mode: str, widths: Sequence[int], width: int) -> None:
        super().__init__()
        self.mode = mode
        if mode == "concat":
            self.layer = nn.Linear(sum(widths), width)

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        """[n, width] of as many parts as there are widths."""
        if self.mode == "concat":
            joined: Tensor = self.layer(torch.cat([*parts], dim=1))
            return joined
        total = torch.stack([*parts]).sum(0)
        return total / len(parts) if self.mode == "mean" else total


class MMGCF(GeneralRecommender):
    """LightGCN with content added late, to items alone."""

    settings = MMGCFConfig
    needs_features = True

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: MMGCFConfig = fill(MMGCFConfig, config)
        self.dataset = dataset
        width, mode = self.embedding_size, self.options.fusion_mode
        content = self.options.feat_embed_dim or width
        if mode != "concat" and content != width:
            raise UserError(
                f"feat_embed_dim: fusion_mode {mode} adds ids and content, so expected null or embedding_size {width}, "
                f"got {content}"
            )
        self.user_embedding = xavier_uniform_embedding(self.n_users, width)
        self.item_embedding = xavier_uniform_embedding(self.n_items, width)
        self.projections = nn.ModuleDict({m: nn.Linear(self.features(m).shape[1], content) for m in self.modalities})
        count = len(self.modalities)
        if self.options.weighting == "equal":
            self.fuse_content = Fusion(mode, [content] * count, content) if count > 1 else None
            self.fuse = Fusion(mode, [width, content], width)
        else:
            self.fuse = Fusion(mode, [width] + [content] * count, width)
        if self.options.weighting == "alpha":
            self.alpha = nn.Parameter(torch.zeros(1))
        self.graph = self.interaction_graph(dataset)
        self.training_graph = self.graph
        # Not a buffer: what is kept is drawn on the CPU.
        self.edge_weights = degree_sensitive_weights(dataset)

    def pre_epoch_processing(self) -> None:
        """Draws the interactions that this epoch's graph keeps."""
        if self.options.edge_dropout > 0:
            count = int(len(self.edge_weights) * (1 - self.options.edge_dropout))
            kept = draw_without_replacement(self.edge_weights, count)
            self.training_graph = pruned_interaction_graph(self.dataset, kept).to(self.device)

    def propagate(self) -> tuple[Tensor, Tensor]:
        """x of users [U, D] and items [I, D]: on the epoch's graph in training, on the full one in evaluation."""
        graph = self.training_graph if self.training else self.graph
        ego = torch.cat([self.user_embedding, self.item_embedding])  # [N, D]
        users, items = graph.propagate_mean(ego, self.options.n_ui_layers).split([self.n_users, self.n_items])
        return users, items

    def fused(self, ids: Tensor, items: Tensor | None = None) -> Tensor:
        """Final embeddings [n, D] of items int64 [n] (None: all of them) with propagated ids x [n, D]."""
        content = []
        for modality, projection in self.projections.items():
            features = self.features(modality)
            content.append(projection(features if items is None else F.embedding(items, features)))
        if self.options.weighting == "equal":
            joined = self.fuse_content(content) if self.fuse_content is not None else content[0]
            return self.fuse([ids, joined])
        if self.options.weighting == "alpha":
            share = torch.sigmoid(self.alpha)
            return self.fuse([share * ids, *((1 - share) * part for part in content)])
        return self.fuse([len(content) * F.normalize(ids, dim=1), *(F.normalize(part, dim=1) for part in content)])

    def forward(self) -> tuple[Tensor, Tensor]:
        users, items = self.propagate()
        return users, self.fused(items)

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        all_users, all_items = self.propagate()
        unique, place = batch[1:].unique(return_inverse=True)
        pos, neg = F.embedding(place, self.fused(F.embedding(unique, all_items), unique))
        users = F.embedding(batch[0], all_users)
        ego = batch_rows(batch, self.user_embedding, self.item_embedding)
        return {
            "bpr": log_sigmoid_bpr_loss((users * pos).sum(1), (users * neg).sum(1)),
            "reg": self.options.reg_weight * half_squared_l2_over_batch(*ego),
        }
