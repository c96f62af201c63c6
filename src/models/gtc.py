"""GTC: user-aware conditional generative total correlation learning, with the paper's design space as keys.

Views of every node: the interaction embedding H^id, LightGCN over [E_u ; E_i] (Eq. 2), and content views H^m, which are
- `projected`, as the paper has them: LightGCN over [E_u ; F_m W_m + b_m] on the same graph;
- `gated`: items E_i * sigmoid(G_m (F_m W_m + b_m)), propagated over the modality's item graph, users the normalised sum of
  their items; `product_view` adds one more view, of the element-wise product of all F_m W_m + b_m.
A diffusion model per modality, conditioned on the interaction embedding of the node, filters the content (Eqs. 3-5);
`alignment` pulls the views of a node together by total correlation (Eqs. 6-9) or pairwise; `fusion` makes one
representation of them (Eq. 10), and BPR ranks (Eq. 11) by products of these.
L = L_BPR + diff_weight L_gen + tc_weight L_align + reg_weight ||Theta||^2 (Eq. 12).
Beside the paper: with `leave_out` the graph of a training step lacks the batch's own interactions, as it will lack those
that are to be foretold; without `user_embedding` users are what their items make them; `content_share` adds to the
items' initial embeddings what their content foretells of them.

Source: "User-Aware Conditional Generative Total Correlation Learning for Multi-Modal Recommendation" (arXiv 2604.03014).
Ready settings in configs/variants/: GTC_paper.yaml, the text to the letter, and GTC_released.yaml, what the released code
was meant to compute; the default is the best of a search, see docs/models/gtc.md.

Differs from the released code: the denoisers are trained (there they never reach the optimiser); content is generated
once per evaluation from a fixed noise, so scores do not depend on batches; alignment runs over the nodes of
the batch instead of all items; no trainable copy of the raw features. Differs from the text, in all settings: features
are standardised and reduced to `feature_rank` principal components; rows are brought to unit variance before diffusing.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender
from common.content_spectrum import content_spectrum, estimated_content_share
from common.diffusion import Denoiser, LinearSchedule, root_mean_square, unit_rows
from common.features import standardized_features
from common.graph import EdgesLeftOut, SparseMatrix, SparseSymmetric
from common.host import portable
from common.initial import xavier_normal_linear, xavier_uniform_embedding
from common.losses import bpr_loss, half_squared_l2_over_batch, info_nce, total_correlation
from common.missing import view_presence, without_fills, without_items
from common.neighbours import cosine_graph, mixed_item_graph, normalize_by_row_sums
from common.scoring import batch_rows
from common.spectral import estimated_own_share, spectral_embeddings
from common.user_graph import UserGraph
from utils.config.schema import fill, setting
from utils.errors import UserError

if TYPE_CHECKING:
    from utils.data.dataset import Dataset

EVAL_BLOCK = 8192  # nodes generated at a time at evaluation
MAX_SCALE = 100.0  # of the contrastive logits
PRODUCT = "product"  # name of the view of the modalities' product


@dataclass(frozen=True)
class GTCConfig:
    """Keys of GTC; values in configs/model/GTC.yaml."""

    embedding_size: int = setting("width D of the embeddings", low=2)
    n_ui_layers: int = setting("depth of the propagation over the user-item graph", low=0, alias=("n_layers",))
    feature_rank: int = setting("principal components kept of a modality's features; 0: all features", low=0)
    content: str = setting("what the content views are made of", choices=("gated", "projected"))
    user_embedding: bool = setting("users have an embedding of their own; without, they are what their items make them")
    leave_out: bool = setting("in training, leave a batch's own interactions out of the user-item graph")
    content_share: float | None = setting(
        "how much content may stand for items in their initial embeddings for the interaction view; 0: none, null: "
        "estimated from the training split",
        low=0,
        high=0.99,
    )
    content_products: bool = setting(
        "with a given content_share: the products of the modalities' components are among that content"
    )
    content_rate: float = setting("how fast that content is weighed anew in training; 0: not at all", low=0)
    shared_users: bool = setting("projected: one initial user embedding for all views, instead of one for each")
    product_view: bool = setting("gated: one more view, of the element-wise product of all modalities")
    knn_k: int = setting("gated: neighbours of an item in a modality's graph, itself among them; 0: no graph", low=0)
    n_mm_layers: int = setting("gated: depth of the propagation over the item graphs", low=0)
    own_share: float | None = setting(
        "gated: share of an item itself in its view, beside that propagation; null: estimated from the training split",
        low=0,
        high=1,
    )
    denoising: str = setting(
        "where content is denoised: that of items before propagation, or that of nodes after it",
        choices=("off", "before", "after"),
    )
    generated_in: str = setting(
        "what takes generated content for content: all of it, alignment, fusion's gates (`preference` only), or nothing",
        choices=("all", "alignment", "gates", "nothing"),
    )
    noise_steps: int = setting("length T of the diffusion", low=1)
    beta_first: float = setting("noise variance of the first step", above=0, high=0.999)
    beta_last: float = setting("noise variance of the last step", above=0, high=0.999)
    denoiser_widths: list[int] = setting("widths of the denoiser's levels", low=1)
    condition: str = setting("interaction embedding that conditions the denoiser", choices=("propagated", "ego"))
    detach_condition: bool = setting("no gradient from the denoiser into the interaction embedding")
    diff_weight: float = setting("weight of the denoising loss", low=0)
    generation: str = setting("how content is generated at evaluation", choices=("one_step", "ddim", "ddpm"))
    generation_start: float = setting(
        "time at which generation starts, as a share of T; 1 starts from pure noise unless one_step",
        above=0,
        high=1,
    )
    generation_steps: int = setting("steps of ddim", low=1)
    alignment: str = setting("loss that aligns views", choices=("off", "pairwise", "total_correlation"))
    aligned_views: str = setting(
        "views that are aligned: interaction and each modality, or interaction and the mean of the content views",
        choices=("modalities", "mean"),
    )
    tc_weight: float = setting("weight of the alignment loss", low=0)
    tc_scaled: bool = setting("multiply that weight by the mean squared length of the batch's interaction embeddings")
    tc_nodes: str = setting(
        "nodes of the batch that are aligned: users, positive items", choices=("items", "users", "both")
    )
    tc_batch: int = setting("most nodes of a kind aligned in a step, drawn at random from the batch's", low=2)
    tc_order: float = setting(
        "weight of the products of three and more views beside those of two in the critic; 0: the paper's product alone",
        low=0,
    )
    temperature: float = setting("initial temperature of the alignment's logits", low=1 / MAX_SCALE)
    learn_temperature: bool = setting("learn the temperature of the alignment's logits")
    fusion: str = setting("how views become one", choices=("gate", "preference", "softmax", "concat", "interaction"))
    fusion_temperature: float = setting("initial temperature of `gate` and `softmax`", above=0)
    gate_bias: float = setting("initial bias of `gate`; below 0 the content starts nearly left out")
    final_item_k: int = setting("neighbours in an item graph over the final items, added to them; 0: none", low=0)
    final_user_k: int = setting("neighbours in a user graph over the final users, added to them; 0: none", low=0)
    image_weight: float = setting("weight of the visual graph in the final item graph", low=0, high=1)
    spectral_scale: float = setting(
        "length of initial embeddings made of the interactions' singular vectors, over that of Xavier's; 0: Xavier's",
        low=0,
    )
    spectral_power: float = setting("power of the singular values that weighs those vectors", low=0)
    reg_weight: float = setting("weight of half the squared norms of the batch's embeddings", low=0)


class Encoded(NamedTuple):
    """Views of all nodes, users first."""

    interaction: Tensor  # H^id [N, D]
    content: dict[str, Tensor]  # each [N, D]
    loss: Tensor  # of denoising before propagation


@portable
class GTC(GeneralRecommender):
    """Generative total correlation learning over any number of content modalities."""

    settings = GTCConfig
    needs_features = True
    dense_methods = ("fuse",)
    told: Tensor  # [I, D]: what content foretells of the items' initial embeddings, of unit mean square
    present: Tensor | None  # bool [N, V]: which node has which content view; None where nothing is missing
    present_at_all: Tensor  # bool [V]: which views any node has

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: GTCConfig = fill(GTCConfig, config)
        options, width = self.options, self.embedding_size
        if options.fusion == "softmax" and len(self.modalities) != 2:
            raise UserError(
                f"GTC: fusion softmax weighs two content modalities and the interactions, and {dataset.name} has "
                f"{len(self.modalities)} ({', '.join(self.modalities)}); choose another fusion"
            )
        self.gated = options.content == "gated"
        self.views = list(self.modalities)
        if self.gated and options.product_view and len(self.views) > 1:
            self.views.append(PRODUCT)
        dataset = without_fills(dataset)
        made_of = {view: self.modalities if view == PRODUCT else [view] for view in self.views}
        self.register_buffer("present", view_presence(dataset, made_of), persistent=False)
        at_all = None if self.present is None else self.present.any(dim=0)
        self.register_buffer("present_at_all", at_all, persistent=False)
        if options.user_embedding:
            self.user_embedding = xavier_uniform_embedding(self.n_users, width)
        else:
            self.register_buffer("user_embedding", torch.zeros(self.n_users, width), persistent=False)
        self.item_embedding = xavier_uniform_embedding(self.n_items, width)
        self._start(dataset)
        self.graph = self.interaction_graph(dataset)
        if options.leave_out:
            self.left_out = EdgesLeftOut(self.graph)
        self.projections = nn.ModuleDict()
        for modality in self.modalities:
            features = standardized_features(dataset, modality, options.feature_rank)
            self.register_buffer(f"features_{modality}", features, persistent=False)
            self.projections[modality] = xavier_normal_linear(features.shape[1], width)
        if self.gated:
            self.gates = nn.ModuleDict({view: nn.Linear(width, width) for view in self.views})
            self.item_graphs = self._item_graphs(dataset) if options.knn_k and options.n_mm_layers else nn.ModuleDict()
        elif options.user_embedding and not options.shared_users:
            tables = {view: xavier_uniform_embedding(self.n_users, width) for view in self.views}
            self.user_embeddings = nn.ParameterDict(tables)
        if options.denoising != "off":
            schedule = LinearSchedule(options.noise_steps, options.beta_first, options.beta_last)
            self.denoisers = nn.ModuleDict({
                view: Denoiser(schedule, width, options.denoiser_widths, options.detach_condition) for view in self.views
            })  # fmt: skip
        if options.alignment != "off":
            scale = torch.tensor(1 / options.temperature).log()
            if options.learn_temperature:
                self.log_scale = nn.Parameter(scale)
            else:
                self.register_buffer("log_scale", scale, persistent=False)
        if options.fusion == "preference":
            self.preferences = nn.ModuleDict({view: nn.Linear(width, width) for view in self.views})
        if options.fusion in ("gate", "softmax"):
            self.log_fusion_temperature = nn.Parameter(torch.tensor(options.fusion_temperature).log())
        if options.fusion == "gate":
            self.gate_bias = nn.Parameter(torch.tensor(options.gate_bias))
        if options.final_item_k:
            graph = mixed_item_graph(dataset, self.modalities, options.final_item_k, options.image_weight)
            self.final_items = SparseMatrix(graph)
        if options.final_user_k:
            self.final_users = UserGraph(dataset, options.final_user_k, padding="none")

    @torch.no_grad()
    def _start(self, dataset: Dataset) -> None:
        """Singular vectors in place of Xavier's draws, in as many columns as there are, and what content tells of them."""
        options, width = self.options, self.embedding_size
        share, products = options.content_share, options.content_products
        if share is None:
            share, products = estimated_content_share(dataset, self.modalities)
        self.content_share = share
        if not (options.spectral_scale or share):
            return
        if share:
            found = content_spectrum(dataset, self.modalities, width, options.spectral_power, share, products)
            users, items = found.users, found.own
            size = root_mean_square(found.told.flatten()[None])
            self.register_buffer("told", found.told / size)  # in checkpoints: a layer is learned on its columns
            # Its start is what singular vectors make of it; the lower the rate, the larger the weights that are learned.
            self.told_scale = options.spectral_scale * self._xavier(self.item_embedding) * size.item()
            if options.content_rate:
                self.content_layer = nn.Linear(width, width, bias=False)
                self.content_layer.weight.copy_(torch.eye(width) * self.told_scale / options.content_rate)
        else:
            users, items = spectral_embeddings(dataset, width, options.spectral_power)
        if options.spectral_scale:
            for table, vectors in ((self.user_embedding, users), (self.item_embedding, items)):
                if isinstance(table, nn.Parameter):  # else users without embeddings
                    table[:, : vectors.shape[1]] = options.spectral_scale * self._xavier(table) * vectors

    @staticmethod
    def _xavier(table: Tensor) -> float:
        """Standard deviation of Xavier's draws for a table."""
        return float((2 / sum(table.shape)) ** 0.5)

    def _item_graphs(self, dataset: Dataset) -> nn.ModuleDict:
        """The graph of each modality, and for the product view the sum of them, normalised again."""
        graphs = {m: cosine_graph(dataset, m, self.options.knn_k) for m in self.modalities}
        if self.options.own_share is None:
            made_of = {m: dataset.fingerprint[m] for m in self.modalities} | {"knn_k": self.options.knn_k}
            self.own_share = estimated_own_share(dataset, reduce(lambda a, b: a + b, graphs.values()), made_of)
        else:
            self.own_share = self.options.own_share
        if PRODUCT in self.views:
            graphs[PRODUCT] = reduce(lambda a, b: a + b, graphs.values())
        if self.present is not None:
            items = self.present[self.n_users :].T.numpy()
            graphs = {view: without_items(graphs[view], there) for view, there in zip(graphs, items, strict=True)}
        return nn.ModuleDict({view: SparseMatrix(normalize_by_row_sums(graph)) for view, graph in graphs.items()})

    def encode(self, graph: SparseSymmetric | None = None) -> Encoded:
        """The views of all nodes.

        Args:
            graph: the user-item graph; None: that of all training interactions.
        """
        options, users = self.options, self.user_embedding
        items: Tensor = self.item_embedding
        graph = self.graph if graph is None else graph
        projected = {m: self.projections[m](self.features(m)) for m in self.modalities}  # [I, D]
        if PRODUCT in self.views:
            projected[PRODUCT] = reduce(torch.mul, projected.values())
        loss = items.new_zeros(())
        if options.denoising == "before":
            there = None if self.present is None else self.present[self.n_users :]
            projected, loss = self._denoise(projected, items, there)

        def propagated(table: Tensor, from_users: bool) -> Tensor:
            return torch.cat(graph.propagate_mean_from(table, options.n_ui_layers, from_users))

        if self.content_share:
            rate = options.content_rate
            items = items + (rate * self.content_layer(self.told) if rate else self.told_scale * self.told)
        if self.gated:
            if options.user_embedding:
                whole = graph.propagate_mean(torch.cat([users, items]), options.n_ui_layers)
            else:
                whole = propagated(items, False)  # half the cost
            return Encoded(whole, self._gated(projected, graph), loss)
        # The readout is linear: what users bring in is propagated once where the views share it.
        content = {view: propagated(items_of_view, False) for view, items_of_view in self._kept(projected).items()}
        whole = propagated(items, False)
        if options.user_embedding:
            shared = propagated(users, True)
            whole = whole + shared
            for view, x in content.items():
                content[view] = x + (shared if options.shared_users else propagated(self.user_embeddings[view], True))
        return Encoded(whole, self._kept(content), loss)

    def _gated(self, projected: Mapping[str, Tensor], graph: SparseSymmetric) -> dict[str, Tensor]:
        items = []
        for k, (view, x) in enumerate(projected.items()):
            gated = own = self.item_embedding * torch.sigmoid(self.gates[view](x))
            if self.item_graphs:
                for _ in range(self.options.n_mm_layers):
                    gated = self.item_graphs[view](gated)
                if self.own_share:
                    gated = gated.lerp(own, self.own_share)
            if self.present is not None:  # zeros in place of a view would make what is fused of other length
                there = self.present[self.n_users :, k : k + 1]
                gated = torch.where(there, gated, own * there.any())
            items.append(gated)
        users = graph.to_first(torch.cat(items, dim=1)).chunk(len(items), dim=1)  # one product for all
        return {view: torch.cat(pair) for view, pair in zip(projected, zip(users, items, strict=True), strict=True)}

    def _kept(self, content: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Content of all nodes [N, D], or of all items [I, D], with rows of zeros where a node lacks the view."""
        if self.present is None:
            return dict(content)
        return {v: x * self.present[-len(x) :, k : k + 1] for k, (v, x) in enumerate(content.items())}

    def _denoise(
        self, content: Mapping[str, Tensor], condition: Tensor, there: Tensor | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Denoised content [B, D] of each view given the nodes' interaction embeddings, and in training the loss.

        A node that by `there` (bool [B, V]) lacks a view keeps what it has, of unit variance, and has no part in the loss.
        """
        generated, loss = {}, condition.new_zeros(())
        for k, (view, start) in enumerate(content.items()):
            if there is None:
                generated[view], own = self._denoise_view(view, start, condition)
                loss = loss + own
            elif len(rows := there[:, k].nonzero()[:, 0]):
                found, own = self._denoise_view(view, F.embedding(rows, start), F.embedding(rows, condition))
                generated[view] = unit_rows(start).index_copy(0, rows, found)
                loss = loss + own
            else:
                generated[view] = unit_rows(start)
        return generated, loss

    def _denoise_view(self, view: str, start: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        denoiser: Any = self.denoisers[view]
        if self.training:
            found: tuple[Tensor, Tensor] = denoiser.estimate(start, condition)
            return found
        blocks = zip(start.split(EVAL_BLOCK), condition.split(EVAL_BLOCK), strict=True)
        how = self.options.generation, self.options.generation_start, self.options.generation_steps
        return torch.cat([denoiser.generate(x, c, *how) for x, c in blocks]), start.new_zeros(())

    def fuse(
        self,
        interaction: Tensor,
        content: Mapping[str, Tensor],
        generated: Mapping[str, Tensor],
        there: Tensor | None = None,
    ) -> Tensor:
        """One representation of nodes from their interaction and content views [B, D].

        gate: z = h + g c with c the element-wise product of the content and g = sigmoid(cos(h, c) / tau + b) (Eq. 10); c is
        brought to the length of h, so that the gate compares directions and the residual keeps its weight.
        preference: z = h + mean_m sigmoid(P_m h) * c_m; with `generated_in: gates` P_m takes the generated content.
        softmax: z = [h + sum_k w_k x_k ; c_1 ; c_2], w the softmax of the products <h, c_1>, <h, c_2>, <c_1, c_2> over tau
        as weights of x = h, c_1, c_2 (the released code). concat: z = [h ; c_1 ; ...]. interaction: z = h.
        Products and means are over the views that a node has by `there` (bool [B, V]); the rows of others are zeros.
        """
        fusion = self.options.fusion
        parts = list(content.values())
        if fusion == "gate":
            product = F.normalize(product_of_present(parts, there), dim=1)
            similarity = (F.normalize(interaction, dim=1) * product).sum(dim=1, keepdim=True)
            gate = torch.sigmoid(similarity / self.log_fusion_temperature.exp() + self.gate_bias)
            return interaction + gate * product * interaction.norm(dim=1, keepdim=True)
        if fusion == "preference":
            by_generated = self.options.generated_in == "gates" and bool(generated)
            preferences = [self.preferences[v](generated[v] if by_generated else interaction) for v in content]
            side = sum(torch.sigmoid(p) * x for p, x in zip(preferences, parts, strict=True))
            return interaction + side / (len(parts) if there is None else there.sum(dim=1, keepdim=True).clamp(min=1))
        if fusion == "softmax":
            views = [interaction, *parts]
            products = torch.stack([(a * b).sum(dim=1) for a, b in itertools.combinations(views, 2)], dim=1)
            weights = torch.softmax(products / self.log_fusion_temperature.exp(), dim=1)  # [B, 3]
            mixed = sum(weights[:, k : k + 1] * view for k, view in enumerate(views))
            return torch.cat([interaction + mixed, *parts], dim=1)
        return torch.cat([interaction, *parts], dim=1) if fusion == "concat" else interaction

    def _there(self, nodes: Tensor | None) -> Tensor | None:
        """Which views nodes [B] (None: all) have, bool [B, V]; None where nothing is missing."""
        return self.present if self.present is None or nodes is None else self.present[nodes]

    def _fused_there(self, nodes: Tensor | None) -> Tensor | None:
        """Which views of nodes [B] are fused: `gated` ones for all, if anything has them."""
        there = self._there(nodes)
        return there if there is None or not self.gated else self.present_at_all.expand_as(there)

    def join(
        self, nodes: Tensor | None, interaction: Tensor, content: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Content for fusion and generated content of nodes [B] (None: all), given the views of the same, and the loss."""
        options = self.options
        if options.denoising != "after":
            return dict(content), {}, interaction.new_zeros(())
        condition = interaction
        if options.condition == "ego":
            ego = torch.cat([self.user_embedding, self.item_embedding])
            condition = ego if nodes is None else F.embedding(nodes, ego)
        generated, loss = self._denoise(content, condition, self._there(nodes))
        return generated if options.generated_in == "all" else dict(content), generated, loss

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        options = self.options
        place = torch.stack([batch[0], batch[1] + self.n_users, batch[2] + self.n_users])
        if options.final_item_k or options.final_user_k:
            nodes = torch.arange(self.n_users + self.n_items, device=batch.device)  # neighbours are fused, too
        else:
            nodes, place = place.unique(return_inverse=True)
        graph = self.left_out(self.graph, *batch[:2]) if options.leave_out else self.graph
        whole, views, before = self.encode(graph)
        interaction = F.embedding(nodes, whole)
        content = {view: F.embedding(nodes, x) for view, x in views.items()}
        fused_content, generated, after = self.join(nodes, interaction, content)
        fused = self._smooth(self.fuse(interaction, fused_content, generated, self._fused_there(nodes)))
        user, pos, neg = F.embedding(place, fused)
        aligned = generated if generated and options.generated_in in ("all", "alignment") else content
        ego = batch_rows(batch, self.user_embedding, self.item_embedding)
        scores = [(user * item).sum(1) for item in (pos, neg)]
        terms = {"bpr": bpr_loss(*scores)}
        if options.denoising != "off":
            terms["generation"] = options.diff_weight * (before + after)
        if options.alignment != "off":
            weight: float | Tensor = options.tc_weight
            if options.tc_scaled:
                # A contrast of cosines pulls the harder the shorter its rows are, and BPR the weaker.
                weight = weight * interaction.detach().square().sum(dim=1).mean()
            terms["alignment"] = weight * self._align(interaction, aligned, place, self._there(nodes))
        return terms | {"reg": options.reg_weight * half_squared_l2_over_batch(*ego)}

    def _smooth(self, fused: Tensor) -> Tensor:
        """`fused` of all nodes plus its smoothing over the final item and user graphs, where there are any."""
        if not (self.options.final_item_k or self.options.final_user_k):
            return fused
        users, items = fused.split([self.n_users, self.n_items])
        if self.options.final_item_k:
            items = items + self.final_items(items)
        if self.options.final_user_k:
            users = users + self.final_users(users)
        return torch.cat([users, items])

    def _align(self, interaction: Tensor, content: Mapping[str, Tensor], place: Tensor, there: Tensor | None) -> Tensor:
        """The alignment loss of the batch's users and positive items: the mean over the kinds that are aligned.

        Nodes that by `there` (bool [B, V]) have no content view, or with `modalities` not each of them, are left out.
        """
        options = self.options
        kinds = {"users": place[:1], "items": place[1:2], "both": place[:2]}[options.tc_nodes]
        if options.aligned_views == "mean":
            if (
                there is not None
            ):  # lengths do not count: with zeros for the others this is the mean over the views present
                content = {view: x * there[:, k : k + 1] for k, (view, x) in enumerate(content.items())}
            views = [interaction, torch.stack([*content.values()]).mean(dim=0)]
            whole = None if there is None else there.any(dim=1)
        else:
            views = [interaction, *(content[modality] for modality in self.modalities)]
            whole = None if there is None else there[:, : len(self.modalities)].all(dim=1)
        scale = self.log_scale.exp().clamp(max=MAX_SCALE)
        losses = []
        for kind in kinds:
            rows = kind.unique()
            rows = at_most(rows if whole is None else rows[whole[rows]], options.tc_batch)
            if not len(rows):
                continue
            own = [F.embedding(rows, view) for view in views]
            if options.alignment == "pairwise":
                pairs = [info_nce(a, b, scale) for a, b in itertools.combinations(own, 2)]
                losses.append(torch.stack(pairs).mean())
            elif options.tc_order and len(own) > 2:
                losses.append(total_correlation(*expanded(own, options.tc_order, scale)))
            else:
                losses.append(total_correlation(own, scale))
        return torch.stack(losses).mean() if losses else interaction.new_zeros(())

    def forward(self) -> tuple[Tensor, Tensor]:
        interaction, content, _ = self.encode()
        fused_content, generated, _ = self.join(None, interaction, content)
        fused = self._smooth(self.fuse(interaction, fused_content, generated, self._fused_there(None)))
        users, items = fused.split([self.n_users, self.n_items])
        return users, items

    def modality_embeddings(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Interaction and content embeddings of all nodes as fusion has them, generated ones at the scale of the encoded."""
        interaction, content, _ = self.encode()
        used = self._kept(self.join(None, interaction, content)[0])
        found = {"id": interaction}
        for modality in self.modalities:
            x = used[modality]
            generated = self.options.denoising == "after" and self.options.generated_in == "all"
            found[modality] = x * root_mean_square(content[modality]) if generated else x
        return {name: (x[: self.n_users], x[self.n_users :]) for name, x in found.items()}


def expanded(views: list[Tensor], order: float, scale: Tensor) -> tuple[list[Tensor], Tensor]:
    """Views and scale with which the multilinear product also holds the products of fewer views.

    With u rows of zero mean and unit mean square, prod_m (1 + r u^m) = 1 + r sum u^m + r^2 sum u^m u^n + r^3 ...: summed
    over coordinates and divided by r^2 D the linear part is 0, and beside the cosines of all pairs stands
    r sqrt(D) times the product of three unit vectors. `total_correlation` takes unit rows, whose scale is made up for here.

    Args:
        views: M >= 3 tensors [B, D].
        order: r > 0.
        scale: inverse temperature of the cosines.
    """
    shifted = []
    for view in views:
        centred = view - view.mean(dim=1, keepdim=True)
        shifted.append(1 + order * centred / root_mean_square(centred))
    # Rows of unit length are shifted / sqrt(D (1 + r^2)), and total_correlation multiplies by D^((M-2)/2).
    return shifted, scale * (1 + order**2) ** (len(views) / 2) / order**2


def product_of_present(views: list[Tensor], there: Tensor | None) -> Tensor:
    """The element-wise product of the views [B, D] that a node has by `there` (bool [B, V]); zeros where it has none."""
    if there is None:
        return reduce(torch.mul, views)
    product = reduce(torch.mul, [x.masked_fill(~there[:, k : k + 1], 1) for k, x in enumerate(views)])
    return product * there.any(dim=1, keepdim=True)


def at_most(rows: Tensor, n: int) -> Tensor:
    """`rows`, or n of them drawn at random where there are more."""
    return rows if len(rows) <= n else rows[torch.randperm(len(rows))[:n].to(rows.device)]
