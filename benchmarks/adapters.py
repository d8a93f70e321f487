"""Hypernetworks against other adapters: ``python -m benchmarks.adapters [--build DIR]``.

Every method learns the same images in the same order, with the same noise and time steps, on the
same frozen miniature, for the same number of samples, by AdamW with the same schedule; two rows
have ``train``'s ScheduleFreeAdamW, and are named so. Sizes are as near to
the hypernetwork's as a method allows; the table has what they are. LoRA, LoKr, OFT and IA3 are
peft's, on the same projections (``to_k`` and ``to_v``): ``pip install "hypernetworks[peft]"``.

Measured are: the loss of the last weights on unseen subjects; that loss at equal time, which is the
processor time of the fastest method; the share of images, of unseen subjects, that are nearest to
the rendering of their own subject in the style among all 266 (recall of words), and their distance
to it; how much predictions for images that are not in the style change (drift, as a share of what
they change for images in the style); how far an image with the adapter and a second style, each at
half strength, is from the sum of what the two change alone (stacking, as a share of that sum); time
per image; size.

Finished rows stand in ``adapters.jsonl``; started again, the benchmark goes on with what is
missing. ``--table`` only prints what is there, as docs/benchmark.md has it. ``--report`` chooses
where the curves, a sheet of images, and a file per row in the format of peft's
``method_comparison/image-gen/results`` are written.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hypernetworks as hn
from hypernetworks.engine.initialising import create_network
from hypernetworks.hosts.diffusers import MINIATURE
from hypernetworks.miniature.subjects import subject_names
from hypernetworks.training import Batch, Examples, TrainingSettings
from hypernetworks.training.contexts import Contexts
from hypernetworks.training.forward import ForwardPass
from hypernetworks.training.optimisers import Stepper, build_optimiser
from hypernetworks.training.processes import Learner
from hypernetworks.training.scaling import Scaler
from hypernetworks.training.validation import ValidationLoss

from .adapters_report import images_file, table, write_report
from .styled import Cell, Shown, Styled

TARGETS = ["to_k", "to_v"]
MEASURED = 5
"""Losses per run, for the loss at equal time."""
DRAWN = 8
"""Images per row, of unseen subjects."""
STEPS, GUIDANCE = 8, 3.0
"""Of the images."""
OWN_SEED = 100
"""Of the search for rates, so that no rate is chosen on a cell of the table."""
NETWORKS = MINIATURE.parent / "networks"


@dataclass
class Adapter:
    """A method, ready to be trained on one pipeline.

    Attributes:
        parameters: what is trained.
        contexts: of captions; a function of the parameters for textual inversion alone.
        at: makes it act with another strength, where the method has one.
    """

    parameters: list[torch.nn.Parameter]
    contexts: Callable[[Sequence[str]], torch.Tensor] | None = None
    at: Callable[[float], AbstractContextManager[object]] = lambda _: nullcontext()
    words: str = ""


Make = Callable[[Any], AbstractContextManager[Adapter]]


@dataclass(frozen=True)
class Method:
    """One row.

    Attributes:
        name: for the table.
        rate: learning rate; the best of those tried, see docs/benchmark.md.
        make: applies it to a pipeline, and takes it away again.
        optimiser: AdamW for a fair comparison; another one is named in the row.
    """

    name: str
    rate: float
    make: Make = field(compare=False)
    optimiser: str = "AdamW"


def hypernetwork(structure: hn.Structure, initialisation: str = "KaimingUniform") -> Make:
    """Networks for text and self-attention, as ``train`` makes them."""

    @contextmanager
    def made(pipeline: Any) -> Iterator[Adapter]:
        from hypernetworks.hosts.diffusers.training.frozen_model import FrozenModel

        widths = FrozenModel(pipeline).widths()
        network = create_network("bench", structure, widths, initialisation=initialisation)
        network.train()
        handle = hn.apply(pipeline.unet, [(network, 1.0)])
        parameters = list(network.parameters())

        @contextmanager
        def at(multiplier: float) -> Iterator[None]:
            nonlocal handle
            handle.remove()
            network.train(False)
            handle = hn.apply(pipeline.unet, [(network, multiplier)])
            try:
                yield
            finally:
                handle.remove()
                network.train()
                handle = hn.apply(pipeline.unet, [(network, 1.0)])

        try:
            yield Adapter(parameters, at=at)
        finally:
            handle.remove()

    return made


def of_peft(kind: str, **options: Any) -> Make:
    """One of peft's methods on the projections that a hypernetwork changes."""

    @contextmanager
    def made(pipeline: Any) -> Iterator[Adapter]:
        import peft

        untouched = pipeline.unet
        pipeline.unet = copy.deepcopy(untouched)
        config = getattr(peft, kind)(target_modules=TARGETS, **options)
        peft.inject_adapter_in_model(config, pipeline.unet)
        parameters = [p for p in pipeline.unet.parameters() if p.requires_grad]
        layers = [
            m for m in pipeline.unet.modules() if isinstance(getattr(m, "scaling", None), dict)
        ]

        @contextmanager
        def at(multiplier: float) -> Iterator[None]:
            before = [dict(layer.scaling) for layer in layers]
            for layer in layers:
                layer.scaling.update({k: v * multiplier for k, v in layer.scaling.items()})
            try:
                yield
            finally:
                for layer, scaling in zip(layers, before, strict=True):
                    layer.scaling.update(scaling)

        try:
            yield Adapter(parameters, at=at if layers else lambda _: nullcontext())
        finally:
            pipeline.unet = untouched

    return made


