"""Captions -> the UNet's conditions: long ones in parts, from an earlier layer if asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ....training.contexts import Condition
from ..prompt_encoding import comma_of, in_parts, padded, room_of, states_of, tokens_of


class TextEncoding:
    """The text encoders of a pipeline of SD1, SD2, SDXL or the miniature.

    Args:
        pipeline: with its encoders on ``device`` whenever :meth:`encode` is called.
        parts: every caption is encoded in so many parts, so that contexts of a batch are of one
            length.
        clip_skip: as in AUTOMATIC1111: 1 for the last layer, 2 for the one before.
    """

    def __init__(
        self, pipeline: Any, device: torch.device, parts: int = 1, clip_skip: int = 1
    ) -> None:
        self.pipeline, self.device, self.parts, self.clip_skip = pipeline, device, parts, clip_skip
        self.too_long: str | None = None
        """A text whose end is not read, if there was one."""

    @property
    def most_tokens(self) -> int:
        """What is read of a text, the first and last token of each part not counted."""
        return room_of(self.pipeline.tokenizer) * self.parts

    def encode(self, texts: Sequence[str]) -> list[Condition]:
        """The conditions of each text, fp32 on the CPU."""
        self._note_too_long(texts)
        usual = self.parts == 1 and self.clip_skip == 1
        columns = self._at_once(texts) if usual else self._in_parts(texts)
        rows = {key: value.float().cpu() for key, value in columns.items()}
        return [{key: value[i] for key, value in rows.items()} for i in range(len(texts))]

    def _note_too_long(self, texts: Sequence[str]) -> None:
        if self.too_long is not None:
            return
        tokenizer = self.pipeline.tokenizer
        for text, ids in zip(texts, tokens_of(tokenizer, texts), strict=True):
            if len(in_parts(ids, room_of(tokenizer), comma_of(tokenizer))) > self.parts:
                self.too_long = text
                return

    def _at_once(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        made = self.pipeline.encode_prompt(
            prompt=list(texts),
            device=self.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        columns = {"context": made[0]}
        if len(made) == 4:  # SDXL: also one vector for the whole text
            columns["text_embeds"] = made[2]
        return columns

    def _in_parts(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        pipeline = self.pipeline
        pairs = [(pipeline.tokenizer, pipeline.text_encoder)]
        if is_xl := getattr(pipeline, "text_encoder_2", None) is not None:
            pairs.append((pipeline.tokenizer_2, pipeline.text_encoder_2))

        # SDXL reads two encoders side by side: their states are joined feature by feature.
        contexts, pooled = list[torch.Tensor](), None
        for tokenizer, encoder in pairs:
            ids = self._padded(tokenizer, texts).flatten(0, 1).to(self.device)
            hidden, vectors = states_of(encoder, ids, is_sdxl=is_xl, clip_skip=self.clip_skip)
            contexts.append(hidden.reshape(len(texts), -1, hidden.shape[-1]))  # parts in a row
            if vectors is not None:  # that of the first part stands for the whole text
                pooled = vectors[:: self.parts]

        columns = {"context": torch.cat(contexts, -1)}
        if pooled is not None:
            columns["text_embeds"] = pooled
        return columns

    def _padded(self, tokenizer: Any, texts: Sequence[str]) -> torch.Tensor:
        """Token numbers ``(texts, parts, length)``; missing parts are those of an empty text."""
        rows = []
        for tokens in tokens_of(tokenizer, texts):
            parts = in_parts(tokens, room_of(tokenizer), comma_of(tokenizer))[: self.parts]
            parts += [[]] * (self.parts - len(parts))
            rows.append([padded(tokenizer, part) for part in parts])
        return torch.tensor(rows)
