"""MMGCN: a graph network of three layers for each modality, whose outputs are averaged.

Branch m: X^0 = rows of unit length of [P_m ; T_m], P_m a preference of each user and T_m the items' features (the visual
ones projected to `visual_width`, the others as they are). With A the mean over neighbours (D^-1 A, no self-loops) and Z an
id embedding that all branches share, for l = 1, 2, 3
    h = lrelu(A X^(l-1) W1),  o = lrelu(X^(l-1) W2 + b2) + Z,  X^l = lrelu([h | o] W3 + b3).
The embedding is the mean of the branches' X^3; scores are dot products. Loss: mean of -log sigmoid(s_ui - s_uj) plus
`reg_weight` times [mean over the batch's entries of Z_u^2 + Z_i^2 / 2 + Z_j^2 / 2, plus the mean of P_visual^2].

Source: Wei et al., "MMGCN: Multi-modal Graph Convolution Network for Personalized Recommendation of Micro-video", ACM
Multimedia 2019.

Differs from the released code: nothing in the mathematics. Z and P are random and never trained there (the paper learns
them), so the penalty moves nothing; `train_ids` trains them. What a frozen table gives to layer 1 is computed once, and the
products of layers 2 and 3 are made for all branches at a time. Scores are of the current parameters, not of the last batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender
from common.initial import xavier_normal_embedding, xavier_normal_linear
from common.losses import log_sigmoid_bpr_loss
from common.scoring import batch_rows
from common.sparse import SparseMatrix
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset

N_LAYERS = 3


@dataclass(frozen=True)
class MMGCNConfig:
    """Keys of MMGCN; values in configs/model/MMGCN.yaml."""

    embedding_size: int = setting("width D of the id embedding and of every layer's output", low=1)
    visual_width: int = setting("width that visual features are projected to", low=1)
    reg_weight: float = setting("weight of the penalty on ids and visual preferences: of no effect while frozen", low=0)
    train_ids: bool = setting("train the id embedding and the preferences, which are random constants otherwise")
    train_features: bool = setting("train the raw features too: 16 bytes for each number")


class Branch(nn.Module):
    """The weights of one modality: W1 (`gather`), W2 (`own`) and W3 (`combine`) of each layer."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        sizes = [inputs] + [width] * (N_LAYERS - 1)
        self.gather = nn.ModuleList(xavier_normal_linear(size, size, bias=False) for size in sizes)
        self.own = nn.ModuleList(xavier_normal_linear(size, width, zero_bias=False) for size in sizes)
        # Of these the source initialises the first alone.
        self.combine = nn.ModuleList([xavier_normal_linear(inputs + width, width, zero_bias=False)])
        self.combine.extend(nn.Linear(2 * width, width) for _ in sizes[1:])

    def layer(self, number: int, gathered: Tensor, x: Tensor, ids: Tensor) -> Tensor:
        """X^l [N, D] from A X^(l-1) W1 [N, D0], X^(l-1) [N, D0] and Z [N, D]."""
        own = F.leaky_relu(self.own[number](x)) + ids
        combined: Tensor = F.leaky_relu(self.combine[number](torch.cat([F.leaky_relu(gathered), own], dim=1)))
        return combined


