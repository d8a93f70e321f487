"""Images that are dropped on the Train tab: their captions, edited or not, and their crops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import hypernetworks as hn
from hypernetworks.studio.train.sent_images import (
    PER_PAGE,
    Sent,
    on_page,
    page_near,
    sent_images,
    thumbnail_html,
    to_keep,
    with_edits,
)
from hypernetworks.training.folders import TrainingFolders
from hypernetworks.training.picture_settings import PictureSettings
from hypernetworks.training.words import words_of

HOSTILE = "<img src=x onerror=alert(1)>"


def sent(folder: Path, **texts: str | None) -> list[str]:
    """Files as gradio has them: each in a folder of its own."""
    found = []
    for number, (name, content) in enumerate(texts.items()):
        place = folder / str(number)
        place.mkdir(parents=True)
        path = place / name.replace("__", ".")
        if content is None:
            Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(path, format="PNG")
        else:
            path.write_text(content, encoding="utf-8")
        found.append(str(path))
    return found


def edited(images: list[Sent], **captions: str) -> list[Sent]:
    return [replace(one, caption=captions.get(Path(one.path).stem, one.caption)) for one in images]


def kept(tmp_path: Path, files: list[str], images: list[Sent]) -> dict[str, str]:
    """Captions of the images in the folder that a training would read."""
    with to_keep(files, images) as found:
        folder = TrainingFolders(tmp_path / "own").keep(found, "cats")
    return {p.name: words_of(p) for p in sorted(folder.iterdir()) if p.suffix in (".png", ".jpg")}


def test_captions_are_those_that_the_training_would_read(tmp_path: Path) -> None:
    files = sent(tmp_path, b_cat__png=None, a__png=None, a__txt=" a grey cat\n", IMG_0042__png=None)
    images = sent_images(files)
    assert [(one.name, one.caption) for one in images] == [
        ("IMG_0042.png", ""),
        ("a.png", "a grey cat"),
        ("b_cat.png", "b cat"),
    ]
    assert kept(tmp_path, files, images) == {one.name: one.caption for one in images}


def test_edited_captions_are_kept_beside_the_images(tmp_path: Path) -> None:
    files = sent(tmp_path, a__png=None, a__caption="old", b__png=None, c__png=None)
    images = edited(sent_images(files), a="new", c="")
    assert kept(tmp_path, files, images) == {"a.png": "new", "b.png": "b", "c.png": ""}


def test_an_image_that_is_left_out_is_not_kept_nor_is_its_caption(tmp_path: Path) -> None:
    files = sent(tmp_path, a__png=None, a__txt="one", b__png=None)
    first, second = sent_images(files)
    with to_keep(files, [replace(first, is_left_out=True), second]) as found:
        assert [Path(file).name for file in found] == ["b.png"]
    with (
        to_keep(
            files, [replace(first, is_left_out=True), replace(second, is_left_out=True)]
        ) as none,
        pytest.raises(hn.HypernetworkError, match="no image"),
    ):
        TrainingFolders(tmp_path / "own").keep(none, "cats")


def test_images_that_share_a_caption_file_get_their_own(tmp_path: Path) -> None:
    files = sent(tmp_path, a__png=None, a__jpg=None, a__txt="both")
    images = sent_images(files)
    assert [one.caption for one in images] == ["both", "both"]
    first = replace(images[0], caption="only the first")
    assert kept(tmp_path, files, [first, images[1]]) == {"a.jpg": "only the first", "a.png": "both"}
    left_out = replace(images[0], is_left_out=True)
    with to_keep(files, [left_out, images[1]]) as found:
        assert [Path(file).name for file in found] == ["a.png", "a.txt"]


def test_what_was_edited_stays_when_more_files_come(tmp_path: Path) -> None:
    files = sent(tmp_path, a__png=None, b__png=None, c__png=None, a__txt="late", b__txt="late")
    before = edited(sent_images(files[:3]), a="typed")
    before[2] = replace(before[2], is_left_out=True)
    now = sent_images(files, before)
    assert [one.caption for one in now] == ["typed", "late", "c"]
    assert [one.is_left_out for one in now] == [False, False, True]
    assert sent_images(files[1:], now)[0].name == "b.png"


def test_a_crop_is_what_the_training_sees(tmp_path: Path) -> None:
    path = tmp_path / f"{HOSTILE}.png"
    wide = Image.new("RGB", (96, 32), "red")
    wide.paste("blue", (32, 0, 64, 32))
    wide.save(path)
    whole = PictureSettings(32, 32, step=32)
    html = thumbnail_html(str(path), whole)
    assert html.count("<img src=") == 1
    assert HOSTILE not in html
    assert thumbnail_html(str(path), replace(whole, crops=3)).count("<img src=") == 3
    (tmp_path / "broken.png").write_bytes(b"x")
    assert "studio-error" in thumbnail_html(str(tmp_path / "broken.png"), whole)


def test_fields_of_a_page_change_its_images_alone() -> None:
    images = [Sent(f"{n:03}.png", "", f"{n}") for n in range(PER_PAGE + 2)]
    captions: list[Any] = ["x", None] + [""] * (PER_PAGE - 2)
    ticks = [False, True] + [False] * (PER_PAGE - 2)
    changed = with_edits(images, 1, *captions, *ticks)
    assert changed[:PER_PAGE] == images[:PER_PAGE]
    assert [(one.caption, one.is_left_out) for one in changed[PER_PAGE:]] == [
        ("x", False),
        ("", True),
    ]
    assert with_edits([], 0, *captions, *ticks) == []


def test_two_hundred_images_come_in_pages() -> None:
    images = [Sent(f"{n:03}.png", "", "") for n in range(200)]
    last = page_near(200, 999)
    assert [page_near(200, page) for page in (-1, 0, 3, last + 1)] == [0, 0, 3, last]
    pages = [on_page(images, page) for page in range(last + 1)]
    assert [one for page in pages for one in page] == images
    assert all(0 < len(page) <= PER_PAGE for page in pages)
    assert (page_near(0, 1), page_near(PER_PAGE, 1), page_near(PER_PAGE + 1, 1)) == (0, 0, 1)
