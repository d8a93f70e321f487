"""Captions -> the UNet's conditions: long ones in parts, from an earlier layer if asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ....training.contexts import Condition
from ..prompt_encoding import comma_of, in_parts


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
        length: int = self.pipeline.tokenizer.model_max_length - 2
        return length * self.parts

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
        for text, ids in zip(texts, self._tokens(tokenizer, texts), strict=True):
            if len(in_parts(ids, tokenizer.model_max_length - 2, comma_of(tokenizer))) > self.parts:
                self.too_long = text
                return

    def _tokens(self, tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
        found = tokenizer(list(texts), truncation=False, verbose=False).input_ids
        return [ids[1:-1] for ids in found]

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
            ids = self._padded(tokenizer, texts)
            out = encoder(ids.flatten(0, 1).to(self.device), output_hidden_states=True)
            hidden = self._layer(encoder, out, is_xl=is_xl)
            rows = hidden.reshape(len(texts), -1, hidden.shape[-1])  # parts one after the other
            contexts.append(rows)
            if is_xl:  # the vector of the first part stands for the whole text
                pooled = out[0][:: self.parts]

        columns = {"context": torch.cat(contexts, -1)}
        if pooled is not None:
            columns["text_embeds"] = pooled
        return columns

    def _layer(self, encoder: Any, out: Any, *, is_xl: bool) -> torch.Tensor:
        """The states that the UNet reads: SDXL's are one layer earlier, and not normed."""
        if is_xl:
            hidden: torch.Tensor = out.hidden_states[-1 - self.clip_skip]
        elif self.clip_skip == 1:
            hidden = out[0]
        else:
            model = getattr(encoder, "text_model", encoder)
            hidden = model.final_layer_norm(out.hidden_states[-self.clip_skip])
        return hidden

    def _padded(self, tokenizer: Any, texts: Sequence[str]) -> torch.Tensor:
        """Token numbers ``(texts, parts, length)``; missing parts are those of an empty text."""
        length, rows = tokenizer.model_max_length, []
        begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
        for tokens in self._tokens(tokenizer, texts):
            parts = in_parts(tokens, length - 2, comma_of(tokenizer))[: self.parts]
            parts += [[]] * (self.parts - len(parts))
            rows.append(
                [
                    [begin, *part, end] + [tokenizer.pad_token_id] * (length - 2 - len(part))
                    for part in parts
                ]
            )
        return torch.tensor(rows)
