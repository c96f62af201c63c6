"""DiffMM: a diffusion model per modality generates a user-item graph each epoch; the recommender propagates over both.

With A = D^-1/2 (adjacency + I) D^-1/2 of the user-item graph, G_m likewise of what modality m generated, X_m the projected
features and rows of norm 1 written n(.):
P_m = A [E_u; n(X_m)], V_m = P_m + A [users of P_m; E_i] + `generated_weight` G_m [E_u; E_i], H = sum_m softmax(w)_m V_m,
Z = sum_{l=0..L} A^l H + `norm_weight` n(H); scores are dot products. Views C_m = sum_{l=0..L} A^l G_m [E_u; n(X_m)].
Loss: sum of -log sigmoid(s_ui - s_uj) over `train_batch_size`; `reg_weight` times the squares of both tables; `cl_weight`
times InfoNCE against all users and all items, of C_m with C_m' (`cl_method` 0) or of Z with each C_m (1).

Before each epoch, with E_i and X_m constant, one pass over the users trains the denoisers (common/interaction_diffusion.py)
to restore rows x_0 of the interactions by w_t mean_I (x_0 - x^)^2 + `content_weight` mean_D (x^ X_m - x_0 E_i)^2. Then each
user's `rebuild_k` best items by the generated row are its edges in G_m, of whose entries each is kept with `keep_rate`.

Source: Jiang et al., "DiffMM: Multi-Modal Diffusion Model for Recommendation", ACM MM 2024 (arXiv 2406.11781).

Differs from the released code: epochs are selected by validation (there by the test split); negatives are drawn for each
epoch among the items of the training split (there among all); all but the last reverse step run in the hidden layer, with
the same result; only the chosen contrast is computed; any number of modalities. Else it follows the code, not the paper.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender
from common.contrast import sum_of_log_sums
from common.dropout import dropped
from common.generated_graphs import GeneratedGraph
from common.graph import SparseSymmetric, bipartite_adjacency, normalize_symmetric
from common.initial import xavier_uniform_embedding
from common.inner_training import InnerTraining
from common.interaction_diffusion import RowDenoiser, RowSchedule
from common.losses import half_squared_l2, log_sigmoid_bpr_loss
from common.neighbours import SparseRows
from common.scoring import batch_rows
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset

SLOPE = 0.2
ROW_DROPOUT = 0.5  # of the noisy rows, in the training of the denoisers


@dataclass(frozen=True)
class DiffMMConfig:
    """Keys of DiffMM; values in configs/model/DiffMM.yaml."""

    embedding_size: int = setting("width D of the embeddings", low=1)
    n_ui_layers: int = setting("depth L of the last propagation", low=0, alias=("gnn_layer",))
    trans: int = setting(
        "projection of features: 0 without bias and a leaky rectifier after, 1 linear with bias, 2 visual as 0, others as 1",
        low=0,
        high=2,
    )
    generated_weight: float = setting("weight of a generated graph's message", low=0, alias=("ris_adj_lambda",))
    norm_weight: float = setting("weight of n(H) in the final embeddings", low=0, alias=("ris_lambda",))
    keep_rate: float = setting("share of a generated graph's entries kept", above=0, high=1, alias=("keepRate",))
    rebuild_k: int = setting("edges of a user in a generated graph", low=1)
    cl_method: int = setting("contrast: 0 modality with modality, 1 final embeddings with each modality", low=0, high=1)
    cl_weight: float = setting("weight of the contrast", low=0, alias=("ssl_reg",))
    temperature: float = setting("of the contrast", above=0, alias=("temp",))
    reg_weight: float = setting("weight of the squares of both id tables", low=0, alias=("reg",))
    content_weight: float = setting("weight of the content term of the denoisers", low=0, alias=("e_loss",))
    denoiser_width: int = setting("hidden width of a denoiser", low=1)
    denoiser_learning_rate: float = setting("of the denoisers' Adam", above=0)
    noise_steps: int = setting("steps T of the diffusion", low=2, alias=("steps",))
    noise_scale: float = setting("scale of the noise's variance", above=0)
    noise_min: float = setting("its first step", above=0)
    noise_max: float = setting("its last step", above=0)


class Projection(nn.Module):
    """Features [I, F] to X [I, D]: a leaky rectifier of F W, or F W + b."""

    def __init__(self, n_features: int, width: int, rectified: bool) -> None:
        super().__init__()
        self.rectified = rectified
        self.linear = nn.Linear(n_features, width, bias=not rectified)
        if rectified:
            nn.init.xavier_uniform_(self.linear.weight)

    def forward(self, features: Tensor) -> Tensor:
        projected: Tensor = self.linear(features)
        return F.leaky_relu(projected, SLOPE) if self.rectified else projected


class DiffMM(GeneralRecommender):
    """Propagation over the interactions and over a generated graph for each modality."""

    settings = DiffMMConfig
    needs_features = True

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: DiffMMConfig = fill(DiffMMConfig, config)
        options, width = self.options, self.embedding_size
        self.batch_size: int = config["train_batch_size"]
        self.user_embedding = xavier_uniform_embedding(self.n_users, width)
        self.item_embedding = xavier_uniform_embedding(self.n_items, width)
        self.projections = nn.ModuleDict()
        for m in self.modalities:
            rectified = options.trans == 0 or (options.trans == 2 and m == "visual")
            self.projections[m] = Projection(self.features(m).shape[1], width, rectified)
        count = len(self.modalities)
        # Of a single modality the share is 1 whatever its weight.
        self.modality_weights = nn.Parameter(torch.full((count,), 1 / count)) if count > 1 else None
        users, items = dataset.train.users, dataset.train.items
        adjacency = bipartite_adjacency(users, items, self.n_users, self.n_items)
        self.graph = SparseSymmetric(normalize_symmetric(adjacency + sp.identity(adjacency.shape[0], format="csr")))
        self.histories = SparseRows(dataset.inter_matrix("csr"))
        self.schedule = RowSchedule(options.noise_steps, options.noise_scale, options.noise_min, options.noise_max)
        edges = min(options.rebuild_k, self.n_items)
        self.denoisers, self.generated = nn.ModuleDict(), nn.ModuleDict()
        for m in self.modalities:
            network = RowDenoiser(self.n_items, options.denoiser_width, options.noise_steps)
            self.denoisers[m] = InnerTraining(network, options.denoiser_learning_rate)
            self.generated[m] = GeneratedGraph(self.n_users, self.n_items, edges, options.keep_rate)

    @classmethod
    def memory_needed(cls, config: Mapping[str, Any], dataset: Dataset) -> dict[str, int]:
        weights = 2 * dataset.n_items * config["denoiser_width"] * len(dataset.features)
        rows = 8 * config["train_batch_size"] * dataset.n_items  # about eight of them at a time
        return {"denoisers with gradient and two moments": 16 * weights, "a batch of interaction rows": 4 * rows}

    def pre_epoch_processing(self) -> None:
        """Trains the denoisers on every user once, and generates the epoch's graphs."""
        self._train_denoisers()
        self._generate()

    @torch.no_grad()
    def _train_denoisers(self) -> None:
        ids, content = self.item_embedding, self._content()
        for users in torch.randperm(self.n_users).to(self.device).split(self.batch_size):
            offsets, items, _ = self.histories.take(users)
            rows = ids.new_zeros(len(users), self.n_items)  # [B, I]
            rows[torch.arange(len(users), device=self.device).repeat_interleave(offsets.diff()), items] = 1
            wanted = F.embedding_bag(items, ids, offsets, mode="sum", include_last_offset=True)  # x_0 E_i [B, D]
            for m in self.modalities:
                denoiser: Any = self.denoisers[m]
                # Drawn on the CPU whatever the device, so that a seed means the same everywhere.
                t = torch.randint(1, self.schedule.n_steps + 1, (len(users),)).to(self.device)
                noisy = self.schedule.add_noise(rows, t, torch.randn(rows.shape).to(rows))
                noisy = dropped(noisy, ROW_DROPOUT)
                denoiser.step(partial(self._denoising_loss, denoiser, noisy, t, rows, content[m], wanted))

    def _denoising_loss(
        self, denoiser: nn.Module, noisy: Tensor, t: Tensor, rows: Tensor, content: Tensor, wanted: Tensor
    ) -> Tensor:
        """What a denoiser is trained by: noisy rows [B, I] at times t [B], clean ones, X_m [I, D] and x_0 E_i [B, D]."""
        estimate = denoiser(noisy, t)
        errors = (rows - estimate).square().mean(1)
        steered = (estimate @ content - wanted).square().mean()
        return (self.schedule.loss_weights[t] * errors).mean() + self.options.content_weight * steered

    @torch.no_grad()
    def _generate(self) -> None:
        for m in self.modalities:
            graph: Any = self.generated[m]
            denoiser: Any = self.denoisers[m]
            generate = denoiser.network.generator(self.schedule)
            for users in torch.arange(self.n_users, device=self.device).split(self.batch_size):
                offsets, items, _ = self.histories.take(users)
                graph.item_ids[users] = generate(offsets, items).topk(graph.item_ids.shape[1], dim=1).indices
            graph.draw()

    def _content(self) -> dict[str, Tensor]:
        """X_m [I, D]."""
        return {m: projection(self.features(m)) for m, projection in self.projections.items()}

    def _start(self) -> list[Tensor]:
        """[E_u; n(X_m)] [N, D] of each modality."""
        return [torch.cat([self.user_embedding, F.normalize(x, dim=1)]) for x in self._content().values()]

    def _views(self, start: list[Tensor]) -> list[Tensor]:
        """V_m [N, D] of each modality; those of all are propagated side by side."""
        count, users = len(start), self.n_users
        first = self.graph(torch.cat(start, dim=1))
        items = self.item_embedding.repeat(1, count)
        both = first + self.graph(torch.cat([first[:users], items]))
        ids, weight = torch.cat([self.user_embedding, self.item_embedding]), self.options.generated_weight
        generated = [weight * graph(ids) for graph in self.generated.values()]
        return [view + extra for view, extra in zip(both.chunk(count, dim=1), generated, strict=True)]

    def _fuse(self, views: list[Tensor]) -> Tensor:
        """Z [N, D]."""
        fused = views[0]
        if self.modality_weights is not None:
            shares = torch.softmax(self.modality_weights, dim=0)
            fused = torch.stack([share * view for share, view in zip(shares, views, strict=True)]).sum(0)
        return self._layers(fused) + self.options.norm_weight * F.normalize(fused, dim=1)

    def _layers(self, x: Tensor) -> Tensor:
        """sum_{l=0..L} A^l x."""
        depth = self.options.n_ui_layers
        return (depth + 1) * self.graph.propagate_mean(x, depth)

    def forward(self) -> tuple[Tensor, Tensor]:
        users, items = self._fuse(self._views(self._start())).split([self.n_users, self.n_items])
        return users, items

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        options, start = self.options, self._start()
        final = self._fuse(self._views(start))
        users, pos, neg = batch_rows(batch, final[: self.n_users], final[self.n_users :])
        share = batch.shape[1] / self.batch_size  # a short batch is divided by the same number
        terms = {
            "bpr": share * log_sigmoid_bpr_loss((users * pos).sum(1), (users * neg).sum(1)),
            "reg": 2 * options.reg_weight * half_squared_l2(self.user_embedding, self.item_embedding),
        }
        if options.cl_weight:
            terms["contrastive"] = options.cl_weight * self._contrast(batch, final, start)
        return terms

    def _contrast(self, batch: Tensor, final: Tensor, start: list[Tensor]) -> Tensor:
        """Sum over pairs of views of InfoNCE: the batch's users against all users, its positives against all items."""
        passed = [graph(x) for graph, x in zip(self.generated.values(), start, strict=True)]
        views = [
            F.normalize(view, dim=1) for view in self._layers(torch.cat(passed, dim=1)).split(start[0].shape[1], 1)
        ]
        pairs = list(itertools.combinations(views, 2))
        if self.options.cl_method == 1 or not pairs:  # one modality has no other to be compared with
            pairs = [(F.normalize(final, dim=1), view) for view in views]
        sizes, terms, scale = [self.n_users, self.n_items], [], 1 / self.options.temperature
        distinct = [ids.unique(return_counts=True) for ids in batch[:2]]
        for first, second in pairs:
            for (ids, counts), one, other in zip(distinct, first.split(sizes), second.split(sizes), strict=True):
                anchors = F.embedding(ids, one)
                own = torch.linalg.vecdot(anchors, F.embedding(ids, other))
                sums = sum_of_log_sums(anchors, other, scale, counts)
                terms.append((sums - scale * torch.dot(own, counts.to(own))) / batch.shape[1])
        return torch.stack(terms).sum()

    def modality_embeddings(self) -> dict[str, tuple[Tensor, Tensor]]:
        """V_m of each modality."""
        views = dict(zip(self.modalities, self._views(self._start()), strict=True))
        return {m: (view[: self.n_users], view[self.n_users :]) for m, view in views.items()}
