"""Serving the page: one address, one port, nothing from anywhere else."""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...console import say
from ...ending import Ending, noticed
from ...errors import HypernetworkError
from ...hosts.diffusers import MINIATURE_NETWORKS
from ...training.folders import TrainingFolders
from ..cards import own_folder
from ..checkpoints import Checkpoints
from ..train.trainer import Trainer
from . import limits
from .leftovers import temporary_folder

if TYPE_CHECKING:
    from ..job_queue import JobQueue
    from ..unfinished import Unfinished

FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
MONO = ["ui-monospace", "Menlo", "Consolas", "monospace"]
TRAINING = "hypernetworks-training"
"""Folder in the user's home for training runs and training images, unless another is given."""
IMAGES = "hypernetworks/images"
"""Folder in the user's home for generated images, unless another is given."""
LISTENING = (
    "It listens on every network of this machine. Anyone with the password can generate images, "
    "and see and\n"
    "add networks. The password travels unencrypted: use a network that you trust. Omit --listen "
    "for this machine only."
)
OPEN = (
    "It listens on every network of this machine: anyone who can reach it can generate images, "
    "and see\n"
    "and add networks. There is no password. Omit --listen for this machine only."
)


def build_app(
    trainer: Trainer,
    folder: Path,
    *,
    anywhere: bool = False,
    password: str | None = None,
    images: Path | None = None,
    checkpoints: Checkpoints | None = None,
) -> Any:
    """The whole application: page, routes, and the check of who may use them.

    Args:
        trainer: with the job queue that has the model.
        folder: for the pictures of this run.
        anywhere: it will listen on all interfaces.
        password: asked for before anything else; ``None`` lets everyone in.
        images, checkpoints: the user's folder of images; what the Model tab offers.
    """
    from fastapi import FastAPI

    # Read by gradio when components are made; nothing else is to be in a folder that it gives out.
    folder = folder.resolve()
    cache = folder / "gradio"
    os.environ["GRADIO_TEMP_DIR"] = str(cache)
    os.environ["GRADIO_EXAMPLES_CACHE"] = str(cache / "examples")
    from ..comparing.sheets import Sheets
    from ..images import Images
    from ..page import build_page
    from ..tabs.picture import Place
    from ..windows import Windows
    from .gate import PageGate
    from .live import register_live
    from .login import PasswordGate
    from .routes import PREFIX, head, register
    from .safety import OwnAddressOnly
    from .sessions import SlimStates
    from .sheets import register_sheets

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    register(app, trainer.job_queue.library, MINIATURE_NETWORKS, anywhere=anywhere)
    place = Place(
        folder,
        Images(images or folder / "images", is_shown=not anywhere),
        Windows(),
        Sheets(folder / "sheets"),
        trainer.training_folders.runs,
        checkpoints or Checkpoints(),
    )
    register_live(app, PREFIX, trainer, place.images, place.sheets, folder)
    register_sheets(app, PREFIX, place.sheets)
    trainer.takes_paths = not anywhere
    page = build_page(trainer, place, anywhere=anywhere)
    served = _mounted(app, page, head())
    page.state_holder.session_data = SlimStates()
    gated = PageGate(served, page, cache)
    return OwnAddressOnly(
        gated if password is None else PasswordGate(gated, password),
        anywhere,
        only_addresses=password is None,
    )


def _mounted(app: Any, page: Any, head: str) -> Any:
    """An application with gradio's page and routes at its root."""
    import gradio as gr

    page.queue(default_concurrency_limit=8, max_size=limits.MOST_QUEUED_IN_ALL)
    page.state_session_capacity = limits.MOST_SESSIONS
    served = gr.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        show_error=True,
        max_file_size=limits.LARGEST_FILE,
        theme=gr.themes.Default(
            primary_hue="indigo", neutral_hue="slate", font=FONT, font_mono=MONO
        ),
        head=head,
        ssr_mode=False,
        mcp_server=False,
        run_history=False,
        enable_monitoring=False,
    )
    page.has_launched = (
        True  # gradio's own check of paths rests on it, and a mounted page never launches
    )
    return served


