"""Training of the style networks that ship with the miniature, with the project's own training code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextModel, CLIPTokenizer

from ..engine.network import Hypernetwork, Provenance
from ..engine.structure import Structure
from ..patching import apply
from ..progress import Progress
from ..training import Batch, TrainingSettings, TrainingStep, train
from ..training.objective import NoiseSchedule
from .base import CHANNELS, TEXT_LENGTH, TEXT_WIDTH, build_scheduler, encode_pictures
from .subjects import COLOURS, caption, is_held_out_from_styles, spoken, subject_names

STRUCTURES: dict[str, Structure] = {
    "ink": Structure((1, 2, 1), "relu", activate_output=False),
    "sepia": Structure((1, 2, 1), "relu", activate_output=False),
    "night": Structure((1, 2, 1), "swish", activate_output=False),
}
"""How each style network is built."""


@torch.no_grad()
def encode_captions(
    text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, texts: list[str]
) -> dict[str, torch.Tensor]:
    """Context ``(TEXT_LENGTH, TEXT_WIDTH)`` of each text."""
    contexts: dict[str, torch.Tensor] = {}
    for begin in range(0, len(texts), 64):
        part = texts[begin : begin + 64]
        tokens = tokenizer(part, padding="max_length", truncation=True, max_length=TEXT_LENGTH, return_tensors="pt")
        contexts.update(zip(part, text_encoder(tokens.input_ids).last_hidden_state, strict=True))
    return contexts


def batches(
    latents: dict[str, torch.Tensor], contexts: dict[str, torch.Tensor], batch_size: int
) -> Callable[[torch.Generator], Batch]:
    """Random pairs of the subjects that styles may see; a tenth of the captions are empty."""
    shown = [(i, n) for i, n in enumerate(subject_names()) if not is_held_out_from_styles(n)]
    colours = list(COLOURS)

    def draw(generator: torch.Generator) -> Batch:
        random = Random(int(torch.randint(2**31, (1,), generator=generator)))
        rows = [(*random.choice(shown), random.choice(colours)) for _ in range(batch_size)]
        texts = ["" if random.random() < 0.1 else _caption(n, c, random) for _, n, c in rows]
        return Batch(torch.stack([latents[c][i] for i, _, c in rows]), torch.stack([contexts[t] for t in texts]))

    return draw


def _caption(name: str, colour: str, random: Random) -> str:
    return spoken(name) if colour == "white" and random.random() < 0.5 else caption(name, colour)


def train_style(
    style: str,
    pictures: np.ndarray,
    vae: AutoencoderTiny,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    unet: UNet2DConditionModel,
    folder: Path,
    settings: TrainingSettings,
    batch_size: int = 48,
) -> Hypernetwork:
    """Train one style from scratch or from the checkpoint in ``folder``.

    Args:
        pictures: RGBA uint8 ``(styles, subjects, SIZE, SIZE, 4)``.
    """
    torch.manual_seed(settings.seed)
    network = Hypernetwork.create(style, STRUCTURES[style], {*CHANNELS, TEXT_WIDTH})
    network.provenance = Provenance(name=style, checkpoint_name="miniature")
    texts = ["", *(caption(n, c) for n in subject_names() for c in COLOURS), *map(spoken, subject_names())]
    draw = batches(encode_pictures(vae, pictures, style), encode_captions(text_encoder, tokenizer, texts), batch_size)
    schedule = NoiseSchedule(build_scheduler().alphas_cumprod, "v_prediction")
    processors = dict(unet.attn_processors)
    unet.set_attn_processor(AttnProcessor())  # the fused CPU kernels' backward is half as fast

    def predict(noisy: torch.Tensor, times: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            velocity: torch.Tensor = unet(noisy, times, context).sample
        return velocity

    with Progress(settings.steps, style) as progress:
        average = [0.0]

        def report(done: TrainingStep) -> None:
            average[0] = done.loss if done.step == 1 else 0.98 * average[0] + 0.02 * done.loss
            progress.update(done.step, f"loss {average[0]:.4f}")

        with apply(unet.requires_grad_(False), [(network, 1.0)]):
            train(network, predict, draw, schedule, settings, folder=folder, on_step=report)
    unet.set_attn_processor(processors)
    return network
