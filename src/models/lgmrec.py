"""LGMRec: local embeddings of ids and content over the user-item graph, global ones through learned hyperedges.

With A^ = D^-1/2 A D^-1/2, R the 0/1 interactions and rows of norm 1 written rownorm:
Local: G = mean of layers 0..n_ui_layers of A^l [E_u; E_i]; content M_m = A^^n_mm_layers [D_u^-1 R X; X], X = F_m W_m;
Loc = G + sum_m rownorm(M_m). Global: item logits F_m V_m and user logits R F_m V_m over K hyperedges,
H = softmax((logits + Gumbel noise) / tau), then dropout; Y_0 = G_I, Lambda = H_I^T Y_(h-1), Y_h = H_I Lambda;
Q_m = [H_U Lambda; Y], Glob = rownorm(sum_m Q_m). Z = Loc + alpha Glob, scores are dot products.
Loss: mean of -log sigmoid(s_ui - s_uj), plus `cl_weight` times the SUM over the batch's users and positives of the
cross-entropies of cos(Q_1[u], Q_m[c]) / tau over all users (items) c, modality 1 against each other m, plus `reg_weight`
times the unsquared Frobenius norms of the batch's rows of Z over the batch size. tau = 0.2.

Source: Guo et al., "LGMRec: Local and Global Graph Learning for Multimodal Recommendation", AAAI 2024 (arXiv 2312.16400).

Differs from the released code: the noise of an evaluation is none, or drawn once with a fixed seed (`evaluation_noise`), not
again for each block of users, so that scores are reproducible; one modality works (no contrastive term), and so do more
than two. Follows the code, not the paper, in standard Gumbel noise and in summing a user's logits before the softmax.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender
from common.contrast import sum_of_log_sums
from common.initial import xavier_uniform_embedding
from common.losses import frobenius_over_batch, log_sigmoid_bpr_loss
from common.sparse import SparseMatrix
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset

TEMPERATURE = 0.2
NOISE_SEED = 0  # of the fixed noise of an evaluation

Nodes = tuple[Tensor, Tensor]  # users [U, *] and items [I, *]
Passed = tuple[Tensor, Tensor, Tensor]  # H_U [U, K], H_I [I, K] and Lambda [K, D] of the last pass: Q is their product


@dataclass(frozen=True)
class LGMRecConfig:
    """Keys of LGMRec; values in configs/model/LGMRec.yaml."""

    embedding_size: int = setting("width D of the embeddings", low=1)
    train_features: bool = setting("train the raw features too: 16 bytes for each number")
    n_ui_layers: int = setting("depth of the propagation of ids", low=0)
    n_mm_layers: int = setting("depth of the propagation of content", low=0)
    n_hyper_layer: int = setting("passes through the hyperedges", low=1)
    hyper_num: int = setting("hyperedges K of a modality", low=1)
    keep_rate: float = setting("share of the entries of a hyperedge assignment that dropout keeps", above=0, high=1)
    alpha: float = setting("weight of the global embeddings", low=0)
    cl_weight: float = setting("weight of the contrastive term, a sum over the batch", low=0, alias=("cl_loss",))
    reg_weight: float = setting("weight of the embedding penalty", low=0)
    evaluation_noise: str = setting(
        "Gumbel noise at evaluation: none, or drawn with a fixed seed", choices=("none", "fixed")
    )


class LGMRec(GeneralRecommender):
    """Local propagation and global hypergraph passing."""

    settings = LGMRecConfig
    needs_features = True
    degree: Tensor  # [U, 1] float32

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: LGMRecConfig = fill(LGMRecConfig, config)
        self.user_embedding = xavier_uniform_embedding(self.n_users, self.embedding_size)
        self.item_embedding = xavier_uniform_embedding(self.n_items, self.embedding_size)
        self.projections, self.hyperedges = nn.ParameterDict(), nn.ParameterDict()
        for modality in self.modalities:
            width = self.features(modality).shape[1]
            self.projections[modality] = xavier_uniform_embedding(width, self.embedding_size)  # W_m [F, D]
            self.hyperedges[modality] = xavier_uniform_embedding(width, self.options.hyper_num)  # V_m [F, K]
        self.graph = self.interaction_graph(dataset)
        interactions = dataset.inter_matrix("csr")
        self.interactions = SparseMatrix(interactions)
        degree = torch.from_numpy(interactions.sum(axis=1)).float()
        self.register_buffer("degree", degree, persistent=False)

    def _local(self) -> tuple[Tensor, Tensor, Nodes]:
        """Propagated ids G [N, D], propagated content [N, M D] side by side, logits [U, M K] and [I, M K]."""
        parts = []
        for modality in self.modalities:
            weights = torch.cat([self.projections[modality], self.hyperedges[modality]], dim=1)
            parts.append(
                (self.features(modality) @ weights).split([self.embedding_size, self.options.hyper_num], dim=1)
            )
        # Content and logits of all modalities side by side: features and interactions are read once.
        content, logits = (list(kind) for kind in zip(*parts, strict=True))
        of_items = torch.cat(content + logits, dim=1)  # [I, M (D + K)]
        of_users = self.interactions(of_items)  # [U, M (D + K)]
        width = len(parts) * self.embedding_size
        joined = torch.cat([of_users[:, :width] / (self.degree + 1e-7), of_items[:, :width]])  # [N, M D]
        for _ in range(self.options.n_mm_layers):
            joined = self.graph(joined)
        ids = torch.cat([self.user_embedding, self.item_embedding])
        ids = self.graph.propagate_mean(ids, self.options.n_ui_layers)
        return ids, joined, (of_users[:, width:], of_items[:, width:])

    def _assignment(self, logits: Tensor, generator: torch.Generator | None) -> Tensor:
        """H [n, K] of logits [n, K]: soft Gumbel softmax and dropout, drawn on the CPU whatever the device."""
        if self.training or self.options.evaluation_noise == "fixed":
            noise = -torch.empty(logits.shape).exponential_(generator=generator).log()
            logits = logits + noise.to(logits)
        share = torch.softmax(logits / TEMPERATURE, dim=1)
        if self.training and self.options.keep_rate < 1:
            kept = torch.rand(share.shape) < self.options.keep_rate
            share = share * kept.to(share) / self.options.keep_rate
        return share

    def encode(self, nodes: Tensor | None = None) -> tuple[Tensor, list[Passed]]:
        """Z of the nodes int64 [n], users first; None: of all; and the factors of the global embeddings Q_m."""
        ids, joined, logits = self._local()
        generator = None if self.training else torch.Generator().manual_seed(NOISE_SEED)
        passed: list[Passed] = []
        for user_logits, item_logits in zip(*(kind.chunk(len(self.modalities), dim=1) for kind in logits), strict=True):
            of_items, of_users = (self._assignment(part, generator) for part in (item_logits, user_logits))
            edges = of_items.T @ ids[self.n_users :]  # [K, D]
            for _ in range(self.options.n_hyper_layer - 1):
                edges = of_items.T @ of_items @ edges
            passed.append((of_users, of_items, edges))
        shares = torch.cat([torch.cat(pair[:2]) for pair in passed], dim=1)  # [N, M K]
        edges = torch.cat([edges for _, _, edges in passed])  # [M K, D]
        tables = [ids, joined, shares]
        if nodes is not None:
            tables = [F.embedding(nodes, table) for table in tables]
        final, joined, shares = tables
        for part in joined.split(self.embedding_size, dim=1):
            final = final + F.normalize(part, dim=1)
        return final + self.options.alpha * F.normalize(shares @ edges, dim=1), passed

    def forward(self) -> Nodes:
        """Users [U, D] and items [I, D]."""
        users, items = self.encode()[0].split([self.n_users, self.n_items])
        return users, items

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        rows = torch.stack([batch[0], batch[1] + self.n_users, batch[2] + self.n_users])
        nodes, place = rows.unique(return_inverse=True)
        final, passed = self.encode(nodes)
        users, pos, neg = F.embedding(place, final)
        terms = {"bpr": log_sigmoid_bpr_loss((users * pos).sum(1), (users * neg).sum(1))}
        if len(passed) > 1 and self.options.cl_weight:
            terms["contrastive"] = self.options.cl_weight * self._contrast(batch, passed)
        terms["reg"] = self.options.reg_weight * frobenius_over_batch(users, pos, neg)
        return terms

    @staticmethod
    def _contrast(batch: Tensor, passed: list[Passed]) -> Tensor:
        """The first modality's global embeddings against each other one's: users, then positives, summed."""
        terms = []
        for kind, ids in enumerate(batch[:2]):
            ids, counts = ids.unique(return_counts=True)
            (shares, first), *others = ((of[kind], of[2]) for of in passed)
            anchors = unit_factors(F.embedding(ids, shares), first)
            for other, edges in others:
                candidates = unit_factors(other, edges)
                left, right = anchors @ (first @ edges.T), candidates  # of width K: their products are the cosines
                if len(edges) > first.shape[1]:
                    left, right = anchors @ first, candidates @ edges
                own = torch.linalg.vecdot(left, F.embedding(ids, right))
                sums = sum_of_log_sums(left, right, 1 / TEMPERATURE, counts)
                terms.append(sums - torch.dot(own, counts.to(own)) / TEMPERATURE)
        return torch.stack(terms).sum()

    def modality_embeddings(self) -> dict[str, Nodes]:
        """Propagated ids and propagated content, before their sum."""
        ids, joined, _ = self._local()
        named = dict(zip(["id", *self.modalities], [ids, *joined.split(self.embedding_size, dim=1)], strict=True))
        return {name: (nodes[: self.n_users], nodes[self.n_users :]) for name, nodes in named.items()}


def unit_factors(shares: Tensor, edges: Tensor) -> Tensor:
    """H [n, K], each row over the length of its row of H Lambda [n, D], for Lambda [K, D]."""
    return shares / torch.linalg.vector_norm(shares @ edges, dim=1, keepdim=True).clamp(min=1e-12)
