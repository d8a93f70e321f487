"""What ComfyUI's page asks the server for: what it shares with the panel of webuis (the curve of a
schedule, and its style), and previews of networks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ...errors import HypernetworkError
from ...library.sidecars import read_sidecars

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
    routes.get(f"{ADDRESS}/preview")(preview)


async def preview(request: Any) -> Any:
    """The image beside a network, for its name in a list; no content where there is none."""
    from aiohttp import web

    # In a thread: folders on a network drive must not stop the server.
    path = await asyncio.to_thread(_preview_of, request.query.get("name", ""))
    headers = {"Cache-Control": "no-cache"}
    # Not 404, which browsers report as an error of the page.
    return web.Response(status=204) if path is None else web.FileResponse(path, headers=headers)


def _preview_of(name: str) -> Path | None:
    """Only of files in the library: a name is no path."""
    from .networks import find

    try:
        return read_sidecars(find(name)).preview
    except (HypernetworkError, OSError, ValueError):
        return None


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
