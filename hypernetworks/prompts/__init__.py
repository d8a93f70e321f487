"""Tags and infotexts, parsed and written. Standard library only."""

from .infotext import format_infotext, parse_infotext
from .tags import Tag, parse

__all__ = ["Tag", "format_infotext", "parse", "parse_infotext"]
