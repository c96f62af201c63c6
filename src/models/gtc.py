"""GTC: user-aware conditional generative total correlation learning.

Views of all nodes: the interactions H^id and each content modality H^m, graph encoders over the user-item graph (Eq. 2). A
diffusion model per modality, conditioned on the interaction embedding of the same node, filters its content (Eqs. 3-5); what
it generates takes the content's place from there on. One total correlation over the interactions and all modalities aligns
the views of a node (Eqs. 6-9), a gate of their similarity adds the content to the interactions (Eq. 10), BPR ranks (Eq. 11).
L = L_BPR + diff_weight L_gen + tc_weight L_TC + reg_weight ||Theta||^2 (Eq. 12).

Source: "User-Aware Conditional Generative Total Correlation Learning for Multi-Modal Recommendation" (arXiv 2604.03014).
Settings: GTC.yaml, the best faithful one; configs/variants/GTC_paper.yaml, the text's own hyper-parameters;
GTC_released.yaml, what the released code computes (`backbone: released`). Each deviation is in docs/models/gtc.md.

Differs from the released code: the denoisers are trained (there the optimiser never sees them); content is generated once
per evaluation without random draws that depend on the batch; total correlation runs over rows of the batch, not all items.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender
from common.diffusion import Denoiser, LinearSchedule
from common.features import standardized_as, standardized_features, view_presence, without_fills, without_items
from common.graph import EdgesLeftOut, SparseSymmetric
from common.host import portable
from common.losses import bpr_loss, half_squared_l2, half_squared_l2_over_batch, info_nce, total_correlation
from common.neighbours import (
    cosine_graph,
    edges_of_new_items,
    largest_co_occurrences,
    mixed_item_graph,
    normalize_by_row_sums,
)
from common.sparse import SparseMatrix
from utils.config.schema import fill, setting
from utils.errors import UserError

if TYPE_CHECKING:
    from utils.data.dataset import Dataset

FEATURE_RANK = 256  # principal components kept of a modality's features
OWN_SHARE = 0.3  # of an item itself in what its neighbours make of its content
IMAGE_WEIGHT = 0.1  # of the visual graph in the released code's item graph
BETA_FIRST = 1e-4  # noise variance of the first step
ALIGNED_ROWS = 512  # most users, and most items, of a batch that are aligned
MAX_SCALE = 100.0  # of the contrastive logits
EVAL_BLOCK = 8192  # nodes generated at a time at evaluation


@dataclass(frozen=True)
class GTCConfig:
    """Keys of GTC; values in configs/model/GTC.yaml."""

    embedding_size: int = setting("width D of the embeddings", low=2)
    n_ui_layers: int = setting("depth of the propagation over the user-item graph", low=0, alias=("n_layers",))
    backbone: str = setting(
        "how views are encoded: the text's LightGCNs or the released code", choices=("text", "released")
    )
    content: str = setting(
        "content encoders: users' embeddings and projected features through a LightGCN; or item embeddings gated by the"
        " features, and users the normalised sum of their items'",
        choices=("projected", "gated"),
    )
    edge_masking: bool = setting("a training step's graph lacks the interactions of its batch")
    knn_k: int = setting("neighbours in the item-item graph of the content; 0: no graph", low=0)
    user_k: int = setting("neighbours in the user-user graph of shared training items; 0: no graph", low=0)
    denoising: str = setting(
        "what is denoised: nothing, the items' content before propagation, or that of all nodes after it",
        choices=("off", "items", "nodes"),
    )
    prediction: str = setting("what the denoiser predicts: the noise, or x_0", choices=("noise", "start"))
    noise_steps: int = setting("length T of the diffusion", low=1)
    beta_last: float = setting("noise variance of the last step; that of the first is 1e-4", above=0, high=0.999)
    denoiser_widths: list[int] = setting("widths of the denoiser's levels", low=1)
    generation_steps: int = setting(
        "steps of the deterministic generation (DDIM) from the observed row; 0: ancestral, T steps from pure noise",
        low=0,
    )
    diff_weight: float = setting("weight of the denoising loss", low=0)
    alignment: str = setting("loss that aligns the views", choices=("off", "pairwise", "total_correlation"))
    critic: str = setting(
        "of the total correlation: the product of all views, its temperature learned; or the chain rule's cosines, the"
        " weight in units of the mean squared length of the batch's interaction embeddings",
        choices=("product", "chain"),
    )
    tc_weight: float = setting("weight of the alignment", low=0)
    temperature: float = setting("temperature of the alignment's logits, or where it starts", low=1 / MAX_SCALE)
    fusion: str = setting(
        "what the similarity gates: the product of all content, or each modality's by itself",
        choices=("product", "each"),
    )
    reg_weight: float = setting("weight of half the squared norms of the batch's embeddings", low=0)
    user_reg_weight: float = setting(
        "weight of half the squared norms of all users' embeddings, each divided by the user's interactions", low=0
    )


@portable
class GTC(GeneralRecommender):
    """Generative total correlation learning over any number of content modalities."""

    settings = GTCConfig
    needs_features = True
    dense_methods = ("fuse",)
    evidence: Tensor  # [U, 1]: interactions of each user, at least 1
    log_scale: Tensor
    present: Tensor | None  # bool [N, M]: which node has which modality, users by their items; None: every node has all

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: GTCConfig = fill(GTCConfig, config)
        options, width = self.options, self.embedding_size
        if options.backbone == "released" and options.denoising == "nodes":
            raise UserError("GTC: backbone released denoises items before propagation; use denoising items or off")
        dataset = without_fills(dataset)
        self.register_buffer("present", view_presence(dataset, {m: [m] for m in self.modalities}), persistent=False)
        self.user_embedding = xavier_table(self.n_users, width)
        self.item_embedding = xavier_table(self.n_items, width)
        counts = np.bincount(dataset.inter_matrix().row, minlength=self.n_users).clip(min=1)
        self.register_buffer("evidence", torch.from_numpy(counts).float()[:, None], persistent=False)
        self.graph = self.interaction_graph(dataset)
        if options.edge_masking:
            self.mask_edges = EdgesLeftOut(self.graph)
        self.projections = nn.ModuleDict()
        for modality in self.modalities:
            features = standardized_features(dataset, modality, FEATURE_RANK)
            self.register_buffer(f"features_{modality}", features, persistent=False)
            self.projections[modality] = layer = nn.Linear(features.shape[1], width)
            nn.init.xavier_normal_(layer.weight)
        self._make_graphs(dataset)
        if options.denoising != "off":
            schedule = LinearSchedule(options.noise_steps, BETA_FIRST, options.beta_last)
            how = width, options.denoiser_widths, options.prediction
            self.denoisers = nn.ModuleDict({m: Denoiser(schedule, *how) for m in self.modalities})
        if options.alignment != "off":
            log_scale = torch.tensor(1 / options.temperature).log()
            if options.critic == "product":
                self.log_scale = nn.Parameter(log_scale)
            else:
                self.register_buffer("log_scale", log_scale, persistent=False)
            if options.critic == "chain" and options.alignment == "total_correlation" and len(self.modalities) > 1:
                self.joint = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        if options.backbone == "text":
            self.log_fusion_temperature = nn.Parameter(torch.zeros(()))
        else:  # users of their own in each modality, and how much of each view a user takes
            self.preferences = nn.ParameterDict({m: xavier_table(self.n_users, width) for m in self.modalities})
            weights = nn.init.xavier_normal_(torch.empty(self.n_users, len(self.modalities) + 1))
            self.view_weights = nn.Parameter(weights.softmax(dim=1))

    def _make_graphs(self, dataset: Dataset) -> None:
        """The homogeneous graphs: of items by their content, and of users by the training items they share."""
        options = self.options
        if options.knn_k and options.backbone == "text":
            graphs = {m: cosine_graph(dataset, m, options.knn_k) for m in self.modalities}
            graphs |= {m: without_items(graphs[m], present) for m, present in dataset.present.items()}
            self.item_graphs = nn.ModuleDict({m: SparseMatrix(normalize_by_row_sums(g)) for m, g in graphs.items()})
        elif options.knn_k:
            self.item_graph = SparseMatrix(mixed_item_graph(dataset, self.modalities, options.knn_k, IMAGE_WEIGHT))
        if options.user_k:
            shared = largest_co_occurrences(dataset.inter_matrix("csr"), options.user_k)
            rows = np.repeat(np.arange(self.n_users), np.diff(shared.indptr))
            largest = np.asarray(shared.max(axis=1).todense()).ravel()
            weights = np.exp(shared.data - largest[rows])  # a softmax over the counts of shared items
            shared.data = weights / np.bincount(rows, weights, self.n_users)[rows]
            self.user_graph = SparseMatrix(shared)

    def represent(
        self, graph: SparseSymmetric, nodes: Tensor | None = None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor]:
        """Nodes [B] (None: all) as they are ranked by, [B, D]; their interaction and content views; the denoising loss."""
        options, items = self.options, self.item_embedding
        content = {m: self.projections[m](self.features(m)) for m in self.modalities}  # [I, D]
        loss = items.new_zeros(())
        if options.denoising == "items":
            content, loss = self.denoise(content, items, None if self.present is None else self.present[self.n_users :])
        if options.backbone == "released":
            fused, interaction, content = self._released(graph, content)
        else:
            interaction, content = self._encode(graph, content)
        if nodes is not None:
            interaction, content = (
                F.embedding(nodes, interaction),
                {m: F.embedding(nodes, x) for m, x in content.items()},
            )
        if options.denoising == "nodes":
            present = self.present if self.present is None or nodes is None else self.present[nodes]
            content, loss = self.denoise(content, interaction, present)
        if options.backbone == "released":
            return fused if nodes is None else F.embedding(nodes, fused), interaction, content, loss
        return self.fuse(interaction, content), interaction, content, loss

    def _encode(self, graph: SparseSymmetric, content: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Interaction and content views of all nodes [N, D]: a LightGCN for each, the mean of its layers (Eq. 2)."""
        options, users, items = self.options, self.user_embedding, self.item_embedding
        interaction = graph.propagate_mean(torch.cat([users, items]), options.n_ui_layers)
        if options.user_k:
            smoothed = self.user_graph(interaction[: self.n_users])
            interaction = interaction + torch.cat([smoothed, torch.zeros_like(items)])
        views = {}
        for modality, x in content.items():
            x = items * torch.sigmoid(x) if options.content == "gated" else x
            x = self.item_graphs[modality](x).lerp(x, OWN_SHARE) if options.knn_k else x
            if options.content == "gated":
                views[modality] = torch.cat([graph.to_first(x), x])
            else:
                views[modality] = graph.propagate_mean(torch.cat([users, x]), options.n_ui_layers)
        return interaction, views

    def _released(
        self, graph: SparseSymmetric, content: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The released code from denoised items on: final embeddings [N, (M + 1) D], and the items' inputs to align.

        The items' embedding is refined by the softmax over the products of each pair of views; each view has users of its
        own, rows of unit length and the sum of its layers; the concatenated views of a user are weighted by the user's own
        weights; item and user graph are added to the result.
        """
        views = [self.item_embedding, *content.values()]
        products = [(a * b).sum(dim=1) for a, b in itertools.combinations(views, 2)]
        weights = torch.stack(products, dim=1).softmax(dim=1)  # [I, pairs], as weights of the first so many views
        refined = views[0] + sum(weights[:, k, None] * x for k, x in enumerate(views[: len(products)]))
        users, items = [], []
        for table, x in zip([self.user_embedding, *self.preferences.values()], [refined, *views[1:]], strict=True):
            rows = F.normalize(torch.cat([table, x]), dim=1)
            summed = graph.propagate_mean(rows, self.options.n_ui_layers) * (self.options.n_ui_layers + 1)
            users.append(summed[: self.n_users])
            items.append(summed[self.n_users :])
        user = torch.cat([x * self.view_weights[:, k, None] for k, x in enumerate(users)], dim=1)
        item = torch.cat(items, dim=1)
        user = user + self.user_graph(user) if self.options.user_k else user
        item = item + self.item_graph(item) if self.options.knn_k else item
        # Only items are aligned there: users stand in for the rows that nobody reads.
        aligned = [torch.cat([self.user_embedding, x]) for x in views]
        return torch.cat([user, item]), aligned[0], dict(zip(content, aligned[1:], strict=True))

    def denoise(
        self, content: Mapping[str, Tensor], condition: Tensor, present: Tensor | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Generated content [B, D] of each modality given the nodes' interaction embeddings, and in training the loss.

        A node that by `present` (bool [B, M]) lacks a modality has no part in the loss.
        """
        found, loss = {}, condition.new_zeros(())
        for k, (modality, x) in enumerate(content.items()):
            denoiser: Any = self.denoisers[modality]
            if self.training:
                found[modality], errors = denoiser.estimate(x, condition)
                weights = torch.ones_like(errors) if present is None else present[:, k].to(errors)
                loss = loss + (errors * weights).sum() / weights.sum().clamp(min=1)
            else:
                blocks = zip(x.split(EVAL_BLOCK), condition.split(EVAL_BLOCK), strict=True)
                steps = self.options.generation_steps
                found[modality] = torch.cat([denoiser.generate(own, given, steps) for own, given in blocks])
        return found, loss

    def fuse(self, interaction: Tensor, content: Mapping[str, Tensor]) -> Tensor:
        """z = h + g(cos(h, c)) c [B, D] (Eq. 10): content is added to the interactions h as far as it agrees with them.

        product: c is the element-wise product of all content, brought to the length of h; each: the mean over modalities.
        """
        parts = list(content.values())
        if self.options.fusion == "product":
            product = F.normalize(reduce(torch.mul, [F.normalize(part, dim=1) for part in parts]), dim=1)
            parts = [product * interaction.norm(dim=1, keepdim=True)]
        temperature = self.log_fusion_temperature.exp()
        gates = [torch.sigmoid(F.cosine_similarity(interaction, part)[:, None] / temperature) for part in parts]
        return interaction + torch.stack([gate * part for gate, part in zip(gates, parts, strict=True)]).mean(dim=0)

    def align(self, views: list[Tensor], present: Tensor | None) -> Tensor:
        """The alignment of views [B, D] of the same nodes; of those alone that by `present` (bool [B, M]) have them all."""
        if present is not None:
            rows = present.all(dim=1).nonzero()[:, 0]
            views = [F.embedding(rows, view) for view in views]
        if not len(views[0]):
            return views[0].new_zeros(())
        scale = self.log_scale.exp().clamp(max=MAX_SCALE)
        if self.options.alignment == "pairwise":
            return torch.stack([info_nce(a, b, scale) for a, b in itertools.combinations(views, 2)]).mean()
        if self.options.critic == "product" or len(views) == 2:
            return total_correlation(views, scale)
        # TC(x, y, z) = I(x; y) + I(x, y; z): an InfoNCE for each term, in an order drawn again each step.
        first, *others = [F.normalize(views[k], dim=1) for k in torch.randperm(len(views)).tolist()]
        seen, loss = first, first.new_zeros(())
        for number, view in enumerate(others):
            loss = loss + info_nce(seen + self.joint(seen) if number else seen, view, scale)
            seen = seen + view
        return loss / len(others)

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        options = self.options
        graph = self.mask_edges(self.graph, *batch[:2]) if options.edge_masking else self.graph
        nodes, place = torch.stack([batch[0], batch[1] + self.n_users, batch[2] + self.n_users]).unique(
            return_inverse=True
        )
        fused, interaction, content, generation = self.represent(graph, nodes)
        user, pos, neg = F.embedding(place, fused)
        terms = {"bpr": bpr_loss((user * pos).sum(dim=1), (user * neg).sum(dim=1))}
        if options.denoising != "off":
            terms["generation"] = options.diff_weight * generation
        if options.alignment != "off":
            # A contrast of cosines pulls the harder the shorter its rows are, and BPR the weaker.
            scaled = options.critic == "chain"
            weight = options.tc_weight * (interaction.detach().square().sum(dim=1).mean() if scaled else 1)
            losses = []
            for kind in place[1:2] if options.backbone == "released" else place[:2]:
                rows = kind.unique()
                rows = rows[torch.randperm(len(rows))[:ALIGNED_ROWS].to(rows.device)]
                present = None if self.present is None else self.present[nodes[rows]]
                losses.append(
                    self.align([F.embedding(rows, view) for view in (interaction, *content.values())], present)
                )
            terms["alignment"] = weight * torch.stack(losses).mean()
        users, items = F.embedding(batch[0], self.user_embedding), F.embedding(batch[1:], self.item_embedding)
        # Of all users, not of the batch's: the fewer interactions a user has, the more its items speak for it.
        penalty = options.user_reg_weight * half_squared_l2(self.user_embedding / self.evidence)
        return terms | {"reg": options.reg_weight * half_squared_l2_over_batch(users, *items) + penalty}

    def forward(self) -> tuple[Tensor, Tensor]:
        users, items = self.represent(self.graph)[0].split([self.n_users, self.n_items])
        return users, items

    def new_item_embeddings(self, features: Mapping[str, NDArray[np.float32]], dataset: Dataset) -> Tensor:
        """z of items without interactions [J, D]: their id embedding is 0, so their content is that of their neighbours.

        They are isolated in the user-item graph (Eq. 2); content is generated given 0 (Eq. 5); the gate of Eq. (10) is 1/2.
        """
        o = self.options
        gated = o.content == "gated"
        if o.backbone == "released" or o.denoising == "items" or o.fusion == "product" or (gated and not o.knn_k):
            needed = "backbone text, denoising nodes or off, fusion each, and knn_k or projected content"
            raise UserError(f"GTC cannot score new items with these settings: it needs {needed}")
        views = {}
        for modality in self.modalities:
            layer, new = self.projections[modality], features[modality]
            x = layer(standardized_as(dataset, modality, FEATURE_RANK, new).to(self.device))
            known = layer(self.features(modality))
            if gated:
                x, known = torch.zeros_like(x), self.item_embedding * torch.sigmoid(known)
            if o.knn_k:
                weights, own = (part.to(x) for part in edges_of_new_items(dataset, modality, o.knn_k, new))
                x = (weights @ known + own[:, None] * x).lerp(x, OWN_SHARE)
            views[modality] = x if gated else x / (o.n_ui_layers + 1)
        interaction = torch.zeros_like(x)
        content = self.denoise(views, interaction, None)[0] if o.denoising == "nodes" else views
        return self.fuse(interaction, content)

    def modality_embeddings(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Interaction and generated content embeddings of users [U, D] and items [I, D]."""
        _, interaction, content, _ = self.represent(self.graph)
        return {name: (x[: self.n_users], x[self.n_users :]) for name, x in {"id": interaction, **content}.items()}


def xavier_table(rows: int, width: int) -> nn.Parameter:
    """A table [rows, width], uniform with bound sqrt(6 / (rows + width))."""
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(rows, width)))
