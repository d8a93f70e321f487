"""Describes a network without running it: family, size, norms, provenance and warnings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..engine.families import family_label
from ..engine.network import Hypernetwork

_POSITIVE = ("relu", "relu6", "sigmoid", "hardsigmoid")


@dataclass(frozen=True)
class LayerNorms:
    """Frobenius norms of the linear layers of one MLP, first to last."""

    width: int
    side: str
    norms: tuple[float, ...]


@dataclass(frozen=True)
class Inspection:
    """The result of :func:`inspect`.

    Attributes:
        family: base model family, according to the widths.
        parameters: number of parameters.
        bytes: size of the file.
        warnings: anything unusual, in words.
    """

    name: str
    path: str
    family: str
    widths: tuple[int, ...]
    layer_structure: tuple[float, ...]
    activation: str
    activate_output: bool
    layer_norm: bool
    dropout: tuple[float, ...]
    dtype: str
    parameters: int
    bytes: int
    provenance: dict[str, Any]
    norms: tuple[LayerNorms, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain containers, for JSON."""
        return asdict(self)


def inspect(network: Hypernetwork, path: Path) -> Inspection:
    """Inspect a network that was read from ``path``; reads every tensor once."""
    structure = network.structure
    norms = tuple(
        LayerNorms(
            dim, side, tuple(_norm(m.weight) for m in mlp.linear if isinstance(m, nn.Linear))
        )
        for dim in network.widths
        for side, mlp in zip("kv", network.pairs[dim], strict=True)
    )

    return Inspection(
        name=network.name,
        path=str(path),
        family=family_label(network.widths),
        widths=network.widths,
        layer_structure=structure.layer_structure,
        activation=structure.activation,
        activate_output=structure.activate_output,
        layer_norm=structure.layer_norm,
        dropout=structure.dropout,
        dtype=str(network.dtype).removeprefix("torch."),
        parameters=sum(p.numel() for p in network.parameters()),
        bytes=_size(path),
        provenance=asdict(network.provenance),
        norms=norms,
        warnings=tuple(_warnings(network, norms)),
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # the file has been removed since
        return 0


def _norm(weight: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(weight.detach().cpu().double()))


def _warnings(network: Hypernetwork, norms: tuple[LayerNorms, ...]) -> list[str]:
    found = []
    broken = sorted({dim for dim in network.widths if not all(map(_finite, network.pairs[dim]))})
    if broken:
        found.append(
            "values that are not finite (NaN or infinite) at width "
            f"{', '.join(map(str, broken))}: unusable"
        )

    # A whole layer of zeros is what a new network has before its first step.
    dead = sorted({n.width for n in norms if 0.0 in n.norms})
    if len(dead) == len(network.widths):
        found.append("layers of zeros at every width: it was never trained")
    elif dead:
        found.append(f"layers of zeros at width {', '.join(map(str, dead))}")

    if network.structure.activation in ("softmax", "softmin", "logsoftmax", "softmax2d"):
        found.append(
            f"{network.structure.activation} mixes the images of a batch: results depend on the "
            "batch"
        )
    if network.structure.activate_output and network.structure.activation in _POSITIVE:
        found.append(
            "with the activation after the last layer, it can only add to a context, never "
            "subtract: is that intended?"
        )
    if family_label(network.widths) == "unknown":
        found.append(
            "it has no text width of SD1 (768), SD2 (1024) or SDXL (2048), so it was made for "
            "none of these"
        )

    return found


def _finite(mlp: nn.Module) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in mlp.parameters())
