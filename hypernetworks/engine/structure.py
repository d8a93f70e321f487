"""The description of a hypernetwork: layer structure, activation, norm, dropout; derived from
tensors and checked.

A state dict names its tensors ``linear.N.weight`` and ``linear.N.bias``, where N counts every
module of a Sequential, including those without parameters. So the gaps between the numbers show
where activations and dropouts were.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import nn

from ..errors import StructureError

StateDict = Mapping[str, torch.Tensor]
"""``linear.N.weight`` / ``linear.N.bias`` -> tensor, of one MLP."""

MOST_LAYERS = 100
"""Entries of a layer structure. People train with three to ten; each costs a module, and text in
messages.
"""
MOST_WIDTHS = 32
"""Context widths of one hypernetwork; a model has at most six."""
MOST_TENSORS = 4 * MOST_LAYERS
"""Tensors of one MLP: weight and bias of a layer, and of its norm."""

UNBUILDABLE = {
    "glu": "it halves the width",
    "threshold": "its threshold is not stored in the file",
    "multiheadattention": "it is not a function of one tensor",
}
"""Names in ``torch.nn.modules.activation`` that cannot be an activation here, and why."""


def _activations() -> dict[str, type[nn.Module]]:
    from torch.nn.modules import activation

    # As AUTOMATIC1111 does: by class name, so that every torch offers the activations it has.
    found: dict[str, type[nn.Module]] = {
        name.lower(): cls
        for name, cls in inspect.getmembers(activation, inspect.isclass)
        if cls.__module__ == activation.__name__
        and issubclass(cls, nn.Module)
        and name.lower() not in UNBUILDABLE
    }
    return found | {"swish": nn.Hardswish}  # the webui's own name for it


ACTIVATIONS: Mapping[str, type[nn.Module]] = _activations()
"""Activation by lower-cased class name, as AUTOMATIC1111 names them; ``swish`` is Hardswish."""


@dataclass(frozen=True)
class Structure:
    """How every MLP of a hypernetwork is built.

    Attributes:
        layer_structure: layer widths as multiples of the context width; first and last are 1.
        activation: ``"linear"`` for none, else a key of :data:`ACTIVATIONS`.
        activate_output: whether the activation also follows the last linear layer.
        layer_norm: whether a LayerNorm follows every linear layer (after its activation).
        dropout: probability after each layer, as long as ``layer_structure``; has no effect outside
            training.
    """

    layer_structure: tuple[float, ...] = (1.0, 2.0, 1.0)
    activation: str = "linear"
    activate_output: bool = True
    layer_norm: bool = False
    dropout: tuple[float, ...] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        layers = self.layer_structure
        if len(layers) > MOST_LAYERS:
            raise StructureError(
                f"the layer structure has {len(layers)} entries: at most {MOST_LAYERS} are possible"
            )
        # The residual adds the output to the context, so both have the context's width.
        if len(layers) < 2 or layers[0] != 1 or layers[-1] != 1 or any(m <= 0 for m in layers):
            raise StructureError(
                f"the layer structure {list(layers)} must be positive and start and end with 1"
            )

        if self.activation in UNBUILDABLE:
            raise StructureError(
                f'the activation "{self.activation}" can\'t be built: '
                f"{UNBUILDABLE[self.activation]}"
            )
        if self.activation != "linear" and self.activation not in ACTIVATIONS:
            raise StructureError(
                f'the activation "{self.activation}" is unknown: known are {", ".join(ACTIVATIONS)}'
            )

        if len(self.dropout) != len(layers):
            raise StructureError(
                f"the dropout structure has {len(self.dropout)} entries, not {len(layers)} as "
                "layers"
            )
        if any(not 0 <= p < 1 for p in self.dropout):
            raise StructureError(
                f"the dropout structure {list(self.dropout)} must hold probabilities in [0, 1)"
            )

    @property
    def is_linear(self) -> bool:
        """Whether the MLP is an affine map outside training."""
        return self.activation == "linear" and not self.layer_norm

    def widths(self, dim: int) -> tuple[int, ...]:
        """Layer widths for a context width, truncated to integers as AUTOMATIC1111 does."""
        return tuple(int(dim * multiple) for multiple in self.layer_structure)

    def modules(self, dim: int) -> list[nn.Module]:
        """The modules of one MLP in order, with torch's default initialisation.

        Consumes the RNG.
        """
        widths, modules = self.widths(dim), list[nn.Module]()
        for i, (inner, outer) in enumerate(zip(widths, widths[1:], strict=False)):
            modules.append(nn.Linear(inner, outer))
            # The order matters: AUTOMATIC1111 writes the modules' numbers into the file.
            if self.activation != "linear" and (i < len(widths) - 2 or self.activate_output):
                modules.append(build_activation(self.activation))
            if self.layer_norm:
                modules.append(nn.LayerNorm(outer))
            if self.dropout[i + 1]:
                modules.append(nn.Dropout(self.dropout[i + 1]))

        return modules


def build_activation(name: str) -> nn.Module:
    """A fresh activation module.

    Softmax and the like get the dimension that torch itself chooses for 3-D input: the batch.
    """
    cls = ACTIVATIONS[name]
    # Without a dimension they compute the same, but warn at each call.
    if cls in (nn.Softmax, nn.Softmin, nn.LogSoftmax):
        return cls(dim=0)
    return cls()


def rebuilt_dropout(layers: int, use_dropout: bool, last_layer_dropout: bool) -> tuple[float, ...]:
    """The dropout structure of a file that only says yes or no: 0.3 after each hidden layer.

    This is AUTOMATIC1111's rule for its own older files.
    """
    if not use_dropout or layers < 3:
        return (0.0,) * layers
    return (0.0, *(0.3,) * (layers - 3), 0.3 if last_layer_dropout else 0.0, 0.0)


@dataclass(frozen=True)
class Outline:
    """What the tensors of one MLP show without any metadata.

    Attributes:
        widths: input width of the first layer, then the output width of every layer.
        gaps: modules without tensors after each linear layer before the last: ``(before, after)``
            its layer norm.
        layer_norm: whether layer norms are there.
        norm_gap: modules without tensors between the last linear layer and its layer norm.
        prelu: for each linear layer, whether a PReLU weight follows.
    """

    widths: tuple[int, ...]
    gaps: tuple[tuple[int, int], ...]
    layer_norm: bool
    norm_gap: int
    prelu: tuple[bool, ...]

    @classmethod
    def of(cls, tensors: StateDict) -> Outline:
        """Derive the outline from one MLP's state dict.

        Raises:
            StructureError: keys that are not ``linear.N.weight|bias``, or shapes that don't fit
                together.
        """
        kinds = _module_kinds(tensors)
        linears = [n for n, kind in kinds if kind == "linear"]
        if not linears or kinds[0][1] != "linear" or linears[0] != 0:
            raise StructureError("the first module of the network is not a linear layer")

        # Each layer must take what the layer before it gives.
        widths = [tensors[f"linear.{linears[0]}.weight"].shape[1]]
        for n in linears:
            outer, inner = tensors[f"linear.{n}.weight"].shape
            if inner != widths[-1]:
                raise StructureError(
                    f"linear.{n} takes width {inner}, but the layer before it gives {widths[-1]}"
                )
            widths.append(outer)
        return cls(tuple(widths), *_spacing(kinds, linears, tensors))


def _module_kinds(tensors: StateDict) -> list[tuple[int, str]]:
    """``(N, "linear" | "norm" | "prelu")`` in order, every tensor accounted for."""
    numbers: dict[int, set[str]] = {}
    for key, tensor in tensors.items():
        # No leading zeros: 00 and 0 would be two keys for one module.
        match = re.fullmatch(r"linear\.(0|[1-9][0-9]{0,5})\.(weight|bias)", key)
        if match is None or not isinstance(tensor, torch.Tensor):
            raise StructureError(
                f'unexpected entry "{key}", expected linear.N.weight and linear.N.bias'
            )
        if not tensor.is_floating_point():
            raise StructureError(
                f'"{key}" has the type {tensor.dtype}, expected floating-point numbers'
            )
        numbers.setdefault(int(match[1]), set()).add(match[2])

    # The shapes alone tell the modules apart; the file doesn't name their classes.
    kinds = []
    for n, named in sorted(numbers.items()):
        shapes = {name: tuple(tensors[f"linear.{n}.{name}"].shape) for name in named}
        weight, bias = shapes.get("weight"), shapes.get("bias")
        if weight is not None and len(weight) == 2 and bias == weight[:1] and 0 not in weight:
            kinds.append((n, "linear"))
        elif weight is not None and len(weight) == 1 and bias == weight:
            kinds.append((n, "norm"))
        elif weight is not None and len(weight) == 1 and bias is None:
            kinds.append((n, "prelu"))
        else:
            raise StructureError(
                f"linear.{n} has tensors of shapes {shapes}, which is neither a layer nor a norm"
            )

    return kinds


def _spacing(
    kinds: Sequence[tuple[int, str]], linears: Sequence[int], tensors: StateDict
) -> tuple[tuple[tuple[int, int], ...], bool, int, tuple[bool, ...]]:
    """Gaps, layer norm, norm gap and prelu flags of an :class:`Outline`."""
    gaps, norms, prelu, norm_gap = [], [], [], 0
    places = [at for at, (_, kind) in enumerate(kinds) if kind == "linear"]
    for n, end, first, last in zip(
        linears, [*linears[1:], None], places, [*places[1:], len(kinds)], strict=True
    ):
        following = kinds[first + 1 : last]
        inside = {kind: m for m, kind in following}
        order, count = [kind for _, kind in following], len(following)

        if count != len(inside) or order not in ([], ["norm"], ["prelu"], ["prelu", "norm"]):
            raise StructureError(
                f"the modules after linear.{n} are in no order that the webui writes"
            )
        norm = inside.get("norm")
        if (
            norm is not None
            and tensors[f"linear.{norm}.weight"].shape[0] != tensors[f"linear.{n}.weight"].shape[0]
        ):
            raise StructureError(f"linear.{norm} normalises another width than linear.{n} gives")
        if "prelu" in inside and tensors[f"linear.{inside['prelu']}.weight"].numel() != 1:
            raise StructureError(
                f"linear.{inside['prelu']} has no shape that the webui's prelu or layer norm has"
            )

        norms.append(norm is not None)
        prelu.append("prelu" in inside)
        if end is not None:
            gaps.append((norm - n - 1, end - norm - 1) if norm is not None else (end - n - 1, 0))
        elif norm is not None:
            norm_gap = norm - n - 1

    if len(set(norms)) > 1:
        raise StructureError(
            "some layers have a layer norm and some have none, which the webui never writes"
        )

    return tuple(gaps), norms[0], norm_gap, tuple(prelu)


@dataclass(frozen=True)
class Claims:
    """What a file's metadata says about the structure; ``None`` where it says nothing."""

    layer_structure: tuple[float, ...] | None = None
    activation: str | None = None
    activate_output: bool | None = None
    layer_norm: bool | None = None
    dropout: tuple[float, ...] | None = None


