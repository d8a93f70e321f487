"""Networks that aren't linear as LoRAs: the nearest one, by least squares, and how near it is.

A network that isn't linear does to each context what no change of weights does to all. Near the
contexts that a model really has, a change of weights can come close. So images are generated with
the networks on, every attention module notes the contexts that it gets, and the affine map that
fits best there takes the networks' place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ...conversion import Base, Converted, Weighted
from ...conversion.layers import Layer
from ...conversion.lora import check_target, narrowed, reports_of, write_lora
from ...conversion.lora_files import Part
from ...conversion.low_rank import FULL, Factors, Rank
from ...conversion.weighted import CPU, enough_memory
from ...engine.stack import KEY, VALUE, Stack
from ...errors import HypernetworkError
from ...patching import apply

ROWS = 512
"""Contexts that an attention module notes of each call; the rest is left out."""
RIDGE = 1e-5
"""Of the mean square of the contexts: keeps directions that hardly occur from getting large
weights."""
KEPT_OUT = 0.25
"""Share of the prompts that only the measuring uses."""


@dataclass(frozen=True)
class Fitted:
    """A LoRA that stands for networks that aren't linear.

    Attributes:
        converted: what was written.
        share: how much of the networks' effect on the images it has, on prompts that it was not
            fitted to: 1 less the distance to the right images, as a share of the distance between
            these and those without networks.
        strips: of each such prompt, the images without networks, with them, and with the LoRA,
            side by side.
    """

    converted: Converted
    share: float
    strips: list[np.ndarray]


@dataclass(frozen=True)
class Sampling:
    """How images are generated for fitting and measuring.

    Attributes:
        prompts: a quarter of them is kept for measuring.
        steps: sampling steps.
        cfg: guidance scale; ``None`` is the pipeline's own default.
        size: width and height in pixels; ``None`` is the model's own.
        multipliers: factors on the networks' multipliers at which the contexts are noted.
    """

    prompts: Sequence[str]
    steps: int = 12
    cfg: float | None = None
    size: int | None = None
    multipliers: tuple[float, ...] = (1.0, 0.5)

    def split(self) -> tuple[list[str], list[str]]:
        """Prompts for fitting, and prompts for measuring.

        Raises:
            HypernetworkError: there are too few.
        """
        prompts = list(dict.fromkeys(prompt for prompt in self.prompts if prompt.strip()))
        if len(prompts) < 4:
            raise HypernetworkError(
                f"there are {len(prompts)} prompts, and at least 4 are needed: a quarter of them is kept for measuring"
            )
        every = round(1 / KEPT_OUT)
        return [p for i, p in enumerate(prompts) if i % every], prompts[::every]


class _Sums:
    """What least squares needs of contexts ``x`` and of what networks add to them."""

    def __init__(self, width: int) -> None:
        self.gram = torch.zeros(width + 1, width + 1, dtype=torch.float64)
        self.products = torch.zeros(2, width + 1, width, dtype=torch.float64)

    def add(self, contexts: torch.Tensor, changes: Sequence[torch.Tensor]) -> None:
        """Rows ``(count, width)``; the changes of keys and of values."""
        rows = torch.cat([contexts, torch.ones(len(contexts), 1)], 1).double()
        self.gram += rows.T @ rows
        for side, change in enumerate(changes):
            self.products[side] += rows.T @ change.double()

    def solved(self, side: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A and b of the best affine map, in fp32."""
        width = len(self.gram) - 1
        ridge = RIDGE * self.gram.diagonal()[:-1].mean() * torch.eye(width + 1).double()
        ridge[-1, -1] = 0
        found = torch.linalg.solve(self.gram + ridge, self.products[side])
        return found[:-1].T.float(), found[-1].float()

    def metric(self) -> torch.Tensor:
        """L with ``L L^T`` the contexts' covariance: what errors of A are weighed by."""
        count = self.gram[-1, -1]
        mean = self.gram[:-1, -1] / count
        covariance = self.gram[:-1, :-1] / count - torch.outer(mean, mean)
        floor = RIDGE * covariance.diagonal().mean() * torch.eye(len(mean)).double()
        found: torch.Tensor = torch.linalg.cholesky(covariance + floor)
        return found.float()


