"""Settings of encoders, layers and poolings of models, and files of weights."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import problems_of
from torch import nn

from prepare.content import neural
from prepare.content.encoder_registry import ENCODERS, build, check_spec, described

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
        ("tfidf", "scikit-learn"),
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
    record = described(spec, build(spec))
    assert record["versions"].keys() == {"numpy", "scipy", "scikit-learn"}
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
