"""The LightGCN encoder that self-supervised model files written for MMRec import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.graph import bipartite_adjacency, normalize_symmetric
from common.precision import single_precision


class LightGCN_Encoder(nn.Module):
    """LightGCN whose every training pass drops a random share of the graph's entries.

    The share r is drawn uniformly from [0, 1) for each pass, each stored entry of D^-1/2 A D^-1/2 is kept on its own with
    probability 1 - r and divided by 1 - r; all layers of the pass share the mask.

    Args:
        config: `embedding_size` D and `n_layers` are read.
        dataset: the training data.

    Source: Zhou et al., SelfCF (ACM TORS 2023), whose released encoder this describes.
    """

    indices: Tensor  # [2, E]
    values: Tensor  # [E]

    def __init__(self, config: Mapping[str, Any], dataset: Any) -> None:
        super().__init__()
        self.n_users, self.n_items = dataset.dataset.get_user_num(), dataset.dataset.get_item_num()
        self.n_layers = config["n_layers"]
        width = config["embedding_size"]
        self.embedding_dict = nn.ParameterDict(
            {
                "user_emb": nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.n_users, width))),
                "item_emb": nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.n_items, width))),
            }
        )
        train = dataset.inter_matrix(form="coo")
        users, items = train.row.astype(np.int64), train.col.astype(np.int64)
        graph = normalize_symmetric(bipartite_adjacency(users, items, self.n_users, self.n_items)).tocoo()
        indices = torch.from_numpy(np.stack([graph.row, graph.col]).astype(np.int64))
        self.register_buffer("indices", indices, persistent=False)
        self.register_buffer("values", torch.from_numpy(graph.data.astype(np.float32)), persistent=False)

    def forward(self, inputs: Any, items: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Rows [B, D] of users and items, given as one batch (users first, items second) or as two vectors [B]."""
        users, items = (inputs[0], inputs[1]) if items is None else (inputs, items)
        all_users, all_items = self._propagate(drop=self.training)
        return all_users[users], all_items[items]

    @torch.no_grad()
    def get_embedding(self) -> tuple[Tensor, Tensor]:
        """Users [U, D] and items [I, D] from the whole graph, without a gradient."""
        return self._propagate(drop=False)

    @single_precision
    def _propagate(self, drop: bool) -> tuple[Tensor, Tensor]:
        indices, values = self.indices, self.values
        if drop:
            share = torch.rand(())
            kept = (torch.rand(len(values)) >= share).to(values.device)
            indices, values = indices[:, kept], values[kept] / (1 - share.to(values.device))
        n = self.n_users + self.n_items
        graph = torch.sparse_coo_tensor(indices, values, (n, n), check_invariants=False)
        layer = torch.cat([self.embedding_dict["user_emb"], self.embedding_dict["item_emb"]])
        layers: Sequence[Tensor] = [layer]
        for _ in range(self.n_layers):
            layer = torch.sparse.mm(graph, layer)
            layers = [*layers, layer]
        users, items = torch.stack(list(layers)).mean(dim=0).split([self.n_users, self.n_items])
        return users, items
