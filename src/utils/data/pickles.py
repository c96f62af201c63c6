"""Pickles of arrays, sparse matrices and plain containers, read without running anything that they name.

Every name in a pickle is looked up in a table of stand-ins; a name that is not there is refused at once. What a pickle
builds from stand-ins is inert, and is turned into arrays and matrices, with checks, after it was read.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from utils.errors import UserError

READ = "numbers, texts, containers, NumPy arrays and SciPy sparse matrices (csr, csc, coo)"
NUMBERS = r"[<>=|](b1|[iu][1248]|f(2|4|8|16)|c(8|16)|[SU]\d{1,6})"  # codes of dtypes


def load_pickle(path: Path) -> Any:
    """The content of a pickle file, of any protocol, written by Python 2 or 3 and old or new NumPy and SciPy.

    Returns:
        Numbers, texts, bytes, lists, tuples, sets, dictionaries (ordered and default ones too), NumPy arrays, dtypes and
        scalars, SciPy sparse matrices, nested in any way.

    Raises:
        UserError: if it is anything else, naming what was found; nothing of it has been run.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return read_pickle(content, path.name)


def read_pickle(content: bytes, name: str) -> Any:
    """The same from bytes; `name` is used in messages."""
    try:
        # Texts of Python 2 are bytes; Latin-1 keeps them as they are, and array contents among them.
        return _Resolver().resolve(_Reader(io.BytesIO(content), encoding="latin1").load())
    except _Refused as error:
        raise UserError(f"{name}: refused: {error}; only {READ} are read, and nothing in it was run") from None
    except RecursionError:
        raise UserError(f"{name}: refused: it is nested too deep, or holds itself") from None
    except Exception as error:  # damaged pickles raise nearly every kind
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{name}: not a pickle that can be read: {reason}") from None


class _Refused(Exception):
    """What a pickle holds and may not."""


class _Inert:
    """What a pickle may build: its state is kept as it is, and nothing is set on it."""

    __slots__ = ("kind", "state")

    def __init__(self, kind: str, state: Any = None) -> None:
        self.kind, self.state = kind, state

    def __setstate__(self, state: Any) -> None:
        if self.kind == "dtype" and isinstance(state, tuple) and len(state) >= 5 and state[2:5] == (None, None, None):
            self.state = (self.state[0], state[1])
        elif self.kind == "array" and isinstance(state, tuple) and len(state) in (4, 5):
            self.state = (*state[-4:], None)
        else:
            raise _Refused(
                "it holds an array of records" if self.kind == "dtype" else f"it sets the state of {self.kind}"
            )


class _Named(_Inert):
    """Stands in for a function or class that a pickle may name; called, it does what is harmless of it."""

    __slots__ = ("action",)

    def __init__(self, name: str, action: Callable[..., Any]) -> None:
        super().__init__(name)
        self.action = action

    def __call__(self, *arguments: Any) -> Any:
        return self.action(*arguments)


