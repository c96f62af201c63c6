"""Initialisation of a model's user and item tables by the singular vectors of the training interactions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import nn

from common.spectral import spectral_embeddings
from utils.errors import UserError

if TYPE_CHECKING:
    from utils.data.dataset import Dataset

WORDS = {"user": {"u", "user", "users"}, "item": {"i", "item", "items"}}


def initialize(model: nn.Module, dataset: Dataset, power: float) -> None:
    """Puts singular vectors in place of what a model drew for its user and its item table.

    The first columns of both tables become the singular vectors of D_u^-1/2 R D_i^-1/2 times the `power` of their singular
    values, brought to the standard deviation of what the table held. Columns beyond the rank of the matrix, or beyond the
    width of the narrower table, stay as they are, and so do the random streams.

    Raises:
        UserError: if the model has no such tables.
    """
    tables = {side: table_of(model, side, n) for side, n in (("user", dataset.n_users), ("item", dataset.n_items))}
    missing = [side for side, table in tables.items() if table is None]
    if missing:
        raise UserError(
            f"initialization: {type(model).__name__} has no plain table of {' and no plain table of '.join(missing)} "
            "embeddings, which 'spectral' fills; use --initialization xavier"
        )
    width = min(table.shape[1] for table in tables.values() if table is not None)
    vectors = dict(zip(tables, spectral_embeddings(dataset, width, power), strict=True))
    with torch.no_grad():
        for side, table in tables.items():
            assert table is not None
            found = vectors[side].to(table)
            table[:, : found.shape[1]] = found * table.std()


def table_of(model: nn.Module, side: str, rows: int) -> nn.Parameter | None:
    """The trainable table [rows, D] of one side, user or item, which its name tells; None where there is none.

    Names such as user_embedding, item_id_embedding.weight, embedding_user, u_embedding or embedding_dict.user_emb are taken;
    of several `user_embedding` goes first, then `user_id_embedding`, then the one that alone is left.
    """
    found: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        word = name.removesuffix(".weight").rpartition(".")[2]
        parts = set(re.split(r"_|(?<=[a-z])(?=[A-Z])", word))
        if (
            parameter.ndim == 2
            and len(parameter) == rows
            and parameter.requires_grad
            and {part.lower() for part in parts} & WORDS[side]
            and "emb" in word.lower()
        ):
            found[word] = parameter
    for name in (f"{side}_embedding", f"{side}_id_embedding"):
        if name in found:
            return found[name]
    return next(iter(found.values())) if len(found) == 1 else None
