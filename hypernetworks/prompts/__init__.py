"""Text <-> tags. Needs nothing but the standard library."""

from .infotext import format_infotext, parse_infotext
from .tags import Tag, parse

__all__ = ["Tag", "format_infotext", "parse", "parse_infotext"]
