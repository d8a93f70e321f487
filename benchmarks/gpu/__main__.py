"""Run the parts, the most valuable first, each guarded: ``python -m benchmarks.gpu --out FOLDER
[--rehearse]``.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from . import calls, changes, compiled, counts, memory, training
from .models import Setting
from .report import Table, facts, write

SiteMultipliers = Callable[[Setting, "Clock"], Iterator[Table]]
INFERENCE, TRAINING = "inference", "training"


class Clock:
    """How much of the time that was given is left."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()


def parts() -> dict[str, SiteMultipliers]:
    """Everything there is to measure, the most valuable first."""

    def plain(function: Callable[..., Iterator[Table]], *arguments: object) -> SiteMultipliers:
        return lambda setting, _: function(setting, *arguments)

    return {
        "graphs": lambda s, _: calls.graphs(s, "SD1.5", 512, s.half),
        "kernels": plain(counts.profiled),
        "host": plain(changes.host),
        "sdxl-graphs": lambda s, _: calls.graphs(s.fewer, "SDXL", 1024, s.half),
        "sdxl": lambda s, _: calls.eager(s.fewer, "SDXL", 1024, s.half),
        "memory": plain(memory.peaks, "SD1.5", 512),
        "slider": plain(changes.first_use_and_slider),
        "moving": plain(changes.moving),
        "cards": plain(memory.cards),
        "eager": lambda s, _: calls.eager(s, "SD1.5", 512, s.half),
        "large": lambda s, _: calls.graphs(s.fewer, "SD1.5", 1024, s.half),
        "bf16": lambda s, _: calls.graphs(s.fewer, "SD1.5", 512, torch.bfloat16),
        "sdxl-memory": plain(memory.peaks, "SDXL", 1024),
        "compiled": lambda s, c: compiled.compiled(s.fewer, c.left),
        "counts": plain(counts.per_projection),
        "counts-call": plain(counts.per_call),
        "waits": plain(counts.waiting),
        "training": lambda s, c: training.steps(s, c.left),
        "training-memory": lambda s, c: training.small_cards(s, c.left),
        "training-sdxl": lambda s, c: training.sdxl(s, c.left),
    }  # fmt: skip


NOT_AT_ONCE = ("training", "training-memory", "training-sdxl")
"""What has a run of its own: without ``--only``, these are left to it."""
SAME_CODE = ("sdxl-graphs", "bf16", "large", "sdxl-memory")
"""Other sizes of what a rehearsal has run already."""


def main() -> int:
    """Print tables, write JSON and pictures; returns how many parts failed."""
    options = _options()
    known = parts()
    left_out = SAME_CODE if options.rehearse else NOT_AT_ONCE
    chosen = options.only or [name for name in known if name not in left_out]
    is_brief = options.rehearse and not options.only
    setting = Setting(options.device, options.rounds, options.rehearse, is_brief)
    about, clock, failed = facts(options.device), Clock(options.minutes), list[str]()
    options.out.mkdir(parents=True, exist_ok=True)
    _steadily(setting)
    tables: list[Table] = []

    for name in chosen:
        if clock.left() < 5:
            print(f"{name}: left out, no time", flush=True)
            failed.append(f"{name}: no time")
            continue
        begun, made = time.monotonic(), list[Table]()
        try:
            random.seed(0)
            torch.manual_seed(0)
            grad = torch.enable_grad() if name in NOT_AT_ONCE else torch.inference_mode()
            with grad:
                for table in known[name](setting, clock):
                    made.append(table)
                    print(f"\n{table}", flush=True)
        except Exception as error:  # a part that fails costs itself
            traceback.print_exc()
            failed.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0:1]}")
        print(f"  [{name}: {time.monotonic() - begun:.1f} s]", flush=True)
        write(options.out, name, made, about)
        tables += made
        _clean(options.device)
    _summary(options.out, tables, failed, about)

    return len(failed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), help="folder for results")
    parser.add_argument("--rehearse", action="store_true", help="small UNets on the CPU")
    parser.add_argument(
        "--only", nargs="+", choices=list(parts()), metavar="PART", help="; ".join(parts())
    )
    parser.add_argument(
        "--minutes", type=float, default=None, help="6; parts that would begin later are left out"
    )
    parser.add_argument("--rounds", type=int, default=None, help=(
        "of interleaved measurements"
    ))  # fmt: skip
    options = parser.parse_args()

    if not options.rehearse and not torch.cuda.is_available():
        parser.error("there is no CUDA device: --rehearse runs everything in small on the CPU")
    options.device = "cpu" if options.rehearse else "cuda"
    options.minutes = options.minutes or (60.0 if options.rehearse else 6.0)
    options.rounds = options.rounds or (1 if options.rehearse else 15)

    return options


def _steadily(setting: Setting) -> None:
    """Nothing is tuned while it is measured; small UNets on a CPU lose more by threads than they
    win.
    """
    torch.backends.cudnn.benchmark = False
    gc.freeze()  # what is imported is never looked through again
    if setting.is_small:
        torch.set_num_threads(1)


def _clean(device: str) -> None:
    """The next part begins with an empty device."""
    if device == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def _summary(out: Path, tables: list[Table], failed: list[str], about: dict[str, object]) -> None:
    lines = [f"# {about.get('card', about['device'])}, torch {about['torch']}"]
    lines += [f"\n{table}" for table in tables]
    lines.append("\nfailed or left out: " + ("; ".join(failed) or "nothing"))
    (out / "summary.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"\n{lines[0]}: {len(tables)} tables in {out}; {lines[-1].strip()}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
