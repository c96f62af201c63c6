"""GTC: user-aware conditional generative total correlation learning.

One LightGCN per modality (interactions and each content modality) over the same graph (Eq. 2); a diffusion model per
content modality, conditioned on the interaction embedding of the same node, filters the content (Eqs. 3-5); a
contrastive bound of the total correlation aligns all modalities at once (Eqs. 6-9); the fused content updates the
interaction embedding through a gate (Eq. 10); BPR ranks (Eq. 11). L = L_BPR + diff_weight L_gen + tc_weight L_TC +
reg_weight ||Theta||^2 (Eq. 12).

Source: "User-Aware Conditional Generative Total Correlation Learning for Multi-Modal Recommendation" (arXiv 2604.03014).

Differs from the released code: the denoisers are trained (there they never reach the optimiser); content is generated
once per evaluation from a fixed noise, so scores do not depend on batches; total correlation runs over the nodes of
the batch instead of all items; no item-item or user-user graph; no trainable copy of the raw features; the
gate is the text's, not the softmax over pairwise products. Differs from the text: features are standardised and reduced to
`feature_rank` principal components; rows are brought to unit variance before diffusing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender, batch_rows
from common.diffusion import ConditionalUNet, LinearSchedule
from common.features import standardized_features
from common.init import xavier_normal_linear, xavier_uniform_embedding
from common.losses import bpr_loss, half_squared_l2_over_batch, total_correlation
from utils.dataset import Dataset
from utils.schema import fill, setting

EVAL_BLOCK = 8192  # nodes generated at a time at evaluation
MAX_SCALE = 100.0  # of the contrastive logits


@dataclass(frozen=True)
class GTCConfig:
    """Keys of GTC; values in configs/model/GTC.yaml."""

    embedding_size: int = setting("width D of the embeddings", low=2)
    n_ui_layers: int = setting("depth of the propagation over the user-item graph", low=0, alias=("n_layers",))
    feature_rank: int = setting("principal components kept of a modality's features; 0: all features", low=0)
    noise_steps: int = setting("length T of the diffusion", low=1)
    beta_first: float = setting("noise variance of the first step", above=0, high=0.999)
    beta_last: float = setting("noise variance of the last step", above=0, high=0.999)
    denoiser_widths: list[int] = setting("widths of the denoiser's levels", low=1)
    detach_condition: bool = setting("no gradient from the denoiser into the interaction embedding")
    diff_weight: float = setting("weight of the denoising loss", low=0)
    tc_weight: float = setting("weight of the total correlation loss", low=0)
    tc_nodes: str = setting(
        "nodes of the batch that are aligned: users, positive items", choices=("items", "users", "both")
    )
    tc_batch: int = setting("most nodes aligned in a step, drawn at random from the batch's", low=2)
    temperature: float = setting("initial temperature of the total correlation's logits", low=1 / MAX_SCALE)
    fusion_temperature: float = setting("initial temperature of the gate", above=0)
    gate_bias: float = setting("initial bias of the gate; below 0 the content starts nearly left out")
    generation: str = setting("how content is generated at evaluation", choices=("one_step", "ddim", "ddpm"))
    generation_start: float = setting(
        "time at which generation starts, as a share of T; 1 starts from pure noise unless one_step",
        above=0,
        high=1,
    )
    generation_steps: int = setting("steps of ddim", low=1)
    reg_weight: float = setting("weight of half the squared norms of the batch's embeddings", low=0)


class GTC(GeneralRecommender):
    """Generative total correlation learning over any number of content modalities."""

    settings = GTCConfig
    needs_features = True

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: GTCConfig = fill(GTCConfig, config)
        options = self.options
        self.user_embedding = xavier_uniform_embedding(self.n_users, self.embedding_size)
        self.item_embedding = xavier_uniform_embedding(self.n_items, self.embedding_size)
        self.graph = self.interaction_graph(dataset)
        self.schedule = LinearSchedule(options.noise_steps, options.beta_first, options.beta_last)
        self.projections, self.denoisers = nn.ModuleDict(), nn.ModuleDict()
        for modality in self.modalities:
            features = standardized_features(dataset, modality, options.feature_rank)
            self.register_buffer(f"features_{modality}", features, persistent=False)
            self.projections[modality] = xavier_normal_linear(features.shape[1], self.embedding_size)
            self.denoisers[modality] = ConditionalUNet(
                self.embedding_size, options.denoiser_widths, options.noise_steps
            )
        self.log_scale = nn.Parameter(torch.tensor(1 / options.temperature).log())
        self.log_fusion_temperature = nn.Parameter(torch.tensor(options.fusion_temperature).log())
        self.gate_bias = nn.Parameter(torch.tensor(options.gate_bias))

    def encode(self, users: Tensor | None = None, items: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Propagated interaction embeddings H^id and content embeddings H^m by modality (Eq. 2).

        The initial user embedding is the same in every modality, so it is propagated once and added.

        Args:
            users, items: the nodes that are wanted, [u] and [i]; None: all.

        Returns:
            H^id and each H^m, [u + i, D], users first.
        """

        def propagated(table: Tensor, from_users: bool) -> Tensor:
            of_users, of_items = self.graph.propagate_mean_from(table, self.options.n_ui_layers, from_users)
            if users is None or items is None:
                return torch.cat([of_users, of_items])
            return torch.cat([F.embedding(users, of_users), F.embedding(items, of_items)])

        shared = propagated(self.user_embedding, True)
        content = {
            modality: shared + propagated(self.projections[modality](self.features(modality)), False)
            for modality in self.modalities
        }
        return shared + propagated(self.item_embedding, False), content

    def fuse(self, interaction: Tensor, content: Mapping[str, Tensor]) -> Tensor:
        """z = h + g c with c the element-wise product of the content and g = sigmoid(<h, c> / tau) (Eq. 10), [B, D].

        c is brought to the length of h, so that the gate compares directions and the residual keeps its weight.
        """
        product = reduce(torch.mul, content.values())
        joined = F.normalize(product, dim=1) * interaction.norm(dim=1, keepdim=True)
        similarity = (F.normalize(interaction, dim=1) * F.normalize(product, dim=1)).sum(dim=1, keepdim=True)
        return interaction + torch.sigmoid(similarity / self.log_fusion_temperature.exp() + self.gate_bias) * joined

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        options = self.options
        users, user_place = batch[0].unique(return_inverse=True)
        items, item_place = batch[1:].unique(return_inverse=True)
        interaction, content = self.encode(users, items)
        generated, generation_loss = {}, interaction.new_zeros(())
        for modality, encoded in content.items():
            generated[modality], loss = self._denoise(modality, unit_rows(encoded), interaction)
            generation_loss = generation_loss + loss
        fused = self.fuse(interaction, generated)
        all_users, all_items = fused.split([len(users), len(items)])
        user, pos, neg = batch_rows(torch.cat([user_place[None], item_place]), all_users, all_items)
        chosen = {
            "users": [torch.arange(len(users), device=users.device)],
            "items": [len(users) + item_place[0].unique()],
        }
        chosen["both"] = chosen["users"] + chosen["items"]
        aligned = [
            self._align([interaction, *generated.values()], at_most(rows, options.tc_batch))
            for rows in chosen[options.tc_nodes]
        ]
        ego = batch_rows(batch, self.user_embedding, self.item_embedding)
        return {
            "bpr": bpr_loss((user * pos).sum(1), (user * neg).sum(1)),
            "generation": options.diff_weight * generation_loss,
            "total_correlation": options.tc_weight * torch.stack(aligned).mean(),
            "reg": options.reg_weight * half_squared_l2_over_batch(*ego),
        }

    def _align(self, views: list[Tensor], rows: Tensor) -> Tensor:
        """The total correlation loss of some rows of the views [n, D] (Eqs. 6-9)."""
        return total_correlation([F.embedding(rows, view) for view in views], self.log_scale.exp().clamp(max=MAX_SCALE))

    def _denoise(self, modality: str, start: Tensor, interaction: Tensor) -> tuple[Tensor, Tensor]:
        """The one-step estimate of x_0 [B, D] at a random time per row, and the loss of the predicted noise."""
        condition = unit_rows(interaction.detach() if self.options.detach_condition else interaction)
        # Drawn on the CPU whatever the device, so that a seed means the same noise everywhere.
        t = torch.randint(1, self.options.noise_steps + 1, (len(start),)).to(start.device)
        noise = torch.randn(start.shape).to(start.device, start.dtype)
        noisy = self.schedule.add_noise(start, t, noise)
        predicted = self.denoisers[modality](noisy, t, condition)
        return self.schedule.estimate_start(noisy, t, predicted), F.mse_loss(predicted, noise)

    def generate(self, modality: str, start: Tensor, interaction: Tensor) -> Tensor:
        """Content [B, D] generated deterministically for evaluation (Eq. 5).

        One fixed noise vector serves all nodes: what it adds is then nearly the same for every item and leaves the ranking
        alone, and no node depends on its place in a block.
        """
        options, schedule, denoiser = self.options, self.schedule, self.denoisers[modality]
        condition = unit_rows(interaction)
        random = torch.Generator().manual_seed(0)

        def draw() -> Tensor:
            return torch.randn(1, start.shape[1], generator=random).to(start).expand_as(start)

        def at(time: int) -> Tensor:
            return torch.full((len(start),), time, device=start.device)

        t = max(1, round(options.generation_start * options.noise_steps))
        noise = draw()
        if options.generation == "one_step":
            x = schedule.add_noise(start, at(t), noise)
            return schedule.estimate_start(x, at(t), denoiser(x, at(t), condition))
        x = noise if t == options.noise_steps else schedule.add_noise(start, at(t), noise)
        if options.generation == "ddpm":
            for time in range(t, 0, -1):
                x = schedule.ddpm_step(x, time, denoiser(x, at(time), condition), draw())
            return x
        times = sorted({round(t * k / options.generation_steps) for k in range(options.generation_steps + 1)})
        for time, earlier in zip(times[:0:-1], times[-2::-1], strict=True):
            x = schedule.ddim_step(x, time, earlier, denoiser(x, at(time), condition))
        return x

    def forward(self) -> tuple[Tensor, Tensor]:
        interaction, generated = self._all_nodes()
        users, items = self.fuse(interaction, generated).split([self.n_users, self.n_items])
        return users, items

    def _all_nodes(self) -> tuple[Tensor, dict[str, Tensor]]:
        interaction, content = self.encode()
        generated = {}
        for modality, encoded in content.items():
            blocks = zip(encoded.split(EVAL_BLOCK), interaction.split(EVAL_BLOCK), strict=True)
            generated[modality] = torch.cat([self.generate(modality, unit_rows(x), h) for x, h in blocks])
        return interaction, generated

    def modality_embeddings(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Interaction and generated content embeddings of all nodes, at their own scales: users [U, D], items [I, D]."""
        interaction, generated = self._all_nodes()
        _, content = self.encode()
        generated = {name: x * root_mean_square(content[name]) for name, x in generated.items()}
        return {name: (x[: self.n_users], x[self.n_users :]) for name, x in {"id": interaction, **generated}.items()}


def at_most(rows: Tensor, n: int) -> Tensor:
    """`rows`, or n of them drawn at random where there are more."""
    return rows if len(rows) <= n else rows[torch.randperm(len(rows))[:n].to(rows.device)]


def unit_rows(x: Tensor) -> Tensor:
    """x [B, D] with each row brought to unit mean square; zero rows stay zero."""
    return x / root_mean_square(x)


def root_mean_square(x: Tensor) -> Tensor:
    """The root mean square of each row of x [B, D], at least 1e-8: [B, 1]."""
    return x.square().mean(dim=1, keepdim=True).clamp_min(1e-16).sqrt()
