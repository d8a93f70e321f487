"""Schedule-free AdamW (Defazio et al. 2024, arXiv 2405.15682): an average of the weights takes the
place of a falling learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch


class ScheduleFreeAdamW(torch.optim.Optimizer):
    """AdamW that needs no schedule: the result is an average, which weighs steps by the square of
    their rate, so that a warm-up counts for little.

    Gradients are taken between the fast weights and their average; those weights are what the
    parameters hold while it trains. :meth:`eval` puts the average there, :meth:`train` brings the
    others back.

    Args:
        params: fp32.
        lr: learning rate of the fast weights, which may differ from step to step.
        betas: how near to the average gradients are taken, above 0; and the decay of the mean
            square of the gradients.
        eps: keeps tiny gradients from being scaled up to full steps.
        weight_decay: as in AdamW.

    Raises:
        ValueError: a number that makes no sense.
    """

    def __init__(
        self,
        params: Iterable[torch.Tensor] | Iterable[dict[str, Any]],
        lr: float = 2.5e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        first, second = betas
        if not (0 < first < 1 and 0 <= second < 1):
            raise ValueError(
                f"betas are {betas}: the first must lie between 0 and 1, the second, too"
            )
        if lr < 0 or eps <= 0 or weight_decay < 0:
            raise ValueError("lr and weight_decay must not be negative, and eps must be positive")

        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)
        for group in self.param_groups:
            group |= {"steps": 0, "weights": 0.0, "is_averaged": False}

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        """Move the fast weights against the gradients, and the average towards them.

        Raises:
            RuntimeError: the parameters hold the average.
        """
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            if group["is_averaged"]:
                raise RuntimeError("the parameters hold the average: call train() before step()")
            pairs = [(p, p.grad) for p in group["params"] if p.grad is not None]
            if pairs:
                self._change(group, *map(list, zip(*pairs, strict=True)))
        return loss

    def _change(
        self, group: dict[str, Any], live: list[torch.Tensor], gradients: list[torch.Tensor]
    ) -> None:
        rate, (near, decay) = group["lr"], group["betas"]
        group["steps"] += 1
        group["weights"] += rate**2
        share = rate**2 / group["weights"] if group["weights"] else 1.0

        for parameter in live:
            if not (own := self.state[parameter]):
                own["fast"] = parameter.detach().clone()
                own["squares"] = torch.zeros_like(parameter)
        fast = [self.state[parameter]["fast"] for parameter in live]
        squares = [self.state[parameter]["squares"] for parameter in live]

        torch._foreach_mul_(squares, decay)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - decay)
        scale = list(torch._foreach_sqrt(squares))
        torch._foreach_div_(scale, math.sqrt(1 - decay ** group["steps"]))
        torch._foreach_add_(scale, group["eps"])
        change = list(torch._foreach_div(gradients, scale))
        if group["weight_decay"]:
            torch._foreach_add_(change, live, alpha=group["weight_decay"])

        # The average is never stored: it follows from the other two. With x for it, z for the fast
        # weights and y = near * x + (1 - near) * z for what the parameters hold, moving x by its
        # share of the way to the new z gives the new y as below.
        torch._foreach_mul_(live, 1 - share)
        torch._foreach_add_(live, fast, alpha=share)
        torch._foreach_add_(live, change, alpha=-rate * (1 - near * (1 - share)))
        torch._foreach_add_(fast, change, alpha=-rate)

    def eval(self) -> None:
        """The parameters hold the average of the weights, which is the result."""
        self._switch(is_averaged=True)

    def train(self) -> None:
        """The parameters hold the weights at which gradients are taken."""
        self._switch(is_averaged=False)

    @torch.no_grad()
    def _switch(self, *, is_averaged: bool) -> None:
        for group in self.param_groups:
            if group["is_averaged"] == is_averaged:
                continue
            group["is_averaged"] = is_averaged

            near = group["betas"][0]
            known = [p for p in group["params"] if self.state[p]]
            fast = [self.state[p]["fast"] for p in known]
            if known:
                scale = 1 / near if is_averaged else near
                torch._foreach_mul_(known, scale)
                torch._foreach_add_(known, fast, alpha=1 - scale)
