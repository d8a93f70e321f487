"""Jobs of a webui on a real UNet: the fake webui, told to sample with the miniature in the order in
which hosts do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from fake_webui import FakeWebui
from torch import nn

from hypernetworks.hosts.webui import registration
from hypernetworks.hosts.webui.active import ACTIVE
from hypernetworks.patching.handle import MARK

ERRORS: tuple[type[BaseException], ...] = (
    RuntimeError,
    MemoryError,
    torch.cuda.OutOfMemoryError,
    OSError,
    KeyboardInterrupt,
    SystemExit,
)
"""What may be raised anywhere: by ordinary code, by a full memory or device, by a driver, by the
user."""


def left_on(unet: nn.Module) -> list[str]:
    """Everything on a UNet that a handle puts there: hooks, forwards of single modules, its
    mark.
    """
    found = [f"{path}.{MARK}" for path, part in unet.named_modules() if MARK in vars(part)]
    for path, part in unet.named_modules():
        found += [
            f"{path}.{name}"
            for name, value in vars(part).items()
            if name.endswith("_hooks") and value
        ]
        found += [f"{path}.forward"] if "forward" in vars(part) else []
    return found


@dataclass
class Denoised:
    """What a job gives.

    Attributes:
        latents: ``(pictures, channels, height, width)``.
        told: what the user was told, in order.
    """

    latents: torch.Tensor
    extra_generation_params: dict[str, str] = field(default_factory=dict)
    comments: str = ""
    told: list[str] = field(default_factory=list)


class WebuiWithUNet:
    """A webui with our extension in it, whose checkpoint can be exchanged.

    Args:
        webui: the fake that is installed.
        unet: of diffusers.
        encode: prompts and negative prompts to their encodings ``(batch, tokens, width)``.
        scheduler: makes a fresh one for each job.
    """

    def __init__(
        self,
        webui: FakeWebui,
        unet: nn.Module,
        encode: Callable[[list[str], list[str]], tuple[torch.Tensor, torch.Tensor]],
        scheduler: Callable[[], Any],
    ) -> None:
        self.webui, self._encode, self._scheduler = webui, encode, scheduler
        self.load(unet)
        webui.module("processing").process_images_inner = self._process
        self.start()

    def load(self, unet: nn.Module | None) -> None:
        """A checkpoint is loaded; or none is."""
        holder = (
            None if unet is None else SimpleNamespace(model=SimpleNamespace(diffusion_model=unet))
        )
        self.webui.shared.sd_model = holder

    def start(self) -> None:
        """Load the scripts."""
        registration.register()
        self.webui.module("script_callbacks").before_ui_callback()

    def reload(self, *, with_us: bool = True) -> None:
        """Reload UI; without the extension where it has been disabled."""
        callbacks = self.webui.module("script_callbacks")
        callbacks.script_unloaded_callback()
        callbacks.callback_map.clear()
        self.webui.module("extra_networks").initialize()
        if with_us:
            self.start()

    def job(
        self,
        prompts: Sequence[str],
        *,
        steps: int = 2,
        seed: int = 0,
        size: int = 4,
        during: Callable[[int], object] = lambda _: None,
        **fields: Any,
    ) -> Denoised:
        """Make one batch of pictures.

        Args:
            prompts: one for each picture.
            size: of the latents.
            during: called before the UNet runs at each step, after the host's callbacks.
        """
        processing = self.webui.module("processing")
        p = processing.StableDiffusionProcessing(prompts[0], batch_size=len(prompts), **fields)
        p.all_prompts, p.steps, p.size, p.seed, p.during = list(prompts), steps, size, seed, during
        self.last = p
        done: Denoised = processing.process_images_inner(p)
        done.told = list(getattr(p, "_hypernetwork_messages", []))
        return done

    def told(self) -> list[str]:
        """What the user of the last job was told, even where it failed."""
        return list(getattr(self.last, "_hypernetwork_messages", []))

    @torch.inference_mode()
    def _process(self, p: Any) -> Denoised:
        """As hosts do it: the end is told only where nothing went wrong."""
        networks = self.webui.module("extra_networks")
        p.prompts = p.all_prompts
        clean, tags = networks.parse_prompts(p.prompts)
        p.negative_prompts = [p.negative_prompt] * len(clean)
        if not p.disable_extra_networks:
            networks.activate(p, tags)
        latents = self._sample(p, clean)
        if not p.disable_extra_networks:
            networks.deactivate(p, tags)
        return Denoised(latents, dict(p.extra_generation_params))

    def _sample(self, p: Any, clean: list[str]) -> torch.Tensor:
        callbacks, shared = self.webui.module("script_callbacks"), self.webui.shared
        generators = [torch.Generator().manual_seed(p.seed + i) for i in range(len(clean))]
        channels = int(shared.sd_model.model.diffusion_model.config.in_channels)
        latents = torch.stack(
            [torch.randn(channels, p.size, p.size, generator=g) for g in generators]
        )
        contexts = torch.cat(
            self._encode(clean, p.negative_prompts)
        )  # pictures first, as AUTOMATIC1111 orders them
        scheduler = self._scheduler()
        scheduler.set_timesteps(p.steps)
        denoiser = SimpleNamespace(p=p, step=0, steps=p.steps, total_steps=p.steps, sampler=None)
        for step, time in enumerate(scheduler.timesteps):
            denoiser.step = step
            callbacks.call("cfg_denoiser", SimpleNamespace(denoiser=denoiser))
            p.during(step)
            if shared.state.interrupted:
                break
            unet = shared.sd_model.model.diffusion_model
            dtype = next(unet.parameters()).dtype
            pair = unet(
                torch.cat([latents] * 2).to(dtype), time, encoder_hidden_states=contexts.to(dtype)
            ).sample
            wanted, unwanted = pair.float().chunk(2)
            callbacks.call("cfg_after_cfg", SimpleNamespace())
            latents = scheduler.step(unwanted + 3 * (wanted - unwanted), time, latents).prev_sample
        return latents


def forget() -> None:
    """The one set of acting networks outlives a fake webui."""
    ACTIVE.remove()
