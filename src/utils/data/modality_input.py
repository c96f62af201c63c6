"""Other features in place of a modality's own: does a model use what is in them?"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from utils.errors import UserError, nearest

Features = dict[str, NDArray[np.float32]]


def changed_features(
    features: Features, inputs: Mapping[str, str], present: Mapping[str, NDArray[np.bool_]] | None = None
) -> Features:
    """The features [I, F] of each modality, or what `inputs` puts in their place; those given stay as they are.

    real: the features. zero: all zeros, no content at all. noise: independent normal draws with the mean and standard
    deviation of each column, the same scale without any content. shuffle: the rows permuted among the items, real
    content of other items. Items that lack the modality by `present` (bool [I], True = present) take no part: zeros.

    What is drawn depends on the modality's name and the matrix's shape alone, so all runs of a comparison get the same.

    Raises:
        UserError: for a modality that is not there.
    """
    check_modalities("modality_input", inputs, features)
    changed = dict(features)
    for name, word in inputs.items():
        if word != "real":
            there = (present or {}).get(name, slice(None))
            changed[name] = np.zeros_like(features[name])
            changed[name][there] = _changed(name, features[name][there], word)
    return changed


def check_modalities(key: str, named: Iterable[str], known: Collection[str]) -> None:
    """Checks that a key names modalities that are there.

    Raises:
        UserError: with one line for each that is not.
    """
    problems = [
        f"{key}: no modality '{name}'{nearest(name, known)}; there are {', '.join(known)}"
        for name in named
        if name not in known
    ]
    if problems:
        raise UserError(*problems)


def stream(words: str) -> np.random.Generator:
    """A stream of random numbers that depends on `words` and on nothing else."""
    digest = hashlib.sha256(words.encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "little")))


def _changed(name: str, matrix: NDArray[np.float32], word: str) -> NDArray[np.float32]:
    if word == "zero":
        return np.zeros_like(matrix)
    random = stream(f"{name} {matrix.shape} {word}")
    if word == "shuffle":
        return matrix[random.permutation(len(matrix))]
    draws = random.standard_normal(matrix.shape, dtype=np.float32)
    mean, deviation = matrix.mean(axis=0, dtype=np.float64), matrix.std(axis=0, dtype=np.float64)
    draws *= deviation.astype(np.float32)
    draws += mean.astype(np.float32)
    return draws
