"""A diffusers model as training sees it: frozen UNet, encoders that are at hand only when they are
needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ....devices import empty_cache, name_of
from ....errors import TrainingSettingsError
from ....patching import find_sites
from ....patching.sites import CROSS, SELF
from ....training import Batch, NoiseSchedule
from ....training.contexts import Condition
from .memory import Plan, free_bytes, needs, plan
from .precision import DTYPES, computed_in, cpu_has_bf16, in_fp32, quick_on_cpu
from .stored import FP8, WHOLE, has_fp8, stored
from .texts import TextEncoding

ENCODERS = ("text_encoder", "text_encoder_2", "vae")
"""Parts of a pipeline that training needs only now and then."""
TEXTS_AT_ONCE = 32
LARGE_MAP = 2048
"""Latent pixels from which torch's fused attention is as fast on a CPU as plain products, and needs
far less memory.
"""


class FrozenModel:
    """A pipeline of SD1, SD2, SDXL or the miniature, to train on.

    Args:
        pipeline: loaded; nothing of it is changed but inside :meth:`ready`.
        max_tokens: longest caption that is read; 0 for what the model reads at once.
        clip_skip: as in AUTOMATIC1111; 1 is the text encoder's last layer.
    """

    def __init__(self, pipeline: Any, *, max_tokens: int = 0, clip_skip: int = 1) -> None:
        self.pipeline, self.unet = pipeline, pipeline.unet
        self.device: torch.device = next(self.unet.parameters()).device
        self._is_quick = False
        length = pipeline.tokenizer.model_max_length - 2
        parts = max(1, math.ceil(max_tokens / length))
        self.texts = TextEncoding(pipeline, self.device, parts, clip_skip)
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        config = pipeline.scheduler.config
        self.schedule = NoiseSchedule(
            torch.as_tensor(pipeline.scheduler.alphas_cumprod).float().cpu(),
            config.get("prediction_type", "epsilon"),
        )

    def widths(self, self_attention: bool = True) -> tuple[int, ...]:
        """Context widths of the UNet: of cross-attention, and of self-attention if asked."""
        sites = find_sites(self.unet)
        return tuple(
            sorted(
                {
                    s.width
                    for s in sites
                    if s.width is not None and (self_attention or s.kind != SELF)
                }
            )
        )

    def precision(self, asked: str) -> str:
        """What ``"auto"`` means here: the UNet's own type; on a CPU that computes in bf16, that."""
        if asked != "auto":
            return asked
        if self.device.type == "cpu" and cpu_has_bf16():
            return "bf16"
        return next((name for name, dtype in DTYPES.items() if dtype == self.unet.dtype), "fp32")

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> list[Condition]:
        """The UNet's conditions for each text, on the CPU; the text encoder is on its device only
        meanwhile.
        """
        found: list[Condition] = []
        with self.at_hand("text_encoder", "text_encoder_2"):
            for begin in range(0, len(texts), TEXTS_AT_ONCE):
                found += self.texts.encode(texts[begin : begin + TEXTS_AT_ONCE])

        return found

    @torch.no_grad()
    def encode_pixels(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Means and, if it has them, deviations of the latents of ``(batch, 3, height, width)`` in
        [-1, 1], on the CPU.

        In fp32, as SDXL's autoencoder overflows in fp16.
        """
        vae = self.pipeline.vae
        with self.at_hand("vae"), in_fp32(vae):
            encoded = vae.encode(pixels.to(self.device, torch.float32))
        factor = vae.config.scaling_factor
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        if hasattr(encoded, "latents"):  # the tiny autoencoder has no spread
            return encoded.latents.cpu(), None

        # The mean is what the image is; the spread is drawn anew for each sample, if asked.
        distribution = encoded.latent_dist
        return ((distribution.mean - shift) * factor).cpu(), (distribution.std * factor).cpu()

    def predict(self, noisy: torch.Tensor, times: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The UNet's prediction, in its own type; in fp32 where autocast says what is computed in
        which.
        """
        dtype = torch.float32 if self._is_quick else self.unet.dtype
        # Text embeddings are floats; sizes are whole numbers, which half precision would round.
        added = {k: v.to(dtype) if v.is_floating_point() else v for k, v in batch.added.items()}
        if added:  # SDXL is told the size of the image, what of it this is, and the size of that
            size = torch.tensor([8 * edge for edge in noisy.shape[-2:]], device=noisy.device)
            size = size.expand(len(noisy), 2)
            whole = torch.cat([size, torch.zeros_like(size)], 1)
            added["time_ids"] = torch.cat([added.pop("frame", whole), size], 1)

        prediction: torch.Tensor = self.unet(
            noisy.to(dtype),
            times,
            batch.context.to(dtype),
            added_cond_kwargs=added or None,
        ).sample
        return prediction

    @contextmanager
    def ready(
        self,
        precision: str = "fp32",
        *,
        size: tuple[int, int] = (512, 512),
        keep: bool = True,
        storage: str = WHOLE,
    ) -> Iterator[None]:
        """The UNet is frozen and the encoders are away; afterwards all is as it was.

        Args:
            precision: what the run computes in, not ``"auto"``.
            size: width and height of the images, or others of the same area.
            keep: whether the weights must come back exactly; ``False`` needs less memory on the CPU
                in bf16.
            storage: of the UNet's weights meanwhile, see :mod:`.stored`.
        """
        # Everything that is changed here is noted first, as it must come back.
        live = [p for p in self.unet.parameters() if p.requires_grad]
        processors, checkpointing = (
            dict(self.unet.attn_processors),
            self.unet.is_gradient_checkpointing,
        )
        was_training = self.unet.training
        self.unet.eval().requires_grad_(False)
        # Images and captions are encoded by then or a few at a time: their memory is the UNet's.
        self._send("cpu", ENCODERS)
        self.use_fast_attention(size)
        dtype = torch.float32 if self.device.type == "cpu" else DTYPES[precision]

        try:
            with (
                computed_in(self.unet, dtype, keep=keep, aside=storage != WHOLE),
                quick_on_cpu(self.unet, precision, keep=keep) as quick,
                stored(self.unet, storage, keep=keep),
            ):
                empty_cache(self.device)
                self._is_quick = quick
                yield
        finally:
            self._is_quick = False
            while self._hooks:
                self._hooks.pop().remove()
            for parameter in live:
                parameter.requires_grad_(True)
            self.unet.set_attn_processor(processors)
            if not checkpointing:
                self.unet.disable_gradient_checkpointing()
            self.unet.train(was_training)
            self._send(self.device, ENCODERS)

    def plan(
        self,
        precision: str,
        parameters: int,
        batch: int,
        size: tuple[int, int],
        memory: str,
        checkpointing: str,
    ) -> Plan:
        """How training fits into the memory that the device has now; nothing is changed.

        Args:
            precision: what the run computes in, not ``"auto"``.
            parameters: of the hypernetwork.
            batch: images at once in this process.
            size: width and height of the images, or others of the same area.
            memory, checkpointing: what was asked for, see :func:`.memory.plan`.

        Raises:
            TrainingSettingsError: the device has no fp8.
        """
        if memory == FP8 and not has_fp8(self.device):
            raise TrainingSettingsError(
                f"{name_of(self.device)} has no fp8: use streamed, or a smaller batch or size"
            )

        dtype = torch.float32 if self.device.type == "cpu" else DTYPES[precision]
        free = free_bytes(self.device)
        if free is not None:  # all of the pipeline makes room, but for what training needs
            free += sum(
                p.numel() * p.element_size()
                for name in ("unet", *ENCODERS)
                if (part := getattr(self.pipeline, name, None)) is not None
                for p in part.parameters()
                if p.device == self.device
            )
        return plan(needs(self.unet, dtype, parameters, batch, [size]), free, memory, checkpointing)

    def use_fast_attention(self, size: tuple[int, int]) -> None:
        """On the CPU, the backward of torch's fused attention is half as fast as plain products on
        small maps.
        """
        from diffusers.models.attention_processor import AttnProcessor

        if self.device.type == "cpu" and size[0] * size[1] < 64 * LARGE_MAP:
            self.unet.set_attn_processor(AttnProcessor())

    @contextmanager
    def at_hand(self, *names: str) -> Iterator[None]:
        """Encoders are on the model's device inside; afterwards, where they were."""
        parts = [
            part
            for name in names or ENCODERS
            if (part := getattr(self.pipeline, name, None)) is not None
        ]
        before = [next(part.parameters()).device for part in parts]
        for part in parts:
            part.to(self.device)

        try:
            yield
        finally:
            for part, device in zip(parts, before, strict=True):
                part.to(device)

    def _send(self, device: torch.device | str, names: Sequence[str]) -> None:
        for name in names:
            if (part := getattr(self.pipeline, name, None)) is not None:
                part.to(device)
        empty_cache(self.device)

    def save_memory(self) -> bool:
        """Turn on gradient checkpointing; returns whether it was off before."""
        if self.unet.is_gradient_checkpointing:
            return False
        self.unet.enable_gradient_checkpointing()
        self._own_contexts()
        empty_cache(self.device)
        return True

    def _own_contexts(self) -> None:
        """Give every cross-attention a view of the context of its own, so that each computes what
        it needs itself.

        What one layer remembers for the next would be missing when a block is computed for the
        second time, alone.
        """

        def own(
            module: object, inputs: tuple[Any, ...], named: dict[str, Any]
        ) -> tuple[Any, dict[str, Any]]:
            context = named.get("encoder_hidden_states")
            return inputs, named if context is None else {
                **named,
                "encoder_hidden_states": context.view_as(context),
            }

        for site in find_sites(self.unet):
            if site.kind == CROSS:
                attention = self.unet.get_submodule(site.path)
                self._hooks.append(attention.register_forward_pre_hook(own, with_kwargs=True))

    def check_size(self, width: int, height: int, step: int) -> None:
        """Raises TrainingSettingsError where the UNet can't take images of this size."""
        if width % step or height % step:
            raise TrainingSettingsError(
                f"the size {width}x{height} is not possible: use multiples of {step}",
                setting="size",
            )
