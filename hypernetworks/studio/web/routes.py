"""What the page fetches besides gradio's own: scripts, style, the list of networks, previews; and a
file to add.

They give out nothing but files of the library and of this project.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from ...errors import HypernetworkError
from ...library import Library
from ..card_actions import CardActions
from ..cards import add_file, described, own_folder, preview_of

PREFIX = "/hypernetworks/v1"
FILES = "/hypernetworks/files"
_HERE = Path(__file__).parents[1] / "static"
_ROOTS = (Path(__file__).parents[3], Path(sys.prefix) / "share" / "hypernetworks")
"""A checkout, or what ``pip install`` put beside the interpreter."""


def page_files() -> tuple[list[Path], list[Path]]:
    """Scripts in the order of their loading, and styles: those of the webui extension, then the
    studio's own.

    Raises:
        HypernetworkError: the extension's are missing.
    """
    root = next((r for r in _ROOTS if (r / "javascript" / "hypernetworks.js").is_file()), None)
    if root is None:
        raise HypernetworkError(
            "the page's scripts are missing: run the studio from the project's folder"
        )

    shared = sorted((root / "javascript").glob("hypernetworks*.js"))
    scripts = [*shared, *sorted(_HERE.glob("studio*.js"))]
    return scripts, [root / "style.css", _HERE / "studio.css"]


def head() -> str:
    """The part of the page's head that loads them."""
    scripts, styles = page_files()
    links = [
        f'<link rel="stylesheet" href=".{FILES}/{path.name}?{_version(path)}">' for path in styles
    ]
    return "".join(
        [
            *links,
            *(f'<script defer src=".{FILES}/{p.name}?{_version(p)}"></script>' for p in scripts),
        ]
    )


def _version(path: Path) -> int:
    return path.stat().st_mtime_ns


def register(app: Any, library: Library, shipped: Path, *, anywhere: bool = False) -> None:
    """Add the routes to a FastAPI application."""
    actions = CardActions(library, shipped, anywhere=anywhere)
    # By name, from a list: no path that a request could change is ever opened.
    files = {path.name: path for group in page_files() for path in group}

    def page_file(request: Request) -> Response:
        path = files.get(request.path_params["name"])
        return FileResponse(path) if path is not None else Response(status_code=404)

    def listing(_request: Request) -> Any:
        return described(library)

    def refresh(_request: Request) -> Any:
        return {"count": len(library.scan())}

    async def preview(request: Request) -> Response:
        try:
            path = await run_in_threadpool(
                preview_of, library, request.query_params.get("name", "")
            )
        except HypernetworkError:
            path = None
        return Response(status_code=404) if path is None else FileResponse(path)

    async def add(request: Request) -> Response:
        folder = own_folder(library, shipped)
        try:
            if folder is None:
                raise HypernetworkError(
                    "there is no folder to save it in: start with --hypernetworks FOLDER"
                )
            added = await add_file(folder, request.query_params.get("name", ""), request.stream())
        except HypernetworkError as error:
            return JSONResponse({"error": str(error)}, status_code=422)
        # The answer comes after the scan: the page asks for the new list at once.
        await run_in_threadpool(library.scan)
        return JSONResponse(added)

    async def change(request: Request) -> Response:
        query, body = request.query_params, await request.body()
        asked = (request.path_params["action"], query.get("name", ""), query.get("text", ""), body)
        try:
            return JSONResponse(await run_in_threadpool(actions.do, *asked))
        except HypernetworkError as error:
            return JSONResponse({"error": str(error)}, status_code=422)

    app.add_route(f"{PREFIX}/card/{{action}}", change, methods=["POST"])
    app.add_route(f"{FILES}/{{name}}", page_file, methods=["GET"])
    app.add_route(f"{PREFIX}/list", _json(listing), methods=["GET"])
    app.add_route(f"{PREFIX}/refresh", _json(refresh), methods=["POST"])
    app.add_route(f"{PREFIX}/preview", preview, methods=["GET"])
    app.add_route(f"{PREFIX}/add", add, methods=["POST"])


def _json(answer: Callable[[Request], Any]) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:
        return JSONResponse(answer(request))

    return endpoint
