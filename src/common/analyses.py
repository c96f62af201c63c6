"""What a model's modalities are doing, measured after each evaluation: their balance and their dot products.

Both are taken over users of the validation split, since nothing may look at the test split while a model trains; the
paper measures balance on its test users. Nothing is drawn and no weight is touched: a run is the same with and without.

Source: research questions 4 and 5 of the GTC paper (arXiv 2604.03014).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.data.dataset import Split

Embeddings = tuple[Tensor, Tensor]  # users [U, D] and items [I, D]


def modality_balance(fused: Tensor, views: Sequence[Tensor]) -> Tensor:
    """Mean over users of 1 - (max_m c_um - min_m c_um), c_um = cos(z_u, h_u^m): 1 is even, lower is less balanced.

    Args:
        fused: z, final embeddings of some users [B, D].
        views: h^m, their embeddings in each modality, [B, D] each.
    """
    cosines = torch.stack([F.cosine_similarity(fused, view, dim=1) for view in views])  # [M, B]
    return (1 - (cosines.amax(dim=0) - cosines.amin(dim=0))).mean()


def mean_dot_product(users: Tensor, items: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Mean over users of the mean of <x_u, y_i> over the user's pairs.

    Args:
        users: x [U, D].
        items: y [I, D].
        rows, columns: pairs, int64 [P] each; a user without a pair does not count.
    """
    products = (F.embedding(rows, users) * F.embedding(columns, items)).sum(dim=1)
    _, place, counts = rows.unique(return_inverse=True, return_counts=True)
    return torch.zeros_like(counts, dtype=products.dtype).index_add_(0, place, products).div(counts).mean()


class Analyses:
    """Columns of history.csv that tell of a model's modalities.

    `balance` compares the users' final embedding with theirs in every modality that `modality_embeddings` gives, id among
    them; only a model whose final embedding is as wide as those has it.
    `dot_<modality>` is <z_u, h_i^m> over validation interactions, z_u the user's final embedding; where that has another
    width (modalities side by side), z_u is the user's embedding in modality m, which is its part in the score.

    Args:
        names: balance, dot_products.
        valid: the validation split.
    """

    def __init__(self, names: Sequence[str], valid: Split) -> None:
        self.names, self.valid = names, valid
        self.note = ""  # why a column is not there

    def __call__(self, model: Any) -> dict[str, float]:
        """The columns of a model as it is."""
        with model.scoring():
            views: Mapping[str, Embeddings] = model.modality_embeddings()
            if not views:
                self.note = f"analyses: {type(model).__name__} tells no embeddings by modality"
                return {}
            fused, _ = model()
            columns: dict[str, float] = {}
            if "balance" in self.names:
                columns |= self._balance(fused, views, type(model).__name__)
            if "dot_products" in self.names:
                rows, items = (torch.from_numpy(ids).to(fused.device) for ids in (self.valid.users, self.valid.items))
                for name, (of_users, of_items) in views.items():
                    users = fused if fused.shape[1] == of_items.shape[1] else of_users
                    columns[f"dot_{name}"] = mean_dot_product(users, of_items, rows, items).item()
        return columns

    def _balance(self, fused: Tensor, views: Mapping[str, Embeddings], name: str) -> dict[str, float]:
        users = torch.from_numpy(np.unique(self.valid.users)).to(fused.device)
        chosen = [of_users for of_users, _ in views.values()]
        if len(chosen) < 2:
            self.note = f"analyses: {name} has one modality here: there is no balance"
        elif any(view.shape[1] != fused.shape[1] for view in chosen):
            self.note = f"analyses: the final embedding of {name} has another width than its modalities: no balance"
        else:
            return {"balance": modality_balance(fused[users], [view[users] for view in chosen]).item()}
        return {}
