"""What ComfyUI's page shares with the panel of webuis: the curve of a schedule, and its style."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[3]
_SCRIPTS = ("", "_catalogue", "_controls", "_curve")
SHARED = (
    *(_ROOT / "javascript" / f"hypernetworks{part}.js" for part in _SCRIPTS),
    _ROOT / "style.css",
)
"""Files outside of the folder for scripts: ComfyUI's page would start all that it finds there."""
ADDRESS = "/hypernetworks_page"


def serve() -> None:
    """Let the server answer for these files. Without a server, as in tools, nothing happens."""
    from server import PromptServer

    routes = getattr(getattr(PromptServer, "instance", None), "routes", None)
    if routes is None:
        return
    for path in SHARED:
        routes.get(f"{ADDRESS}/{path.name}")(_answer(path))


def _answer(path: Path) -> Callable[[Any], Awaitable[Any]]:
    """A handler for one file."""
    # Set here, because on Windows a registry entry may call scripts text, which browsers refuse.
    kind = "text/css" if path.suffix == ".css" else "text/javascript"

    async def answer(_: Any) -> Any:
        from aiohttp import web

        return web.Response(
            body=path.read_bytes(),
            content_type=kind,
            charset="utf-8",
            headers={"Cache-Control": "no-cache"},
        )

    return answer
