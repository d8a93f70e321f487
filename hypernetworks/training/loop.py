"""The training loop: takes samples by number, steps the optimiser, reports and saves; knows no
images or hosts.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..devices import forked_rng
from ..engine.network import Hypernetwork
from .best import Best
from .examples import Examples
from .forward import ForwardPass
from .gradients import Gradients
from .health import MOST_SKIPPED, Pace, TrainingStep, divergence
from .learned import Learned
from .objective import NoiseSchedule
from .processes import Learner, Predict, World, joined
from .saving import Saver
from .settings import TrainingSettings
from .validation import ValidationLoss, at_rest

SNAPSHOT_EVERY = 50
"""Steps between copies of the state that a diverged run goes back to; checkpoints make one, too."""


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=2)


class Run:
    """One training run of ``network`` in place, on a frozen UNet; continues what is in ``folder``.

    Every random choice of sample ``n`` follows from the settings' seed and ``n`` alone (see
    :mod:`.seeding`), so that an interrupted run continues bit for bit on the CPU.

    Args:
        network: its parameters are live until :meth:`finish`; fp32. Steps of its provenance are
            counted on.
        predict: the UNet with the network applied at multiplier 1, its own parameters frozen.
        examples: what to learn from, made with the settings' samples per step and seed.
        schedule: how noise is added and what the UNet predicts.
        settings: everything else.
        folder: where ``state.pt`` (for resuming) and ``NAME-STEP.safetensors`` go; ``None`` keeps
            nothing.
        suffix: ``.safetensors`` or ``.pt`` (which every webui reads).
        validation: measured every ``watch_every`` steps.
        device: where ``predict`` computes.
        save_memory: called when memory runs out; the step is tried again as long as it returns
            ``True``.
        every_width: whether the model has every width of the network (several processes must know).
        resume: ``False`` begins anew whatever ``folder`` has, and changes nothing there before its
            first checkpoint.
        held_out: keys of the images that are kept for validation, for the state.
        on_warning: told what ends no run but should be known, such as a checkpoint that could not
            be written.

    Raises:
        TrainingSettingsError: settings that don't go together.
        TrainingStateError: the folder has another run, or not all processes find the same in it.
    """

    def __init__(
        self,
        network: Hypernetwork,
        predict: Predict,
        examples: Examples,
        schedule: NoiseSchedule,
        settings: TrainingSettings,
        *,
        folder: Path | None = None,
        suffix: str = ".safetensors",
        validation: ValidationLoss | None = None,
        device: torch.device | str = "cpu",
        save_memory: Callable[[], bool] | None = None,
        every_width: bool = True,
        resume: bool = True,
        held_out: Sequence[str] = (),
        on_warning: Callable[[str], object] = _warn,
    ) -> None:
        self.network, self.examples, self.settings = network, examples, settings
        self.schedule, self.validation = schedule, validation
        self.folder, self.device = folder, torch.device(device)
        self.world, self._predict = World(), predict

        network.train()
        measured = None if validation is None else validation.measured
        self._learned = Learned(network, settings, examples.examples, held_out, measured)
        self._saver = Saver(
            self._learned, folder if self.world.is_first else None, suffix, on_warning
        )
        learner = joined(Learner(network, predict), self.world, every_width)
        self._forward = ForwardPass(
            learner, network.structure, examples, schedule, settings, self.device
        )
        self._stepper, self._rates, self._pace = self._learned.stepper, settings.rates(), Pace()
        self._gradients = Gradients(learner, self._forward, self._stepper, self.world, save_memory)
        self.warn = on_warning
        self._is_whole = True  # the weights are those of a finished step

        if resume:
            self._saver.resume(folder, self.world, self.device)
        self._stepper.learns(True)
        self._good, self._candidate = self._learned.copied_state(), dict[str, Any]()

    @property
    def step(self) -> int:
        """Finished steps."""
        return self._learned.step

    @property
    def best(self) -> Best:
        """The step of the lowest validation loss so far."""
        return self._learned.best

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done, or the best one is long past where the run is until then."""
        return self.step >= self.settings.steps or self._learned.is_past_best

    def advance(self) -> TrainingStep:
        """Do one step.

        Raises:
            DivergenceError: the loss is not finite or has run away; the network is back at the last
                good state.
        """
        # Seconds include the validation and saving of no step: they would make the time left jump.
        began = time.perf_counter()
        done = self._change(*self._gradients.of(self.step))
        return self._watched(self._pace.timed(done, time.perf_counter() - began))

    def _change(self, loss: float, power: float) -> TrainingStep:
        """Step the optimiser on the gradients that are there."""
        # fp16 overflows now and then while its scale is found, which is no divergence.
        norm = self._stepper.measure()
        scaled = self._stepper.scaler.is_enabled()
        if not math.isfinite(loss) or (not math.isfinite(norm) and not scaled):
            self._diverged(
                f"the loss of step {self.step + 1} is {loss:g}, its gradient norm {norm:g}"
            )

        # An interrupt between here and the end leaves weights that no checkpoint may hold.
        learned, watch, rate = self._learned, self._learned.watch, self._rates.at(self.step)
        self._is_whole = False
        skipped = self._stepper.step(rate)
        watch.skipped = watch.skipped + 1 if skipped else 0

        if watch.skipped > MOST_SKIPPED:
            self._diverged(f"the gradients of the last {MOST_SKIPPED} steps overflowed")
        learned.step += 1
        self._is_whole = True
        learned.average.update(learned.step)
        learned.tell_step()

        smoothed = watch.add(loss, power)
        if complaint := watch.complaint(smoothed):
            self._diverged(f"at step {self.step} {complaint}")
        # This loss is the first that the candidate's weights have made.
        if self._candidate and watch.is_healthy(loss, power):
            self._good = self._candidate
        self._candidate = {}

        return TrainingStep(
            self.step, self.settings.steps, loss, smoothed, rate, norm, skipped=skipped
        )

    def _diverged(self, reason: str) -> None:
        """Go back to the last good state, in the folder as well, and say so."""
        self._stepper.forget()
        self._learned.restore(self._good)
        self._learned.tell_step()
        self._is_whole = True
        self._saver.save_again()

        raise divergence(reason, self.step, self.settings.precision)

    def _watched(self, done: TrainingStep) -> TrainingStep:
        """Compute the validation loss, save, and take a state to fall back to, when each is due."""
        settings = self.settings
        if settings.watch_every and (done.step % settings.watch_every == 0 or self.is_finished):
            done = replace(done, validation=self.measure())
            self._saver.follow_best(done.validation)
            if settings.until == "best":
                self._learned.is_past_best = self.world.any(self.best.is_past, self.device)

        is_due = self.is_finished or settings.saves_at(done.step)
        if is_due or self._saver.has_refused:
            path = self._saver.try_to_save()
            done = replace(done, saved=None if path is None else path.name)
        # It becomes the good state once the next loss shows that its weights work.
        if is_due or done.step % SNAPSHOT_EVERY == 0:
            self._candidate = self._learned.copied_state()

        self._saver.save_between()
        return done

    def measure(self) -> float | None:
        """The validation loss now, with the averaged weights if there are any; ``None`` without
        validation examples.
        """
        if self.validation is None or not self.world.is_first:
            return None
        with self.at_rest():
            return self.validation.loss(self._predict, self.schedule, self.device)

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """The network as its file would hold it: averaged, no dropout, no gradients, in autocast if
        the run is.

        For previews and the validation loss; the RNG is restored.
        """
        with (
            forked_rng(self.device),
            torch.no_grad(),
            self._learned.resting(),
            at_rest(self.network),
            self._forward.autocast(),
        ):
            yield

    def save(self) -> Path | None:
        """Write the network's file and the state to resume from; returns the file, ``None`` without
        a folder.

        Raises:
            FileWriteError: one of them can't be written; the other one is, where that is possible.
        """
        return self._saver.save()

    def finish(self) -> None:
        """Save the last finished step, and leave the network ready for use, with the averaged
        weights if any.
        """
        try:
            self._stepper.forget()
            if self._is_whole:
                self.save()
        finally:
            self._learned.settle()
            self.network.train(False)
