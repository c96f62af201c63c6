"""GRCN: attention between preferences and content, weighted by learned confidences, refines the graph of id propagation.

Per modality m: item content f_i = unit(LeakyReLU(x_i W + b)), user preference p_u = unit(P_u), and for each interaction
a_{i->u} = softmax over the user's items of <p_u, f_i>, a_{u->i} = softmax over the item's users. Content embeddings
c_u = p_u + sum_i a_{i->u} f_i and c_i = f_i + sum_u a_{u->i} p_u. Id messages from j to k weigh
ReLU(max_m a^m_{j->k} kappa[j, m]), kappa the confidence of the SOURCE j; with X_0 the unit rows of the id table the id
embedding is X_0 + W X_0 + W^2 X_0. A node is [id | c of each modality]; scores are dot products. Loss: mean of
-log sigmoid(s_ui - s_uj) plus `reg_weight` times mean squares of the raw tables (see `penalty`).

Source: Wei et al., "Graph-Refined Convolutional Network for Multimedia Recommendation with Implicit Feedback", ACM MM 2020
(arXiv 2111.02036).

Differs from the released code: `routing: none`, the default, leaves out iterations that do nothing there (messages flow
from users to items alone, while the users' rows are what is added back); `paper` gives those of the paper. One similarity
an interaction serves both directions; the representation is recomputed for an evaluation instead of taken from the
last training batch. A node whose confidences are all negative sends no id message and is never heard again, as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender
from common.initial import xavier_normal_embedding, xavier_normal_linear
from common.losses import log_sigmoid_bpr_loss
from common.scoring import batch_rows
from common.sparse import EdgePattern
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset


@dataclass(frozen=True)
class GRCNConfig:
    """Keys of GRCN; values in configs/model/GRCN.yaml."""

    embedding_size: int = setting("width D of the id embeddings", low=1)
    latent_embedding: int = setting("width C of the content embeddings of a modality", low=1)
    routing: str = setting(
        "none: as the released code works; paper: preferences gather content first", choices=("none", "paper")
    )
    n_routing_layers: int = setting("iterations of the paper's routing", low=0, alias=("n_layers",))
    reg_weight: float = setting("weight of the penalty", low=0)
    train_features: bool = setting("train the raw features too: 16 bytes for each number")


class GRCN(GeneralRecommender):
    """Id propagation over edges that content has weighed."""

    settings = GRCNConfig
    needs_features = True

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: GRCNConfig = fill(GRCNConfig, config)
        width, n_nodes = self.options.latent_embedding, self.n_users + self.n_items
        self.id_embedding = xavier_normal_embedding(n_nodes, self.embedding_size)  # users first
        self.preferences = nn.ParameterDict({m: xavier_normal_embedding(self.n_users, width) for m in self.modalities})
        self.content = nn.ModuleDict(
            {m: xavier_normal_linear(self.features(m).shape[1], width, zero_bias=False) for m in self.modalities}
        )
        self.confidence = xavier_normal_embedding(n_nodes, len(self.modalities))
        users, items = torch.from_numpy(dataset.train.users), torch.from_numpy(dataset.train.items)
        # Entry e of both is interaction e.
        self.to_users = EdgePattern(users, items, (self.n_users, self.n_items))
        self.to_items = EdgePattern(items, users, (self.n_items, self.n_users))

    def attention(self, preferences: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
        """Softmax over each user's items, and over each item's users: both [E]."""
        # Cosines: exp is safe without the largest value taken off.
        strength = self.to_users.dots(preferences, content).exp()
        # index_select has a faster backward pass than indexing.
        of_users = self.to_users.row_sums(strength).index_select(0, self.to_users.rows)
        of_items = self.to_items.row_sums(strength).index_select(0, self.to_items.rows)
        return strength / of_users, strength / of_items

    def modality_embeddings(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Ids and content embeddings, the parts that `forward` joins."""
        parts: dict[str, tuple[Tensor, Tensor]] = {}
        to_users, to_items = [], []
        for modality in self.modalities:
            content = F.normalize(F.leaky_relu(self.content[modality](self.features(modality))), dim=1)  # [I, C]
            preferences = F.normalize(self.preferences[modality], dim=1)  # [U, C]
            if self.options.routing == "paper":
                for _ in range(self.options.n_routing_layers):
                    from_items, _ = self.attention(preferences, content)
                    preferences = F.normalize(preferences + self.to_users(from_items, content), dim=1)
            from_items, from_users = self.attention(preferences, content)
            parts[modality] = (
                preferences + self.to_users(from_items, content),
                content + self.to_items(from_users, preferences),
            )
            to_users.append(from_items)
            to_items.append(from_users)
        users, items = F.normalize(self.id_embedding, dim=1).split([self.n_users, self.n_items])
        of_users, of_items = self.confidence.split([self.n_users, self.n_items])
        weights_to_users = _refine(to_users, F.embedding(self.to_users.columns, of_items))
        weights_to_items = _refine(to_items, F.embedding(self.to_items.columns, of_users))
        all_users, all_items = users, items
        for _ in range(2):
            users, items = self.to_users(weights_to_users, items), self.to_items(weights_to_items, users)
            all_users, all_items = all_users + users, all_items + items
        return {"id": (all_users, all_items), **parts}

    def forward(self) -> tuple[Tensor, Tensor]:
        """Users [U, D + M C] and items [I, D + M C]."""
        users, items = zip(*self.modality_embeddings().values(), strict=True)
        return torch.cat(users, dim=1), torch.cat(items, dim=1)

    def penalty(self, batch: Tensor) -> Tensor:
        """Mean squares over the batch: of ids, users' and the items' halves, and of each modality's preferences.

        Of the visual preferences also the mean square over all users, as MMRec adds it.
        """
        users, pos, neg = batch_rows(batch, *self.id_embedding.split([self.n_users, self.n_items]))
        total = users.square().mean() + (pos.square().mean() + neg.square().mean()) / 2
        for modality in self.modalities:
            total = total + F.embedding(batch[0], self.preferences[modality]).square().mean()
        if "visual" in self.modalities:
            total = total + self.preferences["visual"].square().mean()
        return total

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        users, pos, neg = batch_rows(batch, *self.forward())
        return {
            "bpr": log_sigmoid_bpr_loss((users * pos).sum(1), (users * neg).sum(1)),
            "reg": self.options.reg_weight * self.penalty(batch),
        }


def _refine(attention: list[Tensor], confidence: Tensor) -> Tensor:
    """ReLU(max_m a_m kappa_m) of each edge, from [E] for each modality and [E, M]: the gradient goes to the largest."""
    return (torch.stack(attention, dim=1) * confidence).max(dim=1).values.relu()
