"""DGMRec: each modality is split into a general and a specific part; both are generated for items that lack it.

M_i and M_u are the means over a node's training neighbours, A_m the item graph of modality m, n = `n_mm_layers`, s the
logistic function, pi the noise of common/perturbation.py. Ids: C = mean of layers 0..n_ui_layers of LightGCN. Content:
g_m = s(Shared tanh(Enc_m F_m)), s_m = s(Spec_m F_m), filtered by q_m = M_i tanh(E_U W_m), items G_m = A_m^n (q_m * g_m),
S_m = A_m^n (q_m * s_m), users M_u G_m and M_u S_m. Z = C + (mean_m G_m + sum_m S_m) / (M + 1), scores are dot products.
A_m: cosines of the raw features to the `knn_k` nearest; items that lack m are cut out and have themselves alone.
Loss: mean of -log sigmoid(s_ui - s_uj); InfoNCE between the modalities' g of the batch's items and between their G of its
users (inter); of users and positives in C, in sum_m G_m and in each S_m (intra); of C and sum_m G_m (behaviour); CLUB's
bound of what S_m tells of G_m (club); mean squared error of Dec_m(pi([G_m | S_m])), constant input, to F_m
(reconstruction); norms of the batch's rows of C, and of its positives' G_m + S_m.

Where items lack a modality: s_m ~ Gen_m(pi(q_m)) and G_m ~ T_m(pi(G of the others)) are learned where there is something to
compare with (generation). Before each epoch F_m = Dec_m(pi([A_m^n T_m(g of the others) | A_m^n Gen_m(q_m)])) for items
that lack m alone. After every fifth epoch the rows of A_m of the items that lack m become `graph_blend` times those of the
graph of the features as they are now, plus the rest of what they were.

Source: Kim et al., "Disentangling and Generating Modalities for Recommendation in Missing Modality Scenarios", SIGIR 2025
(arXiv 2504.16352), in the form of the authors' main branch.

Differs from the released code: any number of modalities and any mask (there lists of ids); scores of a set with missing
items use the refreshed graphs, as in the SIGIR branch (`inference_graphs`); empty sets of complete items and rows
without a positive sum are guarded; items of the test alone ("new items") are not treated apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.abstract_recommender import GeneralRecommender
from common.changing_graph import ChangingMatrix, blend_rows
from common.contrast import pair_contrast, row_contrast
from common.features import imputed, view_presence, with_lone_items, without_fills
from common.graph import row_means
from common.initial import xavier_uniform_embedding, xavier_uniform_linear
from common.losses import frobenius_over_batch, linear_mean_square, log_sigmoid_bpr_loss
from common.mutual_information import ClubEstimator
from common.neighbours import cosine_graph, normalize_by_row_sums, weighted_graph_of
from common.perturbation import perturbed
from common.sparse import SparseMatrix
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset

CLUB_STEPS, CLUB_ROWS = 5, 2048  # of the estimators' fit before each epoch
REFRESH_EVERY = 5  # epochs between two refreshments of the item graphs


@dataclass(frozen=True)
class DGMRecConfig:
    """Keys of DGMRec; values in configs/model/DGMRec.yaml."""

    embedding_size: int = setting("width D of the embeddings", low=1)
    n_ui_layers: int = setting("depth of the propagation of ids", low=0)
    n_mm_layers: int = setting("depth n of the propagation over the item graphs", low=0)
    knn_k: int = setting("neighbours of an item in an item graph, itself among them", low=1)
    inter_weight: float = setting("weight of the contrast between modalities", low=0, alias=("interModal",))
    inter_temperature: float = setting("its temperature, and that of G in intra", above=0, alias=("interModalTemp",))
    intra_weight: float = setting("weight of the contrast of users and items", low=0, alias=("intraModal",))
    intra_temperature: float = setting("its temperature", above=0, alias=("intraModalTemp",))
    behaviour_weight: float = setting("weight of the contrast of ids and G", low=0, alias=("alignBM",))
    behaviour_temperature: float = setting("its temperature", above=0, alias=("alignBMTemp",))
    club_weight: float = setting("weight of the bound of mutual information", low=0, alias=("sampler",))
    reconstruction_weight: float = setting("weight of the error of the decoded features", low=0, alias=("recon",))
    generation_weight: float = setting("weight of the errors of generated parts", low=0, alias=("additive",))
    graph_blend: float = setting(
        "share of new rows in the item graphs of items that lack a modality", low=0, high=1, alias=("avg_lambda",)
    )
    imputation: str = setting("features of an item that lacks them, at first", choices=("mean", "zero"))
    inference_graphs: str = setting("item graphs of an evaluation", choices=("refreshed", "initial"))
    reg_weight: float = setting("weight of the norms of ids", low=0)
    content_reg_weight: float = setting("weight of the norms of items' content", low=0, alias=("reg",))
    train_features: bool = setting("train the raw features too: 16 bytes for each number")


class Views(NamedTuple):
    """What losses and scores need of n nodes: C [n, D], G_m and S_m as [n, M, D]."""

    ids: Tensor
    general: Tensor
    specific: Tensor

    def fused(self) -> Tensor:
        """Z [n, D]."""
        return self.ids + (self.general.mean(1) + self.specific.sum(1)) / (self.general.shape[1] + 1)


class Content(NamedTuple):
    """Of all items: g_m, s_m and q_m [I, D] of each modality, and propagated G_m and S_m in turn [I, M, 2, D]."""

    general: list[Tensor]
    specific: list[Tensor]
    filters: list[Tensor]
    propagated: Tensor


class DGMRec(GeneralRecommender):
    """Disentangled general and specific parts of modalities, generated where they are missing."""

    settings = DGMRecConfig
    needs_features = True
    present: Tensor | None  # bool [I, M]: which item has which modality; None: all have all
    epochs_begun: Tensor  # int64 scalar
    encoders: Any  # modality to nn.Linear, as are the next two
    specific_encoders: Any
    decoders: Any
    clubs: Any  # modality to ClubEstimator
    item_graphs: Any  # modality to SparseMatrix, or ChangingMatrix where items lack it

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        options: DGMRecConfig = fill(DGMRecConfig, config)
        dataset = imputed(dataset) if options.imputation == "mean" else without_fills(dataset)
        super().__init__(config, dataset)
        self.options = options
        width = self.embedding_size
        self.user_embedding = xavier_uniform_embedding(self.n_users, width)
        self.item_embedding = xavier_uniform_embedding(self.n_items, width)
        self.graph = self.interaction_graph(dataset)
        history = dataset.inter_matrix("csr")
        self.of_items, self.of_users = SparseMatrix(row_means(history)), SparseMatrix(row_means(history.T.tocsr()))
        present = view_presence(dataset, {m: [m] for m in self.modalities})
        present = None if present is None else present[self.n_users :]
        self.register_buffer("present", present, persistent=False)
        self.shared = xavier_uniform_linear(width, width)
        self.encoders, self.specific_encoders, self.filters, self.decoders = (nn.ModuleDict() for _ in range(4))
        self.generators, self.translators, self.clubs = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        self.item_graphs, self.initial_graphs = nn.ModuleDict(), nn.ModuleDict()
        for m in self.modalities:
            n_features = self.features(m).shape[1]
            self.encoders[m] = xavier_uniform_linear(n_features, width)
            self.specific_encoders[m] = xavier_uniform_linear(n_features, width)
            self.filters[m] = xavier_uniform_linear(width, width, bias=False)
            self.decoders[m] = xavier_uniform_linear(2 * width, n_features)
            if options.club_weight:
                self.clubs[m] = ClubEstimator(width, width // 2)
            graph = with_lone_items(cosine_graph(dataset, m, options.knn_k), dataset.present.get(m))
            changes = m in dataset.present
            self.item_graphs[m] = (ChangingMatrix if changes else SparseMatrix)(normalize_by_row_sums(graph))
            if changes and options.inference_graphs == "initial":
                self.initial_graphs[m] = SparseMatrix(normalize_by_row_sums(graph))
            if present is not None and len(self.modalities) > 1:
                self.generators[m] = two_layers(width, width)
                self.translators[m] = two_layers((len(self.modalities) - 1) * width, width)
            if changes and not options.train_features:  # generated rows are part of the state
                self.register_buffer(f"features_{m}", self.features(m))
        if present is not None:
            self.register_buffer("epochs_begun", torch.zeros((), dtype=torch.int64))

    # What happens between epochs

    @torch.no_grad()
    def pre_epoch_processing(self) -> None:
        """Fits the estimators; generates what is missing, and from time to time refreshes the item graphs."""
        if self.present is None and not self.clubs:
            return
        general, specific = zip(*map(self._parts, self.modalities), strict=True)
        for club, g, s in zip(self.clubs.values(), general, specific, strict=False):  # there may be no estimators
            for _ in range(CLUB_STEPS):
                rows = torch.randperm(self.n_items)[:CLUB_ROWS].to(g.device)
                club.fit_step(s[rows], g[rows])
        if self.present is None:
            return
        if self.generators:
            self._generate(list(general))
        if self.options.graph_blend and self.epochs_begun and self.epochs_begun % REFRESH_EVERY == 0:
            self._refresh()
        self.epochs_begun += 1

    def _generate(self, general: list[Tensor]) -> None:
        """Writes features of the items that lack one modality alone."""
        assert self.present is not None
        others_present = self.present.sum(1) == len(self.modalities) - 1
        made = {}
        for place, (m, q) in enumerate(zip(self.modalities, self._filters(), strict=True)):
            translated = self.translators[m](torch.cat(general[:place] + general[place + 1 :], dim=1))
            parts = self._propagated(m, torch.cat([translated, self.generators[m](q)], dim=1))
            rows = (others_present & ~self.present[:, place]).nonzero().squeeze(1)
            made[m] = rows, self.decoders[m](perturbed(parts[rows]))
        for m, (rows, features) in made.items():
            self.features(m)[rows] = features

    def _refresh(self) -> None:
        """Blends the rows of the items that lack a modality with those of the graph of the features as they are."""
        assert self.present is not None
        for place, m in enumerate(self.modalities):
            lacking = ~self.present[:, place].cpu().numpy()
            if lacking.any():
                graph = weighted_graph_of(self.features(m).detach(), self.options.knn_k)
                old = self.item_graphs[m].entries()
                self.item_graphs[m].replace(blend_rows(old, graph, lacking, self.options.graph_blend))

    # Embeddings

    def _parts(self, m: str) -> tuple[Tensor, Tensor]:
        """g_m and s_m [I, D]; the features are read once."""
        first, second = self.encoders[m], self.specific_encoders[m]
        weight, bias = torch.cat([first.weight, second.weight]), torch.cat([first.bias, second.bias])
        general, specific = F.linear(self.features(m), weight, bias).chunk(2, dim=1)
        return torch.sigmoid(self.shared(torch.tanh(general))), torch.sigmoid(specific)

    def _filters(self) -> list[Tensor]:
        """q_m [I, D] of each modality, in one product."""
        users = torch.cat([torch.tanh(layer(self.user_embedding)) for layer in self.filters.values()], dim=1)
        return list(self.of_users(users).chunk(len(self.filters), dim=1))

    def _propagated(self, m: str, x: Tensor) -> Tensor:
        """A_m^n x for x [I, *]."""
        graph = self.item_graphs[m]
        if not self.training and m in self.initial_graphs:
            graph = self.initial_graphs[m]
        for _ in range(self.options.n_mm_layers):
            x = graph(x)
        return x

    def encode(self, users: Tensor | None = None, items: Tensor | None = None) -> tuple[Views, Views, Content]:
        """Views of the users and items int64 [n], of all where None, and what is known of all items."""
        ids = self.graph.propagate_mean(torch.cat([self.user_embedding, self.item_embedding]), self.options.n_ui_layers)
        filters = self._filters()
        general, specific = (list(kind) for kind in zip(*map(self._parts, self.modalities), strict=True))
        of_items = [
            self._propagated(m, torch.cat([q * g, q * s], dim=1))
            for m, q, g, s in zip(self.modalities, filters, general, specific, strict=True)
        ]
        joined = torch.cat(of_items, dim=1)  # [I, 2 M D]
        views = []
        for kept, own, content in zip(
            (users, items), ids.split([self.n_users, self.n_items]), (self.of_items(joined), joined), strict=True
        ):
            if kept is not None:
                own, content = F.embedding(kept, own), F.embedding(kept, content)
            views.append(Views(own, *content.view(len(own), -1, 2, self.embedding_size).unbind(2)))
        propagated = joined.view(self.n_items, -1, 2, self.embedding_size)
        return views[0], views[1], Content(general, specific, filters, propagated)

    def forward(self) -> tuple[Tensor, Tensor]:
        users, items, _ = self.encode()
        return users.fused(), items.fused()

    # Losses

    def calculate_loss(self, batch: Tensor) -> dict[str, Tensor]:
        options = self.options
        user_ids, at_users, n_users = batch[0].unique(return_inverse=True, return_counts=True)
        distinct, at_items = batch[1:].unique(return_inverse=True)
        pos_places, at_pos, n_pos = at_items[0].unique(return_inverse=True, return_counts=True)
        users, items, content = self.encode(user_ids, distinct)
        rows = [
            F.embedding(at, kind.fused()) for at, kind in zip((at_users, *at_items), (users, items, items), strict=True)
        ]
        terms = {"bpr": log_sigmoid_bpr_loss((rows[0] * rows[1]).sum(1), (rows[0] * rows[2]).sum(1))}
        pos = Views(*(view.index_select(0, pos_places) for view in items))
        has_all = None if self.present is None else self.present.all(1)[distinct]
        complete = distinct if has_all is None else distinct[has_all]
        if options.inter_weight and len(self.modalities) > 1:
            of_complete = [F.embedding(complete, view) for view in content.general]
            inter = contrasts(itertools.combinations(of_complete, 2), options.inter_temperature)
            pairs = itertools.combinations(users.general.unbind(1), 2)
            terms["inter"] = options.inter_weight * (inter + contrasts(pairs, options.inter_temperature, n_users))
        joint = [kind.general.sum(1) for kind in (users, pos)]  # G
        if options.intra_weight:
            places = torch.stack([at_users, at_pos])
            views = [(users.ids, pos.ids), *zip(users.specific.unbind(1), pos.specific.unbind(1), strict=True)]
            intra = [pair_contrast(own, other, places, options.intra_temperature) for own, other in views]
            intra.append(pair_contrast(joint[0], joint[1], places, options.inter_temperature))  # as released
            terms["intra"] = options.intra_weight * torch.stack(intra).sum()
        if options.behaviour_weight:
            behaviour = [
                row_contrast(kind.ids, own, options.behaviour_temperature, counts)
                for kind, own, counts in zip((users, pos), joint, (n_users, n_pos), strict=True)
            ]
            terms["behaviour"] = options.behaviour_weight * torch.stack(behaviour).sum()
        of_all = dict(zip(self.modalities, content.propagated.unbind(1), strict=True))  # G_m and S_m as [I, 2, D]
        if options.club_weight:
            bounds = [self.clubs[m].bound(x[:, 1], x[:, 0], self._order()) for m, x in of_all.items()]
            terms["club"] = options.club_weight * torch.stack(bounds).sum()
        if options.reconstruction_weight:
            errors = []
            for m, x in of_all.items():
                decoder, parts = self.decoders[m], perturbed(x.detach().flatten(1))
                errors.append(linear_mean_square(parts, decoder.weight, decoder.bias, self.features(m)))
            terms["reconstruction"] = options.reconstruction_weight * torch.stack(errors).sum()
        if self.generators:
            assert has_all is not None
            wanted = [view[has_all] for view in items.general.unbind(1)]
            terms["generation"] = options.generation_weight * self._generation_loss(content, distinct, wanted)
        sums = (items.general + items.specific).unbind(1)
        norms = [frobenius_over_batch(F.embedding(at_items[0], view)) for view in sums]
        ids = [F.embedding(at, kind.ids) for at, kind in zip((at_users, *at_items), (users, items, items), strict=True)]
        reg = options.reg_weight * frobenius_over_batch(*ids) + options.content_reg_weight * torch.stack(norms).sum()
        return terms | {"reg": reg}

    def _order(self) -> Tensor:
        return torch.randperm(self.n_items).to(self.device)

    def _generation_loss(self, content: Content, distinct: Tensor, general: list[Tensor]) -> Tensor:
        """Errors of the generated s_m, for items that have m, and of the translated G_m, for those that have all."""
        assert self.present is not None
        errors = []
        for place, m in enumerate(self.modalities):
            own = distinct[self.present[distinct, place]]
            made = self.generators[m](perturbed(F.embedding(own, content.filters[place])))
            errors.append(mean_square(F.embedding(own, content.specific[place]) - made))
            others = [perturbed(view) for view in general[:place] + general[place + 1 :]]
            errors.append(mean_square(general[place] - self.translators[m](torch.cat(others, dim=1))))
        return torch.stack(errors).sum()

    def modality_embeddings(self) -> dict[str, tuple[Tensor, Tensor]]:
        """C, and G_m + S_m of each modality."""
        kinds = [[kind.ids, *(kind.general + kind.specific).unbind(1)] for kind in self.encode()[:2]]
        return dict(zip(["id", *self.modalities], zip(*kinds, strict=True), strict=True))


def two_layers(inputs: int, width: int) -> nn.Sequential:
    """Linear, tanh, linear with Xavier uniform weights."""
    return nn.Sequential(xavier_uniform_linear(inputs, width), nn.Tanh(), xavier_uniform_linear(width, width))


def contrasts(pairs: Iterable[tuple[Tensor, Tensor]], temperature: float, counts: Tensor | None = None) -> Tensor:
    """The sum of one-directional InfoNCE over pairs of views [B, D]; 0 for views without rows."""
    losses = [row_contrast(one, other, temperature, counts) if len(one) else one.sum() for one, other in pairs]
    return torch.stack(losses).sum()


def mean_square(difference: Tensor) -> Tensor:
    """Mean of the squares of all entries; 0 where there are none."""
    return difference.float().square().sum() / max(difference.numel(), 1)