def check_size(networks: Mapping[int, tuple[Sized, Sized]]) -> None:
    """Refuse more or larger networks than any model uses, before anything is done with them.

    A file of a few kilobytes can name one dictionary of 50,000 entries under 50,000 widths.

    Raises:
        StructureError: there are too many widths or tensors, or none.
    """
    if not networks:
        raise StructureError("it holds no network of any width")
    if len(networks) > MOST_WIDTHS:
        raise StructureError(
            f"it has networks for {len(networks)} widths: at most {MOST_WIDTHS} are possible"
        )

    largest = max(len(state) for pair in networks.values() for state in pair)
    if largest > MOST_TENSORS:
        raise StructureError(
            f"a network in it has {largest} tensors: at most {MOST_TENSORS} are possible"
        )


def derive_structure(
    tensors: Mapping[int, tuple[StateDict, StateDict]], claims: Claims
) -> Structure:
    """The structure that the tensors of all widths show, completed by the metadata.

    Raises:
        StructureError: tensors contradict each other or the metadata; the message says where.
    """
    check_size(tensors)
    outlines = {
        (dim, kv): Outline.of(pair[i]) for dim, pair in tensors.items() for i, kv in enumerate("kv")
    }
    first = next(iter(outlines.values()))

    # All widths and both sides must be built alike: a Hypernetwork has one structure.
    for (dim, kv), outline in outlines.items():
        if outline.widths[0] != dim or outline.widths[-1] != dim:
            raise StructureError(
                f"the network for width {dim} takes {outline.widths[0]} and gives "
                f"{outline.widths[-1]} ({kv})"
            )
        if len(outline.widths) != len(first.widths) or replace(outline, widths=()) != replace(
            first, widths=()
        ):
            raise StructureError(
                f"the network for width {dim} ({kv}) is built differently from the first one"
            )

    layer_structure = _layer_structure(
        {key[0]: o.widths for key, o in outlines.items()}, claims.layer_structure
    )
    for (dim, kv), outline in outlines.items():
        expected = tuple(int(dim * m) for m in layer_structure)
        if outline.widths != expected:
            raise StructureError(
                f"the tensors for width {dim} ({kv}) have layers {list(outline.widths)}, "
                f"but the layer structure {list(layer_structure)} gives {list(expected)}"
            )

    return _complete(first, layer_structure, claims)