def fit_lora(
    pipeline: Any,
    base: Base,
    networks: Sequence[Weighted],
    target: Path,
    sampling: Sampling,
    *,
    rank: Rank = FULL,
    layout: str = "kohya",
    dtype: str = "fp16",
    on_progress: Callable[[int, int], object] | None = None,
) -> Fitted:
    """Write the LoRA that is nearest to networks, linear or not, on contexts that the model has.

    Args:
        pipeline: the model of ``base``, as a diffusers pipeline.
        base: the same on the disk.
        networks: in the order of application.
        target: a ``.safetensors`` file.
        rank, layout, dtype: as in :func:`~hypernetworks.conversion.to_lora`.
        on_progress: told (images done, all images).

    Raises:
        NoMatchingWidthError: a network for another model.
        HypernetworkError: too few prompts, not enough memory.
    """
    check_target(target, layout, dtype)
    base.check_fit([weighted.network for weighted in networks])
    fitting, kept = sampling.split()
    total, done = len(fitting) * len(sampling.multipliers) + 3 * len(kept), 0

    def advance() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, total)

    generate = partial(_generate, pipeline, sampling, advance)
    with enough_memory("to fit the LoRA: use a smaller --size or fewer --prompts"):
        again = partial(generate, fitting)
        sums = _noted(pipeline.unet, base, networks, sampling.multipliers, again)
        with torch.no_grad():
            layers = [layer for layer in base.layers if layer.path in sums]
            parts = [_part(base, layer, sums[layer.path], rank) for layer in layers]

        plain = generate(kept)
        with apply(pipeline.unet, [(w.network, w.multiplier) for w in networks]):
            wanted = generate(kept)
        with added(pipeline.unet, parts):
            made = generate(kept)

    share = _share(plain, wanted, made)
    reports = [report for part in parts for report in reports_of(part)]
    how = f"fitted by least squares; {share:.1%} of the effect on the images, on prompts kept out"
    converted = write_lora(
        base, networks, target, parts, reports, layout=layout, dtype=dtype, how=how
    )
    strips = [np.concatenate(row, 1) for row in zip(plain, wanted, made, strict=True)]
    return Fitted(converted, share, strips)


def _share(
    plain: Sequence[np.ndarray], wanted: Sequence[np.ndarray], made: Sequence[np.ndarray]
) -> float:
    """Of the effect on the images, how much came back: 1 for all of it."""
    return 1 - _distance(made, wanted) / max(_distance(plain, wanted), 1e-12)


