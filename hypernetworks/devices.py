"""The devices that torch can use on this machine, the best of them, and their differences.

For torch, NVIDIA and AMD cards are ``cuda``, Intel's ``xpu`` and Apple's ``mps``. On Windows, any
card works through DirectML if the package ``torch_directml`` is installed; torch calls that device
``privateuseone``.
"""

from __future__ import annotations

import ctypes
import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from .errors import DeviceError, HypernetworkError

KINDS = ("cuda", "xpu", "mps", "directml", "cpu")
"""Devices by the names that users type, the fastest first."""
DIRECTML = "privateuseone"
"""torch's name for a device of another package, such as DirectML."""
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
OUT_OF_MEMORY = (
    "out of memory",  # CUDA, ROCm, Metal, Intel
    "can't allocate memory",  # the CPU's allocator on Linux and macOS
    "not enough memory",  # the same on Windows
    "could not allocate tensor",  # DirectML
    "not enough gpu video memory",  # DirectML
    "alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED
    "out_of_resources",  # Intel's level zero
    "out_of_device_memory",
    "out_of_host_memory",
    "cannot allocate memory",
    "failed to allocate",
    "unable to allocate",  # numpy
    "invalid buffer size",  # Metal, for a single tensor
    "paging file is too small",  # Windows, while a model is loaded
    "insufficient system resources",
    "std::bad_alloc",
    "bad allocation",  # the same from Microsoft's compiler
    "allocation_failure",  # OpenCL and SYCL: MEM_OBJECT_ALLOCATION_FAILURE
    "erroroutofmemory",  # names of errors: hipErrorOutOfMemory, …
    "errormemoryallocation",
    "e_outofmemory",  # DirectX
    "(os error 12)",  # from Rust (safetensors), in the system's language
    "(os error 1450)",
    "(os error 1455)",
)
"""Texts in the errors of devices and allocators, in lower case; few have a class of their own."""
OUT_OF_MEMORY_ON_WINDOWS = (8, 14, 1450, 1455)
"""Windows' own numbers, as it says the rest in the user's language."""


def usable_devices(tell: Callable[[str], object] = lambda _: None) -> list[str]:
    """Names of the devices that work here, the fastest first; the last is the CPU.

    Args:
        tell: called with a message for each device that exists but doesn't work.
    """
    found: list[str] = []
    for kind in KINDS[:-1]:
        if absent(kind) is not None:
            continue
        try:
            _try(device_named(kind))
        except DeviceError as error:
            tell(f"{kind} is there, but can't be used: {error}")
            continue

        count = _count(kind)
        found += [kind] if count < 2 else [kind, *(f"{kind}:{i}" for i in range(1, count))]

    return [*found, "cpu"]


def choose_device(asked: str | None, tell: Callable[[str], object] = lambda _: None) -> str:
    """torch's name for a device; without a name, or with ``auto``, for the fastest that works.

    Args:
        asked: such as ``cuda``, ``cuda:1``, ``xpu``, ``mps``, ``directml`` or ``cpu``.
        tell: if no device was named, called with a message for each that exists but doesn't work.

    Raises:
        DeviceError: the device can't be used; says why, and which can.
    """
    if asked in (None, "", "auto"):
        return str(device_named(usable_devices(tell)[0]))

    assert asked is not None
    try:
        device = device_named(asked)
        _try(device)
    except DeviceError as error:
        others = ", ".join(usable_devices())
        raise DeviceError(
            f"the device {asked} can't be used ({error}): choose one of {others}"
        ) from error
    return str(device)


def device_named(name: str) -> torch.device:
    """torch's device for a name.

    Raises:
        DeviceError: there is no such device; says why.
    """
    # torch uses AMD cards through the names of CUDA.
    kind, _, index = name.strip().lower().partition(":")
    kind = {"dml": "directml", DIRECTML: "directml", "rocm": "cuda", "hip": "cuda"}.get(kind, kind)
    if kind not in KINDS:
        raise DeviceError(f"known are {', '.join(KINDS)}")

    if (reason := absent(kind)) is not None:
        raise DeviceError(reason)
    if index and not (index.isascii() and index.isdigit() and int(index) < _count(kind)):
        numbers = ", ".join(map(str, range(_count(kind))))
        raise DeviceError(f"its number is {index}, and there are {numbers}")
    if kind == "directml":
        return torch.device(import_module("torch_directml").device(int(index or 0)))

    return torch.device(kind, int(index)) if index else torch.device(kind)


