"""Restore the settings that an image was generated with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import HypernetworkError, ImageError, ImageTooLargeError
from ..files.image_texts import infotext_in
from ..files.images import open_image
from ..hosts.diffusers.passes import UPSCALERS
from ..hosts.diffusers.samplers import SAMPLERS
from ..hosts.infotext import HASHES
from ..hosts.restoring import USED, Source, bring_back
from ..library import Library
from ..prompts import parse, parse_infotext
from ..prompts.infotext import parse_hashes
from ..prompts.json_infotexts import json_object
from ..prompts.near_misses import near_misses
from .ranges import RANGES

LONGEST = 1 << 18
"""Characters of an infotext that are looked at."""
OF_ANOTHER_PROGRAM = (
    "the settings in this image are JSON of a program that is not known here, or a ComfyUI "
    "workflow without the prompt that ran: copy prompt and settings by hand"
)
MOST_NAMES = 50
"""Networks of an infotext that are looked for: each unknown one is compared with every name."""


@dataclass(frozen=True)
class Restored:
    """The settings in an image; ``None`` where it states nothing usable.

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
    hires: bool | None = None
    hires_scale: float | None = None
    hires_strength: float | None = None
    upscaler: str | None = None
    strength: float | None = None
    messages: list[str] = field(default_factory=list)


def read_infotext(path: Path) -> str:
    """The infotext of a PNG, JPEG, WebP or AVIF, as webuis and this studio write it.

    Raises:
        HypernetworkError: it is no picture, or has no infotext.
    """
    try:
        with open_image(path) as picture:
            found = picture.info.get("parameters") or infotext_in(picture.info, picture.getexif())
    except ImageTooLargeError as error:
        raise HypernetworkError(f"this image can't be read: {error}") from error
    except ImageError as error:
        raise HypernetworkError(
            "this is not a readable image: drop a PNG, JPEG or WebP that a webui or this studio "
            "has saved"
        ) from error

    if not isinstance(found, str) or not found.strip():
        raise HypernetworkError(
            "this image has no infotext: it was saved without one, or edited since"
        )
    return _with_line_ends(found[:LONGEST])


def _with_line_ends(text: str) -> str:
    """Other systems' line ends as ours."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


_READ = (
    *("Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Model", *USED),
    *("Hires upscale", "Hires upscaler", "Denoising strength"),
)
_HARMLESS = (
    "Version",
    "Model hash",
    "RNG",
    "Batch size",
    "Batch pos",
    "User",
    "Template",
    "Negative Template",
)
"""Keys that change nothing which this studio could do."""
_DEFAULTS = {"Clip skip": "1", "Schedule type": "Automatic", "ENSD": "0"}
"""Values that mean the same as leaving the key out."""


def restore(infotext: str, library: Library, model: str) -> Restored:
    """Understand an infotext, and say what of it this studio can't give back: every key is used or
    named.

    Raises:
        HypernetworkError: it is JSON that states no settings under known names.
    """
    prompt, negative, pairs = parse_infotext(_with_line_ends(infotext))
    # ComfyUI and others write JSON in the same place: as a prompt it would make no sense.
    if not pairs and json_object(prompt) is not None:
        raise HypernetworkError(OF_ANOTHER_PROGRAM)

    messages: list[str] = []
    source = Source(
        library,
        lambda e: (library.hashes.known(e) or "")[:10] or None,
        lambda e: library.hashes.sha256(e)[:10],
        library.scan,
        messages.append,
    )
    # Tags of other names may mean files that are here under another one, told by their hashes.
    prompt = bring_back({"Prompt": prompt}, pairs, source, "Prompt")["Prompt"]

    sampler = _sampler(pairs, messages)
    if pairs.get("Model", model) != model:
        messages.append(
            f"the image was generated with the model {pairs['Model']}, but {model} is loaded"
        )
    width, height = _size(pairs)
    values: dict[str, object] = {
        "Steps": _number(pairs, "Steps", "steps"),
        "CFG scale": _fraction(pairs, "CFG scale", "cfg"),
        "Seed": _number(pairs, "Seed", "seed"),
        "Size": width,
    }
    messages += _unusable(pairs, values)
    messages += near_misses(parse(prompt)[0], loras=False)
    return Restored(
        prompt,
        negative,
        _number(pairs, "Steps", "steps"),
        _fraction(pairs, "CFG scale", "cfg"),
        _number(pairs, "Seed", "seed"),
        sampler,
        width,
        height,
        **_passes(pairs, messages),
        messages=[*messages, *_of_networks(prompt, pairs, library)],
    )


def _passes(pairs: Mapping[str, str], messages: list[str]) -> dict[str, Any]:
    """The hires pass, or the strength with which another image was changed."""
    strength = _fraction(pairs, "Denoising strength", "strength")
    scale = _fraction(pairs, "Hires upscale", "hires_scale")
    # At 0, nothing was changed: webuis write it for images without a second pass, too.
    if strength is None and pairs.get("Denoising strength", "0").strip("0.") != "":
        messages.append(_left(pairs, "Denoising strength"))
    if scale is None:
        # At 1, nothing of the other image is left.
        if strength is not None and strength < 1:
            messages.append(
                f"Denoising strength {strength:g}: it was generated from another image, which you "
                "have to choose yourself"
            )
        unused = [key for key in ("Hires upscale", "Hires upscaler") if key in pairs]
        messages += [f"{key}: {pairs[key]} can't be used here" for key in unused]
        return {"hires": False if pairs else None, "strength": strength or None}

    upscaler: str | None = pairs.get("Hires upscaler", "Latent")
    if upscaler not in UPSCALERS:
        messages.append(f'the upscaler "{upscaler}" is not known here: the chosen one is kept')
        upscaler = None
    return {
        "hires": True,
        "hires_scale": scale,
        "hires_strength": strength or None,
        "upscaler": upscaler,
    }


def _sampler(pairs: Mapping[str, str], messages: list[str]) -> str | None:
    """The sampler's name, which since A1111 1.9 has the schedule type in a key of its own."""
    name, schedule = pairs.get("Sampler"), pairs.get("Schedule type", "Automatic")
    if name is None:
        return None

    # A1111 1.9 and later split "DPM++ 2M Karras" in two; earlier ones, and other webuis, do not.
    both = (
        name if schedule in ("Automatic", "") or name.endswith(schedule) else f"{name} {schedule}"
    )
    if both in SAMPLERS:
        return both
    if name in SAMPLERS:
        messages.append(
            f'the schedule type "{schedule}" is not known here for {name}; its default is used'
        )
        return name

    messages.append(f'the sampler "{both}" is not known here; the chosen one is kept')
    return None


