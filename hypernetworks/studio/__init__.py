"""The page of its own, on the miniature or on the user's checkpoint."""

from .server import build_app, launch

__all__ = ["build_app", "launch"]
