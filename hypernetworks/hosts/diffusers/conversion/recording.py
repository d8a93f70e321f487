"""What the UNet is asked while images are generated, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import nn

PART = 16
"""Rows that networks answer at once."""


@dataclass(frozen=True)
class Pair:
    """One noisy image, asked about with the negative prompt and with the prompt, or with the prompt
    alone.

    Attributes:
        sample: ``(channels, height, width)``.
        time: the timestep.
        contexts: ``(halves, tokens, dim)``.
        more: ``added_cond_kwargs`` of SDXL, ``(halves, …)`` each.
        answers: ``(halves, channels, height, width)``.
    """

    sample: torch.Tensor
    time: torch.Tensor
    contexts: torch.Tensor
    more: Mapping[str, torch.Tensor]
    answers: torch.Tensor


class Recorder:
    """A context manager that notes all calls of a UNet inside.

    Args:
        unet: of diffusers.
        cfg: the guidance scale; at 1 or below, there is no negative prompt.
    """

    def __init__(self, unet: nn.Module, cfg: float) -> None:
        self.unet, self.cfg = unet, cfg
        self._pairs: list[Pair] = []
        self._hook: Any = None

    def __enter__(self) -> Recorder:
        self._pairs = []
        self._hook = self.unet.register_forward_hook(self._note, with_kwargs=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._hook.remove()

    def pairs(self) -> list[Pair]:
        """What was noted."""
        return self._pairs

    def answered(self) -> list[Pair]:
        """The same questions, answered by the UNet as it is now."""
        found = []
        for begin in range(0, len(self._pairs), PART):
            part = self._pairs[begin : begin + PART]
            asked, _ = joined(part)
            with torch.no_grad():
                answers = self.unet(**asked)[0]
            halves = len(part[0].contexts)
            for number, pair in enumerate(part):
                mine = answers.unflatten(0, (halves, len(part)))[:, number].clone()
                found.append(Pair(pair.sample, pair.time, pair.contexts, pair.more, mine))
        return found

    def _note(
        self, module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any], output: Any
    ) -> None:
        names = ("sample", "timestep", "encoder_hidden_states")
        given = dict(zip(names, arguments, strict=False)) | options
        sample, contexts = given["sample"], given["encoder_hidden_states"]
        more = given.get("added_cond_kwargs") or {}
        answers = output[0] if isinstance(output, tuple) else output.sample

        # pipelines put all negative prompts first
        halves = 2 if self.cfg > 1 else 1
        count = len(sample) // halves
        for number in range(count):
            rows = [half * count + number for half in range(halves)]
            self._pairs.append(
                Pair(
                    # copies: pipelines go on in the same memory
                    sample[number].clone(),
                    torch.as_tensor(given["timestep"]).reshape(-1)[0].clone(),
                    contexts[rows].clone(),
                    {name: tensor[rows].clone() for name, tensor in more.items()},
                    answers[rows].clone(),
                )
            )


def joined(pairs: Sequence[Pair]) -> tuple[dict[str, Any], torch.Tensor]:
    """Arguments of one call of the UNet for many pairs, negative prompts first, and the answers."""
    halves = len(pairs[0].contexts)
    sample = torch.stack([pair.sample for pair in pairs])
    asked: dict[str, Any] = {
        "sample": sample.repeat(halves, 1, 1, 1),
        "timestep": torch.stack([pair.time for pair in pairs]).to(sample.device).repeat(halves),
        "encoder_hidden_states": torch.stack([p.contexts for p in pairs], 1).flatten(0, 1),
        "return_dict": False,
    }

    # Of SDXL: sizes and the pooled text, which belong to the contexts.
    if pairs[0].more:
        asked["added_cond_kwargs"] = {
            name: torch.stack([pair.more[name] for pair in pairs], 1).flatten(0, 1)
            for name in pairs[0].more
        }

    return asked, torch.stack([pair.answers for pair in pairs], 1).flatten(0, 1)
