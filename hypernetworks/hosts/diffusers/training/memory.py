"""How much memory a training takes, and what to do where there is less: ``--memory auto``.

A pure calculation: bytes per latent pixel were counted for full-size UNets on the meta device
(every tensor that is alive at the peak of a step, with what autocast converts; see
``benchmarks/gpu/footprint.py``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from ....training.settings import STORAGES
from .stored import FP8, SMALLEST, STREAMED, WHOLE

KIB, GB = 1024, 1e9
PER_PIXEL = {"SD": (300 * KIB, 70 * KIB), "SDXL": (510 * KIB, 46 * KIB)}
"""Bytes of activations per latent pixel in half precision: kept, and computed twice."""
ENCODING = 128 * KIB
"""Bytes per latent pixel while the autoencoder, in fp32, encodes one image."""
AUTOENCODER = 340e6
"""Bytes of its weights in fp32."""
OPTIMISER = 16
"""Bytes per parameter of the network: itself, gradient and two moments, in fp32."""
DONE = {
    FP8: "the UNet's weights are stored in fp8",
    STREAMED: "the UNet's weights stay in the CPU's memory",
}
"""What the user is told."""
SPARE = 0.4e9
"""Bytes for what no formula knows: workspaces of libraries, and what the allocator can't use."""


@dataclass(frozen=True)
class Needs:
    """What a training is made of.

    Attributes:
        small, large: bytes of the UNet's weights, in the precision that it computes in: those that
            stay as they are, and those that may be stored in another way.
        numbers: how many numbers the large ones have.
        layer: bytes of the largest weight.
        network: parameters of the hypernetwork.
        kept, twice: bytes of activations of a step, all kept, and computed twice.
        encoding: bytes while images are encoded.
    """

    small: float
    large: float
    numbers: float
    layer: float
    network: float
    kept: float
    twice: float
    encoding: float

    def bytes(self, storage: str, checkpointing: bool) -> float:
        """The peak of a training."""
        weights = {
            WHOLE: self.large,
            FP8: self.numbers + 2 * self.layer,
            STREAMED: 3 * self.layer,
        }[storage]
        step = self.network * OPTIMISER + (self.twice if checkpointing else self.kept)
        return self.small + weights + max(step, self.encoding) + SPARE


@dataclass(frozen=True)
class Plan:
    """What is done.

    Attributes:
        storage: of the UNet's weights, see :mod:`.stored`.
        checkpointing: whether activations are computed twice.
        bytes: how much memory the training takes, about.
        message: why, for the user; empty where nothing had to be done.
    """

    storage: str
    checkpointing: bool
    bytes: float
    message: str = ""


def needs(
    unet: Any,
    dtype: torch.dtype,
    parameters: int,
    batch: int,
    sizes: Iterable[tuple[int, int]],
) -> Needs:
    """What training on this UNet needs.

    Args:
        unet: of diffusers.
        dtype: that it computes in.
        parameters: of the hypernetwork.
        batch: images at once in this process.
        sizes: widths and heights of the images, in pixels.
    """
    counts = [parameter.numel() for parameter in unet.parameters()]
    large = [count for count in counts if count >= SMALLEST]
    config = unet.config
    is_xl = getattr(config, "addition_embed_type", None) == "text_time"

    # The counts are of UNets whose first blocks have 320 channels.
    scale = config.block_out_channels[0] / 320 * dtype.itemsize / 2
    pixels = max(width * height for width, height in sizes) / 64
    kept, twice = (scale * batch * pixels * each for each in PER_PIXEL["SDXL" if is_xl else "SD"])
    return Needs(
        small=float(dtype.itemsize * (sum(counts) - sum(large))),
        large=float(dtype.itemsize * sum(large)),
        numbers=float(sum(large)),
        layer=float(dtype.itemsize * max(large, default=0)),
        network=float(parameters),
        kept=kept,
        twice=twice,
        encoding=AUTOENCODER + pixels * ENCODING,
    )


def plan(
    needed: Needs, free: float | None, memory: str = "auto", checkpointing: str = "auto"
) -> Plan:
    """The fastest way to train that fits.

    Args:
        free: bytes that the device has for all of it, the UNet included; ``None`` where that is not
            known.
        memory: one of :data:`~hypernetworks.training.settings.MEMORY`.
        checkpointing: ``"auto"``, ``"on"`` or ``"off"``.
    """
    twice = {"on": (True,), "off": (False,), "auto": (False, True)}[checkpointing]
    storages = STORAGES if memory == "auto" else (memory,)
    if free is None:  # the run still turns on checkpointing where memory runs out
        return Plan(storages[0], twice[0], needed.bytes(storages[0], twice[0]))

    # Storing costs time at every layer even where activations are kept, so it comes last.
    ways = [(storage, again) for storage in storages for again in twice]
    ways = [way for way in ways if way[0] == WHOLE or way[1] or len(twice) == 1] or ways
    usual = Plan(*ways[0], needed.bytes(*ways[0]))
    if usual.bytes <= free:
        return usual

    chosen = next((way for way in ways if needed.bytes(*way) <= free), ways[-1])
    found = Plan(*chosen, needed.bytes(*chosen))
    has_better = needed.bytes(STREAMED, checkpointing=True) < 0.95 * found.bytes
    return Plan(*chosen, found.bytes, _said(found, usual, free, has_better))


def _said(found: Plan, usual: Plan, free: float, has_better: bool) -> str:
    if (found.storage, found.checkpointing) == (usual.storage, usual.checkpointing):
        return (
            f"training needs about {usual.bytes / GB:.1f} GB of memory and {free / GB:.1f} GB "
            "are free: if it runs out, use a smaller batch or size"
        ) + ", or `memory` auto" * has_better

    done = ["gradient checkpointing is on"] * found.checkpointing
    if found.storage != WHOLE:
        done.append(DONE[found.storage])
    text = (
        f"training needs about {usual.bytes / GB:.1f} GB of memory and {free / GB:.1f} GB are "
        f"free, so {' and '.join(done)} (about {found.bytes / GB:.1f} GB, slower)"
    )
    if found.bytes > free:
        text += "; even that may be too much: use a smaller batch or size"
    return text


def free_bytes(device: torch.device) -> float | None:
    """Bytes that a device has for new tensors; ``None`` where it doesn't say.

    What torch keeps unused counts as free, and a limit set by ``set_per_process_memory_fraction``
    as the end of the memory.
    """
    module: Any = getattr(torch, device.type, None)
    ask = getattr(module, "mem_get_info", None)
    if device.type not in ("cuda", "xpu") or ask is None:
        return None

    try:
        free, total = ask(device)
        reserved = module.memory_reserved(device)
        share = getattr(module, "get_per_process_memory_fraction", lambda _: 1.0)(device)
        unused = reserved - module.memory_allocated(device)
    except (RuntimeError, NotImplementedError):
        return None
    return float(min(free, share * total - reserved) + unused)
