"""PGL: training on a principal sub-graph of the interactions, ranking with all of them; items are content alone.

X_u = [Q_u^m]_m and X_i = [P_m(F_m) / |P_m(F_m)|]_m, joined over the modalities, width M D. With A^ = D^-1/2 A D^-1/2 and S
the mixed binary item graph of FREEDOM: Z = mean of layers 0..L of G^l [X_u; X_i], plus S^(n_mm_layers) X_i on the items. G
is A^ in evaluation and a sub-graph in training. `local`: 0.3 of the edges, drawn each epoch with probability proportional to
(deg_u deg_i)^-1/2, normalised again. `global`: with A^ = sum_k s_k a_k b_k^T cut at r = `embedding_size` terms and q = r/4,
sum_(k<=q) s_k s_(r-q+k) a_k b_k^T without the entries below 1e-3. Scores are dot products. Loss: mean of
-log sigmoid(s_ui - s_uj) plus `reg_weight` times half of NCE(users) + NCE(positives), each between two dropouts of Z.

Source: "Mind Individual Information! Principal Graph Learning for Multimedia Recommendation", AAAI 2025.

Differs from the released code: the sub-graph of `global` comes from an SVD of the U x I block (A^ is bipartite, its
singular values come in pairs) and is made in blocks, with the same result; caches are keyed by content; repeated
interactions count once; an item without features has no neighbour but itself; with `reg_weight` 0, as released, the
contrastive term is left out instead of computed and multiplied by 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse.linalg import svds
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender
from common.contrast import row_contrast
from common.graph import (
    SparseSymmetric,
    bipartite_adjacency,
    degree_sensitive_weights,
    draw_without_replacement,
    normalize_symmetric,
    pruned_interaction_graph,
)
from common.initial import xavier_uniform_embedding
from common.losses import log_sigmoid_bpr_loss
from common.neighbours import mixed_item_graph
from common.scoring import batch_rows
from common.sparse import SparseMatrix
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset
from utils.errors import UserError

KEPT_SHARE = 0.3  # of the edges, in local mode
SMALLEST = 1e-3  # absolute value of an entry that global mode keeps
TEMPERATURE = 0.2
BLOCK_ENTRIES = 2**24  # of the dense blocks that global mode thresholds


@dataclass(frozen=True)
class PGLConfig:
    """Keys of PGL; values in configs/model/PGL.yaml."""

    embedding_size: int = setting("width D of a modality's embeddings; global mode: rank of the SVD", low=1)
    train_features: bool = setting("train the raw features too: 16 bytes for each number")
    mode: str = setting("sub-graph of training: edges drawn each epoch, or from an SVD", choices=("local", "global"))
    n_ui_layers: int = setting("depth L of the propagation over the user-item graph", low=0)
    n_mm_layers: int = setting("depth of the propagation over the item graph", low=0)
    knn_k: int = setting("neighbours of an item, itself among them", low=1)
    mm_image_weight: float = setting("weight of the visual neighbours in the item graph", low=0, high=1)
    embedding_dropout: float = setting(
        "share of coordinates that each contrasted view loses", low=0, high=0.999, alias=("dropout",)
    )
    reg_weight: float = setting("weight of the contrastive term", low=0)


class PGL(GeneralRecommender):
    """Graph convolution over a principal sub-graph of the interactions."""

    settings = PGLConfig
    needs_features = True

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: PGLConfig = fill(PGLConfig, config)
        options, width = self.options, self.embedding_size
        self.user_embeddings = nn.ParameterDict(
            {modality: xavier_uniform_embedding(self.n_users, width) for modality in self.modalities}
        )
        self.projections = nn.ModuleDict(
            {modality: nn.Linear(self.features(modality).shape[1], width) for modality in self.modalities}
        )
        self.item_graph = SparseMatrix(
            mixed_item_graph(dataset, self.modalities, options.knn_k, options.mm_image_weight)
        )
        self.graph = self.interaction_graph(dataset)
        if options.mode == "global":
            self.principal = principal_graph(dataset, width)
        else:
            self.dataset = dataset
            self.edge_weights = degree_sensitive_weights(dataset)
            self.principal = self.graph  # until the first epoch begins

    def pre_epoch_processing(self) -> None:
        """Draws the edges of an epoch in local mode."""
        if self.options.mode == "local":
            kept = draw_without_replacement(self.edge_weights, int(KEPT_SHARE * len(self.edge_weights)))
            self.principal = pruned_interaction_graph(self.dataset, kept).to(self.device)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Users [U, M D] and items [I, M D]; over the sub-graph in training, over all interactions in evaluation."""
        of_users = torch.cat([self.user_embeddings[modality] for modality in self.modalities], dim=1)  # [U, M D]
        projected = [self.projections[modality](self.features(modality)) for modality in self.modalities]
        of_items = torch.cat([F.normalize(rows, dim=1) for rows in projected], dim=1)  # [I, M D]
        graph = self.principal if self.training else self.graph
        nodes = graph.propagate_mean(torch.cat([of_users, of_items]), self.options.n_ui_layers)
        users, items = nodes.split([self.n_users, self.n_items])
        for _ in range(self.options.n_mm_layers):
            of_items = self.item_graph(of_items)
        return users, items + of_items

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        users, pos, neg = batch_rows(batch, *self.forward())
        terms = {"bpr": log_sigmoid_bpr_loss((users * pos).sum(1), (users * neg).sum(1))}
        if self.options.reg_weight:
            of_users, of_items = (
                row_contrast(self._dropped(rows), self._dropped(rows), TEMPERATURE) for rows in (users, pos)
            )
            terms["contrastive"] = self.options.reg_weight * (of_users + of_items) / 2
        return terms

    def _dropped(self, rows: Tensor) -> Tensor:
        """Rows without a random share of their coordinates, the others scaled up; drawn on the CPU whatever the device."""
        rate = self.options.embedding_dropout
        if not (rate and self.training):
            return rows
        return rows * (torch.rand(rows.shape) >= rate).to(rows) / (1 - rate)


