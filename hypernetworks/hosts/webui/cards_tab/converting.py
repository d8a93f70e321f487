"""*Convert…* in a card's editor: the hypernetwork as a LoRA, made by a process of its own.

It takes no memory from the webui, and nothing of what it imports stays there.
"""

from __future__ import annotations

import subprocess
import sys
from html import escape
from pathlib import Path
from typing import Any

from ....errors import HypernetworkError
from .. import commands, host
from .cards import Deck

LONGEST = 1800
"""Seconds; a large model on a slow disk takes a few minutes."""


def connect(editor: Any) -> None:
    """Add the button to an editor that is being built; without it if that fails."""
    try:
        from ....ui import card_converting  # imports gradio: only for a page

        fields = card_converting.converting()
        fields.button.click(fn=convert, inputs=[editor.edit_name_input], outputs=[fields.told])
    except Exception as error:  # a gradio of another kind must not cost the rest of the editor
        host.tell_of_fault(None, "building the button that converts", error)


def convert(name: str) -> str:
    """Convert a card's network for the selected checkpoint; returns HTML that says what came of
    it."""
    try:
        return f"<p>{escape(_converted(name))}</p>"
    except HypernetworkError as error:
        return f"<p>{escape(str(error))}</p>"


def _converted(name: str) -> str:
    try:
        path = Deck().card(name).entry.path
    except KeyError:
        raise HypernetworkError(f'the file of "{name}" is gone: refresh the tab') from None
    target = _lora_folder() / f"{path.stem}.safetensors"
    base = commands.selected_checkpoint()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # No fit: it takes long, and would need the graphics card that the webui uses.
        command = ["convert", str(path), str(target), "--to", "lora", "--fit", "none"]
        done = _run([*command, "--base", str(base)])
    except (OSError, subprocess.SubprocessError) as error:
        raise HypernetworkError(f"the conversion could not be run ({error})") from error

    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it ended without a message"]
        raise HypernetworkError(lines[-1].removeprefix("hypernetworks: "))
    return f"{target.name} is among the LoRAs: refresh their tab. Its weight is the multiplier."


def _run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """The project's own command in the webui's Python."""
    return subprocess.run(
        [sys.executable, "-m", "hypernetworks", *arguments],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env=commands.environment(),
        check=False,
        timeout=LONGEST,
        creationflags=commands.NO_WINDOW,
    )


def _lora_folder() -> Path:
    from modules import shared

    found = getattr(shared.cmd_opts, "lora_dir", None)
    if not found:
        raise HypernetworkError(
            "this webui has no folder for LoRAs: use the command `convert --to lora` instead"
        )
    return Path(found)
