"""Writes hypernetworks as ``.pt``, which every webui reads, or as ``.safetensors``.

Every file is written under a temporary name first.
"""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
import shutil
import stat
import struct
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ..engine.network import Hypernetwork
from ..engine.structure import StateDict
from ..errors import FileWriteError, printable
from . import safetensors_files
from .moving import move, patiently, remove
from .naming import as_path
from .opened import shown
from .pickles import STORAGE_DTYPES
from .portable import portable

ALIGNMENT = 64
"""Tensors start at multiples of this many bytes in the file, so that other programs can map it."""
_MEMBERS = re.compile(r"[^/]+/(data/\d+|version|data\.pkl)")
"""Zip members that AUTOMATIC1111 1.10.1 accepts. Newer torch writes others too, which can be left
out.
"""


def write(network: Hypernetwork, path: str | os.PathLike[str]) -> None:
    """Write a network as ``.pt`` (for AUTOMATIC1111 1.10.1 and others) or ``.safetensors``.

    The suffix decides. Tensors keep their dtype; types that the format can't hold (8 bits in a
    ``.pt``) become float16, with a warning in the log. The file is written under a temporary name
    and then renamed, so it is never incomplete. docs/files.md describes the layout.

    Raises:
        FileWriteError: another suffix, a missing folder, a full disk, no permission; an existing
            file is untouched.
    """
    path = as_path(path, 'write(network, "ink.pt")')
    tensors: dict[int, tuple[StateDict, StateDict]] = {
        dim: (key.state_dict(), value.state_dict())
        for dim, (key, value) in sorted(network.pairs.items())
    }
    metadata = _metadata(network, path.stem)

    if path.suffix == ".safetensors":
        tensors = portable(tensors, safetensors_files.DTYPES.values())
        replace(path, lambda temporary: safetensors_files.save(temporary, tensors, metadata))
    elif path.suffix == ".pt":
        tensors = portable(tensors, STORAGE_DTYPES.values())
        replace(path, lambda temporary: _save_torch(temporary, tensors, metadata))
    else:
        raise FileWriteError(
            f'{shown(path)}: the suffix "{printable(path.suffix)}" can\'t be written, use .pt or '
            ".safetensors"
        )


def replace(path: Path, save: Callable[[Path], object]) -> None:
    """Let ``save`` write a temporary file beside ``path``, flush it to the disk, and rename it.

    Whenever the process ends, either the old or the new file is there, complete. The folder isn't
    flushed, so after a power failure the old file may be back. On Windows, a file that another
    program has open can't be replaced; this waits two to three seconds for it. Temporary files that
    killed processes have left in the folder are removed after a day.

    Raises:
        FileWriteError: the system refuses; ``path`` is untouched, and no temporary file is left.
    """
    if "\0" in str(path):
        raise FileWriteError(f"{shown(path)}: a file name can't contain null characters")

    temporary: Path | None = None
    try:
        if path.is_symlink():  # the link stays, and points to the new file
            path = Path(os.path.realpath(path))

        mode = path.stat().st_mode & 0o777 if path.exists() else None
        _sweep(path.parent)
        temporary = _new_file(path.parent, 0o666 if mode is None else 0o600)
        save(temporary)
        _flush(temporary)
        move(temporary, path)
        temporary = None
        if mode is not None:
            # Not before: on Windows a read-only file can't be moved over, or deleted.
            with suppress(OSError):  # network drives often know no modes
                path.chmod(mode)
    except Exception as error:
        reason = _read_only(path) or _reason(error, path.parent)
        if reason is None:
            raise
        raise FileWriteError(f"{shown(path)}: it can't be written ({reason})") from error
    finally:
        if temporary is not None:
            remove(temporary)


def _flush(path: Path) -> None:
    """Flush a file's content to the disk, if the file system can do that."""
    with patiently(lambda: path.open("rb+")) as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:  # some network drives can't
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
                raise


def _new_file(folder: Path, mode: int) -> Path:
    """Create an empty file with a new name; the system applies the user's umask to the mode."""
    path = folder / f".writing-{secrets.token_hex(8)}.tmp"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    return path


