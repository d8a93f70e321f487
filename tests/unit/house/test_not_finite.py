"""Images that are not finite in half precision, as on GTX 16xx cards and with SD2: the second try
in wider numbers.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hypernetworks.hosts.diffusers import Generation, Painter
from hypernetworks.library import Library

JOB = Generation("a red apple", steps=3, width=48, height=48)
HALF = (torch.float16, torch.bfloat16)


@pytest.fixture
def painter() -> Painter:
    """In half precision, on the CPU."""
    pytest.importorskip("diffusers")
    return Painter(None, Library([]), precision="bf16")


def overflow(module: torch.nn.Module, call: int) -> list[int]:
    """Let a part of the model overflow in its nth call in half precision; gives the calls made."""
    calls = [0]

    def hook(module: torch.nn.Module, _: Any, output: Any) -> Any:
        calls[0] += 1
        if next(module.parameters()).dtype in HALF and calls[0] == call:
            return tuple(part * float("inf") for part in output)
        return output

    module.register_forward_hook(hook)
    return calls


def test_a_text_encoder_that_overflows_is_found_after_one_step(painter: Painter) -> None:
    unet = overflow(painter.pipeline.unet, 0)
    encoder = painter.pipeline.text_encoder

    def hook(module: torch.nn.Module, _: Any, output: Any) -> Any:
        if next(module.parameters()).dtype in HALF:
            output.last_hidden_state.fill_(float("nan"))
        return output

    encoder.register_forward_hook(hook)
    result = painter.generate(JOB)
    assert [m for m in result.messages if "not finite in bf16" in m] == result.messages
    assert len(result.messages) == 1
    assert unet[0] == 1 + JOB.steps
    assert len(set(result.pictures[0].image.getdata())) > 10


def test_a_unet_that_overflows_in_the_middle_is_found_at_the_end(painter: Painter) -> None:
    """No step waits for the device: the latents are looked at once, before they are decoded."""
    calls = overflow(painter.pipeline.unet, 2)
    result = painter.generate(JOB)
    assert calls[0] == 2 * JOB.steps
    assert len(result.messages) == 1
    assert "so the model now runs in fp32" in result.messages[0]
    assert painter.dtype is painter.pipeline.unet.dtype is torch.float32
    assert len(set(result.pictures[0].image.getdata())) > 10

    assert painter.generate(JOB).messages == [], "told once: the model stays in fp32"


def test_where_fp32_does_not_fit_bf16_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("diffusers")
    painter = Painter(None, Library([]), precision="fp16")
    sampled: list[torch.dtype] = []
    images = [object()]

    def passes(*given: Any) -> Any:
        def sample(*_: Any) -> Any:
            sampled.append(painter.dtype)
            if painter.dtype is torch.float16:
                given[-1].check(torch.tensor(float("nan")))
            if painter.dtype is torch.float32:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return images

        return SimpleNamespace(images=sample)

    monkeypatch.setattr(painter, "_passes", passes)
    result = painter.generate(JOB)
    assert sampled == [torch.float16, torch.float32, torch.bfloat16]
    assert result.pictures[0].image is images[0]
    assert "in fp16, so the model now runs in bf16" in result.messages[0]


def test_a_model_that_is_kept_as_it_is_gets_a_message_alone(painter: Painter) -> None:
    overflow(painter.pipeline.unet, 2)
    result = painter.generate(JOB, keep_precision=True)
    assert len(result.messages) == 1
    assert "not finite" in result.messages[0]
    assert painter.dtype is torch.bfloat16
