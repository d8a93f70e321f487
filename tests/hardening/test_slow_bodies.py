"""A body that comes too slowly is cut, and nothing of the package changes the process's umask."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path

import pytest
from starlette.exceptions import HTTPException

import hypernetworks
from hypernetworks.studio.web import bodies, limits


async def _read(pauses: list[float], piece: bytes) -> bytes:
    """The body that is read when each piece comes after a pause, in seconds."""
    remaining = list(pauses)

    async def receive() -> dict[str, object]:
        await asyncio.sleep(remaining.pop(0))
        return {"type": "http.request", "body": piece, "more_body": bool(remaining)}

    return b"".join([part async for part in bodies.pieces(receive, 1 << 20)])


@pytest.mark.parametrize(
    ("pauses", "piece"),
    [
        ([0.0, 5.0], b"x"),  # silent
        ([0.08] * 40, b"x"),  # never silent for long, but a byte at a time
    ],
    ids=["silence", "a trickle"],
)
def test_a_slow_body_is_cut(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float], piece: bytes
) -> None:
    monkeypatch.setattr(limits, "SILENCE", 0.3)
    monkeypatch.setattr(limits, "SLOWEST", 1000)
    with pytest.raises(HTTPException) as refused:
        asyncio.run(_read(pauses, piece))
    assert refused.value.status_code == 408


def test_a_body_that_is_slow_and_large_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SILENCE", 0.3)
    monkeypatch.setattr(limits, "SLOWEST", 1000)
    assert asyncio.run(_read([0.08] * 8, b"x" * 1000)) == b"x" * 8000


def test_no_file_changes_the_umask() -> None:
    """It is the whole process's: for a moment, files of other threads would be open to all."""
    found = [
        path.name
        for path in Path(hypernetworks.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "umask"
    ]
    assert found == []
