"""Texts and images from bytes: all modes of images are read, and what is none has a reason."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import problems_of
from PIL import Image

from prepare.content.encoder_registry import BadContent
from prepare.content.images import file_rows, find_images, image_of, text_of


def picture(format: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (9, 7), colour: Any = None) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour if colour is not None else 0).save(buffer, format)
    return buffer.getvalue()


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


def test_images_are_found_by_the_item_in_their_name(tmp_path: Path) -> None:
    for name in ("h.bmp", "a.jpg", "b.JPEG", "c.d.png", "e.txt", "f", "é.webp"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "g.png").mkdir()
    found, missing, others = find_images(tmp_path, ["c.d", "a", "b", "e", "f", "g", "e\u0301"])
    assert {name: path.name for name, path in found.items()} == {
        "c.d": "c.d.png", "a": "a.jpg", "b": "b.JPEG", "e\u0301": "é.webp",
    }  # fmt: skip
    assert missing == ["e", "f", "g"]
    assert others == ["h.bmp"]
    (tmp_path / "a.png").write_bytes(b"x")
    (problem,) = problems_of(lambda: find_images(tmp_path, ["a"]))
    assert "a.jpg and a.png are both the image of item a" in problem
    assert find_images(tmp_path, ["b"])[1] == []
    (problem,) = problems_of(lambda: find_images(tmp_path / "nowhere", ["a"]))
    assert "no folder of images" in problem


def test_files_that_cannot_be_read_are_listed(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"content")
    unreadable: dict[str, str] = {}
    rows = list(file_rows({"a": tmp_path / "a.jpg", "b": tmp_path / "gone.jpg"}, unreadable, lambda done, total: None))
    assert rows == [("a", b"content")]
    assert unreadable == {"b": "gone.jpg: No such file or directory"}
