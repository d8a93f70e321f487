"""What moves: first use, a slider, a schedule, and a LoRA that is fused meanwhile; and the host's
share of a call.
"""

from __future__ import annotations

import random
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

import hypernetworks as hn
from hypernetworks.patching import find_sites

from ..cases import ActiveNetworks, Networks
from . import timing
from .counts import called
from .models import Setting, Subject, stacks, ways
from .report import Table, with_interval

SCHEDULE = "0.2@0,1@1"
STEPS = 1000
CHANGING = ("linear", "three linear", "relu")
WAYS = ("no network", "naive", "floor")


def first_use_and_slider(setting: Setting) -> Iterator[Table]:
    """The first call with a network, and the first after its multiplier has changed, beyond a later
    call.
    """
    subject = Subject("SD1.5", 512, setting.half, setting.device, setting.is_small)
    inputs = subject.inputs()
    call = partial(subject.call, inputs)
    table = Table(
        "SD1.5 512x512: beyond a later call, ms",
        ("stack", "first use", "slider moved", "kept MiB"),
    )
    call()

    for name, stack in stacks(subject).items():
        first, moved = 0.0, list[float]()
        for number in range(setting.rounds + 1):  # the first is the first use
            networks = [(network, 0.5 + number / 100) for network, _ in stack]
            with hn.apply(subject.unet, networks):
                begun = timing.milliseconds(call, setting.device)
                later = min(timing.milliseconds(call, setting.device) for _ in range(2))
            if number:
                moved.append(begun - later)
            else:
                first = begun - later
        found = timing.bootstrapped(moved)
        kept = sum(network.prepared_bytes for network, _ in stack) / 2**20
        table.rows.append([name, f"{first:.1f}", with_interval(found, 2), f"{kept:.0f}"])
        table.raw[name] = {"first_ms": first, "moved_ms": moved, "kept_mib": kept}
        for network, _ in stack:
            network.release()

    yield table


def moving(setting: Setting) -> Iterator[Table]:
    """Every step another multiplier; and every step another weight, rewritten through ``.data`` as
    LoRAs are.
    """
    subject = Subject("SD1.5", 512, setting.half, setting.device, setting.is_small)
    inputs, networks = subject.inputs(), stacks(subject, CHANGING)
    call = partial(subject.call, inputs)
    table = Table(
        "SD1.5 512x512: what changes at every step, ms per call",
        ("stack", "constant", "schedule", "schedule/constant", "LoRA every step", "alone", *WAYS),
    )

    for name in CHANGING:
        rows = _steps(setting, subject, networks[name], call)
        others = _others(setting, subject, networks[name], call)
        summaries = {key: timing.bootstrapped(value) for key, value in rows.items()}
        table.rows.append(
            [
                name,
                f"{summaries['constant'].median:.2f}",
                f"{summaries['schedule'].median:.2f}",
                with_interval(timing.ratio(rows["schedule"], rows["constant"])),
                f"{summaries['lora'].median:.2f}",
                f"{summaries['lora alone'].median:.2f}",
                *(f"{timing.bootstrapped(others[way]).median:.2f}" for way in WAYS),
            ]
        )
        table.raw[name] = timing.as_json(rows | others)

    table.notes.append("alone: the LoRA's own writing at every step, without a network")
    table.notes.append("no network, naive, floor: a multiplier that moves costs them nothing")
    yield table


def _others(
    setting: Setting, subject: Subject, stack: Networks, call: Callable[[], object]
) -> dict[str, list[float]]:
    """Milliseconds of what ours is compared with."""
    found = ways(subject.unet, stack)
    variants = {WAYS[0]: nullcontext, **{way: found[way] for way in WAYS[1:]}}
    clock = partial(timing.milliseconds, device=setting.device)
    return timing.interleaved(variants, call, setting.rounds, clock)


def _steps(
    setting: Setting, subject: Subject, stack: Networks, call: Callable[[], object]
) -> dict[str, list[float]]:
    """Milliseconds of steps of one generation, for each way to change something."""
    rows: dict[str, list[float]] = {}
    moving_stack = [(network, SCHEDULE) for network, _ in stack]
    weights = [
        projection.weight
        for site in find_sites(subject.unet)
        if site.kind == "self"
        for projection in (site.to_k, site.to_v)
    ]
    for name, networks, writes in (
        ("constant", stack, False),
        ("schedule", moving_stack, False),
        ("lora", stack, True),
        ("lora alone", [], True),
    ):
        with hn.apply(subject.unet, networks) as handle:
            times = []
            for step in range(setting.rounds + 2):

                def one(step: int = step, writes: bool = writes) -> None:
                    handle.at(step, STEPS)
                    if writes:
                        _write(weights)
                    call()

                times.append(timing.milliseconds(one, setting.device))
        rows[name] = times[2:]
    return rows


