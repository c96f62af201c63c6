"""From bytes to a text or an image; what cannot be read is BadContent with the reason."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from torch.utils.data import Dataset

from prepare.content.encoder_registry import TEXT, BadContent
from prepare.content.store import ContentStore

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # others may start programs, as PostScript does
EMPTY, UNREADABLE = "empty", "unreadable"


def text_of(content: bytes) -> tuple[str, bool]:
    """A text, and whether bytes that are not UTF-8 were replaced by U+FFFD.

    Raises:
        BadContent: if there is nothing but white space.
    """
    try:
        text, replaced = content.decode("utf-8"), False
    except UnicodeDecodeError:
        text, replaced = content.decode("utf-8", "replace"), True
    if not text.strip():
        raise BadContent("no text")
    return text, replaced


def image_of(content: bytes | memoryview) -> Any:
    """An image, RGB, upright, on white where it is transparent; the first of several pictures.

    Raises:
        BadContent: if it is no image of IMAGE_FORMATS, is cut short, or would be unreasonably large.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not len(content):
        raise BadContent("0 bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as opened:
                opened.load()
                image = ImageOps.exif_transpose(opened)
                if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA"):
                    image = image.convert("RGBA")
                    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
                return image.convert("RGB")
    except UnidentifiedImageError:
        raise BadContent(f"not an image ({', '.join(IMAGE_FORMATS)})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadContent(f"more than {Image.MAX_IMAGE_PIXELS:,} pixels") from None
    except (
        OSError,
        SyntaxError,
        ValueError,
        TypeError,
        LookupError,
        EOFError,
        OverflowError,
        struct.error,
        zlib.error,
    ) as e:
        raise BadContent(" ".join(str(e).split()) or type(e).__name__) from None


class Contents(Dataset):
    """Items' contents, decoded and transformed: (value, "") or (None, why not), and whether a text had to be mended.

    A worker process opens the store itself; a process reads the mapped file, so that nothing is copied between them but
    the values.
    """

    def __init__(
        self, store: ContentStore, kind: str, ids: Sequence[str], reads: str, transform: Callable[..., Any]
    ) -> None:
        self.path, self.kind, self.ids, self.reads, self.transform = store.path, kind, ids, reads, transform
        self._store: ContentStore | None = store

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_store": None}

    def __getitem__(self, index: int) -> tuple[Any, str, bool]:
        if self._store is None:
            self._store = ContentStore.open(self.path)
        content = self._store.get(self.kind, self.ids[index])
        if content is None:
            raise RuntimeError(f"{self.path}: item {self.ids[index]!r} has gone while the file was locked")
        replaced = False
        try:
            if self.reads == TEXT:
                value, replaced = text_of(bytes(content))
            else:
                value = image_of(content)
            return self.transform(value), "", replaced
        except BadContent as error:
            return None, f"{EMPTY if self.reads == TEXT else UNREADABLE}: {error}", False
