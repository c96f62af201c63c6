"""What foreign files see of installed libraries: names that newer versions removed, and nothing that unpickles.

Each is a proxy in front of the library, which stays as it is for everybody else.
"""

from __future__ import annotations

import builtins
import importlib
import math
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from mmrec import graphs, running
from utils.errors import UserError

# Names that NumPy 1.20 to 2.4 removed.
REMOVED_FROM_NUMPY = {
    "float": "builtins.float", "int": "builtins.int", "bool": "builtins.bool", "object": "builtins.object",
    "str": "builtins.str", "complex": "builtins.complex", "long": "builtins.int", "unicode": "builtins.str",
    "float_": "float64", "complex_": "complex128", "bool8": "bool_", "int0": "intp", "unicode_": "str_",
    "string_": "bytes_", "Inf": "inf", "Infinity": "inf", "infty": "inf", "PINF": "inf", "NaN": "nan",
    "product": "prod", "cumproduct": "cumprod", "alltrue": "all", "sometrue": "any", "in1d": "isin",
    "row_stack": "vstack", "trapz": "trapezoid", "round_": "round", "mat": "asmatrix",
}  # fmt: skip

# What would run code that a file holds; a plugin's own code may do anything, but data are never trusted.
UNPICKLING = {
    "pickle": ("load", "loads", "Unpickler"),
    "_pickle": ("load", "loads", "Unpickler"),
    "dill": ("load", "loads", "Unpickler"),
    "cloudpickle": ("load", "loads"),
    "marshal": ("load", "loads"),
    "joblib": ("load",),
    "shelve": ("open",),
    "pandas": ("read_pickle",),
}


class Proxy(ModuleType):
    """A module in front of another: some names of its own, the rest the other's."""

    def __init__(self, real: ModuleType, own: Mapping[str, Any]) -> None:
        super().__init__(real.__name__, real.__doc__)
        self.__dict__.update(own)
        self.__dict__["_real"] = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_real"], name)


_proxies: dict[str, ModuleType] = {}


def proxy(module: ModuleType) -> ModuleType:
    """The proxy of a library, or the module itself."""
    name = module.__name__
    if name not in _proxies:
        if name in UNPICKLING:
            _proxies[name] = Proxy(module, {word: _refusal(f"{name}.{word}") for word in UNPICKLING[name]})
        elif name in _MAKERS:
            _proxies[name] = Proxy(module, _MAKERS[name](module))
        else:
            return module
    return _proxies[name]


def _numpy(module: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"NINF": -module.inf, "load": _numpy_load, "asscalar": lambda array: array.item()}
    given["asfarray"] = lambda array, dtype=module.float64: module.asarray(array, dtype=dtype)
    given["math"], given["warnings"] = math, warnings
    given["VisibleDeprecationWarning"] = module.exceptions.VisibleDeprecationWarning
    given["ComplexWarning"] = module.exceptions.ComplexWarning
    for old, new in REMOVED_FROM_NUMPY.items():
        holder = builtins if new.startswith("builtins.") else module
        if old not in vars(module):
            given[old] = getattr(holder, new.removeprefix("builtins."))
    return given


def _scipy(module: Any) -> dict[str, Any]:
    return {"sparse": proxy(importlib.import_module("scipy.sparse"))}


def _scipy_sparse(module: Any) -> dict[str, Any]:
    return {} if hasattr(module.dok_matrix, "_update") else {"dok_matrix": _dok_matrix(module)}


def _dok_matrix(sparse: Any) -> type:
    """dok_matrix with the private method that SciPy 1.13 removed, which many files build their graph with."""

    class dok_matrix(sparse.dok_matrix):  # type: ignore[name-defined,misc]
        def _update(self, data: Mapping[tuple[int, int], Any]) -> None:
            """Sets entries from (row, column) to value."""
            self._dict.update(data)

    return dok_matrix


def _torch(module: Any) -> dict[str, Any]:
    def nothing(*_: Any, **__: Any) -> None:
        """A default for the whole process, which is not a plugin's to set."""

    return {
        # The names are copied, since going through the proxy costs more than many an operation.
        **{name: value for name, value in vars(module).items() if not name.startswith("__")},
        "load": _torch_load,
        "cuda": proxy(importlib.import_module("torch.cuda")),
        "set_default_tensor_type": nothing,
        "set_default_device": nothing,
        "symeig": lambda matrix, eigenvectors=False, upper=True: module.linalg.eigh(matrix, "U" if upper else "L"),
    }


