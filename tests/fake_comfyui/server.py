"""What nodes tell the page."""

from __future__ import annotations


class PromptServer:
    """The server."""

    instance: PromptServer

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def send_progress_text(self, text: str, node_id: str) -> None:
        self.told.append((node_id, text))


PromptServer.instance = PromptServer()
