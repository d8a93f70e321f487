"""A LoRA trained until the UNet predicts with it what it predicts with networks.

The examples are images that were generated with the networks, with new noise each time. On each,
the UNet answers with the networks, and the LoRA learns that answer; and also what each attention
block gives on the way to it, which tells every layer where it went wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import torch
from torch import nn

from ....conversion import Base, Weighted
from ....conversion.lora_files import Narrow
from ....conversion.low_rank import Factors
from ....errors import HypernetworkError
from ....patching import apply
from ....training.scaling import Scaler
from .course import Course
from .examples import Made, Noise, make
from .least_squares import scaled
from .sampling import EXAMINED, Generator
from .soap import Soap

MOST_IMAGES = 2048
"""Images that are generated, at most; below that, one for each step."""
AT_ONCE = 16
"""Images that are generated before anyone is asked whether to stop."""
MEASURED = 32
"""Noisy images that the networks' effect is measured on, before the training."""
LEAST_EFFECT = 0.1
"""Of the blocks' mean effect: what errors in a block are compared with at least."""
TOKENS = 2048
"""Of the largest feature map that goes through the UNet at once, over all rows."""
OF_BOTH, OF_BLOCKS = 0.1, 0.3
"""Weights of errors in the two parts of a guided prediction, and in the blocks' outputs, beside the
guided prediction itself."""

MOST_OVERFLOWS = 40
"""Steps in a row that may overflow while fp16's scale is looked for; it falls to 1e-7."""
OVERFLOW = "the LoRA can't be trained, since numbers overflow in the model: try --precision fp32"


@dataclass(frozen=True)
class Training:
    """How a LoRA is distilled.

    Attributes:
        steps: of the optimiser.
        rate: the largest learning rate; it falls along half a cosine. Where it turns out to be too
            high, a lower one takes its place.
        batch: noisy images in a step.
        rank: of all factors; ``None`` is the largest with which the file isn't larger than the
            networks.
        seed: of prompts, noise and initial weights.
    """

    steps: int = 1000
    rate: float = 3e-3
    batch: int = 8
    rank: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    """How a training went.

    Attributes:
        steps: that were done.
        rate: the learning rate at the end, before the schedule lowers it.
        is_lowered: whether it is lower than the one that was asked for.
        is_better: whether the LoRA has become better than it was at the start.
    """

    steps: int
    rate: float
    is_lowered: bool = False
    is_better: bool = False


class Student:
    """The LoRA in training: factors for every linear layer of the attention blocks.

    Args:
        unet: which stays as it is.
        base: the same on the disk.
        rank: of all factors.
        start: what least squares found, by name of the module; the others start at nothing.
        seed: of the initial weights.
    """

    def __init__(
        self, unet: nn.Module, base: Base, rank: int, start: dict[str, Factors], seed: int
    ) -> None:
        self.unet, self.originals = unet, dict(linear_layers(unet, base))
        self._blocks = {path: unet.get_submodule(path) for path in attention_blocks(base)}
        self.modules = {path: unet.get_submodule(path) for path in self.originals}

        generator = torch.Generator().manual_seed(seed)
        self.up, self.down = dict[str, nn.Parameter](), dict[str, nn.Parameter]()
        for path, module in self.modules.items():
            weight: Any = module.weight
            outer, inner = weight.shape[:2]
            up, down = torch.zeros(outer, rank), torch.randn(rank, inner, generator=generator)
            # as usual for LoRAs, up starts at zero: no layer changes anything at first
            down *= inner**-0.5
            if path in start:
                width = start[path].rank
                up[:, :width], down[:width] = start[path].up, start[path].down
            self.up[path], self.down[path] = (
                nn.Parameter(tensor.to(weight.device)) for tensor in (up, down)
            )

    def parameters(self) -> list[nn.Parameter]:
        """Everything that is trained, in fp32."""
        return [*self.up.values(), *self.down.values()]

    @property
    def device(self) -> torch.device:
        """Where the UNet is."""
        return next(self.unet.parameters()).device

    def answered(
        self, asked: Mapping[str, Any], weights: Mapping[str, torch.Tensor] | None = None
    ) -> Answer:
        """Ask the UNet as it is now, or with other weights."""
        with outputs_of(self._blocks) as found:
            made = torch.func.functional_call(self.unet, dict(weights or {}), (), dict(asked))[0]
        return Answer(made, found)

    def weights(self, multiplier: float) -> dict[str, torch.Tensor]:
        """The weights of all layers with the LoRA in them; gradients flow to its factors."""
        found = {}
        for path, module in self.modules.items():
            weight: Any = module.weight
            change = multiplier * (self.up[path] @ self.down[path])
            found[f"{path}.weight"] = weight + change.to(weight.dtype).view_as(weight)
        return found

    def parts(self) -> list[Narrow]:
        """What is written into a file."""
        found = []
        for path, module in self.modules.items():
            weight: Any = module.weight
            up, down = (d[path].detach().cpu().clone() for d in (self.up, self.down))
            found.append(Narrow(path, self.originals[path], up, down, tuple(weight.shape[2:])))
        return found


