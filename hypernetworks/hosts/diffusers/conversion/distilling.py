"""A LoRA trained until the UNet predicts with it what it predicts with networks.

The examples are what the UNet is asked while images are generated: with the networks on, and later
also with the LoRA, since small errors lead it to noisy images that the networks never meet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import nn

from ....conversion import Base, Weighted
from ....conversion.lora_files import Narrow
from ....conversion.low_rank import Factors
from ....errors import HypernetworkError
from ....patching import apply
from .least_squares import added, changes_of, scaled
from .recording import Pair, Recorder, joined
from .sampling import Generator

PER_ROUND = 16
"""Images that new examples come from."""
ROUNDS = 4
"""Rounds whose examples are kept."""
REUSE = 2
"""How often an example is seen in the mean."""
TOKENS = 2048
"""Of the largest feature map that goes through the UNet at once, over all rows."""


@dataclass(frozen=True)
class Training:
    """How a LoRA is distilled.

    Attributes:
        steps: of the optimiser.
        rate: the largest learning rate; it falls along half a cosine.
        batch: noisy images in a step.
        rank: of all factors; ``None`` is the largest with which the file isn't larger than the
            networks.
        seed: of prompts, noise and initial weights.
    """

    steps: int = 1000
    rate: float = 2e-3
    batch: int = 8
    rank: int | None = None
    seed: int = 0


class Student:
    """The LoRA in training: factors for every linear layer of the attention blocks.

    Args:
        unet: which stays as it is.
        base: the same on the disk.
        rank: of all factors.
        start: what least squares found, by name of the module; the others start at nothing.
        seed: of the initial weights.
    """

    def __init__(
        self, unet: nn.Module, base: Base, rank: int, start: dict[str, Factors], seed: int
    ) -> None:
        self.unet, self.originals = unet, dict(linear_layers(unet, base))
        self.modules = {path: unet.get_submodule(path) for path in self.originals}

        generator = torch.Generator().manual_seed(seed)
        self.up, self.down = dict[str, nn.Parameter](), dict[str, nn.Parameter]()
        for path, module in self.modules.items():
            weight: Any = module.weight
            outer, inner = weight.shape[:2]
            up, down = torch.zeros(outer, rank), torch.randn(rank, inner, generator=generator)
            # as usual for LoRAs, up starts at zero: no layer changes anything at first
            down *= inner**-0.5
            if path in start:
                width = start[path].rank
                up[:, :width], down[:width] = start[path].up, start[path].down
            self.up[path], self.down[path] = (
                nn.Parameter(tensor.to(weight.device)) for tensor in (up, down)
            )

    def parameters(self) -> list[nn.Parameter]:
        """Everything that is trained, in fp32."""
        return [*self.up.values(), *self.down.values()]

    def weights(self, multiplier: float) -> dict[str, torch.Tensor]:
        """The weights of all layers with the LoRA in them; gradients flow to its factors."""
        found = {}
        for path, module in self.modules.items():
            weight: Any = module.weight
            change = multiplier * (self.up[path] @ self.down[path])
            found[f"{path}.weight"] = weight + change.to(weight.dtype).view_as(weight)
        return found

    def parts(self) -> list[Narrow]:
        """What is written into a file."""
        found = []
        for path, module in self.modules.items():
            weight: Any = module.weight
            up, down = (d[path].detach().cpu().clone() for d in (self.up, self.down))
            found.append(Narrow(path, self.originals[path], up, down, tuple(weight.shape[2:])))
        return found


def linear_layers(unet: nn.Module, base: Base) -> Iterator[tuple[str, str]]:
    """Linear layers and 1x1 convolutions of the attention blocks: those that every LoRA may have.

    Yields:
        The name in diffusers' UNet, and in the original layout.
    """
    blocks = {
        layer.path.split(".transformer_blocks.")[0]: layer.original.split(".transformer_blocks.")[0]
        for layer in base.layers
    }

    for block, original in blocks.items():
        for name, module in unet.get_submodule(block).named_modules():
            is_linear = isinstance(module, nn.Linear)
            if is_linear or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)):
                yield f"{block}.{name}", f"{original}.{name}"


def rank_within(unet: nn.Module, base: Base, size: int, itemsize: int) -> int:
    """The largest rank with which the file isn't larger than that.

    Args:
        size: in bytes.
        itemsize: bytes of each number.
    """
    per_rank = overhead = 0
    for path, _ in linear_layers(unet, base):
        weight: Any = unet.get_submodule(path).weight
        per_rank += itemsize * sum(weight.shape[:2])
        overhead += 3 * 180  # in the header, for names and shapes of three tensors
    return max(1, (size - overhead) // max(per_rank, 1))


def distil(
    student: Student,
    networks: Sequence[Weighted],
    generator: Generator,
    prompts: Sequence[str],
    training: Training,
    *,
    on_step: Callable[[], object] = lambda: None,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Train the student; returns the steps that were done.

    Args:
        networks: what it learns to replace.
        prompts: that the examples are generated from.
        on_step: told of each step.
        stop: asked after each step whether to end now.

    Raises:
        HypernetworkError: the numbers overflow.
    """
    # gradients are wanted for the LoRA alone
    student.unet.requires_grad_(False)
    unet, random, done = student.unet, Random(training.seed), 0
    recorder = Recorder(unet, generator.cfg)
    factors = generator.sampling.multipliers
    kept: dict[float, list[Pair]] = {factor: [] for factor in factors}
    adam = torch.optim.Adam(student.parameters(), lr=training.rate, betas=(0.9, 0.99))
    round_number = 0
    while done < training.steps and not stop():
        factor = factors[round_number % len(factors)]
        is_own = round_number // len(factors) % 2 == 1 and done > 0.15 * training.steps
        chosen = [random.choice(prompts) for _ in range(PER_ROUND)]
        seeds = [random.randrange(1 << 31) for _ in chosen]
        # the networks answer in both cases; whose images they are asked about changes
        teacher = scaled(networks, factor)
        if is_own:
            with added(unet, changes_of(student.parts(), torch.float32, factor)), recorder:
                generator(chosen, seeds, decode=False)
            with apply(unet, teacher):
                new = recorder.answered()
        else:
            with apply(unet, teacher), recorder:
                generator(chosen, seeds, decode=False)
            new = recorder.pairs()

        own = kept[factor] = (kept[factor] + new)[-ROUNDS * len(new) :]
        for _ in range(max(1, REUSE * len(new) // training.batch)):
            if done >= training.steps or stop():
                break
            batch = [random.choice(own) for _ in range(training.batch)]
            _set_rate(adam, training, done)
            _step(student, adam, batch, factor, recorder.cfg)
            done += 1
            on_step()
        round_number += 1
    return done


def _set_rate(adam: torch.optim.Optimizer, training: Training, done: int) -> None:
    # Adam's first steps go by few gradients, and could undo the least squares
    warm = min(1.0, (done + 1) / 30)
    fallen = 0.5 * (1 + math.cos(math.pi * done / training.steps))
    for group in adam.param_groups:
        group["lr"] = training.rate * warm * max(0.02, fallen)


def _step(
    student: Student,
    adam: torch.optim.Optimizer,
    batch: Sequence[Pair],
    factor: float,
    cfg: float,
) -> None:
    adam.zero_grad()
    # fp16 has no room for small gradients: they are scaled up, and back again
    half = next(student.unet.parameters()).dtype == torch.float16
    scale = 1024.0 if half else 1.0
    height, width = batch[0].sample.shape[-2:]
    at_once = max(1, TOKENS // (2 * height * width))
    for begin in range(0, len(batch), at_once):
        part = batch[begin : begin + at_once]
        asked, wanted = joined(part)
        made = torch.func.functional_call(student.unet, student.weights(factor), (), asked)[0]
        loss = _loss(made.float() - wanted.float(), len(batch[0].contexts), cfg)
        (scale * loss * len(part) / len(batch)).backward()  # type: ignore[no-untyped-call]

    for parameter in student.parameters():
        if parameter.grad is not None:
            parameter.grad /= scale
    length = nn.utils.clip_grad_norm_(student.parameters(), 1.0)
    if length.isfinite():
        adam.step()
    elif not half:
        raise HypernetworkError(
            "the training of the LoRA failed, since its numbers overflow: use a lower "
            "--learning-rate"
        )


def _loss(error: torch.Tensor, halves: int, cfg: float) -> torch.Tensor:
    """Of the guided prediction, which is what sampling uses, and a little of its two parts.

    Args:
        error: ``(halves * pairs, channels, height, width)``, first those of the negative prompt.
    """
    if halves == 1:
        return error.square().mean()
    negative, positive = error.chunk(2)
    guided = cfg * positive + (1 - cfg) * negative
    # guidance magnifies what the two parts differ in, and with it the errors
    return guided.square().mean() / cfg**2 + 0.1 * error.square().mean()