def _write(weights: list[Any]) -> None:
    """Fuse: the same numbers again, behind autograd's counter."""
    for weight in weights:
        weight.data.mul_(1.0)


def host(setting: Setting) -> Iterator[Table]:
    """What Python needs more per UNet call for hooks and projections, on inputs so small that the
    device is never waited for.

    Only those are timed, and not the whole call: of 1,200 kernels that a UNet call launches, ours
    are a few, and the rest differs from call to call by more than they take.
    """
    subject = Subject("SD1.5", 64, setting.half, setting.device, setting.is_small)
    call = partial(subject.call, subject.inputs())
    table = Table(
        "SD1.5: host time of hooks per UNet call, ms",
        ("stack", "added", "kernels more", "launching them", "synchronisations in a call"),
    )
    networks, found = stacks(subject), dict[str, list[float]]()
    variants: dict[str, ActiveNetworks] = {"none": nullcontext}
    for name, stack in networks.items():
        variants[name] = partial(hn.apply, subject.unet, stack)

    for _ in range(2 * setting.rounds):
        for name in random.sample(list(variants), len(variants)):
            with variants[name](), _timed(subject.unet) as seconds:
                for _ in range(3):
                    seconds.clear()
                    call()
                    timing.finish(setting.device)
                found.setdefault(name, []).append(1e3 * sum(seconds))

    kernels = _more_kernels(networks, setting.is_small)
    projections = 2 * len(find_sites(subject.unet))
    one_launch = statistics.median(found["none"]) / projections
    for name in list(variants)[1:]:
        added = [a - b for a, b in zip(found[name], found["none"], strict=True)]
        summary = timing.bootstrapped(added)
        waits = synchronisations(variants[name], call, setting.device)
        more = kernels[name]
        cells = [str(more), f"{more * one_launch:.3f}", "-" if waits is None else str(waits)]
        table.rows.append([name, with_interval(summary), *cells])
        table.raw[name] = {"added_ms": added, "kernels": more, "synchronisations": waits}
        table.bars.append((f"ours: {name}", summary.median, summary.low, summary.high))

    table.notes.append(
        f"a projection alone, with its launch: {1e3 * one_launch:.1f} us; kernels counted on the "
        "meta device"
    )
    yield table


@contextmanager
def _timed(unet: nn.Module) -> Iterator[list[float]]:
    """Seconds of every hook of ours, and of every projection, with or without networks."""
    from hypernetworks.patching.hooks import Hook
    from hypernetworks.patching.stand_in import StandIn

    seconds: list[float] = []

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def inside(*arguments: Any, **named: Any) -> Any:
            begun = time.perf_counter()
            result = function(*arguments, **named)
            seconds.append(time.perf_counter() - begun)
            return result

        return inside

    projections = [p for site in find_sites(unet) for p in (site.to_k, site.to_v)]
    alone = [p for p in projections if "forward" not in vars(p)]
    before = Hook.__call__, StandIn.run
    Hook.__call__, StandIn.run = timed(before[0]), timed(before[1])  # type: ignore[method-assign]
    for module in alone:
        vars(module)["forward"] = timed(module.forward)
    try:
        yield seconds
    finally:
        Hook.__call__, StandIn.run = before  # type: ignore[method-assign]
        for module in alone:
            del vars(module)["forward"]


def _more_kernels(stacks_: dict[str, Networks], is_small: bool) -> dict[str, int]:
    """How many kernels more a later call runs with each stack than without networks."""
    subject = Subject("SD1.5", 64, torch.float16, "meta", is_small)
    inputs, totals = subject.inputs(), dict[str, int]()

    with torch.inference_mode(False), torch.no_grad():
        base = called(subject, inputs).operators.total()
        for name, stack in stacks_.items():
            with hn.apply(subject.unet, stack):
                subject.call(inputs)
                totals[name] = called(subject, inputs).operators.total() - base
    return totals


def synchronisations(acting: Any, call: Callable[[], object], device: str) -> int | None:
    """How often a later call waits for the device, as torch tells; ``None`` where it can't."""
    if device != "cuda":
        return None
    with acting():
        call()
        call()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                call()
        finally:
            torch.cuda.set_sync_debug_mode("default")

    return sum("synchroniz" in str(warning.message) for warning in told)
