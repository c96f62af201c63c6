"""Pickles of arrays, sparse matrices and plain containers, read without running anything that they name.

Every name in a pickle is looked up in a table of stand-ins of this module; a name that is not there is refused on the spot.
What a pickle builds from stand-ins is inert, and is turned into arrays and matrices, with checks, after it was read.
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
    """The same from bytes; `name` stands in messages."""
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
    """What nothing can be set on: the state that a pickle gives to an object ends here."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise _Refused(f"it sets the state of {type(self).__name__.strip('_').lower()}")


class _Named(_Inert):
    """Stands in for a function or class that a pickle may name; called, it does what is harmless of it."""

    __slots__ = ("action", "name")

    def __init__(self, name: str, action: Callable[..., Any]) -> None:
        self.name, self.action = name, action

    def __call__(self, *arguments: Any) -> Any:
        return self.action(*arguments)


class _Dtype(_Inert):
    """Stands in for numpy.dtype: its code and byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any) -> None:
        if not isinstance(code, str):
            raise _Refused("it holds a dtype without a code")
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise _Refused("it holds an array of records")
        self.order = state[1]

    @property
    def is_object(self) -> bool:
        return self.code in ("O", "O4", "O8")

    def real(self) -> np.dtype[Any]:
        if self.is_object:
            return np.dtype(object)
        word = f"{self.order}{self.code}"
        if not re.fullmatch(r"[<>=|](b1|[iu][1248]|f(2|4|8|16)|c(8|16)|[SU]\d{1,6})", word):
            raise _Refused(f"it holds an array of {word!r}, expected numbers or texts")
        return np.dtype(word)


class _Array(_Inert):
    """Stands in for numpy.ndarray: what it is made of."""

    __slots__ = ("axes", "by_columns", "data", "dtype", "shape")

    def __init__(self, *_: Any) -> None:
        self.shape: Any = (0,)
        self.dtype: Any = _Dtype("b1")
        self.data: Any = b""
        self.by_columns = False
        self.axes: Any = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise _Refused("it holds an array without shape, type and content")
        self.shape, self.dtype, self.by_columns, self.data = state[-4:]

    @classmethod
    def of_buffer(cls, data: Any, dtype: Any, shape: Any, order: Any = "C", axes: Any = None) -> _Array:
        """What protocol 5 writes."""
        array = cls()
        array.data, array.dtype, array.shape, array.by_columns, array.axes = (
            data,
            dtype,
            shape,
            order == "F",
            axes if order == "K" else None,
        )
        return array


class _Sparse(_Inert):
    """Stands in for a sparse matrix: its attributes."""

    form = ""
    __slots__ = ("state",)
    state: dict[Any, Any]

    def __new__(cls, *_: Any) -> _Sparse:
        made = super().__new__(cls)
        made.state = {}
        return made

    def __init__(self, *_: Any) -> None:
        """As made."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) == 2 and not state[1]:
            (state, _) = state
        if not isinstance(state, dict):
            raise _Refused("it holds a sparse matrix without attributes")
        self.state = state


class _Csr(_Sparse):
    __slots__ = ()
    form = "csr"


class _Csc(_Sparse):
    __slots__ = ()
    form = "csc"


class _Coo(_Sparse):
    __slots__ = ()
    form = "coo"


def _reconstructed(kind: Any, *_: Any) -> _Array:
    if kind is not _NAMES["numpy", "ndarray"]:
        raise _Refused("it holds an array of a class of its own")
    return _Array()


def _object_of(kind: Any, *_: Any) -> Any:
    """copyreg._reconstructor, by which protocols 0 and 1 make objects."""
    if isinstance(kind, type) and issubclass(kind, _Sparse):
        return kind()
    raise _Refused("it makes an object that is no sparse matrix")


