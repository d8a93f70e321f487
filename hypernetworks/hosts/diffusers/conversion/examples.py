"""Noisy images to ask a UNet about: images that were generated once, with new noise each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .sampling import Generator


@dataclass(frozen=True)
class Made:
    """An image that was generated, and what the UNet was given for it, on the CPU.

    Attributes:
        latent: ``(channels, height, width)``, without noise.
        contexts: ``(halves, tokens, dim)``: of the negative prompt and of the prompt, or of the
            prompt alone.
        more: ``added_cond_kwargs`` of SDXL, ``(halves, …)`` each.
    """

    latent: torch.Tensor
    contexts: torch.Tensor
    more: Mapping[str, torch.Tensor]


def make(generator: Generator, prompts: Sequence[str], seeds: Sequence[int]) -> list[Made]:
    """Generate images as examples, with the UNet as it is now."""
    unet, found = generator.pipeline.unet, list[Made]()
    halves = 2 if generator.cfg > 1 else 1
    given: dict[str, Any] = {}

    def note(_module: object, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        names = ("sample", "timestep", "encoder_hidden_states")
        given.update(dict(zip(names, arguments, strict=False)) | options)

    hook = unet.register_forward_pre_hook(note, with_kwargs=True)
    try:
        for latents in generator.latents(prompts, seeds):
            # pipelines put all negative prompts first
            contexts, more = (
                given["encoder_hidden_states"],
                given.get("added_cond_kwargs") or {},
            )
            for number, latent in enumerate(latents):
                rows = [half * len(latents) + number for half in range(halves)]
                found.append(
                    Made(
                        _kept(latent),
                        _kept(contexts[rows]),
                        {name: _kept(tensor[rows]) for name, tensor in more.items()},
                    )
                )
    finally:
        hook.remove()
    return found


def _kept(tensor: torch.Tensor) -> torch.Tensor:
    # copies: pipelines go on in the same memory
    return tensor.to("cpu", copy=True)


class Noise:
    """Adds the noise of a random timestep, as in training.

    Args:
        scheduler: of the pipeline.
        seed: of timesteps and noise.
    """

    def __init__(self, scheduler: Any, seed: int) -> None:
        self._kept: torch.Tensor = scheduler.alphas_cumprod.detach().float().cpu()
        self._random = torch.Generator().manual_seed(seed)

    def asked(self, images: Sequence[Made], device: torch.device | str) -> dict[str, Any]:
        """Arguments of one call of the UNet for noisy copies of images, negative prompts first."""
        halves, dtype = len(images[0].contexts), images[0].contexts.dtype
        latents = torch.stack([image.latent for image in images]).float()
        times = torch.randint(len(self._kept), (len(images),), generator=self._random)
        noise = torch.randn(latents.shape, generator=self._random)
        share = self._kept[times].view(-1, 1, 1, 1)
        noisy = share.sqrt() * latents + (1 - share).sqrt() * noise

        asked: dict[str, Any] = {
            "sample": noisy.to(device, dtype).repeat(halves, 1, 1, 1),
            "timestep": times.to(device).repeat(halves),
            "encoder_hidden_states": _joined([i.contexts for i in images], device),
            "return_dict": False,
        }
        # Of SDXL: sizes and the pooled text, which belong to the contexts.
        if images[0].more:
            asked["added_cond_kwargs"] = {
                name: _joined([image.more[name] for image in images], device)
                for name in images[0].more
            }
        return asked


def _joined(tensors: Sequence[torch.Tensor], device: torch.device | str) -> torch.Tensor:
    """``(halves, …)`` of each image -> ``(halves * images, …)``."""
    return torch.stack(list(tensors), 1).flatten(0, 1).to(device)
