"""Users' preferences beside projected content, as the field's user-graph models encode a modality."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.initial import xavier_normal_embedding


class PreferencesAndContent(nn.Module):
    """Rows of unit length for all nodes in one modality: users' free preferences, items' projected content features.

    X = rownorm([P ; LReLU(F W_1 + b_1) W_2 + b_2]) with slope 0.01; P is Xavier normal, the layers have PyTorch's own start.

    Args:
        n_users: U.
        n_features: width F of the features.
        width: D.
        hidden: width between the two layers.

    Source: the start of MMGCN's successors, DualGNN and DRAGON (arXiv 2301.12097).
    """

    dense_methods = ("forward",)

    def __init__(self, n_users: int, n_features: int, width: int, hidden: int = 256) -> None:
        super().__init__()
        self.preference = xavier_normal_embedding(n_users, width)
        self.first = nn.Linear(n_features, hidden)
        self.second = nn.Linear(hidden, width)

    def project(self, features: Tensor) -> Tensor:
        """Projected content [I, D], rows of any length, for features [I, F]."""
        items: Tensor = self.second(F.leaky_relu(self.first(features)))
        return items

    def forward(self, features: Tensor) -> Tensor:
        """[U + I, D], users first, for features [I, F]."""
        return F.normalize(torch.cat([self.preference, self.project(features)]), dim=1)
