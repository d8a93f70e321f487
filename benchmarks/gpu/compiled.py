"""Whole UNet calls through ``torch.compile``.

Compiling one full-size UNet takes most of a minute, so each variant is compiled in a process of
its own, all at once. Then they are measured by turns, one at a time.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from threading import Thread
from typing import Any

import torch

import hypernetworks as hn

from . import timing
from .calls import NONE, dtype_name, replayable, summarised, variants
from .models import Setting, Subject, stacks
from .report import Table

COMPILED = ("relu", "linear")
"""Stacks that are compiled in each way: seven UNets with the one that has no network."""
SCHEDULE = "0.9@0,0.5@1"
TURN = 60.0
"""Seconds after which a process that says nothing is given up."""


def compiled(setting: Setting, left: Callable[[], float]) -> Iterator[Table]:
    """Milliseconds as called and as replayed graphs; graphs, breaks, and compilations when a
    multiplier moves.
    """
    names = [NONE, *(f"{way}: {s}" for s in COMPILED for way in ("ours", "naive", "floor"))]
    if setting.is_small:
        names = names[1:2]
    about = Table(
        f"SD1.5 512x512 {dtype_name(setting.half)}, torch.compile",
        ("variant", "graphs", "breaks", "compiled s", "again after a moved multiplier"),
    )

    with _processes(names, setting) as pipes:
        ready = {name: _answer(pipe, left) for name, pipe in pipes.items()}
        for name, told in ready.items():
            if isinstance(told, dict):
                about.rows.append([name, *(str(told[key]) for key in _SAID)])
                about.raw[name] = told
            else:
                about.notes.append(f"{name}: {told}")

        works = {name: pipe for name, pipe in pipes.items() if isinstance(ready[name], dict)}
        called, replayed = _by_turns(works, setting.rounds, about)
    yield about

    if setting.is_small:
        return
    for title, times in (("as called", called), ("replayed graph", replayed)):
        whole = _complete(times)
        if len(whole) > 1:
            yield summarised(f"{about.title}, {title}", whole)


_SAID = ("graphs", "breaks", "seconds", "again")


def _complete(times: dict[str, list[float]]) -> dict[str, list[float]]:
    """Those stacks of which every way was measured."""
    if NONE not in times:
        return {}
    kept = {NONE: times[NONE]}
    for stack in COMPILED:
        of_stack = {f"{way}: {stack}" for way in ("ours", "naive", "floor")}
        if of_stack <= times.keys():
            kept |= {name: times[name] for name in times if name in of_stack}
    return kept


def _by_turns(
    pipes: dict[str, Any], rounds: int, about: Table
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Milliseconds of each variant in each round, as called and replayed, in another order every
    time.
    """
    called: dict[str, list[float]] = {name: [] for name in pipes}
    replayed: dict[str, list[float]] = {name: [] for name in pipes}
    for _ in range(rounds):
        for name in random.sample(list(pipes), len(pipes)):
            pipes[name].send("measure")
            told = _answer(pipes[name], lambda: TURN)
            if isinstance(told, str):
                about.notes.append(f"{name}: {told}")
                return {}, {}
            called[name].append(told["called"])
            if told["replayed"] is not None:
                replayed[name].append(told["replayed"])

    about.raw["milliseconds"] = {"called": called, "replayed": replayed}

    return called, {name: found for name, found in replayed.items() if len(found) == rounds}


@contextmanager
def _processes(names: list[str], setting: Setting) -> Iterator[dict[str, Any]]:
    """One process for each variant, which has begun to compile; they end with the block."""
    context = multiprocessing.get_context("spawn")
    pipes, started = dict[str, Any](), list[Any]()
    for name in names:
        ours, theirs = context.Pipe()
        given = {"target": _serve, "args": (theirs, name, setting), "daemon": True}
        # A rehearsal tries the code, and a thread has everything imported already.
        started.append(Thread(**given) if setting.is_small else context.Process(**given))
        started[-1].start()
        if not setting.is_small:
            theirs.close()  # or its end would not be noticed
        pipes[name] = ours
    try:
        yield pipes
    finally:
        for pipe in pipes.values():
            with suppress(OSError):
                pipe.send("end")
        for process in started:
            process.join(10)
            if not isinstance(process, Thread):
                process.kill()


def _answer(pipe: Any, left: Callable[[], float]) -> Any:
    """What a process says, or a sentence on why it says nothing."""
    try:
        return pipe.recv() if pipe.poll(max(0.0, left())) else "no time left"
    except (EOFError, OSError):
        return "its process has ended"


def _serve(pipe: Any, name: str, setting: Setting) -> None:
    """Compile one variant, say how that went, and measure whenever asked."""
    try:
        with torch.inference_mode():
            _compile_and_serve(pipe, name, setting)
    except Exception as error:  # a variant that can't be compiled costs itself
        pipe.send(f"{type(error).__name__}: {str(error).splitlines()[0][:200]}")


def _compile_and_serve(pipe: Any, name: str, setting: Setting) -> None:
    from torch._dynamo.utils import counters

    torch.set_num_threads(1)
    subject = Subject("SD1.5", 512, setting.half, setting.device, setting.is_small)
    inputs = subject.inputs()
    unet = torch.compile(subject.unet, backend="eager" if setting.is_small else "inductor")

    def call() -> object:
        return unet(**inputs, return_dict=False)[0]

    with _acting(subject, unet, name) as handle:
        begun = time.perf_counter()
        call()
        taken = time.perf_counter() - begun
        call()
        graphs, again = counters["stats"]["unique_graphs"], "-"
        said = {"graphs": graphs, "breaks": sum(counters["graph_break"].values())}
        said |= {"seconds": f"{taken:.1f}", "why": list(counters["graph_break"])[:4]}
        if isinstance(handle, hn.Handle):
            for step in (1, 2, 0):
                handle.at(step, 4)
                call()
            again = str(counters["stats"]["unique_graphs"] - graphs)
        replay = _replay(call, setting.device)
        pipe.send(said | {"again": again, "captured": replay is not None})

        clock = partial(timing.milliseconds, device=setting.device, calls=3 * setting.calls)
        while pipe.recv() == "measure":
            call()
            pipe.send({"called": clock(call), "replayed": replay and clock(replay)})


@contextmanager
def _acting(subject: Subject, unet: Any, name: str) -> Iterator[object]:
    """The variant in effect. Ours is applied to what was compiled: then a UNet call is noticed
    outside of its graph, which stays whole.
    """
    way, _, stack = name.partition(": ")
    if way == "ours":
        networks = [(network, SCHEDULE) for network, _ in stacks(subject, (stack,))[stack]]
        acting = partial(hn.apply, unet, networks)
    else:
        acting = variants(subject, (stack,) if stack else ())[name]  # type: ignore[assignment]
    with acting() as handle:
        yield handle


def _replay(call: Callable[[], object], device: str) -> Callable[[], object] | None:
    """The compiled call as a CUDA graph, which leaves Python out; ``None`` where that fails."""
    if device != "cuda":
        return None
    try:
        return replayable(call, device, None)
    except RuntimeError:
        return None
