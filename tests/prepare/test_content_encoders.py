from __future__ import annotations

import io
import itertools
import pickle
import re
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from helpers import problems_of
from PIL import Image
from torch import nn

from prepare.content import neural, tfidf
from prepare.content.decode import image_of, text_of
from prepare.content.encoder_registry import ENCODERS, BadContent, TfIdfEncoder, check_spec, described


def table_of(*texts: str) -> sp.csr_matrix:
    return tfidf.counts([tfidf.terms(text) for text in texts])


def picture(format: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (9, 7), colour: Any = None) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour if colour is not None else 0).save(buffer, format)
    return buffer.getvalue()


# TF-IDF


def test_terms_are_words_and_pairs_under_a_hash_that_is_the_same_everywhere() -> None:
    expected = [zlib.crc32(term) % 2**18 for term in (b"red", b"shoe", b"42", b"red shoe", b"shoe 42")]
    assert tfidf.terms("  Red,SHOE -- 42!").tolist() == expected
    assert expected[0] == 0x15F8F  # worked out once: another hash would change everybody's features
    assert tfidf.terms("!?").tolist() == []
    code = "import sys; sys.path.insert(0, sys.argv[1]); from prepare.content import tfidf; "
    code += "print(list(tfidf.terms('Red shoe 42')))"
    source = str(Path(tfidf.__file__).resolve().parents[2])
    done = subprocess.run([sys.executable, "-c", code, source], capture_output=True, text=True, check=True, timeout=120)
    assert [int(word) for word in re.findall(r"\b\d+\b", done.stdout)] == expected


def test_weights_against_a_naive_computation() -> None:
    texts = ["a b a", "b c", "c c c d"]
    documents = []
    for text in texts:
        words = text.split()
        documents.append([*words, *map(" ".join, itertools.pairwise(words))])
    vocabulary = sorted({term for terms in documents for term in terms})
    naive = np.zeros((3, len(vocabulary)))
    for row, terms in enumerate(documents):
        for column, term in enumerate(vocabulary):
            if term in terms:
                having = sum(term in other for other in documents)
                naive[row, column] = (1 + np.log(terms.count(term))) * (np.log((1 + 3) / (1 + having)) + 1)
        naive[row] /= np.sqrt((naive[row] ** 2).sum())
    matrix = tfidf.weighted(table_of(*texts))
    assert matrix.shape == naive.shape
    # Columns stand in the order of their hashes.
    order = np.argsort([zlib.crc32(term.encode()) % tfidf.N_TERMS for term in vocabulary])
    np.testing.assert_allclose(matrix.toarray(), naive[:, order], rtol=1e-6)


def test_reduced_rows_have_the_inner_products_of_the_best_approximation() -> None:
    random = np.random.default_rng(0)
    dense = (random.standard_normal((80, 12)) @ random.standard_normal((12, 300))).astype(np.float32)
    dense += 0.01 * random.standard_normal(dense.shape).astype(np.float32)
    told: list[float] = []
    rows = tfidf.reduce(sp.csr_matrix(dense), 10, told.append)
    left, values, _ = np.linalg.svd(dense.astype(np.float64), full_matrices=False)
    assert rows.shape == (80, 10)
    assert rows.dtype == np.float32
    exact = left[:, :10] * values[:10]
    np.testing.assert_allclose(np.abs(rows), np.abs(exact), atol=1e-3 * values[0])
    assert (rows[np.abs(rows).argmax(axis=0), np.arange(10)] > 0).all()
    assert told[-1] == 1.0
    assert told == sorted(told)


