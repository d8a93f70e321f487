"""What a training step costs: ``python -m benchmarks.training [--model full|miniature] [--device
cpu|cuda]``.

Three loops on one UNet, interleaved and paired: every round times one step of each in a random
order, and ratios are taken within the round, because the machines are shared and noisy.

* "plain" does what AUTOMATIC1111's trainer does: the UNet is not frozen (its weight gradients are
  computed and pile up), captions are encoded at every step, attention keeps its scores, every layer
  computes its own MLPs, torch's plain AdamW. Its activation checkpointing, which makes it slower
  still and smaller, is there with ``--recompute`` only.
* "ours" is :class:`hypernetworks.training.Run`, whole steps of it.
* "floor" is forward and activation-backward of the frozen UNet, in the same precision as ours, with
  the network's own products (fp32, as everywhere), and nothing else.

Peak memory is taken in a process of its own per loop, all of the process counted; "idle" is one
that has done nothing but to import the libraries. Time to the first step: 100 pictures, from the
call to ``train_job``.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch.utils.checkpoint import checkpoint

import hypernetworks as hn
from hypernetworks.engine.initialising import create_network
from hypernetworks.engine.network import without_autocast
from hypernetworks.hosts.diffusers.training.frozen_model import FrozenModel
from hypernetworks.hosts.diffusers.training.precision import cpu_has_bf16, quick_on_cpu
from hypernetworks.hosts.diffusers.training.stored import WHOLE, stored
from hypernetworks.patching import find_sites
from hypernetworks.patching.sites import SELF
from hypernetworks.training import (
    Batch,
    Caption,
    Example,
    Examples,
    NoiseSchedule,
    Run,
    TrainingSettings,
)
from hypernetworks.training.contexts import Contexts

SD15 = {"cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64}
LOOPS = ("plain", "ours", "floor")
RECOMPUTED = ("BasicTransformerBlock", "ResnetBlock2D")
"""What AUTOMATIC1111 1.10.1 wraps for its trainer, in modules/sd_hijack_checkpoint.py."""
CAPTIONS = (
    "a red apple",
    "a house on blue",
    "a cat in the rain",
    "a ship, stormy sea, oil painting",
)


class Model:
    """A UNet and a text encoder, random at full size or the miniature; and what encodes a text.

    Args:
        name: ``full`` or ``miniature``.
        device: such as ``cpu``.
        size: pixels; the miniature's own is 96.
        precision: of "ours" and "floor"; "plain" computes in fp32, as AUTOMATIC1111 does on the
            CPU.
    """

    def __init__(self, name: str, device: str, size: int, precision: str) -> None:
        torch.manual_seed(0)
        self.device, self.edge = device, (96 if name == "miniature" else size) // 8
        if name == "miniature":
            from hypernetworks.hosts.diffusers import MINIATURE
            from hypernetworks.hosts.diffusers.checkpoints.loading import load_checkpoint

            pipeline: Any = load_checkpoint(MINIATURE)
            self.unet, self._text, self.channels = pipeline.unet, pipeline.text_encoder, 8
            self._vocabulary, self._length = self._text.config.vocab_size, 32
        else:
            from transformers import CLIPTextConfig, CLIPTextModel

            width = {
                "hidden_size": 768,
                "intermediate_size": 3072,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
            }
            self.unet, self.channels = UNet2DConditionModel(**SD15), 4
            self._text = CLIPTextModel(CLIPTextConfig(**width)).eval()
            self._vocabulary, self._length = 49408, 77
        self.unet.to(device).eval()
        self._text.to(device)
        self.precision, self.keep, self.recompute = precision, True, False
        self.schedule = NoiseSchedule(torch.linspace(0.9991, 0.0047, 1000))
        self.widths = tuple(sorted({s.width for s in find_sites(self.unet) if s.width is not None}))

    def encode(self, texts: Any) -> torch.Tensor:
        """Contexts ``(batch, tokens, dim)``; any tokens will do."""
        with torch.no_grad():
            rows = [
                random.Random(text).choices(range(self._vocabulary), k=self._length)
                for text in texts
            ]
            context: torch.Tensor = self._text(
                torch.tensor(rows, device=self.device)
            ).last_hidden_state
        return context

    def network(self) -> hn.Hypernetwork:
        """A fresh network that is no identity, in training."""
        structure = hn.Structure((1, 2, 1), "relu", activate_output=False)
        made = create_network("bench", structure, self.widths, zero_last=False)
        made.to(self.device, torch.float32)
        made.train()
        return made


def every_layer(unet: torch.nn.Module, net: hn.Hypernetwork) -> list[Any]:
    """Hooks by which every layer computes its own MLPs, as AUTOMATIC1111's attention does."""

    def hook(side: int) -> Callable[..., tuple[torch.Tensor, ...]]:
        def before(
            module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]
        ) -> tuple[torch.Tensor, ...]:
            context = inputs[0].float()
            return (
                (context + net.pairs[context.shape[-1]][side](context)).to(inputs[0].dtype),
                *inputs[1:],
            )

        return before

    return [
        p.register_forward_pre_hook(hook(i))
        for s in find_sites(unet)
        for i, p in enumerate((s.to_k, s.to_v))
    ]


