"""What gradio's version brings was looked at: its routes, the page's components and what their
payloads may hold.

When this fails after an update of gradio, read what is new: does the gate refuse the route, and
does ``payloads.KINDS`` know what the component may hold? Then write the list again, and review its
diff::

    PYTHONPATH=. python -m tests.hardening.test_pinned_routes > tests/hardening/pinned_routes.txt
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hypernetworks as hn
from hypernetworks.hosts.diffusers import MINIATURE_NETWORKS, Painter
from hypernetworks.studio.job_queue import JobQueue
from hypernetworks.studio.train.trainer import Trainer
from hypernetworks.studio.web import gate, payloads, server
from hypernetworks.training.folders import TrainingFolders

PINNED = Path(__file__).with_name("pinned_routes.txt")


def built(folder: Path) -> gate.PageGate:
    """The studio's application, without serving it."""
    painter = Painter(None, hn.Library([MINIATURE_NETWORKS]))
    trainer = Trainer(JobQueue(painter), TrainingFolders(folder / "training"), folder / "networks")
    app: gate.PageGate = server.build_app(trainer, folder / "studio").app
    return app


def seen(app: gate.PageGate) -> list[str]:
    """A line for each route with what the gate does, and for each component of the page with its
    payload.
    """
    lines = {_route(method, path) for method, path in routes(app.app)}
    for block in app._page.blocks.values():
        name, model = type(block).__name__, getattr(block, "data_model", None)
        lines.add(f"component {name}: sends {getattr(model, '__name__', 'plain values')}")
    for function in app._page.fns.values():
        for block in function.inputs:
            lines.add(f"input {type(block).__name__}: {payloads.KINDS[type(block).__name__]}")
    return sorted(lines)


def _route(method: str, path: str) -> str:
    kind = next(
        (
            kind
            for allowed, pattern, kind in gate._PATTERNS
            if allowed == method and pattern.fullmatch(_example(path))
        ),
        "refused",
    )
    return f"route {method} {path}: {kind}"


def _example(path: str) -> str:
    """The path with something in place of what is variable."""
    while "{" in path:
        start, _, rest = path.partition("{")
        path = start + "x" + rest.partition("}")[2]
    return path


def routes(app: Any) -> Iterator[tuple[str, str]]:
    """Method and path of all routes of an application, those of what is mounted in it among
    them.
    """
    waiting = list(app.routes)
    while waiting:
        route = waiting.pop()
        inner = getattr(route, "original_router", None) or getattr(route, "app", None)
        below = getattr(inner, "routes", None)
        if below:
            waiting += below
        else:
            for method in getattr(route, "methods", None) or ["any method"]:
                yield method, route.path


def test_nothing_is_there_that_nobody_has_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradio = pytest.importorskip("gradio")
    for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"):
        monkeypatch.setenv(name, "")  # what was there comes back
    app = built(tmp_path)
    pinned = PINNED.read_text(encoding="utf8").splitlines()
    new = set(seen(app)) - set(pinned)
    assert not new, f"gradio {gradio.__version__} brings what nobody has looked at: {sorted(new)}"

    async def more() -> None: ...

    app.app.add_api_route("/gradio_api/something_new", more, methods=["POST"])
    assert set(seen(app)) - set(pinned) == {"route POST /gradio_api/something_new: refused"}


def test_the_pinned_list_has_what_matters() -> None:
    lines = PINNED.read_text(encoding="utf8").splitlines()
    assert len([line for line in lines if line.startswith("route ")]) > 80
    assert "route POST /gradio_api/queue/join: call" in lines
    assert "route POST /gradio_api/component_server: refused" in lines
    assert "input File: file" in lines


def main() -> None:
    """Print the list as it is with the gradio that is installed."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write("\n".join(seen(built(Path(folder)))) + "\n")


if __name__ == "__main__":
    main()
