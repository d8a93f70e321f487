"""What the tab "Train hypernetwork" does, and its place in the webui."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from ....console import pasted_path
from ....engine.families import BY_KEY
from ....errors import HypernetworkError, TrainingDataError
from ....library import Library
from ....training import PRESETS
from ....training.folders import TrainingFolders
from ....training.picture_settings import PictureSettings
from ....ui.training.values import FormValues, size_in_words, values_of
from .. import folders, host, settings
from ..commands import selected_checkpoint
from . import pythons
from .memory import AWAY

if TYPE_CHECKING:
    from ....ui.training.form import Source
    from ....ui.training.runs import Runs
    from .running import Order, Queue
    from .setting_up import SetUp

TITLE, ID = "Train hypernetwork", "hypernetworks_train"
PATH = "path:"
"""Begins a key that is a path of the user's own."""
NO_PYTHON = (
    "the webui's Python has no diffusers, which the trainer needs: press Set up, which makes an "
    "environment of the extension's own (.venv, 3 to 10 GB) and changes nothing in the webui's"
)


def _library() -> tuple[Library, Path]:
    return folders.library(), folders.folders()[0]


class WebuiTrainings:
    """The tab's buttons: what they do in this webui.

    What only a click needs is imported then: each start of the webui would wait for it.
    """

    def __init__(self) -> None:
        self._making = Lock()  # several pages may ask at once
        self._queue: Queue | None = None
        self._set_up: SetUp | None = None

    @property
    def queue(self) -> Queue:
        """The training that runs, and those that wait."""
        from .running import Queue

        with self._making:
            if self._queue is None:
                self._queue = Queue(_library, before=AWAY.move_away, after=AWAY.bring_back)
            return self._queue

    @property
    def set_up(self) -> SetUp:
        """Of the extension's own environment."""
        from .setting_up import SetUp

        with self._making:
            if self._set_up is None:
                self._set_up = SetUp()
            return self._set_up

    @property
    def folders(self) -> TrainingFolders:
        """Beside the webui's other data; nobody has to look there."""
        return TrainingFolders(settings.data_folder() / "hypernetwork_training")

    @property
    def runs(self) -> Runs:
        """All runs that were begun here."""
        from ....ui.training.runs import Runs

        return Runs(self.folders.runs)

    @property
    def folders_are_locked(self) -> bool:
        """Whether nobody may type a path of the server's disk."""
        from modules import shared

        return bool(getattr(shared.cmd_opts, "hide_ui_dir_config", False))

    @property
    def source(self) -> Source:
        """What the form asks."""
        from ....ui.training.form import Source  # imports gradio: only for a page

        return Source(
            first=self.preset("style"),
            previews="",
            folders=self.folders.choices,
            networks=lambda: sorted(folders.host_list(), key=str.lower),
            size_of=lambda values: size_in_words(values, _widths(values.self_attention)),
            size_info="0: the model's own",
            takes_paths=not self.folders_are_locked,
            prefix=ID,
        )

    def preset(self, purpose: str) -> Mapping[str, Any]:
        """The fields' values that a purpose begins with; the size of images is the model's."""
        preset = PRESETS[purpose]
        pictures = PictureSettings(template=preset.template, fit="crop")
        return {
            **values_of(preset.structure, preset.settings, pictures),
            "self_attention": preset.self_attention,
            # No field is empty: gradio 3 reads an empty one as 0.
            "width": 0,
            "height": 0,
        }

    def refresh(self) -> None:
        """Look at the folders of networks again."""
        folders.refresh()

    def begin(self, values: FormValues, files: Sequence[str]) -> str:
        """Start a training on the selected checkpoint, or let it wait; returns what to tell."""
        from .arguments import check

        check(values)  # before the slower questions, and before images are stored
        if (python := pythons.able()) is None:
            raise HypernetworkError(NO_PYTHON)
        checkpoint = selected_checkpoint()
        values = self._with_images(values, files)

        before = self.queue.add(self._order(values, python, checkpoint))
        waits = f" It waits for {before} other{'s' if before > 1 else ''}." if before else ""
        return f'Training "{values.name.strip()}" on {checkpoint.name}.{waits}'

    def go_on(self, name: str, more: int) -> None:
        """Continue a run by so many steps, with the fields and the checkpoint that it was begun
        with.
        """
        from ....ui.training.runs import remembered

        values = remembered(self.runs.path(name))
        done = next((run.step for run in self.runs.all() if run.name == name), 0)
        if (python := pythons.able()) is None:
            raise HypernetworkError(NO_PYTHON)
        values = replace(values, name=name, steps=done + max(1, more), start_over=False)
        self.queue.add(self._order(values, python, _checkpoint_of(self.runs.path(name))))

    def _order(self, values: FormValues, python: Path, checkpoint: Path) -> Order:
        from .arguments import arguments_of, starts_from
        from .device import named_device
        from .running import Order

        name = starts_from(values)
        network = None if name is None else folders.library().find(name).path
        images = Path(values.key[len(PATH) :]) if values.key.startswith(PATH) else None
        arguments = arguments_of(
            values,
            images or self.folders.folder(values.key),
            checkpoint,
            self.folders.runs,
            network,
            named_device(),
        )
        command = (str(python), "-m", "hypernetworks", *arguments)
        return Order(values, command, self.folders.runs, checkpoint)

    def _with_images(self, values: FormValues, files: Sequence[str]) -> FormValues:
        """With the key of the folder to learn from.

        Raises:
            TrainingDataError: none, or more than one was given.
        """
        typed = values.path or ""
        if self.folders_are_locked:
            typed = ""
        if values.key.startswith(PATH):  # from a page, which may say only what its list has
            raise TrainingDataError("choose a folder of images from the list")
        if sum(map(bool, (values.key, typed.strip(), files))) != 1:
            raise TrainingDataError(
                "choose a folder, enter a path, or add images: one of the three"
            )

        if typed.strip():
            # The trainer runs in another folder than the webui, where a relative path starts.
            folder = pasted_path(typed).absolute()
            # The trainer would say so, too, but only after a minute of loading.
            if not folder.is_dir():
                raise TrainingDataError(f"{folder}: there is no such folder")
            return replace(values, key=f"{PATH}{folder}", path="")
        if files:
            kept = self.folders.keep(files, values.name.strip())
            return replace(values, key=self.folders.key(kept), path="")
        return replace(values, path="")


