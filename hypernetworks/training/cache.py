"""Latents and text encoder states on disk: the next run on the same images begins at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from ..errors import FileError, FileWriteError
from ..files.torch_files import read_plain
from ..files.writing import replace as replace_file
from .contexts import Condition
from .contexts import Encode as EncodeTexts
from .pictures import Encode

SAMPLED = 64
"""Numbers of each tensor that a fingerprint looks at."""


class Cache:
    """Files of tensors by the content that they were computed from.

    Args:
        folder: of all of them; made when the first one is written.
        model: fingerprint of what computes them.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self.folder = folder / model[:16]

    def get(self, key: str) -> dict[str, torch.Tensor] | None:
        """What was kept under a key; ``None`` where there is nothing, or it is damaged."""
        path = self.folder / f"{key}.pt"
        if not path.exists():
            return None
        try:
            found = read_plain(path)
        except (FileError, OSError, MemoryError):
            return None
        is_fine = isinstance(found, dict) and all(
            isinstance(value, torch.Tensor) for value in found.values()
        )
        return found if is_fine else None

    def put(self, key: str, tensors: dict[str, torch.Tensor]) -> None:
        """Keep tensors; where that is impossible, the next run encodes them again."""
        content = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
        with suppress(OSError, FileWriteError):
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_file(
                self.folder / f"{key}.pt", lambda temporary: torch.save(content, temporary)
            )

    def latents(self, encode: Encode) -> Encode:
        """The autoencoder, which is asked only for pixels that aren't kept."""

        def encoded(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
            # Pixels, not files: size, crop and mirroring are part of what was encoded.
            key = sha256(pixels.contiguous().numpy().tobytes())
            key.update(repr(tuple(pixels.shape)).encode())
            found = self.get(key.hexdigest())
            if found is None:
                mean, deviation = encode(pixels)
                found = {"mean": mean} | ({} if deviation is None else {"deviation": deviation})
                self.put(key.hexdigest(), found)
            return found["mean"], found.get("deviation")

        return encoded

    def texts(self, encode: EncodeTexts, how: str) -> EncodeTexts:
        """The text encoder, which is asked only for texts that aren't kept.

        Args:
            how: what else the states depend on, such as clip skip.
        """

        def encoded(texts: Sequence[str]) -> list[Condition]:
            keys = [sha256(f"{how}\n{text}".encode()).hexdigest() for text in texts]
            found: list[Condition | None] = [self.get(key) for key in keys]
            missing = [i for i, value in enumerate(found) if value is None]
            if missing:
                made = encode([texts[i] for i in missing])
                for i, condition in zip(missing, made, strict=True):
                    found[i] = condition
                    self.put(keys[i], dict(condition))
            return [value for value in found if value is not None]

        return encoded


def fingerprint(*modules: Any) -> str:
    """Of models, by a sample of each of their tensors; other weights have another one."""
    digest = sha256()
    for module in modules:
        for name, tensor in module.state_dict().items():
            # A sample is enough: other weights differ nearly everywhere.
            flat = tensor.detach().flatten()
            sample = flat[:: max(1, len(flat) // SAMPLED)].float().cpu()
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(sample.numpy().tobytes())
    return digest.hexdigest()
