"""What a foreign model keeps besides its parameters, as a checkpoint can hold it: tensors and plain values, no pickles.

Arrays, sparse matrices, random generators and optimisers are put down as a dictionary that says of which kind it is.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

KIND = "__kind__"
LARGEST_HASHED = 2**22  # bytes of an array in which a change in place is looked for


class NotPlainError(TypeError):
    """A value that a checkpoint cannot hold."""


def fingerprint(value: Any) -> tuple[Any, ...]:
    """The value, then what tells whether it is still the same: a tensor's version, the entries of a list or dict."""
    if isinstance(value, Tensor):
        return value, value._version
    if isinstance(value, np.ndarray):
        small = value.dtype != object and value.nbytes <= LARGEST_HASHED
        return value, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest() if small else ""
    if isinstance(value, list | tuple):
        return value, *value
    if isinstance(value, set):
        return value, *value
    if isinstance(value, dict):
        return value, *value, *value.values()
    if isinstance(value, tuple(_KEPT_IN_PLACE)):
        return value, object()  # changed, for all that one knows
    return (value,)


def same(before: tuple[Any, ...], now: tuple[Any, ...]) -> bool:
    """Whether two fingerprints are of a value that has not changed."""
    return len(before) == len(now) and all(
        a is b or (type(a) is type(b) and isinstance(a, int | float | str) and a == b)
        for a, b in zip(before, now, strict=True)
    )


def can_keep(value: Any) -> bool:
    """Whether a checkpoint can hold the value."""
    try:
        packed(value)
    except NotPlainError:
        return False
    return True


def packed(value: Any) -> Any:
    """The value as tensors and plain values.

    Raises:
        NotPlainError: if it is anything else.
    """
    if type(value) is Tensor:
        return value.detach().clone()  # a copy, or a slice would be written with all that it is a slice of
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) in (list, tuple):
        return type(value)(map(packed, value))
    if type(value) is dict:
        return {packed(key): packed(entry) for key, entry in value.items()}
    if type(value) is set:
        return {KIND: "set", "entries": list(map(packed, value))}
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return {KIND: "number", "type": value.dtype.str, "value": value.item()}
    if type(value) is np.ndarray and value.dtype.kind in "biuf":
        return {KIND: "array", "type": value.dtype.str, "shape": list(value.shape), "bytes": _bytes(value)}
    if sp.issparse(value) and value.dtype.kind in "biuf":
        entries = value.tocoo()
        parts = {name: packed(getattr(entries, name)) for name in ("row", "col", "data")}
        return {KIND: "sparse", "format": value.format, "shape": list(value.shape), **parts}
    for kind, (name, state, _) in _KEPT_IN_PLACE.items():
        if isinstance(value, kind):
            return {KIND: name, "state": packed(state(value))}
    raise NotPlainError(type(value).__name__)


def _bytes(array: Any) -> Tensor:
    return (
        torch.frombuffer(bytearray(np.ascontiguousarray(array).tobytes()), dtype=torch.uint8)
        if array.size
        else torch.zeros(0)
    )


def unpacked(content: Any, device: torch.device, there: Any = None) -> Any:
    """The value that `packed` put down.

    Args:
        content: what `packed` gave.
        device: for its tensors.
        there: what is in its place now; a generator or an optimiser is set, not replaced.
    """
    if isinstance(content, Tensor):
        return content.to(device)
    if isinstance(content, list | tuple):
        return type(content)(unpacked(entry, device) for entry in content)
    if not isinstance(content, dict):
        return content
    kind = content.get(KIND)
    if kind is None:
        return {key: unpacked(entry, device) for key, entry in content.items()}
    if kind == "set":
        return set(unpacked(content["entries"], device))
    if kind == "number":
        return np.dtype(content["type"]).type(content["value"])
    if kind == "array":
        raw = content["bytes"].cpu().numpy().tobytes()
        return np.frombuffer(raw, dtype=content["type"]).reshape(content["shape"]).copy()
    if kind == "sparse":
        row, col, data = (unpacked(content[name], device) for name in ("row", "col", "data"))
        return sp.coo_matrix((data, (row, col)), shape=tuple(content["shape"])).asformat(content["format"])
    for name, _, put in _KEPT_IN_PLACE.values():
        if kind == name and there is not None:
            put(there, unpacked(content["state"], torch.device("cpu")))
    return there


def _set_random(generator: Any, state: Any) -> None:
    generator.setstate(tuple(tuple(entry) if isinstance(entry, list) else entry for entry in state))


def _set_numpy(generator: Any, state: Any) -> None:
    generator.bit_generator.state = state


_KEPT_IN_PLACE: dict[Any, tuple[str, Callable[[Any], Any], Callable[[Any, Any], Any]]] = {
    torch.Generator: ("torch generator", lambda g: g.get_state(), lambda g, state: g.set_state(state)),
    np.random.Generator: ("numpy generator", lambda g: g.bit_generator.state, _set_numpy),
    np.random.RandomState: ("numpy state", lambda g: g.get_state(legacy=False), lambda g, state: g.set_state(state)),
    random.Random: ("random", lambda g: g.getstate(), _set_random),
    torch.optim.Optimizer: ("optimizer", lambda o: o.state_dict(), lambda o, state: o.load_state_dict(state)),
}  # fmt: skip
