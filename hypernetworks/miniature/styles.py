"""Training of the miniature's style networks, with the project's own training code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextModel, CLIPTokenizer

from ..engine.network import Hypernetwork, Provenance
from ..engine.structure import Structure
from ..hosts.diffusers.training.precision import quick_on_cpu
from ..patching import apply
from ..progress import Progress
from ..training import (
    Batch,
    Caption,
    Example,
    Examples,
    NoiseSchedule,
    Run,
    TrainingSettings,
    TrainingStep,
    train,
)
from ..training.contexts import Condition, Contexts, Encode
from .autoencoder import encode_pictures
from .base import CHANNELS, TEXT_LENGTH, TEXT_WIDTH, build_scheduler
from .subjects import COLOURS, caption, is_held_out_from_styles, spoken, subject_names


@dataclass(frozen=True)
class Recipe:
    """How one style network is built and trained."""

    structure: Structure
    settings: TrainingSettings


def _settings(steps: int) -> TrainingSettings:
    return TrainingSettings(
        steps, rate="1.2e-3", warm_up=50, batch=16, precision="bf16", ema=0.995, watch_every=0
    )


RECIPES: dict[str, Recipe] = {
    "ink": Recipe(
        Structure((1, 2, 1), "relu", activate_output=False, dropout=(0, 0.3, 0)), _settings(7000)
    ),
    "sepia": Recipe(Structure((1, 2, 1), "relu", activate_output=False), _settings(2400)),
    "night": Recipe(Structure((1, 2, 1), "swish", activate_output=False), _settings(1600)),
}
"""The networks that are included."""


def encoder(text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer) -> Encode:
    """A function that returns the context ``(TEXT_LENGTH, TEXT_WIDTH)`` of each text."""

    def encode(texts: Sequence[str]) -> list[Condition]:
        found: list[Condition] = []
        for begin in range(0, len(texts), 64):
            part = list(texts[begin : begin + 64])
            tokens = tokenizer(
                part,
                padding="max_length",
                truncation=True,
                max_length=TEXT_LENGTH,
                return_tensors="pt",
            )
            found += [
                {"context": context} for context in text_encoder(tokens.input_ids).last_hidden_state
            ]

        return found

    return encode


def examples_of(latents: dict[str, torch.Tensor]) -> list[Example]:
    """Every subject that styles are trained on, on every colour; white needn't be in the caption.

    Args:
        latents: ``(subjects, 8, 12, 12)`` by background colour.
    """
    return [
        Example(f"{name} on {colour}", Caption(_captions(name, colour)), (latents[colour][index],))
        for index, name in enumerate(subject_names())
        if not is_held_out_from_styles(name)
        for colour in COLOURS
    ]


def _captions(name: str, colour: str) -> tuple[str, ...]:
    return (spoken(name), caption(name, colour)) if colour == "white" else (caption(name, colour),)


def train_style(
    style: str,
    pictures: np.ndarray,
    vae: AutoencoderTiny,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    unet: UNet2DConditionModel,
    folder: Path,
    settings: TrainingSettings | None = None,
) -> Hypernetwork:
    """Train one style by its recipe, from scratch or from the checkpoint in ``folder``.

    Args:
        pictures: RGBA uint8 ``(styles, subjects, SIZE, SIZE, 4)``.
        settings: instead of the recipe's own.
    """
    settings = settings or RECIPES[style].settings
    torch.manual_seed(settings.seed)
    network = Hypernetwork.create(style, RECIPES[style].structure, {*CHANNELS, TEXT_WIDTH})
    network.provenance = Provenance(name=style, checkpoint_name="miniature")

    examples = Examples(
        examples_of(encode_pictures(vae, pictures, style)),
        Contexts(encoder(text_encoder, tokenizer)),
        batch=settings.batch,
        caption_dropout=settings.caption_dropout,
        seed=settings.seed,
    )
    processors = dict(unet.attn_processors)
    # The backward pass of torch's fused attention is half as fast on a CPU.
    unet.set_attn_processor(AttnProcessor())

    def predict(noisy: torch.Tensor, times: torch.Tensor, batch: Batch) -> torch.Tensor:
        velocity: torch.Tensor = unet(noisy, times, batch.context).sample
        return velocity

    schedule = NoiseSchedule(build_scheduler().alphas_cumprod, "v_prediction")
    network.train()  # before apply(), which collapses a network that isn't being trained
    unet.requires_grad_(False)
    # Applied as users apply it, so that training sees exactly what a generation computes.
    with quick_on_cpu(unet, settings.precision), apply(unet, [(network, 1.0)]):
        run = Run(network, predict, examples, schedule, settings, folder=folder)
        with Progress(settings.steps, style, initial=run.step) as progress:

            def report(done: TrainingStep) -> None:
                progress.update(done.step, f"loss {done.smoothed:.4f}")

            train(run, on_step=report)
    unet.set_attn_processor(processors)
    return network
