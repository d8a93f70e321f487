"""Networks on a ComfyUI model: kept with its patcher, and on its UNet only while that model
samples.

Clones of a model share one UNet, so nothing may stay on it between two passes. Three of ComfyUI's
wrappers do the work: one around a whole pass makes a :class:`Job` and ends it, one around each
evaluation tells the job the step, one around each run of the UNet lets the right networks act.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from comfy.patcher_extension import WrappersMP
from torch import nn

from ...engine.multiplier import Multiplier
from ...engine.network import Hypernetwork
from ...errors import HypernetworkError
from ...patching import Handle, apply, apply_per_picture, find_sites
from ...patching.checks import unwrapped
from ..fit import check_fit
from .dense import is_dense
from .steps import Steps

KEY = "hypernetworks"
"""Of our wrappers, our attachment to a model, and a conditioning's networks."""
JOB = "hypernetworks_job"
"""Key of the running job in ``transformer_options``."""
HIRES = "hypernetworks_hires"
"""Attachment: whether the model is for the hires pass of its tags."""
_RESIDENT: weakref.WeakSet[Hypernetwork] = weakref.WeakSet()
"""Networks that the last pass used: those that the next one doesn't leave the device."""


@dataclass(frozen=True)
class Applied:
    """A network with its multiplier."""

    network: Hypernetwork
    multiplier: Multiplier


def with_networks(model: Any, networks: Sequence[Applied], *, hires: bool = False) -> Any:
    """A clone of a model patcher with these networks after those that it has already.

    Args:
        model: ComfyUI's ``ModelPatcher``; not changed.
        networks: in the order of application.
        hires: use the multipliers for the hires pass.
    """
    clone = model.clone()
    clone.set_attachments(KEY, (*(model.get_attachment(KEY) or ()), *networks))
    clone.set_attachments(HIRES, hires or bool(model.get_attachment(HIRES)))

    for kind, by_key in WRAPPERS.items():
        # The model may have them from an earlier node: twice would be two jobs in one pass.
        clone.remove_wrappers_with_key(kind, KEY)
        for wrapper in by_key[KEY]:
            clone.add_wrapper_with_key(kind, KEY, wrapper)
    return clone


