"""The training loop: takes samples by number, steps the optimiser, reports and saves; knows no
images or hosts.
"""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..devices import forked_rng, is_out_of_memory
from ..engine.network import Hypernetwork
from ..errors import DivergenceError, FileWriteError, TrainingStateError
from ..files import write
from . import history
from .averaging import Average, write_values
from .best import Best
from .checkpoints import (
    STATE,
    best_file,
    check_fits,
    damaged,
    load_state,
    make_folder,
    network_file,
    on_cpu,
    remove_old,
    save_network,
    save_state,
)
from .examples import Examples
from .forward import ForwardPass
from .health import MOST_SKIPPED, Pace, TrainingStep, Watch
from .objective import NoiseSchedule
from .optimisers import Stepper, build_optimiser
from .processes import Learner, Predict, World, joined
from .scaling import Scaler
from .settings import TrainingSettings
from .validation import ValidationLoss, at_rest

LONGEST_UNSAVED = 60.0
"""Seconds between copies of the state in the folder: what a killed run may lose."""
MOST_SAVING = 0.02
"""Share of the time that these copies may take; where they are slow, they are fewer."""
SNAPSHOT_EVERY = 50
"""Steps between copies of the state that a diverged run goes back to; every checkpoint makes one as
well.
"""


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=2)


