"""What a foreign file's code runs in: the device of the run, its data, and a folder of its own as working folder.

One model is built and trained at a time, so the run is the one that began last.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.config.configuration import Config
from utils.data.dataset import Dataset
from utils.files import make_folder
from utils.paths import default_cache_path

DERIVED_FILES = (".pt", ".pth")  # graphs that model files make and keep beside the data
GRAPH_NAMES = r"(user|item)_graph_dict\w*\.npy"
# What newer libraries warn of in ways of working that such files are full of.
OUTDATED = (
    r"torch\.sparse\.\w+Tensor\(", "Sparse invariant checks", "The given NumPy array is not writable", "Sparse CSR",
    "To copy construct from a tensor", "Implicit dimension choice", "size_average and reduce", "nn.functional",
    "Creating a tensor from a list of numpy", "The use of `x.T` on tensors", "Initializing zero-element tensors",
)  # fmt: skip


@dataclass
class Run:
    """One model's run: what its file asks for, whatever the file calls it."""

    device: torch.device
    config: Config
    dataset: Dataset
    folder: Path  # holds data/NAME/ with links, src/ as working folder
    graph_files: dict[str, str] = field(default_factory=dict)  # name of a file to "user" or "item"
    opened: dict[str, str] = field(default_factory=dict)  # files that were handed over, and what they were

    @property
    def data(self) -> Path:
        """The folder that stands for data_path."""
        return self.folder / "data"

    @property
    def source(self) -> Path:
        """The user's own folder of the data set."""
        return Path(self.config["data_path"]) / self.config.dataset


_runs: list[Run] = []  # the run that began last, or none
_inside = [False]


def current() -> Run | None:
    """The run that began last."""
    return _runs[-1] if _runs else None


def begin(config: Config, dataset: Dataset, device: torch.device, needs_features: bool = True) -> Run:
    """Makes a run's folder, fresh and empty but for links to the user's files, and makes it the current one."""
    cache = dataset.cache.folder if dataset.cache else default_cache_path()
    make_folder(cache / "plugins")
    run = Run(device, config, dataset, Path(tempfile.mkdtemp(prefix=f"{config.model}-", dir=cache / "plugins")))
    for name in (config["user_graph_dict_file"], config["item_graph_dict_file"]):
        if name:
            run.graph_files[Path(str(name)).name] = "user" if name == config["user_graph_dict_file"] else "item"
    make_folder(run.folder / "src")
    make_folder(run.data / config.dataset)
    _link(run, needs_features)
    _runs[:] = [run]
    return run


def end(folder: Path, process: int) -> None:
    """Removes a run's folder, in the process that made it: one that was forked since leaves it alone."""
    if os.getpid() != process:
        return
    shutil.rmtree(folder, ignore_errors=True)


def _link(run: Run, needs_features: bool) -> None:
    """Links to the user's files in the run's folder.

    Graphs that were derived by others (.pt) are not linked: nothing says what they were made from. Features come as the
    run has them: generated ones, and those with a share of items or a whole modality taken away, are written.
    """
    dataset, target = run.dataset, run.data / run.config.dataset
    changed = {
        *dataset.inputs,
        *dataset.present,
        *(name for name in dataset.features if name not in dataset.feature_files),
    }
    written = {dataset.feature_files.get(name, feature_file(name)): name for name in sorted(changed)}
    for file, name in written.items():
        if needs_features and name in dataset.features:
            np.save(target / Path(file).name, dataset.features[name], allow_pickle=False)
    for path in sorted(run.source.iterdir()) if run.source.is_dir() else ():
        derived = path.suffix in DERIVED_FILES and not path.stem.endswith("_feat")
        if derived or path.name in written or path.name in run.graph_files or re.fullmatch(GRAPH_NAMES, path.name):
            continue
        try:
            (target / path.name).symlink_to(path.absolute())
        except OSError:  # a file system without links
            if path.is_file():
                shutil.copyfile(path, target / path.name)
    # Files ask whether these are there; what is in them is handed over when they are opened.
    for name in {"user_graph_dict.npy", "item_graph_dict.npy", "item_graph_dict_2.npy", *run.graph_files}:
        np.save(target / name, np.zeros(0), allow_pickle=False)


def feature_file(modality: str) -> str:
    """The file name that MMRec gives to a modality."""
    names = {"visual": "image", "textual": "text", "acoustic": "audio"}
    return f"{names.get(modality, modality)}_feat.npy"


@contextmanager
def inside() -> Iterator[None]:
    """Within it a foreign file's code runs: relative paths lead into the run's folder, old ways are not warned of.

    So '../data/NAME/', from where MMRec is started, is the data too, and 'cache/graph.pt' lies beside nobody's files.
    """
    run = current()
    if _inside[0] or run is None or not run.folder.is_dir():
        yield
        return
    before = Path.cwd()
    os.chdir(run.folder / "src")
    _inside[0] = True
    try:
        with quiet():
            yield
    finally:
        _inside[0] = False
        os.chdir(before)


def is_inside() -> bool:
    """Whether a foreign file's code runs now."""
    return _inside[0]


@contextmanager
def quiet() -> Iterator[None]:
    """Within it nobody is warned of ways that newer libraries call outdated."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning, SyntaxWarning, RuntimeWarning):
            warnings.simplefilter("ignore", category)
        for message in OUTDATED:
            warnings.filterwarnings("ignore", message=message, category=UserWarning)
        yield


# What foreign files call instead of `.cuda()` and the like, see rewriting.py


def on_device(word: Any) -> Any:
    """The run's device for anything that names a CUDA device; all else as it is."""
    run = current()
    if isinstance(word, bool) or run is None:
        return word
    names_cuda = (
        isinstance(word, int)
        or (isinstance(word, str) and word.startswith("cuda"))
        or (isinstance(word, torch.device) and word.type == "cuda")
    )
    return run.device if names_cuda else word


def to_cuda(value: Any, *arguments: Any, **options: Any) -> Any:
    """`value.cuda(...)`: to the run's device."""
    run = current()
    if isinstance(value, torch.Tensor | torch.nn.Module):
        return value.to(run.device) if run else value
    return value.cuda(*arguments, **options)


def to(value: Any, *arguments: Any, **options: Any) -> Any:
    """`value.to(...)`, where a CUDA device means the run's."""
    if not isinstance(value, torch.Tensor | torch.nn.Module):  # a number may mean anything there
        return value.to(*(word if isinstance(word, int) else on_device(word) for word in arguments), **options)
    return value.to(*map(on_device, arguments), **options)


def to_type(value: Any, *arguments: Any, **options: Any) -> Any:
    """`value.type(...)`, where a CUDA type means that type on the run's device."""
    word = arguments[0] if arguments else None
    if isinstance(value, torch.Tensor) and word is not None:
        name = word if isinstance(word, str) else getattr(word, "cuda_name", "")
        if name.startswith("torch.cuda."):
            return to_cuda(value.type(name.replace("torch.cuda.", "torch.")))
    return value.type(*arguments, **options)


def pinned(value: Any, *arguments: Any, **options: Any) -> Any:
    """`value.pin_memory()`, on a machine with CUDA."""
    if isinstance(value, torch.Tensor) and not torch.cuda.is_available():
        return value
    return value.pin_memory(*arguments, **options)


def attribute(value: Any, name: str) -> Any:
    """`value.A` and `value.H`, which SciPy 1.14 took from sparse matrices."""
    if not hasattr(value, name) and hasattr(value, "toarray"):
        return value.toarray() if name == "A" else value.conj().T
    return getattr(value, name)