def _unusable(pairs: Mapping[str, str], values: Mapping[str, object]) -> list[str]:
    """Lines for values that are missing or can't be used, and one for all keys that nothing here
    understands.
    """
    missing = [key for key in ("Sampler", *values) if key not in pairs]
    if not pairs:
        return ["the image states no settings, only a prompt: the other fields stay as they are"]
    lines = [_left(pairs, key) for key, value in values.items() if key in pairs and value is None]
    if missing:
        lines.append(f"not stated in the image, so these stay as they are: {', '.join(missing)}")
    left = [
        f"{key}: {value if len(value) <= 60 else value[:60] + '…'}"
        for key, value in pairs.items()
        if key not in (*_READ, *_HARMLESS) and _DEFAULTS.get(key) != value
    ]
    if left:
        lines.append(f"not used here, so the image may differ: {', '.join(left)}")

    return lines


def _of_networks(prompt: str, pairs: Mapping[str, str], library: Library) -> list[str]:
    found, hashes = list[str](), parse_hashes(pairs.get(HASHES, ""))
    names = list(dict.fromkeys(tag.name for tag in parse(prompt)[1]))
    # The infotext is anybody's: it must not make the studio search for thousands of names.
    if len(names) > MOST_NAMES:
        found.append(
            f"the prompt names {len(names)} networks; only the first {MOST_NAMES} were looked up"
        )

    for name in names[:MOST_NAMES]:
        try:
            entry = library.find(name)
        except HypernetworkError as error:
            found.append(str(error))
            continue
        expected = hashes.get(name) or hashes.get(entry.name)
        if expected is not None and not library.hashes.sha256(entry).startswith(expected):
            found.append(
                f"the file {name} differs from the one that generated the image (hash {expected})"
            )

    return found


_FIELDS = {
    "Steps": "steps",
    "CFG scale": "cfg",
    "Seed": "seed",
    "Size": "width",
    "Denoising strength": "strength",
}
"""Keys of an infotext, and the fields that say what they may be."""


def _left(pairs: Mapping[str, str], key: str) -> str:
    """What to tell about a value that is not restored."""
    return (
        f"{key}: {pairs[key]} can't be used here ({RANGES[_FIELDS[key]]} can); "
        "the field stays as it is"
    )


def _size(pairs: Mapping[str, str]) -> tuple[int | None, int | None]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", pairs.get("Size", ""))
    if match is None or not all(int(side) in RANGES["width"] for side in match.groups()):
        return None, None
    return int(match[1]), int(match[2])


def _number(pairs: Mapping[str, str], key: str, field: str) -> int | None:
    value = pairs.get(key, "")
    is_usable = re.fullmatch(r"[0-9]{1,19}", value) and int(value) in RANGES[field]
    return int(value) if is_usable else None


def _fraction(pairs: Mapping[str, str], key: str, field: str) -> float | None:
    value = pairs.get(key, "")
    is_usable = re.fullmatch(r"\d{1,4}(\.\d{1,9})?", value) and float(value) in RANGES[field]
    return float(value) if is_usable else None
