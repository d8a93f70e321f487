"""Describes a file without loading its weights: checks everything :func:`~hypernetworks.read` does
but the values.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from ..engine.network import Mlp, Provenance
from ..engine.structure import Structure
from .opened import OpenedFile
from .reading import contents, with_named_errors

_SMALL = 4096
"""Bytes of a region that is read all the same: a number beside the networks."""


@dataclass(frozen=True)
class Description:
    """A hypernetwork without its weights.

    Attributes:
        name: the file's stem.
        widths: context widths, rising.
        dtype: of its tensors in the file.
        provenance: where it comes from.
    """

    name: str
    structure: Structure
    widths: tuple[int, ...]
    dtype: torch.dtype
    provenance: Provenance


def read_description(path: str | os.PathLike[str]) -> Description:
    """Describe a file of any variant.

    Only a few kilobytes are read, however large it is (4 MiB of legacy files).

    Raises:
        FileError, StructureError: see :func:`hypernetworks.read`, which raises the same.
    """
    return with_named_errors(Path(path), _read_description)


def _read_description(path: Path) -> Description:
    with _WithoutNumbers(path) as file:
        tensors, structure, provenance = contents(file, path)
    width = min(tensors)
    state = tensors[width][
        0
    ]  # those of all widths are built alike, which was checked when the structure was derived
    _check_fit(structure, width, tuple((key, tuple(tensor.shape)) for key, tensor in state.items()))
    return Description(
        path.stem, structure, tuple(sorted(tensors)), next(iter(state.values())).dtype, provenance
    )


@lru_cache(maxsize=256)
def _check_fit(
    structure: Structure, width: int, shapes: tuple[tuple[str, tuple[int, ...]], ...]
) -> None:
    """Build the MLP once for all files of the same structure, which most files in a library
    share.
    """
    Mlp(width, structure, {key: torch.empty(shape, device="meta") for key, shape in shapes})


class _WithoutNumbers(OpenedFile):
    """Returns zeros for large regions; untouched memory takes no space."""

    def _fill(self, offset: int, target: memoryview) -> None:
        if len(target) <= _SMALL:
            super()._fill(offset, target)
