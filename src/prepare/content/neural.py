"""Encoders of optional packages: sentence-transformers, torchvision, timm, and CLIP-like models of transformers."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prepare.content.encoder_registry import TEXT, Encoder, EncoderSpec, versions
from runner.quick_start import pick_device
from utils.errors import UserError, nearest

SEED = 0  # of random weights
BROKEN = (pickle.UnpicklingError, struct.error, zipfile.BadZipFile)
NESTED = ("state_dict", "model")  # under which training scripts save the weights


class ModuleEncoder(Encoder):
    """Images through a module: what one of its layers gives, pooled over positions.

    Args:
        module: takes [B, 3, H, W].
        transform: makes a tensor [3, H, W] from an image.
        layer: name of the submodule whose output is taken. None: what goes into the last linear layer, or with `whole_model`
            what comes out of the module.
        pooling: see `pool`; None: `mean` of what has positions.
    """

    def __init__(
        self,
        module: nn.Module,
        transform: Callable[[Any], Any],
        device: str = "cpu",
        layer: str | None = None,
        pooling: str | None = None,
        whole_model: bool = False,
    ) -> None:
        self.device = pick_device(device)
        self.module = module.eval().to(self.device)
        self.transform = transform
        self.pooling = pooling
        self.caught: Tensor | None = None
        self.layer = layer
        if layer is not None:
            named = dict(module.named_modules())
            if layer not in named:
                first = ", ".join(list(dict.fromkeys(name.partition(".")[0] for name in named if name)))
                raise UserError(f"layer: no module '{layer}'{nearest(layer, named)}; the model starts with {first}")
            named[layer].register_forward_hook(self._catch)
        elif not whole_model:
            linear = [(name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear)]
            if not linear:
                raise UserError("layer: the model has no linear layer at its end; name the layer whose output to take")
            self.layer = f"input of {linear[-1][0]}"
            linear[-1][1].register_forward_pre_hook(self._catch)

    def _catch(self, module: nn.Module, inputs: Any, output: Any = None) -> None:
        self.caught = inputs[0] if output is None else output

    @torch.inference_mode()
    def encode(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        self.caught = None
        output = self.module(torch.stack(list(batch)).to(self.device))
        return pool(self.caught if self.layer is not None else output, self.pooling).float().cpu().numpy()

    def record(self) -> dict[str, Any]:
        return {"layer": self.layer, "pooling": self.pooling, "weights_sha256": digest(self.module)}


class TorchvisionEncoder(ModuleEncoder):
    """An image model of torchvision, with the preprocessing that its weights were trained with."""

    def __init__(self, spec: EncoderSpec, reads: str) -> None:
        with loading("torchvision"):
            from torchvision import models
        name = str(spec.model)
        if name not in models.list_models():
            raise UserError(f"model: torchvision has no '{name}'{nearest(name, models.list_models())}")
        published = models.get_model_weights(name)["DEFAULT"]
        with loading(name), random_weights():
            module = models.get_model(name, weights=published if spec.weights == "default" else None)
        load_weights(module, spec.weights)
        super().__init__(module, published.transforms(), spec.device, spec.layer, spec.pooling)

    def record(self) -> dict[str, Any]:
        return super().record() | {"versions": versions("torch", "torchvision", "pillow")}


class TimmEncoder(ModuleEncoder):
    """An image model of timm without its classifier, with its own preprocessing."""

    def __init__(self, spec: EncoderSpec, reads: str) -> None:
        with loading("timm"):
            import timm
        name = str(spec.model)
        if not timm.is_model(name):
            raise UserError(f"model: timm has no '{name}'{nearest(name, timm.list_models())}")
        with loading(name), random_weights():
            module = timm.create_model(name, pretrained=spec.weights == "default")
        load_weights(module, spec.weights)
        module.reset_classifier(0)
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(module), is_training=False)
        super().__init__(module, transform, spec.device, spec.layer, spec.pooling, whole_model=True)

    def record(self) -> dict[str, Any]:
        return super().record() | {"versions": versions("torch", "torchvision", "timm", "pillow")}


class SentenceEncoder(Encoder):
    """A model of sentence-transformers; its own pooling unless another one is named."""

    def __init__(self, spec: EncoderSpec, reads: str) -> None:
        with loading("sentence-transformers"):
            from sentence_transformers import SentenceTransformer
            from transformers.utils.logging import disable_progress_bar
        disable_progress_bar()  # of loading, which would stand in the way of ours
        folder = model_folder(str(spec.model))
        device = pick_device(spec.device)
        with loading(str(spec.model)):
            self.model = SentenceTransformer(folder, device=str(device))
        self.transform = _as_it_is
        self.pooling = spec.pooling
        self.batch_size = spec.batch_size

    def encode(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        texts = list(batch)
        if self.pooling is None:
            vectors = self.model.encode(
                texts, batch_size=self.batch_size, show_progress_bar=False, convert_to_numpy=True
            )
            return np.asarray(vectors, dtype=np.float32)
        tokens: Any = self.model.encode(
            texts, batch_size=self.batch_size, show_progress_bar=False, output_value="token_embeddings"
        )
        return torch.cat([pool(rows[None], self.pooling) for rows in tokens]).float().cpu().numpy()

    def record(self) -> dict[str, Any]:
        return {
            "max_length": self.model.max_seq_length,
            "weights_sha256": digest(self.model),
            "versions": versions("torch", "sentence-transformers", "transformers"),
        }


class ClipEncoder(Encoder):
    """The text or image side of a CLIP-like model (CLIP, SigLIP, ALIGN...) of transformers."""

    def __init__(self, spec: EncoderSpec, reads: str) -> None:
        with loading("transformers"):
            from transformers import AutoImageProcessor, AutoModel, AutoTokenizer
            from transformers.utils.logging import disable_progress_bar
        disable_progress_bar()
        self.reads = reads
        self.device = pick_device(spec.device)
        folder = model_folder(str(spec.model))
        with loading(str(spec.model)):
            self.model = AutoModel.from_pretrained(folder).eval().to(self.device)
            if reads == TEXT:
                self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
                self.transform = _as_it_is
            else:
                self.transform = _Pixels(AutoImageProcessor.from_pretrained(folder))
        if not hasattr(self.model, f"get_{reads}_features"):
            raise UserError(f"model: {spec.model} gives no {reads} features: it is no CLIP-like model")

    @torch.inference_mode()
    def encode(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        if self.reads == TEXT:
            # SigLIP was trained on texts padded to the full length, and without a mask.
            padding = "max_length" if "siglip" in self.model.config.model_type else True
            inputs = self.tokenizer(list(batch), padding=padding, truncation=True, return_tensors="pt").to(self.device)
            found = self.model.get_text_features(**inputs)
        else:
            found = self.model.get_image_features(pixel_values=torch.stack(list(batch)).to(self.device))
        # Later versions of transformers return the features as one of several outputs.
        rows = found if isinstance(found, Tensor) else found.pooler_output
        return rows.float().cpu().numpy()

    def record(self) -> dict[str, Any]:
        return {"weights_sha256": digest(self.model), "versions": versions("torch", "transformers", "pillow")}


class _Pixels:
    """An image as the tensor [3, H, W] that a processor of transformers makes of it."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, image: Any) -> Tensor:
        pixels: Tensor = self.processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels


def _as_it_is(text: str) -> str:
    return text


def pool(output: Any, pooling: str | None) -> Tensor:
    """The output of a layer as rows [B, F].

    Args:
        output: [B, F], or with positions: tokens [B, T, F] or maps [B, F, H, W].
        pooling: `mean` or `max` over the positions, `cls` the first token, `flatten` all of them; None is `mean`.

    Raises:
        UserError: if the output is something else.
    """
    if not isinstance(output, Tensor) or output.ndim not in (2, 3, 4):
        shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(f"layer: its output is {shape}, expected [B, F], [B, T, F] or [B, F, H, W]; name another layer")
    if output.ndim == 2:
        return output
    if pooling == "flatten":
        return output.flatten(1)
    if pooling == "cls":
        if output.ndim == 4:
            raise UserError("pooling: the layer gives maps [B, F, H, W], which have no first token; use mean or max")
        return output[:, 0]
    tokens = output if output.ndim == 3 else output.flatten(2).transpose(1, 2)  # [B, T, F]
    return tokens.amax(1) if pooling == "max" else tokens.mean(1)


def digest(module: nn.Module) -> str:
    """SHA-256 over the names and bytes of all weights and buffers."""
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if isinstance(tensor, Tensor):
            found.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
            found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


@contextlib.contextmanager
def random_weights() -> Iterator[None]:
    """Weights drawn inside are the same each time; the global stream is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        yield


@contextlib.contextmanager
def loading(what: str) -> Iterator[None]:
    """Turns what packages raise for a model that is not there, or that they cannot fetch, into a UserError."""
    try:
        yield
    except (OSError, ImportError, ValueError, RuntimeError, LookupError, TypeError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"{what}: cannot be loaded ({reason}); expected a model's name or a folder or file of it"
        ) from None


def load_weights(module: nn.Module, word: str) -> None:
    """Loads a file of weights (.pt, .pth or .safetensors) into a module; `default` and `none` are no files.

    Raises:
        UserError: if it is not there or does not fit.
    """
    if word in ("default", "none"):
        return
    path = Path(word).expanduser()
    if not path.is_file():
        raise UserError(f"weights: no file {path}; expected default, none or a file")
    content = _weights_of(path)
    for name in NESTED:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not all(isinstance(entry, Tensor) for entry in content.values()):
        raise UserError(f"weights: {path}: expected a mapping of names to tensors")
    content = {name.removeprefix("module."): tensor for name, tensor in content.items()}
    try:
        module.load_state_dict(content)
    except RuntimeError as error:
        raise UserError(f"weights: {path}: of another model ({' '.join(str(error).split())[:200]})") from None


def _weights_of(path: Path) -> Any:
    if path.suffix == ".safetensors":
        with loading("safetensors"):
            from safetensors import SafetensorError
            from safetensors.torch import load_file
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"weights: {path}: not a .safetensors file ({error})") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an older or newer pickle protocol
            return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, TypeError, LookupError, EOFError, AttributeError, *BROKEN) as error:
        raise UserError(f"weights: {path}: not a file of weights ({type(error).__name__})") from None


def model_folder(word: str) -> str:
    """A folder as it is; of an installed package the folder in it that holds a model; else the word, a name on the hub."""
    path = Path(word).expanduser()
    if path.is_dir():
        return str(path)
    name = word.replace("-", "_")
    package = importlib.util.find_spec(name) if name.isidentifier() else None  # looked up, not imported
    for place in (package.submodule_search_locations or ()) if package else ():
        for mark in ("modules.json", "config.json"):
            for found in sorted(Path(place).rglob(mark)):
                return str(found.parent)
    return word
