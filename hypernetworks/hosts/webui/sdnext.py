"""SD.Next: its diffusers pipelines have no callback before a step, so we watch their start and the
end of each step.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from ...prompts import parse
from ...prompts.near_misses import near_misses
from ..infotext import HASHES, LineOfImages
from ..steps import position
from . import host, replacing
from .active import ACTIVE, BATCH
from .batch import Batch

_STEP_CALLBACKS = ("callback_on_step_end", "prior_callback_on_step_end", "callback")
"""Pipeline arguments that report the end of a step to the host. Each call has one of them."""

Activate = Callable[[Any, Sequence[Sequence[str]]], None]


def watch_pipelines(activate: Activate) -> None:
    """See every pipeline's arguments before it runs; any number of times.

    Does nothing in other webuis.

    To be called when a job's networks are activated: the host has imported what is looked for by
    then, and to do so earlier would have it ask for its model.

    Args:
        activate: gives a job's processing object the networks of these tags.
    """

    def ours_for(original: Callable[..., Any]) -> Callable[..., Any]:
        def set_pipeline_args(p: Any, model: Any, *rest: Any, **named: Any) -> Any:
            arguments = original(p, model, *rest, **_without_tags(p, named))
            try:
                _begin(p, model, arguments, activate)
            except Exception as error:
                _give_up(p, error)
            return arguments

        return set_pipeline_args

    pipelines = sys.modules.get("modules.processing_diffusers")
    replacing.replace_once(pipelines, "set_pipeline_args", ours_for)


def watch_infotexts() -> None:
    """Have each image's infotext name what was active in it alone; any number of times.

    Nothing in other webuis.

    Others call the value itself for each image.
    """
    if "modules.processing_info" not in sys.modules:
        return
    for name in ("modules.processing", "modules.processing_helpers"):
        replacing.replace_once(sys.modules.get(name), "create_infotext", _of_one_image)


def _of_one_image(original: Callable[..., str]) -> Callable[..., str]:
    def create_infotext(p: Any, *arguments: Any, **named: Any) -> str:
        parameters: dict[str, Any] = getattr(p, "extra_generation_params", None) or {}
        line = parameters.get(HASHES)
        if not isinstance(line, LineOfImages):
            return original(p, *arguments, **named)

        index = named.get("index")
        number = named.get("position_in_batch", 0) if index is None else index
        # of a grid, and where the host names no image, the line is that of all
        known = named.get("grid") is None and (index is not None or "position_in_batch" in named)
        p.extra_generation_params = {**parameters, HASHES: line(number) if known else str(line)}
        try:
            return original(p, *arguments, **named)
        finally:
            p.extra_generation_params = parameters

    return create_infotext


def hires_prompts(p: Any) -> list[str]:
    """The prompts of the hires pass: one for all images of the batch; none if it is left empty."""
    prompt = getattr(p, "refiner_prompt", None)
    return [prompt] * p.batch_size if isinstance(prompt, str) and prompt else []


def _without_tags(p: Any, named: dict[str, Any]) -> dict[str, Any]:
    """The host takes the tags out of most prompts, but not of those of the refiner and of a second
    text encoder.
    """
    changed = {}
    for key in ("prompts", "prompts_2", "negative_prompts", "negative_prompts_2"):
        value = named.get(key)
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            continue
        parsed = [parse(text) for text in texts]
        if any(tags for _, tags in parsed):
            clean = [text for text, _ in parsed]
            changed[key] = clean[0] if isinstance(value, str) else clean
        negative = key.startswith("negative")
        for clean_text, tags in parsed:
            for tag in tags if negative else ():
                host.tell(p, f"{tag} has no effect in the negative prompt: move it to the prompt")
            for line in near_misses(clean_text, loras=True, negative=negative):
                host.tell(p, line)

    return {**named, **changed}


def _begin(p: Any, pipe: Any, arguments: Any, activate: Activate) -> None:
    """A pipeline is about to run."""
    if host.is_detail_pass(p):
        _activate_for_details(p, activate)
    run = _Run(p, pipe)
    if not any(run.pictures) or not run.fits():
        ACTIVE.remove()
        return

    run.before(0, 1)  # of how many steps makes no difference to the first
    name = next((name for name in _STEP_CALLBACKS if arguments.get(name) is not None), None)
    if name is not None:
        arguments[name] = run.counted(arguments[name], legacy=name == "callback")
    elif not all(use.multiplier.is_constant for picture in run.pictures for use in picture):
        host.tell(
            p,
            (
                f"{type(pipe).__name__} doesn't report its step: multipliers keep their values of "
                "the first step"
            ),
        )


def _activate_for_details(p: Any, activate: Activate) -> None:
    """The detailer's copy of a job: extra networks are switched off in it before its own handling
    of them begins.

    LoRAs go on acting there, since nothing took them off; so do hypernetworks. Tags in a prompt of
    its own take their place.
    """
    tags = parse(p.prompt)[1] if isinstance(p.prompt, str) else []
    batch: Batch | None = getattr(p, BATCH, None)
    if tags or batch is None:
        activate(p, [tag.items for tag in tags])
    else:
        setattr(p, BATCH, Batch(batch.first[:1]))


class _Run:
    """One run of a pipeline: a pass over the images of a batch, or the refiner's over one of
    them.
    """

    def __init__(self, p: Any, pipe: Any) -> None:
        self._p, self._pipe = p, pipe
        self._unet = host.pipeline_unet(pipe)
        self._hires = bool(getattr(p, "is_hr_pass", False))
        self._refines = bool(getattr(p, "is_refiner_pass", False))
        batch: Batch | None = getattr(p, BATCH, None)
        self.pictures = batch.of_pass(self._hires) if batch is not None else []

    def fits(self) -> bool:
        """Whether networks for the loaded model fit the UNet of this pipeline; says so where
        not.
        """
        unet, loaded = host.unwrapped(self._unet), host.live_unet()
        if unet is not None and unet is not loaded and _text_widths(unet) != _text_widths(loaded):
            host.tell(
                self._p,
                "the refiner is a different kind of model: hypernetworks are not applied to it",
            )
            return False
        return unet is not None

    def before(self, step: int, total: int) -> None:
        """A step comes next."""
        one_of_many = (
            self._refines and self._p.batch_size > 1
        )  # which of the images, the host doesn't say
        conditions = () if one_of_many else None
        ACTIVE.before_step(
            self._p, step, total, hires=self._hires, conditions=conditions, unet=self._unet
        )

    def counted(self, callback: Callable[..., Any], *, legacy: bool) -> Callable[..., Any]:
        """The host's callback, and after it ours."""

        def call(*arguments: Any, **named: Any) -> Any:
            result = callback(*arguments, **named)
            try:
                ACTIVE.after_step(self._p)
                pipe = self._pipe if legacy else arguments[0]
                done = arguments[0 if legacy else 1]
                runs = int(getattr(pipe, "num_timesteps", 0) or 0)
                self.before(*position(pipe.scheduler, done + 1, runs))
            except Exception as error:
                _give_up(self._p, error)
            return result

        return call


def _text_widths(unet: nn.Module | None) -> set[int | None]:
    from ...patching import find_sites  # not when the webui starts: it takes time

    return (
        {site.width for site in find_sites(unet) if site.kind == "cross"}
        if unet is not None
        else set()
    )


def _give_up(p: Any, error: Exception) -> None:
    setattr(p, BATCH, None)
    ACTIVE.remove()
    host.tell_of_fault(p, "applying the networks", error)