def once_per_call(
    unet: torch.nn.Module, net: hn.Hypernetwork, shared: dict[int, torch.Tensor]
) -> list[Any]:
    """The least that can be done: what layers share is computed beforehand, the rest where it is
    used."""

    def hook(side: int, is_self: bool) -> Callable[..., tuple[torch.Tensor, ...]]:
        def before(
            module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]
        ) -> tuple[torch.Tensor, ...]:
            if not is_self:
                return (shared[side].to(inputs[0].dtype), *inputs[1:])
            with without_autocast(inputs[0].device.type):
                context = inputs[0].float()
                return (
                    (context + net.pairs[context.shape[-1]][side](context)).to(inputs[0].dtype),
                    *inputs[1:],
                )

        return before

    return [
        p.register_forward_pre_hook(hook(i, s.kind == SELF))
        for s in find_sites(unet)
        for i, p in enumerate((s.to_k, s.to_v))
    ]


def bare(model: Model) -> FrozenModel:
    """The host's model around a bare UNet: there is no pipeline here."""
    made = FrozenModel.__new__(FrozenModel)
    made.unet, made.device, made._is_quick = (
        model.unet,
        torch.device(model.device),
        model.precision == "bf16" and model.device == "cpu",
    )
    made._hooks = []
    return made


def autocast_of(model: Model) -> AbstractContextManager[object]:
    """On a GPU, what a UNet in half precision is trained in; nothing elsewhere."""
    dtype = model.unet.dtype
    return torch.autocast(
        model.device, dtype, enabled=model.device == "cuda" and dtype.itemsize == 2
    )


def added_to(model: Model, batch: int) -> dict[str, torch.Tensor] | None:
    """What SDXL is told beside the context: a vector for the text, and sizes."""
    width = getattr(model, "pooled", 0)
    if not width:
        return None
    kind = {"device": model.device, "dtype": model.unet.dtype}
    return {
        "text_embeds": torch.randn(batch, width, **kind),  # type: ignore[call-overload]
        "time_ids": torch.ones(batch, 6, **kind),  # type: ignore[call-overload]
    }


