"""The bar on a node."""

from __future__ import annotations

from typing import Any


class ProgressBar:
    """A bar that nobody sees."""

    def __init__(self, total: int, node_id: Any = None) -> None:
        self.total, self.current = total, 0

    def update_absolute(self, value: int, total: int | None = None, preview: Any = None) -> None:
        self.current, self.total = value, total or self.total
