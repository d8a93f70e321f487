"""A toy UNet, and examples that its context alone can tell, for the tests of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import hypernetworks as hn
from hypernetworks.training import (
    Batch,
    Caption,
    Example,
    Examples,
    NoiseSchedule,
    Run,
    TrainingSettings,
)
from hypernetworks.training.contexts import Condition, Contexts

DIM = 16
SCHEDULE = NoiseSchedule(
    torch.linspace(0.02, 1e-4, 20), "v_prediction"
)  # mostly noise: the context tells


class ToyUnet(nn.Module):
    """Self-attention and cross-attention over the latents' pixels, between two linear maps."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(4, DIM), nn.Linear(DIM, 4)
        self.attn1, self.attn2 = nn.Module(), nn.Module()
        for attention in (self.attn1, self.attn2):
            attention.to_q, attention.to_k, attention.to_v = (nn.Linear(DIM, DIM) for _ in range(3))

    def attend(
        self, attention: nn.Module, hidden: torch.Tensor, context: torch.Tensor
    ) -> torch.Tensor:
        query, key, value = attention.to_q(hidden), attention.to_k(context), attention.to_v(context)
        return hidden + torch.softmax(query @ key.transpose(1, 2) / DIM**0.5, -1) @ value

    def forward(
        self, latents: torch.Tensor, times: torch.Tensor, context: torch.Tensor
    ) -> torch.Tensor:
        hidden = self.into(latents.flatten(2).transpose(1, 2))
        hidden = self.attend(self.attn1, hidden, hidden)
        hidden = self.attend(self.attn2, hidden, context)
        return self.out(hidden).transpose(1, 2).reshape(latents.shape)


def encode(texts: Sequence[str]) -> list[Condition]:
    """A context per text, from its letters."""
    generators = [torch.Generator().manual_seed(sum(map(ord, text))) for text in texts]
    return [{"context": torch.randn(3, DIM, generator=generator)} for generator in generators]


def toy_examples(count: int = 6, **changes: Any) -> list[Example]:
    """Pictures of one brightness each, which their captions tell."""
    contexts = encode([f"picture {i}" for i in range(count)])
    return [
        Example(
            f"{i}",
            Caption((f"picture {i}",)),
            (c["context"].mean().expand(4, 2, 2).clone(),),
            **changes,
        )
        for i, c in enumerate(contexts)
    ]


def toy_settings(**changes: Any) -> TrainingSettings:
    """A short run; ``changes`` are settings."""
    usual: dict[str, Any] = {
        "steps": 8,
        "rate": "1e-2",
        "warm_up": 2,
        "batch": 4,
        "save_every": 2,
        "watch_every": 0,
    }
    return TrainingSettings(**usual | changes)


class Toy:
    """A toy UNet with a fresh network applied, as in a fresh process. Made from the same seed each
    time.

    Args:
        structure: of the network.
        examples: in place of the usual ones.
        dtype: of everything.
    """

    def __init__(
        self,
        structure: hn.Structure | None = None,
        examples: Sequence[Example] | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        zero_last: bool = True,
    ) -> None:
        torch.manual_seed(3)
        self.dtype = dtype
        self.unet = ToyUnet().to(dtype).requires_grad_(False)
        structure = structure or hn.Structure((1, 2, 1), "relu", activate_output=False)
        self.network = hn.Hypernetwork.create("toy", structure, (DIM,))
        self.network.to("cpu", dtype)
        if not zero_last:
            for parameter in self.network.parameters():
                nn.init.normal_(parameter, std=0.3)
        self.network.train()
        self.contexts = Contexts(encode)
        self.examples = toy_examples() if examples is None else examples
        self.handle = hn.apply(self.unet, [(self.network, 1.0)])

    def predict(self, noisy: torch.Tensor, times: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The toy UNet's prediction."""
        prediction: torch.Tensor = self.unet(
            noisy.to(self.dtype), times, batch.context.to(self.dtype)
        )
        return prediction

    def run(self, settings: TrainingSettings, folder: Path | None = None, **others: Any) -> Run:
        """A run on it."""
        examples = Examples(
            self.examples,
            self.contexts,
            batch=settings.samples_per_step,
            caption_dropout=settings.caption_dropout,
            seed=settings.seed,
        )
        predict = others.pop("predict", self.predict)
        return Run(self.network, predict, examples, SCHEDULE, settings, folder=folder, **others)

    def weights(self) -> list[torch.Tensor]:
        """A copy of the network's parameters."""
        return [p.detach().clone() for p in self.network.parameters()]


def same(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> bool:
    """Whether two lists of tensors are equal, bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


class Floating(torch.optim.SGD):
    """An optimiser of another package: it trains one set of weights, and its result is another, as
    schedule-free ones have it; and it keeps what it has found in its groups, as Prodigy does.
    """

    def __init__(self, params: Any, lr: float = 1.0, momentum: float = 0.5) -> None:
        super().__init__(params, lr=lr, momentum=momentum)
        for group in self.param_groups:
            group.setdefault("found", 1.0)
            group.setdefault("live", False)

    def _moved(self, live: bool) -> None:
        for group in self.param_groups:
            if group["live"] != live:
                for parameter in group["params"]:
                    parameter.data.mul_(2.0 if live else 0.5)
            group["live"] = live

    def train(self) -> None:
        self._moved(True)

    def eval(self) -> None:
        self._moved(False)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            assert group["live"]
            group["found"] *= 0.9
            group["lr"] *= group["found"]
        super().step()
