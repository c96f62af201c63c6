"""MENTOR: one graph encoder per modality, a frozen item graph, and views of all of it that are kept alike.

Encoder x, over features F_x and A = D^-1/2 (adjacency) D^-1/2 of the user-item graph, rows of norm 1 written rownorm:
h_0 = rownorm([P_x ; LReLU(F_x W_1 + b_1) W_2 + b_2]), h_l = A h_{l-1}, G_x = h_0 + h_1 + h_2. A perturbed encoder adds
0.1 sign(h_l) rownorm(uniform noise) to h_1 and h_2 as they come. A view of encoders a, b, ...: users y = [G_a | G_b | ...],
items y + S^n y, S of binary graphs of raw features. Fused view Z, of the modalities' encoders: user parts times free
weights alpha. Scores are dot products of Z.

Loss: mean of -log2 sigmoid(s_ui - s_uj); `reg_weight` (sum_m mean(P_m[u]^2) + mean(alpha^2)); `align_weight` times
sum of |difference of variance| + |difference of mean| over the pairs of Z, the view of an encoder of item ids, and each
modality's own view, each variance and mean ONE number over all entries of a view; `cl_weight` times the InfoNCE over ALL
users and over ALL items between two perturbed fused views.

Source: Xu et al., "MENTOR: Multi-level Self-supervised Learning for Multimodal Recommendation", AAAI 2025 (arXiv
2402.19407).

Differs from the released code: feature masking, there computed without gradients and so without any effect, is left out
unless `feature_masking`, which gives it its gradients; scores are of the current parameters (there of the last batch's);
what never gets a gradient is not made; the InfoNCE holds no [U, U] matrix; an item without features has no neighbour but
itself; any number of modalities. Follows the code, not the paper: two perturbed copies of every encoder, with parameters
of their own (`perturbed: main_encoders` perturbs the encoders that are scored).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender
from common.contrast import row_contrast
from common.dropout import dropped
from common.initial import xavier_normal_embedding
from common.losses import log_sigmoid_bpr_loss, mean_cosine
from common.neighbours import mixed_item_graph
from common.perturbation import perturbed
from common.preferences import PreferencesAndContent
from common.scoring import batch_rows
from common.sparse import SparseMatrix
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset

HOPS = 2  # over the user-item graph; fixed in the released code
N_PERTURBED = 2

Nodes = tuple[Tensor, Tensor]  # users [U, *] and items [I, *]


@dataclass(frozen=True)
class MENTORConfig:
    """Keys of MENTOR; values in configs/model/MENTOR.yaml."""

    embedding_size: int = setting("width D of each encoder", low=1)
    n_mm_layers: int = setting("depth n of the item-item propagation", low=1)
    knn_k: int = setting("neighbours of an item in each modality, itself among them", low=1)
    mm_image_weight: float = setting("weight of the visual item graph; the others share the rest", low=0, high=1)
    reg_weight: float = setting("weight of the penalty on preferences and modality weights", low=0)
    align_weight: float = setting("weight of the alignment of the views; 0: no id encoder", low=0)
    cl_weight: float = setting(
        "weight of the InfoNCE of perturbed views; 0: there are none", low=0, alias=("mask_weight_g",)
    )
    temperature: float = setting("of that InfoNCE", above=0, alias=("temp",))
    perturbed: str = setting("which encoders are perturbed", choices=("own_encoders", "main_encoders"))
    feature_masking: bool = setting("the feature masking task with gradients; the released code's has none")
    masking_weight: float = setting("weight of feature masking", low=0, alias=("mask_weight_f",))
    feature_dropout: float = setting("share masked there", low=0, high=1, alias=("dropout",))
    train_features: bool = setting("train the raw features too: 16 bytes for each number")


class MENTOR(GeneralRecommender):
    """Encoders of modalities, of ids and of perturbed copies, propagated side by side."""

    settings = MENTORConfig
    needs_features = True

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: MENTORConfig = fill(MENTORConfig, config)
        options, width, count = self.options, self.embedding_size, len(self.modalities)
        widths = {m: self.features(m).shape[1] for m in self.modalities}
        self.encoders = nn.ModuleDict({m: PreferencesAndContent(self.n_users, widths[m], width) for m in widths})
        if options.align_weight:
            self.item_ids = xavier_normal_embedding(self.n_items, width)
            self.id_encoder = PreferencesAndContent(self.n_users, width, width)
        if options.cl_weight and options.perturbed == "own_encoders":
            self.perturbed = nn.ModuleList(
                nn.ModuleDict({m: PreferencesAndContent(self.n_users, widths[m], width) for m in widths})
                for _ in range(N_PERTURBED)
            )
        if options.feature_masking:
            self.unmask = nn.Linear(count * width, count * width)
        start = xavier_normal_embedding(self.n_users, count).detach()
        self.modality_weights = nn.Parameter(start.softmax(dim=1))  # alpha [U, M]
        self.graph = self.interaction_graph(dataset)
        graph = mixed_item_graph(dataset, self.modalities, options.knn_k, options.mm_image_weight)
        self.item_graph = SparseMatrix(graph)

    def _start(self, encoders: Any) -> Tensor:
        """h_0 of an encoder of each modality, side by side: [N, M D]."""
        return torch.cat([encoders[m](self.features(m)) for m in self.modalities], dim=1)

    def _with_similar_items(self, items: Tensor) -> Tensor:
        """y + S^n y [I, *]."""
        similar = items
        for _ in range(self.options.n_mm_layers):
            similar = self.item_graph(similar)
        return items + similar

    def _weighted(self, users: Tensor) -> Tensor:
        """User parts [U, M D] times the user's modality weights."""
        return users * self.modality_weights.repeat_interleave(self.embedding_size, dim=1)

    def _fused(self, view: Nodes) -> Nodes:
        return self._weighted(view[0]), view[1]

    def modality_embeddings(self) -> dict[str, Nodes]:
        """G_m: users [U, D] and items [I, D] of each modality."""
        g = (HOPS + 1) * self.graph.propagate_mean(self._start(self.encoders), HOPS)  # a mean there, a sum here
        users, items = (part.split(self.embedding_size, dim=1) for part in g.split([self.n_users, self.n_items]))
        return dict(zip(self.modalities, zip(users, items, strict=True), strict=True))

    def forward(self) -> Nodes:
        """Users [U, M D] and items [I, M D] of the fused view Z."""
        users, items = zip(*self.modality_embeddings().values(), strict=True)
        return self._weighted(torch.cat(users, dim=1)), self._with_similar_items(torch.cat(items, dim=1))

    def _all_views(self) -> tuple[Nodes, Nodes | None, list[Nodes]]:
        """The modalities' encoders [., M D], the id encoder [., D], the perturbed copies [., M D]; before alpha, after S."""
        main, width = self._start(self.encoders), len(self.modalities) * self.embedding_size
        clean = main
        if self.options.align_weight:
            clean = torch.cat([main, self.id_encoder(self.item_ids)], dim=1)
        tables = [(HOPS + 1) * self.graph.propagate_mean(clean, HOPS)]
        if self.options.cl_weight:
            own = self.options.perturbed == "own_encoders"
            starts = [self._start(encoders) for encoders in self.perturbed] if own else [main] * N_PERTURBED
            layer = total = torch.cat(starts, dim=1)  # side by side: a hop is one product
            for _ in range(HOPS):
                layer = perturbed(self.graph(layer).view(-1, self.embedding_size)).view_as(layer)
                total = total + layer
            tables.append(total)
        views = []
        for table in tables:
            users, items = table.split([self.n_users, self.n_items])
            pairs = zip(users.split(width, dim=1), self._with_similar_items(items).split(width, dim=1), strict=True)
            views.append(list(pairs))
        of_ids = views[0][1] if self.options.align_weight else None
        return views[0][0], of_ids, views[1] if self.options.cl_weight else []

    def _alignment(self, fused: Nodes, main: Nodes, of_ids: Nodes) -> Tensor:
        """Sum over pairs of views of |difference of variance| + |difference of mean|."""
        width, copies = self.embedding_size, len(self.modalities)
        views, own = [(torch.cat(fused), 1), (torch.cat(of_ids), copies)], torch.cat(main)
        if copies > 1:  # the view of a single modality is Z without its weights
            views += [(part, copies) for part in own.split(width, dim=1)]
        moments = []
        for view, repeated in views:
            # The other views are one encoder beside itself: only the divisor of their variance knows.
            n = repeated * view.numel()
            moments.append((view.var(correction=0) * (n / (n - 1)), view.mean()))
        pairs = itertools.combinations(moments, 2)
        return torch.stack([(x - y).abs() for one, other in pairs for x, y in zip(one, other, strict=True)]).sum()

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        options = self.options
        main, of_ids, noisy = self._all_views()
        fused = self._fused(main)
        users, pos, neg = batch_rows(batch, *fused)
        preferences = [encoder.get_parameter("preference") for encoder in self.encoders.values()]
        penalties = [F.embedding(batch[0], table).square().mean() for table in preferences]
        penalties.append(self.modality_weights.square().mean())
        terms = {
            "bpr": log_sigmoid_bpr_loss((users * pos).sum(1), (users * neg).sum(1)) / math.log(2),
            "reg": options.reg_weight * torch.stack(penalties).sum(),
        }
        if of_ids is not None:
            terms["alignment"] = options.align_weight * self._alignment(fused, main, of_ids)
        if noisy:
            first, second = (self._fused(view) for view in noisy)
            kinds = [row_contrast(*pair, options.temperature) for pair in zip(first, second, strict=True)]
            terms["contrastive"] = options.cl_weight * (kinds[0] + kinds[1])
        if options.feature_masking:
            kept = [1 - mean_cosine(dropped(part, options.feature_dropout), self.unmask(part)) for part in fused]
            terms["masking"] = options.masking_weight * (kept[0] + kept[1])
        return terms
