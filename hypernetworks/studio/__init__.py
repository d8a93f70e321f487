"""The page of its own, on the miniature or on the user's checkpoint."""

from .page import build_page, launch

__all__ = ["build_page", "launch"]
