"""The extra network ``hypernet``: the webui's calls during a generation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ...engine.multiplier import Multiplier
from ...engine.network import Hypernetwork
from ...errors import PatchError
from ...prompts import Tag, parse
from ...prompts.near_misses import near_misses
from ...prompts.rewriting import add_tag
from ..fit import check_fit
from ..infotext import HASHES, LineOfImages, hashes_line
from ..resolving import Resolver
from . import folders, host, replacing, sdnext, settings
from .active import ACTIVE, BATCH
from .batch import Batch, raw_prompts, tags_of

if TYPE_CHECKING:
    from ...patching import Site

MESSAGES = "Hypernet messages"
"""Key of the API's info."""
_RUNNING: list[Any] = []
"""Processing objects of the jobs that run now, each nested in the one before it."""


def register() -> None:
    """Put our handler in the place of the built-in one, or add it; any number of times."""
    from modules import extra_networks

    class ExtraNetworkHypernet(extra_networks.ExtraNetwork):  # type: ignore[misc]
        """Hands the host's calls on; takes keywords of newer hosts."""

        def __init__(self) -> None:
            super().__init__("hypernet")

        def activate(self, p: Any, params_list: Sequence[Any], *_: Any, **__: Any) -> None:
            """A batch begins, or its hires pass; or the host has loaded a model."""
            activate(p, [params.items for params in params_list])

        def deactivate(self, p: Any, *_: Any, **__: Any) -> None:
            """The job is over."""
            end_of_job(p)

    extra_networks.register_extra_network(ExtraNetworkHypernet())
    _unload_the_built_in_ones()
    _watch_the_end_of_jobs()


def _unload_the_built_in_ones() -> None:
    """Unload the built-in handler's networks: nobody calls it any more, so they would stay active
    forever.
    """
    from modules import shared

    loaded = getattr(shared, "loaded_hypernetworks", None)
    if loaded:
        loaded.clear()


def activate(p: Any, given: Sequence[Sequence[str]]) -> None:
    """Prepare the networks of the batch that begins, and apply them. Never raises.

    Args:
        p: the webui's processing object. While a model is loaded, the host calls with a bare one
            that has no prompts, in mid-sampling, too: that must not end the running job.
        given: the items of each tag of the batch's first prompt.
    """
    if not getattr(p, "all_prompts", None) or getattr(p, "prompts", None) is None:
        return

    try:
        # Not at the start: SD.Next loads its model as soon as that module is imported.
        sdnext.watch_pipelines(activate)
        sdnext.watch_infotexts()
        batch = _read(p, given)
        setattr(p, BATCH, batch)
        _write_hashes(p, batch)
        ACTIVE.ensure(p, hires=bool(getattr(p, "is_hr_pass", False)))
    except PatchError as error:
        setattr(p, BATCH, None)
        ACTIVE.remove()
        host.tell(p, f"{error} (the image is generated without hypernetworks)")
    except Exception as error:
        setattr(p, BATCH, None)
        ACTIVE.remove()
        host.tell_of_fault(p, "reading the tags", error)


def _read(p: Any, given: Sequence[Sequence[str]]) -> Batch:
    from ...patching import find_sites  # not when the webui starts: it takes time

    given = _with_added_network(p, given)
    _clean_negative_prompts(p)
    first = raw_prompts(p, "all_prompts")
    hires = (
        raw_prompts(p, "all_hr_prompts") or sdnext.hires_prompts(p)
        if getattr(p, "enable_hr", False)
        else []
    )
    parsed = {text: parse(text) for text in dict.fromkeys([*first, *hires])}
    for clean, _ in parsed.values():
        for line in near_misses(clean, loras=True):
            host.tell(p, line)

    unet = host.live_unet()
    sites = find_sites(unet) if unet is not None else []
    resolver = Resolver(folders.library(), _fits_in(sites), lambda message: host.tell(p, message))

    # The host gives the tags of one prompt, of the pass that begins: find out of which.
    tags, hires_tags = ([parsed[text][1] for text in texts] for texts in (first, hires))
    of_first, of_hires = [
        [tag.items for tag in found[0]] if found else None for found in (tags, hires_tags)
    ]
    here = [tuple(items) for items in given]
    if getattr(p, "is_hr_pass", False) or (here == of_hires and here != of_first):
        given_first, given_hires = of_first or [], here
    else:
        given_first, given_hires = here, of_hires or []

    return Batch(
        [resolver.uses(one) for one in tags_of(tags, given_first)],
        [resolver.uses(one) for one in tags_of(hires_tags, given_hires)] if hires else [],
        (unet, sites),
    )