class _Sparse(_Inert):
    """Stands in for a sparse matrix, whose class a pickle may instantiate."""

    __slots__ = ()
    form = ""

    def __new__(cls, *_: Any) -> _Sparse:
        made = super().__new__(cls)
        made.kind, made.state = cls.form, {}
        return made

    def __init__(self, *_: Any) -> None:
        """As made."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) == 2 and not state[1]:
            (state, _) = state
        if not isinstance(state, dict):
            raise _Refused("it holds a sparse matrix without attributes")
        self.state = state


SPARSE = {form: type(f"_{form}", (_Sparse,), {"__slots__": (), "form": form}) for form in ("csr", "csc", "coo")}


def _dtype(code: Any, *_: Any) -> _Inert:
    if not isinstance(code, str):
        raise _Refused("it holds a dtype without a code")
    return _Inert("dtype", (code, "="))


def _is_object(dtype: _Inert) -> bool:
    return dtype.state[0] in ("O", "O4", "O8")


def _real(dtype: Any) -> np.dtype[Any]:
    if not isinstance(dtype, _Inert) or dtype.kind != "dtype":
        raise _Refused("it holds an array without shape or type")
    if _is_object(dtype):
        return np.dtype(object)
    word = f"{dtype.state[1]}{dtype.state[0]}"
    if not re.fullmatch(NUMBERS, word):
        raise _Refused(f"it holds an array of {word!r}, expected numbers or texts")
    return np.dtype(word)


def _reconstructed(kind: Any, *_: Any) -> _Inert:
    if kind is not _NAMES["numpy", "ndarray"]:
        raise _Refused("it holds an array of a class of its own")
    return _Inert("array", ((0,), _Inert("dtype", ("b1", "|")), False, b"", None))


def _of_buffer(data: Any, dtype: Any, shape: Any, order: Any = "C", axes: Any = None) -> _Inert:
    """An array as protocol 5 writes it."""
    return _Inert("array", (shape, dtype, order == "F", data, axes if order == "K" else None))


def _object_of(kind: Any, *_: Any) -> Any:
    """copyreg._reconstructor, by which protocols 0 and 1 make objects."""
    if isinstance(kind, type) and issubclass(kind, _Sparse):
        return kind()
    raise _Refused("it makes an object that is no sparse matrix")


def _scalar(dtype: Any, data: Any = b"") -> Any:
    if not isinstance(dtype, _Inert) or dtype.kind != "dtype" or _is_object(dtype):
        raise _Refused("it holds a NumPy scalar without a type of number")
    return _numbers(_bytes(data), _real(dtype), 1)[0]


def _bytes(data: Any, *_: Any) -> bytes:
    """Bytes, or the Latin-1 text that protocol 2 and Python 2 write for them."""
    if isinstance(data, str):
        return data.encode("latin-1")
    if isinstance(data, bytes | bytearray):
        return bytes(data)
    raise _Refused("it holds an array whose content is no bytes")


def _numbers(data: bytes, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    if dtype.itemsize * count != len(data):
        raise _Refused(f"it holds an array of {len(data):,} bytes for {count:,} numbers of {dtype}")
    # An itemsize of 0 would let no bytes stand for any number of texts.
    return np.frombuffer(data, dtype=dtype).copy() if data else np.zeros(0, dtype=dtype)


def _collection(kind: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a container of one other container, or an empty one."""

    def make(*arguments: Any) -> Any:
        if len(arguments) > 1 or not all(isinstance(a, list | tuple | set | dict | str | bytes) for a in arguments):
            raise _Refused(f"it calls {kind.__name__} with something else than a container")
        return kind(*arguments)

    return make


def _complex(*parts: Any) -> complex:
    if len(parts) == 2 and all(isinstance(part, float) for part in parts):
        return complex(*parts)
    raise _Refused("it calls complex with something else than two numbers")


def _nothing(*_: Any) -> Any:
    raise _Refused("it calls a type")


def _table() -> dict[tuple[str, str], Any]:
    known: dict[str, dict[str, Callable[..., Any]]] = {
        "numpy": {"ndarray": _nothing, "dtype": _dtype},  # inert: the state of a class could be set
        "_codecs": {"encode": _bytes},
        "collections": {"OrderedDict": _collection(dict), "defaultdict": lambda *_: {}},
    }
    for package in ("numpy.core", "numpy._core"):
        known[f"{package}.multiarray"] = {"_reconstruct": _reconstructed, "scalar": _scalar}
        known[f"{package}.numeric"] = {"_frombuffer": _of_buffer}
    for module in ("builtins", "__builtin__"):
        known[module] = {kind.__name__: _collection(kind) for kind in (list, tuple, set, frozenset, dict)}
        known[module] |= dict.fromkeys(("int", "float", "bool", "str", "object", "long", "unicode"), _nothing)
        known[module] |= {"complex": _complex, "bytes": lambda data=b"", *_: _bytes(data), "bytearray": _bytes}
    for module in ("copyreg", "copy_reg"):
        known[module] = {"_reconstructor": _object_of}
    found: dict[tuple[str, str], Any] = {
        (module, name): _Named(name, action) for module, names in known.items() for name, action in names.items()
    }
    for form, stand_in in SPARSE.items():
        for module in (f"scipy.sparse.{form}", f"scipy.sparse._{form}"):
            found |= {(module, f"{form}_{kind}"): stand_in for kind in ("matrix", "array")}
    return found


_NAMES = _table()


