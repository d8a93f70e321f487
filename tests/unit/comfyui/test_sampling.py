"""Networks in ComfyUI's sampling: the same as ``hypernetworks.apply``, and gone afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comfy_models import (
    Patcher,
    conditioning,
    latent,
    sample,
    sample_euler,
    sample_heun,
    write,
)

import hypernetworks as hn
from hypernetworks.hosts.comfyui.steps import Steps


def applied(comfy: Any, name: str, multiplier: Any = 0.7) -> Any:
    network = comfy.networks.load(comfy.networks.find(name))
    return comfy.sampling.Applied(network, hn.Multiplier.of(multiplier))


def bare(unet: torch.nn.Module) -> bool:
    return not any(
        "forward" in vars(m) or m._forward_pre_hooks or m._forward_hooks for m in unet.modules()
    )


def by_hand(patcher: Patcher, networks: Any, how: Any = sample_euler, steps: Any = None) -> Any:
    """The same picture with ``hypernetworks.apply`` around it, and the step given for each call."""
    plain = Patcher(patcher.model)
    unet = patcher.model.diffusion_model
    with hn.apply(unet, networks) as handle:
        order = iter(steps or (0, 1, 2))
        hook = unet.register_forward_pre_hook(lambda *_: handle.at(next(order), 3), prepend=True)
        try:
            return sample(plain, how=how)
        finally:
            hook.remove()


@pytest.mark.parametrize("activation", ["relu", "linear"])
@pytest.mark.parametrize("multiplier", [0.7, "0@0,1@1", "1:stop=0.5:attn=cross"])
def test_as_apply_and_restored(
    comfy: Any, patcher: Patcher, activation: str, multiplier: Any
) -> None:
    write(comfy.folder, "ink", activation)
    before = sample(patcher)
    ink = applied(comfy, "ink", multiplier)
    with_ink = comfy.sampling.with_networks(patcher, [ink])

    found = sample(with_ink)
    assert (found - before).abs().max() > 1e-3
    expected = by_hand(patcher, [(ink.network, ink.multiplier)])
    effect = (expected - before).norm()
    assert (found - expected).norm() <= 1e-5 * effect
    assert bare(patcher.model.diffusion_model)
    assert torch.equal(sample(patcher), before)
    assert torch.equal(sample(with_ink), found)


def test_a_second_order_sampler_keeps_the_step(comfy: Any, patcher: Patcher) -> None:
    write(comfy.folder, "ink")
    ink = applied(comfy, "ink", "0@0,1@1")
    found = sample(comfy.sampling.with_networks(patcher, [ink]), how=sample_heun)
    expected = by_hand(patcher, [(ink.network, ink.multiplier)], sample_heun, steps=(0, 0, 1, 1, 2))
    torch.testing.assert_close(found, expected)
    wrong = by_hand(patcher, [(ink.network, ink.multiplier)], sample_heun, steps=(0, 1, 1, 2, 2))
    assert (wrong - expected).abs().max() > 1e-4


def test_two_nodes_make_a_stack_in_their_order(comfy: Any, patcher: Patcher) -> None:
    write(comfy.folder, "ink")
    write(comfy.folder, "night", seed=1)
    ink, night = applied(comfy, "ink"), applied(comfy, "night")
    first = comfy.sampling.with_networks(patcher, [ink])
    both = comfy.sampling.with_networks(first, [night])
    expected = by_hand(patcher, [(ink.network, 0.7), (night.network, 0.7)])
    torch.testing.assert_close(sample(both), expected)
    torch.testing.assert_close(sample(first), by_hand(patcher, [(ink.network, 0.7)]))


def test_conditionings_with_networks_of_their_own(comfy: Any, patcher: Patcher) -> None:
    """Each as if it had run alone, in whatever order, also beside a network of the model."""
    from hypernetworks.hosts.comfyui.nodes.conditioning import hooks_for

    write(comfy.folder, "ink")
    write(comfy.folder, "night", seed=1)
    ink, night = applied(comfy, "ink"), applied(comfy, "night")
    first, second, third = (conditioning(seed) for seed in (2, 3, 4))
    first[1]["hooks"], second[1]["hooks"] = hooks_for((ink,)), hooks_for((night,))
    one = torch.tensor([8.0, 0.0])

    def effect(model: Patcher, *conds: Any) -> torch.Tensor:
        return sample(model, list(conds), one) - latent()

    together = effect(patcher, first, second, third)
    alone = effect(patcher, first) + effect(patcher, second) + effect(patcher, third)
    torch.testing.assert_close(together, alone)
    plain = [[tensor, {}] for tensor, _ in (first, second, third)]
    assert (together - effect(patcher, *plain)).abs().max() > 1e-3

    model = comfy.sampling.with_networks(patcher, [night])
    expected = effect(comfy.sampling.with_networks(patcher, [night, ink]), plain[0])
    torch.testing.assert_close(effect(model, first), expected)
    assert bare(patcher.model.diffusion_model)


def test_an_interrupted_pass_leaves_the_unet_as_it_was(comfy: Any, patcher: Patcher) -> None:
    write(comfy.folder, "ink")
    model, before = comfy.sampling.with_networks(patcher, [applied(comfy, "ink")]), sample(patcher)

    def interrupted(guider: Any, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
        guider.evaluate(x, sigmas[0])
        assert not bare(patcher.model.diffusion_model)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        sample(model, how=interrupted)
    assert bare(patcher.model.diffusion_model)
    assert torch.equal(sample(patcher), before)


def test_layers_that_stream_or_cast_their_weight_are_not_folded(comfy: Any) -> None:
    from comfy import ops

    from hypernetworks.hosts.comfyui.dense import is_dense

    layer = ops.disable_weight_init.Linear(4, 4)
    assert is_dense(layer)
    assert is_dense(torch.nn.Linear(4, 4))
    assert not is_dense(ops.manual_cast.Linear(4, 4))
    layer.weight_function = [lambda weight: weight]
    assert not is_dense(layer)
    layer.weight_function = []
    layer.comfy_cast_weights = True
    assert not is_dense(layer)


@pytest.mark.parametrize(
    ("sampler", "sigmas", "asked", "steps"),
    [
        ("sample_euler", (8, 4, 2, 0), (8, 4, 2), (0, 1, 2)),
        ("sample_dpm_2", (8, 4, 2, 0), (8, 5.6, 4, 2.8, 2), (0, 0, 1, 1, 2)),
        ("sample_euler", (8, 4, 2, 0), (8.2, 4.1, 2), (0, 0, 2)),
        ("sample_heun", (8, 4, 2, 0), (8, 4, 4, 2, 2), (0, 0, 1, 1, 2)),
        ("sample_heun", (8, 4, 2), (8, 4, 4, 2), (0, 0, 1, 1)),
        ("sample_heunpp2", (8, 4, 2, 0), (8, 4, 2, 4, 2, 2), (0, 0, 0, 1, 1, 2)),
        ("sample_heunpp2", (8, 4, 2), (8, 4, 4), (0, 0, 1)),
        ("", (0.5, 2, 8), (0.5, 2), (0, 1)),
    ],
)
def test_steps(
    comfy: Any,
    sampler: str,
    sigmas: tuple[float, ...],
    asked: tuple[float, ...],
    steps: tuple[int, ...],
) -> None:
    follower = Steps(sigmas, sampler)
    assert tuple(follower.of(sigma) for sigma in asked) == steps
    assert follower.total == len(sigmas) - 1


def inked(comfy: Any, patcher: Patcher) -> Patcher:
    """The model with a network that isn't linear."""
    write(comfy.folder, "ink", "relu")
    return comfy.sampling.with_networks(patcher, [applied(comfy, "ink")])  # type: ignore[no-any-return]


def test_an_error_of_ours_costs_the_networks_and_not_the_image(
    comfy: Any,
    patcher: Patcher,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before, with_ink = sample(patcher), inked(comfy, patcher)
    assert not torch.equal(sample(with_ink), before)

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(hn.Hypernetwork, "step", fails)
    assert torch.equal(sample(with_ink), before)
    assert "the hypernetworks are off for this pass: out of luck" in caplog.text
    assert bare(patcher.model.diffusion_model)


def test_a_model_that_takes_no_networks_is_sampled_without(
    comfy: Any,
    patcher: Patcher,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before, with_ink = sample(patcher), inked(comfy, patcher)

    def refuses(*_: object, **__: object) -> None:
        raise hn.HypernetworkError("not this one")

    monkeypatch.setattr(comfy.sampling, "apply", refuses)
    assert torch.equal(sample(with_ink), before)
    assert "not this one" in caplog.text
