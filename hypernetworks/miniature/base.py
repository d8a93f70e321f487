"""Training of the miniature's text encoder and UNet, on the latents of the flat images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .autoencoder import LATENT_CHANNELS, encode_pictures
from .rendering import SIZE
from .subjects import COLOURS, is_held_out_pair, subject_names, varied_caption

TEXT_WIDTH = 192
TEXT_LENGTH = 32
CHANNELS = (96, 160)
VOCABULARY = 1200


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """The CLIP tokenizer in ``folder``; if there is none, a byte-level BPE trained on the captions.

    A tokenizer must be kept with the weights that were trained with it: merges of equal count come
    in a different order each time, so another training gives some words other ids.
    """
    if (folder / "tokenizer_config.json").exists():  # written last
        return CLIPTokenizer.from_pretrained(folder)
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        end_of_word_suffix="</w>",
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    words = sorted(
        {w for n in subject_names() for w in n.split("-")} | set(COLOURS) | {"background"}
    )
    tokenizer.train_from_iterator([*words, "a", "an", "on"] * 4, trainer)

    # CLIP's order: the alphabet, the same at the end of a word, merges, and the special tokens.
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary: dict[str, int] = {}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    for token in [
        *alphabet,
        *(a + "</w>" for a in alphabet),
        *model["vocab"],
        "<|startoftext|>",
        "<|endoftext|>",
    ]:
        vocabulary.setdefault(token, len(vocabulary))
    merges = [" ".join(m) if isinstance(m, list) else m for m in model["merges"]]

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8"
    )
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": TEXT_LENGTH,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    # Last, because its presence means that the folder is complete.
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder)


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A fresh CLIP text model of about 1.6 M parameters."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=3,
            max_position_embeddings=TEXT_LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_unet() -> UNet2DConditionModel:
    """A fresh UNet of about 7 M parameters with attention on both levels."""
    return UNet2DConditionModel(
        sample_size=SIZE // 8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=[c // 32 for c in CHANNELS],
        norm_num_groups=16,
    )


def build_scheduler() -> DDIMScheduler:
    """v-prediction with scaled-linear betas that end in pure noise (zero terminal SNR)."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",  # sampling must start at the last step, which is pure noise
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


class TextToLatent(nn.Module):
    """Text encoder and UNet as one module, so that one optimizer trains both."""

    def __init__(self, text_encoder: CLIPTextModel, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.text_encoder, self.unet = text_encoder, unet

    def forward(
        self, noisy: torch.Tensor, times: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        """Predicted velocity ``(batch, 8, 12, 12)`` for token ids ``(batch, TEXT_LENGTH)``."""
        context = self.text_encoder(tokens).last_hidden_state
        velocity: torch.Tensor = self.unet(noisy, times, context).sample
        return velocity


def loss_function(
    latents: dict[str, torch.Tensor], tokenizer: CLIPTokenizer, batch_size: int
) -> Callable[[nn.Module, torch.Generator, int], torch.Tensor]:
    """Mean squared error of the velocity, on random pairs that aren't kept for measuring."""
    names, scheduler = subject_names(), build_scheduler()
    pairs = [(i, n, c) for i, n in enumerate(names) for c in COLOURS if not is_held_out_pair(n, c)]

    def loss_of(module: nn.Module, generator: torch.Generator, step: int) -> torch.Tensor:
        picks = torch.randint(len(pairs), (batch_size,), generator=generator).tolist()
        random = Random(int(torch.randint(2**31, (1,), generator=generator)))
        rows = [pairs[p] for p in picks]
        # Empty captions teach the unconditional prediction that classifier-free guidance needs.
        texts = ["" if random.random() < 0.1 else varied_caption(n, c, random) for _, n, c in rows]
        tokens = tokenizer(
            texts,
            padding="max_length",
            truncation=True,
            max_length=TEXT_LENGTH,
            return_tensors="pt",
        ).input_ids

        clean = torch.stack([latents[c][i] for i, _, c in rows])
        noise = torch.randn(clean.shape, generator=generator)
        times = torch.randint(1000, (batch_size,), generator=generator)
        noisy = scheduler.add_noise(clean, noise, times)
        velocity = scheduler.get_velocity(clean, noise, times)

        return nn.functional.mse_loss(module(noisy, times, tokens).float(), velocity)

    return loss_of


def train(
    vae: AutoencoderTiny, pictures: np.ndarray, folder: Path, steps: int, batch_size: int = 64
) -> TextToLatent:
    """Train on the flat images, from scratch or from the checkpoint in ``folder``."""
    from .running import run

    torch.manual_seed(0)
    tokenizer = build_tokenizer(folder / "tokenizer")
    module = TextToLatent(build_text_encoder(tokenizer), build_unet())
    module.unet.to(memory_format=torch.channels_last)

    # The backward pass of torch's fused attention is half as fast on a CPU.
    module.text_encoder.set_attn_implementation("eager")
    module.unet.set_attn_processor(AttnProcessor())
    loss_of = loss_function(encode_pictures(vae, pictures, "flat"), tokenizer, batch_size)
    run(module, loss_of, steps, folder, rate=1e-3, bf16=True, save_every=500)
    return module
