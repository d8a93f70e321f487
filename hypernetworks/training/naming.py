"""Settings in messages, by the names that a user knows them by.

A message writes the name of a setting's field in backticks, such as "set more `steps`"; whoever
shows it puts an option of the command line or the label of a field in its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_SETTING = re.compile(r"`([a-z_]+)`")


def spelled(text: str, names: Mapping[str, str]) -> str:
    """The message with the user's names of the settings in it; unknown ones stay.

    Args:
        names: by field.
    """
    return _SETTING.sub(lambda match: names.get(match[1], match[0]), text)