class Run:
    """One training run of ``network`` in place, on a frozen UNet; continues what is in ``folder``.

    Every random choice of sample ``n`` follows from the settings' seed and ``n`` alone (see
    :mod:`.seeding`): an interrupted run continues bit for bit on the CPU, a large batch equals
    accumulated small ones, several processes equal one, and nothing that happens between steps
    (previews, say) can disturb it.

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
        self.network, self.examples, self.schedule, self.settings = (
            network,
            examples,
            schedule,
            settings,
        )
        self.folder, self.suffix, self.validation, self.device = (
            folder,
            suffix,
            validation,
            torch.device(device),
        )
        self.world, self._save_memory = World(), save_memory
        self._share, self._predict = self.world.share(settings.batch), predict
        self._parameters = list(network.parameters())
        network.train()
        optimiser = build_optimiser(
            settings.optimiser, self._parameters, settings.weight_decay, settings.options
        )
        scaler = Scaler(enabled=settings.precision == "fp16")
        self._stepper = Stepper(optimiser, scaler, settings.clip, settings.clip_by)
        self._learner = joined(Learner(network, predict), self.world, every_width)
        self._forward = ForwardPass(
            self._learner, network.structure, examples, schedule, settings, self.device
        )
        self._average = Average(self._parameters, settings.ema)
        self._rates, self._watch, self._pace = settings.rates(), Watch(), Pace()
        self.best, self._is_past_best = Best(), False
        self._held_out, self._seen = set(held_out), {e.key for e in examples.examples}
        self.step, self._base = 0, network.provenance.step
        self._saved: int | None = None
        self._refused: int | None = None  # the step whose checkpoint could not be written
        self.warn = on_warning
        self._is_whole = True  # the weights are those of a finished step
        self._saved_at, self._saving = time.monotonic(), 0.0

        if resume:
            self._resume()
        self._good, self._candidate = self._copied_state(), dict[str, Any]()

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done, or the best one is long past where the run is until then."""
        return self.step >= self.settings.steps or self._is_past_best

    def advance(self) -> TrainingStep:
        """Do one step.

        Raises:
            DivergenceError: the loss is not finite or has run away; the network is back at the last
                good state.
        """
        began = time.perf_counter()
        done = self._change(*self._gradients())
        done = replace(done, seconds=time.perf_counter() - began)
        speed = self._pace.add(done.seconds)
        done = replace(
            done, steps_per_second=speed, seconds_left=(self.settings.steps - self.step) / speed
        )

        return self._watched(done)

    def _gradients(self) -> tuple[float, float]:
        """Gradients of one step, tried again with less memory where that runs out; as
        :meth:`_accumulate`.
        """
        while True:
            try:
                return self._accumulate()
            except RuntimeError as error:
                if self._save_memory is None or not is_out_of_memory(error):
                    raise
                # The frames hold all that the step had computed so far.
                traceback.clear_frames(error.__traceback__)
                self._stepper.optimiser.zero_grad(set_to_none=True)
                if not self._save_memory():
                    raise

    def _accumulate(self) -> tuple[float, float]:
        """Gradients of one step; returns its loss, and the loss of predicting nothing."""
        settings, totals = self.settings, torch.zeros(2, device=self.device)
        first = self.step * settings.samples_per_step
        self.examples.prepare(first, first + settings.samples_per_step)

        for number in range(settings.accumulation):
            start = first + number * settings.batch
            parts = self.examples.parts([start + i for i in self._share])
            for part in parts:
                last = number == settings.accumulation - 1 and part is parts[-1]
                share = len(part) / len(self._share)
                with self._unsynchronised(last), self._forward.dropout(part[0]):
                    loss, power = self._forward.losses(part)
                    scaled = self._stepper.scaler.scale(loss * share / settings.accumulation)
                    scaled.backward()  # type: ignore[no-untyped-call]
                totals += torch.stack([loss.detach(), power.detach()]) * share

        loss_value, power_value = self.world.mean(totals / settings.accumulation).tolist()
        return loss_value, power_value

    def _unsynchronised(self, last: bool) -> AbstractContextManager[object]:
        """Gradients are averaged over the processes once per step."""
        if last or self.world.size == 1:
            return nullcontext()
        context: AbstractContextManager[object] = self._learner.no_sync()  # type: ignore[operator]
        return context

    def _change(self, loss: float, power: float) -> TrainingStep:
        """Step the optimiser on the gradients that are there."""
        norm = self._stepper.measure()
        scaled = self._stepper.scaler.is_enabled()
        if not _is_finite(loss) or (not _is_finite(norm) and not scaled):
            self._diverged(
                f"the loss of step {self.step + 1} is {loss:g}, its gradient norm {norm:g}"
            )

        # An interrupt between here and the end leaves weights that no checkpoint may hold.
        rate = self._rates.at(self.step)
        self._is_whole = False
        skipped = self._stepper.step(rate)
        self._watch.skipped = self._watch.skipped + 1 if skipped else 0

        if self._watch.skipped > MOST_SKIPPED:
            self._diverged(f"the gradients of the last {MOST_SKIPPED} steps overflowed")
        self.step += 1
        self._is_whole = True
        self._average.update(self.step)
        self._tell_step()
        smoothed = self._watch.add(loss, power)
        if complaint := self._watch.complaint(smoothed):
            self._diverged(f"at step {self.step} {complaint}")

        # This loss is the first that the candidate's weights have made.
        if self._candidate and self._watch.is_healthy(loss, power):
            self._good = self._candidate

        self._candidate = {}
        return TrainingStep(
            self.step, self.settings.steps, loss, smoothed, rate, norm, skipped=skipped
        )

    def _diverged(self, reason: str) -> None:
        """Go back to the last good state, in the folder as well, and say so."""
        self._stepper.optimiser.zero_grad(set_to_none=True)
        self._restore(self._good)
        self._is_whole, self._saved = True, None
        self._tell_step()

        try:
            if self.step:
                self.save()
            elif self.folder is not None and self.world.is_first and (self.folder / STATE).exists():
                save_state(self.folder, self._state())
        except FileWriteError as error:  # what went wrong first is what counts
            self.warn(
                f"step {self.step}, which the network was reset to, could not be saved: {error}"
            )

        self._saved = self.step
        advice = "a lower learning rate, a longer warm-up, or more clipping"
        if self.settings.precision == "fp16":
            advice += ', or the precision "bf16"'
        raise DivergenceError(
            f"{reason}: the network was reset to step {self.step}; start again with {advice}"
        )

    def _watched(self, done: TrainingStep) -> TrainingStep:
        """Compute the validation loss, save, and take a state to fall back to, when each is due."""
        settings = self.settings
        if settings.watch_every and (done.step % settings.watch_every == 0 or self.is_finished):
            done = replace(done, validation=self.measure())
            self._follow_best(done.validation)
        is_due = self.is_finished or bool(
            settings.save_every and done.step % settings.save_every == 0
        )
        if is_due or self._refused is not None:
            path = self._try_to_save()
            done = replace(done, saved=None if path is None else path.name)
        if is_due or done.step % SNAPSHOT_EVERY == 0:
            self._candidate = self._copied_state()
        if time.monotonic() - self._saved_at > max(LONGEST_UNSAVED, self._saving / MOST_SAVING):
            self._save_state_between()
        return done

    def _follow_best(self, validation: float | None) -> None:
        """Save the network where it is the best so far; tell, and end the run if asked, where that
        is long past.
        """
        if validation is not None and self.best.add(self.step, validation):
            self._save_best()
        elif validation is not None and self.best.has_just_passed:
            text = (
                f"the validation loss has not fallen since step {self.best.step} ({self.best.loss:.4f}, now "
                f"{validation:.4f}): from there on, the network overfits"
            )
            if self.settings.until != "best":
                text += '; what it was then is kept, and "--until best" would stop here'
            self.warn(text)
        if self.settings.until == "best":
            self._is_past_best = self.world.any(self.best.is_past, self.device)

    def _save_best(self) -> None:
        if self.folder is None or not self.world.is_first:
            return
        try:
            make_folder(self.folder)
            with self._average.inside():
                write(self.network, best_file(self.folder, self.network.name, self.suffix))
        except FileWriteError as error:
            self.warn(f"the best network so far, of step {self.step}, could not be saved: {error}")

    def _save_state_between(self) -> None:
        """Keep what was learned since the last checkpoint, so that a run that is killed loses a
        minute at most.
        """
        if self.folder is None or not self.world.is_first or self._refused is not None:
            return
        began = time.monotonic()
        with suppress(FileWriteError):  # a checkpoint that is due says so
            make_folder(self.folder)
            save_state(self.folder, self._state())
        self._saved_at = time.monotonic()
        self._saving = self._saved_at - began

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
            self._average.inside(),
            at_rest(self.network),
            self._forward.autocast(),
        ):
            yield

    def _try_to_save(self) -> Path | None:
        """As :meth:`save`; a refusal is reported once, and the next step tries again."""
        try:
            path = self.save()
        except FileWriteError as error:
            if self._refused is None:
                self.warn(
                    f"the checkpoint of step {self.step} could not be saved: {error}; it takes about "
                    f"{self._room() / 1e6:,.0f} MB. Training continues, and the next step tries again"
                )
                self._refused = self.step
            return None

        if self._refused is not None and self._saved == self.step:
            self.warn(f"step {self.step} is saved, in place of step {self._refused}")
            self._refused = None
        return path

    def _room(self) -> int:
        """Bytes that a checkpoint takes, the network's file included."""
        tensors = [*self._parameters, *self._parameters, *self._average.values]
        for kept in self._stepper.optimiser.state.values():
            tensors += [value for value in kept.values() if isinstance(value, torch.Tensor)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def save(self) -> Path | None:
        """Write the network's file and the state to resume from; returns the file, ``None`` without
        a folder.

        Raises:
            FileWriteError: one of them can't be written; the other one is, where that is possible.
        """
        if self.folder is None or not self.world.is_first or self._saved == self.step:
            return None

        make_folder(self.folder)
        try:
            with self._average.inside():
                path = save_network(self.network, self.folder, self.suffix)
        finally:
            save_state(self.folder, self._state())

        self._saved, self._saved_at = self.step, time.monotonic()
        if self.settings.keep:
            remove_old(self.folder, self.network.name, self.suffix, self.settings.keep)
        return path

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "base": self._base,
            "parameters": [p.detach() for p in self._parameters],
            "average": self._average.values,
            "optimiser_name": type(self._stepper.optimiser).__name__,
            "optimiser": self._stepper.optimiser.state_dict(),
            "scaler": self._stepper.scaler.state_dict(),
            "watch": self._watch.state(),
            "seed": self.settings.seed,
            "best": self.best.state(),
            "structure": history.described(self.network.structure),
            "examples": history.listed(self.examples.examples),
            "seen": sorted(self._seen),
            "held_out": sorted(self._held_out),
        }

    def _copied_state(self) -> dict[str, Any]:
        """The state as it is now, on the CPU, whatever happens to the run afterwards."""
        copied: dict[str, Any] = on_cpu(self._state(), copy=True)
        return copied

    def _resume(self) -> None:
        """Continue from the folder's state, if there is one."""
        state = load_state(self.folder)
        if not self.world.agrees(-1 if state is None else state["step"], self.device):
            raise TrainingStateError(
                f"the processes found different states in {self.folder}: use a folder that all of them share"
            )
        if state is None:
            return

        assert self.folder is not None
        name = type(self._stepper.optimiser).__name__
        check_fits(state, self._parameters, name, self.folder, self.network.structure)
        try:
            self._restore(state)
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # of another's making
            raise damaged(self.folder) from error

        self._base = state["base"]
        self._tell_step()
        file = network_file(self.folder, self.network, self.suffix)
        self._saved = self.step if file.exists() else None
        self._seen.update(state.get("seen", ()))
        self._held_out.update(state.get("held_out", ()))
        for text in history.changes(state.get("examples"), history.listed(self.examples.examples)):
            self.warn(text)

    def _restore(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`_state` gave; what was asked of this run's optimiser stays."""
        write_values(self._parameters, state["parameters"])
        if self._average.values:  # where there was no average, it begins with what was learned
            self._average.values = [
                v.to(p.device, copy=True)
                for v, p in zip(
                    state["average"] or state["parameters"], self._parameters, strict=True
                )
            ]
        self._stepper.restore(state["optimiser"], state["scaler"])
        self._watch.restore(state["watch"])
        if "best" in state:  # not in those of older versions
            self.best.restore(state["best"])
            self._is_past_best = self.settings.until == "best" and self.best.is_past
        self.step = state["step"]

    def _tell_step(self) -> None:
        """The network knows how many steps it was trained for, those before this run included."""
        self.network.provenance = replace(self.network.provenance, step=self._base + self.step)

    def finish(self) -> None:
        """Save the last finished step, and leave the network ready for use, with the averaged
        weights if any.
        """
        try:
            self._stepper.optimiser.zero_grad(set_to_none=True)
            if self._is_whole:
                self.save()
        finally:
            if self._average.values:
                write_values(self._parameters, self._average.values)
            self.network.train(False)


def train(
    run: Run,
    *,
    on_step: Callable[[TrainingStep], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> None:
    """Do all steps of a run, or those until it is stopped; then save and leave the network ready
    for use.

    Args:
        on_step: called after every step, in the first process; what it raises stops the run after
            that step.
        should_stop: asked after every step; loses nothing, as the last finished step is saved.

    Raises:
        DivergenceError: see :meth:`Run.advance`.
    """
    try:
        while not run.is_finished:
            done = run.advance()
            if on_step is not None and run.world.is_first:
                on_step(done)
            if run.world.any(should_stop is not None and should_stop(), run.device):
                break
    except BaseException:
        try:
            run.finish()
        except FileWriteError as refused:  # the first error is the one to report
            run.warn(f"step {run.step} could not be saved: {refused}")
        raise

    run.finish()


def _is_finite(number: float) -> bool:
    return number - number == 0