class Plain:
    """One step as AUTOMATIC1111 runs it. The UNet's gradients are parked while other loops run."""

    def __init__(self, model: Model, batch: int) -> None:
        self.model, self.batch, self.net = model, batch, model.network()
        self._blocks = (
            [m for m in model.unet.modules() if type(m).__name__ in RECOMPUTED]
            if model.recompute
            else []
        )
        self.optimiser = torch.optim.AdamW(list(self.net.parameters()), lr=1e-5, fused=False)
        scaler = getattr(torch.amp, "GradScaler", torch.cuda.amp.GradScaler)  # torch 2.3, before
        self._scaler = scaler(  # as AUTOMATIC1111 does
            enabled=model.device == "cuda" and model.precision == "fp16"
        )
        self._parked: list[torch.Tensor | None] = [None] * len(list(model.unet.parameters()))

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Unfrozen, with its hooks."""
        unet, processors = self.model.unet, dict(self.model.unet.attn_processors)
        unet.set_attn_processor(AttnProcessor())
        for parameter, gradient in zip(unet.parameters(), self._parked, strict=True):
            parameter.requires_grad_(True)
            parameter.grad = gradient
        hooks = every_layer(unet, self.net)
        for block in self._blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        yield
        for block in self._blocks:
            del block.forward
        for hook in hooks:
            hook.remove()
        self._parked = [p.grad for p in unet.parameters()]
        for parameter in unet.parameters():
            parameter.grad = None
        unet.requires_grad_(False)
        unet.set_attn_processor(processors)

    def step(self) -> None:
        """Forward, backward, optimiser."""
        model = self.model
        latents = torch.randn(
            self.batch, model.channels, model.edge, model.edge, device=model.device
        )
        context = model.encode(random.choices(CAPTIONS, k=self.batch))
        noise, times = (
            torch.randn_like(latents),
            torch.randint(1000, (self.batch,), device=model.device),
        )
        noisy, target = model.schedule.noisy_and_target(latents, noise, times)
        with autocast_of(model):
            given = _like(model.unet, noisy, times, context)
            added = added_to(model, self.batch)
            prediction = model.unet(*given, added_cond_kwargs=added).sample
            loss = torch.nn.functional.mse_loss(prediction.float(), target)
        loss.item()
        self._scaler.scale(loss).backward()
        torch.nn.utils.clip_grad_norm_(list(self.net.parameters()), 1.0)
        self._scaler.step(self.optimiser)
        self._scaler.update()
        self.optimiser.zero_grad(set_to_none=True)


class Ours:
    """One step of :class:`Run`."""

    def __init__(self, model: Model, batch: int, storage: str = WHOLE) -> None:
        self.model, self.net, self._storage = model, model.network(), storage
        self._frozen = bare(model)
        examples = [
            Example(text, Caption((text,)), (torch.randn(model.channels, model.edge, model.edge),))
            for text in CAPTIONS
        ]
        contexts = Contexts(self._encode)
        settings = TrainingSettings(
            10**6, rate="1e-5", batch=batch, save_every=0, watch_every=0, precision=model.precision
        )
        made = Examples(examples, contexts, batch=batch, caption_dropout=0.1)
        self._run = Run(
            self.net, self._predict, made, model.schedule, settings, device=model.device
        )

    def _encode(self, texts: Sequence[str]) -> list[dict[str, torch.Tensor]]:
        rows = [{"context": row.cpu()} for row in self.model.encode(texts)]
        if added := added_to(self.model, len(rows)):
            for row, vector in zip(rows, added["text_embeds"].float().cpu(), strict=True):
                row["text_embeds"] = vector
        return rows

    def _predict(self, noisy: torch.Tensor, times: torch.Tensor, batch: Batch) -> torch.Tensor:
        return self._frozen.predict(noisy, times, batch)

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Frozen, with the network applied."""
        unet, processors = self.model.unet, dict(self.model.unet.attn_processors)
        unet.requires_grad_(False)
        self._frozen.use_fast_attention((8 * self.model.edge,) * 2)
        with (
            quick_on_cpu(unet, self.model.precision, keep=self.model.keep),
            stored(unet, self._storage, keep=False),
            hn.apply(unet, [(self.net, 1.0)]),
        ):
            yield
        unet.set_attn_processor(processors)

    def step(self) -> None:
        """A whole step."""
        self._run.advance()


class Floor:
    """Forward and activation-backward of the frozen UNet with the network's own products."""

    def __init__(self, model: Model, batch: int) -> None:
        self.model, self.net, self._shared = model, model.network(), dict[int, torch.Tensor]()
        self._frozen = bare(model)
        self._context = model.encode(random.choices(CAPTIONS, k=batch))
        self._latents = torch.randn(
            batch, model.channels, model.edge, model.edge, device=model.device
        )
        self._times = torch.randint(1000, (batch,), device=model.device)

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Frozen, with its hooks."""
        unet, processors = self.model.unet, dict(self.model.unet.attn_processors)
        unet.requires_grad_(False)
        self._frozen.use_fast_attention((8 * self.model.edge,) * 2)
        hooks = once_per_call(unet, self.net, self._shared)
        with quick_on_cpu(unet, self.model.precision):
            yield
        for hook in hooks:
            hook.remove()
        unet.set_attn_processor(processors)

    def step(self) -> None:
        """Forward and backward."""
        pair = self.net.pairs[self._context.shape[-1]]
        self._shared.update({side: self._context + pair[side](self._context) for side in (0, 1)})
        on_cpu = torch.autocast("cpu", torch.bfloat16, enabled=self.model.precision == "bf16")
        with on_cpu if self.model.device == "cpu" else autocast_of(self.model):
            given = _like(self.model.unet, self._latents, self._times, self._context)
            added = added_to(self.model, len(self._latents))
            prediction = self.model.unet(*given, added_cond_kwargs=added).sample
        prediction.float().square().mean().backward()
        for parameter in self.net.parameters():
            parameter.grad = None


def _like(unet: torch.nn.Module, *given: torch.Tensor) -> list[torch.Tensor]:
    """Inputs in the UNet's type on a GPU, where it is half; as they are elsewhere."""
    weight = next(unet.parameters())
    on_gpu = weight.device.type == "cuda"
    return [t.to(weight.dtype) if on_gpu and t.is_floating_point() else t for t in given]


def build(name: str, model: Model, batch: int) -> Plain | Ours | Floor:
    """One of the loops."""
    return {"plain": Plain, "ours": Ours, "floor": Floor}[name](model, batch)


def timed(loop: Plain | Ours | Floor, device: str) -> float:
    """Seconds of one step, after one that isn't counted: the first after a change of loops meets
    cold memory."""
    with loop.prepared():
        loop.step()
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        loop.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start