TRAININGS = WebuiTrainings()
"""The one instance; the package stays imported when the webui loads its scripts again."""


class Tab:
    """What the webui puts into its tab; the fields are added to the page where it is rendered.

    A ``gradio.Blocks`` of its own, as others give, makes two web apps that nobody uses: that took
    longer than all else that a start of the webui does here.

    Attributes:
        children: what was added. The webui looks through them for values that its user has changed.
    """

    def __init__(self) -> None:
        self.children: list[Any] = []

    def render(self) -> Tab:
        """Add the fields to the page; one that can't be built costs a line in the console."""
        try:
            from ....ui.training.webui_tab import add

            self.children = [add(TRAININGS)]
        except Exception:
            host.say_fault(
                "the tab for training could not be built; the webui continues without it"
            )
        return self


def ui_tabs() -> list[tuple[Any, str, str]]:
    """Callback ``on_ui_tabs``."""
    return [(Tab(), TITLE, ID)]


def _widths(self_attention: bool) -> tuple[int, ...]:
    """Context widths of the loaded model, or SD1's while there is none."""
    found: set[int] = set()
    if (unet := host.live_unet()) is not None:
        from ....patching import find_sites

        found = {
            site.width
            for site in find_sites(unet)
            if site.width is not None and (self_attention or site.kind == "cross")
        }
    usual = BY_KEY["sd1"]
    return tuple(sorted(found)) or (usual.widths if self_attention else (usual.text_width,))


def _checkpoint_of(run: Path) -> Path:
    """The checkpoint that a run was begun on.

    Raises:
        HypernetworkError: it isn't known, or is gone.
    """
    from .running import CHECKPOINT

    try:
        path = Path((run / CHECKPOINT).read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return selected_checkpoint()
    if not path.exists():
        raise HypernetworkError(f"the checkpoint of this run is gone: {path.name}")
    return path
