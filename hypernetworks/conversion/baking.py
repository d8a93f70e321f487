"""Linear networks baked into a checkpoint: a copy of the file in which some tensors have other
numbers.

The header stays as it is, byte for byte, because no tensor changes its type or shape; so do all
other tensors.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch

from ..engine.stack import KEY, VALUE
from ..errors import CheckpointError, FileWriteError, printable
from ..files.moving import move
from ..files.writing import STALE, replace
from .base import Base, unet_folder
from .copying import Copier
from .layers import Layer
from .tensor_files import TensorFile
from .weighted import LinearChanges, OnProgress, Weighted, enough_memory

Compute = Callable[[], "torch.Tensor | None"]
"""The new numbers of one tensor, in its own type; ``None`` where it doesn't change."""


def bake(
    base: Base,
    networks: Sequence[Weighted],
    target: Path,
    *,
    on_progress: OnProgress | None = None,
) -> int:
    """Write a copy of a checkpoint that has linear networks in its weights.

    Args:
        base: a file in the original layout, or a diffusers folder.
        networks: in the order of application.
        target: a ``.safetensors`` file, or a folder for a folder. It appears whole or not at all.
        on_progress: told (bytes done, all bytes) of the UNet's files.

    Returns:
        The number of tensors that were changed.

    Raises:
        StructureError: a network isn't linear.
        NoMatchingWidthError: a network for another model.
        FileWriteError: no room on the disk, no permission; what was there is untouched.
        CheckpointError: the checkpoint has numbers that can't be changed, or it changes while it
            is read.
    """
    # everything that can be refused is refused before the first byte is written
    check_baking_target(base.path, target)
    changes = LinearChanges(base, networks)
    news = _new_tensors(base, changes)
    _check_room(base, target)
    done, total = 0, sum(file.size for file in base.files)

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(done, total)

    # one tensor is computed at a time: a checkpoint may be larger than the memory
    with enough_memory("to bake the networks: close other programs"), torch.no_grad():
        if base.path.is_dir():
            _bake_folder(base, news, target, advance)
        else:
            replace(target, partial(_copy, base.files[0], news, advance))
    changes.release()
    return len(news)


def check_baking_target(source: Path, target: Path) -> None:
    """Raise where the target can't be what a baked copy of the source is.

    Raises:
        FileWriteError: why.
    """
    if source.is_dir():
        if target.exists():
            raise FileWriteError(f"{target} exists: choose another name for the folder")
    elif target.suffix != ".safetensors":
        raise FileWriteError(f"{target}: choose a name that ends in .safetensors")

    if not target.parent.is_dir():
        raise FileWriteError(f"{target}: there is no folder {target.parent}: create it first")
    if target.exists() and target.samefile(source):
        raise FileWriteError(f"{target} is the checkpoint itself: choose another name")


def _check_room(base: Base, target: Path) -> None:
    """A disk that is full is noticed before minutes of work, where the system says so."""
    needed = (
        sum(file.stat().st_size for file in base.path.rglob("*") if file.is_file())
        if base.path.is_dir()
        else base.files[0].size
    )

    # network drives may not say; writing then meets the end of the disk by itself
    try:
        free = shutil.disk_usage(target.parent).free
    except OSError:
        return

    if free < needed:
        raise FileWriteError(
            f"{target}: the disk has {free / 1e6:,.0f} MB free, and {needed / 1e6:,.0f} MB are "
            "needed: delete or move some files"
        )


def _new_tensors(base: Base, changes: LinearChanges) -> dict[str, Compute]:
    """What is computed for each tensor that changes, when its turn comes."""
    news: dict[str, Compute] = {}
    for layer in base.layers:
        for name, side in ((layer.key, KEY), (layer.value, VALUE)):
            if changes.affine(layer, side) is not None:
                news[name] = partial(_weight, changes, layer, side, name)

        # the key's bias has no place here: softmax doesn't see it
        affine = changes.affine(layer, VALUE)
        if affine is not None and affine.bias.any():
            news[layer.out_bias] = partial(_bias, changes, layer)

    if not news:
        raise CheckpointError(
            "the networks change nothing in this checkpoint at these multipliers: check the "
            "multipliers"
        )
    return news


def _weight(changes: LinearChanges, layer: Layer, side: int, name: str) -> torch.Tensor | None:
    product = changes.product(layer, side)
    return None if product is None else _added(changes.base.tensor(name), product, name)


def _bias(changes: LinearChanges, layer: Layer) -> torch.Tensor | None:
    affine = changes.affine(layer, VALUE)
    bias = None if affine is None else changes.bias_at(layer, affine)
    name = layer.out_bias
    return None if bias is None else _added(changes.base.tensor(name), bias, name)


def _added(old: torch.Tensor, change: torch.Tensor, name: str) -> torch.Tensor:
    """The sum, rounded once, to the type of the old."""
    new = (old.to(change.dtype) + change).to(old.dtype)
    if not new.isfinite().all():
        raise CheckpointError(
            f"{printable(name, 120)} gets numbers that its type can't hold: use a lower "
            "multiplier, or a checkpoint in fp32"
        )
    return new


def _bake_folder(
    base: Base, news: dict[str, Compute], target: Path, advance: Callable[[int], None]
) -> None:
    """Copy a diffusers folder under a temporary name, then give it its own."""
    _sweep(target.parent)
    # in the same folder, so that the last move is one step on one file system
    temporary = target.with_name(f".baking-{secrets.token_hex(6)}.tmp")
    unet = unet_folder(base.path)
    weights = {
        path for path in unet.iterdir() if path.suffix in (".safetensors", ".bin", ".msgpack")
    }

    def left_out(folder: str, names: list[str]) -> list[str]:
        """Other variants of the UNet's weights, which would still be the old ones."""
        return [name for name in names if Path(folder, name) in weights]

    try:
        shutil.copytree(base.path, temporary, ignore=left_out)
        for file in base.files:
            replace(
                temporary / file.path.relative_to(base.path),
                partial(_copy, file, news, advance),
            )
        move(temporary, target)
    except OSError as error:
        if isinstance(error, FileWriteError):
            raise
        reason = error.strerror or str(error)
        raise FileWriteError(f"{target}: it can't be written ({reason})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove copies that a killed process has left, once they are a day old."""
    with suppress(OSError):
        for path in folder.glob(".baking-*.tmp"):
            if time.time() - path.stat().st_mtime > STALE:
                shutil.rmtree(path, ignore_errors=True)


def _copy(
    source: TensorFile, news: dict[str, Compute], advance: Callable[[int], None], temporary: Path
) -> None:
    """All bytes of a file, but for the tensors in ``news``."""
    # in the order of the file, which is then read and written from end to end
    changed = sorted((source.entries[name].offset, name) for name in news if name in source.entries)
    position = 0

    with temporary.open("r+b", buffering=0) as file:
        copier = Copier(source, file, advance)
        for offset, name in changed:
            copier.copy(position, offset)
            length = source.entries[name].length
            new = news[name]()
            if new is None:
                copier.copy(offset, offset + length)
            else:
                copier.write(new.contiguous().reshape(-1).view(torch.uint8).numpy().data)
            position = offset + length

        copier.copy(position, source.size)
    source.check_unchanged()
