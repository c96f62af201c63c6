"""GUME: items that are neighbours in every modality are joined in the user-item graph; content is split and aligned.

A+ = [[0, R], [R^T, S]], S_ij = 1 where j != i is among the `knn_k` nearest items of i in every modality, normalised by the
roots of the row sums on both sides. LGC(x) = mean of layers 0..n_ui_layers of A+^l x, R^ the user x item part.
Behaviour: C = LGC([E_U ; E_I]). Content: h_m = E_I * sigmoid(g_m(P_m F_m)), propagated over the item graph of the raw
features (last layer only), X_m = [R^ h_m ; h_m]. One query q gives shares softmax_m(q(X_m)) and the coarse part
K = sum_m share_m X_m; fine parts f_m = sigmoid(b_m(C)) * (X_m - K); H = (K + sum_m f_m) / (M + 1); Z = C + H,
scores are dot products. Extended interest, of the losses alone: Y = mean_m LGC([T_m ; h_m]) with users' tables T_m.
Loss: mean of -log sigmoid(s_ui - s_uj); `reg_weight` and `extended_reg_weight` times half the squares of the batch's rows
of Z, and of its positives in Y, over `train_batch_size`; `moment_weight` times |Var X_a - Var X_b| + |mean X_a - mean X_b|,
mean over pairs of modalities; `behaviour_weight` times InfoNCE from H to C over the batch's users and over its positives;
`user_weight` times that from Y to H over its users and between two noisy copies (common/perturbation.py) of H and of Y.

Source: Lin et al., "GUME: Graphs and User Modalities Enhancement for Long-Tail Multimodal Recommendation", CIKM 2024
(arXiv 2407.12338).

Differs from the released code: any number of modalities, where that needs visual and textual; with one, K = X_m and
H = K / 2, and there is neither attention nor fine part. The common neighbours are right for every `knn_k` (there for 10).
The extended interest is propagated once, of the mean, since LGC is linear. Items without content have no neighbours.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender
from common.contrast import row_contrast
from common.features import without_fills
from common.initial import xavier_uniform_embedding
from common.losses import half_squared_l2, log_sigmoid_bpr_loss
from common.neighbours import normalize_by_row_sums, shared_neighbours, weighted_item_graph
from common.perturbation import perturbed
from common.precision import single_precision
from common.sparse import SparseMatrix
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset


@dataclass(frozen=True)
class GUMEConfig:
    """Keys of GUME; values in configs/model/GUME.yaml."""

    embedding_size: int = setting("width D of the embeddings", low=1)
    n_ui_layers: int = setting("depth of the propagation over the enhanced user-item graph", low=0)
    n_mm_layers: int = setting("depth of the propagation over the item graphs", low=0, alias=("n_layers",))
    knn_k: int = setting("neighbours of an item in a modality, itself among them", low=1)
    behaviour_weight: float = setting("weight of the contrast of content and behaviour", low=0, alias=("bm_loss",))
    behaviour_temperature: float = setting("temperature of that contrast", above=0, alias=("bm_temp",))
    user_weight: float = setting("weight of the contrasts of the extended interest", low=0, alias=("um_loss",))
    user_temperature: float = setting("temperature of those contrasts", above=0, alias=("um_temp",))
    moment_weight: float = setting("weight of the gap of modalities in mean and variance", low=0, alias=("vt_loss",))
    reg_weight: float = setting("weight of the embedding penalty", low=0, alias=("reg_weight_1",))
    extended_reg_weight: float = setting("weight of the extended items' penalty", low=0, alias=("reg_weight_2",))
    train_features: bool = setting("train the raw features too: 16 bytes for each number")


def enhanced_graph(dataset: Dataset, semantic: sp.csr_matrix) -> sp.csr_matrix:
    """[[0, R], [R^T, S]] over the roots of the row sums of both ends, float64 [U + I, U + I]; S [I, I] may be directed."""
    interactions = dataset.inter_matrix("csr").astype(np.float64)
    return normalize_by_row_sums(sp.bmat([[None, interactions], [interactions.T, semantic]], format="csr"))


class GUME(GeneralRecommender):
    """Enhanced graphs and user modalities for items of the long tail."""

    settings = GUMEConfig
    needs_features = True

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        dataset = without_fills(dataset)
        super().__init__(config, dataset)
        self.options: GUMEConfig = fill(GUMEConfig, config)
        self.batch_size: int = config["train_batch_size"]
        width, knn_k = self.embedding_size, self.options.knn_k
        self.user_embedding = xavier_uniform_embedding(self.n_users, width)
        self.item_embedding = xavier_uniform_embedding(self.n_items, width)
        enhanced = enhanced_graph(dataset, shared_neighbours(dataset, self.modalities, knn_k))
        self.graph = SparseMatrix(enhanced)
        self.interactions = SparseMatrix(enhanced[: self.n_users, self.n_users :])  # R^ [U, I]
        self.extended, self.item_graphs = nn.ParameterDict(), nn.ModuleDict()
        self.projections, self.gates = nn.ModuleDict(), nn.ModuleDict()
        for modality in self.modalities:
            self.extended[modality] = xavier_uniform_embedding(self.n_users, width)  # T_m
            self.item_graphs[modality] = SparseMatrix(weighted_item_graph(dataset, modality, knn_k))
            self.projections[modality] = nn.Linear(self.features(modality).shape[1], width)
            self.gates[modality] = nn.Linear(width, width)
        if len(self.modalities) > 1:  # of one modality all is common
            self.query = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1, bias=False))
            self.preferences = nn.ModuleDict({modality: nn.Linear(width, width) for modality in self.modalities})

    def _propagated(self, x: Tensor) -> Tensor:
        """LGC(x) [N, *]: the mean of layers 0..n_ui_layers, by Horner's scheme."""
        total = x
        for _ in range(self.options.n_ui_layers):
            total = self.graph(total) + x
        return total / (self.options.n_ui_layers + 1)

    def encode(self, with_interest: bool = False) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """Behaviour C, content X_m of each modality, and extended interest Y if wanted; all nodes, [N, D]."""
        items = []
        for modality in self.modalities:
            projected = self.projections[modality](self.features(modality))  # [I, D]
            gated = self.item_embedding * torch.sigmoid(self.gates[modality](projected))
            for _ in range(self.options.n_mm_layers):
                gated = self.item_graphs[modality](gated)
            items.append(gated)
        users = self.interactions(torch.cat(items, dim=1)).chunk(len(items), dim=1)  # one product for all
        content = [torch.cat(pair) for pair in zip(users, items, strict=True)]
        ego = torch.cat([self.user_embedding, self.item_embedding])
        if not with_interest:
            return self._propagated(ego), content, None
        wide = torch.cat([torch.stack(list(self.extended.values())).mean(0), torch.stack(items).mean(0)])
        behaviour, interest = self._propagated(torch.cat([ego, wide], dim=1)).chunk(2, dim=1)
        return behaviour, content, interest

    def fuse(self, behaviour: Tensor, content: list[Tensor]) -> Tensor:
        """H [B, D] from C and X_m of the same nodes, [B, D]."""
        if len(content) == 1:
            return content[0] / 2
        stacked = torch.stack(content)  # [M, B, D]
        coarse = (torch.softmax(self.query(stacked), dim=0) * stacked).sum(0)
        side = coarse
        for modality, view in zip(self.modalities, content, strict=True):
            side = side + torch.sigmoid(self.preferences[modality](behaviour)) * (view - coarse)
        return side / (len(content) + 1)

    def forward(self) -> tuple[Tensor, Tensor]:
        behaviour, content, _ = self.encode()
        users, items = (behaviour + self.fuse(behaviour, content)).split([self.n_users, self.n_items])
        return users, items

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        options = self.options
        every_behaviour, every_content, every_interest = self.encode(with_interest=True)
        assert every_interest is not None
        rows = torch.stack([batch[0], batch[1] + self.n_users, batch[2] + self.n_users])
        nodes, place = rows.unique(return_inverse=True)
        behaviour, *content = [F.embedding(nodes, view) for view in (every_behaviour, *every_content)]
        side = self.fuse(behaviour, content)
        users, pos, neg = F.embedding(place, behaviour + side)
        interest = F.embedding(rows[1], every_interest)
        # Contrasts of the distinct nodes, with how often each is there, are those of the whole batch.
        distinct = [kind.unique(return_counts=True) for kind in place[:2]]  # users, positives
        agreement = [
            row_contrast(F.embedding(at, side), F.embedding(at, behaviour), options.behaviour_temperature, n)
            for at, n in distinct
        ]
        at, counts = distinct[0]
        views = F.embedding(nodes[at], every_interest), F.embedding(at, side)
        pairs = [views, *((perturbed(view), perturbed(view)) for view in reversed(views))]
        alignment = [row_contrast(*pair, options.user_temperature, counts) for pair in pairs]
        terms = {
            "bpr": log_sigmoid_bpr_loss((users * pos).sum(1), (users * neg).sum(1)),
            "reg": options.reg_weight * half_squared_l2(users, pos, neg) / self.batch_size,
            "extended_reg": options.extended_reg_weight * half_squared_l2(interest) / self.batch_size,
            "behaviour": options.behaviour_weight * torch.stack(agreement).sum(),
            "user": options.user_weight * torch.stack(alignment).sum(),
        }
        if len(every_content) > 1:
            terms["moments"] = options.moment_weight * moment_gap(every_content)
        return terms

    def modality_embeddings(self) -> dict[str, tuple[Tensor, Tensor]]:
        behaviour, content, _ = self.encode()
        views = zip(["id", *self.modalities], [behaviour, *content], strict=True)
        return {name: (view[: self.n_users], view[self.n_users :]) for name, view in views}


@single_precision
def moment_gap(views: list[Tensor]) -> Tensor:
    """|Var x - Var y| + |mean x - mean y| over all entries, unbiased variances, mean over the pairs of views [N, D]."""
    moments = [(view.var(), view.mean()) for view in views]
    gaps = [(a[0] - b[0]).abs() + (a[1] - b[1]).abs() for a, b in itertools.combinations(moments, 2)]
    return torch.stack(gaps).mean()
