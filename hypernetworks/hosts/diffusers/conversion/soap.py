"""Adam in the directions that gradients have (SOAP: Vyas et al. 2024, arXiv 2409.11321).

Inputs of attention layers are strongly correlated, so a LoRA's factors have directions in which the
loss is steep, and others in which it is flat. Adam scales each number by itself, whichever way
these lie; here, a matrix is turned into the directions first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

REMEMBERED = 0.95
"""Of the gradients' second moments, at each step."""
REFRESHED = 20
"""Steps after which the directions are brought up to date: a decomposition each."""
WIDEST = 768
"""Longest side that is turned. Two square matrices are kept of each: 0.6 GB for a LoRA of SD1.5 or
SDXL, and many GB with wider ones."""

Change = Callable[[torch.Tensor], torch.Tensor]


class Soap(torch.optim.Optimizer):
    """Adam, with steps measured in the eigenvectors of the gradients' second moments.

    The first step only gathers: there is nothing to measure it by.

    Args:
        params: matrices, fp32. Those that are factors of a LoRA have one short side.
        lr: about the change of each number in a step, as Adam's.
        betas: decay of the mean of the gradients, and of their mean square.
        eps: as a share of the steepest direction: what is flatter than that counts as rounding, and
            isn't scaled up to a full step.

    Raises:
        ValueError: a parameter isn't a matrix.
    """

    def __init__(
        self,
        params: Iterable[torch.Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-5,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})
        for group in self.param_groups:
            if any(parameter.ndim != 2 for parameter in group["params"]):
                raise ValueError("Soap trains matrices only")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Move the parameters that have gradients, against them."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()

        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
        return loss

    def _move(self, parameter: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state |= {
                "steps": 0,
                "mean": torch.zeros_like(parameter),
                "square": torch.zeros_like(parameter),
                "left": _Side.of(gradient),
                "right": _Side.of(gradient.T),
            }
            return

        state["steps"] += 1
        left, right, steps = state["left"], state["right"], state["steps"]
        first, second = group["betas"]
        state["mean"].lerp_(gradient, 1 - first)
        turned = _on_both(gradient, left.turned, right.turned)
        state["square"].lerp_(turned.square(), 1 - second)

        # Means begin at zero: both are divided by the weight that steps have had so far.
        mean = _on_both(state["mean"], left.turned, right.turned) / (1 - first**steps)
        root = (state["square"] / (1 - second**steps)).sqrt()
        least = (group["eps"] * root.max()).clamp_min(torch.finfo(root.dtype).tiny)
        change = _on_both(mean / (root + least), left.back, right.back)
        parameter.add_(change, alpha=-group["lr"])

        left.gather(gradient)
        right.gather(gradient.T)
        if steps == 1 or steps % REFRESHED == 0:
            state["square"] = _on_both(state["square"], left.refreshed, right.refreshed)


class _Side:
    """The directions of a matrix's rows, or of its columns when it is given transposed.

    Args:
        moments: ``(n, n)``, sums over the other side.
        directions: ``(n, n)``, orthonormal columns.
    """

    def __init__(self, moments: torch.Tensor, directions: torch.Tensor) -> None:
        self._moments, self._directions = moments, directions

    @classmethod
    def of(cls, gradient: torch.Tensor) -> _Side | _Unturned:
        """What a first gradient tells."""
        if len(gradient) > WIDEST:
            return _Unturned()
        moments = gradient @ gradient.T
        # The steepest first, where orthogonal iteration leaves them.
        return cls(moments, _decomposed(moments, lambda m: torch.linalg.eigh(m)[1].flip(1)))

    def turned(self, matrix: torch.Tensor) -> torch.Tensor:
        """``(n, m)``: its rows, as shares of the directions."""
        return self._directions.T @ matrix

    def back(self, matrix: torch.Tensor) -> torch.Tensor:
        """The reverse of :meth:`turned`."""
        return self._directions @ matrix

    def gather(self, gradient: torch.Tensor) -> None:
        """Take a gradient into account."""
        self._moments.lerp_(gradient @ gradient.T, 1 - REMEMBERED)

    def refreshed(self, squares: torch.Tensor) -> torch.Tensor:
        """Find the directions anew, and what mean squares ``(n, m)`` along the old ones are along
        these, for gradients whose shares are uncorrelated."""
        old = self._directions
        # One step of orthogonal iteration: nearly as good as eigenvectors, at a lower price.
        self._directions = _decomposed(self._moments @ old, lambda m: torch.linalg.qr(m)[0])
        return (self._directions.T @ old).square() @ squares


class _Unturned:
    """A side that is too long."""

    def turned(self, matrix: torch.Tensor) -> torch.Tensor:
        return matrix

    back = refreshed = turned

    def gather(self, gradient: torch.Tensor) -> None:
        pass


def _on_both(matrix: torch.Tensor, left: Change, right: Change) -> torch.Tensor:
    """One side after the other; each sees its own as rows."""
    return right(left(matrix).T).T


def _decomposed(matrix: torch.Tensor, method: Change) -> torch.Tensor:
    # Decompositions exist for these devices; for others, PyTorch may have none.
    if matrix.device.type in ("cpu", "cuda"):
        return method(matrix)
    return method(matrix.cpu()).to(matrix.device)