def _layer_structure(
    widths: Mapping[int, tuple[int, ...]], claimed: tuple[float, ...] | None
) -> tuple[float, ...]:
    lengths = {len(w) for w in widths.values()}
    if claimed is not None:
        if {len(claimed)} != lengths:
            raise StructureError(
                f"the layer structure {list(claimed)} and the {lengths.pop()} tensor widths "
                "disagree"
            )
        return claimed
    return tuple(
        _common_multiple({dim: w[i] for dim, w in widths.items()}) for i in range(lengths.pop())
    )


def _common_multiple(sizes: Mapping[int, int]) -> float:
    """The shortest decimal number m with ``int(dim * m) == size`` for all widths.

    If there is none, the ratio of the first width.
    """
    # int() truncates, so each size allows an interval of multiples; the intervals must intersect.
    low = max(Fraction(size, dim) for dim, size in sizes.items())
    high = min(Fraction(size + 1, dim) for dim, size in sizes.items())
    for digits in range(7):
        scale = 10**digits
        candidate = Fraction(-(-low.numerator * scale // low.denominator), scale)
        if low <= candidate < high and all(
            int(d * float(candidate)) == s for d, s in sizes.items()
        ):
            return float(candidate)

    dim, size = next(iter(sizes.items()))
    return size / dim


def _complete(outline: Outline, layer_structure: tuple[float, ...], claims: Claims) -> Structure:
    """Combine what tensors and metadata say about activation, norm and dropout."""
    if claims.layer_norm is not None and claims.layer_norm != outline.layer_norm:
        raise StructureError(_contradiction("is_layer_norm", claims.layer_norm, outline.layer_norm))

    activation = claims.activation or "linear"
    if any(outline.prelu) != (activation == "prelu"):
        raise StructureError(
            _contradiction("activation_func", activation, "prelu" if any(outline.prelu) else "none")
        )

    # The gaps show whether the last layer is activated only if another module follows it there.
    named = claims.activation is not None
    shown = [_gap_contents(gap, outline.layer_norm, activation, named) for gap in outline.gaps]
    output = claims.activate_output
    if activation == "prelu":
        output = _agree("activate_output", output, outline.prelu[-1])
    elif outline.layer_norm and activation != "linear":
        output = _agree("activate_output", output, outline.norm_gap == 1)
    elif outline.layer_norm and outline.norm_gap:
        raise StructureError(
            _contradiction("activation_func", activation, "an activation after the last layer")
        )

    return Structure(
        layer_structure=layer_structure,
        activation=activation,
        activate_output=True if output is None else output,
        layer_norm=outline.layer_norm,
        dropout=_dropout(claims, shown, len(layer_structure)),
    )


def _gap_contents(
    gap: tuple[int, int], layer_norm: bool, activation: str, named: bool = True
) -> bool:
    """Whether there is a dropout in this gap.

    Raises:
        StructureError: the gap and the activation contradict each other.
    """
    before, after = gap
    activated = activation != "linear"
    if not layer_norm:  # the activation comes first, a dropout may follow
        before, after = min(before, int(activated)), before - min(before, int(activated))
    if before != activated or after > 1:
        if not activated and not named:
            raise StructureError(
                f"the file doesn't say which activation it has, and its tensors have {sum(gap)} "
                "other modules between two layers: it can't be read faithfully"
            )
        kind = f'"{activation}"' if activated else "none"
        raise StructureError(
            f"the metadata says activation {kind}, but the tensors have {sum(gap)} other modules "
            "between two layers"
        )

    return after == 1


def _dropout(claims: Claims, shown: Sequence[bool], layers: int) -> tuple[float, ...]:
    claimed = claims.dropout
    if claimed is None:
        if any(shown) and claims.activation is None:
            raise StructureError(
                "the tensors show another module between two layers, and the metadata does not "
                "tell whether it is an activation or a dropout"
            )
        return (0.0, *(0.3 if there else 0.0 for there in shown), 0.0)
    if len(claimed) == layers and [p > 0 for p in claimed[1:-1]] != list(shown):
        raise StructureError(
            _contradiction("dropout_structure", list(claimed), f"dropout at {list(shown)}")
        )
    return claimed


def _agree(key: str, claimed: bool | None, shown: bool) -> bool:
    if claimed is not None and claimed != shown:
        raise StructureError(_contradiction(key, claimed, shown))
    return shown


def _contradiction(key: str, claimed: object, shown: object) -> str:
    return f"the metadata says {key} = {claimed}, but the tensors show {shown}"
