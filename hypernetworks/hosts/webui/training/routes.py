"""What the page asks again and again while its tab is in view, and what its buttons change."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from ....ui.html import messages_html
from .. import folders
from ..access import Routes
from . import pythons
from .tab import NO_PYTHON, TRAININGS

PATH = "/training"
_FRESH = {"cache-control": "no-store"}


def register(routes: Routes) -> None:
    """Add them."""
    routes.reading(PATH, now)
    routes.reading(f"{PATH}/preview", preview, "name")
    for action in ACTIONS:
        routes.changing(f"{PATH}/{action}", ACTIONS[action])


def now(request: Request) -> dict[str, Any]:
    """The training that runs or ran last, the ones that wait, earlier runs, and the set-up."""
    from ....ui.training import views  # not when the webui starts: it takes time

    state = TRAININGS.queue.state
    parts = [state.number, len(state.rows), len(state.previews), state.note, state.done]
    version = json.dumps([*parts, len(state.messages), state.is_running])
    found: dict[str, Any] = {
        "version": version,
        "running": state.is_running,
        "kept": f"{state.kept_as} {state.number}" if state.kept_as else None,
        "waiting": TRAININGS.queue.waiting(),
        "runs": [asdict(run) for run in TRAININGS.runs.all()],
        "setup": _set_up(),
    }

    if request.query_params.get("seen") != version:
        found["parts"] = {
            "progress": views.progress(state, HINT),
            "curves": views.curves(state),
            "previews": views.previews(state),
            "messages": messages_html(list(state.messages), "error" if state.is_wrong else "note"),
        }
    return found


HINT = (
    "Train a hypernetwork of your own on the selected checkpoint: choose images and press Train. "
    "It runs in a process of its own; the webui's model makes room on the GPU until you generate "
    "an image."
)


def _set_up() -> dict[str, Any]:
    """Whether this machine can train; asked for in the background, because it takes seconds."""
    made = TRAININGS.set_up
    if not made.is_running() and pythons.known() is None:
        _look()
    known = pythons.known()
    return {
        "able": known,
        "running": made.is_running(),
        "said": made.said() if made.is_running() or not known else "",
        "why": NO_PYTHON if known is False else "",
    }


_looking = threading.Lock()


def _look() -> None:
    def look() -> None:
        with _looking:
            pythons.able()

    if not _looking.locked():
        threading.Thread(target=look, daemon=True).start()


def preview(request: Request) -> Response:
    """The last preview of a run."""
    path = TRAININGS.runs.preview(request.query_params.get("name", ""))
    if path is None:
        return Response(status_code=404)
    return FileResponse(path, headers=_FRESH)


def interrupt(_request: Request, _body: bytes) -> dict[str, Any]:
    """Stop the training that runs; its state is saved."""
    return {"interrupted": TRAININGS.queue.interrupt()}


def remove(request: Request, _body: bytes) -> dict[str, Any]:
    """Take a training out of the queue."""
    TRAININGS.queue.remove(request.query_params.get("name", ""))
    return {}


def go_on(request: Request, _body: bytes) -> dict[str, Any]:
    """Continue a run by so many steps."""
    name, number = _asked(request)
    TRAININGS.go_on(name, number)
    return {"said": f"{name} goes on."}


def keep(request: Request, _body: bytes) -> dict[str, Any]:
    """Put the network of a step among the webui's hypernetworks."""
    name, number = _asked(request)
    kept = TRAININGS.runs.keep(name, number, folders.library(), folders.folders()[0])
    folders.refresh()
    return {"said": f"{kept} is among the cards.", "kept": kept}


def discard(request: Request, _body: bytes) -> dict[str, Any]:
    """Move a run to the trash beside the runs; one that waits leaves the queue, too."""
    name, _ = _asked(request)
    TRAININGS.runs.path(name)  # before anything is changed: there is such a run
    waited = TRAININGS.queue.remove(name)
    TRAININGS.runs.discard(name)
    said = f'{name} is in the folder "trash" beside the runs'
    return {"said": f"{said}, and no longer waits to be trained." if waited else f"{said}."}


def set_up(_request: Request, _body: bytes) -> dict[str, Any]:
    """Make the extension's own environment."""
    TRAININGS.set_up.begin()
    return {"said": "The set-up has begun."}


ACTIONS = {
    "interrupt": interrupt,
    "remove": remove,
    "continue": go_on,
    "keep": keep,
    "discard": discard,
    "setup": set_up,
}
"""By route."""


def _asked(request: Request) -> tuple[str, int]:
    given = request.query_params.get("number", "")
    number = int(given) if re.fullmatch(r"[0-9]{1,7}", given) else 0
    return request.query_params.get("name", ""), number
