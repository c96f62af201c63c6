"""Encoders by name: which there are, what they need, and the settings that choose one."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from utils.config.schema import check_value, fill, keys_of, setting
from utils.errors import UserError, nearest
from utils.paths import own_module

TEXT, IMAGE = "text", "image"
POOLINGS = ("mean", "max", "cls", "flatten")


class BadContent(Exception):
    """Content that cannot be encoded; the message says why."""


@dataclass(frozen=True)
class EncoderSpec:
    """What chooses an encoder; each encoder has a use for some of the keys only."""

    encoder: str = setting("name of the encoder")
    model: str | None = setting("name, or folder, of the model", default=None)
    weights: str = setting("default: those published for the model; none: random ones; or a file", default="default")
    layer: str | None = setting(
        "module whose output is taken; null: what goes into the last linear layer", default=None
    )
    pooling: str | None = setting("of a layer's positions; null: the model's own", default=None, choices=POOLINGS)
    reads: str | None = setting(
        "what the content is, where the encoder knows both", default=None, choices=(TEXT, IMAGE)
    )
    dim: int = setting("largest number of features", low=1, default=384)
    normalize: bool = setting("scale every row to length 1", default=False)
    dtype: str = setting("of the numbers on disk", default="float32", choices=("float32", "float16"))
    batch_size: int = setting("items encoded at a time", low=1, default=64)
    device: str = setting("auto, cpu, cuda or cuda:N", default="auto")
    workers: int = setting("processes that read and decode; 0: this one", low=0, high=256, default=0)


class Encoder(ABC):
    """Turns batches of contents into rows of features.

    Attributes:
        block: items after which what was computed is written down.
        transform: makes what a batch is made of from a text (str) or an image (PIL, RGB); may raise BadContent. It is
            sent to worker processes.
    """

    block = 512
    transform: Callable[[Any], Any]

    @abstractmethod
    def encode(self, batch: Sequence[Any]) -> NDArray[np.float32] | sp.csr_matrix:
        """Rows [B, F] of a batch of transformed contents; sparse where `finish` has to see all of them first."""

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """What was used: model, weights, layer, pooling, versions."""

    def finish(self, table: sp.csr_matrix, tick: Callable[[float], object]) -> NDArray[np.float32]:
        """The rows [n, F] of sparse rows [n, V] of all items, in order of the items."""
        raise NotImplementedError


@dataclass(frozen=True)
class EncoderSource:
    """An encoder that a name stands for.

    Attributes:
        reads: text, image or both.
        build: makes it, given the settings and what is read.
        uses: the keys of EncoderSpec that it has a use for, besides those of all encoders.
        needs: modules that must be importable, and what installs them.
        model: its model if none is named; None: one must be named where `model` is among `uses`.
    """

    reads: tuple[str, ...]
    build: Callable[[EncoderSpec, str], Encoder]
    uses: tuple[str, ...] = ()
    needs: tuple[tuple[str, str], ...] = ()
    model: str | None = None


def _built_by(module: str, name: str) -> Callable[[EncoderSpec, str], Encoder]:
    """Builds the encoder of a module, which is imported only then."""

    def build(spec: EncoderSpec, reads: str) -> Encoder:
        encoder: Encoder = getattr(own_module(f"prepare.content.{module}"), name)(spec, reads)
        return encoder

    return build


_PILLOW = ("PIL", "pillow")
_OF_IMAGES = ("model", "weights", "layer", "pooling", "device")
ENCODERS: dict[str, EncoderSource] = {
    "tfidf": EncoderSource((TEXT,), _built_by("tfidf", "TfIdfEncoder"), ("dim",), (("sklearn", "scikit-learn"),)),
    "sentence-transformers": EncoderSource(
        (TEXT,), _built_by("neural", "SentenceEncoder"), ("model", "pooling", "device"),
        (("sentence_transformers", "sentence-transformers"),), "sentence-transformers/all-MiniLM-L6-v2",
    ),
    "torchvision": EncoderSource(
        (IMAGE,), _built_by("neural", "TorchvisionEncoder"), _OF_IMAGES, (("torchvision", "torchvision"), _PILLOW),
        "resnet50",
    ),
    "timm": EncoderSource((IMAGE,), _built_by("neural", "TimmEncoder"), _OF_IMAGES, (("timm", "timm"), _PILLOW)),
    "clip": EncoderSource(
        (TEXT, IMAGE), _built_by("neural", "ClipEncoder"), ("model", "reads", "device"),
        (("transformers", "transformers"), _PILLOW), "openai/clip-vit-base-patch32",
    ),
}  # fmt: skip
OF_ALL = ("encoder", "normalize", "dtype", "batch_size", "workers")


def check_spec(content: Mapping[str, Any], kind: str) -> EncoderSpec:
    """The settings of an encoder for content of a kind, checked; nothing is loaded.

    Raises:
        UserError: with a line for each thing that is wrong, or for a package that is not installed.
    """
    keys = keys_of(EncoderSpec)
    name = content.get("encoder")
    if not isinstance(name, str) or name not in ENCODERS:
        guess = nearest(str(name), ENCODERS) if name else ""
        raise UserError(f"{kind}: unknown encoder {name!r}{guess}; there are {', '.join(ENCODERS)}")
    source = ENCODERS[name]
    known = [*OF_ALL, *source.uses]
    problems = []
    values = {key: keys[key].default for key in keys if key != "encoder"}
    for key, value in content.items():
        if key not in known:
            what = "has no use for" if key in keys else "does not know"
            problems.append(
                f"{kind}: encoder {name} {what} the key '{key}'{nearest(key, known)}; it has {', '.join(known)}"
            )
            continue
        try:
            values[key] = check_value(keys[key], value)
        except ValueError as error:
            problems.append(f"{kind}: {key}: {error}")
    if problems:
        raise UserError(*problems)
    if "model" in source.uses:
        values["model"] = values["model"] or source.model
        if values["model"] is None:
            raise UserError(f"{kind}: encoder {name}: name a model, for example --model resnet50.a1_in1k")
    reads = values["reads"] or (kind if kind in source.reads else source.reads[-1])
    if reads not in source.reads:
        raise UserError(f"{kind}: encoder {name} reads {' or '.join(source.reads)}, not {reads}")
    values["reads"] = reads
    for module, package in source.needs:
        if importlib.util.find_spec(module) is None:
            raise UserError(f"{kind}: encoder {name} needs {package}: pip install {package}")
    spec: EncoderSpec = fill(EncoderSpec, values)
    return spec


def build(spec: EncoderSpec) -> Encoder:
    """Loads the encoder of checked settings.

    Raises:
        UserError: if its model cannot be loaded.
    """
    return ENCODERS[spec.encoder].build(spec, spec.reads or ENCODERS[spec.encoder].reads[0])


def described(spec: EncoderSpec, encoder: Encoder) -> dict[str, Any]:
    """All that the features depend on besides the content, for a manifest."""
    used = [key for key in asdict(spec) if key in (*OF_ALL, *ENCODERS[spec.encoder].uses, "reads")]
    chosen = {key: value for key, value in asdict(spec).items() if key in used and key != "workers"}
    return chosen | encoder.record()


def versions(*packages: str) -> dict[str, str]:
    """Versions of installed packages."""
    return {package: importlib.metadata.version(package) for package in packages}
