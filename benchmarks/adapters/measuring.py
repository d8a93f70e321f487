"""One row: a method is trained on a task, and measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import hypernetworks as hn
from hypernetworks.training import Batch, Examples, TrainingSettings
from hypernetworks.training.contexts import Contexts
from hypernetworks.training.forward import ForwardPass
from hypernetworks.training.optimisers import Stepper, build_optimiser
from hypernetworks.training.processes import Learner
from hypernetworks.training.scaling import Scaler
from hypernetworks.training.validation import ValidationLoss

from ..styled import Cell
from .methods import MLP, Adapter, Method, beside
from .task import Task, generated

MEASURED = 5
"""Losses per run, for the loss at equal time."""
CAPTION_DROPOUT = 0.1
HALF = 0.5
"""The strength at which images are generated as well, and at which a second style is stacked."""


@dataclass(frozen=True)
class Baseline:
    """What the model does without any adapter, which all methods are compared with.

    Attributes:
        loss: on images in the style.
        styled, plain: its predictions for images in the style, and for others.
        images: of the task's prompts, ``(count, height, width, 3)`` in [0, 1].
        second: the same with the second style alone, if there is one.
    """

    loss: float
    styled: list[torch.Tensor]
    plain: list[torch.Tensor]
    images: np.ndarray
    second: np.ndarray | None


def baseline(task: Task, cell: Cell) -> Baseline:
    """Of a cell, measured once."""
    if cell not in task.baselines:
        unseen, plain = (ValidationLoss(e, task.contexts, 0) for e in _measured_on(task, cell))
        with task.frozen():
            loss, styled = predictions(task, unseen)
            _, others = predictions(task, plain)

        images, second = _images(task, cell)[0], task.second(cell)
        stacked = None
        if second is not None:
            with beside(task.pipeline.unet, [(second, HALF)]):
                stacked = _images(task, cell)[0]
        task.baselines = {cell: Baseline(loss, styled, others, images, stacked)}
    found: Baseline = task.baselines[cell]
    return found


def measured(
    task: Task, method: Method, cell: Cell, epochs: float, rate: float
) -> tuple[dict[str, Any], np.ndarray]:
    """Train one method and measure it; also its images ``(count, height, width, 3)`` in [0, 1]."""
    before = baseline(task, cell)
    with ExitStack() as applied:
        with task.frozen():
            adapter = _applied(task, method, cell, applied)
            run = _Run(task, adapter, method, cell, epochs, rate)
            curve = run.train(MEASURED)
            row = {
                "method": method.name,
                "cell": [cell.style, cell.images, cell.seed],
                **task.described(),
                "epochs": epochs,
                "rate": rate,
                "optimiser": method.optimiser,
                "steps": run.settings.steps,
                "parameters": sum(p.numel() for p in adapter.parameters),
                "total": sum(p.numel() for p in task.pipeline.unet.parameters()),
                "memory": run.memory,
                "plain_loss": before.loss,
                "test": curve[-1][1],
                "curve": curve,
                "drift": run.drift(before),
            }
        images, figures = _drawn(task, cell, adapter, before)

    return row | {"captions": [prompt.text for prompt in task.prompts(cell)]} | figures, images


def _drawn(
    task: Task, cell: Cell, adapter: Adapter, before: Baseline
) -> tuple[np.ndarray, dict[str, Any]]:
    """The images of a trained adapter, and what is measured on them."""
    images, seconds = _images(task, cell, adapter.words)
    found: dict[str, Any] = {"seconds": seconds, "stacking": None}
    with adapter.at(HALF, []):
        half, found["half_seconds"] = _images(task, cell, adapter.words)

    second = task.second(cell)
    if second is not None and before.second is not None:
        with adapter.at(HALF, [(second, HALF)]):
            both = _images(task, cell, adapter.words)[0]
        found["stacking"] = stacking(before.images, half, before.second, both)

    found |= task.figures(cell, images)
    found |= {f"half_{name}": value for name, value in task.figures(cell, half).items()}
    return images, found


def loss_at(task: Task, method: Method, rate: float, cell: Cell, epochs: float) -> float:
    """The loss on unseen images after a training at this rate, for choosing it."""
    with ExitStack() as applied, task.frozen():
        adapter = _applied(task, method, cell, applied)
        return _Run(task, adapter, method, cell, epochs, rate).train(1)[-1][1]


def _applied(task: Task, method: Method, cell: Cell, stack: ExitStack) -> Adapter:
    """A new adapter, the same one for the same seed."""
    torch.manual_seed(cell.seed)
    return stack.enter_context(method.make(task))


class _Run:
    """The training of one adapter, which is applied.

    Every method gets the same samples, noise and time steps.
    """

    def __init__(
        self,
        task: Task,
        adapter: Adapter,
        method: Method,
        cell: Cell,
        epochs: float,
        rate: float,
    ) -> None:
        self.task, self.adapter = task, adapter
        contexts = task.contexts if adapter.contexts is None else _Texts(adapter.contexts)
        examples = Examples(
            task.learned(cell),
            contexts,
            batch=task.batch,
            caption_dropout=CAPTION_DROPOUT,
            seed=cell.seed,
        )
        self.unseen, self.plain = (
            ValidationLoss(examples, contexts, 0) for examples in _measured_on(task, cell)
        )

        self.settings = TrainingSettings(
            steps=max(1, round(epochs * examples.order.epoch_length / task.batch)),
            rate=f"{rate:g}",
            optimiser=method.optimiser,
            batch=task.batch,
            seed=cell.seed,
            precision=task.precision,
            warm_up=20,
        )
        optimiser = build_optimiser(method.optimiser, adapter.parameters, 0.0, {})
        scaler = Scaler(enabled=task.precision == "fp16")
        self.stepper = Stepper(optimiser, scaler, 1.0, "norm")
        self.forward = ForwardPass(
            # Only what predicts counts here; the network is for the class's signature.
            Learner(hn.Hypernetwork.create("none", MLP, (8,)), task.model.predict),
            MLP,
            examples,
            task.model.schedule,
            self.settings,
            task.device,
        )
        self.memory: int | None = None
        """Bytes at the peak, where the device counts them."""

    def train(self, measured: int) -> list[tuple[float, float]]:
        """Train; returns seconds and loss on unseen images, about so many times over the run."""
        task, curve, spent = self.task, list[tuple[float, float]](), 0.0
        rates, steps = self.settings.rates(), self.settings.steps
        every = max(1, steps // measured)
        counts = task.device.type == "cuda"
        if counts:
            torch.cuda.reset_peak_memory_stats(task.device)

        self.stepper.learns(True)
        for step in range(steps):
            began = clock(task.device)
            self._step(step, rates.at(step))
            spent += clock(task.device) - began
            if (step + 1) % every == 0 or step + 1 == steps:
                if counts:
                    self.memory = torch.cuda.max_memory_allocated(task.device)
                with self.stepper.at_rest():
                    curve.append((spent, predictions(task, self.unseen)[0]))
        self.stepper.learns(False)
        return curve

    def _step(self, step: int, rate: float) -> None:
        batch = self.settings.batch
        samples = range(step * batch, (step + 1) * batch)
        # A step that is the end of one epoch and the beginning of another may be of two shapes.
        for part in self.forward.examples.parts(samples):
            loss, _ = self.forward.losses(part)
            self.stepper.scaler.scale(loss * (len(part) / batch)).backward()
        self.stepper.measure()
        self.stepper.step(rate)

    def drift(self, before: Baseline) -> float:
        """How much predictions for images that are not in the style change, as a share of what they
        change for images in it.
        """
        styled = _changed(before.styled, predictions(self.task, self.unseen)[1])
        return _changed(before.plain, predictions(self.task, self.plain)[1]) / max(1e-12, styled)


class _Texts(Contexts):
    """Captions of textual inversion: their contexts change with every step."""

    def __init__(self, encode: Callable[[Sequence[str]], dict[str, torch.Tensor]]) -> None:
        super().__init__(lambda _: ())
        self._live = encode

    def prepare(self, texts: Any) -> None:
        """Nothing can be encoded beforehand."""

    def stack(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """As they are now, with their graph."""
        return self._live(texts)


def _measured_on(task: Task, cell: Cell) -> tuple[Any, Any]:
    return task.unseen(cell), task.plain(cell)


def predictions(task: Task, on: ValidationLoss) -> tuple[float, list[torch.Tensor]]:
    """The loss on images, and all predictions that it is made of, in fp32 on the CPU."""
    found, predict = list[torch.Tensor](), task.model.predict

    def noted(noisy: torch.Tensor, times: torch.Tensor, batch: Batch) -> torch.Tensor:
        made = predict(noisy, times, batch)
        found.append(made.float().cpu())
        return made

    with task.autocast():
        loss = on.loss(noted, task.model.schedule, task.device)
    return loss, found


def _changed(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> float:
    """Mean squares of what changed, summed."""
    return sum(float((b - a).square().mean()) for a, b in zip(before, after, strict=True))


def stacking(plain: np.ndarray, one: np.ndarray, other: np.ndarray, both: np.ndarray) -> float:
    """How far images in two styles at once are from the sum of what each changes, as a share of
    that sum.
    """
    wanted = (one - plain) + (other - plain)
    return float(np.linalg.norm(both - plain - wanted) / np.linalg.norm(wanted))


def _images(task: Task, cell: Cell, words: str = "") -> tuple[np.ndarray, float]:
    """Images of the task's prompts, and seconds per image."""
    prompts = task.prompts(cell)
    began = clock(task.device)
    images = generated(task, prompts, words)
    return np.asarray(images), (clock(task.device) - began) / len(prompts)


def clock(device: torch.device) -> float:
    """Processor seconds on the CPU, which other programs don't count in; on other devices, seconds
    until all their work is done.
    """
    if device.type == "cpu":
        return time.process_time()
    synchronize = getattr(getattr(torch, device.type, None), "synchronize", None)
    if synchronize is not None:
        synchronize()
    return time.perf_counter()
