"""The routes of the Compare tab's sheets: what is in one, its images, and the whole as a file."""

from __future__ import annotations

import io
import re
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from ..comparing.drawing import sheet as drawn
from ..comparing.page_file import page_file
from ..comparing.sheets import Sheet, Sheets, described

_FRESH = {"cache-control": "no-store"}


def register_sheets(app: Any, prefix: str, sheets: Sheets) -> None:
    """Add the routes to a FastAPI application."""

    async def latest(request: Request) -> Response:
        sheet = sheets.of(request.query_params.get("window", ""))
        return JSONResponse(None if sheet is None else described(sheet), headers=_FRESH)

    async def cell(request: Request) -> Response:
        sheet = sheets.keyed(request.query_params.get("key", ""))
        number = request.query_params.get("number", "")
        if sheet is None or not re.fullmatch(r"[0-9]{1,4}", number):
            return Response(status_code=404)
        path = sheet.path(int(number))
        return FileResponse(path) if path.is_file() else Response(status_code=404)

    async def whole(request: Request) -> Response:
        sheet = sheets.keyed(request.query_params.get("key", ""))
        kind = request.query_params.get("kind", "")
        if sheet is None or not sheet.pictures or kind not in ("html", "png"):
            return Response(status_code=404)
        content = await run_in_threadpool(_as_html if kind == "html" else _as_png, sheet)
        name = {"content-disposition": f'attachment; filename="sheet.{kind}"'}
        media = "text/html; charset=utf-8" if kind == "html" else "image/png"
        return Response(content, media_type=media, headers={**_FRESH, **name})

    app.add_route(f"{prefix}/sheet", latest, methods=["GET"])
    app.add_route(f"{prefix}/sheet/cell", cell, methods=["GET"])
    app.add_route(f"{prefix}/sheet/file", whole, methods=["GET"])


def _as_html(sheet: Sheet) -> bytes:
    assert sheet.plan is not None
    found = page_file(sheet.plan, dict(sheet.pictures), sheet.title, sheet.notes)
    return found.encode("utf-8", "replace")


def _as_png(sheet: Sheet) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    assert sheet.plan is not None
    pictures = dict(sheet.pictures)
    images = {cell: picture.image for cell, picture in pictures.items()}
    paper = drawn(sheet.plan, images, sheet.title, sheet.notes)

    # Dropped on the page, a sheet brings back the settings of its first image.
    metadata = PngInfo()
    metadata.add_text("parameters", pictures[min(pictures)].infotext)
    buffer = io.BytesIO()
    paper.save(buffer, format="PNG", pnginfo=metadata)
    return buffer.getvalue()
