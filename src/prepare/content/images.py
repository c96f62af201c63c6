"""Images and texts from bytes, and the image files of items; Pillow decodes (extra `images`)."""

from __future__ import annotations

import importlib.util
import io
import struct
import unicodedata
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from prepare.content.encoder_registry import BadContent
from utils.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # others may start programs, as PostScript does
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
DAMAGED = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, struct.error, zlib.error)


def check_library() -> str:
    """The name and version of the library that decodes images; empty if it is not installed."""
    if importlib.util.find_spec("PIL") is None:
        return ""
    import PIL

    return f"Pillow {PIL.__version__}"


def text_of(content: bytes) -> tuple[str, bool]:
    """A text, and whether bytes that are not UTF-8 were replaced by U+FFFD.

    Raises:
        BadContent: if there is nothing but white space.
    """
    text = content.decode("utf-8", "replace")
    if not text.strip():
        raise BadContent("no text")
    return text, text.encode() != content


def image_of(content: bytes | memoryview) -> Any:
    """An image, RGB, upright, on white where it is transparent; the first of several pictures.

    Raises:
        BadContent: if it is no image of FORMATS, is cut short, or is unreasonably large.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not len(content):
        raise BadContent("0 bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
                opened.load()
                image = ImageOps.exif_transpose(opened)
                if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA"):
                    image = image.convert("RGBA")
                    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
                return image.convert("RGB")
    except UnidentifiedImageError:
        raise BadContent(f"not an image ({', '.join(FORMATS)})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadContent(f"more than {Image.MAX_IMAGE_PIXELS:,} pixels") from None
    except DAMAGED as error:
        raise BadContent(" ".join(str(error).split())[:150] or type(error).__name__) from None


def find_images(folder: Path, ids: Sequence[str]) -> tuple[dict[str, Path], list[str], list[str]]:
    """The image file of each item, called by its id; the ids without a file; the names of files of no item.

    Raises:
        UserError: if the folder cannot be read, has no image of any item, or two images of one item.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    except OSError as error:
        raise UserError(f"{folder}: no folder of images ({error.strerror}); expected files named ITEM.jpg") from None
    by_stem: dict[str, list[Path]] = {}
    for path in paths:
        by_stem.setdefault(unicodedata.normalize("NFC", path.stem), []).append(path)
    found: dict[str, Path] = {}
    missing = []
    used: set[str] = set()
    for name in ids:
        stem = unicodedata.normalize("NFC", name)
        files = by_stem.get(stem, [])
        used.add(stem)
        if len(files) > 1:
            raise UserError(
                f"{folder}: {files[0].name} and {files[1].name} are both the image of item {name}; keep one"
            )
        if files:
            found[name] = files[0]
        else:
            missing.append(name)
    others = [path.name for stem, files in by_stem.items() if stem not in used for path in files]
    if not found:
        what = f"among {len(others):,} such as {others[0]}" if others else "nor another image file"
        raise UserError(
            f"{folder}: no image of any of {len(ids):,} items, {what}; expected files called by item id, such as "
            f"{ids[0]}.jpg, not in folders below"
        )
    return found, missing, others


def file_rows(
    files: dict[str, Path], unreadable: dict[str, str], progress: Callable[[float, float], object]
) -> Iterator[tuple[str, bytes]]:
    """Ids and contents of files, one at a time; why a file cannot be read goes to `unreadable`."""
    for done, (name, path) in enumerate(files.items()):
        try:
            content = path.read_bytes()
        except OSError as error:
            unreadable[name] = f"{path.name}: {error.strerror}"
        else:
            yield name, content
        progress(done, len(files))
