"""The full-size SD1.5 UNet, random weights, through ``hypernetworks.apply``."""

from __future__ import annotations

import torch

import hypernetworks as hn


def test_full_size_sd15_is_changed_and_restored_bit_for_bit() -> None:
    from diffusers import UNet2DConditionModel

    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, sample_size=64)
    # Pieces of one random tensor, and no copies: 3.4 GB to write take longer than the test.
    drawn = torch.randn(2**25, generator=generator) * 0.02
    weights = {}
    for number, (name, parameter) in enumerate(unet.named_parameters()):
        start = number * 7919 % 2**21
        piece = drawn[start : start + parameter.numel()].view(parameter.shape)
        is_scale = "norm" in name and name.endswith("weight")
        weights[name] = torch.ones(parameter.shape) if is_scale else piece
    unet.load_state_dict(weights, assign=True)
    unet.eval()

    networks = []
    for activation, widths in (("linear", (320, 640, 768, 1280)), ("relu", (768, 1280))):
        network = hn.Hypernetwork.create(activation, hn.Structure((1, 2, 1), activation), widths)
        for parameter in network.parameters():
            parameter.data.normal_(0, 0.02, generator=generator)
        networks.append((network, 0.7))

    inputs = (
        torch.randn(2, 4, 8, 8, generator=generator),
        500,
        torch.randn(2, 77, 768, generator=generator),
    )

    with torch.inference_mode():
        before = unet(*inputs).sample
        with hn.apply(unet, networks) as handle:
            changed = unet(*inputs).sample
        after = unet(*inputs).sample

    assert "32 attention modules" in repr(handle)
    assert torch.isfinite(changed).all()
    assert (changed - before).abs().max() > 1e-4 * before.abs().max()
    assert torch.equal(before, after)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in unet.modules())