def _scalar(dtype: Any, data: Any = b"") -> Any:
    if not isinstance(dtype, _Dtype) or dtype.is_object:
        raise _Refused("it holds a NumPy scalar without a type of number")
    return _numbers(_bytes(data), dtype.real(), 1)[0]


def _encoded(text: Any, *_: Any) -> bytes:
    """What protocol 2 writes for bytes: their Latin-1 text."""
    return _bytes(text)


def _bytes(data: Any) -> bytes:
    if isinstance(data, str):
        return data.encode("latin-1")
    if isinstance(data, bytes | bytearray):
        return bytes(data)
    raise _Refused("it holds an array whose content is no bytes")


def _numbers(data: bytes, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    if dtype.itemsize * count != len(data):
        raise _Refused(f"it holds an array of {len(data):,} bytes for {count:,} numbers of {dtype}")
    if not data:  # also keeps texts of no letters from standing for any number of them
        return np.zeros(0, dtype=dtype)
    return np.frombuffer(data, dtype=dtype).copy()


def _collection(kind: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a container of one other container, or an empty one."""

    def make(*arguments: Any) -> Any:
        if not arguments:
            return kind()
        if len(arguments) > 1 or not isinstance(arguments[0], list | tuple | set | dict | str | bytes):
            raise _Refused(f"it calls {kind.__name__} with something else than a container")
        return kind(*arguments)

    return make


def _default_dict(*_: Any) -> dict[Any, Any]:
    """A default dictionary, without its default."""
    return {}


def _complex(*parts: Any) -> complex:
    if len(parts) == 2 and all(isinstance(part, float) for part in parts):
        return complex(*parts)
    raise _Refused("it calls complex with something else than two numbers")


def _nothing(*_: Any) -> Any:
    raise _Refused("it calls a type")


def _table() -> dict[tuple[str, str], Any]:
    found: dict[tuple[str, str], Any] = {}
    for package in ("numpy.core", "numpy._core"):
        found[f"{package}.multiarray", "_reconstruct"] = _Named("_reconstruct", _reconstructed)
        found[f"{package}.multiarray", "scalar"] = _Named("scalar", _scalar)
        found[f"{package}.numeric", "_frombuffer"] = _Named("_frombuffer", _Array.of_buffer)
    # A class among what is named would be one whose state could be set.
    found["numpy", "ndarray"] = _Named("ndarray", _nothing)
    found["numpy", "dtype"] = _Named("dtype", lambda code, *_: _Dtype(code))
    for stand_in in (_Csr, _Csc, _Coo):
        for kind in ("matrix", "array"):
            for module in (f"scipy.sparse.{stand_in.form}", f"scipy.sparse._{stand_in.form}"):
                found[module, f"{stand_in.form}_{kind}"] = stand_in
    for module in ("builtins", "__builtin__"):
        for container in (list, tuple, set, frozenset, dict):
            found[module, container.__name__] = _Named(container.__name__, _collection(container))
        for name in ("int", "float", "bool", "str", "object", "long", "unicode"):
            found[module, name] = _Named(name, _nothing)
        found[module, "complex"] = _Named("complex", _complex)
        found[module, "bytes"] = found[module, "bytearray"] = _Named("bytes", lambda data=b"", *_: _bytes(data))
    for module in ("copyreg", "copy_reg"):
        found[module, "_reconstructor"] = _Named("_reconstructor", _object_of)
    found["_codecs", "encode"] = _Named("encode", _encoded)
    found["collections", "OrderedDict"] = _Named("OrderedDict", _collection(dict))
    found["collections", "defaultdict"] = _Named("defaultdict", _default_dict)
    return found


_NAMES = _table()


class _Reader(pickle.Unpickler):
    """An unpickler for which the only names in the world are those with a stand-in."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise _Refused(f"it names {module}.{name}")
        return _NAMES[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("it refers to an object outside of it")


class _Resolver:
    """Turns what was read into what it stands for; what stands in several places is made once."""

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
        if isinstance(value, _Dtype):
            return value.real()
        if isinstance(value, _Array):
            return self._array(value)
        if isinstance(value, _Sparse):
            return self._sparse(value)
        raise _Refused(f"it holds {value.name if isinstance(value, _Named) else type(value).__name__} itself")

    def _key(self, value: Any) -> Any:
        key = self.resolve(value)
        try:
            hash(key)
        except TypeError:
            raise _Refused("a key or an element of a set is an array or a container") from None
        return key

    def _array(self, value: _Array) -> NDArray[Any]:
        shape = value.shape if isinstance(value.shape, tuple) else (value.shape,)
        if not all(isinstance(n, int) and n >= 0 for n in shape) or not isinstance(value.dtype, _Dtype):
            raise _Refused("it holds an array without shape or type")
        order, count = ("F" if value.by_columns else "C"), math.prod(shape)
        if value.dtype.is_object:
            if not isinstance(value.data, list) or len(value.data) != count:
                raise _Refused("it holds an array of objects whose number is not that of its shape")
            flat = np.empty(count, dtype=object)
            for place, entry in enumerate(value.data):
                flat[place] = self.resolve(entry)
            return flat.reshape(shape, order=order)  # type: ignore[call-overload, no-any-return]
        flat = _numbers(_bytes(value.data), value.dtype.real(), count)
        if value.axes is None:
            return flat.reshape(shape, order=order)  # type: ignore[call-overload, no-any-return]
        axes = value.axes
        if not isinstance(axes, tuple | list) or sorted(axes) != list(range(len(shape))):
            raise _Refused("it holds an array whose axes are in no order")
        return flat.reshape(shape).transpose(axes)

    def _sparse(self, value: _Sparse) -> Any:
        state = {str(key): entry for key, entry in value.state.items()}
        coords = state.get("coords")
        if isinstance(coords, tuple) and len(coords) == 2:
            state["row"], state["col"] = coords
        names = ("row", "col", "data") if value.form == "coo" else ("indices", "indptr", "data")
        shape = state.get("_shape", state.get("shape"))
        arrays = [self.resolve(state.get(name)) for name in names]
        if not all(isinstance(array, np.ndarray) and array.ndim == 1 for array in arrays):
            raise _Refused(f"it holds a {value.form} matrix without {', '.join(names)}")
        if not isinstance(shape, tuple) or len(shape) != 2:
            raise _Refused(f"it holds a {value.form} matrix that is not of two dimensions")
        n_rows, n_columns = (int(self.resolve(n)) for n in shape)
        first, second, data = arrays
        if any(array.dtype.kind not in "iu" for array in (first, second)) or data.dtype.kind not in "biufc":
            raise _Refused(f"it holds a {value.form} matrix whose indices are no integers or whose data are no numbers")
        bounds = [(first, n_rows), (second, n_columns)]
        if value.form != "coo":
            n_lines, n_across = (n_rows, n_columns) if value.form == "csr" else (n_columns, n_rows)
            bounds = [(first, n_across)]
            steps = np.diff(second.astype(np.int64))
            if len(second) != n_lines + 1 or second[0] != 0 or second[-1] != len(first) or (steps < 0).any():
                raise _Refused(f"it holds a {value.form} matrix whose indptr does not fit")
        if any(len(array) and not 0 <= int(array.min()) <= int(array.max()) < n for array, n in bounds):
            raise _Refused(f"it holds a {value.form} matrix with an index beyond its shape")
        if len(first) != len(data) or (value.form == "coo" and len(second) != len(data)):
            raise _Refused(f"it holds a {value.form} matrix with arrays of unlike lengths")
        if value.form == "coo":
            return sp.coo_matrix((data, (first, second)), shape=(n_rows, n_columns))
        kind = sp.csr_matrix if value.form == "csr" else sp.csc_matrix
        return kind((data, first, second), shape=(n_rows, n_columns))
