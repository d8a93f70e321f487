"""Linear networks as a LoRA: exactly, or at a lower rank with the error told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..engine.stack import KEY, VALUE
from ..errors import FileWriteError, HypernetworkError
from .base import Base
from .layers import Layer
from .lora_files import DTYPES, FORMATS, Narrow, Part, named_tensors, save_lora
from .lora_metadata import metadata
from .low_rank import FULL, Factors, Rank, factorised
from .weighted import LinearChanges, OnProgress, Weighted, enough_memory


@dataclass(frozen=True)
class LayerReport:
    """What became of one projection.

    Attributes:
        name: ``down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k``.
        rank: of its factors; ``None`` for a whole matrix.
        error: what the rank leaves out, as a share of the change (Frobenius norm).
    """

    name: str
    rank: int | None
    error: float


@dataclass(frozen=True)
class Converted:
    """What a conversion did.

    Attributes:
        layers: every projection that the LoRA changes.
        bytes: of its tensors.
        has_bias: whether it changes the bias of ``to_out``, without which it isn't the network.
    """

    layers: tuple[LayerReport, ...]
    bytes: int
    has_bias: bool

    @property
    def worst(self) -> LayerReport:
        """The projection with the largest error."""
        return max(self.layers, key=lambda layer: layer.error)


def to_lora(
    base: Base,
    networks: Sequence[Weighted],
    target: Path,
    *,
    rank: Rank = FULL,
    layout: str = "kohya",
    dtype: str = "fp16",
    on_progress: OnProgress | None = None,
) -> Converted:
    """Write linear networks as one LoRA for the model they are used with.

    The LoRA's weight is a factor on the multipliers: of one network at multiplier 1 it is the
    multiplier itself.

    Args:
        base: whose weights the LoRA is made from; it works with others as any LoRA does.
        networks: in the order of application.
        target: a ``.safetensors`` file.
        rank: of the factors; :data:`FULL` leaves nothing out.
        layout: one of :data:`FORMATS`.
        dtype: a key of :data:`DTYPES`.
        on_progress: told after each attention module.

    Raises:
        StructureError: a network isn't linear.
        NoMatchingWidthError: a network for another model.
        FileWriteError: the file can't be written.
        HypernetworkError: not enough memory, or numbers that the type can't hold.
    """
    # a large model takes minutes: the target is looked at before
    check_target(target, layout, dtype)
    changes = LinearChanges(base, networks)
    parts, reports = list[Part](), list[LayerReport]()
    with enough_memory("for the LoRA: choose a lower --rank or --dtype fp16"), torch.no_grad():
        for done, layer in enumerate(base.layers, 1):
            part = _part(changes, layer, rank)
            parts.append(part)
            reports += reports_of(part)
            if on_progress is not None:
                on_progress(done, len(base.layers))
        changes.release()

        how = "exact, as the networks are linear" if rank.is_full else "at a lower rank"
        return write_lora(
            base, networks, target, parts, reports, layout=layout, dtype=dtype, how=how
        )


def write_lora(
    base: Base,
    networks: Sequence[Weighted],
    target: Path,
    parts: Sequence[Part | Narrow],
    reports: Sequence[LayerReport],
    *,
    layout: str,
    dtype: str,
    how: str,
    fit: Mapping[str, object] | None = None,
) -> Converted:
    """Write what was made for each attention module. Raises as :func:`to_lora`."""
    # what was read tensor by tensor must be one state of the checkpoint
    base.check_unchanged()
    tensors = named_tensors(parts, layout, DTYPES[dtype], base.family)
    if not tensors:
        raise HypernetworkError(
            "the networks change nothing in this model at these multipliers: check the multipliers"
        )

    save_lora(target, tensors, metadata(tensors, layout, target.stem, base, networks, how, fit))
    size = sum(tensor.nbytes for tensor in tensors.values())
    has_bias = any(isinstance(part, Part) and part.bias is not None for part in parts)
    return Converted(tuple(reports), size, has_bias)


def check_target(target: Path, layout: str, dtype: str) -> None:
    """Raise before the work begins where it couldn't be written.

    Raises:
        FileWriteError: another suffix, or no such folder.
        HypernetworkError: an unknown layout or type.
    """
    if target.suffix != ".safetensors":
        raise FileWriteError(f"{target}: a LoRA's name ends in .safetensors: choose such a name")
    if not target.parent.is_dir():
        raise FileWriteError(f"{target}: there is no folder {target.parent}: create it first")
    if layout not in FORMATS or dtype not in DTYPES:
        known = f"{', '.join(FORMATS)}, and {', '.join(DTYPES)}"
        raise HypernetworkError(f"the layout {layout} in {dtype} is unknown: known are {known}")


def _part(changes: LinearChanges, layer: Layer, rank: Rank) -> Part:
    key, value = changes.product(layer, KEY), changes.product(layer, VALUE)
    affine = changes.affine(layer, VALUE)
    bias = value_bias = None
    if affine is not None and affine.bias.any():
        value_bias = changes.base.tensor(layer.value).float() @ affine.bias
        bias = changes.base.tensor(layer.out).float() @ value_bias

    return Part(
        layer,
        None if key is None else narrowed(key, rank, changes.rank(layer)),
        None if value is None else narrowed(value, rank, changes.rank(layer)),
        bias,
        value_bias,
    )


def narrowed(matrix: torch.Tensor, rank: Rank, possible: int) -> torch.Tensor | Factors:
    """A matrix at a rank; whole where factors of that rank would be larger.

    Args:
        possible: the rank that it has at most, which costs nothing.
    """
    outer, inner = matrix.shape
    # a bottleneck of the network makes narrow factors that leave nothing out
    most = min(possible, rank.most or possible)
    pays = most * (outer + inner) < outer * inner
    if rank.is_full and not pays:
        return matrix

    factors = factorised(matrix, Rank(most, rank.error))
    # a rank that was asked for is kept; one that was found must pay
    if rank.most is None and factors.rank * (outer + inner) >= outer * inner:
        return matrix
    return factors


def reports_of(part: Part | Narrow) -> list[LayerReport]:
    """One for each projection that it changes."""
    if isinstance(part, Narrow):
        return [LayerReport(part.path, part.up.shape[1], 0.0)]
    found = []
    for leaf, change in (("to_k", part.key), ("to_v", part.value)):
        if isinstance(change, Factors):
            found.append(LayerReport(f"{part.layer.path}.{leaf}", change.rank, change.error))
        elif change is not None:
            found.append(LayerReport(f"{part.layer.path}.{leaf}", None, 0.0))
    return found