def launch(
    job_queue: JobQueue,
    *,
    port: int,
    open_browser: bool,
    anywhere: bool = False,
    password: str | None = None,
    training_folders: TrainingFolders | None = None,
    images: Path | None = None,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Serve the page, on this machine only unless told otherwise, until interrupted.

    Args:
        job_queue: with the model to begin with. Nothing else may hold that model: it would stay in
            memory, beside the one that the user loads in its place, as long as the studio runs.
        anywhere: listen on all interfaces.
        password: asked for before anything else; ``None`` lets everyone in.
        training_folders: that training may use; ``None`` is one in the user's home.
        images: folder for the generated images; ``None`` is one in the user's home.
        checkpoints: that the Model tab offers; ``None`` for none.

    Raises:
        HypernetworkError: the port is taken, or may not be used.
    """
    listener = _listen("0.0.0.0" if anywhere else "127.0.0.1", port)
    address = f"http://127.0.0.1:{port}"
    training_folders = training_folders or TrainingFolders(Path.home() / TRAINING)
    trainer = Trainer(
        job_queue, training_folders, own_folder(job_queue.library, MINIATURE_NETWORKS)
    )

    with noticed("Stopping; Ctrl+C again ends at once") as ending, temporary_folder() as folder:
        try:
            app = build_app(
                trainer,
                folder,
                anywhere=anywhere,
                password=password,
                images=images or Path.home() / IMAGES,
                checkpoints=checkpoints,
            )
            say(f"Hypernetworks studio: {address}  {_reach(anywhere, port, password)}")
            if open_browser:
                threading.Timer(1.0, webbrowser.open, [address]).start()
            _serve(app, listener, ending, job_queue.unfinished)
        finally:
            listener.close()
            _save(trainer)


def _save(trainer: Trainer) -> None:
    """Let a training that runs end with its present step, which it saves; however long that
    takes.
    """
    if not trainer.interrupt():
        return
    with suppress(OSError):  # the terminal may be gone
        say(f"Saving the training of {trainer.state.name} …")
    while trainer.state.is_running:
        trainer.wait(0.5)  # not longer: on Windows no signal is heard meanwhile


def _serve(app: Any, listener: socket.socket, ending: Ending, unfinished: Unfinished) -> None:
    import uvicorn

    class Server(uvicorn.Server):  # type: ignore[misc]
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # they are noted by ``ending``, which has more of them

        async def on_tick(self, counter: int) -> bool:
            return bool(ending) or await super().on_tick(counter)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # Jobs end because their pages are cut off now, not because their users stopped them.
            unfinished.end()
            # Pages that are open have streams that are cut now: nothing to tell, let alone with a
            # traceback.
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            await super().shutdown(sockets)

    Server(
        uvicorn.Config(
            app,
            log_level="warning",
            timeout_graceful_shutdown=2,
            limit_concurrency=limits.MOST_CONNECTIONS + 1,  # the one that gets 503 counts, too
        )
    ).run(sockets=[listener])


def _reach(anywhere: bool, port: int, password: str | None) -> str:
    """Who can use it, in words for the terminal."""
    if not anywhere:
        return "(this machine only; Ctrl+C ends it)"
    if password is None:
        return OPEN
    return f"and http://{socket.gethostname()}:{port}\nPassword: {password}\n{LISTENING}"


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # On Windows, a port that another program has would be shared without the first.
        option = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
        listener.setsockopt(socket.SOL_SOCKET, option, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise HypernetworkError(_refusal(error, host, port)) from error
    return listener


def _refusal(error: OSError, host: str, port: int) -> str:
    """Why the system doesn't let the studio listen, and what to do."""
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use: choose another with --port"
    if isinstance(error, PermissionError):  # on Windows also a port that the system has reserved
        return (
            f"you have no permission to listen on port {port}, which the system keeps for itself "
            "or for administrators: choose another with --port, such as 7870"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            f"this machine has no address {host}: turn its loopback network on (on Linux: ip link "
            "set lo up), or add --listen"
        )
    return f"port {port} can't be used ({error.strerror or error}): choose another with --port"
