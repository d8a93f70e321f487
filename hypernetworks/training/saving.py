"""What a run writes into its folder, and when: networks, the best of them, and its state."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from ..errors import FileWriteError
from ..files import write
from .checkpoints import (
    STATE,
    best_file,
    make_folder,
    network_file,
    remove_old,
    save_network,
    save_state,
)
from .learned import Learned
from .processes import World

LONGEST_UNSAVED = 60.0
"""Seconds between copies of the state in the folder: what a killed run may lose."""
MOST_SAVING = 0.02
"""Share of the time that these copies may take; where they are slow, they are fewer."""


class Saver:
    """Writes what was learned.

    Args:
        learned: what there is to save.
        folder: of the run; ``None`` writes nothing.
        suffix: of the networks' files.
        warn: told what could not be written; training goes on.
    """

    def __init__(
        self, learned: Learned, folder: Path | None, suffix: str, warn: Callable[[str], object]
    ) -> None:
        self.learned, self.folder, self.suffix, self.warn = learned, folder, suffix, warn
        self._saved: int | None = None
        self._refused: int | None = None  # the step whose checkpoint could not be written
        self._saved_at, self._saving = time.monotonic(), 0.0

    @property
    def has_refused(self) -> bool:
        """Whether a checkpoint could not be written, so that the next step should try again."""
        return self._refused is not None

    def resume(self, folder: Path | None, world: World, device: torch.device) -> None:
        """Continue from the folder's state, if there is one, and say what is different now.

        Raises:
            TrainingStateError: see :meth:`.Learned.resume`.
        """
        changes = self.learned.resume(folder, world, device)
        # The folder has the state of this step already; its network's file may be missing.
        if changes is not None and self.folder is not None:
            file = network_file(self.folder, self.learned.network, self.suffix)
            self._saved = self.learned.step if file.exists() else None

        for text in changes or ():
            self.warn(text)

    def follow_best(self, validation: float | None) -> None:
        """Save the network where it is the best so far, and say where that is long past.

        Args:
            validation: the loss now; ``None`` where it wasn't measured.
        """
        best = self.learned.best
        if validation is None:
            return
        if best.add(self.learned.step, validation):
            self.save_best()
        elif best.has_just_passed:
            self.warn(best.warning(validation, self.learned.settings.until))

    def save(self) -> Path | None:
        """Write the network's file and the state to resume from; returns the file, ``None`` without
        a folder.

        Raises:
            FileWriteError: one of them can't be written; the other one is, where that is possible.
        """
        learned = self.learned
        if self.folder is None or self._saved == learned.step:
            return None

        make_folder(self.folder)
        try:
            with learned.resting():
                path = save_network(learned.network, self.folder, self.suffix)
        finally:
            # A full disk may have room for one of the two, and each is worth having.
            save_state(self.folder, learned.state())

        self._saved, self._saved_at = learned.step, time.monotonic()
        if keep := learned.settings.keep:
            remove_old(self.folder, learned.network.name, self.suffix, keep)
        return path

    def try_to_save(self) -> Path | None:
        """As :meth:`save`; a refusal is reported once, and the next step tries again."""
        step = self.learned.step
        try:
            path = self.save()
        except FileWriteError as error:
            if self._refused is None:
                self.warn(
                    f"the checkpoint of step {step} could not be saved: {error}; it takes about "
                    f"{self.learned.room / 1e6:,.0f} MB. Training continues, and the next step "
                    "tries again"
                )
                self._refused = step
            return None

        if self._refused is not None and self._saved == step:
            self.warn(f"step {step} is saved, in place of step {self._refused}")
            self._refused = None
        return path

    def save_best(self) -> None:
        """Write the network as the best one so far."""
        if self.folder is None:
            return
        network = self.learned.network
        try:
            make_folder(self.folder)
            with self.learned.resting():
                write(network, best_file(self.folder, network.name, self.suffix))
        except FileWriteError as error:
            self.warn(
                f"the best network so far, of step {self.learned.step}, could not be saved: {error}"
            )

    def save_between(self) -> None:
        """Keep what was learned since the last checkpoint where that is long ago, so that a run
        that is killed loses a minute at most.
        """
        began = time.monotonic()
        is_due = began - self._saved_at > max(LONGEST_UNSAVED, self._saving / MOST_SAVING)
        if self.folder is None or self._refused is not None or not is_due:
            return

        with suppress(FileWriteError):  # a checkpoint that is due says so
            make_folder(self.folder)
            save_state(self.folder, self.learned.state())
        self._saved_at = time.monotonic()
        self._saving = self._saved_at - began

    def save_again(self) -> None:
        """After a divergence: the folder's state is that of a good step, too."""
        # The file of this step may hold weights from after the divergence.
        self._saved = None
        try:
            if self.learned.step:
                self.save()
            elif self.folder is not None and (self.folder / STATE).exists():
                save_state(self.folder, self.learned.state())
        except FileWriteError as error:  # what went wrong first is what counts
            self.warn(
                f"step {self.learned.step}, which the network was reset to, could not be saved: "
                f"{error}"
            )
        self._saved = self.learned.step
