"""What this extension adds to the start of a real webui: ``python -m benchmarks.webui_startup
--webui PATH``.

Starts the webui by turns without and with the project linked into its ``extensions`` folder, from
the start of the process to its page, the first answered request. A difference is of the two starts
of one round. *Processor* is the time that the webui itself and the programs it ran have used: on a
machine that is busy with other things, it varies less. *Says* is the webui's own "Startup time",
whose parts show where a difference comes from; *our script alone* is its part for our script, which
varies least.

One more pair of starts, which isn't timed, lists the modules that are imported only with the
extension, with the time that each took by itself.

AUTOMATIC1111 loads its model while it starts. To leave that out, give it a folder without
checkpoints: ``--webui-args "--ckpt-dir EMPTY …"``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = "hypernetworks_webui.py"
OURS = "hypernetworks"
PATIENCE = 900
LINKED = f"{OURS}-measured"
LINE = re.compile(r"import time:\s*(\d+) \|\s*\d+ \|\s*(\S+)")
"""What ``python -X importtime`` says of a module: microseconds by itself, with what it imports, and
its name."""


@dataclass(frozen=True)
class Start:
    """One start; all times in seconds.

    Attributes:
        wall: from the process to the page.
        processor: user and system time; ``None`` where the system doesn't tell.
        parts: the webui's own profile, ``total`` included.
        imports: the modules, with their own time; empty where it wasn't asked for.
        load: of the machine over the last minute, before the start; ``None`` like ``processor``.
    """

    wall: float
    processor: float | None
    parts: dict[str, float]
    imports: dict[str, float]
    load: float | None


Round = tuple[Start, Start]
"""Without and with the extension."""


def main() -> None:
    """Start it again and again, print the table, write all numbers to a file."""
    options = _parser().parse_args()
    options.webui = options.webui.resolve()
    options.python = options.webui_python or options.webui / "venv" / "bin" / "python"
    # Else the extension would be compiled at each start, the webui's packages wouldn't.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["SD_MIN_TIMER"] = "0"  # else SD.Next keeps what took less than 0.1 s to itself
    there = [path.parent.parent for path in options.webui.glob(f"extensions/*/scripts/{SCRIPT}")]
    if there:
        raise SystemExit(f"take {there[0]} away: it would be in both starts")
    with tempfile.TemporaryDirectory() as folder:
        _pair(options, Path(folder), 0)  # fills the caches of files and of compiled modules
        rounds = [_pair(options, Path(folder), number) for number in range(options.rounds)]
        listed = _pair(options, Path(folder), 0, importtime=True)

    print(report(rounds))
    print(report_of_imports(listed))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    figures = [[asdict(start) for start in pair] for pair in (*rounds, listed)]
    options.output.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--webui", type=Path, required=True, help="its folder")
    parser.add_argument("--webui-python", type=Path, help="default: PATH/venv/bin/python")
    parser.add_argument("--webui-args", default="", help="more flags for its command line")
    parser.add_argument("--rounds", type=int, default=7, help="pairs of starts")
    parser.add_argument("--output", type=Path, default=Path("build/webui_startup.json"))
    return parser


def _pair(
    options: argparse.Namespace, folder: Path, number: int, *, importtime: bool = False
) -> Round:
    """Both starts; the extension is the first in every other round."""
    order = (False, True) if number % 2 == 0 else (True, False)
    found = {ours: _start(options, folder, ours, importtime) for ours in order}
    return found[False], found[True]


def _start(options: argparse.Namespace, folder: Path, ours: bool, importtime: bool) -> Start:
    sys.path[:0] = [str(ROOT / "tests" / "real_host"), str(ROOT / "tests")]
    from webui_server import command_line, free_port, linked, started

    for name in ("hypernetworks", "Lora", "out"):
        (folder / name).mkdir(exist_ok=True)
    log, port = folder / "log.txt", free_port()
    command = command_line(
        options.webui, options.python.absolute(), port, folder, options.webui_args, None
    )
    if importtime:
        command[1:1] = ["-X", "importtime"]

    extension = linked(ROOT, options.webui / "extensions", LINKED)
    load, used, begin = _load(), _used_by_children(), time.monotonic()
    with extension if ours else nullcontext(), started(command, options.webui, log) as process:
        _wait_for_page(process, port, log)
        wall = time.monotonic() - begin
        said = log.read_text("utf-8", "replace")
        parts = logged(said) or _profile(port)
        process.kill()
    after = _used_by_children()
    processor = None if used is None or after is None else after - used
    return Start(wall, processor, parts, imported(said), load)


def _wait_for_page(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """No request before the webui reports its start: AUTOMATIC1111 may end from one."""
    end = time.monotonic() + PATIENCE
    while b"Startup time" not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > end:
            command = shlex.join(map(str, process.args))  # type: ignore[arg-type]
            raise SystemExit(f"the webui did not start: {command}\n{log.read_text()[-4000:]}")
        time.sleep(0.01)
    _get(port, "/")


def _get(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
        return bytes(answer.read())


def _profile(port: int) -> dict[str, float]:
    """Where the webui says that its start went."""
    told = json.loads(_get(port, "/internal/profile-startup"))
    return {**told["records"], "total": told["total"]}


def logged(log: str) -> dict[str, float]:
    """The same of SD.Next, which tells it in its log alone, in lines of 80 characters; its time
    for each extension as ``extensions/NAME``."""
    found = {}
    for title, prefix in (("Startup time", ""), ("Extensions init time", "extensions/")):
        for text in re.findall(rf"{title}: (total=.*(?:\n +.*)*)", log):
            parts = re.findall(r"(\S+)=([\d.]+)", text)
            found |= {prefix + name: float(took) for name, took in parts}
    return found


def _used_by_children() -> float | None:
    """Processor time of all child processes that have ended, and of theirs."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _load() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def imported(log: str) -> dict[str, float]:
    """The modules that a log of ``-X importtime`` names, with the seconds that each took by
    itself."""
    return {name: int(own) / 1e6 for own, name in LINE.findall(log)}


