"""Assembles the trained models into the diffusers folder that is included, in fp16."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from torch import nn

from ..files.moving import move
from . import autoencoder
from .base import TextToLatent, build_scheduler, build_text_encoder, build_tokenizer, build_unet


def averaged(module: nn.Module, folder: Path) -> nn.Module:
    """Load the moving average of the weights from a run's last checkpoint, in place."""
    state = torch.load(folder / "checkpoint.pt", weights_only=True, map_location="cpu")
    module.load_state_dict(state["module"])
    for parameter, value in zip(module.parameters(), state["ema"], strict=True):
        parameter.data.copy_(value)
    return module.eval()


def assemble(build: Path) -> StableDiffusionPipeline:
    """The pipeline from the runs in ``build``: autoencoder, base, and decoder if there is one."""
    vae: AutoencoderTiny = averaged(autoencoder.build(), build / "autoencoder")
    if (build / "decoder" / "checkpoint.pt").exists():
        averaged(vae.decoder, build / "decoder")
    tokenizer = build_tokenizer(build / "base" / "tokenizer")
    module = averaged(TextToLatent(build_text_encoder(tokenizer), build_unet()), build / "base")
    assert isinstance(module, TextToLatent)

    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=module.text_encoder,
        tokenizer=tokenizer,
        unet=module.unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save(pipeline: StableDiffusionPipeline, tokenizer: Path, folder: Path) -> None:
    """Write the pipeline as fp16 safetensors, replacing what is in ``folder``.

    The tokenizer's files are copied as they are, because every version of transformers reads them.
    """
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    pipeline.to(dtype=torch.float16).save_pretrained(temporary, safe_serialization=True)

    # Some versions of transformers load the text encoder in the type that its config names, while
    # the other models are loaded in float32. The pipeline would then mix two types.
    config = temporary / "text_encoder" / "config.json"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('"float16"', '"float32"'), encoding="utf-8")

    shutil.rmtree(temporary / "tokenizer")
    shutil.copytree(tokenizer, temporary / "tokenizer")
    shutil.rmtree(folder, ignore_errors=True)
    move(temporary, folder)
