"""Images: the size is read from the header first, and only images of a reasonable size are opened.

Pillow decodes some formats when it opens them, and a WebP of 314 KiB can need 4.5 GB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HypernetworkError, ImageError, ImageTooLargeError
from .opened import OpenedFile

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 64_000_000
"""Largest number of pixels that is decoded: with all copies, about 800 MB."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
"""Formats that can be opened, by Pillow's names."""
_MOST_PARTS = 10_000
"""Segments or chunks that are searched for a size, so that a search has an end."""
Size = tuple[int, int]
"""Width and height in pixels."""


@contextmanager
def open_image(path: Path, formats: Sequence[str] = FORMATS) -> Iterator[Image]:
    """Open an image of one of the formats, whatever its suffix; a context manager.

    Errors inside the ``with`` block become :class:`ImageError` too, because Pillow decodes late.

    Raises:
        ImageTooLargeError: too many pixels.
        ImageError: another format, or damaged.
    """
    from PIL import Image

    try:
        found = check_image(path)
        if found not in formats:
            raise ImageError(f"it is not an image in one of these formats: {', '.join(formats)}")
        # Only the format that was checked: Pillow could find another one in the same bytes.
        with Image.open(path, formats=[found]) as image:
            _check_pixels([image.size])  # Pillow may go by another part of the file
            yield image
    except HypernetworkError:
        raise
    except Exception as error:  # whatever Pillow makes of a damaged file
        raise ImageError("it can't be read as an image: it is damaged") from error


def check_image(path: Path) -> str:
    """The format of an image, by Pillow's name. Reads a few kilobytes and decodes nothing.

    Raises:
        ImageTooLargeError: too many pixels.
        ImageError: it isn't an image, or its header is damaged.
    """
    try:
        with OpenedFile(path) as file:
            name, sizes = _sizes(file)
    except (OSError, struct.error, ValueError) as error:
        raise ImageError("it can't be read as an image: it is damaged") from error
    _check_pixels(sizes)
    return name


def _check_pixels(sizes: Sequence[Size]) -> None:
    pixels = max((width * height for width, height in sizes), default=0)
    if pixels <= 0:
        raise ImageError("it can't be read as an image: its header is damaged")
    if pixels > MOST_PIXELS:
        raise ImageTooLargeError(
            f"it has too many pixels: {pixels / 1e6:.0f} MP, the limit is "
            f"{MOST_PIXELS / 1e6:.0f} MP. Resize it"
        )


def _sizes(file: OpenedFile) -> tuple[str, list[Size]]:
    """The format, and every size in the header, since a decoder may use any of them."""
    head = file.piece(0, 32)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG", [struct.unpack(">II", head[16:24])]
    if head.startswith(b"\xff\xd8"):
        return "JPEG", list(_jpeg(file))
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF", [struct.unpack("<HH", head[6:10])]
    if head.startswith(b"BM"):
        return "BMP", [_bmp(head)]
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP", list(_webp(file))
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF", [_tiff(file, head)]
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", b"mif1", b"msf1"):
        return "AVIF", list(_avif(file))

    raise ImageError("it is not an image that can be read: use PNG, JPEG or WebP")


def _jpeg(file: OpenedFile) -> Iterator[Size]:
    """The sizes in the frame headers before the first scan."""
    position = 2
    for _ in range(_MOST_PARTS):
        segment = file.piece(position, 9)
        if len(segment) < 4 or segment[0] != 0xFF or segment[1] == 0xDA:
            return
        marker, length = segment[1], int.from_bytes(segment[2:4], "big")
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", segment[5:9])
            yield width, height
        # These markers have no length field.
        position += 2 if 0xD0 <= marker <= 0xD8 or marker == 1 else 2 + length

    raise ImageError("it can't be read as an image: its header has no end")


def _bmp(head: bytes) -> Size:
    if int.from_bytes(head[14:18], "little") == 12:
        width, height = struct.unpack("<HH", head[18:22])
    else:
        width, height = struct.unpack("<ii", head[18:26])  # negative height: rows from the top
    return abs(width), abs(height)


def _webp(file: OpenedFile) -> Iterator[Size]:
    """The sizes of the canvas, of frames and of images."""
    position = 12
    for _ in range(_MOST_PARTS):
        chunk = file.piece(position, 24)
        if len(chunk) < 8:
            return

        kind, length, body = chunk[:4], int.from_bytes(chunk[4:8], "little"), chunk[8:]
        if kind == b"VP8X":
            yield 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
        elif kind == b"VP8 ":
            width, height = struct.unpack("<HH", body[6:10])
            yield width & 0x3FFF, height & 0x3FFF
        elif kind == b"VP8L":
            bits = int.from_bytes(body[1:5], "little")
            yield 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        elif kind == b"ANMF":
            yield 1 + int.from_bytes(body[6:9], "little"), 1 + int.from_bytes(body[9:12], "little")

        position += 8 + length + length % 2


def _tiff(file: OpenedFile, head: bytes) -> Size:
    """The size in the first directory, of ordinary and 64-bit files of either byte order."""
    order = "<" if head[:1] == b"I" else ">"
    is_big = b"+" in head[:4]
    place = struct.unpack(order + ("Q" if is_big else "I"), head[8:16] if is_big else head[4:8])[0]
    counted, entry = (8, 20) if is_big else (2, 12)
    count = struct.unpack(order + ("Q" if is_big else "H"), file.piece(place, counted))[0]
    entries = file.piece(place + counted, min(count, 4096) * entry)

    found: dict[int, int] = {}
    for at in range(0, len(entries) - entry + 1, entry):
        tag, kind = struct.unpack_from(order + "HH", entries, at)
        if tag in (256, 257):
            value = at + (12 if is_big else 8)
            form = {3: "H", 4: "I", 16: "Q"}.get(kind, "I")
            found[tag] = struct.unpack_from(order + form, entries, value)[0]

    return found.get(256, 0), found.get(257, 0)


def _avif(file: OpenedFile) -> Iterator[Size]:
    """The sizes in all "ispe" properties: of images, tiles and alpha planes."""
    # A search instead of a parser: the boxes nest in many ways, and every size counts.
    content = file.piece(0, 1 << 20)
    position = content.find(b"ispe")
    while position >= 0:
        yield struct.unpack(">II", content[position + 8 : position + 16])
        position = content.find(b"ispe", position + 4)
