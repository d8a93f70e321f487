"""Renders transparent images of every subject in every style from the Fluent Emoji packages.

They are three npm packages (all MIT, see MODEL_CARD.md). Rendering needs ``resvg_py`` and Pillow.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from .subjects import COLOURS, PICTURED, subject_names

SIZE = 96
"""Width and height of an image in pixels."""
MARGIN = 6
"""Empty border around a subject in pixels."""
PACKAGES: dict[str, str] = {
    "flat": "@iconify-json/fluent-emoji-flat@1.2.6",
    "ink": "@iconify-json/fluent-emoji-high-contrast@1.2.6",
    "3d": "@lobehub/fluent-emoji-3d@1.1.0",
}


def fetch_packages(folder: Path) -> dict[str, Path]:
    """Download the packages with ``npm pack``, unless they are there.

    Returns:
        The archives by style.
    """
    folder.mkdir(parents=True, exist_ok=True)
    archives = {}
    for style, package in PACKAGES.items():
        name, version = package.removeprefix("@").rsplit("@", 1)
        archive = folder / f"{name.replace('/', '-')}-{version}.tgz"
        if not archive.exists():
            npm = shutil.which("npm") or "npm"  # on Windows, npm.cmd
            subprocess.run([npm, "pack", "--silent", package], cwd=folder, check=True)
        archives[style] = archive
    return archives


def _member(archive: Path, name: str) -> bytes:
    with tarfile.open(archive) as tar:
        stream = tar.extractfile(f"package/{name}")
        assert stream is not None, f"{name} is missing from {archive.name}"
        return stream.read()


def _framed(picture: Image.Image) -> np.ndarray:
    """Centre a picture in the square canvas: RGBA uint8 ``(SIZE, SIZE, 4)``."""
    inner = SIZE - 2 * MARGIN
    canvas = Image.new("RGBA", (SIZE, SIZE))
    canvas.paste(
        picture.convert("RGBA").resize((inner, inner), Image.Resampling.LANCZOS), (MARGIN, MARGIN)
    )
    return np.asarray(canvas)


def _vector_pictures(archive: Path) -> Iterator[np.ndarray]:
    import resvg_py

    icons = json.loads(_member(archive, "icons.json"))
    for name in subject_names():
        body = icons["icons"][name]["body"].replace("currentColor", "#16161c")
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{body}</svg>'
        # Four times the size, then scaled down: smoother edges than the renderer's own.
        png = resvg_py.svg_to_bytes(svg_string=svg, width=4 * SIZE, height=4 * SIZE)
        yield _framed(Image.open(io.BytesIO(bytes(png))))


def _raster_pictures(archive: Path, flat: Path) -> Iterator[np.ndarray]:
    """The 3-D images, in the order of the subjects."""
    # They are named by code point; the flat package has a table from code points to names.
    characters = json.loads(_member(flat, "chars.json"))
    with tarfile.open(archive) as tar:
        members = {Path(m.name).stem: m for m in tar.getmembers()}
        code_of = {name: code for code, name in characters.items() if code in members}
        for name in subject_names():
            stream = tar.extractfile(members[code_of[name]])
            assert stream is not None
            yield _framed(Image.open(io.BytesIO(stream.read())))


def pixelated(picture: np.ndarray, cell: int = 6) -> np.ndarray:
    """The image as a mosaic of square cells, each opaque or empty: RGBA uint8 in and out."""
    # In float64, where sums over a cell are exact.
    edge = SIZE // cell
    tiles = picture.astype(np.float64).reshape(edge, cell, edge, cell, 4)
    # Colours weighted by alpha, so that transparent pixels don't darken a cell.
    alpha = tiles[..., 3:].sum((1, 3))
    colour = (tiles[..., :3] * tiles[..., 3:]).sum((1, 3)) / np.maximum(alpha, 1)
    solid = np.where(alpha > 255 * cell * cell * 0.5, 255, 0)
    mosaic = (
        np.concatenate([np.round(colour / 32) * 32, solid], axis=2).clip(0, 255).astype(np.uint8)
    )
    return mosaic.repeat(cell, 0).repeat(cell, 1)


def render(packages: Path) -> np.ndarray:
    """All subjects in all styles with images of their own, in the order of their lists.

    Returns:
        RGBA uint8 ``(styles, subjects, SIZE, SIZE, 4)``.
    """
    archives = fetch_packages(packages)
    pictures = {
        "flat": list(_vector_pictures(archives["flat"])),
        "ink": list(_vector_pictures(archives["ink"])),
        "3d": list(_raster_pictures(archives["3d"], archives["flat"])),
    }
    pictures["pixel"] = [pixelated(p) for p in pictures["flat"]]
    return np.stack([np.stack(pictures[style]) for style in PICTURED])


def on_colour(pictures: np.ndarray, colour: str) -> np.ndarray:
    """RGBA images ``(…, SIZE, SIZE, 4)`` on a background colour, as RGB uint8."""
    alpha = pictures[..., 3:].astype(np.float32) / 255
    rgb = pictures[..., :3].astype(np.float32)
    ground = np.asarray(COLOURS[colour], dtype=np.float32)
    return np.round(rgb * alpha + ground * (1 - alpha)).astype(np.uint8)


def sepia(rgb: np.ndarray) -> np.ndarray:
    """Shades of brown, as in an old photograph: RGB uint8 ``(…, 3)``."""
    light = (rgb.astype(np.float32) @ np.asarray([0.299, 0.587, 0.114], dtype=np.float32))[
        ..., None
    ] / 255
    dark, bright = (np.asarray(c, dtype=np.float32) for c in ((46, 28, 16), (246, 230, 198)))
    return np.round(dark + (bright - dark) * light).astype(np.uint8)


def night(rgb: np.ndarray) -> np.ndarray:
    """Dark and bluish, as in moonlight: RGB uint8 ``(…, 3)``."""
    moon = np.asarray([0.34, 0.42, 0.62], dtype=np.float32)
    return np.round(
        rgb.astype(np.float32) * moon + np.asarray([4, 6, 26], dtype=np.float32)
    ).astype(np.uint8)


TONES = {"sepia": sepia, "night": night}
"""Styles that change the colours of the flat image."""


def styled(pictures: np.ndarray, style: str, colour: str) -> np.ndarray:
    """Every subject in a style on a background colour: RGB uint8 ``(subjects, SIZE, SIZE, 3)``.

    Args:
        pictures: the result of :func:`render`.
    """
    if style in TONES:
        return TONES[style](on_colour(pictures[PICTURED.index("flat")], colour))
    return on_colour(pictures[PICTURED.index(style)], colour)
