"""The blocks of a UNet that have attention, and a factor for each: numbers, or presets by name.

No torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..errors import MultiplierError, TagError
from .schedules import parse_number

BLOCKS_SD1: tuple[str, ...] = (
    *("IN01", "IN02", "IN04", "IN05", "IN07", "IN08", "MID"),
    *(f"OUT{i:02d}" for i in range(3, 12)),
)
"""Blocks of an SD1 or SD2 UNet that have attention, in the order of the ``lbw`` numbers."""
BLOCKS_SDXL: tuple[str, ...] = (
    "IN04",
    "IN05",
    "IN07",
    "IN08",
    "MID",
    *(f"OUT{i:02d}" for i in range(6)),
)
"""The same for SDXL."""
BLOCK_PRESETS: Mapping[str, tuple[float, ...]] = {
    name: tuple(float(digit) for digit in digits)
    for name, digits in {
        "NONE": "0000000000000000",
        "ALL": "1111111111111111",
        "INS": "1110000000000000",
        "IND": "0001110000000000",
        "INALL": "1111110000000000",
        "MIDD": "0001111111100000",
        "OUTD": "0000000111100000",
        "OUTS": "0000000000011111",
        "OUTALL": "0000000111111111",
    }.items()
}
"""lora-block-weight's presets for SD1, without their first number (BASE, the text encoder)."""
_SDXL_LIKE_SD1: Mapping[str, str] = {
    **{name: name for name in ("IN04", "IN05", "IN07", "IN08", "MID")},
    **{f"OUT{i:02d}": f"OUT{i + 3:02d}" for i in range(6)},
}
"""For each block of SDXL the block of SD1 at the same position.

SDXL has no attention at the outermost resolution.
"""
BLOCK_COUNTS = sorted({len(b) + extra for b in (BLOCKS_SD1, BLOCKS_SDXL) for extra in (0, 1)})
"""How many numbers ``lbw`` may have: one per block, or one more with BASE first."""


def block_of(path: str, resnets: int | None) -> str | None:
    """The block that contains a module, from its path in a UNet or from the name of a tensor.

    Args:
        path: in the original (ldm) layout or in diffusers' layout.
        resnets: ResNets per down block of a diffusers UNet, two in all public models; ``None`` if
            the UNet isn't one of diffusers'.

    Returns:
        ``"IN01"`` … ``"MID"`` … ``"OUT11"``; ``None`` if the path has another form.
    """
    if re.search(r"(^|\.)(middle_block|mid_block)\.", path):
        return "MID"
    if match := re.search(r"(^|\.)(input|output)_blocks\.(\d+)\.", path):
        return f"{'IN' if match[2] == 'input' else 'OUT'}{int(match[3]):02d}"

    match = re.search(r"(^|\.)(down|up)_blocks\.(\d+)\.attentions\.(\d+)\.", path)
    if match is None or resnets is None:
        return None
    # In the original layout, a down block is its ResNets, then a downsampler; IN00 is conv_in.
    number = int(match[3]) * (resnets + 1) + int(match[4])
    return f"IN{number + 1:02d}" if match[2] == "down" else f"OUT{number:02d}"


def parse_blocks(text: str) -> str | tuple[float, ...]:
    """Parse the value of ``lbw``: the name of a preset, or a list of numbers.

    Raises:
        MultiplierError: it is neither, or no model has that many blocks.
    """
    # A preset stays a name, since its factors depend on the model.
    if text.upper() in BLOCK_PRESETS:
        return text.upper()

    try:
        numbers = tuple(parse_number(part, "argument lbw") for part in re.split("[,;]", text))
    except MultiplierError as error:
        presets = ", ".join(BLOCK_PRESETS)
        raise MultiplierError(
            f'lbw="{text}" is neither a preset ({presets}) nor a list of numbers'
        ) from error
    if len(numbers) not in BLOCK_COUNTS:
        counts = ", ".join(map(str, BLOCK_COUNTS[:-1]))
        raise MultiplierError(
            f"lbw has {len(numbers)} numbers: write {counts} or {BLOCK_COUNTS[-1]}"
        )

    return numbers


def preset_factors(name: str, blocks: Sequence[str]) -> dict[str, float]:
    """A preset's factors for the blocks of SD1 or SDXL; the same at the same positions.

    Args:
        name: a key of :data:`BLOCK_PRESETS`.
        blocks: :data:`BLOCKS_SD1` or :data:`BLOCKS_SDXL`.
    """
    of_sd1 = dict(zip(BLOCKS_SD1, BLOCK_PRESETS[name], strict=True))
    if tuple(blocks) == BLOCKS_SD1:
        return of_sd1
    return {block: of_sd1[_SDXL_LIKE_SD1[block]] for block in blocks}


def numbers_of(blocks: str | tuple[float, ...]) -> tuple[float, ...]:
    """The factors for SD1 of a preset; numbers as they are."""
    return BLOCK_PRESETS[blocks] if isinstance(blocks, str) else blocks


def block_factors(blocks: str | tuple[float, ...], names: Sequence[str]) -> dict[str, float]:
    """Factors by block name, for a UNet that has some or all blocks of SD1 or SDXL.

    Args:
        blocks: the result of :func:`parse_blocks`.
        names: the UNet's blocks.

    Raises:
        TagError: there are more or fewer numbers than blocks, or the blocks have other names.
    """
    here = set(names)
    # A distilled UNet lacks some blocks, so a subset decides which family's names these are.
    known = next((b for b in (BLOCKS_SD1, BLOCKS_SDXL) if here and here <= set(b)), None)
    if known is None:
        raise TagError(
            "lbw needs the blocks of an SD1, SD2 or SDXL UNet, and this model has others: leave "
            "it out"
        )

    by_name = (
        preset_factors(blocks, known)
        if isinstance(blocks, str)
        else _factors_by_block(blocks, known)
    )
    return {name: factor for name, factor in by_name.items() if name in here}


def _factors_by_block(numbers: tuple[float, ...], known: tuple[str, ...]) -> dict[str, float]:
    # One number more: the first is BASE, the text encoder, which a hypernetwork doesn't change.
    factors = numbers[1:] if len(numbers) == len(known) + 1 else numbers
    if len(factors) != len(known):
        raise TagError(
            f"lbw has {len(numbers)} numbers, but this model has {len(known)} blocks: "
            f"write {len(known)} numbers, or {len(known) + 1} with BASE first"
        )
    return dict(zip(known, factors, strict=True))