def measure_time(options: argparse.Namespace) -> dict[str, Any]:
    """Medians of the seconds, and of the paired ratios."""
    model = Model(options.model, options.device, options.size, options.precision)
    model.recompute = options.recompute
    loops = {name: build(name, model, options.batch) for name in LOOPS}
    seconds: dict[str, list[float]] = {name: [] for name in LOOPS}
    for number in range(options.rounds + options.warm_up):
        for name in random.sample(LOOPS, len(LOOPS)):
            took = timed(loops[name], options.device)
            if number >= options.warm_up:
                seconds[name].append(took)
    found: dict[str, Any] = {
        "seconds": {name: statistics.median(row) for name, row in seconds.items()}
    }
    for other in ("plain", "floor"):
        ratios = [a / b for a, b in zip(seconds["ours"], seconds[other], strict=True)]
        found[f"ours / {other}"] = {
            "median": statistics.median(ratios),
            "low": min(ratios),
            "high": max(ratios),
        }
    return found | {"all": seconds}


def peak_of(options: argparse.Namespace) -> None:
    """Peak memory of one loop, alone in this process: printed in MiB."""
    if options.peak == "idle":
        print(peak_mib("cpu"))
        return
    model = Model(options.model, options.device, options.size, options.precision)
    model.keep, model.recompute = False, options.recompute  # kept by the studio, not by the command
    loop = build(options.peak, model, options.batch)
    with loop.prepared():
        for _ in range(3):
            loop.step()
    print(peak_mib(options.device))


def peak_mib(device: str) -> float:
    """What this process has had at most so far. (``getrusage`` would count its parent, too.)"""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def measure_memory(options: argparse.Namespace) -> dict[str, Any]:
    """Peaks in MiB of processes of their own, and their ratio."""
    peaks = {}
    for name in ("idle", "plain", "ours"):
        command = [
            sys.executable,
            "-m",
            "benchmarks.training",
            "--peak",
            name,
            "--model",
            options.model,
            "--device",
            options.device,
        ]
        command += [
            "--precision",
            options.precision,
            "--size",
            str(options.size),
            "--batch",
            str(options.batch),
        ]
        command += ["--recompute"] * options.recompute
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[name] = float(done.stdout.split()[-1])
    return {"peak_mib": peaks, "ours / plain": peaks["ours"] / peaks["plain"]}


def measure_start() -> dict[str, Any]:
    """Seconds from the call to the first finished step: 100 pictures of 96 pixels on the
    miniature.
    """
    from dataclasses import replace

    import numpy as np
    from PIL import Image

    from hypernetworks.hosts.diffusers import Painter
    from hypernetworks.hosts.diffusers.training import Watcher, preset_job, train_job
    from hypernetworks.library import Library

    loading = time.perf_counter()
    painter = Painter(None, Library([]))
    loading = time.perf_counter() - loading
    with tempfile.TemporaryDirectory() as folder:
        for number in range(100):
            numbers = np.random.default_rng(number).integers(0, 255, (128, 96, 3), dtype=np.uint8)
            Image.fromarray(numbers).save(Path(folder) / f"picture {number}.png")
        job = preset_job("style", "bench", Path(folder), painter, runs=Path(folder) / "runs")
        job = replace(job, settings=replace(job.settings, steps=1))
        begun, first = time.perf_counter(), list[float]()
        train_job(
            job, painter, Watcher(on_step=lambda _: first.append(time.perf_counter() - begun))
        )
    return {"first_step_seconds": first[0], "loading_the_model_seconds": loading}


def main() -> None:
    """Print figures and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", choices=("full", "miniature"), default="full")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", type=int, default=256, help="pixels of the full-size model")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="not of the plain loop",
    )
    parser.add_argument(
        "--recompute",
        action="store_true",
        help="plain computes activations twice, as AUTOMATIC1111",
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--only", choices=("time", "memory", "start"))
    parser.add_argument(
        "--peak", choices=("idle", *LOOPS), help="measure the memory of one loop in this process"
    )
    parser.add_argument("--output", type=Path, default=Path("build/training.json"))
    options = parser.parse_args()
    if options.precision == "auto":
        options.precision = "bf16" if options.device == "cuda" or cpu_has_bf16() else "fp32"
    if options.peak:
        peak_of(options)
        return
    asked = vars(options)
    found: dict[str, Any] = {
        k: asked[k] for k in ("model", "device", "size", "batch", "precision", "recompute")
    }
    found |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
    parts = {"time": measure_time, "memory": measure_memory}
    for name, part in parts.items():
        if options.only in (None, name):
            found[name] = part(options)
    if options.only == "start" or (options.only is None and options.model == "miniature"):
        found["start"] = measure_start()
    shown = found | (
        {"time": {k: v for k, v in found["time"].items() if k != "all"}} if "time" in found else {}
    )
    print(json.dumps(shown, indent=1))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
