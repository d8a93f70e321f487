"""The node schema, as far as our nodes use it: a node's inputs and outputs are plain records."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class ComfyExtension:
    """A pack of nodes."""


class _Field:
    def __init__(self, kind: str, name: str = "", **options: Any) -> None:
        self.io_type, self.id, self.options = kind, name, options


class _Type:
    def __init__(self, kind: str) -> None:
        self._kind = kind

    def Input(self, id: str, **options: Any) -> _Field:  # noqa: A002, N802
        return _Field(self._kind, id, **options)

    def Output(self, id: str = "", **options: Any) -> _Field:  # noqa: A002, N802
        return _Field(self._kind, id, **options)


class Schema:
    """A node as its page shows it."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


class NodeOutput:
    """What a node returns."""

    def __init__(self, *args: Any, ui: Any = None) -> None:
        self.args, self.ui = args, ui


class ComfyNode:
    """A node."""

    hidden = SimpleNamespace(unique_id="7")


io = SimpleNamespace(
    ComfyNode=ComfyNode,
    Schema=Schema,
    NodeOutput=NodeOutput,
    Custom=_Type,
    Hidden=SimpleNamespace(unique_id="UNIQUE_ID"),
    **{
        name: _Type(name.upper())
        for name in (
            *("Model", "Conditioning", "Latent", "Vae", "Image"),
            *("String", "Float", "Int", "Combo"),
        )
    },
)
