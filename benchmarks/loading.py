"""What it costs to have hypernetworks at hand: ``python -m benchmarks.loading``. Prints tables and
writes JSON.

* **Loading**: a file of 84 MiB (SD1.5, all widths) from the page cache, until every number was
  touched once, against ``torch.load`` and a copy into fp32 modules; and a second use from the
  library's cache. Interleaved and paired: every round times all variants in a random order, and
  ratios are taken within the round.
* **Library**: 5,000 files in 50 folders, alone and with a preview, a card and a description beside
  each: a first scan, one without news, finding names, and what hosts list for the page. The
  interpreter's audit hook counts opened files.
* **Sweep**: 20 networks, 3 multipliers, either outermost, with room for all and with room for five:
  readings of files.
* **Memory**: a process of its own loads and uses 20 networks one after the other within a limit:
  before, peak, after. The heap is handed back to the system before each look: what the allocator
  holds for later is not the library's.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

import hypernetworks as hn
from hypernetworks.library import folders

ALL_WIDTHS = (320, 640, 768, 1280)
MIB = 1 << 20
Row = dict[str, float]


def network(layers: tuple[float, ...], widths: tuple[int, ...], seed: int = 0) -> hn.Hypernetwork:
    """A random network."""
    structure = hn.Structure(layers, "relu", activate_output=False, dropout=(0.0,) * len(layers))
    made = hn.Hypernetwork.create("random", structure, widths)
    generator = torch.Generator().manual_seed(seed)
    for parameter in made.parameters():
        with torch.no_grad():
            parameter.normal_(std=0.01, generator=generator)
    return made


def save_torch(
    made: hn.Hypernetwork, path: Path, *, legacy: bool = False, dtype: torch.dtype = torch.float32
) -> None:
    """Write as AUTOMATIC1111 does."""
    content: dict[object, object] = {
        width: tuple(
            {key: tensor.to(dtype) for key, tensor in mlp.state_dict().items()} for mlp in pair
        )
        for width, pair in made.pairs.items()
    }
    content |= {"layer_structure": list(made.structure.layer_structure), "activation_func": "relu"}
    torch.save(
        content | {"activate_output": False}, path, _use_new_zipfile_serialization=not legacy
    )


# Loading


def naive(path: Path) -> list[nn.Parameter]:
    """``torch.load``, then modules of fp32 filled with copies, as AUTOMATIC1111 does."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    parameters: list[nn.Parameter] = []
    for width, pair in content.items():
        for state in pair if isinstance(width, int) else ():
            module = nn.Module()
            module.linear = nn.Sequential(
                nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
            )
            module.load_state_dict(state)
            parameters += module.parameters()
    return parameters


def touched(parameters: Iterable[torch.Tensor]) -> None:
    """Read every number once."""
    for tensor in parameters:
        tensor.detach().sum()


def ready(made: hn.Hypernetwork) -> None:
    """Read every number, and let the network be made ready for fp32 as its first use does."""
    touched(made.parameters())
    for width in made.widths:
        for side in (0, 1):
            made.delta(width, side, torch.device("cpu"), torch.float32)


def loading(folder: Path, rounds: int) -> dict[str, Row]:
    """First and second use."""
    made = network((1, 2, 1), ALL_WIDTHS)
    zip_file, legacy, half = (folder / f"{name}.pt" for name in ("zip", "legacy", "half"))
    safe = folder / "safe.safetensors"
    save_torch(made, zip_file)
    save_torch(made, legacy, legacy=True)
    save_torch(made, half, dtype=torch.float16)
    hn.write(made, safe)
    library = hn.Library([folder])
    kept = library.load(library.find("zip"))
    variants: dict[str, Callable[[], object]] = {
        "torch.load and modules": lambda: touched(naive(zip_file)),
        "first use, .pt": lambda: touched(hn.read(zip_file).parameters()),
        "first use, .pt, made ready": lambda: ready(hn.read(zip_file)),
        "first use, legacy .pt": lambda: touched(hn.read(legacy).parameters()),
        "first use, .safetensors": lambda: touched(hn.read(safe).parameters()),
        "torch.load and modules, fp16": lambda: touched(naive(half)),
        "first use, fp16 .pt, made ready": lambda: ready(hn.read(half)),
        "second use, by name": lambda: library.load(library.find("zip")),
        "hash of the file": lambda: library.find("zip").sha256(),
    }
    seconds = timed(variants, rounds)
    assert library.load(library.find("zip")) is kept
    return against(seconds, "torch.load and modules")


