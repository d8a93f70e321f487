"""Hypernetworks from LoRAs and from fine-tuned checkpoints: the linear network that is nearest.

A LoRA has a matrix of its own for each layer; a network has one for each context width, which all
layers of that width share. So most LoRAs lose much, and the share that is left is always told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from ..engine.network import Hypernetwork, Provenance
from ..engine.stack import KEY, VALUE
from ..engine.structure import StateDict, Structure
from ..errors import CheckpointError, NoMatchingWidthError
from .base import COMPUTABLE, Base
from .layers import Layer
from .lora_reading import LoraFile, names_of
from .sharing import Sums
from .weighted import OnProgress, enough_memory

POOR = 0.8
"""A smaller share than this is called poor."""


@dataclass(frozen=True)
class Extracted:
    """A network, and how much of the change of weights it stands for.

    Attributes:
        network: linear, in fp32.
        share: of the changes of ``to_k`` and ``to_v``, the part that the network makes: 1 less the
            squared error, as a share of the squares.
        inside: of all that was changed, by squares, the part in ``to_k`` and ``to_v``; the rest is
            lost in any case.
    """

    network: Hypernetwork
    share: float
    inside: float

    @property
    def is_poor(self) -> bool:
        """Whether most users would see another style."""
        return self.share * self.inside < POOR

    @property
    def verdict(self) -> str:
        """How good the network is, in words: what to tell before anything else."""
        rest = (
            "" if self.inside > 0.9995 else f", which is {self.inside:.1%} of all that was changed"
        )
        figures = f"the network has {self.share:.1%} of the change of to_k and to_v{rest}"
        return f"poor: {figures}; expect another style" if self.is_poor else figures


@dataclass(frozen=True)
class _Change:
    """What is added to one attention module; ``None`` for nothing.

    Attributes:
        key, value: to the weights of ``to_k`` and ``to_v``.
        value_bias, out_bias: to the biases of ``to_v`` and ``to_out``.
    """

    key: torch.Tensor | None
    value: torch.Tensor | None
    value_bias: torch.Tensor | None = None
    out_bias: torch.Tensor | None = None


def from_lora(
    name: str, lora: Path, base: Base, *, on_progress: OnProgress | None = None
) -> Extracted:
    """The linear network that is nearest to a LoRA at weight 1.

    Args:
        name: of the network.
        lora: a ``.safetensors`` file in kohya's or diffusers' layout.
        base: the checkpoint that the LoRA was trained on.

    Raises:
        CheckpointError: no LoRA, or one that changes no attention of this model.
        NoMatchingWidthError: a LoRA for another family.
    """
    with LoraFile(lora) as file:
        found = {
            leaf: {layer: _first(file, layer, leaf) for layer in base.layers}
            for leaf in ("to_k", "to_v", "to_out.0")
        }

        def changes(layer: Layer) -> _Change:
            key, value, out = (found[leaf][layer] for leaf in ("to_k", "to_v", "to_out.0"))
            return _Change(file.change(key), file.change(value), file.bias(value), file.bias(out))

        def squares() -> float:
            return sum(square for _, square in file.squares())

        return _extracted(name, base, changes, squares, on_progress)


def _first(file: LoraFile, layer: Layer, leaf: str) -> str:
    return next((name for name in names_of(layer, leaf) if name in file.modules), "")


def from_checkpoints(
    name: str, tuned: Base, base: Base, *, on_progress: OnProgress | None = None
) -> Extracted:
    """The linear network that is nearest to what a fine-tuning changed.

    Args:
        name: of the network.
        tuned: the fine-tuned checkpoint.
        base: the checkpoint that it was made from.

    Raises:
        CheckpointError: the two are equal, or not of the same kind.
    """
    # the two may be in different layouts: a file and a diffusers folder
    twins = {layer.path: layer for layer in tuned.layers}
    for layer in base.layers:
        twin = twins.get(layer.path)
        if twin is None or (twin.width, twin.inner) != (layer.width, layer.inner):
            raise NoMatchingWidthError(
                f"{tuned.name} and {base.name} are of different families: name the checkpoint "
                f"that {tuned.name} was made from"
            )

    def changes(layer: Layer) -> _Change:
        twin = twins[layer.path]
        key, value, bias = (
            tuned.tensor(there).float() - base.tensor(here).float()
            for there, here in (
                (twin.key, layer.key),
                (twin.value, layer.value),
                (twin.out_bias, layer.out_bias),
            )
        )
        return _Change(key, value, out_bias=bias if bias.any() else None)

    def squares() -> float:
        names = dict(_shared(tuned, base))
        return sum(_distance(tuned, there, base, here) for there, here in names.items())

    return _extracted(name, base, changes, squares, on_progress)


def _shared(tuned: Base, base: Base) -> Iterator[tuple[str, str]]:
    """Weights of the UNet that both have, in the layouts of each."""
    there, here = (b.layers[0].stored.removesuffix(_own_path(b)) for b in (tuned, base))
    for name in tuned.names:
        other = f"{here}{name.removeprefix(there)}"
        if name.startswith(there) and other in base.names and name.endswith(".weight"):
            yield name, other


def _own_path(base: Base) -> str:
    layer = base.layers[0]
    return layer.path if layer.stored.endswith(layer.path) else layer.original


def _distance(tuned: Base, there: str, base: Base, here: str) -> float:
    old, new = base.stored(here), tuned.stored(there)
    if old.shape != new.shape or not {old.dtype, new.dtype} <= set(COMPUTABLE):
        return 0.0
    return float((new.float() - old.float()).double().square().sum())


def _extracted(
    name: str,
    base: Base,
    changes: Callable[[Layer], _Change],
    squares: Callable[[], float],
    on_progress: OnProgress | None,
) -> Extracted:
    sums, inside = dict[int, Sums](), 0.0
    with _memory(), torch.no_grad():
        for done, layer in enumerate(base.layers, 1):
            inside += _add(sums, base, layer, changes(layer))
            if on_progress is not None:
                on_progress(done, len(base.layers))

        # a width that nothing changes would only make the file larger
        changed = {width: found for width, found in sums.items() if found.total}
        if not changed:
            raise CheckpointError(
                f"nothing changes to_k or to_v of {base.name}: it is for another model, or has "
                "nothing that a hypernetwork could do"
            )
        tensors, left = dict[int, tuple[StateDict, StateDict]](), 0.0
        for width, found in sorted(changed.items()):
            (key, value), more = found.solved()
            tensors[width], left = (key, value), left + more
        # tensors of unknown kinds aren't counted, but what was used is part of the whole
        everything = max(squares(), inside)

    total = sum(found.total for found in changed.values())
    provenance = Provenance(name=name, checkpoint_name=base.name)
    network = Hypernetwork.from_tensors(
        name, Structure((1, 1), dropout=(0, 0)), tensors, provenance
    )
    return Extracted(network, 1 - left / total, inside / everything if everything else 1.0)


def _add(sums: dict[int, Sums], base: Base, layer: Layer, found: _Change) -> float:
    """Add one attention module; returns the squares of the changes of its weights."""
    own, inside = sums.setdefault(layer.width, Sums(layer.width)), 0.0
    for side, name, change in ((KEY, layer.key, found.key), (VALUE, layer.value, found.value)):
        if change is None:
            continue
        weight = base.tensor(name)
        if change.shape != weight.shape:
            raise NoMatchingWidthError(
                f"a change of {layer.path} has the shape {tuple(change.shape)}, but {base.name} "
                f"has {tuple(weight.shape)}: name a checkpoint of the same family"
            )
        own.add(side, weight, change)
        inside += float(change.double().square().sum())

    # the network's shift b comes out of to_v as W_v b, and out of to_out as W_out W_v b
    value = base.tensor(layer.value).float()
    if found.value_bias is not None:
        own.add_bias(value, found.value_bias)
    if found.out_bias is not None:
        own.add_bias(base.tensor(layer.out).float() @ value, found.out_bias)
    return inside


def _memory() -> AbstractContextManager[None]:
    return enough_memory("to extract the network: close other programs")
