"""The attention modules of a UNet, found by the names of its tensors, and what they are called
elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..engine.blocks import block_of
from ..engine.multiplier import CROSS as CROSS
from ..engine.multiplier import SELF as SELF

_KEY_WEIGHT = re.compile(
    r"(?P<prefix>|model\.diffusion_model\.|diffusion_model\.|unet\.)"
    r"(?P<path>(?:(?:in|out)put_blocks|middle_block|(?:down|up)_blocks|mid_block)\..*\battn[12])\.to_k\.weight"
)
"""Not those of a ControlNet, of a motion module, or of the averaged copy (``model_ema``) in the
same file."""


@dataclass(frozen=True)
class Layer:
    """One attention module.

    Attributes:
        path: in diffusers' UNet: ``down_blocks.0.attentions.0.transformer_blocks.0.attn1``.
        original: the same in the original (ldm) layout, as far as that has a name for it.
        stored: what its tensors' names in the file begin with.
        block: the webui's name of its block: ``IN01``.
        width: of the context that ``to_k`` and ``to_v`` take.
        inner: of what they give.
        outer: of what ``to_out`` gives.
    """

    path: str
    original: str
    stored: str
    block: str
    width: int
    inner: int
    outer: int

    @property
    def kind(self) -> str:
        """:data:`CROSS` or :data:`SELF`."""
        return CROSS if self.path.endswith("attn2") else SELF

    @property
    def key(self) -> str:
        """The tensor in the file."""
        return f"{self.stored}.to_k.weight"

    @property
    def value(self) -> str:
        """The tensor in the file."""
        return f"{self.stored}.to_v.weight"

    @property
    def out(self) -> str:
        """The tensor in the file."""
        return f"{self.stored}.to_out.0.weight"

    @property
    def out_bias(self) -> str:
        """The tensor in the file."""
        return f"{self.stored}.to_out.0.bias"


def find_layers(shapes: Mapping[str, tuple[int, ...]]) -> list[Layer]:
    """All attention modules among tensors, in the order of the names.

    Args:
        shapes: of the tensors, by name.
    """
    matches = [match for name in shapes if (match := _KEY_WEIGHT.fullmatch(name))]
    # the original layout counts blocks through, which takes the number of layers of each
    deepest = _layers_per_block(shapes)

    found = []
    for match in matches:
        stored = f"{match['prefix']}{match['path']}"
        # a quantised weight is no matrix: zeros are refused later, with a name
        inner, width = shapes[match.string][:2] if len(shapes[match.string]) == 2 else (0, 0)
        outer = shapes.get(f"{stored}.to_out.0.weight", (0,))[0]
        path, original = _both_paths(match["path"], deepest)
        found.append(
            Layer(path, original, stored, block_of(original, None) or "MID", width, inner, outer)
        )
    return found


def _layers_per_block(names: Iterable[str]) -> int:
    """Of a UNet: 2 in all public models; fewer in small ones that people make for tests."""
    numbers = []
    for name in names:
        if match := re.search(r"\bdown_blocks\.\d+\.attentions\.(\d+)\.", name):
            numbers.append(int(match[1]) + 1)
        # The original layout counts through: the first block that makes the image smaller ends it.
        if re.search(r"\binput_blocks\.[12]\.0\.op\.", name):
            return 1
    return max(numbers, default=2)


def _both_paths(path: str, layers: int) -> tuple[str, str]:
    """The name in diffusers' layout and in the original one, from either.

    The original counts input and output blocks through; ``layers + 1`` of them make one block of
    diffusers'.
    """
    head, _, rest = path.partition(".transformer_blocks.")
    rest = f".transformer_blocks.{rest}" if rest else ""

    if match := re.fullmatch(r"(input|output)_blocks\.(\d+)\.(\d+)", head):
        block, layer = divmod(int(match[2]) - (match[1] == "input"), layers + 1)
        side = "down" if match[1] == "input" else "up"
        return f"{side}_blocks.{block}.attentions.{layer}{rest}", path
    if match := re.fullmatch(r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)", head):
        number = int(match[2]) * (layers + 1) + int(match[3]) + (match[1] == "down")
        side = "input" if match[1] == "down" else "output"
        return path, f"{side}_blocks.{number}.1{rest}"

    # The middle block has one place in each layout.
    if head == "middle_block.1":
        return f"mid_block.attentions.0{rest}", path
    if head == "mid_block.attentions.0":
        return path, f"middle_block.1{rest}"
    return path, path