def name_of(device: torch.device) -> str:
    """The name that users type for a device; the inverse of :func:`device_named`."""
    kind = "directml" if device.type == DIRECTML else device.type
    return f"{kind}:{device.index}" if device.index else kind


def absent(kind: str) -> str | None:
    """Why this torch or machine has no device of a kind; ``None`` if it has one."""
    if kind == "cuda":
        if torch.version.cuda is None and getattr(torch.version, "hip", None) is None:
            return "this torch is built without CUDA: run install.py again, or install a CUDA build"
        return None if torch.cuda.is_available() else "no card, or no driver, is found"
    if kind == "xpu":
        module = getattr(torch, "xpu", None)
        there = module is not None and module.is_available()
        return None if there else "this torch is built without Intel's XPU, or there is no card"
    if kind == "mps":
        if not torch.backends.mps.is_built():
            return "this torch is built without Apple's MPS"
        return None if torch.backends.mps.is_available() else "it needs macOS 12.3 or later"
    if kind == "directml":
        return None if find_spec("torch_directml") is not None else "torch-directml isn't installed"

    return None


def _count(kind: str) -> int:
    if kind in ("cuda", "xpu"):
        return int(getattr(torch, kind).device_count())
    if kind == "directml":
        return int(import_module("torch_directml").device_count())
    return 1


def _try(device: torch.device) -> None:
    """Compute something on a device: one that this torch doesn't support fails only then.

    Raises:
        DeviceError: it fails; with torch's message.
    """
    try:
        float((torch.ones(2, device=device) * 2).sum())
    except Exception as error:  # drivers raise what they like
        said = " ".join(str(error).split()) or type(error).__name__
        raise DeviceError(said[:200]) from error


def default_dtype(device: str | torch.device, precision: str = "auto") -> torch.dtype:
    """The type for a model's weights on a device: fp32 on the CPU, fp16 elsewhere.

    Args:
        precision: ``auto``, or one of :data:`PRECISIONS`.
    """
    if precision != "auto":
        return PRECISIONS[precision]
    return torch.float32 if torch.device(device).type == "cpu" else torch.float16


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a device, or the CPU, has too little memory."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    if isinstance(error, OSError) and (
        error.errno == errno.ENOMEM or getattr(error, "winerror", None) in OUT_OF_MEMORY_ON_WINDOWS
    ):
        return True
    said = str(error).lower()
    return isinstance(error, (RuntimeError, OSError)) and any(w in said for w in OUT_OF_MEMORY)


@contextmanager
def enough_memory(
    advice: str | Callable[[], str], device: str | torch.device = "cpu"
) -> Iterator[None]:
    """Turn a lack of memory inside into an error that says what to do.

    Args:
        advice: the end of the sentence "there was not enough memory …", or a function for it.
        device: the device whose unused memory is returned.

    Raises:
        HypernetworkError: there was not enough memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        empty_cache(device)
        text = advice if isinstance(advice, str) else advice()
        raise HypernetworkError(f"there was not enough memory {text}") from error


def empty_cache(device: str | torch.device) -> None:
    """Return memory that torch keeps but nothing uses to the device."""
    module: Any = getattr(torch, torch.device(device).type, None)
    empty = getattr(module, "empty_cache", None)
    if empty is not None:
        with suppress(RuntimeError):  # nothing was computed there yet
            empty()


def trim_heap() -> None:
    """Return freed memory to the system; glibc keeps it, in a heap for each of many threads."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Autocast if this torch has it for the device; otherwise a context manager without effect."""
    try:
        return torch.autocast(device.type, dtype)
    except (RuntimeError, AssertionError, AttributeError, TypeError):  # DirectML; MPS before 2.5
        return nullcontext()


@contextmanager
def forked_rng(device: torch.device) -> Iterator[None]:
    """Restore torch's generators, of the CPU and of the device, at the end."""
    module: Any = getattr(torch, device.type, None)
    own = device.type != "cpu" and hasattr(module, "set_rng_state")
    before, arguments = None, () if device.type == "mps" else (device,)
    if own:
        before = module.get_rng_state(*arguments)
    with torch.random.fork_rng([]):
        try:
            yield
        finally:
            if before is not None:
                module.set_rng_state(before, *arguments)
