"""Memory: the peak with networks, what is left when they are gone, and cards of 4, 6 and 8 GB."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch

import hypernetworks as hn

from ..cases import Networks
from .models import Setting, Subject, stacks
from .report import Table

CARDS = (4, 6, 8)
"""GB of the cards that are tried."""
NEEDS_CUDA = "not measured: this device tells nothing of its memory"


def allocated(device: str) -> int:
    """Bytes of live tensors on the device; 0 where it can't be told."""
    if device != "cuda":
        return 0
    gc.collect()
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated()


def peaks(setting: Setting, family: str, size: int) -> Iterator[Table]:
    """Peak of one call, folded and not, and what stays after the last network's release."""
    subject = Subject(family, size, setting.half, setting.device, setting.is_small)
    call = partial(subject.call, subject.inputs())
    table = Table(
        f"{family} {size}x{size}, memory, MiB beyond no network",
        ("stack", "peak", "peak, not folded", "while applied", "left after release, bytes"),
    )
    call()
    none = _peak(call, setting.device)

    for name, stack in stacks(subject).items():
        before, found = allocated(setting.device), list[float]()
        for dense in (True, False):
            with _applied(subject, stack, dense):
                found.append((_peak(call, setting.device) - none) / 2**20)
                during = (allocated(setting.device) - before) / 2**20
            for network, _ in stack:
                network.release()
            if dense:
                found.append(during)
        left = allocated(setting.device) - before
        folded, applied, other = found
        table.rows.append([name, f"{folded:.1f}", f"{other:.1f}", f"{applied:.1f}", str(left)])
        table.raw[name] = {"peak": folded, "peak_not_folded": other, "left_bytes": left}
        table.bars.append((f"ours: {name}", folded, folded, folded))

    table.unit = "MiB"
    if setting.device != "cuda":
        table.notes.append(NEEDS_CUDA)

    yield table


@contextmanager
def _applied(subject: Subject, stack: Networks, dense: bool) -> Iterator[None]:
    options = {} if dense else {"is_dense": lambda _: False}
    with hn.apply(subject.unet, stack, **options):  # type: ignore[arg-type]
        yield


def _peak(call: partial[torch.Tensor], device: str) -> int:
    """Most bytes of tensors at once, over two calls."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        call()
    return torch.cuda.max_memory_allocated() if device == "cuda" else 0


def cards(setting: Setting) -> Iterator[Table]:
    """Small cards: an allocator that gives no more than theirs.

    What is too much costs networks, not the image.
    """
    table = Table(
        "small cards: one call each",
        ("model", *(f"{gigabytes} GB" for gigabytes in CARDS)),
    )

    for family, size in (("SD1.5", 512), ("SD1.5", 1024), ("SDXL", 1024)):
        subject = Subject(family, size, setting.half, setting.device, setting.is_small)
        call = partial(subject.call, subject.inputs())
        made = stacks(subject, ("linear", "relu"))
        for name in (None, "linear", "relu"):
            stack = made[name] if name else []
            cells = [_on_card(subject, stack, call, setting.device, size) for size in CARDS]
            table.rows.append([f"{family} {size}x{size}, {name or 'no network'}", *cells])
        del subject, call, made
        if setting.device == "cuda":
            gc.collect()

    if setting.device != "cuda":
        table.notes.append(NEEDS_CUDA)
    yield table


def _on_card(
    subject: Subject,
    stack: Networks,
    call: partial[torch.Tensor],
    device: str,
    gigabytes: int,
) -> str:
    """How one call ends on such a card."""
    told: list[Exception] = []
    try:
        with (
            limited(gigabytes, device),
            hn.apply(subject.unet, stack, on_error=told.append) as handle,
        ):
            call()
            call()
            ways = sorted(set(handle.paths.values()) - {"untouched"})
    except torch.cuda.OutOfMemoryError:
        return "out of memory"
    finally:
        for network, _ in stack:
            network.release()

    return "without networks" if told else "+".join(ways) or "fits"


@contextmanager
def limited(gigabytes: float, device: str) -> Iterator[None]:
    """The allocator refuses to go beyond, as on a card of that size."""
    if device != "cuda":
        yield
        return
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * 1e9 / total))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