def _fits_in(sites: Sequence[Site]) -> Callable[[Hypernetwork, Multiplier], None]:
    """A check of one network against the model that has these attention modules."""

    def check(network: Hypernetwork, multiplier: Multiplier) -> None:
        check_fit(network, multiplier, sites, any_family=settings.force_family())

    return check


def _with_added_network(p: Any, given: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
    """The setting "Add hypernetwork to prompt": adds its tag to every prompt, so that the infotext
    has it, too.
    """
    name = settings.added_network()
    if name is None or any(items and items[0] == name for items in given):
        return given
    items = (name, str(settings.default_multiplier()))
    for attribute in ("all_prompts", "all_hr_prompts"):
        prompts = getattr(p, attribute, None)
        if prompts:
            setattr(p, attribute, [_with_tag(prompt, items) for prompt in prompts])
    return [*given, items]


def _with_tag(prompt: str, items: tuple[str, str]) -> str:
    if any(tag.name == items[0] for tag in parse(prompt)[1]):
        return prompt
    return add_tag(prompt, Tag(items))


def _clean_negative_prompts(p: Any) -> None:
    """Remove tags from negative prompts and report them: they have no effect there, but their text
    would.
    """
    for attribute in ("negative_prompts", "hr_negative_prompts"):
        prompts = getattr(p, attribute, None)
        if not isinstance(prompts, list):
            continue
        if not all(isinstance(prompt, str) for prompt in prompts):
            continue

        parsed = [parse(prompt) for prompt in prompts]
        for clean, tags in parsed:
            for tag in tags:
                host.tell(p, f"{tag} has no effect in the negative prompt: move it to the prompt")
            for line in near_misses(clean, loras=True, negative=True):
                host.tell(p, line)

        if any(tags for _, tags in parsed):
            setattr(p, attribute, [clean for clean, _ in parsed])


def _write_hashes(p: Any, batch: Batch) -> None:
    parameters = getattr(p, "extra_generation_params", None)
    if parameters is None:
        return
    line = hashes_line(folders.library(), batch.entries, folders.short_hash)
    if line:
        images = range(max(len(batch.first), len(batch.hires)))
        lines = [
            hashes_line(folders.library(), batch.entries_of(image), folders.short_hash)
            for image in images
        ]
        parameters[HASHES] = LineOfImages(line, lines) if set(lines) != {line} else line
    else:
        parameters.pop(HASHES, None)


def on_step(params: Any) -> None:
    """Callback ``on_cfg_denoiser``: comes before every run of the UNet, and after a refiner has
    been loaded.
    """
    denoiser = getattr(params, "denoiser", None)
    p = getattr(denoiser, "p", None)
    if p is None:
        return

    try:
        step, total = position(denoiser)
        hires = bool(getattr(p, "is_hr_pass", False))
        ACTIVE.before_step(p, step, total, hires=hires, conditions=_conditions(denoiser))
    except Exception as error:
        setattr(p, BATCH, None)
        ACTIVE.remove()
        host.tell_of_fault(p, "applying the networks", error)


def after_step(params: Any) -> None:
    """Callback ``on_cfg_after_cfg``: the UNet has run for this step."""
    p = ACTIVE.job
    if p is not None:
        ACTIVE.after_step(p)


def position(denoiser: Any) -> tuple[int, int]:
    """``(step, steps of the pass)``.

    The host counts its runs of the UNet: two per step of a second-order sampler (one in the last
    step), which its expected total tells; PLMS has one more in its first step. Restart and DPM
    adaptive run more of them than it tells: the last step's value holds then.
    """
    # The host's two totals tell how often the sampler runs the UNet per step.
    told = max(1, int(denoiser.steps or 1))
    per_step = max(1, round((denoiser.total_steps or told) / told))
    runs = int(denoiser.step or 0)
    sampler = getattr(denoiser, "sampler", None)
    name = getattr(getattr(sampler, "config", None), "name", "")
    if name == "PLMS":
        runs = max(0, runs - 1)
    steps = _steps_by_timesteps(denoiser, told, name) if hasattr(sampler, "get_timesteps") else told

    return min(runs // per_step, steps - 1), steps


def _steps_by_timesteps(denoiser: Any, told: int, name: str) -> int:
    """Steps that DDIM, PLMS and UniPC really run: others than the host says.

    They go through a list of timesteps whose length depends on how 1000 divides; all but UniPC stop
    before its first. From an image, the list is one shorter than the steps that the host says.
    """
    starts_from_picture = getattr(denoiser, "init_latent", None) is not None
    timesteps = (
        told - 1 if starts_from_picture else len(denoiser.sampler.get_timesteps(denoiser.p, told))
    )
    return max(1, timesteps - (name != "UniPC"))


def _conditions(denoiser: Any) -> list[int] | None:
    """How many conditions each image's prompt has (several with AND); ``None`` where the host
    doesn't keep them.
    """
    arguments = getattr(getattr(denoiser, "sampler", None), "sampler_extra_args", None) or {}
    batch = getattr(arguments.get("cond"), "batch", None)
    return [len(parts) for parts in batch] if batch is not None else None


def end_of_job(p: Any) -> None:
    """Take our networks off, unless they are another job's (nested in this one, or around it).

    SD.Next may continue with the last job's object in the place of this one's: when no job is left,
    nothing may act.
    """
    # A detailer or an upscaler runs a job of its own inside this one, whose networks stay.
    try:
        if ACTIVE.job is None or ACTIVE.job is p or not _RUNNING:
            ACTIVE.remove()
    except Exception as error:
        host.tell_of_fault(p, "cleaning up", error)


def _watch_the_end_of_jobs() -> None:
    """Clean up after every job: hosts don't deactivate when a job fails or has no tags in its last
    batch.
    """
    from modules import processing

    replacing.replace(processing, "process_images_inner", _with_an_end)


def _with_an_end(original: Callable[..., Any]) -> Callable[..., Any]:
    def process_images_inner(p: Any, *arguments: Any, **named: Any) -> Any:
        host.begin_messages(p)
        _own_parameters(p)
        _RUNNING.append(p)
        try:
            processed = original(p, *arguments, **named)
        finally:
            _RUNNING.pop()
            end_of_job(p)
            p.__dict__.pop(BATCH, None)
            host.end_messages(p)
            folders.trim()
        _show_messages(host.messages(p), processed)
        return processed

    return process_images_inner


def _own_parameters(p: Any) -> None:
    """Give a job inside another one its own parameters for infotexts, if it was given the other's:
    its hashes are not those of the images around it.
    """
    parameters = getattr(p, "extra_generation_params", None)
    if any(
        other is not p and getattr(other, "extra_generation_params", None) is parameters
        for other in _RUNNING
    ) and isinstance(parameters, dict):
        p.extra_generation_params = dict(parameters)


def _show_messages(told: Sequence[str], processed: Any) -> None:
    parameters = getattr(processed, "extra_generation_params", None)
    # The images have their infotexts by now: this is for the API. The dictionary itself is the
    # job's, and scripts such as "Prompts from file" hand it on to the next job.
    if told and isinstance(parameters, dict):
        processed.extra_generation_params = {**parameters, MESSAGES: "\n".join(told)}
    comments = getattr(processed, "comments", None)
    missing = [
        f"Hypernetworks: {line}"
        for line in told
        if isinstance(comments, str) and line not in comments
    ]
    if missing:  # SD.Next doesn't hand the job's comments on
        processed.comments = "\n".join([*filter(None, [comments]), *missing])
