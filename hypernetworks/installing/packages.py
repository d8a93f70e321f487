"""What is installed into the environment, torch first."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.request import getproxies

from ..console import say, warn
from . import environment, machine, surroundings, wheels
from .environment import ENVIRONMENT, ROOT, SetUpError
from .wheels import Choice

EXTRAS = {"studio": "studio", "test": "studio,test"}
GIBIBYTES = {"cpu": 3.0, "pypi": 3.0}
"""Disk space that a build needs, downloads included; those for GPUs need more."""
FOR_A_GPU = 10.0
NEEDED = (
    "torch",
    "numpy",
    "safetensors",
    "diffusers",
    "transformers",
    "accelerate",
    "gradio",
    "hypernetworks",
)
SPEED = {
    "cuda": "fast: an SD1.5 image of 512x512 takes seconds",
    "xpu": "fast: an SD1.5 image of 512x512 takes seconds",
    "mps": "an SD1.5 image of 512x512 takes up to a minute",
    "cpu": "the miniature takes seconds; an SD1.5 image of 512x512 takes minutes",
}
PROBE = """
import torch
t = torch.ones(2).sum().item()
v = tuple(int(p) for p in torch.__version__.split("+")[0].split(".")[:2])
d, n = "cpu", "the CPU"
if torch.cuda.is_available(): d, n = "cuda", torch.cuda.get_device_name(0)
elif getattr(torch, "xpu", None) and torch.xpu.is_available():
    d, n = "xpu", torch.xpu.get_device_name(0)
elif torch.backends.mps.is_available(): d, n = "mps", "Apple's GPU"
print("torch", torch.__version__, d, n) if v >= (2, 1) else None
"""


def stamp(task: str) -> str:
    """A text that changes whenever the packages must be installed again."""
    sources = [ROOT / "pyproject.toml", ROOT / "constraints.txt", ENVIRONMENT / "pyvenv.cfg"]
    text = b"".join(path.read_bytes() for path in sources if path.exists())
    return hashlib.sha256(text + f"{ROOT} {EXTRAS[task]}".encode()).hexdigest()


def mark(task: str) -> Path:
    """The file that holds the stamp of a finished set-up."""
    return ENVIRONMENT / f".ready-{task}"


def ready(task: str) -> bool:
    """Whether a set-up was finished and no package is missing."""
    enough = (task, "test")  # the tests' environment holds all that the studio needs
    if not any(mark(one).exists() and mark(one).read_text() == stamp(one) for one in enough):
        return False
    code = f"import importlib.util as u; print(all(u.find_spec(n) for n in {NEEDED}))"
    return environment.ask(code) == "True"


def install(task: str, requested: str | None) -> None:
    """Install torch, unless one works, and then everything else.

    Args:
        task: a key of :data:`EXTRAS`.
        requested: the value of ``--torch``.

    Raises:
        SetUpError: it can't be installed.
    """
    for one in EXTRAS:
        mark(one).unlink(
            missing_ok=True
        )  # a set-up that is killed from here on counts as unfinished

    found = working_torch()
    if requested is not None and not (found is not None and has(requested)):
        found = _install_torch(wheels.asked(requested), replace=found is not None)
        _requested_before().write_text(requested, encoding="utf-8")
    elif found is None:
        found = _install_torch(_automatic(), replace=False)

    say("  everything else ...")
    with _constraints(torch_version=found.split()[1]) as constraints:
        _pip("-c", constraints, "-e", f".[{EXTRAS[task]}]")
    mark(task).write_text(stamp(task))
    _report(found)


def working_torch() -> str | None:
    """The environment's torch as ``torch VERSION DEVICE NAME``, if it can compute and is new
    enough.
    """
    lines = (environment.ask(PROBE) or "").splitlines()
    return next((line for line in lines if line.startswith("torch ")), None)


def has(requested: str | None) -> bool:
    """Whether the installed torch is the one that ``--torch`` names, if it names one.

    The installed version doesn't show which index or path it came from, so the last value of
    ``--torch`` is stored beside the marks.
    """
    before = _requested_before()
    if requested is None or (before.exists() and before.read_text(encoding="utf-8") == requested):
        return True
    found = working_torch()
    if found is None or requested not in wheels.BUILDS:
        return False
    return found.split()[1].partition("+")[2].startswith(requested)


def _requested_before() -> Path:
    return ENVIRONMENT / ".torch"


def _automatic() -> Choice:
    here = machine.describe(environment.version())
    reason = wheels.impossible(here)
    if reason is not None:
        raise SetUpError(reason)
    return wheels.choose(here)


def _install_torch(choice: Choice, replace: bool) -> str:
    """Install a torch, or its fallback, and check that it works."""
    say(f"  torch ({choice.build}: {choice.reason}) ...")
    environment.check_space(GIBIBYTES.get(choice.build, FOR_A_GPU))
    if replace:  # pip takes 2.13.0+cpu for 2.13.0 and would install nothing
        _pip("torch", command="uninstall")

    index = wheels.WHEELS.split("/")[2]
    remote = any(index in part for part in choice.pip)
    if choice.fallback is None or not remote:
        _pip(*choice.pip)
    elif not reachable(index) or _pip(*choice.pip, check=False):
        say(
            f"  {index} doesn't answer or has no such wheel: installing torch from PyPI instead ..."
        )
        _pip(*choice.fallback)

    found = working_torch()
    if found is None:
        raise SetUpError(
            "The installed torch can't be imported. On Windows, install the Microsoft Visual C++ "
            "Redistributable; on other systems, try `--torch cpu`."
        )
    return found


def reachable(host: str) -> bool:
    """Whether a server answers within three seconds."""
    if getproxies().get("https"):  # only pip can tell behind a proxy, so let it try
        return True
    try:
        with socket.create_connection((host, 443), timeout=3):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def _constraints(torch_version: str) -> Iterator[str]:
    """A file with the project's constraints, but with the installed torch instead of the pinned."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if re.match(r"torch\b", line) is None]
    temporary = ENVIRONMENT / f"constraints-{os.getpid()}.txt"
    temporary.write_text("\n".join([*lines, f"torch=={torch_version}", ""]), encoding="utf-8")
    try:
        yield str(temporary)
    finally:
        temporary.unlink(missing_ok=True)


def _pip(*arguments: str, command: str = "install", check: bool = True) -> int:
    """Run the environment's pip in the project's folder; pip prints its own errors."""
    interpreter = str(environment.python())
    options = ["--quiet", "--yes"] if command == "uninstall" else ["--quiet"]
    line = [interpreter, "-m", "pip", "--disable-pip-version-check", command, *options, *arguments]
    code = subprocess.call(line, cwd=ROOT, env=surroundings.for_pip(interpreter, os.environ))
    if code and check:
        shown = " ".join(["pip", command, *arguments])
        raise SetUpError(f"The set-up failed at `{shown}`{environment.true_reason()}")
    return code


def _report(found: str) -> None:
    """Print which device torch uses and how fast that is, and whether a card is left unused."""
    _, number, device, name = found.split(maxsplit=3)
    say(f"  torch {number} uses {name} ({device}): {SPEED[device]}")
    if device == "cpu":
        here = machine.describe(environment.version())
        better = None if wheels.impossible(here) else wheels.choose(here)
        if better is not None and better.build not in ("cpu", "pypi"):
            warn(
                f"  There is {better.reason}, which this torch doesn't use. To use it, run the "
                f"command with `--torch {better.build}`."
            )
