"""What generated raw files are made of: lines, plain or compressed, names, images; equal content gives equal bytes."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from utils.files import atomic_file

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def write_lines(
    path: Path, lines: Iterable[bytes], between: Mapping[int, Sequence[bytes]] | None = None, cut: float = 0.0
) -> int:
    """Writes lines, compressed where the name ends in .gz; returns how many.

    Args:
        path: where to.
        lines: each with its end of line.
        between: further lines by the number of the line that they stand before; the same or a higher number: at the end.
        cut: the share of the bytes to leave out at the end, as a broken-off download has it.
    """
    between = dict(between or {})
    written = 0
    with atomic_file(path) as file:
        # Neither name nor time in the header: equal content gives equal bytes.
        packed = gzip.GzipFile("", "wb", 6, file, mtime=0) if path.suffix == ".gz" else None
        target: IO[bytes] = packed or file  # type: ignore[assignment]
        for number, line in enumerate(lines):
            for more in between.pop(number, ()):
                target.write(more)
                written += 1
            target.write(line)
            written += 1
        for _, rest in sorted(between.items()):
            target.writelines(rest)
            written += len(rest)
        if packed:
            packed.close()
        if cut:
            file.truncate(int(file.tell() * (1 - cut)))
    return written


def complete_lines(path: Path) -> int:
    """How many complete lines a gzip file gives before it ends or breaks off."""
    unpacker, lines = zlib.decompressobj(wbits=31), 0
    with open(path, "rb") as file:
        while block := file.read(2**20):
            lines += unpacker.decompress(block).count(b"\n")
    return lines


def names(numbers: NDArray[np.int64], prefix: str, length: int, seed: int) -> NDArray[np.bytes_]:
    """Distinct names of digits and capitals for distinct numbers from 0 up: `prefix` filled up to `length` letters.

    The same number has the same name whatever the others are; neighbours have unlike names.

    Args:
        numbers: int64 [n], below 10^8.
        prefix: what each begins with.
        length: of a name, at least 7 more than the prefix.
        seed: other seeds give other names.
    """
    size = 36**7  # a factor prime to 36 makes a permutation of 0..size - 1
    mixed = (numbers * 49_999_999_993 % size * 7_919 + 1_000_003 * seed + 12_345) % size
    out = np.zeros((len(numbers), length), dtype=np.uint8)
    letters = np.frombuffer(DIGITS.encode(), dtype=np.uint8)
    start = len(prefix)
    out[:, :start] = np.frombuffer(prefix.encode(), dtype=np.uint8)
    for place in range(length - 1, length - 8, -1):
        out[:, place] = letters[mixed % 36]
        mixed = mixed // 36
    fixed = np.frombuffer((DIGITS * 2)[seed % 36 :].encode(), dtype=np.uint8)
    out[:, start : length - 7] = fixed[: length - 7 - start]
    return np.ascontiguousarray(out).view(f"S{length}").reshape(-1)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of pixels [height, width, 3]; source: RFC 2083."""
    height, width, _ = pixels.shape

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + row.tobytes() for row in pixels)  # each begins with its filter: none
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 6)) + chunk(b"IEND", b"")


def broken_png(image: bytes, kind: int) -> bytes:
    """What no decoder opens as an image: by `kind` a PNG that breaks off, a text, or nothing."""
    return (image[: len(image) // 2], b"<html><body>404 Not Found</body></html>\n", b"")[kind % 3]
