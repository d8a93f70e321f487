"""The images that a run keeps of itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from hypernetworks.training.records import save_preview, save_sheet


def test_previews_of_other_shapes_keep_their_proportions(tmp_path: Path) -> None:
    """Each prompt may have a size of its own."""
    for step in (0, 100):
        for number, size in enumerate([(64, 64), (64, 128), (96, 32)]):
            image = Image.new("RGB", size, "white")
            middle = (size[0] // 2, size[1] // 2)
            image.paste("black", (middle[0] - 8, middle[1] - 8, middle[0] + 8, middle[1] + 8))
            save_preview(tmp_path, step, number, image)

    path = save_sheet(tmp_path, 100)
    assert path is not None
    with Image.open(path) as sheet:
        is_dark = np.asarray(sheet.convert("L"))[24:] < 100
    assert is_dark.shape == (3 * 192, 2 * 192)
    for row in range(3):
        for column in range(2):
            field = is_dark[192 * row : 192 * (row + 1), 192 * column : 192 * (column + 1)]
            down, across = np.where(field)
            # a square in the middle
            assert abs(np.ptp(down) - np.ptp(across)) <= 2
            assert abs(down.mean() - 95.5) <= 1
            assert abs(across.mean() - 95.5) <= 1
