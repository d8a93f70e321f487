"""Captions for images that have none, from a local image-to-text model of transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ....errors import FileWriteError, ImageError, TrainingSettingsError
from ....files.images import open_image
from ....files.writing import replace as replace_file
from ....training.gathering import Picture, bad_pictures
from ....training.words import CAPTIONER, NONE, Words
from .job import CAPTIONS

MOST_TOKENS = 60
WRITE_EVERY = 20
"""Captions after which they are written."""


class Captioner:
    """An image-to-text model such as BLIP or GIT.

    Args:
        folder: of the model, as transformers saves it; nothing is downloaded.
        device: where it computes.

    Raises:
        TrainingSettingsError: it can't be loaded.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        import transformers

        if not folder.is_dir():
            raise TrainingSettingsError(
                f"captioner {folder}: there is no such folder", setting="captioner"
            )
        kind = getattr(transformers, "AutoModelForImageTextToText", None)
        kind = kind or transformers.AutoModelForVision2Seq
        try:
            self._processor: Any = transformers.AutoProcessor.from_pretrained(
                folder, local_files_only=True
            )
            self._model: Any = kind.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise TrainingSettingsError(
                f"captioner {folder} is no image-to-text model that transformers can load: {error}",
                setting="captioner",
            ) from error
        self._device = device
        self._model.to(device).eval()

    @torch.no_grad()
    def caption(self, path: Path) -> str:
        """A caption of one image, on one line.

        Raises:
            ImageError: it can't be read.
        """
        from PIL import ImageOps

        with open_image(path) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
        # not inside, where every error would be the file's
        try:
            inputs = self._processor(images=image, return_tensors="pt")
        except ValueError as error:  # such as an image of one pixel
            raise ImageError(f"the captioner can't use it ({error})") from error
        tokens = self._model.generate(**inputs.to(self._device), max_new_tokens=MOST_TOKENS)
        text: str = self._processor.batch_decode(tokens, skip_special_tokens=True)[0]
        return " ".join(text.split())


def with_captions(
    pictures: Sequence[Picture],
    folder: Path,
    load: Callable[[], Captioner],
    report: Callable[[int, int], object],
    skipped: list[tuple[str, str]] | None = None,
) -> list[Picture]:
    """The images, those without words of their own with a caption.

    Args:
        folder: of the run, which keeps the captions.
        load: loads the captioner, if any caption is missing.
        report: called with (done, total) captions; what it raises ends the captioning.
        skipped: takes name and reason of each image that can't be read, in place of an error; it
            is left out of the result.

    Raises:
        TrainingDataError: images can't be read; all of them are named.
    """
    # By content, so that copies get the same words, and a renamed image keeps its own.
    wordless = {p.key: p for p in pictures if p.words.source == NONE}
    captions = _read(folder / CAPTIONS)
    missing = [picture for key, picture in wordless.items() if key not in captions]
    reasons = _describe(missing, captions, folder / CAPTIONS, load(), report) if missing else {}

    bad = [(p.path.name, reasons[p.key]) for p in pictures if p.key in reasons]
    if bad and skipped is None:
        raise bad_pictures(bad, len(pictures))
    if skipped is not None:
        skipped += bad
    return [
        replace(p, words=Words(captions[p.key], (), CAPTIONER)) if p.key in wordless else p
        for p in pictures
        if p.key not in reasons
    ]


def _describe(
    pictures: Sequence[Picture],
    captions: dict[str, str],
    path: Path,
    captioner: Captioner,
    report: Callable[[int, int], object],
) -> dict[str, str]:
    """Add captions of the images, and write them; returns by key why an image can't be read."""
    reasons: dict[str, str] = {}
    # Whatever ends this: captions can take hours, and the run must go on with the very same words.
    try:
        for number, picture in enumerate(pictures, 1):
            try:
                captions[picture.key] = captioner.caption(picture.path)
            except ImageError as error:
                reasons[picture.key] = str(error)
            if number % WRITE_EVERY == 0:
                _write(path, captions)
            report(number, len(pictures))
    finally:
        _write(path, captions)
    return reasons


def _read(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, captions: dict[str, str]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileWriteError(f"{path}: it can't be written ({error.strerror or error})") from error
    text = json.dumps(captions, indent=1, ensure_ascii=False) + "\n"
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
