"""Describes a file without its weights; all that :func:`~hypernetworks.read` checks is checked."""

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
"""Bytes of a region that is read nevertheless, such as a step count that is stored as a tensor."""


@dataclass(frozen=True)
class Description:
    """A hypernetwork without its weights.

    Attributes:
        name: the file's stem.
        widths: context widths, ascending.
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

    Only a few kilobytes are read, whatever its size (4 MiB at most, of legacy files).

    Raises:
        FileError, StructureError: see :func:`hypernetworks.read`, which raises the same.
    """
    return with_named_errors(Path(path), _read_description)


def _read_description(path: Path) -> Description:
    with _WithoutNumbers(path) as file:
        tensors, structure, provenance = contents(file, path)

    # One width is enough: deriving the structure has checked that all are built alike.
    width = min(tensors)
    state = tensors[width][0]
    _check_fit(structure, width, tuple((key, tuple(tensor.shape)) for key, tensor in state.items()))
    return Description(
        path.stem, structure, tuple(sorted(tensors)), next(iter(state.values())).dtype, provenance
    )


@lru_cache(maxsize=256)
def _check_fit(
    structure: Structure, width: int, shapes: tuple[tuple[str, tuple[int, ...]], ...]
) -> None:
    """Check that the tensors fit the MLP; done once for all files with the same structure."""
    Mlp(width, structure, {key: torch.empty(shape, device="meta") for key, shape in shapes})


class _WithoutNumbers(OpenedFile):
    """A file whose large regions are zeros; memory that nobody touches takes no space."""

    def _fill(self, offset: int, target: memoryview) -> None:
        if len(target) <= _SMALL:
            super()._fill(offset, target)
