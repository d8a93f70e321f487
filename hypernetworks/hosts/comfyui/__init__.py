"""ComfyUI: nodes that apply hypernetworks to a model, a part of its conditioning, or a prompt."""

from __future__ import annotations

from typing import Any

WEB_DIRECTORY = "./hypernetworks/hosts/comfyui/web"
"""Scripts and help pages for ComfyUI's page, relative to the project's folder."""

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]


async def comfy_entrypoint() -> Any:
    """Called by ComfyUI when it starts: the extension, with all nodes.

    Raises:
        ImportError: this ComfyUI is older than 0.3.51, and has no ``comfy_api.latest``.
    """
    try:
        from .extension import Extension
        from .page import serve
    except ImportError as error:
        # Anything else that is missing is a fault of ours, and must show as it is.
        if (error.name or "").split(".")[0] != "comfy_api":
            raise

        raise ImportError("the hypernetwork nodes need ComfyUI 0.3.51 or newer: update it") from (
            error
        )

    serve()
    return Extension()
