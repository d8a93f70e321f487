"""Devices that this machine lacks, emulated: their tensors are kept on the CPU, and refuse what the
real ones refuse.

An :class:`Opaque` tensor says that it is on the device, computes on the CPU, has no float64 and no
address, and mixes with no tensor of the CPU, as with Apple's MPS (no float64), many of Intel's
cards (no float64) and DirectML (neither float64 nor ``data_ptr``; opaque tensors). What is not
emulated: speed, memory, missing kernels and rounding.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import pytest
import torch
from torch.utils import backend_registration as registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

KIND = "privateuseone"
"""What torch calls devices that others bring, such as DirectML; the one that may be registered from
Python.
"""
CROSSING = (
    "_to_copy",
    "copy_",
    "_has_compatible_shallow_copy_type",
    "index",
    "index_put_",
    "_index_put_impl_",
)
"""Operations that may have tensors of both sides."""


class Opaque(torch.Tensor):
    """A tensor of an emulated device."""

    inner: torch.Tensor
    where: torch.device

    @staticmethod
    def __new__(cls, inner: torch.Tensor, where: torch.device) -> Opaque:
        if inner.dtype in (torch.float64, torch.complex128):
            raise TypeError(
                f"Cannot convert a {where.type} tensor to float64: it doesn't support it"
            )
        made: Opaque = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device="meta",
            requires_grad=False,
            dispatch_device=True,
        )
        made.inner, made.where = inner, where
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Opaque({self.inner!r}, {self.where})"

    def data_ptr(self) -> int:
        """As DirectML says it."""
        raise RuntimeError("Cannot access data pointer of Tensor that doesn't have storage")

    def tolist(self) -> Any:
        return self.inner.tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> Opaque:
        copied = Opaque(self.inner.detach().clone(), self.where)
        return copied.requires_grad_(self.requires_grad)  # type: ignore[return-value]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute on the CPU what was asked of the device, and wrap what belongs there."""
    flat = tree_flatten((args, kwargs))[0]
    ours = [t for t in flat if isinstance(t, Opaque)]
    name = func.overloadpacket.__name__
    if name == "device":
        return ours[0].where
    if name == "_local_scalar_dense":
        return func(ours[0].inner)

    asked = kwargs.get("device")
    source = ours[0].where if ours else None
    target = source if asked is None else _kind(asked)
    if ours and name not in CROSSING:
        mixed = [
            t for t in flat if isinstance(t, torch.Tensor) and not isinstance(t, Opaque) and t.dim()
        ]
        if mixed:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device")

    if asked is not None:
        kwargs = {**kwargs, "device": "cpu"}
    if kwargs.get("dtype") == torch.float64 and target is not None:
        raise TypeError(f"Cannot convert a {target.type} tensor to float64: it doesn't support it")
    plain = tree_map(lambda t: t.inner if isinstance(t, Opaque) else t, (args, kwargs))
    if name == "copy_" and not isinstance(args[0], Opaque):
        target = None
    if ours and name == "_to_copy" and asked is None:
        target = args[0].where if isinstance(args[0], Opaque) else None
    result = func(*plain[0], **plain[1])
    if target is None:
        return result

    known = {id(t.inner): t for t in ours}

    def wrapped(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or isinstance(value, Opaque):
            return value
        return known[id(value)] if id(value) in known else Opaque(value, target)

    return tree_map(wrapped, result)


def _kind(asked: Any) -> torch.device | None:
    device = torch.device(asked)
    return None if device.type == "cpu" else device


class _Factories(TorchDispatchMode):
    """Tensors that are made on the device, or sent there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        asked = kwargs.get("device")
        is_ours = asked is not None and torch.device(asked).type == KIND
        if is_ours or any(isinstance(t, Opaque) for t in tree_flatten((args, kwargs))[0]):
            return _run(func, args, kwargs)
        return func(*args, **kwargs)


_IS_HERE = [False]


def _no_inference(mode: bool = True) -> Any:
    """Tensors of Python can't be made in inference mode."""
    return torch.no_grad() if mode else nullcontext()


@cache
def _register() -> bool:
    """Let torch's autograd and ``Tensor.to`` know of the device; torch has a way for this since
    2.9.
    """
    if not hasattr(torch._C, "_acc"):
        return False

    class Hook(torch._C._acc.PrivateUse1Hooks):  # type: ignore[misc,name-defined]
        """Registered once for the process, so that the device must be able to go."""

        def is_available(self) -> bool:
            return _IS_HERE[0]

        def has_primary_context(self, _: int) -> bool:
            return _IS_HERE[0]

        def is_built(self) -> bool:
            return _IS_HERE[0]

    torch.utils.rename_privateuse1_backend(KIND)
    torch._C._acc.register_python_privateuseone_hook(Hook())
    torch._C._acc.register_python_privateuseone_device_guard(registration._DummyDeviceGuard())
    return True


@contextmanager
def device() -> Iterator[torch.device]:
    """The device is here inside."""
    if not _register():
        pytest.skip("this torch has no devices made in Python")
    torch._register_device_module(KIND, registration._DummyBackendModule())
    _IS_HERE[0] = True
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor goes by way of the CPU
    inference_mode = torch.inference_mode
    torch.inference_mode = _no_inference  # type: ignore[assignment,misc]
    try:
        with _Factories():
            yield torch.device(KIND, 0)
    finally:
        torch.inference_mode = inference_mode  # type: ignore[misc]
        torch._C._set_only_lift_cpu_tensors(False)
        _IS_HERE[0] = False
        delattr(torch, KIND)
        sys.modules.pop(f"torch.{KIND}", None)