def _distance(images: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> float:
    """Root mean square of the differences of pixels."""
    squares = [np.square(a - b).mean() for a, b in zip(images, others, strict=True)]
    return float(np.mean(squares) ** 0.5)


def _generate(
    pipeline: Any, sampling: Sampling, advance: Callable[[], None], prompts: Sequence[str]
) -> list[np.ndarray]:
    """An image ``(height, width, 3)`` in [0, 1] for each prompt, always from the same noise."""
    options: dict[str, Any] = {} if sampling.cfg is None else {"guidance_scale": sampling.cfg}
    if sampling.size is not None:
        options |= {"width": sampling.size, "height": sampling.size}
    images = []
    for number, prompt in enumerate(prompts):
        with torch.inference_mode():
            output = pipeline(
                prompt,
                num_inference_steps=sampling.steps,
                generator=torch.Generator("cpu").manual_seed(number),
                output_type="np",
                **options,
            )
        images.append(np.asarray(output.images[0], dtype=np.float32))
        advance()
    return images


def _noted(
    unet: nn.Module,
    base: Base,
    networks: Sequence[Weighted],
    multipliers: Sequence[float],
    generate: Callable[[], object],
) -> dict[str, _Sums]:
    """Sums over the contexts of every attention module that the networks change, by its path."""
    sums: dict[str, _Sums] = {}
    blocks = list(dict.fromkeys(layer.block for layer in base.layers))
    factors = [weighted.multiplier.block_factors(blocks) for weighted in networks]
    stack = Stack([weighted.network for weighted in networks])
    hooks = []
    for layer in base.layers:
        strengths = [w.at(layer, f) for w, f in zip(networks, factors, strict=True)]
        if not any(any(pair) for pair in strengths):
            continue
        sums[layer.path] = _Sums(layer.width)
        note = partial(_note, sums[layer.path], stack, strengths)
        hooks.append(
            unet.get_submodule(layer.path).register_forward_pre_hook(note, with_kwargs=True)
        )
    try:
        for factor in multipliers:
            scaled = [(w.network, _scaled(w, factor)) for w in networks]
            with apply(unet, scaled):
                generate()
    finally:
        for hook in hooks:
            hook.remove()
    return sums


def _scaled(weighted: Weighted, factor: float) -> Any:
    from dataclasses import replace

    from ...engine.multiplier import Schedule

    own = weighted.multiplier
    return replace(own, strength=Schedule.constant(own.at(0, 1) * factor), hires=None)


def _note(
    sums: _Sums,
    stack: Stack,
    strengths: Sequence[tuple[float, float]],
    module: nn.Module,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
) -> None:
    """Add the context of one call, and what the networks make of it."""
    context = options.get("encoder_hidden_states")
    if context is None and len(arguments) > 1:
        context = arguments[1]
    if context is None:
        context = arguments[0] if arguments else options["hidden_states"]
    rows = context.detach().flatten(0, -2).float()
    rows = rows[:: max(1, len(rows) // ROWS)]
    changes = [
        stack.transform(rows, side, [pair[side] for pair in strengths]) - rows
        for side in (KEY, VALUE)
    ]
    sums.add(rows.to(CPU), [change.to(CPU) for change in changes])


def _part(base: Base, layer: Layer, sums: _Sums, rank: Rank) -> Part:
    key, _ = sums.solved(KEY)
    value, shift = sums.solved(VALUE)
    metric = None if rank.is_full else sums.metric()
    weight = base.tensor(layer.value).float()
    value_bias = weight @ shift
    return Part(
        layer,
        _weighed(base.tensor(layer.key).float() @ key, rank, metric),
        _weighed(weight @ value, rank, metric),
        base.tensor(layer.out).float() @ value_bias,
        value_bias,
    )


def _weighed(
    matrix: torch.Tensor, rank: Rank, metric: torch.Tensor | None
) -> torch.Tensor | Factors:
    """At a rank, with the smallest error on the contexts rather than on the numbers of the
    matrix."""
    if metric is None:
        return matrix
    found = narrowed(matrix @ metric, rank, min(matrix.shape))
    if not isinstance(found, Factors):
        return matrix
    down = torch.linalg.solve_triangular(metric, found.down, upper=False, left=False)
    return Factors(found.up, down, found.error)


@contextmanager
def added(unet: nn.Module, parts: Sequence[Part]) -> Iterator[None]:
    """The UNet's weights with a LoRA in them, inside; the old ones come back."""
    before: list[tuple[torch.Tensor, torch.Tensor]] = []
    try:
        for part in parts:
            module: Any = unet.get_submodule(part.layer.path)
            for tensor, change in (
                (module.to_k.weight, part.key),
                (module.to_v.weight, part.value),
                (module.to_out[0].bias, part.bias),
            ):
                if change is None:
                    continue
                whole = change.up @ change.down if isinstance(change, Factors) else change
                before.append((tensor, tensor.detach().clone()))
                with torch.no_grad():
                    tensor.add_(whole.to(tensor.device, tensor.dtype))
        yield
    finally:
        with torch.no_grad():
            for tensor, old in before:
                tensor.copy_(old)


def save_sheet(strips: Sequence[np.ndarray], path: Path) -> None:
    """Write the images of a measurement as one PNG: without networks, with them, and with the LoRA.

    Raises:
        FileWriteError: it can't be written.
    """
    from PIL import Image

    from ...files.writing import replace

    sheet = np.concatenate(list(strips), 0)
    image = Image.fromarray((sheet * 255).round().clip(0, 255).astype(np.uint8))
    replace(path, lambda temporary: image.save(temporary, format="PNG"))
