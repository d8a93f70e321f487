"""Hypernetworks turned into other things, and other things into hypernetworks: LoRAs, checkpoints,
merged networks.

Works on tensors from files; no UNet runs here. What needs one is in
:mod:`hypernetworks.hosts.diffusers.conversion`.

A linear network changes the context of ``to_k`` and ``to_v``, ``x -> x + m (A x + b)``. That is a
change of weights::

    to_k.weight  += m W_k A_k
    to_v.weight  += m W_v A_v
    to_out.bias  += m W_out W_v b_v

The key's bias adds one number to all scores of a query, which softmax does not see. The value's
bias goes through attention unchanged, because its weights add up to 1, and comes out of
``to_out``.
"""

from .baking import bake
from .base import Base
from .lora import Converted, to_lora
from .weighted import Weighted

__all__ = ["Base", "Converted", "Weighted", "bake", "to_lora"]
