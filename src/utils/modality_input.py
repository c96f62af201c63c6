"""Other features in place of a modality's own: does a model use what is in them?"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from utils.errors import UserError, nearest

Features = dict[str, NDArray[np.float32]]


def changed_features(features: Features, inputs: Mapping[str, str]) -> Features:
    """The features [I, F] of each modality, or what `inputs` puts in their place; those given stay as they are.

    real: the features. zero: all zeros, no content at all. noise: independent normal draws with the mean and standard
    deviation of each column, the same scale without any content. shuffle: the rows permuted among the items, real
    content of other items.

    What is drawn depends on the modality's name and the matrix's shape alone, so all runs of a comparison get the same.

    Raises:
        UserError: for a modality that is not there.
    """
    problems = [
        f"modality_input: no modality '{name}'{nearest(name, features)}; there are {', '.join(features)}"
        for name in inputs
        if name not in features
    ]
    if problems:
        raise UserError(*problems)
    return {name: _changed(name, matrix, inputs.get(name, "real")) for name, matrix in features.items()}


def _changed(name: str, matrix: NDArray[np.float32], word: str) -> NDArray[np.float32]:
    if word == "real":
        return matrix
    if word == "zero":
        return np.zeros_like(matrix)
    digest = hashlib.sha256(f"{name} {matrix.shape} {word}".encode()).digest()
    random = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "little")))
    if word == "shuffle":
        return matrix[random.permutation(len(matrix))]
    draws = random.standard_normal(matrix.shape, dtype=np.float32)
    mean, deviation = matrix.mean(axis=0, dtype=np.float64), matrix.std(axis=0, dtype=np.float64)
    draws *= deviation.astype(np.float32)
    draws += mean.astype(np.float32)
    return draws
