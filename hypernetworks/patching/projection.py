"""``to_k`` or ``to_v`` of one attention module while networks act on it, by a hook on its input."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .seam import Seam


class Projection:
    """One projection of one attention module.

    Args:
        seam: what all of them share.
        index: number of the attention module.
        side: keys or values.
        kind: ``"cross"``, ``"self"`` or ``None``.
        module: ``to_k`` or ``to_v``.
    """

    def __init__(
        self, seam: Seam, index: int, side: int, kind: str | None, module: nn.Module
    ) -> None:
        self.seam, self.index, self.side, self.kind, self.module = seam, index, side, kind, module
        self.path = ""
        self._remover: torch.utils.hooks.RemovableHandle | None = None

    def install(self) -> None:
        """Act on the module."""
        self._remover = self.module.register_forward_pre_hook(self._before)

    def uninstall(self) -> None:
        """Leave it as it was."""
        if self._remover is not None:
            self._remover.remove()
            self._remover = None

    def changed(self, context: torch.Tensor) -> torch.Tensor:
        """The context with the networks in it, or itself."""
        changed = self.seam.changed(context, self.index, self.side, self.kind)
        self.path = "untouched" if changed is context else "input"
        return changed

    def _before(self, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        changed = self.changed(arguments[0])
        return None if changed is arguments[0] else (changed, *arguments[1:])
