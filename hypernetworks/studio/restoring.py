"""From a picture back to what it was made with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import HypernetworkError, ImageError, ImageTooLargeError
from ..files.images import open_image
from ..hosts.diffusers.samplers import SAMPLERS
from ..library import Library
from ..prompts import parse, parse_infotext
from ..prompts.infotext import parse_hashes

LONGEST = 1 << 18
"""Characters of an infotext that are looked at."""
MOST_NAMES = 50
"""Networks of an infotext that are looked for: each unknown one is compared with every name."""


@dataclass(frozen=True)
class Restored:
    """The settings in a picture; ``None`` where it says nothing that can be used.

    Attributes:
        messages: what could not be restored, in words.
    """

    prompt: str
    negative: str
    steps: int | None = None
    cfg: float | None = None
    seed: int | None = None
    sampler: str | None = None
    width: int | None = None
    height: int | None = None
    messages: list[str] = field(default_factory=list)


def read_infotext(path: Path) -> str:
    """The infotext of a PNG, as webuis and this studio write it.

    Raises:
        HypernetworkError: it is no picture, or has no infotext.
    """
    try:
        with open_image(path, ["PNG"]) as picture:
            found = picture.info.get("parameters")
    except ImageTooLargeError as error:
        raise HypernetworkError(f"this picture can't be read: {error}") from error
    except ImageError as error:
        raise HypernetworkError(
            "this is not a PNG picture: drop one that a webui or this studio has made"
        ) from error
    if not isinstance(found, str) or not found.strip():
        raise HypernetworkError(
            "this picture has no infotext: it was saved without it, or edited since"
        )
    return found[:LONGEST]


def restore(infotext: str, library: Library, model: str) -> Restored:
    """Understand an infotext, and say what of it this studio can't give back."""
    prompt, negative, pairs = parse_infotext(infotext)
    messages: list[str] = []
    sampler = pairs.get("Sampler")
    if sampler is not None and sampler not in SAMPLERS:
        messages.append(f'the sampler "{sampler}" is not known here, the chosen one is kept')
        sampler = None
    if pairs.get("Model", model) != model:
        messages.append(f"it was made with the model {pairs['Model']}, and {model} is loaded")
    width, height = _size(pairs)
    return Restored(
        prompt,
        negative,
        _number(pairs, "Steps", 1, 1000),
        _fraction(pairs, "CFG scale", 0, 100),
        _number(pairs, "Seed", 0, 2**63 - 1),
        sampler,
        width,
        height,
        [*messages, *_of_networks(prompt, pairs, library)],
    )


def _of_networks(prompt: str, pairs: Mapping[str, str], library: Library) -> list[str]:
    found, hashes = list[str](), parse_hashes(pairs.get("Hypernet hashes", ""))
    names = list(dict.fromkeys(tag.name for tag in parse(prompt)[1]))
    if len(names) > MOST_NAMES:
        found.append(f"it names {len(names)} networks, only {MOST_NAMES} were looked for")
    for name in names[:MOST_NAMES]:
        try:
            entry = library.find(name)
        except HypernetworkError as error:
            found.append(str(error))
            continue
        expected = hashes.get(name) or hashes.get(entry.name)
        if expected is not None and not library.hashes.sha256(entry).startswith(expected):
            found.append(
                f"the file {name} is another here than the one that made the picture (hash {expected})"
            )
    return found


def _size(pairs: Mapping[str, str]) -> tuple[int | None, int | None]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", pairs.get("Size", ""))
    return (int(match[1]), int(match[2])) if match else (None, None)


def _number(pairs: Mapping[str, str], key: str, low: int, high: int) -> int | None:
    value = pairs.get(key, "")
    return int(value) if re.fullmatch(r"[0-9]{1,19}", value) and low <= int(value) <= high else None


def _fraction(pairs: Mapping[str, str], key: str, low: float, high: float) -> float | None:
    value = pairs.get(key, "")
    return (
        float(value)
        if re.fullmatch(r"\d{1,4}(\.\d{1,9})?", value) and low <= float(value) <= high
        else None
    )
