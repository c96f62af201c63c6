"""Whether bytes are a whole image: by Pillow where it is installed, else by the structure that each format prescribes.

The structure tells a file that is no image, is cut short or (PNG) has changed bytes; what Pillow decodes may still be
refused by it, and changed bytes of other formats pass. TIFF and BMP are held to the places and lengths that they state.
Sources: ITU-T T.81 (JPEG), RFC 2083 (PNG), the GIF89a and TIFF 6.0 specifications, RFC 9649 (WebP), wingdi.h (BMP).
"""

from __future__ import annotations

import importlib.util
import struct
import zlib
from collections.abc import Callable

from prepare.content.decode import IMAGE_FORMATS, BadContent, image_of

STRUCTURE = "structure"  # what checks where there is no Pillow
PNG = b"\x89PNG\r\n\x1a\n"


def checker() -> tuple[str, Callable[[bytes], str]]:
    """What checks images here, by name, and the check: why bytes are no whole image; empty if they are one."""
    if importlib.util.find_spec("PIL") is None:
        return STRUCTURE, structure_problem
    import PIL

    return f"Pillow {PIL.__version__}", _decoding_problem


def _decoding_problem(content: bytes) -> str:
    try:
        image_of(content)
    except BadContent as error:
        return str(error)
    return ""


def structure_problem(content: bytes) -> str:
    """Why the structure of bytes is not that of a whole image; empty if it is."""
    if not content:
        return "0 bytes"
    walk = next((walk for begin, walk in FORMATS if content.startswith(begin)), None)
    if walk is None or (walk is _webp and content[8:12] != b"WEBP"):
        return f"not an image ({', '.join(IMAGE_FORMATS)})"
    try:
        return walk(content)
    except (IndexError, struct.error):  # it states a place or length beyond its end
        return "cut short"


def _jpeg(content: bytes) -> str:
    """Segments up to the end marker, with a frame header before the first scan."""
    at, size = 2, b""
    while True:
        if content[at] != 0xFF:
            return f"damaged at byte {at:,}"
        marker, at = content[at + 1], at + 1
        if marker == 0xFF:  # fill bytes
            continue
        at += 1
        if marker == 0xD9:
            return "" if size else "without a picture"
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            size = content[at + 3 : at + 7]
        if marker == 0xDA:
            if len(size) < 4 or size[2:] == b"\0\0":
                return "without a picture"
            at = _scan_end(content, at)
        elif not 0xD0 <= marker <= 0xD7 and marker != 0x01:  # all others have a length
            at += struct.unpack_from(">H", content, at)[0]


def _scan_end(content: bytes, at: int) -> int:
    """The place of the marker that ends the compressed data."""
    at += struct.unpack_from(">H", content, at)[0]
    # Within the data, FF is followed by 0, or is a restart marker.
    while (at := content.find(b"\xff", at)) >= 0 and (content[at + 1] == 0 or 0xD0 <= content[at + 1] <= 0xD7):
        at += 2
    if at < 0:
        raise IndexError
    return at


def _png(content: bytes) -> str:
    """Chunks with their checksums, from IHDR over IDAT to IEND."""
    at = len(PNG)
    kinds: list[bytes] = []
    while True:
        length, kind = struct.unpack_from(">I4s", content, at)
        (checksum,) = struct.unpack_from(">I", content, at + 8 + length)
        if zlib.crc32(content[at + 4 : at + 8 + length]) != checksum:
            return f"damaged: the checksum of chunk {len(kinds) + 1} is another"
        kinds.append(kind)
        if kinds[0] != b"IHDR" or (kind == b"IHDR" and 0 in struct.unpack_from(">II", content, at + 8)):
            return "without a picture"
        at += 12 + length
        if kind == b"IEND":
            return "" if b"IDAT" in kinds else "without a picture"


def _gif(content: bytes) -> str:
    """Blocks up to the end of the first picture."""

    def behind_table(at: int, flags: int) -> int:
        return at + (3 << (flags & 7) + 1 if flags & 0x80 else 0)

    def behind_blocks(at: int) -> int:
        while length := content[at]:
            at += 1 + length
        return at + 1

    at = behind_table(13, content[10])
    while content[at] == 0x21:  # an extension
        at = behind_blocks(at + 2)
    if content[at] != 0x2C:
        return "without a picture" if content[at] == 0x3B else f"damaged at byte {at:,}"
    behind_blocks(behind_table(at + 10, content[at + 9]) + 1)
    return ""


def _webp(content: bytes) -> str:
    """Chunks up to the stated end, one of them with a picture."""
    (size,) = struct.unpack_from("<I", content, 4)
    at, kinds = 12, set()
    while at < 8 + size:
        kind, length = struct.unpack_from("<4sI", content, at)
        kinds.add(kind)
        at += 8 + length
        if at > len(content):
            return "cut short"
        at += length & 1
    return "" if kinds & {b"VP8 ", b"VP8L", b"ANMF"} else "without a picture"


def _bmp(content: bytes) -> str:
    """As many bytes of pixels as the header's sizes need."""
    start, header = struct.unpack_from("<II", content, 10)
    packed = 0
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", content, 18)
    else:
        width, height, _, bits, packed, stated = struct.unpack_from("<iiHHII", content, 18)
    if width <= 0 or height == 0 or bits not in (1, 2, 4, 8, 16, 24, 32):
        return "without a picture"
    needed = stated if packed in (1, 2) else (width * bits + 31) // 32 * 4 * abs(height)
    return "cut short" if len(content) < start + needed else ""


def _tiff(content: bytes) -> str:
    """The strips or tiles of the first picture."""
    order = "<" if content.startswith(b"II") else ">"
    (at,) = struct.unpack_from(f"{order}I", content, 4)
    (entries,) = struct.unpack_from(f"{order}H", content, at)
    struct.unpack_from(f"{order}I", content, at + 2 + 12 * entries)  # the next directory's place ends this one
    numbers: dict[int, tuple[int, ...]] = {}
    for entry in range(at + 2, at + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from(f"{order}HHI", content, entry)
        if tag in (273, 279, 324, 325) and kind in (3, 4):  # places and lengths of strips, of tiles
            form = f"{order}{count}{'H' if kind == 3 else 'I'}"
            inside = struct.calcsize(form) <= 4
            place = entry + 8 if inside else struct.unpack_from(f"{order}I", content, entry + 8)[0]
            numbers[tag] = struct.unpack_from(form, content, place)
    for places, lengths in ((273, 279), (324, 325)):
        if numbers.get(places) and lengths in numbers:
            ends = (a + b for a, b in zip(numbers[places], numbers[lengths], strict=False))
            return "cut short" if max(ends) > len(content) else ""
    return "without a picture"


FORMATS = (
    (b"\xff\xd8\xff", _jpeg),
    (PNG, _png),
    (b"GIF87a", _gif),
    (b"GIF89a", _gif),
    (b"RIFF", _webp),
    (b"BM", _bmp),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
)
