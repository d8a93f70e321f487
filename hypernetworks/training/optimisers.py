"""Builds any torch optimiser by name, fused where possible; and does one step: unscale, clip,
step.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..errors import TrainingSettingsError
from .scaling import Scaler

UNSUITED = {
    "LBFGS": "it evaluates the loss several times per step",
    "SparseAdam": "it takes sparse gradients only",
    "Muon": "it takes matrices only",
}
"""Optimisers of torch that can't be used here, and why."""
FUSED_ON = {"cpu", "cuda"}
"""Kinds of devices whose fused kernels are tried. torch takes it for granted that a foreign device
such as DirectML has them all, and the first step would fail.
"""
FOREACH_ON = {"cpu", "cuda", "xpu", "mps"}
"""Kinds of devices that take lists of tensors; others get one at a time."""


def optimiser_names() -> tuple[str, ...]:
    """Names of torch's optimisers that can be used."""
    found = inspect.getmembers(torch.optim, inspect.isclass)
    return tuple(
        name
        for name, kind in found
        if issubclass(kind, torch.optim.Optimizer)
        and kind is not torch.optim.Optimizer
        and name not in UNSUITED
    )


def build_optimiser(
    name: str,
    parameters: Sequence[torch.nn.Parameter],
    weight_decay: float,
    options: Mapping[str, object],
) -> torch.optim.Optimizer:
    """An optimiser of ``torch.optim`` by name, whatever its case; fused where torch has such a
    kernel.

    Raises:
        TrainingSettingsError: an unknown name or option.
    """
    known = {known.lower(): known for known in optimiser_names()}
    if name.lower() not in known:
        reason = next(
            (f" ({why})" for unsuited, why in UNSUITED.items() if unsuited.lower() == name.lower()),
            "",
        )
        raise TrainingSettingsError(
            f'the optimiser "{name}" can\'t be used{reason}, use one of {", ".join(known.values())}'
        )

    kind = getattr(torch.optim, known[name.lower()])
    accepted = inspect.signature(kind).parameters
    if unknown := sorted(set(options) - set(accepted)):
        raise TrainingSettingsError(
            f"{kind.__name__} has no option {unknown[0]}, it has {', '.join(list(accepted)[2:])}"
        )

    arguments: dict[str, Any] = {"weight_decay": weight_decay} if "weight_decay" in accepted else {}
    arguments |= {"lr": 1.0, **options}
    try:
        asked = options.keys() & {"fused", "foreach", "capturable", "differentiable"}
        kinds = {p.device.type for p in parameters}
        if not asked and "foreach" in accepted and not kinds <= FOREACH_ON:
            arguments["foreach"] = False
        elif not asked and "fused" in accepted and kinds <= FUSED_ON:
            try:
                return kind(parameters, **arguments, fused=True)  # type: ignore[no-any-return]
            except RuntimeError:  # no such kernel for this device in this version of torch
                pass
        return kind(parameters, **arguments)  # type: ignore[no-any-return]
    except (TypeError, ValueError, RuntimeError) as error:
        raise TrainingSettingsError(
            f"{kind.__name__} can't be used with these options: {error}"
        ) from error


class Stepper:
    """One step of an optimiser on the gradients that are there: unscale, measure, clip, step.

    Args:
        optimiser: its learning rate is set at every step.
        scaler: of the losses whose gradients are there.
        clip: largest gradient after unscaling; 0 for none.
        clip_by: ``"norm"`` or ``"value"``.
    """

    def __init__(
        self, optimiser: torch.optim.Optimizer, scaler: Scaler, clip: float, clip_by: str
    ) -> None:
        self.optimiser, self.scaler, self.clip, self.clip_by = optimiser, scaler, clip, clip_by
        self.parameters = [p for group in optimiser.param_groups for p in group["params"]]
        self._norm = 0.0

    def restore(self, optimiser: dict[str, Any], scaler: dict[str, Any]) -> None:
        """Take up the state of an earlier run, but with this one's own options, and precision."""
        asked = [
            {k: v for k, v in group.items() if k != "params"}
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
        self.scaler.unscale([p.grad for p in self.parameters if p.grad is not None])
        limit = self.clip if self.clip and self.clip_by == "norm" else float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, limit)
        if self.clip and self.clip_by == "value":
            torch.nn.utils.clip_grad_value_(self.parameters, self.clip)
        self._norm = norm.item()
        return self._norm

    def step(self, rate: float) -> bool:
        """Change the parameters and forget the gradients; returns whether it was skipped
        (overflow).
        """
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        skipped = self.scaler.update(self._norm)
        if not skipped:
            self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return skipped