class MMGCN(GeneralRecommender):
    """A graph network for each modality over one bipartite graph."""

    settings = MMGCNConfig
    needs_features = True
    branches: Any  # a Branch by modality
    ids: Tensor  # Z [N, D], a parameter or a buffer
    preference_visual: Tensor  # [U, D0], likewise

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: MMGCNConfig = fill(MMGCNConfig, config)
        widths = {modality: self.features(modality).shape[1] for modality in self.modalities}
        if "visual" in widths:
            self.projection = nn.Linear(widths["visual"], self.options.visual_width)
            widths["visual"] = self.options.visual_width
        self.branches = nn.ModuleDict({m: Branch(width, self.embedding_size) for m, width in widths.items()})
        self.add_table("ids", self.n_users + self.n_items, self.embedding_size)
        for modality, width in widths.items():
            self.add_table(f"preference_{modality}", self.n_users, width)
        interactions = dataset.inter_matrix("csr")  # [U, I]
        self.to_users = SparseMatrix(mean_over_row(interactions))
        self.to_items = SparseMatrix(mean_over_row(interactions.T.tocsr()))
        self.compute_constants()
        self.register_load_state_dict_post_hook(compute_constants_again)

    def add_table(self, name: str, rows: int, width: int) -> None:
        """A Xavier normal table: a parameter, or a constant that checkpoints hold."""
        table = xavier_normal_embedding(rows, width)
        if self.options.train_ids:
            self.register_parameter(name, table)
        else:
            self.register_buffer(name, table.detach())

    def user_inputs(self, modality: str) -> tuple[Tensor, Tensor]:
        """Rows of X^0 of the users [U, D0], and what items receive of them [I, D0]."""
        x = unit_rows(getattr(self, f"preference_{modality}"))
        return x, self.to_items(x)

    def item_inputs(self, modality: str) -> tuple[Tensor, Tensor]:
        """Rows of X^0 of the items [I, D0], and what users receive of them [U, D0]."""
        raw = self.features(modality)
        x = unit_rows(self.projection(raw) if modality == "visual" else raw)
        return x, self.to_users(x)

    @torch.no_grad()
    def compute_constants(self) -> None:
        """Computes the inputs of layer 1 that no parameter enters; again when a checkpoint is loaded."""
        self.constant: set[str] = set()
        for modality in self.modalities:
            found = {}
            if not self.options.train_ids:
                found[f"user_inputs_{modality}"] = self.user_inputs(modality)
            if not self.options.train_features and modality != "visual":
                found[f"item_inputs_{modality}"] = self.item_inputs(modality)
            for name, (own, received) in found.items():
                self.register_buffer(f"{name}_own", own, persistent=False)
                self.register_buffer(f"{name}_received", received, persistent=False)
                self.constant.add(name)

    def inputs(self, kind: str, modality: str) -> tuple[Tensor, Tensor]:
        """`user_inputs` or `item_inputs`, from the constants where they are."""
        if (name := f"{kind}_{modality}") in self.constant:
            return getattr(self, f"{name}_own"), getattr(self, f"{name}_received")
        found: tuple[Tensor, Tensor] = getattr(self, kind)(modality)
        return found

    def outputs(self) -> dict[str, Tensor]:
        """X^3 [N, D] of each branch."""
        layers = {}
        for modality, branch in self.branches.items():
            users, at_items = self.inputs("user_inputs", modality)
            items, at_users = self.inputs("item_inputs", modality)
            gathered = branch.gather[0](torch.cat([at_users, at_items]))  # (A X) W1 = A (X W1)
            layers[modality] = branch.layer(0, gathered, torch.cat([users, items]), self.ids)
        for number in range(1, N_LAYERS):
            sent = torch.cat([self.branches[m].gather[number](x) for m, x in layers.items()], dim=1)  # [N, M D]
            users, items = sent.split([self.n_users, self.n_items])
            gathered = torch.cat([self.to_users(items), self.to_items(users)]).split(self.embedding_size, dim=1)
            pairs = zip(layers.items(), gathered, strict=True)
            layers = {m: self.branches[m].layer(number, received, x, self.ids) for (m, x), received in pairs}
        return layers

    def forward(self) -> tuple[Tensor, Tensor]:
        users, items = torch.stack([*self.outputs().values()]).mean(0).split([self.n_users, self.n_items])
        return users, items

    def modality_embeddings(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {m: (x[: self.n_users], x[self.n_users :]) for m, x in self.outputs().items()}

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        users, pos, neg = batch_rows(batch, *self.forward())
        own_users, own_pos, own_neg = batch_rows(batch, *self.ids.split([self.n_users, self.n_items]))
        penalty = (own_users.square() + own_pos.square() / 2 + own_neg.square() / 2).mean()
        if "visual" in self.modalities:
            penalty = penalty + self.preference_visual.square().mean()
        return {
            "bpr": log_sigmoid_bpr_loss((users * pos).sum(1), (users * neg).sum(1)),
            "reg": self.options.reg_weight * penalty,
        }


def compute_constants_again(model: Any, _: Any) -> None:
    """The hook of `load_state_dict`."""
    model.compute_constants()


def unit_rows(x: Tensor) -> Tensor:
    """Rows of x [R, D] with length 1. A row of zeros stays one and gets no gradient, which would be divided by 1e-12."""
    return F.normalize(x, dim=1, eps=1e-12) * x.any(dim=1, keepdim=True)


def mean_over_row(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """A 0/1 matrix divided by its row sums; empty rows stay empty."""
    counts = np.diff(matrix.indptr)
    return sp.csr_matrix((1 / counts.repeat(counts), matrix.indices, matrix.indptr), shape=matrix.shape)