TYPES = {
    "FloatTensor": "float32", "DoubleTensor": "float64", "HalfTensor": "float16", "BFloat16Tensor": "bfloat16",
    "LongTensor": "int64", "IntTensor": "int32", "ShortTensor": "int16", "CharTensor": "int8", "ByteTensor": "uint8",
    "BoolTensor": "bool",
}  # fmt: skip


class _OnDevice(type):
    """A class whose call makes a tensor on the run's device, and whose instances are the tensors of its type."""

    cuda_name: str
    plain: Any

    def __call__(cls, *arguments: Any, **options: Any) -> Any:
        made = cls.plain(*(running.to(a, "cpu") if _is_tensor(a) else a for a in arguments), **options)
        return running.to_cuda(made)

    def __instancecheck__(cls, value: object) -> bool:
        return _is_tensor(value) and value.type().replace(".cuda", "") == cls.cuda_name.replace(".cuda", "")  # type: ignore[attr-defined]


def _is_tensor(value: object) -> bool:
    return isinstance(value, torch.Tensor)


def _torch_cuda(module: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        name: _OnDevice(name, (), {"cuda_name": f"torch.cuda.{name}", "plain": getattr(torch, name)}) for name in TYPES
    }
    sparse = {
        name: _OnDevice(name, (), {"cuda_name": f"torch.cuda.sparse.{name}", "plain": getattr(torch.sparse, name)})
        for name in TYPES
        if hasattr(torch.sparse, name)
    }
    made["sparse"] = Proxy(module.sparse, sparse)
    if not module.is_available():  # what asks for a device that is not there
        made |= {
            "set_device": lambda device: None,
            "synchronize": lambda device=None: None,
            "current_device": lambda: 0,
            "get_device_name": lambda device=None: "cpu",
            "device": lambda device: nullcontext(),
        }
    return made


def _importlib(module: Any) -> dict[str, Any]:
    def import_module(name: str, package: str | None = None) -> Any:
        """As `import` in the file that calls it."""
        return sys._getframe(1).f_globals["__builtins__"]["__import__"].module_named(name, package)

    return {"import_module": import_module}


_MAKERS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "numpy": _numpy,
    "scipy": _scipy,
    "scipy.sparse": _scipy_sparse,
    "torch": _torch,
    "torch.cuda": _torch_cuda,
    "importlib": _importlib,
}


# Reading files


def _refusal(what: str) -> Callable[..., Any]:
    def refused(*_: Any, **__: Any) -> Any:
        raise UserError(f"{what}: data from outside are not unpickled, since a pickle can run any code; {_INSTEAD}")

    return refused


_INSTEAD = "write them as numbers (.npy, .npz, .json, .pt of tensors) and read those"


def _numpy_load(file: Any, *arguments: Any, **options: Any) -> Any:
    """`numpy.load` without pickles; graphs of users and items come from the training rows, see graphs.py."""
    if isinstance(file, str | os.PathLike):
        graph = graphs.handed_over(Path(file))
        if graph is not None:
            return graph
    options |= {"allow_pickle": False}
    try:
        return np.load(file, *arguments[:1], **options)
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        name = Path(file).name if isinstance(file, str | os.PathLike) else getattr(file, "name", "the file")
        raise UserError(f"{name}: holds Python objects, which are not unpickled; {_INSTEAD}") from None


def _torch_load(file: Any, map_location: Any = None, *_: Any, **__: Any) -> Any:
    """`torch.load` of tensors, arrays and plain values, onto the run's device where the file names CUDA."""
    if map_location is None and not torch.cuda.is_available():
        map_location = "cpu"
    arrays = [
        np.ndarray,
        np.dtype,
        importlib.import_module("numpy._core.multiarray")._reconstruct,
        *map(type, map(np.dtype, "fdlihb?")),
    ]
    try:
        with torch.serialization.safe_globals(arrays):
            return torch.load(file, running.on_device(map_location), weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch.load raises many kinds for what it does not accept
        name = Path(file).name if isinstance(file, str | os.PathLike) else "the file"
        reason = str(error).partition("\n")[0].rpartition("Please file an issue")[0] or str(error).partition("\n")[0]
        raise UserError(f"{name}: holds more than tensors and plain values, or is damaged ({reason[:150]})") from None
