"""MMSSL: a LightGCN with views of its modalities, a critic of their user-item similarities, and graphs made of these.

With one-sided R_u = D_U^-1/2 R [U, I], R_i = D_I^-1/2 R^T [I, U] and rows of norm 1 written n(.):
X_m = dropout(F_m W_m + b_m), P_m = R_u X_m, Q_m = R_i P_m. Over a graph A_m [U, I] of each modality and its transpose B_m,
both one-sided like R_u and R_i: y_u = n(mean_m A_m E_i C), y_i = n(mean_m B_m E_u C), C the sum of four blocks.
U_0 = E_u + `id_weight` y_u, I_0 = E_i + `id_weight` y_i, U_l = R_u I_{l-1}, I_l = R_i U_l, at l = L through a softmax over
the D coordinates. Z_u = mean_l U_l + `content_share` sum_m n(P_m), Z_i likewise of I_l and Q_m; scores are dot products.

Loss: mean of -log sigmoid(s_ui - s_uj); `reg_weight` times half the squares of the batch's rows of Z over B;
`content_weight` times half the squares of all P_m and Q_m over I; `cl_weight` times a contrast of (A_m E_i)_u with (Z_u)_u
in the batch; minus `critic_weight` times mean D(S(P_m, Q_m)), with D the critic of common/adversarial.py and
S(a, c) = n(a_b c^T without training items) [B, I].

Before each step the critic takes one of its own: fake rows S(P_m, Q_m), real rows n(softmax(R_b + noise) + 100 S(Z_u, Z_i)).
Then the best items of each user by S(P_m, Q_m) are collected; every `graph_period` steps A_m is made of them again.

Source: Wei et al., "Multi-Modal Self-Supervised Learning for Recommendation", WWW 2023 (arXiv 2302.10632).

Differs from the released code: its attention, whose weights cancel, is left out; the critic has no biases before a
normalisation, where they cancel; negatives are items of the training split; of `graph_period` above 1, what an epoch has
collected since the last graph is dropped; any number of modalities. `graphs: latest` mends what makes A_m vanish.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender
from common.adversarial import MaskedProduct, RowCritic
from common.dropout import dropped
from common.generated_graphs import Collection, PairGraph
from common.initial import xavier_uniform_embedding, xavier_uniform_linear
from common.inner_training import InnerTraining
from common.losses import half_squared_l2, log_sigmoid_bpr_loss
from common.neighbours import SparseRows
from common.precision import single_precision
from common.scoring import batch_rows
from common.sparse import EdgePattern, SparseMatrix
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset

HEADS = 4  # blocks of C
FEATURE_DROPOUT = 0.2
CRITIC_DROPOUT = (0.31, 0.5)
CRITIC_SCALE, CRITIC_BETAS = 100.0, (0.5, 0.9)
PENALTY = 0.3
NOISE, REAL_SCALE = 1e-5, 100.0  # of the Gumbel noise, and of S(Z_u, Z_i), in a real row
TINY = 1e-8

Views = list[tuple[Tensor, Tensor]]  # P_m [U, D] and Q_m [I, D] of each modality


@dataclass(frozen=True)
class MMSSLConfig:
    """Keys of MMSSL; values in configs/model/MMSSL.yaml."""

    embedding_size: int = setting("width D of the embeddings", low=1)
    n_ui_layers: int = setting("depth L of the propagation of ids", low=1)
    id_weight: float = setting("weight of the modality graphs' messages", low=0, alias=("id_cat_rate",))
    content_share: float = setting("weight of content in the final embeddings", low=0, alias=("model_cat_rate",))
    reg_weight: float = setting("weight of the embedding penalty", low=0)
    content_weight: float = setting("weight of the penalty on P_m and Q_m", low=0, alias=("feat_reg_decay",))
    cl_weight: float = setting("weight of the contrast", low=0, alias=("cl_rate",))
    temperature: float = setting("of the contrast", above=0, alias=("tau",))
    critic_weight: float = setting("weight of the critic's judgement; 0: there is no critic", low=0, alias=("G_rate",))
    critic_learning_rate: float = setting("of the critic's Adam", above=0, alias=("D_lr",))
    noise_temperature: float = setting("divides the noise of a real row", above=0, alias=("real_data_tau",))
    graphs: str = setting(
        "of modalities: as released, or of each user's latest best items", choices=("released", "latest")
    )
    graph_period: int = setting("steps between two graphs of a modality", low=1, alias=("T",))
    graph_share: float = setting("share of all items that a user is linked to", low=0, high=1, alias=("m_topk_rate",))


class MMSSL(GeneralRecommender):
    """Ids over the interactions and over graphs of modalities, content beside them, judged by a critic."""

    settings = MMSSLConfig
    needs_features = True
    batches_by_user = True

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: MMSSLConfig = fill(MMSSLConfig, config)
        options, width = self.options, self.embedding_size
        self.user_embedding = xavier_uniform_embedding(self.n_users, width)
        self.item_embedding = xavier_uniform_embedding(self.n_items, width)
        self.projections = nn.ModuleDict()
        for m in self.modalities:
            self.projections[m] = xavier_uniform_linear(self.features(m).shape[1], width)
        self.mixing = xavier_uniform_embedding(HEADS * width, width)  # the blocks of C
        interactions = dataset.inter_matrix("csr")
        self.histories = SparseRows(interactions)
        self.to_users = SparseMatrix(_one_sided(interactions))  # R_u
        self.to_items = SparseMatrix(_one_sided(interactions.T.tocsr()))  # R_i
        latest = options.graphs == "latest"
        k = max(int(self.n_items * options.graph_share), int(latest))
        capacity = k * (self.n_users if latest else options.graph_period * config["train_batch_size"])
        graphs = [PairGraph(interactions, capacity) for _ in self.modalities]
        self.modality_graphs = nn.ModuleDict(dict(zip(self.modalities, graphs, strict=True)))
        self.collections = [Collection(graph, k, latest) for graph in graphs]
        self.critic: InnerTraining | None = None
        if options.critic_weight:
            network = RowCritic(self.n_items, CRITIC_DROPOUT, CRITIC_SCALE)
            self.critic = InnerTraining(network, options.critic_learning_rate, CRITIC_BETAS)
        self._step, self._due = 0, False  # of the epoch; whether new graphs are due

    @classmethod
    def memory_needed(cls, config: Mapping[str, Any], dataset: Dataset) -> dict[str, int]:
        if not config["critic_weight"]:
            return {}
        n, rows = dataset.n_items, config["train_batch_size"]
        critic = (n * (n // 4) + (n // 4) * (n // 8)) * 16
        return {
            "a critic of I^2 / 4 weights with gradient and two moments (critic_weight: 0 has none)": critic,
            "rows of similarities": 6 * 4 * rows * n,  # about six of them at a time
        }

    def pre_epoch_processing(self) -> None:
        """Counts steps again, and drops what is collected and not used."""
        self._step = 0
        for collection in self.collections:
            collection.batches = []

    def post_epoch_processing(self) -> None:
        """Makes the graphs that are due."""
        self._build_due_graphs()

    def _build_due_graphs(self) -> None:
        if self._due:
            for collection in self.collections:
                collection.build()
        self._due = False

    @torch.no_grad()
    def pre_step_processing(self, batch: Tensor) -> None:
        """The graphs that the step before made due, the critic's step, and what this step collects for new graphs."""
        self._build_due_graphs()
        options, latest = self.options, self.options.graphs == "latest"
        on_time = self._step % options.graph_period == 0
        collects = latest or self._step == 0 or not on_time
        self._due = on_time and (latest or self._step > 0)
        self._step += 1
        if self.critic is None and not collects:
            return
        users = batch[0]
        final_users, final_items, views = self._encode()
        seen = self._seen(users)
        fake = [self._similarities(*view, users, seen) for view in views]
        if self.critic is not None:
            noise = torch.rand(len(users), self.n_items).to(final_users)
            noise.add_(TINY).log_().neg_().add_(TINY).log_()  # Gumbel's, its sign turned
            noise.mul_(-NOISE / options.noise_temperature)[seen.rows, seen.columns] += 1
            real = torch.softmax(noise, dim=1)
            real.add_(self._similarities(final_users, final_items, users, seen).rows(), alpha=REAL_SCALE)
            real.div_(torch.linalg.vector_norm(real, dim=1, keepdim=True))
            self.critic.step(partial(self.critic.network.loss, real, fake, PENALTY))
        for collection, part in zip(self.collections, fake, strict=True):
            if collects and collection.k:
                collection.add(users, part.rows())

    def _seen(self, users: Tensor) -> EdgePattern:
        """R_b: where the rows [B, I] of the training matrix have entries."""
        offsets, items, _ = self.histories.take(users)
        owners = torch.arange(len(users), device=users.device).repeat_interleave(offsets.diff())
        return EdgePattern(owners, items, (len(users), self.n_items))

    @staticmethod
    def _similarities(of_users: Tensor, of_items: Tensor, users: Tensor, seen: EdgePattern) -> MaskedProduct:
        """S(a, c) of users [B]: rows of norm 1 over the items, training items 0, [B, I]."""
        return MaskedProduct(F.embedding(users, of_users), of_items, seen)

    def _content(self) -> Views:
        """P_m and Q_m."""
        projected = torch.cat([layer(self.features(m)) for m, layer in self.projections.items()], dim=1)
        if self.training:
            projected = dropped(projected, FEATURE_DROPOUT)
        users = self.to_users(projected)  # of all modalities side by side
        items = self.to_items(users)
        width = self.embedding_size
        return list(zip(users.split(width, dim=1), items.split(width, dim=1), strict=True))

    def _messages(self) -> Views:
        """A_m E_i and B_m E_u."""
        return [graph(self.user_embedding, self.item_embedding) for graph in self.modality_graphs.values()]

    def _ids(self, messages: Views) -> tuple[Tensor, Tensor]:
        """The means of U_l and of I_l."""
        mixing = self.mixing.view(HEADS, self.embedding_size, -1).sum(0)
        both = (self.user_embedding, self.item_embedding)
        users, items = (
            own + self.options.id_weight * F.normalize(torch.stack(kind).mean(0) @ mixing, dim=1)
            for own, kind in zip(both, zip(*messages, strict=True), strict=True)
        )
        all_users, all_items, depth = [users], [items], self.options.n_ui_layers
        for layer in range(1, depth + 1):
            users = self.to_users(items)
            users = torch.softmax(users, dim=1) if layer == depth else users
            items = self.to_items(users)
            items = torch.softmax(items, dim=1) if layer == depth else items
            all_users.append(users)
            all_items.append(items)
        return torch.stack(all_users).mean(0), torch.stack(all_items).mean(0)

    def _encode(self, messages: Views | None = None) -> tuple[Tensor, Tensor, Views]:
        """Z of users and of items, and the content views."""
        ids, views = self._ids(messages or self._messages()), self._content()
        users, items = (
            own + self.options.content_share * torch.stack([F.normalize(part, dim=1) for part in kind]).sum(0)
            for own, kind in zip(ids, zip(*views, strict=True), strict=True)
        )
        return users, items, views

    def forward(self) -> tuple[Tensor, Tensor]:
        users, items, _ = self._encode()
        return users, items

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        options, messages = self.options, self._messages()
        all_users, all_items, views = self._encode(messages)
        users, pos, neg = batch_rows(batch, all_users, all_items)
        contrasts = [_contrast(F.embedding(batch[0], to_users), users, options.temperature) for to_users, _ in messages]
        parts = [part for view in views for part in view]
        terms = {
            "bpr": log_sigmoid_bpr_loss((users * pos).sum(1), (users * neg).sum(1)),
            "reg": options.reg_weight * half_squared_l2(users, pos, neg) / len(users),
            "content": options.content_weight * half_squared_l2(*parts) / self.n_items,
            "contrastive": options.cl_weight * torch.stack(contrasts).sum(),
        }
        if self.critic is not None:
            seen = self._seen(batch[0])
            fake = [self._similarities(*view, batch[0], seen) for view in views]
            terms["adversarial"] = -options.critic_weight * self.critic(fake).mean()
        return terms

    def modality_embeddings(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The means of U_l and I_l, and P_m and Q_m of each modality."""
        return {"id": self._ids(self._messages()), **dict(zip(self.modalities, self._content(), strict=True))}


def _one_sided(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """D^-1/2 R with D the row sums: each row has as its sum the root of its degree."""
    degree = np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()
    return (sp.diags((degree + TINY) ** -0.5) @ matrix.astype(np.float64)).tocsr()


@single_precision
def _contrast(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """mean_k of -log(e(a_k, c_k) / (sum_{l != k} e(a_k, a_l) + sum_l e(a_k, c_l)) + 1e-8) with e = exp(cos / temperature).

    Args:
        first, second: a and c, [B, D].
    """
    a, c = F.normalize(first, dim=1), F.normalize(second, dim=1)
    within = (a @ a.T / temperature).fill_diagonal_(-torch.inf)
    logits = torch.cat([a @ c.T / temperature, within], dim=1)  # [B, 2 B]
    return -torch.log(torch.softmax(logits, dim=1).diagonal() + TINY).mean()
