"""Run folders: one per run, written atomically, found again by the settings that it stands for."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import scipy
import torch

from utils.config.configuration import Config
from utils.config.settings import NOT_IDENTITY
from utils.data.dataset import Dataset
from utils.errors import UserError
from utils.files import TEMPORARY, make_folder, take_lock, write_bytes

def write_torch(path: Path, content: Any) -> None:
    """Writes tensors and plain values, atomically, to be read with weights_only=True."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())


def on_cpu(content: Any) -> Any:
    """Dictionaries, lists and tuples with their tensors on the CPU, to be read where there is no GPU."""
    if isinstance(content, torch.Tensor):
        return content.cpu()
    if isinstance(content, dict):
        return {key: on_cpu(value) for key, value in content.items()}
    return type(content)(map(on_cpu, content)) if isinstance(content, (list, tuple)) else content


def read_torch(path: Path) -> Any:
    """Reads what `write_torch` wrote, onto the CPU; nothing but tensors and plain values is accepted.

    Raises:
        UserError: if the file is not there or is something else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # torch.load raises many kinds for a broken or foreign file
        raise UserError(f"{path}: not a checkpoint of this project ({type(error).__name__})") from None


def identity(config: Config) -> str:
    """Eight hexadecimal digits that stand for all settings but seed and places."""
    values = {k: v for k, v in config.entries.items() if k not in NOT_IDENTITY and k != "seed"}
    text = json.dumps({"model": config.model, "dataset": config.dataset, **values}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def folders_text(folders: Iterable[Path]) -> str:
    """Run folders that differ in their seeds alone as a shell would write them: `5f0c2a1b-s{1,2}`; others by spaces."""
    by_stem: dict[str, list[str]] = {}
    for folder in folders:
        stem, _, seed = str(folder).rpartition("-s")
        by_stem.setdefault(stem, []).append(seed)
    return " ".join(
        (f"{stem}-s" if stem else "") + (seeds[0] if len(seeds) == 1 else f"{{{','.join(seeds)}}}")
        for stem, seeds in by_stem.items()
    )


class RunFolder:
    """One run's folder, `OUTPUT_DIR/DATASET/MODEL/IDENTITY-sSEED`, with `_2`, `_3`... for repeated runs.

    While a run is going its folder is locked, so that two processes cannot write into one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    @classmethod
    def new(cls, config: Config) -> RunFolder:
        """Makes a fresh folder; an earlier run is never touched."""
        base = cls._base(config)
        for number in range(1, 10**6):
            path = base if number == 1 else base.with_name(f"{base.name}_{number}")
            if make_folder(path):
                return cls(path)
        raise UserError(f"{base}: too many runs with the same settings")

    @classmethod
    def latest(cls, config: Config) -> RunFolder | None:
        """The newest folder of a run with these settings and seed, or None."""
        base = cls._base(config)
        numbered = {1: base} | {
            int(path.name.rpartition("_")[2]): path
            for path in base.parent.glob(f"{base.name}_*")
            if path.name.rpartition("_")[2].isdigit()
        }
        existing = [number for number, path in numbered.items() if path.is_dir()]
        return cls(numbered[max(existing)]) if existing else None

    @staticmethod
    def _base(config: Config) -> Path:
        folder = Path(config["output_dir"]).expanduser() / config.dataset / config.model
        return folder / f"{identity(config)}-s{config['seed']}"

    def file(self, name: str) -> Path:
        return self.path / name

    def metrics(self) -> dict[str, Any] | None:
        """What metrics.json holds, or None while the run is not finished."""
        try:
            content = json.loads(self.file("metrics.json").read_text())
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) and "status" in content else None

    def manifest(self) -> dict[str, Any]:
        """What manifest.json holds.

        Raises:
            UserError: if it cannot be read.
        """
        path = self.file("manifest.json")
        try:
            content = json.loads(path.read_text())
            if content["hashes"] and content["versions"]["code"]:
                return dict(content)
        except (OSError, ValueError, KeyError, TypeError):
            pass
        raise UserError(f"{path}: not readable, so the data of this run cannot be checked; start it again")

    def lock(self) -> None:
        """Takes the folder for this process.

        Raises:
            UserError: if another process has it.
        """
        lock = take_lock(self.file(".lock"))
        if lock is None:
            raise UserError(f"{self.path}: another process is running here; wait for it or stop it first")
        self._lock = lock
        for left in self.path.rglob(f".*{TEMPORARY}"):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Removes what a process left in a finished run that was killed just after its last write."""
        with contextlib.suppress(UserError):  # somebody is at work in it, or it may only be read
            self.lock()
            for left in self.path.rglob("last.pt"):
                left.unlink()
            self.unlock()

    def unlock(self) -> None:
        if self._lock:
            self.file(".lock").unlink(missing_ok=True)
            self._lock.close()
            self._lock = None


def manifest(config: Config, dataset: Dataset, device: torch.device) -> dict[str, Any]:
    """What someone else needs to get the same numbers: library versions, hashes of the data, seed, protocol, machine."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "status": "running",
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "model": config.model,
        "plugin": {
            "path": config["plugin"],
            "sha256": config["plugin_sha256"],
            "modules": config["plugin_modules"] or {},  # of the tree that it lies in, path to SHA-256
        }
        if config["plugin"]
        else None,
        "dataset": config.dataset,
        "identity": identity(config),
        "seed": config["seed"],
        "protocol": config["protocol"],
        "device": str(device),
        "device_name": name,
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
        "sizes": {"users": dataset.n_users, "items": dataset.n_items}
        | {split: len(dataset.splits[split]) for split in dataset.splits},
        "features": {name: list(matrix.shape) for name, matrix in dataset.features.items()},
        "missing": {name: int((~there).sum()) for name, there in dataset.present.items()},
        "hashes": dataset.fingerprint,
        "warnings": dataset.warnings,
    }


def processor() -> str:
    """The name of the CPU, as far as the system tells it."""
    with contextlib.suppress(OSError):  # Linux alone has this file
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def peak_memory_bytes(device: torch.device) -> dict[str, int]:
    """The most memory this process has held: resident, where the system says it, and on the CUDA device if one is used."""
    memory = {}
    try:
        import resource
    except ImportError:  # not on Windows
        pass
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        memory["resident"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if device.type == "cuda":
        memory["cuda"] = torch.cuda.max_memory_allocated(device)
    return memory


def write_topk(path: Path, users: Sequence[str], topk: Sequence[Sequence[str]]) -> None:
    """Writes `topk.tsv`: a line per user, the user, then items best first."""
    lines = ["\t".join([user, *items]) for user, items in zip(users, topk, strict=True)]
    write_bytes(path, ("\n".join(lines) + "\n").encode())
