"""Where models are."""

from __future__ import annotations

from pathlib import Path

FOLDERS: list[str] = []
OTHER_FOLDERS: dict[str, str] = {}


def get_folder_paths(folder_name: str) -> list[str]:
    if folder_name in OTHER_FOLDERS:
        return [OTHER_FOLDERS[folder_name]]
    return list(FOLDERS) if folder_name == "hypernetworks" else []


def get_filename_list(folder_name: str) -> list[str]:
    return [
        path.name for folder in get_folder_paths(folder_name) for path in Path(folder).iterdir()
    ]


def get_full_path_or_raise(folder_name: str, filename: str) -> str:
    return str(Path(get_folder_paths(folder_name)[0], filename))
