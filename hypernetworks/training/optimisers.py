"""Builds any optimiser of torch or of an installed package, and does one step with it: unscale,
clip, step.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from ..errors import TrainingSettingsError
from .scaling import Scaler
from .schedule_free import ScheduleFreeAdamW

if TYPE_CHECKING:
    from .gains import Gains

UNSUITED = {
    "LBFGS": "it evaluates the loss several times per step",
    "SparseAdam": "it takes sparse gradients only",
    "Muon": "it takes matrices only",
}
"""Optimisers of torch that can't be used here, and why."""
OWN = {"ScheduleFreeAdamW": ScheduleFreeAdamW}
"""Optimisers of this project, by name."""
FUSED_ON = {"cpu", "cuda"}
"""Kinds of devices whose fused kernels are tried. torch takes it for granted that a foreign device
such as DirectML has them all, and the first step would fail.
"""
FOREACH_ON = {"cpu", "cuda", "xpu", "mps"}
"""Kinds of devices that take lists of tensors; others get one at a time."""


def optimiser_names() -> tuple[str, ...]:
    """Names of the optimisers that can be used: torch's and our own."""
    found = inspect.getmembers(torch.optim, inspect.isclass)
    of_torch = (
        name
        for name, kind in found
        if issubclass(kind, torch.optim.Optimizer)
        and kind is not torch.optim.Optimizer
        and name not in UNSUITED
    )
    return (*of_torch, *OWN)


def needs_no_schedule(name: str) -> bool:
    """Whether an optimiser averages its weights in place of a falling rate."""
    return "schedulefree" in name.lower()


def build_optimiser(
    name: str,
    parameters: Sequence[torch.nn.Parameter],
    weight_decay: float,
    options: Mapping[str, object],
) -> torch.optim.Optimizer:
    """An optimiser of ``torch.optim`` or of :data:`OWN` by name, whatever its case, fused where
    torch has such a kernel; or one of an installed package by its dotted path, such as
    ``prodigyopt.Prodigy``.

    Raises:
        TrainingSettingsError: an unknown name or option.
    """
    kind = _imported(name) if "." in name else _named(name)
    accepted = inspect.signature(kind).parameters
    if unknown := sorted(set(options) - set(accepted)):
        raise TrainingSettingsError(
            f"options: {kind.__name__} has no option {unknown[0]}, it has "
            f"{', '.join(list(accepted)[2:])}",
            setting="options",
        )

    arguments: dict[str, Any] = {"weight_decay": weight_decay} if "weight_decay" in accepted else {}
    # Some need a rate to be built; each step sets the real one.
    arguments |= {"lr": 1.0, **options}
    try:
        return _built(kind, parameters, arguments, set(options))
    except (TypeError, ValueError, RuntimeError) as error:
        raise TrainingSettingsError(
            f"options: {kind.__name__} can't be used with these: {error}", setting="options"
        ) from error


def _built(
    kind: Any,
    parameters: Sequence[torch.nn.Parameter],
    arguments: dict[str, Any],
    typed: set[str],
) -> torch.optim.Optimizer:
    """With the fastest kernels that these parameters' device has, unless others were asked for."""
    accepted, kinds = inspect.signature(kind).parameters, {p.device.type for p in parameters}
    asked = typed & {"fused", "foreach", "capturable", "differentiable"}
    if not asked and "foreach" in accepted and not kinds <= FOREACH_ON:
        arguments["foreach"] = False
    elif not asked and "fused" in accepted and kinds <= FUSED_ON:
        try:
            return kind(parameters, **arguments, fused=True)  # type: ignore[no-any-return]
        except RuntimeError:  # no such kernel for this device in this version of torch
            pass
    return kind(parameters, **arguments)  # type: ignore[no-any-return]


def _named(name: str) -> Any:
    known = {known.lower(): known for known in optimiser_names()}
    if name.lower() not in known:
        reason = next(
            (f" ({why})" for unsuited, why in UNSUITED.items() if unsuited.lower() == name.lower()),
            "",
        )
        raise TrainingSettingsError(
            f'optimiser "{name}" can\'t be used{reason}, use one of {", ".join(known.values())}, '
            "or an installed "
            "package's by its dotted path, such as prodigyopt.Prodigy",
            setting="optimiser",
        )
    found = known[name.lower()]
    return OWN.get(found) or getattr(torch.optim, found)


