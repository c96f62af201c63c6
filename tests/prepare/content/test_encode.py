from __future__ import annotations

import io
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import problems_of
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from prepare.content.encode import EncodeReport, encode
from prepare.content.encoder_registry import ENCODERS, Encoder, EncoderSource, EncoderSpec
from prepare.content.neural import ModuleEncoder, random_weights
from prepare.content.store import ContentStore
from prepare.content.tfidf import TfIdfEncoder

TOPICS = (
    "baby blanket soft cotton",
    "camera lens zoom portrait",
    "running shoe light sole",
    "garden hose brass nozzle",
)


def texts_of(n: int) -> list[tuple[str, bytes]]:
    draw = random.Random(0)
    words = [topic.split() for topic in TOPICS]
    return [
        (f"B{k:04}", " ".join([*draw.choices(words[k % 4], k=draw.randint(2, 9)), f"model{k}"]).encode())
        for k in range(n)
    ]


def images_of(n: int) -> list[tuple[str, bytes]]:
    pixels = np.random.default_rng(0)
    rows = []
    for number in range(n):
        buffer = io.BytesIO()
        size = (10 + number % 7, 12)
        Image.fromarray(pixels.integers(0, 256, size=(*size, 3)).astype(np.uint8)).save(buffer, "PNG")
        rows.append((f"B{number:04}", buffer.getvalue()))
    return rows


def filled(folder: Path, **rows: Sequence[tuple[str, bytes]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with ContentStore.open(folder / "content.lmdb", write=True) as store:
        for kind, entries in rows.items():
            store.put_many(kind, entries)
    return folder / "content.lmdb"


def encoded(path: Path, kind: str, ids: Sequence[str], out: Path | None = None, **spec: Any) -> EncodeReport:
    with ContentStore.open(path) as store:
        return encode(store, kind, ids, spec, out or path.with_name(f"{kind}_feat.npy"))


def made(folder: Path) -> dict[str, bytes]:
    """Every file but the store."""
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".lmdb"}


def small(image: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image.resize((8, 8)), dtype=np.float32).copy()).permute(2, 0, 1) / 255


