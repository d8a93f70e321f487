"""Writes of all kinds, killed in the middle: ``python -m tests.hardening.killed --kills 200 --seed
1``.

A process writes the same file over and over, in two states; another kills it at a random moment
with SIGKILL and looks at what is there: one of the two states, whole, or a broken promise.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

import torch  # noqa: E402
from reference import Recipe  # noqa: E402

import hypernetworks as hn  # noqa: E402
from hypernetworks.files.writing import replace  # noqa: E402
from hypernetworks.library import Library  # noqa: E402
from hypernetworks.library.entry import Entry  # noqa: E402
from hypernetworks.library.sidecars import write_user_metadata  # noqa: E402

STATES = 2
LEFT = re.compile(r"\.writing-[0-9a-f]{16}\.tmp")


def _network(state: int) -> hn.Hypernetwork:
    recipe = Recipe((64,), (1, 4, 1) if state else (1, 2, 1), seed=state)
    with TemporaryDirectory() as folder:
        torch.save(recipe.content(), Path(folder) / "a.pt")
        return hn.read(Path(folder) / "a.pt")


def _entry(folder: Path) -> Entry:
    return Entry("net", folder / "net.pt", "", 0, 0)


def _training_state(folder: Path, state: int) -> None:
    content = {"step": state, "parameters": [torch.full((200_000,), float(state))]}
    replace(folder / "state.pt", lambda temporary: torch.save(content, temporary))


WRITES: dict[str, tuple[str, Callable[[Path, int, Any], object]]] = {
    "network as .pt": ("net.pt", lambda folder, _, network: hn.write(network, folder / "net.pt")),
    "network as .safetensors": (
        "net.safetensors",
        lambda folder, _, network: hn.write(network, folder / "net.safetensors"),
    ),
    "user's notes": (
        "net.json",
        lambda folder, state, _: write_user_metadata(
            _entry(folder), {"notes": f"{state}" * 300_000}
        ),
    ),
    "training state": ("state.pt", lambda folder, state, _: _training_state(folder, state)),
}


def _read(path: Path) -> str:
    """What is in a file, as a hash: of the tensors where there are some (safetensors orders its
    metadata anyhow)."""
    if path.name.startswith("net.json"):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if path.name == "state.pt":
        tensors = [
            (str(key), *value)
            for key, value in torch.load(path, weights_only=True).items()
            if key != "step"
        ]
        return hashlib.sha256(
            str([(key, float(value.sum()), value.shape) for key, value in tensors]).encode()
        ).hexdigest()
    digest = hashlib.sha256()
    for parameter in hn.read(path).parameters():
        digest.update(parameter.numpy().tobytes())
    return digest.hexdigest()


def _write_for_ever(kind: str, folder: Path, ready: int) -> None:
    """What the process that gets killed does; a letter after the first rounds tells that it is
    under way."""
    _, write = WRITES[kind]
    networks = [_network(state) for state in range(STATES)]
    for number in itertools.count():
        write(folder, number % STATES, networks[number % STATES])
        if number == STATES:
            os.write(ready, b"w")


def killed(kind: str, kills: int, seed: int, folder: Path) -> Counter[str]:
    """Kill a writer that many times.

    Returns:
        How often which state was found, and how often a temporary file was left.

    Raises:
        AssertionError: what is there is no state, or more than temporary files is left.
    """
    name, write = WRITES[kind]
    states = {}
    for state in range(STATES):
        write(folder, state, _network(state))
        states[_read(folder / name)] = f"state {state}"
    assert len(states) == STATES
    drawn, found = Random(f"{seed} {kind}"), Counter[str]()
    for _ in range(kills):
        _write_and_kill(kind, folder, drawn.random() * 0.12)
        digest = _read(folder / name)
        assert digest in states, f"{kind}: neither the old file nor the new one"
        found[states[digest]] += 1
        others = {item.name for item in folder.iterdir()} - {name}
        assert all(LEFT.fullmatch(other) for other in others), others
        assert [entry.path.name for entry in Library([folder]).scan()] in ([name], []), (
            "a temporary file is listed"
        )
        found["left a temporary file"] += bool(others)
        for other in others:
            os.utime(folder / other, (time.time() - 90_000,) * 2)
    write(folder, 0, _network(0))
    assert [item.name for item in folder.iterdir()] == [name], (
        "old temporary files go with the next write"
    )
    return found


def _write_and_kill(kind: str, folder: Path, wait: float) -> None:
    """In a fork, so that nothing needs to be imported again: this process has one thread."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            _write_for_ever(kind, folder, writing)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read(1) == b"w"
        time.sleep(wait)
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Kill writers.")
    parser.add_argument("--kills", type=int, default=200, help="in all")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for kind in WRITES:
        with TemporaryDirectory() as name:
            found = killed(kind, options.kills // len(WRITES), options.seed, Path(name))
        print(f"{kind}: {json.dumps(dict(sorted(found.items())))}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
