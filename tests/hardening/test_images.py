"""Images from strangers: a size beyond reason is seen in the header, and nothing is decoded."""

from __future__ import annotations

import os
import struct
import zlib
from io import BytesIO
from pathlib import Path
from random import Random

import pytest

from hypernetworks.errors import (
    HypernetworkError,
    ImageError,
    ImageTooLargeError,
    TrainingDataError,
)
from hypernetworks.files.images import MOST_PIXELS, check_image, open_image
from hypernetworks.studio.restoring import read_infotext
from hypernetworks.training.folders import _check_picture
from hypernetworks.training.pictures import PictureSettings, read_versions

Image = pytest.importorskip("PIL.Image")
SETTINGS = PictureSettings(64, 64, step=8)


def png(width: int, height: int, rest: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + rest
        + chunk(b"IDAT", b"x")
        + chunk(b"IEND", b"")
    )


def webp(width: int, height: int, kind: bytes) -> bytes:
    bodies = {
        b"VP8X": b"\2\0\0\0"
        + (width - 1).to_bytes(3, "little")
        + (height - 1).to_bytes(3, "little"),
        b"VP8L": b"\x2f" + ((width - 1) | (height - 1) << 14).to_bytes(4, "little") + bytes(20),
        b"VP8 ": b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height) + bytes(20),
    }
    body = bodies[kind]
    chunk = kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


def tiff(width: int, height: int, order: str) -> bytes:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entries = [(256, 4, 1, width), (257, 4, 1, height)]
    return (
        mark
        + struct.pack(order + "IH", 8, 2)
        + b"".join(struct.pack(order + "HHII", *entry) for entry in entries)
        + bytes(4)
    )


def jpeg(width: int, height: int) -> bytes:
    small = b"\xff\xc0\0\x0b\x08" + struct.pack(">HH", 8, 8) + b"\1\1\x11\0"
    large = b"\xff\xc2\0\x0b\x08" + struct.pack(">HH", height, width) + b"\1\1\x11\0"
    return b"\xff\xd8\xff\xe0\0\x04ab\xff\xff" + small[1:] + large + b"\xff\xda\0\x02"


LARGE: dict[str, bytes] = {
    "png": png(20_000, 10_000),
    "jpeg": jpeg(20_000, 10_000),
    "webp canvas": webp(13_300, 13_300, b"VP8X"),
    "webp lossless": webp(13_300, 13_300, b"VP8L"),
    "webp": webp(13_300, 13_300, b"VP8 "),
    "gif": b"GIF89a" + struct.pack("<HH", 60_000, 60_000) + bytes(20),
    "bmp": b"BM" + bytes(12) + struct.pack("<iii", 40, 20_000, -10_000) + bytes(40),
    "tiff": tiff(20_000, 10_000, "<"),
    "tiff of the other order": tiff(20_000, 10_000, ">"),
    "avif": b"\0\0\0\x1cftypavif" + bytes(16) + b"ispe" + struct.pack(">III", 0, 20_000, 10_000),
}


@pytest.mark.parametrize("case", LARGE)
def test_too_many_pixels_are_told_from_the_header(case: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(LARGE[case])
    wanted = r"too many pixels: \d+ MP, the limit is 64 MP\. Resize it"
    with pytest.raises(ImageTooLargeError, match=wanted):
        check_image(path)
    with pytest.raises(TrainingDataError, match=r"a\.png: it has too many pixels"):
        read_versions(path, SETTINGS)
    with pytest.raises(TrainingDataError, match=r"a\.png: it has too many pixels"):
        _check_picture(path)
    with pytest.raises(HypernetworkError, match="too many pixels"):
        read_infotext(path)


FORMATS = ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"]


def made(kind: str, size: tuple[int, int] = (24, 16)) -> bytes:
    if kind not in Image.SAVE and not (Image.init() and kind in Image.SAVE):
        pytest.skip(f"this Pillow writes no {kind}")
    stream = BytesIO()
    Image.new("RGB", size, "red").save(stream, format=kind)
    return stream.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
def test_sound_images_are_opened(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(made(kind))
    assert check_image(path) == kind
    with open_image(path) as image:
        assert (image.format, image.size) == (kind, (24, 16))
    assert len(read_versions(path, SETTINGS)) == 1


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_images_are_one_kind_of_error(kind: str, tmp_path: Path) -> None:
    content, drawn, path = made(kind), Random(14), tmp_path / "a.img"
    said: list[str] = []
    for number in range(150):
        changed = bytearray(content)
        for _ in range(drawn.choice([1, 2, 8])):
            changed[drawn.randrange(min(120, len(changed)))] = drawn.randrange(256)
        path.write_bytes(changed[: None if number % 3 else drawn.randrange(len(changed))])
        try:
            with open_image(path) as image:
                assert image.width * image.height <= MOST_PIXELS
        except ImageError as error:
            said.append(str(error))
    assert said
    assert all(message.isprintable() for message in said)


def test_no_pipe_is_waited_for(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes here")
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ImageError):
        check_image(tmp_path / "a.png")


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_compressed_text_that_expands_is_bounded(kind: bytes, tmp_path: Path) -> None:
    packed = zlib.compress(bytes(100 << 20) if kind == b"zTXt" else bytes(64 << 20), 1)
    head = b"parameters\0" + (b"\0" if kind == b"zTXt" else b"\1\0\0\0")
    body = head + packed
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    path = tmp_path / "a.png"
    path.write_bytes(png(8, 8, chunk))
    with pytest.raises(HypernetworkError):
        read_infotext(path)
