"""Where models are."""

from __future__ import annotations

FOLDERS: list[str] = []


def get_folder_paths(folder_name: str) -> list[str]:
    return list(FOLDERS) if folder_name == "hypernetworks" else []
