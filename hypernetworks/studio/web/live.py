"""What the page asks again and again: its jobs, the training, how long the prompt is; and the
routes of its gallery.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import tempfile
import zipfile
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from ...errors import HypernetworkError
from ...hosts.diffusers.prompt_encoding import tokens_used
from ...prompts import parse
from ...ui.training import views
from ...ui.training.runs import Runs
from ...ui.training.state import duration
from ..card_actions import open_folder
from ..comparing.sheets import Sheets
from ..fitting import Fitting
from ..generating import LONGEST_PROMPT
from ..images import Images, described
from ..job_queue import JobQueue, Seen
from ..train.trainer import WINDOW as TRAINING
from ..train.trainer import Trainer
from ..widgets import messages_html

RUN = secrets.token_hex(8)
"""Of this start of the studio: a page that sees another one knows that it was restarted."""
MOST_ZIPPED = 2000
"""Images of one download, the newest first."""
MOST_ITEMS = 60
"""Images of the gallery in one answer."""


def now(
    trainer: Trainer, sheets: Sheets, window: str, seen: str, wants_training: bool
) -> dict[str, Any]:
    """How far everything is, for one window.

    Args:
        sheets: of all windows.
        window: the one that asks; only its own jobs are marked as such.
        seen: the state of the training that it shows; nothing is sent twice.
        wants_training: whether its Train tab is in view.
    """
    job_queue = trainer.job_queue
    jobs = [_shown(job, trainer, window) for job in job_queue.seen()]

    sheet = sheets.of(window)
    answer = {
        "run": RUN,
        "model": job_queue.painter.model_name,
        "jobs": jobs,
        "unfinished": job_queue.unfinished.message(window),
        "sheet": "" if sheet is None else sheet.version,
    }
    return {**answer, "training": training(trainer, seen, wants_training)}


def _shown(job: Seen, trainer: Trainer, window: str) -> dict[str, Any]:
    # How far a training is, its own state knows: it tells the queue nothing after its first step.
    at = trainer.state if job.window == TRAINING and job.is_running else job
    return {
        "title": job.title,
        "done": at.done,
        "total": at.total,
        "note": at.note,
        "mine": bool(window) and job.window == window,
        "running": job.is_running,
    }


def training(trainer: Trainer, seen: str, is_shown: bool) -> dict[str, Any]:
    """The training that runs or ran last; with its parts as HTML where they are shown and new."""
    state = trainer.state
    parts = [state.number, len(state.rows), len(state.previews), state.note, state.done]
    version = json.dumps([*parts, len(state.messages), state.is_running])

    found: dict[str, Any] = {
        "name": state.name,
        "running": state.is_running,
        "kept": f"{state.kept_as} {state.number}" if state.kept_as else None,
        "version": version,
        "left": duration(state.rows[-1].seconds_left) if state.rows else "",
    }
    if is_shown and seen != version:
        found["parts"] = {
            "progress": views.progress(state),
            "curves": views.curves(state),
            "previews": views.previews(state),
            "messages": messages_html(list(state.messages), "error" if state.is_wrong else "note"),
        }
    return found


def count(job_queue: JobQueue, text: str) -> list[int]:
    """Tokens that a prompt takes, and how many its parts hold."""
    clean, _ = parse(text[:LONGEST_PROMPT])
    return list(tokens_used(job_queue.painter.pipeline, clean))


def register_live(
    app: Any, prefix: str, trainer: Trainer, images: Images, sheets: Sheets, scratch: Path
) -> None:
    """Add the routes to a FastAPI application.

    Args:
        scratch: a folder for temporary files, which ends with this run.
    """

    async def asked(request: Request) -> Response:
        query = request.query_params
        given = (query.get("window", ""), query.get("seen", ""), query.get("tab") == "train")
        return JSONResponse(await run_in_threadpool(now, trainer, sheets, *given), headers=_FRESH)

    async def seen(request: Request) -> Response:
        window = request.query_params.get("window", "")
        await run_in_threadpool(trainer.job_queue.unfinished.seen, window)
        return JSONResponse({})

    async def tokens(request: Request) -> Response:
        text = (await request.body()).decode("utf-8", "replace")
        return JSONResponse(await run_in_threadpool(count, trainer.job_queue, text))

    fitting = Fitting()

    async def fits(_request: Request) -> Response:
        queue = trainer.job_queue
        found = await run_in_threadpool(fitting.problems, queue.library, queue.painter.pipeline)
        return JSONResponse(found, headers=_FRESH)

    app.add_route(f"{prefix}/fits", fits, methods=["GET"])
    app.add_route(f"{prefix}/now", asked, methods=["GET"])
    app.add_route(f"{prefix}/seen", seen, methods=["POST"])
    app.add_route(f"{prefix}/tokens", tokens, methods=["POST"])
    _register_gallery(app, prefix, images, scratch)
    _register_runs(app, prefix, trainer)


def _page_of(images: Images, query: Any) -> dict[str, Any]:
    """Images that a search finds, and where it ended if there were too many to open."""
    ended = list[str]()
    items = images.items(
        query.get("words", "")[:200],
        starred=query.get("starred") == "1",
        after=query.get("after", ""),
        on_end=ended.append,
    )
    some = [described(item) for item in islice(items, MOST_ITEMS)]
    return {"items": some, "ended": "".join(ended)}


def _register_gallery(app: Any, prefix: str, images: Images, scratch: Path) -> None:
    async def listing(request: Request) -> Response:
        return JSONResponse(
            await run_in_threadpool(_page_of, images, request.query_params), headers=_FRESH
        )

    def zipped(query: Any) -> Path | None:
        """A temporary file with the images that a search finds; ``None`` where there are none."""
        items = images.items(query.get("words", "")[:200], starred=query.get("starred") == "1")
        paths = [(item.name, images.path(item.name)) for item in islice(items, MOST_ZIPPED)]
        there = [(name, path) for name, path in paths if path is not None]
        if not there:
            return None
        handle, name = tempfile.mkstemp(suffix=".zip", dir=scratch)
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w") as archive:
            for inside, path in there:  # PNGs can't be compressed further
                archive.write(path, inside.replace("/", "-", 1))
        return Path(name)

    async def as_zip(request: Request) -> Response:
        path = await run_in_threadpool(zipped, request.query_params)
        if path is None:
            return Response(status_code=404)
        # Only when it is sent: until then, it is being read.
        done = BackgroundTask(path.unlink, missing_ok=True)
        return FileResponse(path, filename="images.zip", headers=_FRESH, background=done)

    async def image(request: Request) -> Response:
        path = await run_in_threadpool(images.path, request.query_params.get("name", ""))
        return Response(status_code=404) if path is None else FileResponse(path)

    def changed(query: Any, action: str) -> Response:
        name = query.get("name", "")
        try:
            if action == "star":
                images.star(name, query.get("on") == "1")
            else:
                images.discard(name)
        except HypernetworkError as error:
            return JSONResponse({"error": str(error)}, status_code=422)
        return JSONResponse({})

    async def star(request: Request) -> Response:
        return await run_in_threadpool(changed, request.query_params, "star")

    async def discard(request: Request) -> Response:
        return await run_in_threadpool(changed, request.query_params, "discard")

    app.add_route(f"{prefix}/images", listing, methods=["GET"])
    app.add_route(f"{prefix}/images/zip", as_zip, methods=["GET"])
    app.add_route(f"{prefix}/image", image, methods=["GET"])
    app.add_route(f"{prefix}/images/star", star, methods=["POST"])
    app.add_route(f"{prefix}/images/discard", discard, methods=["POST"])


def _register_runs(app: Any, prefix: str, trainer: Trainer) -> None:
    runs, library = Runs(trainer.training_folders.runs), trainer.job_queue.library

    async def listing(_request: Request) -> Response:
        found = await run_in_threadpool(runs.all)
        return JSONResponse([asdict(run) for run in found], headers=_FRESH)

    async def preview(request: Request) -> Response:
        path = await run_in_threadpool(runs.preview, request.query_params.get("name", ""))
        return Response(status_code=404) if path is None else FileResponse(path, headers=_FRESH)

    def done(action: str, name: str, number: int) -> Response:
        state, said = trainer.state, {}
        try:
            if action == "reveal" and not trainer.takes_paths:
                raise HypernetworkError("with --listen, folders can't be shown from the page")
            # Its files are being written; a copy of a saved step harms nobody.
            if state.is_running and action not in ("keep", "reveal"):
                raise HypernetworkError(f'"{state.name}" is being trained: interrupt it first')
            if action == "keep":
                said = {"kept": runs.keep(name, number, library, trainer.folder)}
            elif action == "reveal":
                said = open_folder(runs.path(name))
            elif action == "continue":
                trainer.go_on(name, number)
            else:
                runs.discard(name)
        except HypernetworkError as error:
            return JSONResponse({"error": str(error)}, status_code=422)

        return JSONResponse(said)

    async def change(request: Request) -> Response:
        given = request.query_params.get("number", "")
        number = int(given) if re.fullmatch(r"[0-9]{1,7}", given) else 0
        action, name = request.path_params["action"], request.query_params.get("name", "")
        return await run_in_threadpool(done, action, name, number)

    app.add_route(f"{prefix}/runs", listing, methods=["GET"])
    app.add_route(f"{prefix}/runs/preview", preview, methods=["GET"])
    app.add_route(f"{prefix}/runs/{{action}}", change, methods=["POST"])


_FRESH = {"cache-control": "no-store"}