def timed(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each variant in each round, in a random order; the first two rounds warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 2):
        for name in random.sample(list(variants), len(variants)):
            gc.collect()
            start = time.perf_counter()
            variants[name]()
            taken = time.perf_counter() - start
            if number > 1:
                seconds[name].append(taken)
    return seconds


def against(seconds: dict[str, list[float]], base: str) -> dict[str, Row]:
    """Median seconds, and the median and spread of the paired ratios."""
    rows = {}
    for name, values in seconds.items():
        ratios = sorted(s / b for s, b in zip(values, seconds[base], strict=True))
        rows[name] = {
            "seconds": statistics.median(values),
            "ratio": statistics.median(ratios),
            "low": ratios[0],
            "high": ratios[-1],
        }
    return rows


# Library


def fill(folder: Path, count: int, *, beside: bool) -> None:
    """Files in 50 folders; with ``beside``, three more for each."""
    for number in range(count):
        place = folder / f"folder {number % 50:02}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"network {number:04}{'.pt' if number % 2 else '.safetensors'}").write_bytes(
            b"0" * 100
        )
        if beside:
            (place / f"network {number:04}.preview.png").write_bytes(b"0" * 100)
            (place / f"network {number:04}.json").write_text(
                '{"preferred weight": 0.8, "notes": "n"}', "utf-8"
            )
            (place / f"network {number:04}.txt").write_text("description", "utf-8")


def scanning(folder: Path, count: int, rounds: int) -> dict[str, Row]:
    """Scans, names and pages of a library."""
    rows: dict[str, Row] = {}
    for beside in (False, True):
        place = folder / f"library {beside}"
        fill(place, count, beside=beside)
        name = f"{count} files, {'3 more beside each' if beside else 'alone'}"
        seconds: dict[str, list[float]] = {}
        opened = 0
        for number in range(rounds + 2):
            opened_now, steps = _scans(place, count)
            opened += opened_now
            for step, taken in steps.items():
                if number > 1:
                    seconds.setdefault(step, []).append(taken)
        for step, values in seconds.items():
            rows[f"{name}: {step}"] = {"seconds": statistics.median(values), "high": max(values)}
        rows[f"{name}: files opened by scans"] = {"count": opened}
    return rows


def _scans(place: Path, count: int) -> tuple[int, dict[str, float]]:
    from hypernetworks.studio.cards import described

    library, names = hn.Library([place]), [f"network {number:04}" for number in range(0, count, 10)]
    steps: dict[str, Callable[[], object]] = {
        "first scan": library.scan,
        "scan without news": library.scan,
        "500 names found": lambda: [library.find(name) for name in names],
        "what tags call all": lambda: [library.name_of(entry) for entry in library.entries],
        "studio's cards": lambda: described(library),
    }
    seconds, opened = {}, 0
    for step, act in steps.items():
        gc.collect()
        before, start = len(OPENED), time.perf_counter()
        act()
        seconds[step] = time.perf_counter() - start
        opened += len(OPENED) - before if "scan" in step else 0
    return opened, seconds


OPENED: list[object] = []
"""What the interpreter has opened, see :func:`watch`."""


def watch() -> None:
    """Count every file that is opened from now on."""
    sys.addaudithook(
        lambda event, arguments: OPENED.append(arguments[0]) if event == "open" else None
    )


# Sweep


