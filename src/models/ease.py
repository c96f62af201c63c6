"""EASE: one linear map from a user's items to scores of all items, by ridge regression with a diagonal of zeros.

S = X B, where B minimises |X - X B|^2 + lambda |B|^2 subject to diag(B) = 0 and X is the training matrix. In closed form
B = I - P diag(1 / diag P), P = (X^T X + lambda I)^-1: b_ij = -p_ij / p_jj off the diagonal.

Source: Steck, "Embarrassingly shallow autoencoders for sparse data", WWW 2019 (arXiv 1905.03375).

Differs from the released code: inverted by a Cholesky factorisation (the matrix is positive definite), in float64; kept
in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.abstract_recommender import GeneralRecommender
from common.neighbours import SparseRows
from common.sparse import sparse_product
from utils.config.schema import fill, setting
from utils.data.dataset import Dataset


@dataclass(frozen=True)
class EASEConfig:
    """Keys of EASE; values in configs/model/EASE.yaml."""

    reg_weight: float = setting("weight lambda of the squared L2 penalty on the item weights", above=0)


class EASE(GeneralRecommender):
    """Linear autoencoder in closed form; items times items in memory."""

    settings = EASEConfig
    needs_training = False
    weights: Tensor  # B [I, I] float32

    def __init__(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.options: EASEConfig = fill(EASEConfig, config)
        interactions = dataset.inter_matrix("csr")
        self.histories = SparseRows(interactions)
        double = interactions.astype("float64")
        inverse = inverse_with_ridge(torch.from_numpy((double.T @ double).toarray()), self.options.reg_weight)
        weights = inverse.div_(-inverse.diagonal().clone()).float()  # column j by p_jj
        self.register_buffer("weights", weights.fill_diagonal_(0), persistent=False)

    @classmethod
    def memory_needed(cls, config: Mapping[str, Any], dataset: Dataset) -> dict[str, int]:
        return {"two float64 matrices of items times items for the inversion": 16 * dataset.n_items**2}

    def full_sort_predict(self, batch: Sequence[Tensor]) -> Tensor:
        return sparse_product(*self.histories.take(batch[0]), self.weights)


def inverse_with_ridge(gram: Tensor, ridge: float) -> Tensor:
    """(G + ridge I)^-1 for a Gram matrix G [I, I], which is changed."""
    gram.diagonal().add_(ridge)
    factor = torch.linalg.cholesky(gram)
    del gram  # not kept by the caller either: two matrices at a time
    return torch.cholesky_inverse(factor)
