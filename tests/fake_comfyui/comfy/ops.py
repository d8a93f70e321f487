"""Linear layers that may bring their weight from elsewhere at each call."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class CastWeightBiasOp:
    """A layer that may do more at each call."""

    comfy_cast_weights = False
    weight_function = ()
    bias_function = ()


class disable_weight_init:  # noqa: N801
    """Layers without an initialisation."""

    class Linear(nn.Linear, CastWeightBiasOp):
        """A linear layer of ComfyUI."""

        def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            return super().forward(*args, **kwargs)


class manual_cast(disable_weight_init):  # noqa: N801
    """Layers that cast their weight at each call."""

    class Linear(disable_weight_init.Linear):
        """A linear layer that does so."""

        comfy_cast_weights = True