class Job:
    """The networks of one sampling pass.

    Args:
        shared: networks of the model, which act on every conditioning.
        steps: follows the pass.
        hires: whether the multipliers for the hires pass count.
    """

    def __init__(self, shared: Sequence[Applied], steps: Steps, hires: bool) -> None:
        self._shared, self._steps, self._hires = tuple(shared), steps, hires
        self._sets: list[tuple[Applied, ...]] = []
        self._current = 0
        self._handle: Handle | None = None
        self._unet: nn.Module | None = None
        self._step = 0

    def begin_evaluation(self, sigma: float) -> None:
        """The sampler is about to evaluate the model."""
        self._step = self._steps.of(sigma)

    def begin_call(self, unet: nn.Module, own: Sequence[Applied]) -> None:
        """The UNet is about to run on conditionings that have these networks of their own."""
        networks = (*self._shared, *own)
        unet = unwrapped(unet)  # torch.compile wraps it

        if networks not in self._sets:
            self._sets.append(networks)
            self._apply(unet)
        elif self._unet is not unet:
            self._apply(unet)

        self._current = self._sets.index(networks)
        if self._handle is not None:
            self._handle.at(self._step, self._steps.total, hires=self._hires)

    def _apply(self, unet: nn.Module) -> None:
        """One set of networks folds; where conditionings have different ones, each call says which
        act.
        """
        self.end()
        self._unet = unet

        fitting = [_fitting(unet, networks) for networks in self._sets]
        used = {applied.network for networks in fitting for applied in networks}
        # Those of the last pass may lie in the memory of the graphics card, which is needed now.
        for network in list(_RESIDENT):
            if network not in used:
                network.release_devices()
        _RESIDENT.clear()
        _RESIDENT.update(used)

        sets = [[(applied.network, applied.multiplier) for applied in n] for n in fitting]
        if not any(sets):
            return
        try:
            # Folding into weights serves all rows alike, so it needs one set for all of them.
            if len(sets) == 1:
                self._handle = apply(unet, sets[0], is_dense=is_dense, on_error=_failed)
            else:
                self._handle = apply_per_picture(unet, sets, self._rows, on_error=_failed)
        except HypernetworkError as error:
            _failed(error)

    def _rows(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> list[int]:
        """ComfyUI runs conditionings with different hooks separately: all rows of a call are
        alike.
        """
        first = arguments[0] if arguments else next(iter(named.values()))
        return [self._current] * int(first.shape[0])

    def end(self) -> None:
        """Leave the UNet as it was."""
        if self._handle is not None:
            self._handle.remove()
        self._handle, self._unet = None, None


def _failed(error: Exception) -> None:
    """Say that the networks are off: the image is still generated."""
    logging.warning("the hypernetworks are off for this pass: %s", error)


def _fitting(unet: nn.Module, networks: Sequence[Applied]) -> list[Applied]:
    """Those that fit: a conditioning's networks can't be checked before the model is known."""
    sites, found = find_sites(unet), []
    for applied in networks:
        try:
            check_fit(applied.network, applied.multiplier, sites)
            found.append(applied)
        except HypernetworkError as error:
            logging.warning("hypernetwork %s is skipped: %s", applied.network.name, error)
    return found


def _outer_sample(executor: Any, *arguments: Any, **named: Any) -> Any:
    """Around a sampling pass."""
    guider = executor.class_obj
    options = guider.model_options.setdefault("transformer_options", {})
    if JOB in options:  # the model and a conditioning both brought this wrapper
        return executor(*arguments, **named)

    sampler, sigmas = arguments[2], arguments[3]
    name = getattr(getattr(sampler, "sampler_function", None), "__name__", "")
    patcher = guider.model_patcher

    # In the options, where the other two wrappers find it.
    job = options[JOB] = Job(
        patcher.get_attachment(KEY) or (),
        Steps(sigmas.tolist(), name),
        bool(patcher.get_attachment(HIRES)),
    )
    try:
        return executor(*arguments, **named)
    finally:
        job.end()
        options.pop(JOB, None)


def _predict_noise(executor: Any, *arguments: Any, **named: Any) -> Any:
    """Around an evaluation of the model, which may run the UNet several times."""
    model_options = arguments[2] if len(arguments) > 2 else named.get("model_options", {})
    job = model_options.get("transformer_options", {}).get(JOB)
    # It runs twice where a model and a conditioning both brought it; an evaluation counts once.
    if job is not None and model_options.get(_SEEN) is not executor.class_obj:
        job.begin_evaluation(float(arguments[1].max()))
        model_options = {**model_options, _SEEN: executor.class_obj}
        arguments = (*arguments[:2], model_options, *arguments[3:])
        named.pop("model_options", None)
    return executor(*arguments, **named)


_SEEN = "hypernetworks_evaluation"
"""Key in ``model_options``: this wrapper has run already, for the same evaluation."""


def _apply_model(executor: Any, *arguments: Any, **named: Any) -> Any:
    """Around a run of the UNet."""
    options = arguments[5] if len(arguments) > 5 else named.get("transformer_options", {})
    job = options.get(JOB)
    if job is not None:
        job.begin_call(executor.class_obj.diffusion_model, options.get(KEY, ()))
    return executor(*arguments, **named)


WRAPPERS: dict[str, dict[str, list[Callable[..., Any]]]] = {
    WrappersMP.OUTER_SAMPLE: {KEY: [_outer_sample]},
    WrappersMP.PREDICT_NOISE: {KEY: [_predict_noise]},
    WrappersMP.APPLY_MODEL: {KEY: [_apply_model]},
}
"""As ComfyUI keeps them: kind, key, functions."""
