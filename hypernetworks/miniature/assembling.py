"""Puts the trained parts together as the diffusers folder that ships, in fp16."""

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
    """Load the averaged weights of a run's last checkpoint into ``module``, in place."""
    state = torch.load(folder / "checkpoint.pt", weights_only=True, map_location="cpu")
    module.load_state_dict(state["module"])
    for parameter, value in zip(module.parameters(), state["ema"], strict=True):
        parameter.data.copy_(value)
    return module.eval()


def assemble(build: Path) -> StableDiffusionPipeline:
    """The pipeline of the runs below ``build``: ``autoencoder``, ``decoder`` (when it was run) and
    ``base``.
    """
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

    The tables of the tokenizer are kept as they were made: every version of transformers reads
    them.
    """
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    pipeline.to(dtype=torch.float16).save_pretrained(temporary, safe_serialization=True)
    # Some versions of transformers load a text encoder in the type that stands here, the other
    # parts come in float32.
    config = temporary / "text_encoder" / "config.json"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('"float16"', '"float32"'), encoding="utf-8")
    shutil.rmtree(temporary / "tokenizer")
    shutil.copytree(tokenizer, temporary / "tokenizer")
    shutil.rmtree(folder, ignore_errors=True)
    move(temporary, folder)
