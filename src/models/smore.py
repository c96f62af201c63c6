"""SMORE: content denoised and fused by learned filters in the frequency domain, joined with the behaviour view.

Spectra X_m = rfft(P_m F_m) over the D coordinates, orthonormal. Filtered content y_m = irfft(X_m * W_m) and fused content
y_f = irfft((prod_m X_m) * W_f) with complex filters W. Each view v, modalities and fused, gates the item ids,
h_v = E_I * sigmoid(g_v(y_v)), and is propagated over its item graph (last layer only), V_v = [R^ h_v ; h_v]; the fused
graph is the union of the modalities', the larger weight where both have an edge. A softmax over the D coordinates of
q_m(V_f) scales V_m; preferences sigmoid(r_v(C)), with dropout, weigh the views: side view Z = mean_v of their product,
C the LightGCN mean of layers over [E_U ; E_I]. Final embeddings C + Z, scores are dot products.
Loss: mean of -log sigmoid(s_ui - s_uj), plus `reg_weight` times half the squares of the batch's final rows over
`train_batch_size`, plus `cl_weight` times one-directional InfoNCE from Z to C over the batch's users and positives.

Source: Ong and Khong, "Spectrum-based Modality Representation Fusion Graph Convolutional Network for Multimodal
Recommendation", WSDM 2025 (arXiv 2412.14978).

Differs from the released code: any number of modalities, where that needs visual and textual; attention and preferences
are computed for the nodes of the batch alone, so the dropout of a repeated node is the same as there. Items with features
of zeros have no neighbour but themselves, and rows whose weights sum to nothing positive are cut off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender
from common.contrast import row_contrast
from common.initial import xavier_uniform_embedding
from common.losses import half_squared_l2, log_sigmoid_bpr_loss
from common.neighbours import weighted_item_graph
from common.precision import single_precision
from common.sparse import SparseMatrix
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset


@dataclass(frozen=True)
class SMOREConfig:
    """Keys of SMORE; values in configs/model/SMORE.yaml."""

    embedding_size: int = setting("width D of the embeddings", low=1)
    n_ui_layers: int = setting("depth of the propagation over the user-item graph", low=0)
    n_mm_layers: int = setting("depth of the propagation over the item graphs", low=0, alias=("n_layers",))
    image_knn_k: int = setting("neighbours of an item in the visual graph, itself among them", low=1)
    text_knn_k: int = setting("neighbours of an item in every other modality's graph, itself among them", low=1)
    gate_dropout: float = setting(
        "dropped share of the preference gates' values", low=0, high=0.999, alias=("dropout_rate",)
    )
    cl_weight: float = setting("weight of the contrastive loss", low=0, alias=("cl_loss",))
    temperature: float = setting("temperature of the contrastive loss", above=0)
    reg_weight: float = setting("weight of the embedding penalty", low=0)
    train_features: bool = setting("train the raw features too: 16 bytes for each number")


class SMORE(GeneralRecommender):
    """Behaviour view and spectrally filtered content views, weighed by preference."""

    settings = SMOREConfig
    needs_features = True

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: SMOREConfig = fill(SMOREConfig, config)
        self.batch_size: int = config["train_batch_size"]
        width = self.embedding_size
        self.views = [*self.modalities, "fused"]
        self.user_embedding = xavier_uniform_embedding(self.n_users, width)
        self.item_embedding = xavier_uniform_embedding(self.n_items, width)
        self.graph = self.interaction_graph(dataset)
        graphs, self.projections, self.queries = {}, nn.ModuleDict(), nn.ModuleDict()
        for modality in self.modalities:
            k = self.options.image_knn_k if modality == "visual" else self.options.text_knn_k
            graphs[modality] = weighted_item_graph(dataset, modality, k)
            self.projections[modality] = nn.Linear(self.features(modality).shape[1], width)
            query = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width, bias=False))
            self.queries[modality] = query
        graphs["fused"] = largest_of_union([*graphs.values()])
        self.item_graphs = nn.ModuleDict({view: SparseMatrix(graph) for view, graph in graphs.items()})
        self.gates = nn.ModuleDict({view: nn.Linear(width, width) for view in self.views})
        self.preferences = nn.ModuleDict({view: nn.Linear(width, width) for view in self.views})
        # Pairs of real and imaginary parts, so that the model's type can change; for an even D the imaginary parts of
        # the first and last bin do not act.
        bins = width // 2 + 1
        self.filters = nn.ParameterDict({view: nn.Parameter(torch.randn(1, bins, 2)) for view in self.views})

    @single_precision  # bfloat16 has no FFT
    def filtered(self) -> dict[str, Tensor]:
        """Content y_v [I, D] of each view."""
        spectra = {
            modality: torch.fft.rfft(self.projections[modality](self.features(modality)), dim=1, norm="ortho")
            for modality in self.modalities
        }
        spectra["fused"] = reduce(torch.mul, spectra.values())
        return {
            view: torch.fft.irfft(
                spectrum * torch.view_as_complex(self.filters[view]), n=self.embedding_size, dim=1, norm="ortho"
            )
            for view, spectrum in spectra.items()
        }

    def encode(self) -> list[Tensor]:
        """Behaviour view C, then V_v of each modality and, last, of the fused content; all nodes, [N, D]."""
        ego = torch.cat([self.user_embedding, self.item_embedding])  # [N, D]
        behaviour = self.graph.propagate_mean(ego, self.options.n_ui_layers)
        items = []
        for view, content in self.filtered().items():
            gated = self.item_embedding * torch.sigmoid(self.gates[view](content))
            for _ in range(self.options.n_mm_layers):
                gated = self.item_graphs[view](gated)
            items.append(gated)
        users = self.graph.to_first(torch.cat(items, dim=1)).chunk(len(items), dim=1)  # one product for all
        return [behaviour, *(torch.cat(pair) for pair in zip(users, items, strict=True))]

    def fuse(self, behaviour: Tensor, content: list[Tensor]) -> Tensor:
        """Side view Z [B, D] from C and V_v of the same nodes, [B, D]; random in training."""
        fused = content[-1]
        attended = [
            torch.softmax(self.queries[modality](fused), dim=1) * own
            for modality, own in zip(self.modalities, content, strict=False)
        ]
        side = torch.zeros_like(behaviour)
        for view, own in zip(self.views, [*attended, fused], strict=True):
            preference = torch.sigmoid(self.preferences[view](behaviour))
            side = side + self.dropout(preference) * own
        return side / len(self.views)

    def dropout(self, values: Tensor) -> Tensor:
        """A share `gate_dropout` of the values dropped, the others scaled up; in training only."""
        rate = self.options.gate_dropout
        if not (self.training and rate):
            return values
        kept = (torch.rand(values.shape) >= rate).to(values.device)
        return values * kept / (1 - rate)

    def forward(self) -> tuple[Tensor, Tensor]:
        behaviour, *content = self.encode()
        users, items = (behaviour + self.fuse(behaviour, content)).split([self.n_users, self.n_items])
        return users, items

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        options = self.options
        rows = torch.stack([batch[0], batch[1] + self.n_users, batch[2] + self.n_users])
        nodes, place = rows.unique(return_inverse=True)
        behaviour, *content = [F.embedding(nodes, view) for view in self.encode()]
        side = self.fuse(behaviour, content)
        users, pos, neg = F.embedding(place, behaviour + side)
        contrastive = [
            row_contrast(F.embedding(at, side), F.embedding(at, behaviour), options.temperature, counts)
            for at, counts in (kind.unique(return_counts=True) for kind in place[:2])  # users, positives
        ]
        return {
            "bpr": log_sigmoid_bpr_loss((users * pos).sum(1), (users * neg).sum(1)),
            "reg": options.reg_weight * half_squared_l2(users, pos, neg) / self.batch_size,
            "contrastive": options.cl_weight * (contrastive[0] + contrastive[1]),
        }

    def modality_embeddings(self) -> dict[str, tuple[Tensor, Tensor]]:
        views = zip(["id", *self.modalities], self.encode(), strict=False)  # the fused view belongs to none
        return {name: (view[: self.n_users], view[self.n_users :]) for name, view in views}


def largest_of_union(graphs: Sequence[sp.csr_matrix]) -> sp.csr_matrix:
    """The edges of any graph, each with the largest of the weights that graphs with that edge give it."""
    n = graphs[0].shape[1]
    parts = [graph.tocoo() for graph in graphs]
    edges = np.concatenate([part.row.astype(np.int64) * n + part.col for part in parts])
    weights = np.concatenate([part.data for part in parts])
    order = np.lexsort((weights, edges))
    edges, weights = edges[order], weights[order]
    last = np.append(edges[1:] != edges[:-1], True)
    return sp.csr_matrix((weights[last], (edges[last] // n, edges[last] % n)), shape=graphs[0].shape)
