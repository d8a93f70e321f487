"""Blocks have the webui's names in the original layout and in diffusers'."""

from __future__ import annotations

import pytest

from hypernetworks.engine.blocks import BLOCKS_SD1, BLOCKS_SDXL, block_of

ATTENTION = "1.transformer_blocks.0.attn2"


@pytest.mark.parametrize(
    ("path", "resnets", "block"),
    [
        (f"input_blocks.1.{ATTENTION}", None, "IN01"),
        (f"model.diffusion_model.output_blocks.11.{ATTENTION}", None, "OUT11"),
        (f"middle_block.{ATTENTION}", None, "MID"),
        ("mid_block.attentions.0.transformer_blocks.0.attn1", 2, "MID"),
        ("down_blocks.0.attentions.0.transformer_blocks.0.attn1", 2, "IN01"),
        ("down_blocks.2.attentions.1.transformer_blocks.0.attn1", 2, "IN08"),
        ("up_blocks.3.attentions.2.transformer_blocks.0.attn1", 2, "OUT11"),
        ("up_blocks.1.attentions.0.transformer_blocks.0.attn1", 1, "OUT02"),
        ("down_blocks.0.attentions.0.transformer_blocks.0.attn1", None, None),
        ("decoder.3.attn1", 2, None),
    ],
)
def test_block_of_a_path(path: str, resnets: int | None, block: str | None) -> None:
    assert block_of(path, resnets) == block


@pytest.mark.parametrize(
    ("down", "up", "blocks"), [((0, 1, 2), (1, 2, 3), BLOCKS_SD1), ((1, 2), (0, 1), BLOCKS_SDXL)]
)
def test_all_blocks_of_a_family(
    down: tuple[int, ...], up: tuple[int, ...], blocks: tuple[str, ...]
) -> None:
    paths = [f"down_blocks.{b}.attentions.{i}.x" for b in down for i in range(2)]
    paths += ["mid_block.attentions.0.x"]
    paths += [f"up_blocks.{b}.attentions.{i}.x" for b in up for i in range(3)]
    assert tuple(block_of(path, 2) for path in paths) == blocks