def _reason(error: Exception, folder: Path) -> str | None:
    """Why the system refused, even if a library wrapped its error; ``None`` for other errors."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return _of_system(cause, folder)
        if any(mark in str(cause) for mark in _SAID_BY_LIBRARIES):
            return f"the disk is full, or accepts no more data{_room(folder)}"
        cause = cause.__cause__ or cause.__context__
    return None


def _read_only(path: Path) -> str | None:
    """On Windows, a file with that attribute can't be replaced, and the system only denies
    access.
    """
    try:
        is_locked = os.name == "nt" and not path.stat().st_mode & stat.S_IWRITE
    except OSError:
        return None
    return "it is read-only: take that attribute off, or use another name" if is_locked else None


def _of_system(error: OSError, folder: Path) -> str:
    said = printable(error.strerror or str(error), 1000)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{said}{_room(folder)}"
    if isinstance(error, PermissionError):
        return f"{said}: it may be open in another program, or you may lack permission to change it"
    return said


def _room(folder: Path) -> str:
    """The free disk space, to be appended to a message."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return ""
    return f": {free / 1e6:,.1f} MB are free. Delete or move some files"


_SAID_BY_LIBRARIES = ("I/O error", "No space", "iostream error", "file write failed")
"""What errors of safetensors and of torch's C++ writer contain."""


def _sweep(folder: Path) -> None:
    """Remove temporary files that are a day old: their processes were killed."""
    with suppress(OSError), os.scandir(folder) as items:
        for item in items:
            if _TEMPORARY.fullmatch(item.name):
                with suppress(OSError):
                    if (
                        time.time() - item.stat(follow_symlinks=False).st_mtime > STALE
                        and item.is_file()
                    ):
                        os.unlink(item.path)  # noqa: PTH108 - scandir's own path


STALE = 86400.0
"""Seconds after which a temporary file has no process any more; no writing takes that long."""
_TEMPORARY = re.compile(r"\.(writing|adding)-[0-9a-z_]{8,16}\.tmp")


def _metadata(network: Hypernetwork, stem: str) -> dict[str, Any]:
    """AUTOMATIC1111's keys, with values of plain Python types.

    ``use_dropout`` is always false. AUTOMATIC1111 reads ``dropout_structure``; ComfyUI knows only
    ``use_dropout``, and would apply dropout while it generates images.
    """
    structure, provenance = network.structure, network.provenance
    return {
        "step": provenance.step,
        "name": provenance.name or stem,
        "layer_structure": [int(m) if m == int(m) else m for m in structure.layer_structure],
        "activation_func": structure.activation,
        "is_layer_norm": structure.layer_norm,
        "weight_initialization": provenance.weight_initialization,
        "sd_checkpoint": provenance.checkpoint_hash,
        "sd_checkpoint_name": provenance.checkpoint_name,
        "activate_output": structure.activate_output,
        "use_dropout": False,
        "dropout_structure": list(structure.dropout),
        "last_layer_dropout": len(structure.dropout) > 2 and structure.dropout[-2] != 0,
        "optional_info": provenance.optional,
    }


def _save_torch(
    path: Path, tensors: dict[int, tuple[StateDict, StateDict]], metadata: dict[str, Any]
) -> None:
    content: dict[Any, Any] = {
        dim: tuple(
            {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
            for state in pair
        )
        for dim, pair in tensors.items()
    }
    buffer = io.BytesIO()
    torch.save(content | metadata, buffer)

    with (
        zipfile.ZipFile(buffer) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target,
    ):
        for member in source.infolist():
            if _MEMBERS.fullmatch(member.filename):
                _add_aligned(target, member.filename, source.read(member))


def _add_aligned(target: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Add a member whose content is aligned to :data:`ALIGNMENT`, padded by an extra field."""
    # A fixed date, so that the same network always gives the same bytes.
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    assert target.fp is not None
    start = target.fp.tell() + 30 + len(name.encode()) + 4
    padding = -start % ALIGNMENT
    entry.extra = struct.pack("<HH", 0x4246, padding) + b"Z" * padding
    target.writestr(entry, content)
