"""The page of its own, on the miniature or on the user's checkpoint."""

from .web.server import build_app, launch

__all__ = ["build_app", "launch"]
