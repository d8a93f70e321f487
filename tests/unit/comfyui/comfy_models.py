"""A model of the fake ComfyUI with a small UNet, and networks that fit it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from laws.small_ldm import CONTEXT, SmallUNet
from torch import nn

import hypernetworks as hn
from hypernetworks.engine.initialising import create_network

WIDTHS = (8, CONTEXT, 16, 32)


class Model(nn.Module):
    """What ComfyUI calls a base model: a UNet below wrappers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.diffusion_model = SmallUNet().requires_grad_(False)
        self.seen: list[float] = []

    def run(
        self, x: torch.Tensor, t: torch.Tensor, _: Any, context: torch.Tensor, *__: Any
    ) -> torch.Tensor:
        return self.diffusion_model(x, t.expand(len(x)), context=context.expand(len(x), -1, -1))


class Patcher:
    """A model patcher: clones share the model."""

    def __init__(self, model: Model) -> None:
        self.model, self.wrappers, self.attachments = model, dict[str, Any](), dict[str, Any]()

    def clone(self) -> Patcher:
        clone = Patcher(self.model)
        clone.attachments = dict(self.attachments)
        clone.wrappers = {k: {n: [*f] for n, f in w.items()} for k, w in self.wrappers.items()}
        return clone

    def set_attachments(self, key: str, attachment: Any) -> None:
        self.attachments[key] = attachment

    def get_attachment(self, key: str) -> Any:
        return self.attachments.get(key)

    def add_wrapper_with_key(self, wrapper_type: str, key: str, wrapper: Any) -> None:
        self.wrappers.setdefault(wrapper_type, {}).setdefault(key, []).append(wrapper)

    def remove_wrappers_with_key(self, wrapper_type: str, key: str) -> None:
        self.wrappers.get(wrapper_type, {}).pop(key, None)

    def sampled(self, x: torch.Tensor, steps: int, conds: Any) -> torch.Tensor:
        return sample(self, conds, torch.linspace(10, 0, steps + 1), x=x)


def sample_euler(guider: Any, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        x = x + guider.evaluate(x, sigma) * (following - sigma) / 100
    return x


def sample_heun(guider: Any, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        step = (following - sigma) / 100
        first = guider.evaluate(x, sigma)
        ahead = guider.evaluate(x + first * step, following) if following else first
        x = x + (first + ahead) / 2 * step
    return x


def sample(
    patcher: Patcher,
    conds: Any = None,
    sigmas: torch.Tensor | None = None,
    how: Callable[..., torch.Tensor] = sample_euler,
    x: torch.Tensor | None = None,
) -> torch.Tensor:
    """A picture."""
    from comfy.samplers import CFGGuider

    guider = CFGGuider(patcher)
    guider.conds = conds or [conditioning()]
    noise = x if x is not None else latent()
    steps = torch.tensor([8.0, 4.0, 2.0, 0.0]) if sigmas is None else sigmas
    with torch.inference_mode():
        return guider.sample(noise, SimpleNamespace(sampler_function=how), steps)


def latent(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(1))


def conditioning(seed: int = 2) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, 5, CONTEXT, generator=generator), {}]


def write(folder: Path, name: str, activation: str = "relu", seed: int = 0) -> Path:
    """A network that changes the picture."""
    structure = hn.Structure((1, 2, 1), activation, activate_output=False)
    network = create_network(
        name, structure, WIDTHS, initialisation="XavierNormal", zero_last=False, seed=seed
    )
    path = folder / f"{name}.pt"
    hn.write(network, path)
    return path
