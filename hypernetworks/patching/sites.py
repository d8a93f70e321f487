"""Finds attention modules by their shape (``to_q``, ``to_k``, ``to_v``) and names their block and
kind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn

from ..engine.blocks import block_of
from ..engine.multiplier import CROSS as CROSS
from ..engine.multiplier import SELF as SELF

ORIGINAL = "_orig_mod"
"""Where ``torch.compile`` keeps what it was given."""

_TEMPORAL_NAME = re.compile(r"(^|[._])(temporal|temp|motion|time)(_|$|\.)")
_TEMPORAL_CLASS = re.compile(
    r"(?<!Spatio)Temporal|Motion(Module|Transformer)|Versatile|AnimateDiffTransformer|VideoTransformerBlock"
)
"""Attention over the frames of a video, where ``attn2`` is not to the text.

AUTOMATIC1111's built-in isn't there.
"""


@dataclass(frozen=True)
class Site:
    """One attention module of a UNet.

    Attributes:
        path: dotted path from the UNet.
        to_k, to_v: its projections.
        kind: ``"cross"``, ``"self"``, or ``None`` where the module doesn't tell.
        block: ``"IN01"`` … ``"MID"`` … ``"OUT11"``, or ``None`` where the path has another form.
        width: context width as far as the weights tell (quantised ones don't), else ``None``.
    """

    path: str
    to_k: nn.Module
    to_v: nn.Module
    kind: str | None
    block: str | None
    width: int | None


def find_sites(unet: nn.Module) -> list[Site]:
    """All attention modules below ``unet`` where networks act, in the order of its modules.

    Not among them is attention over the frames of a video, as in motion modules; and, where the
    UNet names its own ``attn1`` and ``attn2``, whatever else in it has such projections: it was put
    there by somebody, for something else.
    """
    sites: list[Site] = []
    resnets = _resnets_per_block(unet)
    temporal = [path for path, module in unet.named_modules() if _is_temporal(path, module)]

    for path, module in unet.named_modules():
        if ORIGINAL in vars(module)["_modules"] or _is_below(path, temporal):
            continue
        to_q, to_k, to_v = (getattr(module, name, None) for name in ("to_q", "to_k", "to_v"))
        if (
            isinstance(to_q, nn.Module)
            and isinstance(to_k, nn.Module)
            and isinstance(to_v, nn.Module)
        ):
            named = path.replace(f".{ORIGINAL}", "").removeprefix(f"{ORIGINAL}.")
            kind = _kind(named, module, to_q, to_k)
            sites.append(Site(path, to_k, to_v, kind, block_of(named, resnets), _input_width(to_k)))

    ours = [site for site in sites if _is_named(site)]
    return ours or sites


def _is_temporal(path: str, module: nn.Module) -> bool:
    name = path.rsplit(".", 1)[-1]
    return bool(path) and bool(
        _TEMPORAL_NAME.search(name) or _TEMPORAL_CLASS.search(type(module).__name__)
    )


def _is_below(path: str, others: list[str]) -> bool:
    return any(path == other or path.startswith(f"{other}.") for other in others)


def _is_named(site: Site) -> bool:
    parts = [part for part in site.path.split(".") if part != ORIGINAL]
    return bool(parts) and parts[-1] in ("attn1", "attn2")


def _kind(path: str, module: nn.Module, to_q: nn.Module, to_k: nn.Module) -> str | None:
    name = path.rsplit(".", 1)[-1]
    if name in ("attn1", "attn2"):
        return CROSS if name == "attn2" else SELF
    flag = getattr(module, "is_cross_attention", None)
    if isinstance(flag, bool):
        return CROSS if flag else SELF
    widths = _input_width(to_q), _input_width(to_k)
    return CROSS if None not in widths and widths[0] != widths[1] else None


def _input_width(projection: nn.Module) -> int | None:
    """The width that a dense projection takes; ``None`` for packed weights, whose shape says
    nothing.
    """
    width = getattr(projection, "in_features", None)
    if isinstance(width, int):
        return width
    weight = getattr(projection, "weight", None)
    if weight is not None and getattr(weight, "ndim", 0) == 2 and weight.is_floating_point():
        return int(weight.shape[1])
    return None


def _resnets_per_block(unet: nn.Module) -> int | None:
    """ResNets per down block of a diffusers UNet; ``None`` for other UNets."""
    blocks = getattr(unet, "down_blocks", None)
    if blocks is None or not len(blocks) or not hasattr(blocks[0], "resnets"):
        return None
    return len(blocks[0].resnets)
