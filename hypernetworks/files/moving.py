"""Moves finished files into place, also where another program looks at them for a moment.

On Windows, and on network drives, a file that a virus scanner, an indexer, a synchronising program
or a viewer has open can't be replaced, renamed or deleted. They let go within a second or two, so
that is waited for.
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
"""Seconds between the attempts: 2.7 in all."""
_IN_USE = (5, 32, 33)
"""Windows' own numbers: access denied, sharing violation, lock violation."""


def patiently(act: Callable[[], Result]) -> Result:
    """Do what the system may refuse while another program has the file open; try again for two to
    three seconds.

    Raises:
        OSError: the last refusal, or at once what waiting can't change, such as a full disk.
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
    """Give a finished file or folder its name; a file of that name is replaced.

    Raises:
        OSError: it can't be; ``source`` is where it was.
    """
    patiently(lambda: source.replace(target))


def move_to_free(source: Path, target: Path) -> None:
    """Give a finished file its name, unless something has it already.

    Raises:
        FileExistsError: something has; ``source`` is where it was.
        OSError: the system refuses.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without links, or a file that is looked at
        if target.exists():
            raise FileExistsError(f"{target.name} already exists") from None
        move(source, target)
    else:
        remove(source)


def remove(path: Path) -> None:
    """Delete a temporary file.

    Failing to do so is not an error: the work in progress matters more.
    """
    with suppress(OSError):
        patiently(lambda: path.unlink(missing_ok=True))
