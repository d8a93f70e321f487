"""One residual MLP, and the pairs of them (key, value) per context width that make a
hypernetwork.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import StructureError
from .affine import AffineMap, collapse
from .hidden import BothSides, HiddenLayers, ends_in_layer, last_layer
from .magnitudes import largest_output
from .normed import Normed, normed
from .prepared import Delta, prepared
from .products import FUSED, linear
from .schedules import finite
from .structure import StateDict, Structure
from .tensors import bytes_of, for_float64, is_ordinary


class Mlp(nn.Module):
    """The MLP of one width and one side (key or value), as AUTOMATIC1111 builds it.

    Its state dict has the webui's keys, ``linear.N.weight`` and ``linear.N.bias``. The residual and
    the multiplier are not part of it.

    Args:
        dim: context width.
        structure: how it is built.
        tensors: adopted as they are, without a copy; ``None`` leaves torch's default
            initialisation.
    """

    def __init__(self, dim: int, structure: Structure, tensors: StateDict | None = None) -> None:
        super().__init__()
        # On the meta device nothing is allocated or initialised, since tensors are adopted anyway.
        with torch.device("meta" if tensors is not None else "cpu"):
            self.linear = nn.Sequential(*structure.modules(dim))

        if tensors is not None:
            if not self._adopt(tensors):
                raise StructureError(
                    f"the tensors for width {dim} do not fit the structure {structure}"
                )
            self.requires_grad_(False)
            self.eval()
        self.is_linear = structure.is_linear

    def _adopt(self, tensors: StateDict) -> bool:
        """Put the tensors in the place of the parameters; whether they fit.

        Not by ``load_state_dict``: AUTOMATIC1111 replaces that of every module while it loads a
        checkpoint in another thread, with one that takes fewer arguments.
        """
        shapes = {name: tensor.shape for name, tensor in self.state_dict().items()}
        given = {name: tensor.shape for name, tensor in tensors.items()}
        if shapes != given or not all(
            tensor.is_floating_point() or tensor.is_complex() for tensor in tensors.values()
        ):
            return False

        for name, tensor in tensors.items():
            path, _, leaf = name.rpartition(".")
            is_ready = isinstance(tensor, nn.Parameter)
            parameter = tensor if is_ready else nn.Parameter(tensor, requires_grad=False)
            setattr(self.get_submodule(path), leaf, parameter)
        return True

    def forward(self, context: torch.Tensor) -> torch.Tensor:
        """What is added to ``context`` at multiplier 1: ``(batch, tokens, dim)`` in the parameters'
        dtype.
        """
        return self.linear(context)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Provenance:
    """Where a network comes from, according to its file. For display only, never for identity.

    Attributes:
        name: the name written inside the file.
        step: training steps.
        checkpoint_hash, checkpoint_name: the model it was trained on.
        weight_initialization: ``"Normal"``, ``"XavierUniform"``, …
        optional: free text.
    """

    name: str | None = None
    step: int = 0
    checkpoint_hash: str | None = None
    checkpoint_name: str | None = None
    weight_initialization: str = "Normal"
    optional: str | None = None


@dataclass(eq=False)
class Hypernetwork:
    """A hypernetwork in memory.

    Attributes:
        name: what a tag calls it: the file's stem.
        structure: the same for all widths.
        pairs: context width -> (key MLP, value MLP). The tensors keep the dtype of the file.
        provenance: where it comes from.
        training: whether it is being trained: parameters get gradients, dropout is on, and nothing
            is collapsed.
    """

    name: str
    structure: Structure
    pairs: dict[int, tuple[Mlp, Mlp]]
    provenance: Provenance = field(default_factory=Provenance)
    training: bool = False

    @classmethod
    def from_tensors(
        cls,
        name: str,
        structure: Structure,
        tensors: Mapping[int, tuple[StateDict, StateDict]],
        provenance: Provenance | None = None,
    ) -> Hypernetwork:
        """Adopt state dicts by width, without copying them."""
        pairs = {
            dim: (Mlp(dim, structure, tensors[dim][0]), Mlp(dim, structure, tensors[dim][1]))
            for dim in sorted(tensors)
        }
        return cls(name, structure, pairs, provenance or Provenance())

    @classmethod
    def create(cls, name: str, structure: Structure, widths: Iterable[int]) -> Hypernetwork:
        """A new fp32 network to train, with torch's default initialisation and a zero last layer.

        The zero layer makes it the identity at step 0, unless a layer norm or an activation follows
        that layer. Consumes the RNG.
        """
        network = cls(
            name,
            structure,
            {dim: (Mlp(dim, structure), Mlp(dim, structure)) for dim in sorted(widths)},
        )
        for pair in network.pairs.values():
            for mlp in pair:
                last = [module for module in mlp.linear if isinstance(module, nn.Linear)][-1]
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)

        network.train(False)
        return network

    @property
    def widths(self) -> tuple[int, ...]:
        """Context widths that it transforms, ascending."""
        return tuple(sorted(self.pairs))

    @property
    def dtype(self) -> torch.dtype:
        """The type that its tensors have in the file."""
        return next(self.pairs[self.widths[0]][0].parameters()).dtype

    def parameters(self) -> Iterator[nn.Parameter]:
        """All parameters, for an optimizer."""
        for dim in self.widths:
            for mlp in self.pairs[dim]:
                yield from mlp.parameters()

    def train(self, mode: bool = True) -> None:
        """Switch to training, where the parameters get gradients, or back to use."""
        self.training = mode
        self.release()
        for pair in self.pairs.values():
            for mlp in pair:
                mlp.train(mode).requires_grad_(mode)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> None:
        """Move and convert the parameters themselves, in place."""
        self.release()
        for pair in self.pairs.values():
            for mlp in pair:
                mlp.to(device, dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors, in the type of the file."""
        return bytes_of(*self.parameters())

    @property
    def prepared_bytes(self) -> int:
        """Bytes of what was prepared for speed (converted, collapsed, folded), besides
        :attr:`nbytes`. :meth:`release` frees them.
        """
        return prepared(self).nbytes

    def transform(
        self, context: torch.Tensor, multiplier: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The context for keys and the context for values: ``context + multiplier * mlp(context)``.

        Args:
            context: ``(batch, tokens, dim)``, any floating dtype and device; not changed.
            multiplier: 0 is the identity.

        Returns:
            Two tensors of the context's shape, dtype and device; computed in fp32 at least, as
            AUTOMATIC1111 does. For a width that the network lacks, the context itself, twice.

        Raises:
            MultiplierError: the multiplier isn't finite.
        """
        multiplier = finite(multiplier)
        if context.shape[-1] not in self.pairs or multiplier == 0:
            return context, context

        # autocast would compute in half precision again.
        precise = context.to(torch.promote_types(context.dtype, torch.float32))
        with without_autocast(context.device.type):
            key, value = (self.step(precise, side, multiplier) for side in (0, 1))
        return key.to(context.dtype), value.to(context.dtype)

    def step(self, context: torch.Tensor, side: int, multiplier: float) -> torch.Tensor:
        """``context + multiplier * mlp(context)`` for one side, in the context's own dtype; a new
        tensor.
        """
        change = self.delta(context.shape[-1], side, context.device, context.dtype)(context)
        # Autograd needs the change as it is; otherwise its memory takes the result.
        if torch.is_grad_enabled():
            return torch.add(context, change, alpha=multiplier)
        return torch.add(context, change, alpha=multiplier, out=change)

    def delta(self, dim: int, side: int, device: torch.device, dtype: torch.dtype) -> Delta:
        """What the network adds at multiplier 1, prepared for a device and dtype.

        It is kept until :meth:`release`. A linear network becomes one affine map. Dropout is off.
        Calls return a new tensor.

        Args:
            dim: a width of this network.
            side: 0 for keys, 1 for values.
        """
        if self.training:
            return _live(self.pairs[dim][side])

        key = (dim, side, device, dtype)
        kept = prepared(self).deltas
        found = kept.get(key)
        if found is not None:
            return found[0]
        # Tensors made in inference mode could not be used in later calls outside it.
        with torch.inference_mode(False), torch.no_grad():
            delta, added, tensors = self._made_ready(dim, side, device, dtype)
        if is_ordinary(*tensors):  # tensors of an export are meaningless afterwards
            kept[key] = delta, added
        return delta

    def affine(self, dim: int, side: int, device: torch.device, dtype: torch.dtype) -> AffineMap:
        """A linear network as one affine map, collapsed in float64; kept until :meth:`release`."""
        affine = self.delta(dim, side, device, dtype)
        assert isinstance(affine, AffineMap)
        return affine

    def hidden(self, dim: int, device: torch.device, dtype: torch.dtype) -> HiddenLayers | None:
        """The layers before the last one, for keys and values, prepared and kept as by
        :meth:`delta`; ``None`` where the last one isn't linear, and in training.
        """
        if self.training or not ends_in_layer(self.structure):
            return None

        key, kept = (dim, device, dtype), prepared(self).hidden
        if key not in kept:
            with torch.inference_mode(False), torch.no_grad():
                made = HiddenLayers([mlp.linear for mlp in self.pairs[dim]], device, dtype)
            kept[key] = made, bytes_of(*made.tensors)
        return kept[key][0]

    def both_sides(self, dim: int, device: torch.device, dtype: torch.dtype) -> BothSides | None:
        """Keys and values as one computation, kept as by :meth:`delta`; ``None`` where the last
        layer isn't linear, and in training.
        """
        if self.training or not (self.structure.is_linear or ends_in_layer(self.structure)):
            return None

        key, kept = (dim, device, dtype), prepared(self).both
        if (found := kept.get(key)) is not None:
            return found

        with torch.inference_mode(False), torch.no_grad():
            last = [
                self._collapsed(dim, side, device)
                if self.structure.is_linear
                else self.last_layer(dim, side)
                for side in (0, 1)
            ]
            maps = [affine.to(device, dtype) for affine in last]
            made = BothSides.of_maps(self.hidden(dim, device, dtype), maps)
        if is_ordinary(made.weight, made.bias):
            kept[key] = made
        return made

    def _collapsed(self, dim: int, side: int, device: torch.device) -> AffineMap:
        return collapse(list(self.pairs[dim][side].linear), for_float64(device))

    def last_layer(self, dim: int, side: int) -> AffineMap:
        """The last linear layer of one MLP, as it is in the file."""
        return last_layer(self.pairs[dim][side].linear)

    def _made_ready(
        self, dim: int, side: int, device: torch.device, dtype: torch.dtype
    ) -> tuple[Delta, int, list[torch.Tensor]]:
        """What :meth:`delta` keeps, its bytes, and its tensors."""
        mlp = self.pairs[dim][side]
        if not self.structure.is_linear:
            return _functional(mlp, self.structure, device, dtype)
        made = self._collapsed(dim, side, device).to(device, dtype)
        tensors = [made.weight, made.bias]
        return made, bytes_of(*tensors), tensors

    def largest_output(self, dim: int, side: int) -> float:
        """An upper estimate of the largest number in an MLP, for contexts as attention has them.

        fp16 ends at 65,504. A network that might come near it is computed in fp32.
        """
        kept, key = prepared(self).largest, (dim, side)
        if key not in kept:
            kept[key] = largest_output(self.pairs[dim][side].linear, dim)
        return kept[key]

    def release(self) -> None:
        """Free everything prepared from it. Call it after changing parameters, too."""
        prepared(self).clear()

    def release_devices(self) -> None:
        """Free what is kept on accelerators, when no tag names the network any more."""
        prepared(self).clear_devices()


def _live(mlp: Mlp) -> Delta:
    """An MLP in training, for contexts of any dtype; it computes in the dtype of its parameters."""

    def run(context: torch.Tensor) -> torch.Tensor:
        inner: torch.Tensor = mlp(context.to(next(mlp.parameters()).dtype))
        return inner.to(context.dtype)

    return run


def _functional(
    mlp: Mlp, structure: Structure, device: torch.device, dtype: torch.dtype
) -> tuple[Delta, int, list[torch.Tensor]]:
    """The MLP as a chain of plain functions without dropouts, the bytes that converting took, and
    its tensors.
    """
    steps: list[Delta] = []
    modules = [module for module in mlp.linear if not isinstance(module, nn.Dropout)]
    added, all_tensors, kernel = 0, list[torch.Tensor](), None
    for module, following in zip(modules, [*modules[1:], None], strict=True):
        own = dict(module.named_parameters())
        tensors = {name: p.detach().to(device, dtype) for name, p in own.items()}
        all_tensors += tensors.values()
        converted = (
            t for n, t in tensors.items() if own[n].dtype != dtype or t.device != own[n].device
        )
        added += bytes_of(*converted)
        if isinstance(module, nn.Linear):
            activation = following if type(following) in FUSED else None
            kernel = _kernel_for(structure, activation, module.out_features, device, dtype)
            steps.append(
                _product(tensors["weight"], tensors["bias"], None if kernel else activation)
            )
        elif isinstance(module, nn.LayerNorm):
            steps.append(_layer_norm(module, tensors, kernel))
            kernel = None
        elif isinstance(module, nn.PReLU):
            steps.append(lambda x, weight=tensors["weight"]: F.prelu(x, weight))  # type: ignore[misc]
        elif not (
            steps and type(module) in FUSED
        ):  # one in FUSED follows a linear layer, and stands in its step
            steps.append(module.eval())

    def run(context: torch.Tensor) -> torch.Tensor:
        for step in steps:
            context = step(context)
        return context

    return run, added, all_tensors


def _product(weight: torch.Tensor, bias: torch.Tensor, activation: nn.Module | None) -> Delta:
    return lambda x: linear(x, weight, bias, activation)


def _kernel_for(
    structure: Structure,
    activation: nn.Module | None,
    width: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Normed | None:
    """A kernel for the activation and the norm after it, if there is one."""
    if activation is None or not structure.layer_norm:
        return None
    return normed(activation, width, device, dtype)


def _layer_norm(
    module: nn.LayerNorm, tensors: Mapping[str, torch.Tensor], kernel: Normed | None
) -> Delta:
    shape, eps = module.normalized_shape, module.eps
    if kernel is not None:
        return lambda x: kernel(x, tensors["weight"], tensors["bias"], eps)
    return lambda x: F.layer_norm(x, shape, tensors["weight"], tensors["bias"], eps)


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Switch autocast off where it is on, so that fp32 stays fp32."""
    return (
        torch.autocast(device_type, enabled=False)
        if _autocast_is_on(device_type)
        else nullcontext()  # a new one each time: torch 2.3's compiler can't use one again
    )


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """What autocast computes in on a kind of device; ``None`` where it is off or not known."""
    if not _autocast_is_on(device_type):
        return None
    if hasattr(torch, "get_autocast_dtype"):
        return torch.get_autocast_dtype(device_type)
    return torch.get_autocast_gpu_dtype() if device_type == "cuda" else None


def _autocast_is_on(device_type: str) -> bool:
    if hasattr(torch, "get_autocast_dtype"):  # torch 2.4: one question for every device
        try:
            return torch.is_autocast_enabled(device_type)
        except RuntimeError:  # a device that autocast does not know
            return False
    return torch.is_autocast_enabled() or (device_type == "cpu" and torch.is_autocast_cpu_enabled())
