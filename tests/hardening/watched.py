"""The process that reads one bad file after the other, and watches itself while it does.

Each line of the input asks for one reading: JSON with ``path``, ``mode`` and ``again``. Each gets
one line back, a :class:`Seen`. It is started by :mod:`hardening.fuzz`, which kills it when it hangs
and notices when it dies.
"""

from __future__ import annotations

import gc
import io
import json
import os
import pickle
import resource
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

import hypernetworks as hn
from hypernetworks import cli
from hypernetworks.errors import HypernetworkError
from hypernetworks.library import Entry, Library, inspect
from hypernetworks.library.sidecars import read_sidecars

SPARE = 1 << 30
"""Bytes of address space beyond what the process has, so that a bomb ends it and not the machine.
"""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FORBIDDEN = (
    "subprocess.", "socket.", "shutil.", "ctypes.", "pty.", "tempfile.", "webbrowser.", "marshal.", "exec", "compile",
    "import", "pickle.find_class", "code.__new__", "builtins.input", "builtins.breakpoint", "signal.", "syslog.",
    "urllib.", "http.", "ftplib.", "smtplib.", "sqlite3.", "resource.", "fcntl.", "sys.addaudithook", "sys._getframe",
    "setopencodehook", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile",
    "os.kill", "os.killpg", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod",
    "os.chown", "os.truncate", "os.utime", "os.putenv", "os.unsetenv", "os.setxattr", "os.listdir", "os.chdir",
    "os.chflags",
)  # fmt: skip
"""Audit events that reading a file has no business with."""
_LISTING = ("os.listdir",)
"""What a library does, and a look for side-cars, whose names may differ in case."""


@dataclass
class Seen:
    """What one reading did.

    Attributes:
        outcome: ``"read"``, or the class of the error.
        foreign: whether that class is not one of the project's.
        events: audit events that should not be.
        milliseconds: of the processor's time.
        kibibytes: of memory at the worst moment, more than before; ``None`` where the system
            doesn't tell.
        left: descriptors, modules that were not there before.
        agreement: what torch's or safetensors' own reader says of an accepted file.
        digest: a sum over an accepted network, to be compared with a later one of the same.
    """

    outcome: str = ""
    foreign: bool = False
    message: str = ""
    events: list[str] = field(default_factory=list)
    milliseconds: float = 0.0
    kibibytes: int | None = None
    left: list[str] = field(default_factory=list)
    agreement: str = ""
    digest: str = ""


class Watch:
    """Audit events between ``start`` and ``stop``; a hook can't be taken off again."""

    def __init__(self) -> None:
        self.events: list[str] | None = None
        self.path = ""
        self.mode = "read"
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.events is None:
            return
        if event == "open":
            path, _, flags = (*arguments, None, None, None)[:3]
            writes = isinstance(flags, int) and flags & WRITING
            others = isinstance(path, (str, bytes)) and os.fsdecode(path) != self.path
            if writes or others:
                self.events.append(f"open {path!r} {flags}")
        elif event.startswith(FORBIDDEN) and not (
            self.mode in ("library", "side-car") and event in _LISTING
        ):
            self.events.append(f"{event} {arguments!r:.200}")


def _status(key: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(key)), None)


def _forget_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _limit(more: int) -> None:
    used = _status("VmSize")
    if used is not None:
        resource.setrlimit(resource.RLIMIT_AS, (used * 1024 + more, resource.RLIM_INFINITY))


def _plant_descriptor(path: Path) -> None:
    _HELD.append(path.open("rb"))


def _plant_module(path: Path) -> None:
    import colorsys  # noqa: F401 - what counts is that nobody has imported it before


def _plant_crash(path: Path) -> None:
    os.kill(os.getpid(), 9)


_HELD: list[Any] = []
PLANTS: dict[str, Callable[[Path], object]] = {
    "writes a file": lambda path: path.with_suffix(".written").write_text("x"),
    "opens another file": lambda _: Path("/dev/null").read_bytes(),
    "runs a command": lambda _: os.system("true"),
    "starts a process": lambda _: subprocess.run(["true"], check=True),
    "opens a socket": lambda _: socket.socket().close(),
    "runs code": lambda _: eval("1 + 1"),
    "unpickles": lambda _: pickle.loads(b"cos\nsystem\n."),
    "imports": _plant_module,
    "leaves a descriptor": _plant_descriptor,
    "takes memory": lambda _: bytearray(100 << 20),
    "an error of another kind": lambda path: {}[path],
    "an error that says nothing": lambda _: _raise(HypernetworkError("no")),
    "dies": _plant_crash,
}
"""What a reader must not do. A watch that does not notice them is worth nothing."""


def _raise(error: Exception) -> None:
    raise error