# What is printed


def of_ours(start: Start) -> float:
    """Seconds that the webui says our script took by itself: loading it, and its routes."""
    ours = (f"/{SCRIPT}", f"/{LINKED}")
    return sum(took for part, took in start.parts.items() if part.endswith(ours))


def report(rounds: Sequence[Round]) -> str:
    """The table: medians, and from the lowest to the highest."""
    columns: dict[str, Callable[[Start], float | None]] = {
        "wall": lambda start: start.wall,
        "processor": lambda start: start.processor,
        "says": lambda start: start.parts["total"],
        "our script alone": of_ours,
    }
    columns |= {f"part: {part}": _part(part) for part in _parts_that_differ(rounds)}
    loads = [start.load for pair in rounds for start in pair if start.load is not None]
    lines = [
        f"{len(rounds)} rounds, load {_spread(loads)}" if loads else f"{len(rounds)} rounds",
        "| seconds | without | with | difference |",
        "|---|---|---|---|",
    ]
    for name, value in columns.items():
        pairs = [(value(without), value(with_)) for without, with_ in rounds]
        known = [(one, other) for one, other in pairs if one is not None and other is not None]
        if known:
            cells = (
                [one for one, _ in known],
                [other for _, other in known],
                [other - one for one, other in known],
            )
            lines.append(f"| {name} | {' | '.join(map(_spread, cells))} |")
    return "\n".join(lines)


def _part(name: str) -> Callable[[Start], float]:
    return lambda start: start.parts.get(name, 0.0)


def _parts_that_differ(rounds: Sequence[Round], least: float = 0.02) -> list[str]:
    """Top-level parts of the webui's profile whose median difference is 20 ms or more."""
    names = {part for pair in rounds for start in pair for part in start.parts}
    return [
        name
        for name in sorted(names - {"total"})
        if "/" not in name
        and abs(statistics.median(_part(name)(b) - _part(name)(a) for a, b in rounds)) >= least
    ]


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def report_of_imports(listed: Round) -> str:
    """The modules that only the start with the extension imported: ours, Python's own, and all
    others, which should be none."""
    without, with_ = (start.imports for start in listed)
    own = {name: took for name, took in with_.items() if name not in without}
    kinds = {
        "of this project": [name for name in own if name.split(".")[0] == OURS],
        "of Python": [name for name in own if name.split(".")[0] in sys.stdlib_module_names],
    }
    known = {name for names in kinds.values() for name in names}
    kinds["others"] = [name for name in own if name not in known]
    lines = [f"imported only with the extension, of {len(with_)} modules in all:"]
    for kind, names in kinds.items():
        took = sum(own[name] for name in names)
        shown = "" if kind == "of this project" else ": " + (", ".join(sorted(names)) or "none")
        lines.append(f"* {kind}, {len(names)} in {took:.3f} s{shown}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
