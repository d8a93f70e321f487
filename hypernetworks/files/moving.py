"""Moves finished files into place, even if another program has them open for a moment.

On Windows and on network drives, a file that a virus scanner, an indexer, a sync program or a
viewer has open can't be replaced, renamed or deleted. These programs close it within a second or
two, so the functions here wait for that.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

PAUSES = (0.01, 0.02, 0.04, 0.08, *[0.15] * 17)
"""Seconds between attempts; 2.7 in total."""
_IN_USE = (5, 32, 33)
"""Error numbers of Windows: access denied, sharing violation, lock violation."""


def patiently(act: Callable[[], Result]) -> Result:
    """Call ``act``, and repeat it for two to three seconds while another program has the file open.

    Raises:
        OSError: the last error; errors that waiting can't change, such as a full disk, at once.
    """
    for pause in PAUSES:
        try:
            return act()
        except OSError as error:
            if not _is_in_use(error):
                raise
        time.sleep(pause)

    return act()


def _is_in_use(error: OSError) -> bool:
    return isinstance(error, PermissionError) or getattr(error, "winerror", None) in _IN_USE


def move(source: Path, target: Path) -> None:
    """Give a finished file or folder its name, replacing a file of that name.

    Raises:
        OSError: the system refuses; ``source`` is where it was.
    """
    patiently(lambda: source.replace(target))


def move_to_free(source: Path, target: Path) -> None:
    """Give a finished file its name, unless the name is taken.

    Raises:
        FileExistsError: it is taken; ``source`` is where it was.
        OSError: the system refuses.
    """
    # A link fails if the name is taken, in one step; a test and then a move would be two.
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without links, or a file that another program has open
        if target.exists():
            raise FileExistsError(f"{target.name} already exists") from None
        move(source, target)
    else:
        remove(source)


def free(path: Path, suffix: str = "", before: str = "-") -> Path:
    """The path, or the first one with a number before its suffix that is not taken.

    Args:
        before: what stands before the number.
    """
    number, found = 2, path
    while found.exists():
        found = path.with_name(f"{path.name.removesuffix(suffix)}{before}{number}{suffix}")
        number += 1
    return found


def remove(path: Path) -> None:
    """Delete a temporary file; failing to do so is not an error."""
    with suppress(OSError):
        patiently(lambda: path.unlink(missing_ok=True))
