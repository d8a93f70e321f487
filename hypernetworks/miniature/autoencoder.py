"""Training of the miniature's autoencoder (diffusers' AutoencoderTiny): 96x96 pictures <-> 12x12x8
latents.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import nn

from .rendering import SIZE, styled
from .subjects import COLOURS, STYLES

LATENT_CHANNELS = 8
WIDTH = 48


def build() -> AutoencoderTiny:
    """A fresh autoencoder with about 0.9 million parameters that downsamples by eight."""
    return AutoencoderTiny(
        latent_channels=LATENT_CHANNELS,
        encoder_block_out_channels=(WIDTH,) * 4,
        decoder_block_out_channels=(WIDTH,) * 4,
        num_encoder_blocks=(0, 1, 2, 3),
        num_decoder_blocks=(3, 3, 2, 0),
    )


class PictureSource:
    """Random training pictures: any subject in any style on a random background, slightly shifted.

    Args:
        pictures: RGBA uint8 ``(styles, subjects, SIZE, SIZE, 4)``.
    """

    def __init__(self, pictures: np.ndarray) -> None:
        self.pictures = torch.from_numpy(pictures).flatten(0, 1).permute(0, 3, 1, 2).contiguous()
        self.colours = torch.tensor(list(COLOURS.values()), dtype=torch.float32)

    def batch(self, size: int, generator: torch.Generator, shift: int = 4) -> torch.Tensor:
        """RGB ``(size, 3, SIZE, SIZE)`` in [-1, 1]; a quarter of the backgrounds are unnamed
        colours.
        """
        which = torch.randint(len(self.pictures), (size,), generator=generator)
        chosen = self.pictures[which].float() / 255

        # Unnamed colours as well, so that the decoder isn't limited to the eight that have names.
        named = self.colours[torch.randint(len(self.colours), (size,), generator=generator)] / 255
        free = torch.rand(size, 3, generator=generator)
        ground = torch.where(torch.rand(size, 1, generator=generator) < 0.25, free, named)

        rgb, alpha = chosen[:, :3], chosen[:, 3:]
        laid = rgb * alpha + ground[:, :, None, None] * (1 - alpha)

        dx, dy = torch.randint(-shift, shift + 1, (2,), generator=generator).tolist()
        padded = F.pad(laid, (shift,) * 4, mode="replicate")
        return padded[:, :, shift + dy :, shift + dx :][:, :, :SIZE, :SIZE] * 2 - 1


def _edges(picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return picture[..., 1:] - picture[..., :-1], picture[..., 1:, :] - picture[..., :-1, :]


def reconstruction_loss(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of the pixels and of their edges, which keeps outlines sharp."""
    loss = F.l1_loss(made, wanted) + 0.5 * F.mse_loss(made, wanted)
    for ours, theirs in zip(_edges(made), _edges(wanted), strict=True):
        loss = loss + 0.5 * F.l1_loss(ours, theirs)
    return loss


Loss = Callable[[nn.Module, torch.Generator, int], torch.Tensor]


def loss_function(source: PictureSource, batch_size: int) -> Loss:
    """The loss of one step: reconstruction from slightly noisy latents, and a prior on the latents.

    The prior draws each channel to mean 0 and standard deviation 1, which the diffusion expects.
    """

    def loss_of(module: nn.Module, generator: torch.Generator, step: int) -> torch.Tensor:
        pictures = source.batch(batch_size, generator).contiguous(memory_format=torch.channels_last)
        latents = module.encode(pictures).latents  # type: ignore[operator]
        centred = latents.float()
        spread = centred.std((0, 2, 3))
        prior = centred.mean((0, 2, 3)).square().mean() + (spread - 1).square().mean()
        # The UNet's latents are never exact, so the decoder must cope with small errors.
        noise = torch.randn(latents.shape, generator=generator) * 0.08
        made = module.decode(latents + noise).sample  # type: ignore[operator]
        loss: torch.Tensor = reconstruction_loss(made.float(), pictures) + 0.02 * prior
        return loss

    return loss_of


def train(pictures: np.ndarray, folder: Path, steps: int, batch_size: int = 32) -> AutoencoderTiny:
    """Train from scratch or from the checkpoint in ``folder``; returns the averaged model."""
    from .running import run

    torch.manual_seed(0)  # for the initial weights; the batches have a generator of their own
    module = build().to(memory_format=torch.channels_last)
    run(
        module,
        loss_function(PictureSource(pictures), batch_size),
        steps,
        folder,
        rate=1.5e-3,
        bf16=True,
    )
    return module


def decoder_loss_function(latents: torch.Tensor, pictures: torch.Tensor, batch_size: int) -> Loss:
    """The loss of one step of the decoder alone, on fixed latents with a little noise.

    Args:
        latents: of every picture, ``(count, 8, 12, 12)``.
        pictures: RGB uint8 ``(count, 3, SIZE, SIZE)``.
    """

    def loss_of(module: nn.Module, generator: torch.Generator, step: int) -> torch.Tensor:
        which = torch.randint(len(latents), (batch_size,), generator=generator)
        noise = torch.randn((batch_size, *latents.shape[1:]), generator=generator)
        strength = torch.rand(batch_size, 1, 1, 1, generator=generator) * 0.15
        made = module(
            (latents[which] + strength * noise).contiguous(memory_format=torch.channels_last)
        )
        wanted = pictures[which].float() / 127.5 - 1
        return reconstruction_loss(made.float(), wanted)

    return loss_of


def train_decoder(
    vae: AutoencoderTiny, pictures: np.ndarray, folder: Path, steps: int, batch_size: int = 32
) -> AutoencoderTiny:
    """Train the decoder further, in place, with the encoder (and so all latents) fixed.

    It can run at any time after :func:`train`, because nothing else depends on the decoder.
    """
    from .rendering import styled
    from .running import run

    latents, wanted = [], []
    for style in STYLES:
        for colour, encoded in encode_pictures(vae, pictures, style).items():
            latents.append(encoded)
            wanted.append(torch.from_numpy(styled(pictures, style, colour)).permute(0, 3, 1, 2))

    decoder = vae.decoder.to(memory_format=torch.channels_last)
    loss_of = decoder_loss_function(torch.cat(latents), torch.cat(wanted), batch_size)
    run(decoder, loss_of, steps, folder, rate=1e-3, bf16=True)
    return vae


@torch.no_grad()
def encode_pictures(
    vae: AutoencoderTiny, pictures: np.ndarray, style: str
) -> dict[str, torch.Tensor]:
    """Latents ``(subjects, 8, 12, 12)`` of one style, by background colour.

    Args:
        pictures: RGBA uint8 ``(styles, subjects, SIZE, SIZE, 4)``.
    """
    latents = {}
    for colour in COLOURS:
        rgb = (
            torch.from_numpy(styled(pictures, style, colour)).permute(0, 3, 1, 2).float() / 127.5
            - 1
        )
        latents[colour] = torch.cat([vae.encode(chunk).latents for chunk in torch.split(rgb, 32)])

    return latents