def _act(path: Path, mode: str) -> Any:
    if mode in PLANTS:
        PLANTS[mode](path)
    if mode == "library":
        entries = Library([path.parent]).scan()
        return Library([path.parent]).load(entries[0]) if entries else hn.read(path)
    if mode == "side-car":
        read_sidecars(Entry("net", path.with_name("net.pt"), "", 0, 0))
        return None
    network = hn.read(path)
    inspect(network, path)
    for width in network.widths:
        if width < 4096:
            network.transform(torch.zeros(1, 2, width))
    return network


def look(watch: Watch, path: Path, mode: str) -> tuple[Seen, Any]:
    """Read one file; what came of it, and the network if there is one."""
    seen, network = Seen(), None
    if gc.get_freeze_count():
        gc.collect()
    modules, descriptors = (
        set(sys.modules),
        len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0,
    )
    measured, before = _forget_peak(), _status("VmRSS")
    watch.path, watch.mode, events = str(path), mode, list[str]()
    began, watch.events = time.process_time(), events
    try:
        network = _act(path, mode)
        outcome = "read"
    except HypernetworkError as error:
        outcome, seen.message = type(error).__name__, str(error)
    except BaseException as error:
        outcome, seen.message, seen.foreign = type(error).__name__, repr(error)[:500], True
    finally:
        watch.events = None
    seen.outcome, seen.events, seen.milliseconds = (
        outcome,
        events,
        (time.process_time() - began) * 1000,
    )
    peak = _status("VmHWM")
    if measured and peak is not None and before is not None:
        seen.kibibytes = peak - before
    if Path("/proc/self/fd").exists() and len(os.listdir("/proc/self/fd")) > descriptors:
        seen.left.append(f"{len(os.listdir('/proc/self/fd')) - descriptors} open descriptors")
    seen.left += sorted(set(sys.modules) - modules)
    return seen, network


def _told(path: Path) -> str:
    """What the command line makes of a file that can't be read: empty if it is one line and
    code 2.
    """
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.main(["inspect", str(path)])
    lines = err.getvalue().splitlines()
    return (
        ""
        if code == 2 and len(lines) == 1 and not out.getvalue().strip()
        else f"{code} {lines}"[:300]
    )


def compare(path: Path, network: hn.Hypernetwork) -> str:
    """``"same"``, what differs, or why the other reader refuses what ours takes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            theirs = _theirs(path)
        except Exception as error:
            return f"refused: {type(error).__name__}"
    ours = {
        f"{width}.{side}.{name}": tensor
        for width, pair in network.pairs.items()
        for side, mlp in zip("kv", pair, strict=True)
        for name, tensor in mlp.state_dict().items()
    }
    if ours.keys() != theirs.keys():
        return f"different: {sorted(ours.keys() ^ theirs.keys())[:3]}"
    for name, tensor in ours.items():
        other = theirs[name]
        equal = tensor.dtype == other.dtype and tensor.shape == other.shape
        if not equal or not torch.equal(
            torch.nan_to_num(tensor.double()), torch.nan_to_num(other.double())
        ):
            return f"different: {name}"
    return "same"


def _theirs(path: Path) -> dict[str, torch.Tensor]:
    with path.open("rb") as file:
        head = file.read(9)
    if head[:2] != b"PK" and head[:1] != b"\x80":
        from safetensors.torch import load

        return load(path.read_bytes())
    content, found = torch.load(path, weights_only=True, map_location="cpu"), {}
    for width, pair in content.items():
        if (
            type(width) in (int, str)
            and isinstance(pair, (tuple, list))
            and len(pair) == 2
            and all(isinstance(state, dict) for state in pair)
        ):
            for side, state in zip("kv", pair, strict=True):
                for name, tensor in state.items():
                    renamed = name.replace("linear1.", "linear.0.").replace("linear2.", "linear.1.")
                    found[f"{int(width)}.{side}.{renamed}"] = tensor
    return found


def _digest(network: hn.Hypernetwork) -> str:
    return str(
        sum(float(torch.nan_to_num(p.detach().double()).sum()) for p in network.parameters())
    )


def main() -> int:
    """Serve until the input ends."""
    torch.set_num_threads(1)
    for codec in (
        "raw-unicode-escape",
        "utf-8-sig",
    ):  # Python loads them when they are needed first
        b"a".decode(codec)
    watch, network = Watch(), None
    answers = sys.stdout
    for line in sys.stdin:
        asked = json.loads(line)
        path, mode = Path(os.fsdecode(bytes.fromhex(asked["path"]))), asked["mode"]
        if (
            mode == "ready"
        ):  # what is there by now is looked through no more: that takes longer than reading
            gc.collect()
            gc.freeze()
            seen = Seen("read")
        elif mode == "touch":  # the file behind the last network was changed meanwhile
            seen = Seen("read", digest=_digest(network) if network is not None else "")
        else:
            _limit(SPARE + asked["size"])
            seen, network = look(watch, path, mode)
            _limit(64 * SPARE)
            if network is not None:
                seen.digest = _digest(network) if asked.get("digest") else ""
                seen.agreement = compare(path, network) if asked.get("compare") else ""
            elif mode == "cli":
                seen.agreement = _told(path)
        print(json.dumps(asdict(seen)), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
