"""A small stand-in for ComfyUI's package of that name."""
