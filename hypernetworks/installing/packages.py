"""What gets installed into the environment, torch first."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import getproxies

from ..console import say
from . import environment, machine, surroundings, wheels
from .environment import ENVIRONMENT, ROOT, SetUpError
from .wheels import Choice

EXTRAS = {"studio": "studio", "test": "studio,test"}
GIBIBYTES = {"cpu": 3.0, "pypi": 3.0}
"""Needed on the disk, downloads included; the builds for GPUs need more."""
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
elif getattr(torch, "xpu", None) and torch.xpu.is_available(): d, n = "xpu", torch.xpu.get_device_name(0)
elif torch.backends.mps.is_available(): d, n = "mps", "Apple's GPU"
print("torch", torch.__version__, d, n) if v >= (2, 1) else None
"""


def stamp(task: str) -> str:
    """Changes whenever something has to be installed again."""
    sources = [ROOT / "pyproject.toml", ROOT / "constraints.txt", ENVIRONMENT / "pyvenv.cfg"]
    text = b"".join(path.read_bytes() for path in sources if path.exists())
    return hashlib.sha256(text + f"{ROOT} {EXTRAS[task]}".encode()).hexdigest()


def mark(task: str) -> Path:
    """Where the stamp of a finished set-up is kept."""
    return ENVIRONMENT / f".ready-{task}"


def ready(task: str) -> bool:
    """Whether a set-up was finished and nothing of it is missing."""
    enough = (task, "test")  # the tests' environment holds all that the studio needs
    if not any(mark(one).exists() and mark(one).read_text() == stamp(one) for one in enough):
        return False
    code = f"import importlib.util as u; print(all(u.find_spec(n) for n in {NEEDED}))"
    return environment.ask(code) == "True"


def install(task: str, wish: str | None) -> None:
    """Install torch, unless one works, and everything else around it.

    Args:
        task: a key of :data:`EXTRAS`.
        wish: what ``--torch`` asks for.

    Raises:
        SetUpError: it can't be installed.
    """
    for one in EXTRAS:
        mark(one).unlink(missing_ok=True)  # from here on it is half installed
    found = working_torch()
    if wish is not None and not (found is not None and has(wish)):
        found = _install_torch(wheels.asked(wish), replace=found is not None)
        _wished().write_text(wish, encoding="utf-8")
    elif found is None:
        found = _install_torch(_automatic(), replace=False)

    say("  everything else ...")
    with _constraints(keeping=found.split()[1]) as constraints:
        _pip("-c", constraints, "-e", f".[{EXTRAS[task]}]")
    mark(task).write_text(stamp(task))
    _tell(found)


def working_torch() -> str | None:
    """The environment's torch as ``torch VERSION DEVICE NAME``, if it can compute and is new
    enough.
    """
    lines = (environment.ask(PROBE) or "").splitlines()
    return next((line for line in lines if line.startswith("torch ")), None)


def has(wish: str | None) -> bool:
    """Whether torch is what ``--torch`` asks for, or nothing is asked for.

    An index or a path can't be told from the installed version: what was asked for last is kept
    beside the marks.
    """
    if wish is None or (_wished().exists() and _wished().read_text(encoding="utf-8") == wish):
        return True
    found = working_torch()
    if found is None or wish not in wheels.BUILDS:
        return False
    return found.split()[1].partition("+")[2].startswith(wish)


def _wished() -> Path:
    return ENVIRONMENT / ".torch"


def _automatic() -> Choice:
    here = machine.describe(environment.version())
    reason = wheels.impossible(here)
    if reason is not None:
        raise SetUpError(reason)
    return wheels.choose(here)


def _install_torch(choice: Choice, replace: bool) -> str:
    """Install one torch, or its fallback, and see that it works."""
    say(f"  torch ({choice.build}: {choice.reason}) ...")
    environment.check_space(GIBIBYTES.get(choice.build, FOR_A_GPU))
    if replace:  # 2.13.0 counts as satisfied by 2.13.0+cpu
        _pip("torch", command="uninstall")

    index = wheels.WHEELS.split("/")[2]
    remote = any(index in part for part in choice.pip)
    if choice.fallback is None or not remote:
        _pip(*choice.pip)
    elif not reachable(index) or _pip(*choice.pip, check=False):
        say(f"  {index} does not answer or has no such wheel: PyPI's torch is taken instead ...")
        _pip(*choice.fallback)

    found = working_torch()
    if found is None:
        raise SetUpError(
            "The torch that was installed can't be imported. On Windows, the Microsoft Visual C++ Redistributable "
            "may be missing; elsewhere try `--torch cpu`."
        )
    return found


def reachable(host: str) -> bool:
    """Whether a server answers within three seconds; behind a proxy only pip can tell, so that it
    may try.
    """
    if getproxies().get("https"):
        return True
    try:
        with socket.create_connection((host, 443), timeout=3):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def _constraints(keeping: str) -> Iterator[str]:
    """The project's constraints in a file, with the torch that is there instead of the pinned
    one.
    """
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if re.match(r"torch\b", line) is None]
    temporary = ENVIRONMENT / f"constraints-{os.getpid()}.txt"
    temporary.write_text("\n".join([*lines, f"torch=={keeping}", ""]), encoding="utf-8")
    try:
        yield str(temporary)
    finally:
        temporary.unlink(missing_ok=True)


def _pip(*arguments: str, command: str = "install", check: bool = True) -> int:
    """Run the environment's pip, in the project's folder; its own lines say what it does not
    like.
    """
    interpreter = str(environment.python())
    options = ["--quiet", "--yes"] if command == "uninstall" else ["--quiet"]
    line = [interpreter, "-m", "pip", "--disable-pip-version-check", command, *options, *arguments]
    code = subprocess.call(line, cwd=ROOT, env=surroundings.for_pip(interpreter, os.environ))
    if code and check:
        shown = " ".join(["pip", command, *arguments])
        raise SetUpError(f"The set-up failed at `{shown}`{environment.true_reason()}")
    return code


def _tell(found: str) -> None:
    """Which device torch sees, and what that means; and when a card is left unused."""
    _, number, device, name = found.split(maxsplit=3)
    say(f"  torch {number} uses {name} ({device}): {SPEED[device]}")
    if device == "cpu":
        here = machine.describe(environment.version())
        better = None if wheels.impossible(here) else wheels.choose(here)
        if better is not None and better.build not in ("cpu", "pypi"):
            say(
                f"  There is {better.reason}, which this torch does not use: `--torch {better.build}` replaces it.",
                sys.stderr,
            )
