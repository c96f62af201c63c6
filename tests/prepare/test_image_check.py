"""Broken images are told from whole ones by their structure, as Pillow tells them by decoding."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from prepare.content import image_check
from prepare.content.image_check import STRUCTURE, checker, structure_problem
from prepare.synthetic_raw.raw_files import broken_png, png

PIXELS = np.random.default_rng(0).integers(0, 256, (23, 31, 3)).astype(np.uint8)


def saved(format: str, mode: str = "RGB", frames: int = 1, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pictures = [Image.fromarray(np.roll(PIXELS, shift, axis=0)).convert(mode) for shift in range(frames)]
    more = {"save_all": True, "append_images": pictures[1:]} if frames > 1 else {}
    pictures[0].save(buffer, format, **more, **options)
    return buffer.getvalue()


WHOLE = {
    "jpeg": saved("JPEG"),
    "jpeg progressive": saved("JPEG", progressive=True, quality=90),
    "jpeg grey, restarts": saved("JPEG", "L", restart_marker_blocks=2),
    "jpeg with EXIF": saved("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"),
    "png": saved("PNG"),
    "png palette": saved("PNG", "P"),
    "png of generate_raw": png(PIXELS),
    "gif": saved("GIF", "P"),
    "gif of two": saved("GIF", "P", 2, duration=40),
    "bmp": saved("BMP"),
    "bmp palette": saved("BMP", "P"),
    "bmp of two colours": saved("BMP", "1"),
    "tiff": saved("TIFF"),
    "tiff deflate": saved("TIFF", compression="tiff_adobe_deflate"),
}
if features.check("webp"):
    WHOLE |= {
        "webp": saved("WEBP"),
        "webp lossless": saved("WEBP", lossless=True),
        "webp of two": saved("WEBP", "RGB", 2, duration=40),
    }
_, DECODED = checker()


@pytest.mark.parametrize("name", WHOLE)
def test_whole_images_pass_and_their_beginnings_do_not(name: str) -> None:
    content = WHOLE[name]
    assert structure_problem(content) == ""
    assert structure_problem(content + b"\0" * 5) == ""
    decoded = 0
    for size in range(0, len(content), max(1, len(content) // 60)):
        cut = content[:size]
        # What decodes though its end is missing (a GIF's second picture, say) may pass.
        if DECODED(cut):
            assert structure_problem(cut), size
            decoded += 1
    assert decoded >= 30
    assert structure_problem(content[: len(content) // 3]) in ("cut short", "without a picture")


@pytest.mark.parametrize("name", WHOLE)
def test_any_bytes_are_told_without_a_mistake_of_ours(name: str) -> None:
    draw = random.Random(name)
    found = set()
    for _ in range(300):
        content = bytearray(WHOLE[name])
        for _ in range(draw.choice((1, 3, 40))):
            content[draw.randrange(min(len(content), draw.choice((64, 10**9))))] = draw.choice((0, 0xFF, 7, 0x80))
        found.add(structure_problem(bytes(content)).partition(" at byte")[0].partition(":")[0].partition(" (")[0])
    assert found <= {"", "0 bytes", "not an image", "cut short", "damaged", "without a picture"}
    assert "not an image" in found


def test_changed_bytes_of_a_png() -> None:
    content = bytearray(WHOLE["png"])
    content[len(content) // 2] ^= 1
    assert structure_problem(bytes(content)) == "damaged: the checksum of chunk 2 is another"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "0 bytes"),
        (b"<html><body>404 Not Found</body></html>\n", "not an image (JPEG, PNG,"),
        (b"RIFF\x24\0\0\0WAVEfmt " + bytes(40), "not an image"),
        (b"%!PS-Adobe-3.0\n", "not an image"),
        (b"\xff\xd8\xff\xd9" + bytes(40), "without a picture"),
        (b"GIF89a" + bytes(7) + b";", "without a picture"),
        (b"BM" + bytes(60), "without a picture"),
    ],
)
@pytest.mark.parametrize("check", [structure_problem, DECODED], ids=["structure", "Pillow"])
def test_what_is_no_image(check: Any, content: bytes, problem: str) -> None:
    found = check(content)
    assert found.startswith(problem) if check is structure_problem or problem[0] == "0" else found


def test_both_ways_refuse_what_generate_raw_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    name, decoding = checker()
    assert name == f"Pillow {Image.__version__}"
    monkeypatch.setattr(image_check.importlib.util, "find_spec", lambda _: None)
    assert checker() == (STRUCTURE, structure_problem)
    for kind in range(3):
        content = broken_png(png(PIXELS), kind)
        assert decoding(content)
        assert structure_problem(content)
