"""The settings section "Hypernetworks" of the webui, and typed readers of it and of the host's own
settings.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...library.folders import CACHE_BYTES

FOLDERS = "hypernetworks_folders"
FORCE_FAMILY = "hypernetworks_force_family"
CACHE_MB = "hypernetworks_cache_mb"
"""Keys in the host's settings file."""
_MEBIBYTE = 1 << 20


def register(on_folders_changed: Callable[[], object]) -> None:
    """Add our section; any number of times.

    Args:
        on_folders_changed: called when the user has changed the setting with folders.
    """
    from modules import shared

    for key, option in _options(on_folders_changed).items():
        shared.opts.add_option(key, option)
    restricted = getattr(shared, "restricted_opts", None)
    if isinstance(restricted, set):  # what --hide-ui-dir-config locks
        restricted.add(FOLDERS)


def _options(on_folders_changed: Callable[[], object]) -> dict[str, Any]:
    """Without component classes (those are gradio's): the host takes the one that fits the
    default's type.
    """
    from modules import shared
    from modules.options import OptionInfo

    def option(default: object, label: str, explanation: str, **more: Any) -> Any:
        section = ("hypernetworks", "Hypernetworks")
        return OptionInfo(default, label, section=section, category_id="sd", **more).info(
            explanation
        )

    visible = not getattr(shared.cmd_opts, "hide_ui_dir_config", False)
    return {
        FOLDERS: option(
            "",
            "Additional hypernetwork folders",
            (
                "one per line, or separated by ; (subfolders are searched too, and so is the "
                "webui's own folder)"
            ),
            component_args={"lines": 2, "visible": visible},
            onchange=on_folders_changed,
            restrict_api=True,  # who may only use the API must not point it at other folders
        ),
        FORCE_FAMILY: option(
            False,
            "Apply hypernetworks made for another model family",
            (
                "an SD1 network on SDXL changes only the few layers whose width happens to "
                "match; by default it is skipped"
            ),
        ),
        CACHE_MB: option(
            CACHE_BYTES // _MEBIBYTE,
            "Keep this many MiB of loaded hypernetworks in memory",
            "this includes everything prepared from them, on any device, so that switching between "
            "them reads no file; networks in use and the last one are always kept",
        ),
    }


def data_folder() -> Path:
    """The webui's data folder, as an absolute path.

    SD.Next names its folders from where it was started, and so does ``--data-dir``. Our commands
    run elsewhere, in processes of their own.
    """
    from modules import paths

    return Path(paths.data_path).absolute()


def extra_folders() -> tuple[Path, ...]:
    """The folders of our setting, as absolute paths; a relative one starts at the webui's data
    folder.
    """
    texts = [
        text.strip().strip("\"'").strip()
        for text in re.split("[;\n]", str(_read(FOLDERS, "") or ""))
    ]
    return tuple(data_folder() / os.path.expanduser(text) for text in texts if text)  # noqa: PTH111


def force_family() -> bool:
    """Whether networks of another model family are applied anyway, as far as their widths match."""
    return _read(FORCE_FAMILY, False) is True


def cache_bytes() -> int:
    """How much of loaded networks the library keeps, in bytes."""
    value = _read(CACHE_MB, None)
    if isinstance(value, (int, float)) and 0 <= value < float("inf"):
        return int(value * _MEBIBYTE)
    return CACHE_BYTES


def default_multiplier() -> float:
    """The host's "Default multiplier for extra networks", or 1."""
    value = _read("extra_networks_default_multiplier", 1.0)
    return float(value) if isinstance(value, (int, float)) else 1.0


def added_network() -> str | None:
    """The host's setting "Add hypernetwork to prompt" (A1111, Forge, reForge), or ``None``."""
    from modules import shared

    # Others hand out what is stored, as in a config.json that came from one of these, although
    # none of their settings could switch it off.
    if "sd_hypernetwork" not in getattr(shared.opts, "data_labels", ()):
        return None
    name = _read("sd_hypernetwork", None)
    return name if isinstance(name, str) and name not in ("", "None") else None


def is_remote() -> bool:
    """Whether other machines can use the webui's page, or its owner has locked its folders."""
    from modules import shared

    remote = ("hide_ui_dir_config", "share", "listen", "ngrok")
    return any(getattr(shared.cmd_opts, name, None) for name in remote)


def _read(key: str, default: object) -> Any:
    from modules import shared

    return getattr(shared.opts, key, default)
