"""Whole UNet calls: no network, naive, ours and the floor; eager, and replayed as a graph."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial

import torch

from ..cases import ActiveNetworks, Summary
from . import timing
from .models import Setting, Subject, stacks, ways
from .report import Table, with_interval

NONE = "no network"


def variants(subject: Subject, names: tuple[str, ...] | None = None) -> dict[str, ActiveNetworks]:
    """No network, and each stack in each way."""
    made: dict[str, ActiveNetworks] = {NONE: nullcontext}
    for name, stack in stacks(subject, names).items():
        for way, acting in ways(subject.unet, stack).items():
            made[f"{way}: {name}"] = acting
    return made


def summarised(title: str, times: dict[str, list[float]]) -> Table:
    """One row per stack: what each way adds, and the ratios that have targets."""
    none = times[NONE]
    table = Table(
        f"{title}; no network {timing.bootstrapped(none).median:.2f} ms",
        ("stack", "naive adds", "ours adds", "floor adds", "ours/none", "ours/naive", "ours/floor"),
        raw={"milliseconds": timing.as_json(times)},
    )
    table.bars.append((f"none: {NONE}", *_three(timing.bootstrapped(none))))

    for name in dict.fromkeys(key.partition(": ")[2] for key in times if ": " in key):
        naive, ours, floor = (times[f"{way}: {name}"] for way in ("naive", "ours", "floor"))
        added = [
            timing.bootstrapped([a - b for a, b in zip(row, none, strict=True)])
            for row in (naive, ours, floor)
        ]
        of_naive = timing.added_ratio(ours, naive, none)
        of_floor = timing.ratio(ours, floor)
        of_none = timing.ratio(ours, none)
        table.raw[name] = {
            "ours_of_none": vars(of_none),
            "added_of_naive": of_naive,
            "added_of_floor": timing.added_ratio(ours, floor, none),
            "call_of_floor": vars(of_floor),
        }
        cells = [f"{summary.median:.3f}" for summary in added]
        ratios = [with_interval(of_none), with_interval(of_naive), with_interval(of_floor)]
        table.rows.append([name, *cells, *ratios])
        table.bars += [
            (f"{way}: {name}", *_three(timing.bootstrapped(times[f"{way}: {name}"])))
            for way in ("naive", "ours", "floor")
        ]

    table.notes.append(
        "adds: ms; ours/naive: of what each adds; ours/none and ours/floor: of whole calls"
    )

    return table


def _three(summary: Summary) -> tuple[float, float, float]:
    return summary.median, summary.low, summary.high


def eager(setting: Setting, family: str, size: int, dtype: torch.dtype) -> Iterator[Table]:
    """Whole calls as webuis make them."""
    subject = Subject(family, size, dtype, setting.device, setting.is_small)
    inputs = subject.inputs()
    call = partial(subject.call, inputs)
    clock = partial(timing.milliseconds, device=setting.device, calls=setting.calls)
    times = timing.interleaved(variants(subject), call, setting.rounds, clock)
    yield summarised(f"{family} {size}x{size} {dtype_name(dtype)}, eager", times)


def graphs(setting: Setting, family: str, size: int, dtype: torch.dtype) -> Iterator[Table]:
    """Whole calls replayed as CUDA graphs: what the device alone needs, Python left out."""
    subject = Subject(family, size, dtype, setting.device, setting.is_small)
    inputs, captured, failed = subject.inputs(), dict[str, Callable[[], object]](), list[str]()
    pool = torch.cuda.graph_pool_handle() if setting.device == "cuda" else None
    missing, kept = set[str](), list[torch.Tensor]()

    for name, acting in variants(subject).items():
        try:
            with acting():
                one = partial(subject.call, inputs)
                captured[name] = replayable(one, setting.device, pool)
                kept += _on_device(setting.device)  # a replay reads them when the networks are gone
        except RuntimeError as error:  # a variant that can't be captured costs itself
            failed.append(f"{name}: {str(error).splitlines()[0]}")
            missing.add(name.partition(": ")[2])

    times: dict[str, list[float]] = {name: [] for name in captured}
    for _ in range(setting.rounds):
        for name in random.sample(list(captured), len(captured)):
            times[name].append(timing.milliseconds(captured[name], setting.device, setting.calls))

    whole = {k: v for k, v in times.items() if k.partition(": ")[2] not in missing}
    table = summarised(f"{family} {size}x{size} {dtype_name(dtype)}, replayed graph", whole)
    table.notes += failed

    if setting.device != "cuda":
        table.notes.append("no graphs on this device: plain calls stand in")
    yield table


def replayable(
    call: Callable[[], object], device: str, pool: tuple[int, int] | None
) -> Callable[[], object]:
    """The call as a graph; the call itself where there are no graphs.

    Args:
        pool: memory that all graphs share, as nobody needs what one of them computed.
    """
    if device != "cuda":
        return call
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())

    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()

    with torch.cuda.graph(graph, pool=pool):
        call()
    return graph.replay


def _on_device(device: str) -> list[torch.Tensor]:
    """All tensors that are there."""
    return [
        found
        for found in (gc.get_objects() if device == "cuda" else ())
        if isinstance(found, torch.Tensor) and found.is_cuda
    ]


def dtype_name(dtype: torch.dtype) -> str:
    """Such as ``float16``."""
    return str(dtype).removeprefix("torch.")
