"""Detects non-finite images, which half precision produces on some cards (GTX 16xx) and with some
models (SD2).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class NotFiniteError(Exception):
    """The latents or the image contain NaN or infinite values."""


class Finite:
    """What :func:`watched` found.

    Attributes:
        raises: whether the first number that isn't finite ends the job.
        found: whether there was one.
    """

    def __init__(self, *, raises: bool) -> None:
        self.raises, self.found = raises, False

    def check(self, *tensors: torch.Tensor) -> None:
        """Look at tensors.

        Raises:
            NotFiniteError: where that is asked for.
        """
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
            self.found = True
            if self.raises:
                raise NotFiniteError


@contextmanager
def watched(vae: Any, *, raises: bool) -> Iterator[Finite]:
    """Checks the decoder's input and output inside the context.

    Numbers that aren't finite become black, so that nothing after it stumbles over them.
    """
    finite = Finite(raises=raises)

    def look(module: object, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        finite.check(*inputs[:1], output)
        return output.nan_to_num(-1.0, 1.0, -1.0) if finite.found else output

    hook = vae.decoder.register_forward_hook(look)
    try:
        yield finite
    finally:
        hook.remove()
