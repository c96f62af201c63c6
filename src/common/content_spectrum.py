"""What the training interactions say of items through their content: singular vectors within reach of the content.

An item's row of content is made of the principal components of each modality that stand out of noise and, where several
modalities are given, the products of their components, one of each: what only the modalities together tell is linear in
these. K is ridge regression on those columns: K y is what content foretells of y. With R the interactions, the singular
vectors of D_u^-1/2 R D_i^-1/2 ((1 - s) I + s K) know content by the directions in which it tells of interactions, and
those directions only; s says how much of an item's vector content may stand for.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from torch import Tensor

from common.features import leading_directions, standardized_features
from common.spectral import FOLDS, NEGLIGIBLE, HeldOut, folds, held_out, normalized_interactions, unit_mean_square

if TYPE_CHECKING:
    from utils.data.dataset import Dataset

COMPONENTS = 256  # of a modality that are looked at
MOST_PRODUCTS = 1024  # columns
RIDGE = 0.03  # penalty over the number of items; columns have unit variance
SHARES = 0.25, 0.5, 0.75, 0.9  # that are tried; at 1 items would have no vector of their own
RANK = 32  # of the preferences that held-out interactions are foretold by
ENOUGH = 50_000  # held-out interactions: then the other folds are not looked at
CERTAIN = 1.0  # standard errors by which content alone must foretell better than interactions alone


@dataclass(frozen=True)
class ContentSpectrum:
    """Singular vectors times a power of their singular values, float32; a node without interactions has zeros.

    Args:
        users: [U, D], of unit mean square.
        own: [I, D], what the items' vectors have of their own interactions.
        told: [I, D], what content foretells of them. The sum of both has unit mean square.
    """

    users: Tensor
    own: Tensor
    told: Tensor


def content_spectrum(
    dataset: Dataset, modalities: Sequence[str], width: int, power: float, share: float, products: bool
) -> ContentSpectrum:
    """Leading singular vectors of D_u^-1/2 R D_i^-1/2 ((1 - s) I + s K), with K as above.

    Computed on the CPU with a fixed seed, whatever the device, and kept in the data set's cache. Where there are fewer
    than D the other columns are zeros. An item without any content has its own interactions with their full weight.

    Args:
        modalities: those whose content counts.
        width: D.
        power: of the singular values, at least 0.
        share: s, above 0 and below 1.
        products: whether the products of several modalities' components are among the content.

    Source: reduced-rank regression, Izenman, "Reduced-rank regression for the multivariate linear model" (1975).
    """

    def build() -> dict[str, NDArray[Any]]:
        matrix = normalized_interactions(dataset)
        content = Content(content_columns(dataset, modalities, products))
        users, _ = content.vectors(matrix, share, width)
        values = np.linalg.norm(users, axis=0)
        kept = values > NEGLIGIBLE * values.max(initial=0)
        users, values = users[:, kept], values[kept]
        # (1 - s) R^T u and s K R^T u: what items' vectors have of their own, and what content foretells.
        own, told = content.parts(matrix.T @ (users / values), share)
        whole = own + told
        # The sign of a singular vector is arbitrary: the largest entry is made positive, also where it has not converged.
        signs = np.where(whole[np.abs(whole).argmax(axis=0), np.arange(len(values))] < 0, -1, 1)
        weights = signs * values ** (power - 1)
        size = np.sqrt(np.mean(np.square(whole * weights)))
        sides = {"users": unit_mean_square(users * weights), "own": own * weights / size, "told": told * weights / size}
        return {name: _padded(side, width) for name, side in sides.items()}

    wanted = _inputs(dataset, modalities) | {"width": width, "power": power, "share": share, "products": products}
    arrays = dataset.derived("content-spectrum", 1, wanted, build)
    return ContentSpectrum(*(torch.from_numpy(arrays[name]) for name in ("users", "own", "told")))


def estimated_content_share(dataset: Dataset, modalities: Sequence[str]) -> tuple[float, bool]:
    """How much of the items' vectors content may stand for, and whether with products of modalities.

    Of held-out training interactions (u, i) it is asked how often <p_u, v_i> stands above <p_u, v_j> for an item j that u
    did not take, as popular as i in the mean; p and v are the singular vectors that the other interactions have under a
    share. Each interaction is held out once, in one of five folds, or until there are `ENOUGH`. The best of `SHARES`
    without and with products is taken where content alone foretells better than interactions alone by a standard error,
    else 0: where it only adds to them, they are learned better by themselves. Nothing but the training split is looked at.
    """

    def build() -> dict[str, NDArray[Any]]:
        splits = _splits(dataset)
        alone = np.concatenate([_foretold(split, *_vectors(split.matrix, RANK)) for split in splits])
        best, mean = (0.0, False), alone.mean() if len(alone) else 0.0
        for products in (False, True)[: len(modalities)]:
            columns = content_columns(dataset, modalities, products)
            if not columns.size:
                continue
            content = Content(columns)

            def under(share: float, content: Content = content) -> NDArray[np.float64]:
                vectors = [content.vectors(split.matrix, share, RANK) for split in splits]
                return np.concatenate([_foretold(split, *sides) for split, sides in zip(splits, vectors, strict=True)])

            gained = under(1.0) - alone
            if not len(gained) or gained.mean() <= CERTAIN * gained.std() / len(gained) ** 0.5:
                continue
            for share in SHARES:
                if (found := under(share).mean()) > mean:
                    best, mean = (share, products), found
        return {"share": np.array(best[0]), "products": np.array(best[1])}

    arrays = dataset.derived("content-share", 2, _inputs(dataset, modalities), build)
    return float(arrays["share"]), bool(arrays["products"])


def _splits(dataset: Dataset) -> list[HeldOut]:
    random = np.random.Generator(np.random.PCG64(0))
    fold = folds(dataset, random)
    splits: list[HeldOut] = []
    while len(splits) < FOLDS and sum(len(split.users) for split in splits) < ENOUGH:
        splits.append(held_out(dataset, fold == len(splits), random))
    return splits


def content_columns(dataset: Dataset, modalities: Sequence[str], products: bool) -> NDArray[np.float32]:
    """Columns of zero mean [I, C]: leading components of each modality, of unit variance, and their products.

    Components whose singular value is below the optimal threshold for white noise are left out. Of the products every
    one of several modalities' components is there, one of each modality, of as many leading ones as make at most
    `MOST_PRODUCTS` columns. An item that lacks a modality has zeros in the columns that need it.

    Source of the threshold: Gavish and Donoho, "The optimal hard threshold for singular values is 4/sqrt(3)" (2014).
    """
    parts: list[NDArray[np.float32]] = []
    there: list[NDArray[np.bool_]] = []
    for modality in modalities:
        features = standardized_features(dataset, modality, COMPONENTS).numpy()
        known = dataset.present.get(modality)
        present = np.ones(len(features), dtype=bool) if known is None else known
        if (components := _components(features, int(present.sum()))).size:
            parts.append(components)
            there.append(present)
    columns = list(parts)
    if products:
        sets = [s for size in range(2, len(parts) + 1) for s in itertools.combinations(range(len(parts)), size)]
        kept = max((k for k in range(MOST_PRODUCTS) if sum(k ** len(s) for s in sets) <= MOST_PRODUCTS), default=0)
        for chosen in sets if kept else []:
            product = reduce(_row_products, [parts[m][:, :kept] for m in chosen])
            with_all = reduce(np.logical_and, [there[m] for m in chosen])
            if with_all.any():
                columns.append((product - product[with_all].mean(axis=0)) * with_all[:, None])
    return np.concatenate(columns, axis=1) if columns else np.zeros((dataset.n_items, 0), np.float32)


class Content:
    """Ridge regression K = X (X^T X + RIDGE I_n)^-1 X^T on columns X [I, C], kept as Q with K = Q Q^T."""

    def __init__(self, columns: NDArray[np.float32]) -> None:
        gram = (columns.T @ columns).astype(np.float64)
        values, vectors = np.linalg.eigh(gram + RIDGE * len(columns) * np.eye(len(gram)))
        self.basis = columns @ (vectors / np.sqrt(values)).astype(np.float32)  # Q
        self.told_of = np.any(columns != 0, axis=1, keepdims=True)

    def parts(self, table: NDArray[np.floating], share: float) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """(1 - s) y and s K y of y [I, D]; y and 0 in the rows of items without content."""
        own = np.where(self.told_of, np.float32(1 - share), np.float32(1)) * table
        return own, np.float32(share) * (self.basis @ (self.basis.T @ table))

    def vectors(
        self, matrix: sp.csr_matrix, share: float, width: int
    ) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """As `_vectors` of `matrix` [U, I] times (1 - s) I + s K."""

        def smooth(table: NDArray[np.floating]) -> NDArray[np.floating]:
            own, told = self.parts(table, share)
            return own + told

        n = matrix.shape[1]
        smoothing = LinearOperator((n, n), smooth, smooth, smooth, np.float32, smooth)  # symmetric
        return _vectors(aslinearoperator(matrix) @ smoothing, width)


def _vectors(matrix: sp.csr_matrix | LinearOperator, width: int) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """The leading left and right singular vectors, each times their singular values: [U, k] and [I, k], k <= `width`."""
    items = leading_directions(matrix, width)
    users = matrix @ items
    return users, items * np.linalg.norm(users, axis=0)


def _foretold(split: HeldOut, preferences: NDArray[Any], vectors: NDArray[Any]) -> NDArray[np.float64]:
    """1 where the held-out item stands above the other, 1/2 where they are level, else 0: [P]."""
    gap = (preferences[split.users] * (vectors[split.items] - vectors[split.others])).sum(axis=1)
    return np.where(gap > 0, 1.0, np.where(gap == 0, 0.5, 0.0))


def _components(features: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
    """The leading principal components that stand out of noise, over `rows` items of unit variance: [I, k]."""
    squares, directions = np.linalg.eigh((features.T @ features).astype(np.float64))
    values = np.sqrt(squares.clip(min=0))[::-1]
    aspect = min(rows, len(values)) / max(rows, len(values), 1)
    threshold = (0.56 * aspect**3 - 0.95 * aspect**2 + 1.82 * aspect + 1.43) * np.median(values[: max(rows, 1)])
    kept = int((values > max(threshold, 1e-6 * values.max(initial=0))).sum())
    scores = features @ directions[:, ::-1][:, :kept].astype(np.float32)
    return scores * (rows**0.5 / values[:kept]).astype(np.float32)


def _row_products(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """All products of a column of `a` with one of `b`: [I, A B]."""
    return (a[:, :, None] * b[:, None, :]).reshape(len(a), -1)


def _padded(table: NDArray[Any], width: int) -> NDArray[np.float32]:
    padded = np.zeros((len(table), width), np.float32)
    padded[:, : table.shape[1]] = table
    return padded


def _inputs(dataset: Dataset, modalities: Sequence[str]) -> dict[str, Any]:
    return {"train": dataset.fingerprint["train"]} | {name: dataset.fingerprint[name] for name in modalities}
