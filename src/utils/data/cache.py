"""Derived arrays on disk under a key that hashes what they were made from: content, parameters, version."""

from __future__ import annotations

import contextlib
import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.errors import UserError
from utils.files import atomic_file

Arrays = dict[str, NDArray[Any]]


class ArrayCache:
    """A folder of `.npz` files; a folder that cannot be written only costs the time to build again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, name: str, version: int, inputs: Mapping[str, Any], build: Callable[[], Arrays]) -> Arrays:
        """Returns the arrays that `build` makes, from disk if the same inputs were seen before.

        Args:
            name: what is built; the first part of the file's name.
            version: raised by the author whenever `build` computes something else.
            inputs: everything that the result depends on: content hashes and parameters, JSON values.
            build: makes the arrays.
        """
        text = json.dumps({"version": version, **inputs}, sort_keys=True)
        path = self.folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:20]}.npz"
        try:
            # Opened here, since np.load leaves a damaged file open.
            with open(path, "rb") as source, np.load(source, allow_pickle=False) as stored:
                return {key: stored[key] for key in stored.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            arrays = build()
        with contextlib.suppress(OSError, UserError):
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
        return arrays
