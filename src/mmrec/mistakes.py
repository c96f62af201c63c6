"""What goes wrong in the code of a plugin or of a model of the tree, in one line: where, why and what to do."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmrec.tree import FAMILIES
from utils.errors import UserError
from utils.paths import MODELS, PACKAGE

NAMES_OF_PACKAGES = {
    "sklearn": "scikit-learn", "yaml": "pyyaml", "cv2": "opencv-python", "PIL": "pillow", "skimage": "scikit-image",
    "attr": "attrs", "dateutil": "python-dateutil", "ot": "POT", "faiss": "faiss-cpu",
}  # fmt: skip
# Packages for which no plain `pip install` is of use, and why.
HARD_TO_INSTALL = {
    "dgl": "is compiled for one version of PyTorch each; a plugin that uses it can only run where that one is installed",
    "sparsesvd": "no longer builds; only sparsesvd.sparsesvd is offered here",
    "torch_scatter": "is compiled: pip install --no-build-isolation torch_scatter (needs a C++ compiler)",
    "torch_sparse": "is compiled: pip install --no-build-isolation torch_scatter torch_sparse (needs a C++ compiler)",
    "torch_cluster": "is compiled: pip install --no-build-isolation torch_cluster (needs a C++ compiler)",
    "recbole": "has models, loaders and trainers of its own; a file written for RecBole is none for MMRec",
    "apex": "is built from its sources at github.com/NVIDIA/apex, for CUDA",
}


def install_hint(name: str) -> str:
    """What to do about a package, or a part of one, that cannot be imported."""
    package = name.partition(".")[0]
    if package in HARD_TO_INSTALL and importlib.util.find_spec(package) is None:
        return f"needs '{name}', which is not installed; {package} {HARD_TO_INSTALL[package]}"
    if importlib.util.find_spec(package) is not None:
        return f"needs '{name}', which the installed version of {package} does not have"
    offered = " (what is offered here in its place has no such part)" if package in _OFFERED and "." in name else ""
    needed = f"'{name}' of the package '{package}'" if "." in name else f"the package '{package}'"
    return f"needs {needed}, which is not installed{offered}; pip install {NAMES_OF_PACKAGES.get(package, package)}"


_OFFERED = ("torch_geometric", "torch_scatter", "torch_sparse", "sparsesvd")


@contextmanager
def mistakes_of_plugins() -> Iterator[None]:
    """Within it, what goes wrong in a model file's own code becomes one line that names its file and line.

    Raises:
        UserError: in place of what the file raised.
    """
    try:
        yield
    except (MemoryError, BrokenPipeError):
        raise
    except Exception as error:  # a plugin may raise anything; what is not of its doing goes on
        message = _message_of(error)
        if message is None:
            raise
        raise UserError(message) from error


def _message_of(error: Exception) -> str | None:
    """The line for an error that was raised in or below the code of a model file, else None."""
    place, path, innermost, model, step = None, None, "", None, error.__traceback__
    in_tree = None
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).parent == MODELS:
        in_tree = f"{error.filename}, line {error.lineno}"
    while step is not None:
        names, known = step.tb_frame.f_globals, step.tb_frame.f_locals
        if "__plugin__" in names:
            place = f"{step.tb_frame.f_code.co_filename}, line {step.tb_lineno}"
        elif str(names.get("__name__")).startswith(f"{PACKAGE}models."):
            in_tree = f"{step.tb_frame.f_code.co_filename}, line {step.tb_lineno}"
        for candidate in (known.get("model"), known.get("self")):
            module = sys.modules.get(type(candidate).__module__)
            if module is not None and "__plugin__" in vars(module):
                path = vars(module)["__file__"]
                model = candidate if hasattr(candidate, "set_elsewhere") else model
        innermost = names.get("__name__", "")
        step = step.tb_next
    if isinstance(error, UserError):
        # Said by what a file called: what is missing is where.
        return f"{place}: {error.problems[0]}" if place and len(error.problems) == 1 else None
    text = " ".join(str(error).split())
    if re.search("out of memory|can't allocate memory", text):
        return None
    if place is None and path and (innermost == f"{PACKAGE}common.trainer" or innermost.startswith("torch.autograd")):
        return (
            f"{path}: expected calculate_loss to return a number with a gradient, or a tuple of them; "
            f"with what it returned: {type(error).__name__}: {text}"
        )
    place = place or in_tree
    if place is None:
        return None
    return f"{place}: {_reason(error, text, model)}{_unset(error, model)}"


def _reason(error: Exception, text: str, model: Any) -> str:
    if isinstance(error, ImportError):
        own = (error.name or "").partition(".")[0]
        own = own.rpartition("_plugin_")[0] or own
        if own in FAMILIES and isinstance(error, ModuleNotFoundError):
            return (
                f"{text}, neither here nor in the file's own tree; it takes the modules that it needs from the folder above "
                "models/: keep the file in the tree that it was published in (see docs/plugins.md)"
            )
        if isinstance(error, ModuleNotFoundError) and error.name:
            return install_hint(error.name)
        if own in FAMILIES or "_plugin_" in text:
            return f"{text}; what of MMRec's own modules is offered here is in docs/plugins.md"
    if re.search(r"\bCUDA\b|NVIDIA", text) and not importlib.import_module("torch").cuda.is_available():
        return f"asks for CUDA whatever the device, and this machine has none ({text[:120]})"
    if isinstance(error, AttributeError | TypeError) and "NoneType" in text:
        text += " (a key that no file sets and features that the data set lacks are None)"
    if isinstance(error, IndexError) and re.search(r"dimension 0 with size [23]\b", text):
        text += " (a batch has rows of users, positives and negatives; a loader of another kind is not offered)"
    if isinstance(error, AttributeError) and model is not None and (found := re.search(r"attribute '(\w+)'", text)):
        text += model.set_elsewhere(found.group(1))
    return f"{type(error).__name__}: {text}"


def _unset(error: Exception, model: Any) -> str:
    """Keys that a model reads and nobody sets, which are the likeliest reason that it fails."""
    keys = getattr(error, "unset_keys", ()) or getattr(model, "unset_keys", ())
    if not keys or isinstance(error, ImportError):
        return ""
    return (
        f"; no file sets {', '.join(keys)}, which it reads: set them with {' '.join(f'--{key} VALUE' for key in keys)}"
    )
