"""Kernels: counted on the meta device for full sizes, which needs no device at all, and seen by the
profiler.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import hypernetworks as hn
from hypernetworks.patching import Site, find_sites

from . import timing
from .calls import NONE, variants
from .models import Setting, Subject, stacks, ways
from .report import Table

VIEWS = (
    "view", "t", "transpose", "permute", "expand", "slice", "select", "unsqueeze", "squeeze", "detach", "as_strided",
    "_unsafe_view", "_reshape_alias", "alias", "split", "chunk", "unbind", "empty", "empty_like", "new_empty",
    "resolve_conj", "resolve_neg", "unflatten", "reshape", "to", "promote_types",
)  # fmt: skip
"""Operators that run no kernel."""


class Counting(TorchDispatchMode):
    """Counts operators that run a kernel, and the bytes that they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.bytes = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Count, and go on."""
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if name not in VIEWS:
            self.operators[name] += 1
            tensors = [
                leaf
                for leaf in tree_leaves((args, kwargs, result))
                if isinstance(leaf, torch.Tensor)
            ]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)

        return result


WAITS = (
    "_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "_unique2", "unique_consecutive",
    "allclose", "bincount", "repeat_interleave",
)  # fmt: skip
"""Operators whose result the program must wait for, where a device computes them."""


class Waits(TorchDispatchMode):
    """Counts what would wait for a device: numbers that are read, and copies to and from it.

    Attributes:
        operators: how often each was called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Count, and go on."""
        name = function.overloadpacket.__name__
        given = [leaf for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)]
        if name in WAITS:
            # What lies on the CPU is there already.
            self.operators[name] += any(tensor.device.type != "cpu" for tensor in given)
            return function(*args, **(kwargs or {}))

        result = function(*args, **(kwargs or {}))
        moved = name in ("_to_copy", "copy_") and isinstance(result, torch.Tensor)
        if moved and len({t.device.type for t in (*given, result) if t.dim()}) > 1:
            self.operators[f"{name} to {result.device.type}"] += 1
        return result


def waiting(setting: Setting) -> Iterator[Table]:
    """What a later call would wait for, with constant and with moving multipliers."""
    subject = Subject("SD1.5", 512, torch.float16, "meta", setting.is_brief)
    inputs = subject.inputs()
    table = Table(
        "SD1.5 float16, meta device: what a call waits for, first uses left out",
        ("stack", "constant", "schedule", "which"),
    )

    with torch.inference_mode(False), torch.no_grad():
        for name, stack in stacks(subject).items():
            found = []
            for networks in (stack, [(network, "0.2@0,1@1") for network, _ in stack]):
                for network, _ in stack:
                    network.release()  # a first use may wait
                with hn.apply(subject.unet, networks) as handle:
                    subject.call(inputs)
                    handle.at(1, 2)
                    with Waits() as counted:
                        subject.call(inputs)
                found.append(counted.operators)
            which = found[0] + found[1]
            cells = [str(operators.total()) for operators in found]
            table.rows.append([name, *cells, " ".join(which) or "-"])
            table.raw[name] = [dict(operators) for operators in found]

    yield table


def per_projection(setting: Setting) -> Iterator[Table]:
    """Non-linear networks in half precision: operators and bytes for ``to_k`` of each width of
    self-attention.
    """
    subject = Subject("SD1.5", 512, torch.float16, "meta", setting.is_brief)
    table = Table(
        "SD1.5 512x512 float16, meta device: operators per projection of self-attention",
        ("stack, width", "way", "kernels", "MiB", "which"),
    )
    sites = {site.width: site for site in find_sites(subject.unet) if site.kind == "self"}

    with torch.inference_mode(False), torch.no_grad():
        for name, stack in stacks(subject, ("relu", "layer norm + swish")).items():
            made = {"none": nullcontext, **ways(subject.unet, stack)}
            for width, site in sites.items():
                for way, acting in made.items():
                    with acting():
                        counted = _projected(site, int(width or 0))
                    which = " ".join(f"{k}x{v}" for k, v in counted.operators.items())
                    total, mib = counted.operators.total(), counted.bytes / 2**20
                    table.rows.append([f"{name}, {width}", way, str(total), f"{mib:.1f}", which])
                    table.raw[f"{name}, {width}, {way}"] = {
                        "operators": dict(counted.operators),
                        "bytes": counted.bytes,
                    }

    yield table


def _projected(site: Site, width: int) -> Counting:
    """One call of ``to_k`` with the positions that this width has at 512x512, after one that isn't
    counted.
    """
    positions = {320: 4096, 640: 1024, 1280: 256}.get(width, 64)
    context = torch.empty(2, positions, width, dtype=torch.float16, device="meta")
    site.to_k(context)
    with Counting() as counted:
        site.to_k(context)
    return counted


def per_call(setting: Setting) -> Iterator[Table]:
    """A whole UNet call of full size on the meta device: what each way adds."""
    table = Table(
        "whole UNet call, float16, meta device: what is added to no network",
        ("family, stack", "way", "kernels", "MiB", "products", "casts"),
    )
    names = ("relu",) if setting.is_small else None

    for family, size in (("SD1.5", 512), ("SDXL", 1024))[: 1 if setting.is_small else 2]:
        subject = Subject(family, size, torch.float16, "meta", setting.is_brief)
        inputs = subject.inputs()
        with torch.inference_mode(False), torch.no_grad():
            base = called(subject, inputs)
            for name, stack in stacks(subject, names).items():
                for way, acting in ways(subject.unet, stack).items():
                    with acting():
                        _call_row(table, f"{family}, {name}", way, subject, inputs, base)
    table.notes.append("networks that are folded add no kernel to self-attention")

    yield table


def _call_row(
    table: Table, name: str, way: str, subject: Subject, inputs: dict[str, Any], base: Counting
) -> None:
    subject.call(inputs)
    counted = called(subject, inputs)
    more = Counter(counted.operators)
    more.subtract(base.operators)  # folded products have a bias: addmm in place of mm
    added, mib = more.total(), (counted.bytes - base.bytes) / 2**20
    products = sum(more[name] for name in ("mm", "addmm", "bmm", "baddbmm"))
    table.rows.append([name, way, str(added), f"{mib:.0f}", str(products), str(more["_to_copy"])])
    table.raw[f"{name}, {way}"] = {"operators": dict(more), "mib": mib}


def called(subject: Subject, inputs: dict[str, Any]) -> Counting:
    """What one call runs."""
    with Counting() as counted:
        subject.call(inputs)
    return counted


def profiled(setting: Setting) -> Iterator[Table]:
    """One call under the profiler: kernels, how long the device computed, and the gaps between."""
    subject = Subject("SD1.5", 512, setting.half, setting.device, setting.is_small)
    call = partial(subject.call, subject.inputs())
    table = Table(
        "SD1.5 512x512, one call under the profiler",
        ("variant", "kernels", "busy ms", "from first to last ms", "gaps ms"),
    )

    alone: dict[str, tuple[int, float]] = {}
    for name, acting in variants(subject, ("relu", "linear", "layer norm + swish")).items():
        with acting():
            call()
            call()
            timing.finish(setting.device)
            events = _kernels(call, setting.device)
        busy = sum(end - start for _, start, end in events) / 1e3
        span = (max(e for *_, e in events) - min(s for _, s, _ in events)) / 1e3 if events else 0.0
        taken = _by_name(events)
        table.rows.append(
            [name, str(len(events)), f"{busy:.3f}", f"{span:.3f}", f"{span - busy:.3f}"]
        )
        table.raw[name] = {
            "kernels": len(events),
            "busy_ms": busy,
            "span_ms": span,
            "by name": taken,
        }
        table.bars.append((name.replace(NONE, f"none: {NONE}"), busy, busy, busy))
        if name.startswith("ours"):
            table.notes += [f"{name}: {line}" for line in _difference(taken, alone)]
        elif name == NONE:
            alone = taken

    if setting.device != "cuda":
        table.notes.append("operators of the CPU stand in for kernels; they lie inside each other")
    yield table


def _by_name(events: list[tuple[str, float, float]]) -> dict[str, tuple[int, float]]:
    """How often each kernel ran, and its milliseconds."""
    found: dict[str, tuple[int, float]] = {}
    for name, start, end in events:
        number, taken = found.get(name, (0, 0.0))
        found[name] = number + 1, taken + (end - start) / 1e3
    return found


def _difference(
    taken: dict[str, tuple[int, float]], alone: dict[str, tuple[int, float]]
) -> list[str]:
    """The kernels whose time differs most from that without networks."""
    rows = []
    for name in {*taken, *alone}:
        (number, milliseconds), (others, before) = (c.get(name, (0, 0.0)) for c in (taken, alone))
        rows.append((milliseconds - before, number - others, name))
    rows.sort(key=lambda row: -abs(row[0]))
    return [f"{more:+.3f} ms, {number:+d} of {name[:90]}" for more, number, name in rows[:7]]


def _kernels(call: Any, device: str) -> list[tuple[str, float, float]]:
    """Name, begin and end, in microseconds, of everything that the device ran."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        call()
        timing.finish(device)
    wanted = torch.autograd.DeviceType.CUDA if device == "cuda" else torch.autograd.DeviceType.CPU
    return [
        (event.name, event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == wanted
    ]
