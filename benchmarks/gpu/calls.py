"""Whole UNet calls: no network, naive, ours and the floor; eager, replayed as a graph, and
compiled.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch

import hypernetworks as hn

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
    yield summarised(f"{family} {size}x{size} {_name(dtype)}, eager", times)


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
    table = summarised(f"{family} {size}x{size} {_name(dtype)}, replayed graph", whole)
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


def compiled(setting: Setting, left: Callable[[], float]) -> Iterator[Table]:
    """Whole calls through ``torch.compile``: milliseconds, graphs, and compilations when a
    multiplier moves.

    Each variant is compiled anew, which takes most of a minute: those that matter most come first.
    """
    subject = Subject("SD1.5", 512, setting.half, setting.device, setting.is_small)
    table = Table(
        f"SD1.5 512x512 {_name(setting.half)}, torch.compile",
        ("variant", "ms", "graphs", "breaks", "compiled s", "again after a moved multiplier"),
    )
    made = stacks(subject)
    relu, linear = made["relu"], made["linear"]
    order: list[tuple[str, list[tuple[hn.Hypernetwork, str]] | ActiveNetworks]] = [
        (NONE, nullcontext),
        ("ours: relu", [(relu[0][0], "0.9@0,0.5@1")]),
        ("floor: relu", ways(subject.unet, relu)["floor"]),
        ("ours: linear", [(linear[0][0], "0.9@0,0.5@1")]),
        ("naive: relu", ways(subject.unet, relu)["naive"]),
    ]

    for rest, stack in made.items():
        by_way = ways(subject.unet, stack)
        order += [(f"{way}: {rest}", by_way[way]) for way in ("ours", "floor", "naive")]
    order = list({name: (name, what) for name, what in order[::-1]}.values())[::-1]
    slowest = 0.0

    for name, what in order[1:2] if setting.is_small else order:
        if left() < slowest * 1.2:
            table.notes.append(f"{name}: no time left")
            continue
        begun = time.perf_counter()
        try:
            _compiled_row(setting, subject, name, what, table)
        except Exception as error:  # a variant that can't be compiled costs itself
            table.notes.append(
                f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:200]}"
            )
        slowest = max(slowest, time.perf_counter() - begun)
    torch._dynamo.reset()

    yield table


def _compiled_row(setting: Setting, subject: Subject, name: str, what: Any, table: Table) -> None:
    """Compile under one variant, and time it."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    gc.collect()
    backend = "eager" if setting.is_small else "inductor"
    compiled_call = torch.compile(subject.unet, backend=backend)
    inputs = subject.inputs()

    def call() -> object:
        return compiled_call(**inputs, return_dict=False)[0]

    # To what was compiled: then a UNet call is noticed outside of its graph, which stays whole.
    acting = what if callable(what) else lambda: hn.apply(compiled_call, what)
    with acting() as handle:
        begun = time.perf_counter()
        call()
        taken = time.perf_counter() - begun
        call()
        graphs, breaks = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
        reasons = list(counters["graph_break"])[:4]
        times = [
            timing.milliseconds(call, setting.device, setting.calls)
            for _ in range(max(setting.rounds, 3))
        ]
        again = "-"
        if isinstance(handle, hn.Handle):
            for step in (1, 2):
                handle.at(step, 4)
                call()
            again = str(counters["stats"]["unique_graphs"] - graphs)
    found = timing.bootstrapped(times)
    table.rows.append(
        [name, with_interval(found, 2), str(graphs), str(breaks), f"{taken:.1f}", again]
    )
    table.raw[name] = {"milliseconds": times, "graphs": graphs, "breaks": breaks, "why": reasons}
    table.bars.append((name.replace(NONE, f"none: {NONE}"), *_three(found)))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
