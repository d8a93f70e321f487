"""What a training step keeps in memory, counted without a device: ``python -m
benchmarks.gpu.footprint``.

A step of a full-size UNet runs on torch's meta device, and every tensor that is alive is counted,
as CUDA's autocast would make them: norms in fp32, products in half precision, attention by a fused
kernel. The formula of ``--memory auto`` has its bytes per latent pixel from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import hypernetworks as hn
from hypernetworks.engine.initialising import create_network
from hypernetworks.hosts.diffusers.training.stored import FP8, WHOLE, stored

from .. import training as loops
from .models import Subject

HALF = torch.bfloat16
CASES = (
    ("SD1.5", 512, 1, WHOLE, False),
    ("SD1.5", 512, 1, WHOLE, True),
    ("SD1.5", 512, 4, WHOLE, True),
    ("SDXL", 1024, 1, WHOLE, False),
    ("SDXL", 1024, 1, WHOLE, True),
    ("SDXL", 1024, 1, FP8, True),
)
"""Family, size, batch, how the weights are stored, and computing activations twice."""


class Alive(TorchDispatchMode):
    """Counts the bytes of tensors that are alive, and their peak, to one percent.

    Args:
        free: tensors that don't count, such as weights.
    """

    def __init__(self, free: list[torch.Tensor]) -> None:
        super().__init__()
        self._known = {
            tensor.untyped_storage()._cdata: (StorageWeakRef(tensor.untyped_storage()), 0)
            for tensor in free
        }
        self._bytes, self.peak = 0, 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Count what is new, and go on."""
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())

        # Looking for what is gone takes long: only where the peak may have grown.
        if self._bytes > 1.01 * self.peak:
            for key in [key for key, (there, _) in self._known.items() if there.expired()]:
                self._bytes -= self._known.pop(key)[1]
            self.peak = max(self.peak, self._bytes)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        known = self._known.get(storage._cdata)
        if known is not None:
            if not known[0].expired():
                return
            self._bytes -= known[1]  # another one that had this address
        self._known[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._bytes += storage.nbytes()


class _Fused(torch.autograd.Function):
    """Attention as a fused kernel computes it, which keeps no scores."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        made = torch.empty_like(q)
        sums = torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device)
        ctx.save_for_backward(q, k, v, made, sums)
        return made

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> Any:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


@contextmanager
def as_in_autocast() -> Iterator[None]:
    """Torch's functions convert what CUDA's autocast converts; it has none for the meta device."""
    before = {
        name: getattr(F, name)
        for name in ("linear", "conv2d", "group_norm", "layer_norm", "scaled_dot_product_attention")
    }

    def cast(value: Any, dtype: torch.dtype) -> Any:
        is_number = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.to(dtype) if is_number else value

    def inside(function: Callable[..., Any], dtype: torch.dtype) -> Callable[..., Any]:
        return lambda *a, **n: function(
            *(cast(value, dtype) for value in a), **{k: cast(v, dtype) for k, v in n.items()}
        )

    def linear(inputs: torch.Tensor, weight: torch.Tensor, bias: Any = None) -> Any:
        # A hypernetwork in training computes in fp32, autocast off.
        is_ours = weight.dtype == torch.float32
        return before["linear"](inputs if is_ours else cast(inputs, HALF), weight, bias)

    own: dict[str, Callable[..., Any]] = {
        "linear": linear,
        "conv2d": inside(before["conv2d"], HALF),
        "group_norm": inside(before["group_norm"], torch.float32),
        "layer_norm": inside(before["layer_norm"], torch.float32),
        "scaled_dot_product_attention": lambda q, k, v, *_, **__: _Fused.apply(
            *(cast(tensor, HALF) for tensor in (q, k, v))
        ),
    }
    try:
        for name, function in own.items():
            setattr(F, name, function)
        yield
    finally:
        for name, function in before.items():
            setattr(F, name, function)


def activations(family: str, size: int, batch: int, storage: str, twice: bool) -> int:
    """Bytes of all tensors but the weights at the peak of a step."""
    subject = Subject(family, size, HALF, "meta")
    structure = hn.Structure((1, 2, 1), "relu", activate_output=False)
    network = create_network("counted", structure, subject.widths)
    network.to("meta", torch.float32)
    network.train()
    if twice:
        model: Any = type("Model", (), {"unet": subject.unet, "device": "meta", "precision": ""})
        loops.bare(model).save_memory()

    inputs = subject.inputs(batch=batch)
    with stored(subject.unet, storage, keep=False), hn.apply(subject.unet, [(network, 1.0)]):
        free = [*subject.unet.parameters(), *network.parameters()]
        with as_in_autocast(), Alive(free) as alive:
            subject.call(inputs).float().square().mean().backward()  # type: ignore[no-untyped-call]
    return alive.peak


def main() -> None:
    """Print a line for each case; SDXL takes a minute each."""
    for family, size, batch, storage, twice in CASES:
        found = activations(family, size, batch, storage, twice)
        pixels = batch * (size // 8) ** 2
        how = f"{storage}, activations {'computed twice' if twice else 'kept'}"
        print(
            f"{family} {size}x{size}, batch {batch}, {how}: {found / 2**20:.0f} MiB, "
            f"{found / pixels / 1024:.0f} KiB per latent pixel",
            flush=True,
        )


if __name__ == "__main__":
    main()