def principal_graph(dataset: Dataset, rank: int) -> SparseSymmetric:
    """The sub-graph of `global` mode, [N, N], through the data set's cache.

    A^ = [[0, R^], [R^^T, 0]] has each singular value of R^ twice, and the two terms of a pair add up to
    s [[0, p q^T], [q p^T, 0]] with the singular vectors p, q of R^: half the rank is asked of R^ instead.

    Args:
        rank: r, of the SVD of A^; a multiple of 8, so that no pair is split.

    Raises:
        UserError: if r is no multiple of 8, or too large for the data set.
    """
    if rank % 8 or rank // 2 >= min(dataset.n_users, dataset.n_items):
        raise UserError(
            f"PGL: embedding_size is {rank}; mode global needs a multiple of 8 below twice the smaller of "
            f"{dataset.n_users} users and {dataset.n_items} items; change it or use mode local"
        )

    def build() -> dict[str, NDArray[np.generic]]:
        train, n_users, n_items = dataset.train, dataset.n_users, dataset.n_items
        whole = normalize_symmetric(bipartite_adjacency(train.users, train.items, n_users, n_items))
        start = np.random.default_rng(0).standard_normal(min(n_users, n_items))
        left, sizes, right = svds(whole[:n_users, n_users:], k=rank // 2, v0=start)
        order = np.argsort(-sizes)
        left, sizes, right = left[:, order], sizes[order], right[order]
        quarter = rank // 8
        left, right = left[:, :quarter] * (sizes[:quarter] * sizes[-quarter:]), right[:quarter]
        step = max(1, BLOCK_ENTRIES // n_items)
        parts = []
        for begin in range(0, n_users, step):
            block = left[begin : begin + step] @ right
            block[np.abs(block) < SMALLEST] = 0
            parts.append(sp.csr_matrix(block))
        matrix = sp.vstack(parts, format="csr")
        return {"indptr": matrix.indptr, "indices": matrix.indices, "data": matrix.data.astype(np.float32)}

    arrays = dataset.derived("principal-graph", 1, {"train": dataset.fingerprint["train"], "rank": rank}, build)
    shape = (dataset.n_users, dataset.n_items)
    matrix = sp.csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape=shape)
    return SparseSymmetric(sp.bmat([[None, matrix], [matrix.T, None]], format="csr"), dataset.n_users)
