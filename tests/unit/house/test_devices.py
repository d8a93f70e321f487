"""Which device is chosen, why others are not, and the words for too little memory."""

from __future__ import annotations

import errno
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hypernetworks import devices
from hypernetworks.devices import enough_memory
from hypernetworks.errors import DeviceError, HypernetworkError
from hypernetworks.hosts.diffusers.finite import NotFiniteError, watched


def machine(monkeypatch: pytest.MonkeyPatch, *kinds: str, broken: tuple[str, ...] = ()) -> None:
    """A machine that has these kinds of devices, two of each card; the broken ones fail when they
    compute.
    """
    monkeypatch.setattr(devices, "absent", lambda k: None if k in (*kinds, "cpu") else "not here")
    monkeypatch.setattr(devices, "_count", lambda k: 2 if k in ("cuda", "directml") else 1)
    dml = SimpleNamespace(device=lambda n: torch.device("privateuseone", n))
    monkeypatch.setitem(sys.modules, "torch_directml", dml)  # type: ignore[arg-type]

    def attempt(device: torch.device) -> None:
        if device.type in broken:
            raise DeviceError("no kernel image is available for execution on the device")

    monkeypatch.setattr(devices, "_try", attempt)


@pytest.mark.parametrize(
    ("kinds", "best"),
    [
        (("cuda", "xpu"), "cuda"),
        (("xpu", "directml"), "xpu"),
        (("mps",), "mps"),
        (("directml",), "privateuseone:0"),
        ((), "cpu"),
    ],
)
def test_the_fastest_is_chosen(
    monkeypatch: pytest.MonkeyPatch, kinds: tuple[str, ...], best: str
) -> None:
    machine(monkeypatch, *kinds)
    assert devices.choose_device(None) == devices.choose_device("auto") == best
    assert devices.choose_device("cpu") == "cpu"


def test_one_that_does_not_compute_is_told_and_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "cuda", "directml", broken=("cuda",))
    told: list[str] = []
    assert devices.choose_device(None, told.append) == "privateuseone:0"
    assert ["no kernel image" in line for line in told] == [True]
    with pytest.raises(DeviceError, match=r"cuda can't be used \(no kernel image.*directml"):
        devices.choose_device("cuda")


@pytest.mark.parametrize(
    ("asked", "device"),
    [("cuda:1", "cuda:1"), ("CUDA", "cuda"), ("dml:1", "privateuseone:1"), ("rocm", "cuda")],
)
def test_any_of_several_by_its_number(
    monkeypatch: pytest.MonkeyPatch, asked: str, device: str
) -> None:
    machine(monkeypatch, "cuda", "directml")
    assert devices.choose_device(asked) == device
    assert devices.device_named(devices.name_of(torch.device(device))) == torch.device(device)
    assert devices.usable_devices() == ["cuda", "cuda:1", "directml", "directml:1", "cpu"]


@pytest.mark.parametrize("asked", ["cuda:2", "cuda:x", "cuda:-1", "nonsense", "xpu", "cuda:²"])
def test_what_can_not_be_used_is_told_with_the_rest(
    monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    machine(monkeypatch, "cuda")
    with pytest.raises(DeviceError, match=r"choose one of cuda, cuda:1, cpu"):
        devices.choose_device(asked)


def of_windows(number: int, text: str) -> OSError:
    """An error with Windows' own number, which it has only there."""
    error = OSError(22, text)
    error.winerror = number  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:80] DefaultCPUAllocator: not enough memory: you tried"
        ),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError(
            "Could not allocate tensor with 4294967296 bytes. There is not enough GPU video "
            "memory"
        ),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("Native API failed. Native API returns: -5 (PI_ERROR_OUT_OF_RESOURCES)"),
        RuntimeError("XPU out of memory. Tried to allocate"),
        RuntimeError("HIP out of memory"),
        OSError(1455, "The paging file is too small for this operation to complete"),
        of_windows(1455, "Die Auslagerungsdatei ist zu klein"),
        of_windows(8, "Za mało pamięci"),
        OSError(errno.ENOMEM, "Nicht genügend Hauptspeicher verfügbar"),
        RuntimeError("Die Auslagerungsdatei ist zu klein. (os error 1455)"),
        RuntimeError("bad allocation"),
        RuntimeError("HIP error: hipErrorOutOfMemory"),
        RuntimeError("Native API returns: -4 (UR_RESULT_ERROR_MEM_OBJECT_ALLOCATION_FAILURE)"),
        RuntimeError("Failed to allocate private MTLBuffer for size 17179869184"),
        RuntimeError("0x8007000E E_OUTOFMEMORY"),
        MemoryError(),
    ],
)  # fmt: skip
def test_too_little_memory_in_all_words(error: BaseException) -> None:
    assert devices.is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("no such kernel"),
        ValueError("out of memory"),
        OSError(errno.ENOENT, "No such file"),
        of_windows(32, "The process cannot access the file"),
    ],
)
def test_other_errors_are_not_about_memory(error: BaseException) -> None:
    assert not devices.is_out_of_memory(error)


def test_caches_generators_and_autocast_of_any_device(monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[str] = []
    for kind in ("xpu", "mps"):
        module: Any = SimpleNamespace(empty_cache=lambda kind=kind: emptied.append(kind))
        monkeypatch.setattr(torch, kind, module)
        devices.empty_cache(kind)
    devices.empty_cache("privateuseone:0")
    devices.empty_cache("cpu")
    assert emptied == ["xpu", "mps"]
    with devices.autocast(torch.device("privateuseone", 0), torch.float16):
        pass

    before = torch.random.get_rng_state()
    for name in ("cpu", "mps", "xpu", "privateuseone"):
        with devices.forked_rng(torch.device(name)):
            torch.rand(3)
        assert torch.equal(before, torch.random.get_rng_state())


def test_numbers_that_are_not_finite_are_found_or_made_black() -> None:
    vae = SimpleNamespace(decoder=torch.nn.Identity())
    broken = torch.tensor([0.5, float("nan"), float("inf")])
    with watched(vae, raises=False) as finite:
        assert vae.decoder(torch.ones(1)).tolist() == [1.0]
        assert not finite.found
        assert vae.decoder(broken).tolist() == [0.5, -1.0, 1.0]
        assert finite.found
    with watched(vae, raises=True), pytest.raises(NotFiniteError):
        vae.decoder(broken)
    assert not vae.decoder._forward_hooks


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory: you tried")]
)
def test_a_lack_of_memory_says_what_to_do(error: Exception) -> None:
    told = pytest.raises(HypernetworkError, match="not enough memory for it: close other programs")
    with told, enough_memory(lambda: "for it: close other programs"):
        raise error


def test_other_errors_pass_through_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes"), enough_memory("for it"):
        raise RuntimeError("shapes don't match")
