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
from typing import Any

import torch

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


class DeviceModel(loops.Model):
    """SD1.5's UNet on the device in half precision; contexts are drawn, as a text encoder has no
    part in the step.
    """

    def __init__(self, setting: Setting, precision: str, size: int) -> None:
        self.device, self.precision, self.channels = setting.device, precision, 4
        dtype = PRECISIONS[precision] if setting.device == "cuda" else torch.float32
        self.unet = built("SD1.5", dtype, setting.device, setting.is_small)
        self.edge = max(8, size // (128 if setting.is_small else 8))
        self.keep, self.recompute = True, True
        self.schedule = loops.NoiseSchedule(torch.linspace(0.9991, 0.0047, 1000))
        sites = loops.find_sites(self.unet)
        self.widths = tuple(sorted({s.width for s in sites if s.width is not None}))

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
        if left() < 1.2 * taken:
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
    for number in range(max(3, setting.rounds // 2) + 1):
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


def small_cards(setting: Setting, left: Callable[[], float]) -> Iterator[Table]:
    """The least memory that a step of ours takes: on cards of 4, 6 and 8 GB, activations computed
    twice.
    """
    table = Table("training SD1.5 512x512 bf16 on small cards", ("batch", "4 GB", "6 GB", "8 GB"))
    for batch in (1,) if setting.is_small else (1, 4):
        cells = []
        for gigabytes in (4, 6, 8):
            if left() < 5:
                cells.append("no time left")
                continue
            try:
                with limited(gigabytes, setting.device):
                    cells.append(_fits(setting, batch))
            except torch.cuda.OutOfMemoryError:
                cells.append("out of memory")
            gc.collect()
        table.rows.append([str(batch), *cells])
    if setting.device != "cuda":
        table.notes.append(NEEDS_CUDA)
    yield table


def _fits(setting: Setting, batch: int) -> str:
    """Two steps of ours; returns the peak."""
    model = DeviceModel(setting, "bf16", 512)
    ours = loops.Ours(model, batch)
    ours._frozen.save_memory()
    if setting.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with ours.prepared():
        ours.step()
        ours.step()
    if setting.device != "cuda":
        return "runs"
    return f"{torch.cuda.max_memory_allocated() / 2**20:.0f} MiB"