def attention_blocks(base: Base) -> dict[str, str]:
    """Names of the attention blocks in the original layout, by those in diffusers' UNet."""
    return {
        layer.path.split(".transformer_blocks.")[0]: layer.original.split(".transformer_blocks.")[0]
        for layer in base.layers
    }


def linear_layers(unet: nn.Module, base: Base) -> Iterator[tuple[str, str]]:
    """Linear layers and 1x1 convolutions of the attention blocks: those that every LoRA may have.

    Yields:
        The name in diffusers' UNet, and in the original layout.
    """
    for block, original in attention_blocks(base).items():
        for name, module in unet.get_submodule(block).named_modules():
            is_linear = isinstance(module, nn.Linear)
            if is_linear or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)):
                yield f"{block}.{name}", f"{original}.{name}"


def rank_within(unet: nn.Module, base: Base, size: int, itemsize: int) -> int:
    """The largest rank with which the file isn't larger than that.

    Args:
        size: in bytes.
        itemsize: bytes of each number.
    """
    per_rank = overhead = 0
    for path, _ in linear_layers(unet, base):
        weight: Any = unet.get_submodule(path).weight
        per_rank += itemsize * sum(weight.shape[:2])
        overhead += 3 * 180  # in the header, for names and shapes of three tensors
    return max(1, (size - overhead) // max(per_rank, 1))


def images_for(training: Training, factors: Sequence[float]) -> int:
    """How many images a training generates: as many for each factor on the multipliers."""
    return len(factors) * sum(_images_of_each(training, len(factors))) if training.steps else 0


def _images_of_each(training: Training, factors: int) -> tuple[int, int]:
    """To learn from, and to be checked on."""
    return -(-min(training.steps, MOST_IMAGES) // factors), -(-EXAMINED // factors)


def distil(
    student: Student,
    networks: Sequence[Weighted],
    generator: Generator,
    prompts: Sequence[str],
    checked: Sequence[str],
    training: Training,
    *,
    on_step: Callable[[], object] = lambda: None,
    stop: Callable[[], bool] = lambda: False,
) -> Trained:
    """Train the student. What comes out is no worse than what it began with, on some images.

    Args:
        networks: what it learns to replace.
        generator: generates :func:`images_for` images, and tells of them.
        prompts: of the images that it learns from.
        checked: of those that tell whether it gets better: none that it or the least squares
            learns from, as both know those better than others.
        on_step: told of each step.
        stop: asked after some images, and after each step, whether to end now.

    Raises:
        HypernetworkError: the numbers overflow, in the model or whatever the scale of the loss.
    """
    if not training.steps:
        return Trained(0, training.rate)
    # gradients are wanted for the LoRA alone
    student.unet.requires_grad_(False)
    random, factors = Random(training.seed), generator.sampling.multipliers
    learned, examined = _images_of_each(training, len(factors))
    images = _images(networks, generator, prompts, learned, random, stop)
    other = Random(training.seed + 1)
    others = images and _images(networks, generator, checked, examined, other, stop)
    # Stopped before every factor had one.
    if images is None or others is None:
        return Trained(0, training.rate)

    scheduler = generator.pipeline.scheduler
    noise = Noise(scheduler, training.seed)
    teachers = {
        factor: Teacher(student, networks, factor, generator.cfg, noise) for factor in factors
    }
    for factor, teacher in teachers.items():
        teacher.measure(random.choices(images[factor], k=MEASURED))

    examination = Examination(teachers, others, Noise(scheduler, training.seed + 1))
    course = Course(student.parameters(), examination.error, training.rate)
    if not math.isfinite(course.best):
        raise HypernetworkError(OVERFLOW)

    done = _trained(student, teachers, images, course, training, random, on_step, stop)
    course.finish()
    return Trained(done, course.rate, course.returns > 0, course.has_gained)


def _trained(
    student: Student,
    teachers: Mapping[float, Teacher],
    images: Mapping[float, Sequence[Made]],
    course: Course,
    training: Training,
    random: Random,
    on_step: Callable[[], object],
    stop: Callable[[], bool],
) -> int:
    """The steps that were done."""
    factors, done, overflows = list(teachers), 0, 0
    # Small gradients vanish in fp16.
    half = next(student.unet.parameters()).dtype == torch.float16
    scaler = Scaler(enabled=half)
    soap = Soap(student.parameters(), lr=training.rate)
    while done < training.steps and not stop() and not course.is_lost:
        factor = factors[done % len(factors)]
        _set_rate(soap, course, done / training.steps)
        chosen = random.choices(images[factor], k=training.batch)
        length = _gradients(student, scaler, teachers[factor], chosen)
        is_finite = math.isfinite(length)
        if is_finite:
            soap.step()
        overflows = 0 if is_finite else overflows + 1
        if overflows > MOST_OVERFLOWS:
            raise HypernetworkError(OVERFLOW)

        # In fp16, the scale alone may have been too much: the step is left out.
        is_wrong = not scaler.update(length) and not is_finite
        if is_wrong:
            course.go_back()
        if is_wrong or not course.goes_on():
            # What it remembers is of a place that was left.
            soap = Soap(student.parameters(), lr=course.rate)
        done += 1
        on_step()
    return done


def _images(
    networks: Sequence[Weighted],
    generator: Generator,
    prompts: Sequence[str],
    count: int,
    random: Random,
    stop: Callable[[], bool],
) -> dict[float, list[Made]] | None:
    """So many images with the networks, by the factor on their multipliers; ``None`` if stopped."""
    found: dict[float, list[Made]] = {}
    for factor in generator.sampling.multipliers:
        # Every prompt once before any comes twice.
        chosen = [
            prompt
            for _ in range(-(-count // len(prompts)))
            for prompt in random.sample(list(prompts), len(prompts))
        ][:count]
        own = found[factor] = list[Made]()
        with apply(generator.pipeline.unet, scaled(networks, factor)):
            while len(own) < count:
                if stop():
                    return None
                part = chosen[len(own) : len(own) + AT_ONCE]
                own += make(generator, part, [random.randrange(1 << 31) for _ in part])
    return found


@contextmanager
def outputs_of(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, torch.Tensor]]:
    """What modules of a UNet return inside, by their names."""
    found: dict[str, torch.Tensor] = {}
    hooks = [m.register_forward_hook(partial(_take, found, name)) for name, m in modules.items()]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _take(
    found: dict[str, torch.Tensor], name: str, _module: object, _arguments: object, output: Any
) -> None:
    found[name] = output[0] if isinstance(output, tuple) else output.sample


@dataclass(frozen=True)
class Answer:
    """What a UNet predicts, and what its attention blocks gave on the way.

    Attributes:
        prediction: ``(halves * images, channels, height, width)``, negative prompts first.
        blocks: outputs by the block's path.
    """

    prediction: torch.Tensor
    blocks: Mapping[str, torch.Tensor]


class Teacher:
    """The UNet with networks, which answers what the LoRA is asked.

    Args:
        student: what learns from it, on the same UNet.
        networks: in the order of application.
        factor: on their multipliers.
        cfg: the guidance scale.
        noise: makes the questions from images.
    """

    def __init__(
        self,
        student: Student,
        networks: Sequence[Weighted],
        factor: float,
        cfg: float,
        noise: Noise,
    ) -> None:
        self.student, self.factor, self.cfg, self.noise = student, factor, cfg, noise
        self._networks = scaled(networks, factor)
        self._effects: list[float] = []

    def parts(
        self, images: Sequence[Made], noise: Noise | None = None
    ) -> Iterator[tuple[dict[str, Any], Answer, float]]:
        """Questions on noisy copies of images, the right answers, and each part's share of all
        images: as many at once as the memory of a small card holds."""
        height, width = images[0].latent.shape[-2:]
        halves = len(images[0].contexts)
        at_once = max(1, TOKENS // (halves * height * width))
        for begin in range(0, len(images), at_once):
            part = images[begin : begin + at_once]
            asked = (noise or self.noise).asked(part, self.student.device)
            with torch.no_grad(), apply(self.student.unet, self._networks):
                answer = self.student.answered(asked)
            yield asked, answer, len(part) / len(images)

    def measure(self, images: Sequence[Made]) -> None:
        """Find out how large the networks' effect is, which errors are then compared with."""
        totals: list[float] = []
        for asked, answer, share in self.parts(images):
            with torch.no_grad():
                errors = self._errors(self.student.answered(asked), answer)
            totals = totals or [0.0] * len(errors)
            totals = [t + share * float(e) for t, e in zip(totals, errors, strict=True)]
        # Networks may leave a block as it is, such as with a factor of 0: it would count for all.
        blocks = totals[2:]
        least = [0.0, 0.0] + [LEAST_EFFECT * sum(blocks) / len(blocks)] * len(blocks)
        self._effects = [max(*pair, 1e-12) for pair in zip(totals, least, strict=True)]

    def loss(self, made: Answer, right: Answer) -> torch.Tensor:
        """Errors as shares of the effect, by squares."""
        pairs = zip(self._errors(made, right), self._effects, strict=True)
        guided, both, *blocks = [error / effect for error, effect in pairs]
        return guided + OF_BOTH * both + OF_BLOCKS * torch.stack(blocks).mean()

    def guided_error(self, made: Answer, right: Answer) -> torch.Tensor:
        """The error in what sampling uses, as a share of the effect, by squares."""
        return self._errors(made, right)[0] / self._effects[0]

    def _errors(self, made: Answer, right: Answer) -> list[torch.Tensor]:
        """Mean squares of errors: in the guided prediction, which is what sampling uses, in its two
        parts, and in each block."""
        error = made.prediction.float() - right.prediction.float()
        guided = error
        if self.cfg > 1:
            negative, positive = error.chunk(2)
            guided = self.cfg * positive + (1 - self.cfg) * negative
        blocks = [made.blocks[path].float() - output for path, output in right.blocks.items()]
        return [difference.square().mean() for difference in (guided, error, *blocks)]


class Examination:
    """Questions that stay the same during a training, with the right answers.

    Args:
        teachers: by the factor on the networks' multipliers; they have measured the effect.
        images: for each of them.
        noise: of the questions.
    """

    def __init__(
        self,
        teachers: Mapping[float, Teacher],
        images: Mapping[float, Sequence[Made]],
        noise: Noise,
    ) -> None:
        self._questions = list[tuple[Teacher, dict[str, Any], Answer, float]]()
        for factor, teacher in teachers.items():
            for asked, right, share in teacher.parts(images[factor], noise):
                # Without the blocks' outputs, which take much memory.
                kept = Answer(right.prediction, {})
                self._questions.append((teacher, asked, kept, share / len(teachers)))

    @torch.no_grad()
    def error(self) -> float:
        """Of the guided prediction, as a share of the effect, by squares."""
        total = 0.0
        for teacher, asked, right, share in self._questions:
            student = teacher.student
            made = student.answered(asked, student.weights(teacher.factor))
            total += share * float(teacher.guided_error(made, right))
        return total


def _set_rate(soap: Soap, course: Course, done: float) -> None:
    # the first steps go by few gradients, and could undo the least squares
    warm = min(1.0, (course.steps + 1) / 30)
    fallen = 0.5 * (1 + math.cos(math.pi * done))
    for group in soap.param_groups:
        group["lr"] = course.rate * warm * max(0.02, fallen)


def _gradients(student: Student, scaler: Scaler, teacher: Teacher, images: Sequence[Made]) -> float:
    """Of the loss on noisy copies of images; their length, before it is cut to 1 at most."""
    for parameter in student.parameters():
        parameter.grad = None
    for asked, right, share in teacher.parts(images):
        made = student.answered(asked, student.weights(teacher.factor))
        scaler.scale(share * teacher.loss(made, right)).backward()  # type: ignore[no-untyped-call]

    scaler.unscale([p.grad for p in student.parameters() if p.grad is not None])
    return float(nn.utils.clip_grad_norm_(student.parameters(), 1.0))
