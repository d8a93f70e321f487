"""Registers every part with the webui separately: one that fails prints a message and the webui
still starts.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from . import api, extra_network, folders, host, infotext, replacing, settings, shims, xyz
from .active import ACTIVE
from .cards_tab import page


def register() -> None:
    """Add all callbacks; called when the webui loads its scripts, again after each Reload UI."""
    # First: the scripts of other extensions, which are loaded next, ask for these.
    _safely("adding what this webui has removed", shims.register)()
    _with_a_short_stack(_safely("adding callbacks", add_callbacks))


def add_callbacks() -> None:
    """Add each callback that this webui knows."""
    from modules import script_callbacks

    for name, callback in (
        ("on_ui_settings", ui_settings),
        ("on_before_ui", before_ui),
        ("on_app_started", app_started),
        ("on_ui_tabs", ui_tabs),
        ("on_cfg_denoiser", extra_network.on_step),
        ("on_cfg_after_cfg", extra_network.after_step),
        ("on_infotext_pasted", infotext.on_pasted),
        ("on_script_unloaded", unloaded),
    ):
        add = getattr(script_callbacks, name, None)  # SD.Next and Classic lack some
        if add is not None:
            add(_safely(name, callback))


def _with_a_short_stack(call: Callable[[], object]) -> None:
    """Call it in a thread of its own, and wait.

    For each callback, webuis ask ``inspect.stack()`` whose it is. That goes through all modules
    several times for each frame whose file is no module's, as are importlib's and the script's
    while a script is loaded: 0.05 s of processor time for each callback in AUTOMATIC1111. A thread
    has none of these frames, and the one that tells whose callback it is stays the same.
    """
    thread = threading.Thread(target=call, name="hypernetworks: adding callbacks")
    thread.start()
    thread.join()


def ui_settings() -> None:
    """The host collects its settings."""
    settings.register(on_folders_changed=folders.refresh)


def before_ui() -> None:
    """The host's registries have just been emptied and filled with its own."""
    for register_part in (folders.register, extra_network.register, page.register, xyz.register):
        _safely(register_part.__name__, register_part)()


def unloaded() -> None:
    """The host is about to load its scripts again, or to go on without ours."""
    ACTIVE.remove()
    replacing.put_all_back()
    shims.remove()


def ui_tabs() -> list[tuple[Any, str, str]]:
    """The tabs of extensions are about to be built."""
    from .training import tab  # not before there is a page: it takes gradio's forms

    return tab.ui_tabs()


def before_image() -> None:
    """A generation begins: what a training has moved off the GPU comes back. Never raises."""
    if (memory := sys.modules.get(f"{__package__}.training.memory")) is not None:
        memory.AWAY.bring_back()


def app_started(_demo: Any, app: Any) -> None:
    """The web server exists."""
    api.register(app)


def _safely(name: str, callback: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return callback(*arguments, **named)
        except Exception:
            host.say_fault(f"{name} failed; the webui continues without it")
            return None

    return call
