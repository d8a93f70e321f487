"""What ComfyUI loads where this project is in its ``custom_nodes``; see docs/comfyui.md."""

from .hypernetworks.hosts.comfyui import WEB_DIRECTORY, comfy_entrypoint

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
