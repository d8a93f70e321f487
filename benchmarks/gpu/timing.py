"""Times on a device: events where there are some, interleaved rounds, medians with bootstrap
intervals.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ..cases import ActiveNetworks, Summary

Call = Callable[[], object]
RESAMPLES = 1000


def finish(device: str) -> None:
    """Wait until the device has done everything."""
    if device == "cuda":
        torch.cuda.synchronize()


def milliseconds(call: Call, device: str, calls: int = 1) -> float:
    """Of one call, as the fastest of several; what the device takes, waiting for Python included.

    The fastest, as the host of a lent card is shared: it disturbs some calls, and hastens none.
    """
    return min(_once(call, device) for _ in range(calls))


def _once(call: Call, device: str) -> float:
    if device != "cuda":
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()

    call()
    end.record()
    torch.cuda.synchronize()

    return begin.elapsed_time(end)


def interleaved(
    variants: Mapping[str, ActiveNetworks],
    call: Call,
    rounds: int,
    clock: Callable[[Call], float],
) -> dict[str, list[float]]:
    """What the clock says of each variant in each round, the variants in another order every time.

    Each is applied anew in every round and warmed up by two calls outside the clock, so that it
    sees a step in the middle of a generation.
    """
    times: dict[str, list[float]] = {variant: [] for variant in variants}
    for _ in range(rounds):
        for variant in random.sample(list(variants), len(variants)):
            with variants[variant]():
                call()
                call()
                times[variant].append(clock(call))

    return times


def bootstrapped(numbers: Sequence[float]) -> Summary:
    """Their median, with the 95 % interval of medians of resamples.

    The same numbers give the same interval.
    """
    if len(numbers) == 1:  # a rehearsal
        return Summary(numbers[0], numbers[0], numbers[0])
    drawn = random.Random(0)
    medians = sorted(
        statistics.median(drawn.choices(numbers, k=len(numbers))) for _ in range(RESAMPLES)
    )
    low, high = (medians[int(share * (RESAMPLES - 1))] for share in (0.025, 0.975))
    return Summary(statistics.median(numbers), low, high)


def ratio(numbers: Sequence[float], others: Sequence[float]) -> Summary:
    """Of paired numbers."""
    return bootstrapped([a / b for a, b in zip(numbers, others, strict=True)])


def added_ratio(
    numbers: Sequence[float], others: Sequence[float], without: Sequence[float]
) -> dict[str, float]:
    """What one adds to ``without``, of what the other adds: a ratio of medians, resampled by
    rounds.

    Ratios within single rounds would be wild where the other adds next to nothing.
    """
    rows, drawn = list(zip(numbers, others, without, strict=True)), random.Random(0)

    def of(sample: Sequence[tuple[float, float, float]]) -> float:
        ours = statistics.median(a - none for a, _, none in sample)
        theirs = statistics.median(b - none for _, b, none in sample)
        return ours / theirs if theirs else float("nan")

    times = RESAMPLES if len(rows) > 1 else 1
    found = sorted(of(drawn.choices(rows, k=len(rows))) for _ in range(times))
    low, high = (found[int(share * (times - 1))] for share in (0.025, 0.975))
    return {"median": of(rows), "low": low, "high": high}


def as_json(times: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Milliseconds of every variant, as numbers to keep."""
    return {name: [round(number, 4) for number in numbers] for name, numbers in times.items()}