def _imported(path: str) -> Any:
    """The optimiser of another package.

    Raises:
        TrainingSettingsError: it isn't installed, or is no optimiser.
    """
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        package = module.partition(".")[0]
        raise TrainingSettingsError(
            f'optimiser "{path}" can\'t be loaded ({error}): install its package '
            f"(pip install {package}), or check the name",
            setting="optimiser",
        ) from error
    if not (inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer)):
        raise TrainingSettingsError(
            f'optimiser "{path}" is no optimiser of torch', setting="optimiser"
        )
    return kind


def usual_rate(name: str) -> str | None:
    """The learning rate that an optimiser of another package has by default, where that one finds
    the real rate itself (Prodigy, D-Adaptation) or is known for another scale; ``None`` for
    torch's and our own.
    """
    if "." not in name:
        return None
    default = inspect.signature(_imported(name)).parameters["lr"].default
    return f"{default:g}" if isinstance(default, (int, float)) else None


class Stepper:
    """One step of an optimiser on the gradients that are there: unscale, measure, clip, step.

    Args:
        optimiser: its learning rate is set at every step.
        scaler: of the losses whose gradients are there.
        clip: largest gradient after unscaling; 0 for none.
        clip_by: ``"norm"`` or ``"value"``.
        gains: through which the optimiser learns the network's last layers, if it does.
    """

    def __init__(
        self,
        optimiser: torch.optim.Optimizer,
        scaler: Scaler,
        clip: float,
        clip_by: str,
        gains: Gains | None = None,
    ) -> None:
        self.optimiser, self.scaler, self.clip, self.clip_by = optimiser, scaler, clip, clip_by
        self.gains = gains
        self.parameters = [p for group in optimiser.param_groups for p in group["params"]]
        self._norm = 0.0

    def restore(self, optimiser: dict[str, Any], scaler: dict[str, Any]) -> None:
        """Take up the state of an earlier run, but with this one's own options, and precision."""
        # Only what the constructor takes is this run's to choose: some optimisers keep what they
        # have learned in their groups, such as Prodigy's estimate of the rate.
        options = set(inspect.signature(type(self.optimiser)).parameters) - {"params"}
        asked = [
            {k: v for k, v in group.items() if k in options}
            for group in self.optimiser.param_groups
        ]
        groups = [saved | own for saved, own in zip(optimiser["param_groups"], asked, strict=True)]
        self.optimiser.load_state_dict({**optimiser, "param_groups": groups})
        if scaler and self.scaler.is_enabled():  # empty where the earlier run had none
            self.scaler.load_state_dict(scaler)

    def measure(self) -> float:
        """Unscale and clip the gradients; returns their norm before clipping, not finite if any of
        them is not.
        """
        if self.gains is not None:
            self.gains.collect()
        self.scaler.unscale([p.grad for p in self.parameters if p.grad is not None])
        limit = self.clip if self.clip and self.clip_by == "norm" else float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, limit)
        if self.clip and self.clip_by == "value":
            torch.nn.utils.clip_grad_value_(self.parameters, self.clip)
        self._norm = norm.item()
        return self._norm

    def learns(self, live: bool) -> None:
        """Schedule-free optimisers keep two sets of weights: those that are trained, and their
        average, which is the result. Others have no such switch.
        """
        switch = getattr(self.optimiser, "train" if live else "eval", None)
        if callable(switch):
            switch()
            self._write()

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """The weights are those that a file should hold; afterwards, bit for bit those that are
        trained.
        """
        if not callable(getattr(self.optimiser, "eval", None)):
            yield
            return
        live = [p.detach().clone() for p in self.parameters]
        self.learns(False)
        try:
            yield
        finally:
            self.learns(True)
            with torch.no_grad():
                for parameter, value in zip(self.parameters, live, strict=True):
                    parameter.copy_(value)
            self._write()

    def step(self, rate: float) -> bool:
        """Change the parameters and forget the gradients; returns whether it was skipped
        (overflow).
        """
        # The rate is set, not scheduled by torch: the state of a run needs no scheduler.
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        skipped = self.scaler.update(self._norm)
        if not skipped:
            self.optimiser.step()
            self._write()
        self.forget()
        return skipped

    def forget(self) -> None:
        """Drop the gradients."""
        self.optimiser.zero_grad(set_to_none=True)
        if self.gains is not None:
            self.gains.forget()

    def _write(self) -> None:
        if self.gains is not None:
            self.gains.write()
