"""Adam in the directions of the gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch

from hypernetworks.hosts.diffusers.conversion import soap
from hypernetworks.hosts.diffusers.conversion.soap import Soap

Loss = Callable[[torch.Tensor], torch.Tensor]


def correlated(seed: int, rows: int = 5, columns: int = 12, *, spread: float = 1.5) -> Loss:
    """Least squares for ``(rows, columns)``, whose inputs and outputs are correlated: by so many
    powers of ten, some directions count more than others."""
    generator = torch.Generator().manual_seed(seed)
    inputs, outputs = (
        torch.linalg.qr(torch.randn(n, n, generator=generator))[0] * torch.logspace(0, -spread, n)
        for n in (columns, rows)
    )
    right = torch.randn(rows, columns, generator=generator)
    return lambda matrix: (outputs.T @ (matrix - right) @ inputs).square().mean()


def trained(
    loss: Loss, start: torch.Tensor, steps: int, kind: Callable[..., torch.optim.Optimizer] = Soap
) -> torch.Tensor:
    parameter = torch.nn.Parameter(start.clone())
    optimiser = kind([parameter], lr=0.05)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(parameter).backward()
        optimiser.step()
    return parameter.detach()


def adam(loss: Loss, start: torch.Tensor, steps: int) -> torch.Tensor:
    """The same with Adam, from the second step on: Soap's first one only gathers."""
    return trained(loss, start, steps - 1, partial(torch.optim.Adam, betas=(0.9, 0.99), eps=1e-8))


@pytest.mark.parametrize("seed", range(3))
def test_it_comes_closer_than_adam_where_inputs_are_correlated(seed: int) -> None:
    loss, start = correlated(seed), torch.zeros(5, 12)
    plain = loss(adam(loss, start, 150))
    assert loss(trained(loss, start, 150)) < 0.01 * plain < 0.01 * loss(start)


def test_it_does_not_matter_which_way_the_directions_lie() -> None:
    # Square, so that the first gradient tells all directions.
    loss = correlated(1, 6, 6, spread=0.5)
    start = torch.randn(6, 6, generator=torch.Generator().manual_seed(9))
    left, right = turns(6)

    def turned(method: Callable[..., torch.Tensor]) -> torch.Tensor:
        found = method(lambda m: loss(left.T @ m @ right.T), left @ start @ right, 8)
        return left.T @ found @ right.T

    plain = trained(loss, start, 8)
    assert (plain - start).norm() > 0.5
    torch.testing.assert_close(turned(trained), plain, rtol=0, atol=0.05)
    # For Adam it does matter.
    assert (turned(adam) - adam(loss, start, 8)).abs().max() > 0.1


def turns(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    left, right = (
        torch.linalg.qr(torch.randn(size, size, generator=generator))[0] for _ in range(2)
    )
    return left, right


def test_long_sides_are_trained_as_adam_does(monkeypatch: pytest.MonkeyPatch) -> None:
    loss, start = correlated(2), torch.zeros(5, 12)
    monkeypatch.setattr(soap, "WIDEST", 4)
    plain = adam(loss, start, 40)
    torch.testing.assert_close(trained(loss, start, 40), plain, rtol=1e-3, atol=1e-3)

    monkeypatch.setattr(soap, "WIDEST", 5)  # one of the two
    assert (trained(loss, start, 40) - plain).abs().max() > 0.1


def test_what_has_no_gradient_stays() -> None:
    loss = correlated(4)
    moved, without, zero = (torch.nn.Parameter(torch.ones(5, 12)) for _ in range(3))
    optimiser = Soap([moved, without, zero], lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        # as down is while up is zero
        (loss(moved) + 0 * zero.sum()).backward()
        assert optimiser.step(lambda: 7) == 7
    assert loss(moved) < loss(torch.ones(5, 12))
    assert (without == 1).all()
    assert (zero == 1).all()


def test_only_matrices() -> None:
    with pytest.raises(ValueError, match="matrices"):
        Soap([torch.nn.Parameter(torch.ones(3))], lr=0.1)