def sweeps(folder: Path) -> dict[str, Row]:
    """How many files a sweep over 20 networks and 3 multipliers reads."""
    for number in range(20):
        save_torch(network((1, 0.5, 1), (768, 320), number), folder / f"{number:02}.pt")
    size = sum(p.numel() * 4 for p in hn.read(folder / "00.pt").parameters())
    rows, context = {}, torch.randn(2, 77, 768)
    names, multipliers = [f"{number:02}" for number in range(20)], (0.4, 0.7, 1.0)
    orders = {
        "networks outermost": [(name, m) for name in names for m in multipliers],
        "multipliers outermost": [(name, m) for m in multipliers for name in names],
    }
    reads: list[Path] = []
    original = folders.read
    folders.read = lambda path: reads.append(path) or original(path)  # type: ignore[assignment,func-returns-value]
    for order, cells in orders.items():
        for room in (20, 5):
            library = hn.Library(
                [folder], cache_bytes=3 * room * size
            )  # made ready, a network takes up to as much again
            reads.clear()
            start = time.perf_counter()
            for name, multiplier in cells:
                library.load(library.find(name)).transform(context, multiplier)
            rows[f"{order}, room for {room}"] = {
                "reads": len(reads),
                "seconds": time.perf_counter() - start,
            }
    folders.read = original
    return rows


# Memory


def memory(folder: Path) -> dict[str, Row]:
    """In a process of its own, by the kind of files: anonymous memory (ours alone), and mapped
    files (the system's)."""
    rows = {}
    for kind in ("fp32", "fp16"):
        place = folder / kind
        place.mkdir()
        for number in range(20):
            dtype = torch.float32 if kind == "fp32" else torch.float16
            save_torch(
                network((1, 2, 1), (320, 768), number), place / f"{number:02}.pt", dtype=dtype
            )
        for limit in (64, 0):
            command = [
                sys.executable,
                "-m",
                "benchmarks.loading",
                "--child",
                str(place),
                str(limit),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows |= {
                f"{kind}, limit {limit} MiB, {name}": row
                for name, row in json.loads(done.stdout).items()
            }
    return rows


def child(folder: Path, limit: int) -> dict[str, Row]:
    """Use networks one after the other, as the batches of a job do, and let the last one go."""
    contexts = [torch.randn(2, 77, 768), torch.randn(2, 1024, 320)]
    library = hn.Library([folder], cache_bytes=limit * MIB)
    names = [entry.name for entry in library.entries]
    warm_up = network((1, 2, 1), (320, 768))
    for context in contexts:
        warm_up.transform(context)
    del warm_up
    gc.collect()
    rows = {"before": resident(library)}
    peak = rows["before"]
    for name in names * 2:
        in_use = library.load(library.find(name))
        for context in contexts:
            in_use.transform(context)
        now = resident(library)
        peak = {key: max(peak[key], now[key]) for key in now}
    del in_use
    library.trim()
    gc.collect()
    rows |= {"peak": peak, "after": resident(library)}
    library.cache_bytes = 0
    library = hn.Library([folder])
    gc.collect()
    return rows | {"after, without the library": resident(library)}


def resident(library: hn.Library) -> Row:
    """MiB in memory, and what the library says that it keeps."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    fields = dict(
        line.split(":", 1)
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    )
    anonymous, mapped = (int(fields[key].split()[0]) / 1024 for key in ("RssAnon", "RssFile"))
    return {"anonymous": anonymous, "mapped": mapped, "kept": library.loaded_bytes / MIB}


def main() -> None:
    """Print the tables and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--output", type=Path, default=Path("build/loading.json"))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(Path(options.child[0]), int(options.child[1]))))
        return
    watch()
    with tempfile.TemporaryDirectory() as temporary:
        place = {name: Path(temporary) / name for name in ("loading", "library", "sweep", "memory")}
        for folder in place.values():
            folder.mkdir()
        tables = {
            "loading": loading(place["loading"], options.rounds),
            "library": scanning(place["library"], options.files, options.rounds),
            "sweep": sweeps(place["sweep"]),
        }
        if Path("/proc/self/status").exists():
            tables["memory"] = memory(place["memory"])
    facts = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }
    report(tables, options.output, facts)


def report(tables: dict[str, dict[str, Row]], output: Path, facts: dict[str, object]) -> None:
    """Tables for people, JSON for programs."""
    for title, rows in tables.items():
        print(f"\n{title}")
        for name, row in rows.items():
            cells = (
                f"{key} {value * 1e3:9.2f} ms" if key == "seconds" else f"{key} {value:8.3f}"
                for key, value in row.items()
            )
            print(f"  {name:48} {'  '.join(cells)}")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({**facts, **tables}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
