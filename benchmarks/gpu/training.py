"""Training: step time and peak memory of A1111's loop, ours and the floor, and training on small
cards.

The loops are those of :mod:`benchmarks.training`. On a GPU all of them have the UNet in half
precision, as webuis load it; the plain loop computes in autocast, with a scaler in fp16, and
computes activations twice, as AUTOMATIC1111 does.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from hypernetworks.hosts.diffusers.training import memory, stored

from .. import training as loops
from . import timing
from .memory import NEEDS_CUDA, limited
from .models import Setting, built
from .report import Table, with_interval

PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
CASES = (
    ("bf16", 4, False),
    ("fp16", 4, False),
    ("bf16", 1, False),
    ("bf16", 8, False),
    ("bf16", 4, True),
)
"""Precision, batch, and computing activations twice; most valuable first."""  # fmt: skip

RESERVED = 45.0
"""Seconds that are left to the parts that come after the steps."""


class DeviceModel(loops.Model):
    """A UNet on the device in half precision; contexts are drawn, as a text encoder has no part in
    the step.
    """

    def __init__(self, setting: Setting, precision: str, size: int, family: str = "SD1.5") -> None:
        self.device, self.precision, self.channels = setting.device, precision, 4
        dtype = PRECISIONS[precision] if setting.device == "cuda" else torch.float32
        self.unet = built(family, dtype, setting.device, setting.is_small)
        self.edge = max(8, size // (128 if setting.is_small else 8))
        self.keep, self.recompute = True, True
        self.schedule = loops.NoiseSchedule(torch.linspace(0.9991, 0.0047, 1000))
        sites = loops.find_sites(self.unet)
        self.widths = tuple(sorted({s.width for s in sites if s.width is not None}))
        config = self.unet.config
        self.pooled = (
            config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
            if family == "SDXL"
            else 0
        )

    def encode(self, texts: Any) -> torch.Tensor:
        """Contexts ``(batch, 77, width)``, in fp32."""
        width = int(self.unet.config.cross_attention_dim)
        return torch.randn(len(list(texts)), 77, width, device=self.device)


def steps(setting: Setting, left: Callable[[], float]) -> Iterator[Table]:
    """Seconds and peaks of whole steps, in interleaved rounds."""
    table = Table(
        "training SD1.5 512x512, one step",
        ("case", "plain ms", "ours ms", "of plain", "of the floor", "peak MiB: plain", "ours"),
    )
    taken = 0.0

    for precision, batch, twice in CASES[2:3] if setting.is_small else CASES:
        name = f"{precision}, batch {batch}" + ", activations twice" * twice
        if left() - RESERVED < 1.2 * taken:
            table.notes.append(f"{name}: no time left")
            continue
        begun = time.monotonic()
        try:
            _row(setting, table, name, precision, batch, twice)
        except Exception as error:  # a case costs itself
            table.notes.append(
                f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:160]}"
            )
        taken = max(taken, time.monotonic() - begun)
        gc.collect()

    yield table


def _row(
    setting: Setting, table: Table, name: str, precision: str, batch: int, twice: bool
) -> None:
    model = DeviceModel(setting, precision, 512)
    made = {loop: loops.build(loop, model, batch) for loop in loops.LOOPS}
    if twice:
        made["ours"]._frozen.save_memory()  # type: ignore[union-attr]
    seconds: dict[str, list[float]] = {loop: [] for loop in loops.LOOPS}
    peaks: dict[str, float] = {}

    for number in range((1 if setting.is_small else max(3, setting.rounds // 3)) + 1):
        for loop in random.sample(loops.LOOPS, len(loops.LOOPS)):
            if setting.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            took = loops.timed(made[loop], setting.device)
            if number:
                seconds[loop].append(1e3 * took)
            if setting.device == "cuda":
                peaks[loop] = torch.cuda.max_memory_allocated() / 2**20

    cells = [f"{statistics.median(seconds[loop]):.1f}" for loop in ("plain", "ours")]
    ratios = [timing.ratio(seconds["ours"], seconds[other]) for other in ("plain", "floor")]
    memory = [f"{peaks[loop]:.0f}" if peaks else "-" for loop in ("plain", "ours")]
    table.rows.append([name, *cells, *map(with_interval, ratios), *memory])
    table.raw[name] = {"milliseconds": seconds, "peak_mib": peaks}
    table.bars += [
        (f"{loop}: {name}", found.median, found.low, found.high)
        for loop in loops.LOOPS
        if (found := timing.bootstrapped(seconds[loop]))
    ]

    if peaks:
        table.notes.append(f"{name}: peaks hold the other loops' networks and optimisers, too")


def sdxl(setting: Setting, left: Callable[[], float]) -> Iterator[Table]:
    """SDXL at 1024, bf16, batch 1: A1111's loop and the floor, and ours in each way to store the
    UNet, activations computed twice.
    """
    table = Table(
        "training SDXL 1024x1024 bf16, one step, activations computed twice",
        ("loop", "ms", "peak MiB"),
    )

    with _all_weights_count(setting):
        for name in ("whole", "fp8", "plain", "streamed", "floor"):
            if left() < 8:
                table.notes.append(f"{name}: no time left")
                continue
            try:
                _sdxl_row(setting, table, name)
            except Exception as error:  # a row costs itself
                table.notes.append(
                    f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:160]}"
                )
            gc.collect()

    yield table


def _sdxl_row(setting: Setting, table: Table, name: str) -> None:
    model = DeviceModel(setting, "bf16", 1024, "SDXL")
    loop: Any = (
        loops.Ours(model, 1, name) if name in stored.STORAGES else loops.build(name, model, 1)
    )
    frozen = getattr(loop, "_frozen", None)
    if frozen is not None:
        frozen.save_memory()

    milliseconds, peak = list[float](), "-"
    with loop.prepared():
        loop.step()
        if setting.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        for _ in range(1 if setting.is_small else 5):
            milliseconds.append(timing.milliseconds(loop.step, setting.device))
        if setting.device == "cuda":
            peak = f"{torch.cuda.max_memory_allocated() / 2**20:.0f}"
    found = timing.bootstrapped(milliseconds)
    table.rows.append([name, with_interval(found, 1), peak])
    table.raw[name] = {"milliseconds": milliseconds, "peak_mib": peak}
    kind = name if name in loops.LOOPS else f"ours, {name}"
    table.bars.append((f"{kind.split(',')[0]}: {name}", found.median, found.low, found.high))


@contextmanager
def _all_weights_count(setting: Setting) -> Iterator[None]:
    """In a rehearsal, no weight is too small to be stored in another way."""
    before = stored.SMALLEST
    stored.SMALLEST = 256 if setting.is_small else before
    try:
        yield
    finally:
        stored.SMALLEST = before


SMALL_CARDS = (("SD1.5", 512, 1), ("SDXL", 1024, 1), ("SD1.5", 512, 4))
"""Family, size and batch; most valuable first."""


def small_cards(setting: Setting, left: Callable[[], float]) -> Iterator[Table]:
    """What ``--memory auto`` does on cards of 8, 6 and 4 GB, and whether its formula holds.

    The UNet is loaded before the limit begins, as it is, in part, when it is loaded layer by layer.
    """
    table = Table(
        "training bf16 on small cards, --memory auto: peak (computed) MiB",
        ("model", "8 GB", "6 GB", "4 GB"),
    )

    with _all_weights_count(setting):
        for family, size, batch in SMALL_CARDS:
            cells = []
            for gigabytes in (8, 6, 4):
                if left() < 5:
                    cells.append("no time left")
                    continue
                try:
                    cells.append(_fits(setting, family, size, batch, gigabytes))
                except torch.cuda.OutOfMemoryError:
                    cells.append("out of memory")
                gc.collect()
            table.rows.append([f"{family} {size}, batch {batch}", *cells])

    if setting.device != "cuda":
        table.notes.append(NEEDS_CUDA)
    yield table


def _fits(setting: Setting, family: str, size: int, batch: int, gigabytes: int) -> str:
    """Three steps of ours on such a card; returns what was chosen, the peak and the formula's."""
    model = DeviceModel(setting, "bf16", size, family)
    parameters = sum(p.numel() for p in model.network().parameters())
    needed = memory.needs(model.unet, torch.bfloat16, parameters, batch, [(size, size)])
    # In a rehearsal all would fit: each way is tried.
    asked = {8: "whole", 6: "fp8", 4: "streamed"}[gigabytes] if setting.is_small else "auto"
    chosen = memory.plan(needed, 0.95 * gigabytes * 1e9, asked)

    ours = loops.Ours(model, batch, chosen.storage)
    if chosen.checkpointing:
        ours._frozen.save_memory()
    with ours.prepared(), limited(gigabytes, setting.device):
        if setting.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for _ in range(1 if setting.is_small else 3):
            ours.step()
        peak = torch.cuda.max_memory_allocated() / 2**20 if setting.device == "cuda" else 0.0
    way = chosen.storage + "+checkpointing" * chosen.checkpointing
    return f"{way} {peak:.0f} ({chosen.bytes / 2**20:.0f})"
