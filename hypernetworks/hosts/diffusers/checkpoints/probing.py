"""What a UNet predicts, found by asking it: files of SD2 look the same whether they predict noise
or v.
"""

from __future__ import annotations

from typing import Any

import torch

PROBED = "found by a test of its UNet, as the file doesn't say; --prediction overrides it"
"""Where the answer is from, for messages."""


@torch.no_grad()
def probed_prediction(unet: Any) -> str:
    """``"epsilon"`` or ``"v_prediction"``: AUTOMATIC1111's test, at the noisiest time step, in
    fp32.

    From pure noise, a model of noise predicts its input, and one of v about the opposite of the
    image.
    """
    dtype = unet.dtype
    if (
        dtype != torch.float32
    ):  # half precision is slow or impossible on CPUs; nothing is lost on the way back
        unet.to(torch.float32)

    try:
        sample = torch.full((1, unet.config.in_channels, 8, 8), 0.5)
        context = torch.full((1, 2, unet.config.cross_attention_dim), 0.5)
        found = unet(sample, torch.tensor([999]), context).sample - sample
    finally:
        if dtype != torch.float32:
            unet.to(dtype)

    return "v_prediction" if float(found.mean()) < -1 else "epsilon"
