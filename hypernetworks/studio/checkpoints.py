"""The checkpoints that the Model tab offers: those of the user's folders, and the last ones."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from ..errors import CheckpointError, HypernetworkError
from ..files.naming import is_text
from ..files.writing import replace

SMALLEST = 300 << 20
"""Bytes of a checkpoint file: smaller ones are LoRAs, VAEs and the like."""
MOST_RECENT, MOST_SHOWN, DEEPEST = 8, 500, 4
_RECENT = "recent"


class Checkpoints:
    """What can be chosen without typing a path.

    Args:
        folders: of checkpoints, with their subfolders.
        memory: a file that remembers what was loaded last; ``None`` remembers nothing.
    """

    def __init__(self, folders: Sequence[Path] = (), memory: Path | None = None) -> None:
        self.folders, self._memory = tuple(folders), memory

    def choices(self, *, anywhere: bool) -> list[tuple[str, str]]:
        """Pairs of a label and a key; no key is a path that a page could change. What is no valid
        text is left out, since no page can show it.

        Args:
            anywhere: the page is open to other machines: only what is in the folders is shown.
        """
        recent = [] if anywhere else self._recent()
        found = [(f"{path.name} (recent)", f"{_RECENT}:{path}") for path in recent]
        for number, folder in enumerate(self.folders):
            for path in islice(_checkpoints(folder), MOST_SHOWN):
                relative = path.relative_to(folder).as_posix()
                found.append((relative, f"{number}:{relative}"))
        return found

    def path(self, key: str, *, anywhere: bool) -> Path:
        """The checkpoint of a key.

        Raises:
            CheckpointError: it is none of :meth:`choices`.
        """
        if key not in {known for _, known in self.choices(anywhere=anywhere)}:
            raise CheckpointError("this checkpoint is not there any more: choose another one")
        return self._path_of(key)

    def named(self, name: str, size: int, *, anywhere: bool) -> str | None:
        """The key of the file that has this name and size; ``None`` where there is none.

        A browser tells no more of a file that is dropped, and to copy gigabytes only to read them
        once would take longer than to look.
        """
        for _, key in self.choices(anywhere=anywhere):
            path = self._path_of(key)
            if path.name == name and path.is_file() and _size(path) == size:
                return key
        return None

    def _path_of(self, key: str) -> Path:
        """The path of a key that is known to be one."""
        number, _, rest = key.partition(":")
        return Path(rest) if number == _RECENT else self.folders[int(number)] / rest

    def remember(self, path: Path) -> None:
        """Put a checkpoint first among the last ones; that it can't be written matters little."""
        if self._memory is None:
            return
        whole = path.resolve()
        # The file is as of the last load of any studio: each one adds its own in front.
        names = [str(whole), *(str(one) for one in self._recent() if one != whole)][:MOST_RECENT]
        with suppress(OSError, HypernetworkError):
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(names, indent=1)
            replace(self._memory, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def _recent(self) -> list[Path]:
        """Those that are still there."""
        try:
            found = json.loads((self._memory or Path()).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return []
        names = [name for name in found if isinstance(name, str)] if isinstance(found, list) else []
        usable = filter(is_text, names[:MOST_RECENT])
        return [path for name in usable if _exists(path := Path(name))]


def name_and_size(said: str) -> tuple[str, int]:
    """What the page says of a file; an empty name, which no file has, for anything else."""
    try:
        name, size = json.loads(said)
    except (ValueError, TypeError, RecursionError):
        return "", 0
    return (name, size) if isinstance(name, str) and type(size) is int else ("", 0)


def how_to_open(name: str, anywhere: bool) -> str:
    """What to do about a checkpoint of which nobody knows where it is.

    Args:
        anywhere: the page is open to other machines.
    """
    if not name.lower().endswith(".safetensors"):
        return (
            f"{name} is a checkpoint in a format that can run code when it is opened: convert it "
            "to .safetensors first, for example with the Checkpoint Merger tab of a webui"
        )

    if anywhere:
        return (
            f"{name} is a checkpoint. With --listen, the page accepts none: start the studio with "
            "--checkpoint PATH, or offer those of a folder with --checkpoints DIR"
        )
    return (
        f"{name} is a checkpoint. A browser does not say where a file is, so paste its path above, "
        "and press Load. The studio finds the files of a folder by itself if it is started with "
        "--checkpoints DIR"
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _checkpoints(folder: Path) -> Iterator[Path]:
    """Checkpoint files, and folders of diffusers, below a folder."""
    for place, folders, files in os.walk(folder):
        here = Path(place)
        folders[:], files = filter(is_text, folders), list(filter(is_text, files))
        # A folder of diffusers is one checkpoint, whatever files are in it.
        if "model_index.json" in files:
            folders.clear()
            if here != folder:
                yield here
            continue

        folders.sort()
        # A folder such as the home folder would otherwise be walked through for minutes.
        if len(here.relative_to(folder).parts) >= DEEPEST:
            folders.clear()
        for name in sorted(files):
            if name.lower().endswith(".safetensors") and _size(here / name) >= SMALLEST:
                yield here / name


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
