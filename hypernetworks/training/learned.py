"""Everything that the steps of a run change, as one state that can be kept and taken up again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..engine.network import Hypernetwork
from ..errors import TrainingStateError
from . import history
from .averaging import Average, write_values
from .best import Best
from .checkpoints import check_fits, check_gains, damaged, load_state, on_cpu
from .examples import Example
from .gains import Gains
from .health import Watch
from .optimisers import Stepper, build_optimiser
from .processes import World
from .scaling import Scaler
from .settings import TrainingSettings


class Learned:
    """The weights, their average, the optimiser, and what is known of the losses so far.

    Args:
        network: its parameters are changed in place.
        settings: of the run.
        examples: what is learned from, so that a state can tell what earlier steps had.
        held_out: keys of the images that are kept for validation.
        measured: stands for what the validation loss measures; ``None`` where this process has
            none.

    Raises:
        TrainingSettingsError: no such optimiser, or it can't take these options.
    """

    def __init__(
        self,
        network: Hypernetwork,
        settings: TrainingSettings,
        examples: Sequence[Example],
        held_out: Sequence[str],
        measured: str | None = None,
    ) -> None:
        self.network, self.settings, self.examples = network, settings, examples
        self.parameters = list(network.parameters())
        self.gains = Gains(network) if settings.gains == "on" else None
        learned = self.parameters if self.gains is None else self.gains.parameters()
        optimiser = build_optimiser(
            settings.optimiser, learned, settings.weight_decay, settings.options
        )
        scaler = Scaler(enabled=settings.precision == "fp16")
        self.stepper = Stepper(optimiser, scaler, settings.clip, settings.clip_by, self.gains)
        self.average = Average(self.parameters, settings.ema)

        # What was ever learned can't become a validation image, even if it is removed and comes
        # back.
        self.watch, self.best, self.is_past_best = Watch(), Best(), False
        self.seen, self.held_out = {example.key for example in examples}, set(held_out)
        self.measured = measured
        self.step, self.base = 0, network.provenance.step

    def resting(self) -> AbstractContextManager[object]:
        """The weights that files hold: averaged by this run or by the optimiser, if by any."""
        return self.average.inside() if self.average.values else self.stepper.at_rest()

    def settle(self) -> None:
        """Leave the weights that files hold in the network, for good."""
        if self.average.values:
            write_values(self.parameters, self.average.values)
        else:
            self.stepper.learns(False)

    def tell_step(self) -> None:
        """The network knows how many steps it was trained for, those before this run included."""
        provenance = replace(self.network.provenance, step=self.base + self.step)
        self.network.provenance = provenance

    @property
    def room(self) -> int:
        """Bytes that a checkpoint takes, the network's file included."""
        tensors = [*self.parameters, *self.parameters, *self.average.values, *self._gains()]
        for kept in self.stepper.optimiser.state.values():
            tensors += [value for value in kept.values() if isinstance(value, torch.Tensor)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def state(self) -> dict[str, Any]:
        """All of it, in plain types and live tensors."""
        return {
            "step": self.step,
            "base": self.base,
            "parameters": [p.detach() for p in self.parameters],
            "average": self.average.values,
            "gains": self._gains(),
            "optimiser_name": type(self.stepper.optimiser).__name__,
            "optimiser": self.stepper.optimiser.state_dict(),
            "scaler": self.stepper.scaler.state_dict(),
            "watch": self.watch.state(),
            "seed": self.settings.seed,
            "best": self.best.state(),
            "measured": self.measured,
            "structure": history.described(self.network.structure),
            "examples": history.listed(self.examples),
            "seen": sorted(self.seen),
            "held_out": sorted(self.held_out),
        }

    def _gains(self) -> list[torch.Tensor]:
        return [] if self.gains is None else self.gains.state()

    def copied_state(self) -> dict[str, Any]:
        """The state as it is now, on the CPU, whatever happens to the run afterwards."""
        copied: dict[str, Any] = on_cpu(self.state(), copy=True)
        return copied

    def check(self, state: dict[str, Any], folder: Any) -> None:
        """Refuse the state of another network or optimiser, before anything is changed.

        Raises:
            TrainingStateError: which of them.
        """
        name = type(self.stepper.optimiser).__name__
        check_fits(state, self.parameters, name, folder, self.network.structure)
        check_gains(state, self.settings.gains, folder)

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state` gave; what was asked of this run's optimiser stays."""
        write_values(self.parameters, state["parameters"])
        if self.gains is not None:
            self.gains.restore(state["gains"])
        if self.average.values:  # where there was no average, it begins with what was learned
            found = state["average"] or state["parameters"]
            pairs = zip(found, self.parameters, strict=True)
            self.average.values = [value.to(p.device, copy=True) for value, p in pairs]

        self.stepper.restore(state["optimiser"], state["scaler"])
        self.watch.restore(state["watch"])
        if "best" in state:  # not in those of older versions
            self.best.restore(state["best"])
            self.is_past_best = self.settings.until == "best" and self.best.is_past
        self.step = state["step"]

    def resume(self, folder: Path | None, world: World, device: torch.device) -> list[str] | None:
        """Continue from a folder's state; returns sentences about what is different now, ``None``
        where there is no state.

        Raises:
            TrainingStateError: it is of another run or damaged, or not all processes find the same.
        """
        state = load_state(folder)
        if not world.agrees(-1 if state is None else state["step"], device):
            raise TrainingStateError(
                f"the processes found different states in {folder}: use a folder that all of "
                "them share"
            )
        if state is None:
            return None

        assert folder is not None
        self.check(state, folder)
        try:
            changes = self.take_up(state)
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # of another's making
            raise damaged(folder) from error
        # Only the first process measures, but all of them must stop at the same step.
        if world.any(self._measures_otherwise(state), device):
            changes += self._begin_best_anew()
        return changes

    def take_up(self, state: dict[str, Any]) -> list[str]:
        """Go on from the state of an earlier run; returns sentences about what is different now."""
        self.restore(state)
        self.base = state["base"]
        self.tell_step()
        self.seen.update(state.get("seen", ()))
        self.held_out.update(state.get("held_out", ()))
        return history.changes(state.get("examples"), history.listed(self.examples))

    def _measures_otherwise(self, state: dict[str, Any]) -> bool:
        """Whether the validation loss can't be compared with that of a state."""
        before = state.get("measured")  # unknown in those of older versions
        # Without a loss now, that of the state may be measured again later.
        now, self.measured = self.measured, self.measured or before
        return None not in (before, now) and before != now

    def _begin_best_anew(self) -> list[str]:
        """Forget the best step, but not its file; returns what to say, if anything is forgotten."""
        before, self.best, self.is_past_best = self.best, Best(self.step), False
        if not before.step:
            return []
        return [
            "the validation loss measures something else than in the earlier steps (other images, "
            "captions, masks, size, seed or model), so the best network is chosen anew from here on"
        ]
