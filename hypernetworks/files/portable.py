"""Converts tensors of types that a file format can't hold."""

from __future__ import annotations

import logging
from collections.abc import Container

import torch

from ..engine.structure import StateDict

_LOG = logging.getLogger("hypernetworks")


def portable(
    tensors: dict[int, tuple[StateDict, StateDict]], held: Container[torch.dtype]
) -> dict[int, tuple[StateDict, StateDict]]:
    """The same networks, with unsupported types converted to float16; logs a warning.

    Args:
        tensors: state dicts by width.
        held: types that the format, and the programs that read it, support.
    """
    others = {
        str(tensor.dtype).removeprefix("torch.")
        for pair in tensors.values()
        for state in pair
        for tensor in state.values()
        if tensor.dtype not in held
    }
    if not others:
        return tensors

    _LOG.warning(
        "the weights are saved as float16: the format can't hold %s", ", ".join(sorted(others))
    )
    return {
        width: (_converted(pair[0], held), _converted(pair[1], held))
        for width, pair in tensors.items()
    }


def _converted(state: StateDict, held: Container[torch.dtype]) -> StateDict:
    return {
        key: tensor if tensor.dtype in held else tensor.to(torch.float16)
        for key, tensor in state.items()
    }