def textual_inversion(vectors: int) -> Make:
    """So many new words in front of every prompt; the UNet stays as it is."""

    @contextmanager
    def made(pipeline: Any) -> Iterator[Adapter]:
        tokenizer, encoder = copy.deepcopy(pipeline.tokenizer), copy.deepcopy(pipeline.text_encoder)
        before = pipeline.tokenizer, pipeline.text_encoder
        names = [f"<style{i}>" for i in range(vectors)]
        tokenizer.add_tokens(names)
        encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        encoder.requires_grad_(False)
        table = encoder.get_input_embeddings()
        first = len(tokenizer) - vectors
        learned = torch.nn.Parameter(table.weight[:first].mean(0).repeat(vectors, 1))

        def put(module: object, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
            ids = inputs[0]
            is_new = (ids >= first)[..., None]
            return torch.where(is_new, learned[(ids - first).clamp_min(0)], output)

        hook = table.register_forward_hook(put)
        pipeline.tokenizer, pipeline.text_encoder = tokenizer, encoder
        words = "".join(names) + " "

        def contexts(texts: Sequence[str]) -> torch.Tensor:
            ids = tokenizer(
                [words + text if text else text for text in texts],
                padding="max_length",
                truncation=True,
                max_length=tokenizer.model_max_length,
                return_tensors="pt",
            ).input_ids
            found: torch.Tensor = encoder(ids).last_hidden_state
            return found

        try:
            yield Adapter([learned], contexts, words=words)
        finally:
            hook.remove()
            pipeline.tokenizer, pipeline.text_encoder = before

    return made


MLP = hn.Structure((1, 2, 1), "relu", activate_output=False)
LINEAR = hn.Structure((1, 2, 1), "linear", activate_output=False)
SMALL = hn.Structure((1, 0.125, 1), "linear", activate_output=False)
METHODS = (
    Method("hypernetwork, MLP 1, 2, 1", 4e-3, hypernetwork(MLP)),
    Method("LoRA, rank 70", 4e-3, of_peft("LoraConfig", r=70, lora_alpha=70)),
    Method("hypernetwork, linear 1, 2, 1", 2e-3, hypernetwork(LINEAR)),
    Method("LoKr, factor 2", 4e-3, of_peft("LoKrConfig", r=128, alpha=128, decompose_factor=2)),
    Method("OFT, blocks of 32", 4e-3, of_peft("OFTConfig", oft_block_size=32, r=0)),
    Method("IA3", 4e-2, of_peft("IA3Config", feedforward_modules=[])),
    Method("textual inversion, 8 words", 2e-2, textual_inversion(8)),
    Method("hypernetwork, linear 1, 1/8, 1", 4e-3, hypernetwork(SMALL)),
    Method("LoRA, rank 5", 8e-3, of_peft("LoraConfig", r=5, lora_alpha=5)),
    Method(
        "hypernetwork, MLP 1, 2, 1, schedule-free", 5e-3, hypernetwork(MLP), "ScheduleFreeAdamW"
    ),
    Method(
        "LoRA, rank 70, schedule-free",
        5e-3,
        of_peft("LoraConfig", r=70, lora_alpha=70),
        "ScheduleFreeAdamW",
    ),
)


class _Texts(Contexts):
    """Captions of textual inversion: their contexts change with every step."""

    def __init__(self, encode: Callable[[Sequence[str]], torch.Tensor]) -> None:
        super().__init__(lambda texts: [{"context": row} for row in encode(texts)])
        self._live = encode

    def prepare(self, texts: Any) -> None:
        """Nothing can be encoded beforehand."""

    def stack(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """As they are now, with their graph."""
        return {"context": self._live(texts)}


def measured(
    styled: Styled, method: Method, cell: Cell, epochs: int, batch: int = 4
) -> tuple[dict[str, Any], np.ndarray]:
    """Train one method and measure it; also its images ``(count, height, width, 3)`` in [0, 1]."""
    learned, _ = styled.subjects(cell)
    shown = styled.tested()
    settings = _settings(method, method.rate, len(learned), cell.seed, epochs, batch)
    torch.manual_seed(cell.seed)

    with method.make(styled.pipeline) as adapter:
        own, test = _data(styled, adapter, cell, batch)
        other = ValidationLoss(styled.examples(shown, "flat"), own.contexts, 0)

        with styled.ready_for(adapter.parameters):
            curve = _trained(styled, adapter, own, settings, test)
            row = {
                "method": method.name,
                "cell": [cell.style, cell.images, cell.seed],
                "rate": method.rate,
                "optimiser": method.optimiser,
                "steps": settings.steps,
                "captions": [item.caption for item in shown[:DRAWN]],
                "parameters": sum(p.numel() for p in adapter.parameters),
                "total": sum(p.numel() for p in styled.pipeline.unet.parameters()),
                "test": curve[-1][1],
                "curve": curve,
                "drift": _drift(styled, other) / max(1e-12, _drift(styled, test)),
            }
        images, seconds = _images(styled, shown[:DRAWN], adapter.words)
        with adapter.at(0.5):
            half, half_seconds = _images(styled, shown[:DRAWN], adapter.words)
            stacking = _stacking(styled, shown[:DRAWN], cell.style, half, adapter.words)

    row |= {"seconds": seconds, "half_seconds": half_seconds, "stacking": stacking}
    row |= _figures(styled, images, shown[:DRAWN], cell.style)
    row |= {f"half_{k}": v for k, v in _figures(styled, half, shown[:DRAWN], cell.style).items()}
    return row, images


def _data(
    styled: Styled, adapter: Adapter, cell: Cell, batch: int
) -> tuple[Examples, ValidationLoss]:
    """What an adapter that is applied learns from, and its loss on unseen subjects."""
    contexts = styled.contexts if adapter.contexts is None else _Texts(adapter.contexts)
    learned, _ = styled.subjects(cell)
    examples = styled.examples(learned, cell.style)
    own = Examples(examples, contexts, batch=batch, caption_dropout=0.1, seed=cell.seed)
    styled.model.unet = styled.pipeline.unet  # which some methods replace
    return own, ValidationLoss(styled.examples(styled.tested(), cell.style), contexts, 0)


def _settings(
    method: Method, rate: float, images: int, seed: int, epochs: int, batch: int
) -> TrainingSettings:
    return TrainingSettings(
        steps=max(1, round(epochs * images / batch)),
        rate=f"{rate:g}",
        optimiser=method.optimiser,
        batch=batch,
        seed=seed,
        precision="fp32",
        warm_up=20,
    )


def loss_at(styled: Styled, method: Method, rate: float, cell: Cell, epochs: int) -> float:
    """The loss on unseen subjects after a training at another rate, for choosing ``rate``."""
    learned, _ = styled.subjects(cell)
    torch.manual_seed(cell.seed)

    with method.make(styled.pipeline) as adapter:
        examples, test = _data(styled, adapter, cell, 4)
        settings = _settings(method, rate, len(learned), cell.seed, epochs, 4)

        with styled.ready_for(adapter.parameters):
            return _trained(styled, adapter, examples, settings, test, measured=1)[-1][1]


def _trained(
    styled: Styled,
    adapter: Adapter,
    examples: Examples,
    settings: TrainingSettings,
    test: ValidationLoss,
    measured: int = MEASURED,
) -> list[tuple[float, float]]:
    """Train; returns processor seconds and loss on unseen subjects, some times over the run."""
    model = styled.model
    optimiser = build_optimiser(settings.optimiser, adapter.parameters, 0.0, {})
    stepper = Stepper(optimiser, Scaler(enabled=False), 1.0, "norm")
    network = hn.Hypernetwork.create("none", MLP, (8,))  # for its signature alone
    forward = ForwardPass(
        Learner(network, model.predict),
        MLP,
        examples,
        model.schedule,
        settings,
        torch.device("cpu"),
    )
    rates, curve, spent = settings.rates(), [], 0.0
    every = max(1, settings.steps // measured)
    stepper.learns(True)

    for step in range(settings.steps):
        began = time.process_time()
        samples = [step * settings.batch + i for i in range(settings.batch)]
        loss, _ = forward.losses(samples)
        loss.backward()
        stepper.measure()
        stepper.step(rates.at(step))
        spent += time.process_time() - began
        if (step + 1) % every == 0 or step + 1 == settings.steps:
            with stepper.at_rest():
                curve.append((spent, test.loss(model.predict, model.schedule, "cpu")))
    stepper.learns(False)
    return curve


@torch.no_grad()
def _drift(styled: Styled, on: ValidationLoss) -> float:
    """Mean square of what the adapter changes in predictions on these images."""
    model, total = styled.model, 0.0

    def difference(noisy: torch.Tensor, times: torch.Tensor, batch: Batch) -> torch.Tensor:
        nonlocal total
        found = model.predict(noisy, times, batch)
        plain: torch.Tensor = styled.plain(noisy, times, batch.context).sample
        total += float((found - plain).square().mean())
        return found

    on.loss(difference, model.schedule, "cpu")
    return total


def _images(
    styled: Styled, shown: Sequence[Any], words: str, pipeline: Any = None
) -> tuple[np.ndarray, float]:
    """Images of prompts, and processor seconds per image."""
    prompts = [words + item.caption for item in shown]
    generators = [torch.Generator().manual_seed(item.subject) for item in shown]
    began = time.process_time()
    with torch.inference_mode():
        made = (pipeline or styled.pipeline)(
            prompts,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=generators,
            output_type="np",
        ).images
    return np.asarray(made), (time.process_time() - began) / len(shown)


def _stacking(
    styled: Styled, shown: Sequence[Any], style: str, one: np.ndarray, words: str
) -> float:
    """How far two styles at once are from the sum of what each changes, as a share of that sum.

    The second style is a network that ships, at half strength, the same one for every method.
    """
    second = hn.read(NETWORKS / ("night.safetensors" if style == "sepia" else "sepia.safetensors"))
    with hn.apply(styled.pipeline.unet, [(second, 0.5)]):
        both, _ = _images(styled, shown, words)

    plain, other = _plain_and_other(styled, shown, style, second)
    wanted = (one - plain) + (other - plain)
    return float(np.linalg.norm(both - plain - wanted) / np.linalg.norm(wanted))


def _plain_and_other(
    styled: Styled, shown: Sequence[Any], style: str, second: hn.Hypernetwork
) -> tuple[np.ndarray, np.ndarray]:
    """Images without any style, and with the second one alone: the same ones for every method."""
    if style not in styled.kept:
        untouched = styled.plain_pipeline()
        plain, _ = _images(styled, shown, "", untouched)
        with hn.apply(untouched.unet, [(second, 0.5)]):
            styled.kept[style] = plain, _images(styled, shown, "", untouched)[0]
    found: tuple[np.ndarray, np.ndarray] = styled.kept[style]
    return found


def _figures(
    styled: Styled, images: np.ndarray, shown: Sequence[Any], style: str
) -> dict[str, float]:
    """Recall of subjects, and root mean square distance to the style's rendering, of 255."""
    hits, distances = 0, []
    for image, item in zip(images, shown, strict=True):
        everyone = [Shown(i, item.colour) for i in range(len(subject_names()))]
        wanted = styled.pixels(everyone, style).astype(np.float32) / 255
        rows = np.sqrt(((wanted - image) ** 2).mean((1, 2, 3)))
        hits += int(rows.argmin()) == item.subject
        distances.append(float(rows[item.subject]) * 255)
    return {"recall": hits / len(shown), "distance": statistics.mean(distances)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, default=Path("build/sweep"))
    parser.add_argument("--styles", nargs="+", default=["night", "sepia", "ink"])
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--only", nargs="+", help="beginnings of methods' names")
    parser.add_argument(
        "--search",
        action="store_true",
        help="instead, train each method at a quarter to four times its rate, with a seed of its own",
    )
    parser.add_argument("--table", action="store_true", help="only print what is there")
    parser.add_argument(
        "--report",
        type=Path,
        help="folder for the curves, the sheet of images and the results as peft has them",
    )
    options = parser.parse_args()
    path = options.build / "adapters.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    if not options.table:
        options.build.mkdir(parents=True, exist_ok=True)
        styled = Styled(options.build)
        if options.search:
            _search(styled, options)
            return
        for seed in range(options.seeds):
            for style in options.styles:
                for method in METHODS:
                    cell = Cell(style, options.images, seed)
                    _row(styled, method, cell, options, rows, path)
    write_report(rows, options.build, options.report or options.build)
    print(table(rows))


def _search(styled: Styled, options: argparse.Namespace) -> None:
    """Print, and keep in ``rates.jsonl``, the loss of each method at other rates."""
    path = options.build / "rates.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    known = {tuple(json.loads(line)[:2]) for line in lines}
    cell = Cell(options.styles[0], options.images, OWN_SEED)

    for factor in (1.0, 2.0, 0.5, 4.0, 0.25):
        for method in METHODS:
            rate = method.rate * factor
            if (method.name, rate) in known:
                continue
            line = json.dumps(
                [method.name, rate, loss_at(styled, method, rate, cell, options.epochs)]
            )
            with path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            print(line, flush=True)


def _row(
    styled: Styled,
    method: Method,
    cell: Cell,
    options: argparse.Namespace,
    rows: list[dict[str, Any]],
    path: Path,
) -> None:
    known = {(row["method"], *row["cell"]) for row in rows}
    wanted = not options.only or method.name.startswith(tuple(options.only))
    if not wanted or (method.name, cell.style, cell.images, cell.seed) in known:
        return
    row, images = measured(styled, method, cell, options.epochs)
    row["created_at"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
    kept = images_file(path.parent, method.name, cell.style, cell.seed)
    np.save(kept, (images * 255).round().astype(np.uint8))
    rows.append(row)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print({k: v for k, v in row.items() if k != "curve"}, flush=True)


if __name__ == "__main__":
    main()