def test_reducing_twice_gives_the_same_bits_and_no_more_columns_than_the_rank() -> None:
    texts = [f"item number {k} is about topic {k % 5}" for k in range(40)]
    first, second = (tfidf.reduce(tfidf.weighted(table_of(*texts)), 384, lambda s: None) for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert first.shape[1] <= 40
    same = tfidf.reduce(tfidf.weighted(table_of("one text", "one text", "one text")), 384, lambda s: None)
    np.testing.assert_allclose(same, np.ones((3, 1)), rtol=1e-5)


def test_texts_about_the_same_are_near() -> None:
    texts = [
        "soft cotton baby blanket",
        "baby blanket of soft wool",
        "camera lens for portraits",
        "portraits camera with lens",
    ]
    rows = tfidf.reduce(tfidf.weighted(table_of(*texts)), 384, lambda s: None)
    near = rows @ rows.T
    np.fill_diagonal(near, -1)
    assert near.argmax(axis=1).tolist() == [1, 0, 3, 2]


# Settings


def test_settings_are_checked() -> None:
    spec = check_spec({"encoder": "tfidf", "dim": 8, "normalize": True}, "text")
    assert (spec.dim, spec.normalize, spec.dtype, spec.reads) == (8, True, "float32", "text")
    (problem,) = problems_of(lambda: check_spec({"encoder": "tfdif"}, "text"))
    assert problem.startswith(
        "text: unknown encoder 'tfdif' (did you mean 'tfidf'?); there are tfidf, sentence-transformers,"
    )
    (problem,) = problems_of(lambda: check_spec({}, "text"))
    assert "unknown encoder None; there are" in problem
    problems = problems_of(
        lambda: check_spec({"encoder": "tfidf", "dim": 0, "layer": "x", "dims": 3, "dtype": "int8"}, "text")
    )
    assert problems[0] == "text: dim: expected an integer of at least 1, got 0"
    assert problems[1].startswith("text: encoder tfidf has no use for the key 'layer'")
    assert problems[2].startswith("text: encoder tfidf does not know the key 'dims' (did you mean 'dim'?)")
    assert problems[3] == "text: dtype: expected a word out of float32, float16, got 'int8'"
    (problem,) = problems_of(lambda: check_spec({"encoder": "torchvision", "reads": "text"}, "text"))
    assert "no use for the key 'reads'" in problem


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for encoder, package in (
        ("sentence-transformers", "sentence-transformers"),
        ("torchvision", "torchvision"),
        ("clip", "transformers"),
    ):
        (problem,) = problems_of(lambda encoder=encoder: check_spec({"encoder": encoder}, "text"))
        assert problem == f"text: encoder {encoder} needs {package}: pip install {package}"
    (problem,) = problems_of(lambda: check_spec({"encoder": "timm"}, "image"))
    assert "name a model" in problem


def test_an_encoder_of_texts_and_images_reads_what_its_kind_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert check_spec({"encoder": "clip"}, "text").reads == "text"
    assert check_spec({"encoder": "clip"}, "image").reads == "image"
    assert check_spec({"encoder": "clip"}, "cover").reads == "image"
    assert check_spec({"encoder": "clip", "reads": "text"}, "title").reads == "text"
    assert check_spec({"encoder": "tfidf"}, "title").reads == "text"
    assert check_spec({"encoder": "torchvision"}, "image").model == "resnet50"
    assert check_spec({"encoder": "sentence-transformers"}, "text").model == "sentence-transformers/all-MiniLM-L6-v2"


def test_the_record_holds_what_the_result_depends_on() -> None:
    spec = check_spec({"encoder": "tfidf", "dim": 8, "workers": 3}, "text")
    record = described(spec, TfIdfEncoder(spec, "text"))
    assert record["versions"].keys() == {"numpy", "scipy"}
    assert {k: v for k, v in record.items() if k not in ("versions", "model")} == {
        "encoder": "tfidf", "dim": 8, "reads": "text", "normalize": False, "dtype": "float32", "batch_size": 64,
    }  # fmt: skip
    assert all(source.reads for source in ENCODERS.values())


# Modules


class Net(nn.Module):
    """Two convolutions and a classifier, random weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2)
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 6, 3))
        self.head = nn.Linear(6, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.body(self.stem(images)).amax(dim=(2, 3)))
        return out


def net() -> Net:
    with neural.random_weights():
        return Net().eval()


def batch(n: int = 3) -> list[torch.Tensor]:
    return list(torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(0)))


def test_without_a_layer_it_is_what_goes_into_the_last_linear_one() -> None:
    module, images = net(), batch()
    encoder = neural.ModuleEncoder(module, torch.as_tensor)
    with torch.no_grad():
        expected = module.body(module.stem(torch.stack(images))).amax(dim=(2, 3))
    np.testing.assert_array_equal(encoder.encode(images), expected.numpy())
    assert encoder.record()["layer"] == "input of head"


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        (None, lambda maps: maps.mean(dim=(2, 3))),
        ("mean", lambda maps: maps.mean(dim=(2, 3))),
        ("max", lambda maps: maps.amax(dim=(2, 3))),
        ("flatten", lambda maps: maps.reshape(len(maps), -1)),
    ],
)
def test_layers_and_poolings(pooling: str | None, expected: Any) -> None:
    module, images = net(), batch()
    encoder = neural.ModuleEncoder(module, torch.as_tensor, layer="body.0", pooling=pooling)
    with torch.no_grad():
        maps = module.body[0](module.stem(torch.stack(images)))
    np.testing.assert_allclose(encoder.encode(images), expected(maps).numpy(), rtol=1e-6)


def test_poolings_of_tokens() -> None:
    tokens = torch.arange(24.0).reshape(2, 3, 4)
    assert neural.pool(tokens, "cls").tolist() == [[0, 1, 2, 3], [12, 13, 14, 15]]
    assert neural.pool(tokens, "mean").tolist() == [[4, 5, 6, 7], [16, 17, 18, 19]]
    assert neural.pool(tokens, "max").tolist() == [[8, 9, 10, 11], [20, 21, 22, 23]]
    assert neural.pool(tokens[:, 0], "max").tolist() == tokens[:, 0].tolist()
    (problem,) = problems_of(lambda: neural.pool(torch.zeros(2, 3, 4, 5), "cls"))
    assert "no first token" in problem
    (problem,) = problems_of(lambda: neural.pool((tokens,), None))
    assert "its output is tuple" in problem
    (problem,) = problems_of(lambda: neural.pool(torch.zeros(2), None))
    assert "its output is [2]" in problem


def test_layers_that_are_not_there_are_refused() -> None:
    (problem,) = problems_of(lambda: neural.ModuleEncoder(net(), torch.as_tensor, layer="boby"))
    assert problem == "layer: no module 'boby' (did you mean 'body'?); the model starts with stem, body, head"
    (problem,) = problems_of(lambda: neural.ModuleEncoder(net().stem, torch.as_tensor))
    assert "no linear layer" in problem


def test_random_weights_are_the_same_each_time_and_leave_the_stream_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = net(), net()
    assert torch.equal(torch.rand(3), expected)
    assert neural.digest(first) == neural.digest(second)
    with torch.no_grad():
        second.head.bias[0] += 1
    assert neural.digest(first) != neural.digest(second)


def test_weights_come_from_a_file(tmp_path: Path) -> None:
    source, target = net(), Net()
    path = tmp_path / "weights.pt"
    for content in (
        source.state_dict(),
        {"state_dict": source.state_dict(), "epoch": 3},
        {"model": {f"module.{name}": tensor for name, tensor in source.state_dict().items()}},
    ):
        with torch.no_grad():
            target.head.bias += 1
        torch.save(content, path)
        neural.load_weights(target, str(path))
        assert neural.digest(source) == neural.digest(target)
    before = neural.digest(target)
    neural.load_weights(target, "none")
    torch.save(nn.Linear(2, 2).state_dict(), path)
    (problem,) = problems_of(lambda: neural.load_weights(target, str(path)))
    assert "of another model" in problem
    torch.save([1, 2], path)
    (problem,) = problems_of(lambda: neural.load_weights(target, str(path)))
    assert "expected a mapping of names to tensors" in problem
    (problem,) = problems_of(lambda: neural.load_weights(target, str(tmp_path / "no.pt")))
    assert "no file" in problem
    assert neural.digest(target) == before


class Harmful:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.mark,)


def test_weights_that_are_no_weights_run_nothing(tmp_path: Path) -> None:
    path, mark = tmp_path / "weights.pt", tmp_path / "mark"
    torch.save({"a": Harmful(mark)}, path)
    plain = tmp_path / "plain.pt"
    plain.write_bytes(pickle.dumps(Harmful(mark)))
    broken = tmp_path / "broken.pt"
    broken.write_bytes(path.read_bytes()[:100])
    empty = tmp_path / "empty.pt"
    empty.write_bytes(b"")
    for file in (path, plain, broken, empty):
        (problem,) = problems_of(lambda file=file: neural.load_weights(net(), str(file)))
        assert "not a file of weights" in problem
    assert not mark.exists()


def test_a_model_is_a_folder_an_installed_package_or_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "my_packaged_model" / "files" / "model"
    inside.mkdir(parents=True)
    (tmp_path / "my_packaged_model" / "__init__.py").write_text("raise RuntimeError('a lookup must not run this')\n")
    (inside / "config.json").write_text("{}")
    monkeypatch.syspath_prepend(tmp_path)
    assert neural.model_folder(str(tmp_path)) == str(tmp_path)
    assert neural.model_folder("my-packaged-model") == str(inside)
    assert neural.model_folder("somebody/some-model") == "somebody/some-model"
    assert neural.model_folder("json") == "json"  # a package without a model


# Decoding


def test_texts_are_utf8_and_others_are_mended() -> None:
    assert text_of("naïve ☃".encode()) == ("naïve ☃", False)
    assert text_of("naïve".encode("latin-1")) == ("na\ufffdve", True)
    for content in (b"", b" \n\t", "\u3000".encode()):
        with pytest.raises(BadContent, match="no text"):
            text_of(content)


@pytest.mark.parametrize(
    ("format", "mode", "colour"),
    [
        ("JPEG", "RGB", (10, 200, 30)),
        ("JPEG", "L", 77),
        ("JPEG", "CMYK", (10, 20, 30, 40)),
        ("PNG", "P", 3),
        ("PNG", "1", 1),
        ("PNG", "I;16", 4000),
        ("GIF", "P", 1),
        ("BMP", "RGB", (1, 2, 3)),
        ("TIFF", "RGB", (1, 2, 3)),
        ("PNG", "LA", (9, 255)),
    ],
)
def test_images_of_all_modes_become_rgb(format: str, mode: str, colour: Any) -> None:
    image = image_of(memoryview(picture(format, mode, colour=colour)))
    assert (image.mode, image.size) == ("RGB", (9, 7))


def test_what_is_transparent_is_white() -> None:
    image = image_of(picture("PNG", "RGBA", colour=(200, 0, 0, 0)))
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert image_of(picture("PNG", "RGBA", colour=(200, 0, 0, 255))).getpixel((0, 0)) == (200, 0, 0)


def test_images_stand_upright() -> None:
    image = Image.new("RGB", (9, 7))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    assert image_of(buffer.getvalue()).size == (7, 9)


def noise(format: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, size=(64, 64, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes"),
        (b"<html>404 not found</html>", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "not an image"),
        (noise()[:1500], "truncated"),
        (noise("PNG")[:1500], "truncated"),
        (noise()[:3], "not an image"),
    ],
)
def test_broken_images_have_a_reason(content: bytes, reason: str) -> None:
    with pytest.raises(BadContent, match=reason):
        image_of(content)


def test_images_damaged_anywhere_are_read_or_refused() -> None:
    random = np.random.default_rng(0)
    refused = 0
    for format in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"):
        whole = noise(format)
        for _ in range(30):
            broken = bytearray(whole)
            for place in random.integers(0, min(len(broken), 400), size=4):
                broken[place] = int(random.integers(256))
            try:
                assert image_of(bytes(broken)).mode == "RGB"
            except BadContent:
                refused += 1
    assert refused > 20


def test_bombs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    content = picture(size=(60, 50))
    for limit in (2000, 1000):  # Pillow warns of the first, and refuses the second
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(BadContent, match=f"more than {limit:,} pixels"):
            image_of(content)