class _Reader(pickle.Unpickler):
    """An unpickler that knows the names with a stand-in and no others."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise _Refused(f"it names {module}.{name}")
        return _NAMES[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("it refers to an object outside of it")


class _Resolver:
    """Turns what was read into what it stands for; what occurs in several places is made once."""

    def __init__(self) -> None:
        self.done: dict[int, Any] = {}
        self.kept: list[Any] = []  # so that no id is given out twice
        self.open: set[int] = set()

    def resolve(self, value: Any) -> Any:
        if value is None or isinstance(value, str | bytes | int | float | complex | np.generic):
            return value
        key = id(value)
        if key not in self.done:
            if key in self.open:
                raise _Refused("it holds itself")
            self.open.add(key)
            self.done[key] = self._made(value)
            self.kept.append(value)
            self.open.remove(key)
        return self.done[key]

    def _made(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self._key(key): self.resolve(entry) for key, entry in value.items()}
        if isinstance(value, set | frozenset):
            return type(value)(self._key(entry) for entry in value)
        if isinstance(value, list | tuple):
            return type(value)(self.resolve(entry) for entry in value)
        if isinstance(value, bytearray):
            return bytes(value)
        if isinstance(value, _Sparse):
            return self._sparse(value)
        if isinstance(value, _Inert) and value.kind in ("dtype", "array") and not isinstance(value, _Named):
            return _real(value) if value.kind == "dtype" else self._array(*value.state)
        raise _Refused(f"it holds {value.kind if isinstance(value, _Inert) else type(value).__name__} itself")

    def _key(self, value: Any) -> Any:
        key = self.resolve(value)
        try:
            hash(key)
        except TypeError:
            raise _Refused("a key or an element of a set is an array or a container") from None
        return key

    def _array(self, shape: Any, dtype: Any, by_columns: Any, data: Any, axes: Any) -> Any:
        shape = shape if isinstance(shape, tuple) else (shape,)
        if not all(isinstance(n, int) and n >= 0 for n in shape):
            raise _Refused("it holds an array without shape or type")
        order: Any = "F" if by_columns else "C"
        count, real = math.prod(shape), _real(dtype)
        if real.kind == "O":
            if not isinstance(data, list) or len(data) != count:
                raise _Refused("it holds an array of objects whose number is not that of its shape")
            flat = np.empty(count, dtype=object)
            for place, entry in enumerate(data):
                flat[place] = self.resolve(entry)
            return flat.reshape(shape, order=order)
        flat = _numbers(_bytes(data), real, count)
        if axes is None:
            return flat.reshape(shape, order=order)
        if not isinstance(axes, tuple | list) or sorted(axes) != list(range(len(shape))):
            raise _Refused("it holds an array whose axes are in no order")
        return flat.reshape(shape).transpose(axes)

    def _sparse(self, value: _Sparse) -> Any:
        state, form = {str(key): entry for key, entry in value.state.items()}, value.form
        coords = state.get("coords")
        if isinstance(coords, tuple) and len(coords) == 2:
            state["row"], state["col"] = coords
        names = ("row", "col", "data") if form == "coo" else ("indices", "indptr", "data")
        shape = state.get("_shape", state.get("shape"))
        arrays = [self.resolve(state.get(name)) for name in names]
        if not all(isinstance(array, np.ndarray) and array.ndim == 1 for array in arrays):
            raise _Refused(f"it holds a {form} matrix without {', '.join(names)}")
        if not isinstance(shape, tuple) or len(shape) != 2:
            raise _Refused(f"it holds a {form} matrix that is not of two dimensions")
        n_rows, n_columns = (int(self.resolve(n)) for n in shape)
        first, second, data = arrays
        if any(array.dtype.kind not in "iu" for array in (first, second)) or data.dtype.kind not in "biufc":
            raise _Refused(f"it holds a {form} matrix whose indices are no integers or whose data are no numbers")
        bounds = [(first, n_rows), (second, n_columns)]
        if form != "coo":
            n_lines, n_across = (n_rows, n_columns) if form == "csr" else (n_columns, n_rows)
            bounds, steps = [(first, n_across)], np.diff(second.astype(np.int64))
            if len(second) != n_lines + 1 or second[0] != 0 or second[-1] != len(first) or (steps < 0).any():
                raise _Refused(f"it holds a {form} matrix whose indptr does not fit")
        if any(len(array) and not 0 <= int(array.min()) <= int(array.max()) < n for array, n in bounds):
            raise _Refused(f"it holds a {form} matrix with an index beyond its shape")
        if len(first) != len(data) or (form == "coo" and len(second) != len(data)):
            raise _Refused(f"it holds a {form} matrix with arrays of unlike lengths")
        parts: Any = (data, (first, second)) if form == "coo" else (data, first, second)
        return getattr(sp, f"{form}_matrix")(parts, shape=(n_rows, n_columns))
