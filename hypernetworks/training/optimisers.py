"""Any optimiser of torch by name, fused where it can be; and one step of it: unscale, clip, step."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..errors import TrainingSettingsError

UNSUITED = {
    "LBFGS": "it evaluates the loss several times per step",
    "SparseAdam": "it takes sparse gradients only",
    "Muon": "it takes matrices only",
}
"""Optimisers of torch that can't be used here, and why."""


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
    """An optimiser of ``torch.optim`` by name, whatever its case; fused where torch has such a kernel.

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
        if "fused" in accepted and not options.keys() & {
            "fused",
            "foreach",
            "capturable",
            "differentiable",
        }:
            try:
                return kind(parameters, **arguments, fused=True)  # type: ignore[no-any-return]
            except RuntimeError:  # no such kernel for this device in this version of torch
                pass
        return kind(parameters, **arguments)  # type: ignore[no-any-return]
    except (TypeError, ValueError, RuntimeError) as error:
        raise TrainingSettingsError(
            f"{kind.__name__} can't be used with these options: {error}"
        ) from error


def build_scaler(precision: str, device: str) -> Any:
    """A gradient scaler, which does nothing but with ``fp16``."""
    enabled = precision == "fp16"
    if hasattr(torch.amp, "GradScaler"):  # torch 2.3
        return torch.amp.GradScaler(device, enabled=enabled)
    return torch.cuda.amp.GradScaler(enabled=enabled)


class Stepper:
    """One step of an optimiser on the gradients that are there: unscale, measure, clip, step.

    Args:
        optimiser: its learning rate is set at every step.
        scaler: see :func:`build_scaler`.
        clip: largest gradient after unscaling; 0 for none.
        clip_by: ``"norm"`` or ``"value"``.
    """

    def __init__(
        self, optimiser: torch.optim.Optimizer, scaler: Any, clip: float, clip_by: str
    ) -> None:
        self.optimiser, self.scaler, self.clip, self.clip_by = optimiser, scaler, clip, clip_by
        self.parameters = [p for group in optimiser.param_groups for p in group["params"]]

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
        """Unscale and clip the gradients; returns their norm before clipping, not finite if any of them is not."""
        self.scaler.unscale_(self.optimiser)
        limit = self.clip if self.clip and self.clip_by == "norm" else float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, limit)
        if self.clip and self.clip_by == "value":
            torch.nn.utils.clip_grad_value_(self.parameters, self.clip)
        return norm.item()

    def step(self, rate: float) -> bool:
        """Change the parameters and forget the gradients; returns whether it was left out, because they overflowed."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        before = self.scaler.get_scale()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        return bool(self.scaler.get_scale() < before)