class Net(ModuleEncoder):
    """A convolution with random weights, through the interface of every image encoder."""

    block = 8
    calls = 0
    stop_at = -1

    def __init__(self, spec: EncoderSpec, reads: str) -> None:
        with random_weights():
            module = nn.Sequential(
                nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)
            )
        super().__init__(module, small, spec.device, spec.layer, spec.pooling)

    def encode(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        Net.calls += 1
        if Net.calls == Net.stop_at:
            raise KeyboardInterrupt
        return super().encode(batch)


@pytest.fixture(autouse=True)
def _net(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODERS, "net", EncoderSource(("image",), Net, ("layer", "pooling", "device")))
    monkeypatch.setattr(Net, "calls", 0)
    monkeypatch.setattr(Net, "stop_at", -1)


def test_rows_are_those_of_their_items(tmp_path: Path) -> None:
    rows = images_of(21)
    path = filled(tmp_path, image=rows)
    ids = [name for name, _ in rows][::-1]
    report = encoded(path, "image", ids, encoder="net", batch_size=4, device="cpu")
    matrix = np.load(tmp_path / "image_feat.npy", allow_pickle=False)
    assert (matrix.shape, matrix.dtype) == ((21, 6), np.float32)
    encoder = Net(EncoderSpec("net", device="cpu"), "image")
    for name, content in rows:
        expected = encoder.encode([small(Image.open(io.BytesIO(content)))])[0]
        np.testing.assert_allclose(matrix[ids.index(name)], expected, rtol=1e-4, atol=1e-6)
    assert (report.items, report.encoded, report.width, report.mask) == (21, 21, 6, None)
    assert sorted(made(tmp_path)) == ["image_feat.npy"]  # no mask, no work folder's files
    assert report.record()["layer"] == "input of 4"


def test_what_cannot_be_encoded_is_counted_masked_and_listed(tmp_path: Path) -> None:
    rows = images_of(30)
    whole = rows[7][1]
    broken = {3: b"", 5: b"not an image", 7: whole[: len(whole) // 2]}
    rows = [(name, broken.get(number, content)) for number, (name, content) in enumerate(rows)]
    ids = ["none", *(name for name, _ in rows), "neither"]
    path = filled(tmp_path, image=rows)
    report = encoded(path, "image", ids, encoder="net", batch_size=4)
    matrix, mask = np.load(tmp_path / "image_feat.npy"), np.load(tmp_path / "image_mask.npy")
    bad = [0, 4, 6, 8, 31]
    assert np.flatnonzero(~mask).tolist() == bad
    assert not matrix[bad].any()
    assert matrix[mask].any(axis=1).all()
    assert report.mask == tmp_path / "image_mask.npy"
    assert report.problems["missing"] == {"none": "no content", "neither": "no content"}
    assert list(report.problems["unreadable"]) == ["B0003", "B0005", "B0007"]
    assert report.problems["unreadable"]["B0003"] == "0 bytes"
    assert report.problems["unreadable"]["B0005"].startswith("not an image")
    assert "truncated" in report.problems["unreadable"]["B0007"]
    record = report.record()
    assert record["items"] == record["encoded"] + record["missing"] + record["empty"] + record["unreadable"] == 32
    assert record["first"]["unreadable"].keys() == {"B0003", "B0005", "B0007"}
    assert json.loads(json.dumps(record)) == record
    assert report.lines() == [
        "image: 32 items: 27 encoded to 6 features, 2 missing, 0 empty, 3 unreadable",
        "  unreadable B0003: 0 bytes",
        f"  unreadable B0005: {report.problems['unreadable']['B0005']}",
        f"  unreadable B0007: {report.problems['unreadable']['B0007']}",
    ]
    # The rows of the others are what they are without the broken ones in their batches.
    good = [name for name, _ in rows if name not in report.problems["unreadable"]]
    encoded(path, "image", good, tmp_path / "good_feat.npy", encoder="net", batch_size=4)
    np.testing.assert_allclose(matrix[mask], np.load(tmp_path / "good_feat.npy"), rtol=1e-4, atol=1e-6)
    # Once all are there, the mask is gone.
    encoded(path, "image", good, encoder="net")
    assert not (tmp_path / "image_mask.npy").exists()


def test_texts_are_encoded_without_further_packages(tmp_path: Path) -> None:
    rows = texts_of(200)
    rows += [("latin", "caméra lens zoom".encode("latin-1")), ("empty", b""), ("blank", b" \n"), ("marks", b"?!")]
    path = filled(tmp_path, text=rows)
    ids = [name for name, _ in rows]
    report = encoded(path, "text", ids, encoder="tfidf", dim=16, normalize=True)
    matrix, mask = np.load(tmp_path / "text_feat.npy"), np.load(tmp_path / "text_mask.npy")
    assert matrix.shape == (204, 16)
    assert np.flatnonzero(~mask).tolist() == [201, 202, 203]
    assert report.problems["empty"] == {"empty": "no text", "blank": "no text", "marks": "no word in it"}
    assert report.replaced == ["latin"]
    assert report.record()["invalid_utf8"] == 1
    np.testing.assert_allclose(np.linalg.norm(matrix[mask], axis=1), 1, rtol=1e-5)
    near = matrix[:200] @ matrix[:200].T
    np.fill_diagonal(near, -2)
    assert (near.argmax(axis=1) % 4 == np.arange(200) % 4).mean() > 0.95  # of the same topic
    assert int((matrix[:200] @ matrix[200]).argmax()) % 4 == 1  # cameras


def test_equal_texts_have_equal_rows_and_the_order_of_items_does_not_matter(tmp_path: Path) -> None:
    rows = [*texts_of(60), ("twin", texts_of(60)[5][1])]
    path = filled(tmp_path, text=rows)
    ids = [name for name, _ in rows]
    encoded(path, "text", ids, encoder="tfidf", dim=8)
    encoded(path, "text", ids[::-1], tmp_path / "other_feat.npy", encoder="tfidf", dim=8)
    matrix, other = np.load(tmp_path / "text_feat.npy"), np.load(tmp_path / "other_feat.npy")
    np.testing.assert_allclose(matrix[5], matrix[60], atol=1e-6)
    # Both are approximations, from the same random start for other rows.
    np.testing.assert_allclose(matrix @ matrix.T, (other @ other.T)[::-1, ::-1], atol=1e-3)


@pytest.mark.parametrize("encoder", ["net", "tfidf"])
def test_stopped_at_any_batch_it_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: str
) -> None:
    kind = {"net": "image", "tfidf": "text"}[encoder]
    monkeypatch.setattr(TfIdfEncoder, "block", 8)
    rows = {"image": images_of(42), "text": texts_of(42)}[kind]
    rows[9] = (rows[9][0], b"")
    ids = [*(name for name, _ in rows), "none"]
    spec = {"encoder": encoder, "batch_size": 4}
    encoded(filled(tmp_path / "whole", **{kind: rows}), kind, ids, **spec)
    expected = made(tmp_path / "whole")
    path = filled(tmp_path / "stopped", **{kind: rows})
    # Stopped after every second file that is put in place, the features themselves among them.
    places = 0
    replace, calls = os.replace, 0

    def stopping(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        replace(*arguments)
        if calls % 2 == 0 and calls <= 14:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stopping)
    while places < 20:
        places += 1
        try:
            report = encoded(path, kind, ids, **spec)
            break
        except KeyboardInterrupt:
            continue
    assert places == 8
    assert made(tmp_path / "stopped") == expected
    assert (report.encoded, len(report.problems["missing"])) == (41, 1)
    monkeypatch.setattr(os, "replace", replace)


def test_blocks_that_are_there_are_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = images_of(40)
    path, ids = filled(tmp_path, image=rows), [name for name, _ in rows]
    monkeypatch.setattr(Net, "stop_at", 8)  # of ten batches, in the fourth block of two
    with pytest.raises(KeyboardInterrupt):
        encoded(path, "image", ids, encoder="net", batch_size=4)
    blocks = sorted(p.name for p in (tmp_path / ".prepare" / "encode_image_feat").rglob("*.npz"))
    assert blocks == ["000000.npz", "000001.npz", "000002.npz"]
    next((tmp_path / ".prepare").rglob("000001.npz")).write_bytes(b"damaged")
    monkeypatch.setattr(Net, "stop_at", -1)
    monkeypatch.setattr(Net, "calls", 0)
    told: list[tuple[float, float]] = []
    with ContentStore.open(path) as store:
        out = tmp_path / "image_feat.npy"
        encode(
            store,
            "image",
            ids,
            {"encoder": "net", "batch_size": 4},
            out,
            progress=lambda done, whole: told.append((done, whole)),
        )
    assert Net.calls == 6  # the damaged block and the two that were not there
    shares = [done / whole for done, whole in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.2, 1.0)
    # Other settings are another result: nothing of the first is used.
    monkeypatch.setattr(Net, "calls", 0)
    monkeypatch.setattr(Net, "stop_at", 4)
    with pytest.raises(KeyboardInterrupt):
        encoded(path, "image", ids, encoder="net", batch_size=4, pooling="max")
    Net.calls = 0
    with pytest.raises(KeyboardInterrupt):
        encoded(path, "image", ids[1:], encoder="net", batch_size=4, pooling="max")
    assert len(list((tmp_path / ".prepare" / "encode_image_feat").iterdir())) == 1


def test_changed_content_is_encoded_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = images_of(24)
    path, ids = filled(tmp_path, image=rows), [name for name, _ in rows]
    monkeypatch.setattr(Net, "stop_at", 5)
    with pytest.raises(KeyboardInterrupt):
        encoded(path, "image", ids, encoder="net", batch_size=4)
    rows[0] = (rows[0][0], images_of(25)[24][1])
    filled(tmp_path, image=rows)
    monkeypatch.setattr(Net, "stop_at", -1)
    encoded(path, "image", ids, encoder="net", batch_size=4)
    fresh = filled(tmp_path / "fresh", image=rows)
    encoded(fresh, "image", ids, encoder="net", batch_size=4)
    assert (tmp_path / "image_feat.npy").read_bytes() == (tmp_path / "fresh" / "image_feat.npy").read_bytes()


@pytest.mark.slow
def test_worker_processes_give_the_same_bytes(tmp_path: Path) -> None:
    rows = [*images_of(20), ("broken", b"GIF89a")]
    path, ids = filled(tmp_path, image=rows), [name for name, _ in rows]
    alone = encoded(path, "image", ids, encoder="net", batch_size=4)
    together = encoded(path, "image", ids, tmp_path / "other_feat.npy", encoder="net", batch_size=4, workers=2)
    assert (tmp_path / "image_feat.npy").read_bytes() == (tmp_path / "other_feat.npy").read_bytes()
    assert (tmp_path / "image_mask.npy").read_bytes() == (tmp_path / "other_mask.npy").read_bytes()
    assert alone.problems == together.problems
    assert alone.encoder == together.encoder


def test_half_precision_and_length_one(tmp_path: Path) -> None:
    rows = images_of(9)
    path, ids = filled(tmp_path, image=rows), [name for name, _ in rows]
    encoded(path, "image", ids, encoder="net")
    encoded(path, "image", ids, tmp_path / "half_feat.npy", encoder="net", dtype="float16", normalize=True)
    matrix, half = np.load(tmp_path / "image_feat.npy"), np.load(tmp_path / "half_feat.npy")
    assert half.dtype == np.float16
    expected = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    np.testing.assert_array_equal(half, expected.astype(np.float16))


class Odd(Encoder):
    """Gives numbers that are none, or too large, for some items."""

    def __init__(self, spec: EncoderSpec, reads: str) -> None:
        self.transform = len
        self.large = 1e30 if spec.dim == 1 else 1.0

    def encode(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        return np.array([[np.nan if size == 3 else size, self.large] for size in batch], dtype=np.float32)

    def record(self) -> dict[str, Any]:
        return {}


def test_numbers_that_are_none_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODERS, "odd", EncoderSource(("text",), Odd, ("dim",)))
    path = filled(tmp_path, text=[("a", b"four"), ("b", b"two"), ("c", b"seven")])
    report = encoded(path, "text", ["a", "b", "c"], encoder="odd")
    assert report.problems["unreadable"] == {"b": "the encoder gave NaN or infinite values"}
    assert np.load(tmp_path / "text_feat.npy").tolist() == [[4, 1], [0, 0], [5, 1]]
    assert np.load(tmp_path / "text_mask.npy").tolist() == [True, False, True]
    (problem,) = problems_of(lambda: encoded(path, "text", ["a", "c"], encoder="odd", dim=1, dtype="float16"))
    assert "values up to 1e+30 do not fit float16" in problem
    assert not list(tmp_path.glob(".text*"))
    assert np.load(tmp_path / "text_feat.npy").tolist() == [[4, 1], [0, 0], [5, 1]]  # the earlier one is kept


def test_nothing_to_encode_is_an_error(tmp_path: Path) -> None:
    path = filled(tmp_path, image=[("a", b""), ("b", b"junk")])
    (problem,) = problems_of(lambda: encoded(path, "image", ["x", "y"], encoder="net"))
    assert "image: none of the 2 items has content in" in problem
    (problem,) = problems_of(lambda: encoded(path, "image", ["x", "a", "b"], encoder="net"))
    assert problem == "image: none of the 3 items can be encoded (first: a: unreadable: 0 bytes)"
    assert not list(tmp_path.glob("*.npy"))
