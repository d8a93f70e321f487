"""Writes hypernetworks, always to a temporary name first: ``.pt`` for every webui, ``.safetensors`` for the future."""

from __future__ import annotations

import io
import os
import re
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..engine.network import Hypernetwork
from ..engine.structure import StateDict
from ..errors import FileWriteError
from . import safetensors_files

ALIGNMENT = 64
"""Tensors begin at multiples of this many bytes in the file, so that they can be mapped."""
_MEMBERS = re.compile(r"[^/]+/(data/\d+|version|data\.pkl)")
"""Zip members that AUTOMATIC1111 1.10.1 lets pass (newer torch writes more), less those that can be left out."""


def write(network: Hypernetwork, path: str | os.PathLike[str]) -> None:
    """Write a network, by suffix: ``.pt`` (loads in AUTOMATIC1111 1.10.1) or ``.safetensors`` (docs/safetensors.md).

    The tensors keep their dtype. The file appears whole or not at all: it is written under a temporary name in the
    same folder and moved into place.

    Raises:
        FileWriteError: another suffix, a missing folder, a full disk, no permission; what was there is untouched.
    """
    path = Path(path)
    tensors: dict[int, tuple[StateDict, StateDict]] = {
        dim: (key.state_dict(), value.state_dict()) for dim, (key, value) in sorted(network.pairs.items())
    }
    metadata = _metadata(network, path.stem)
    if path.suffix == ".safetensors":
        replace(path, lambda temporary: safetensors_files.save(temporary, tensors, metadata))
    elif path.suffix == ".pt":
        replace(path, lambda temporary: _save_torch(temporary, tensors, metadata))
    else:
        raise FileWriteError(f'{path.name}: the suffix "{path.suffix}" can\'t be written, use .pt or .safetensors')


def replace(path: Path, save: Callable[[Path], object]) -> None:
    """Let ``save`` write a temporary file beside ``path``, flush it to disk and move it into place.

    Raises:
        FileWriteError: anything that the system refuses; ``path`` is untouched and nothing is left behind.
    """
    temporary: Path | None = None
    if "\0" in str(path):
        raise FileWriteError(f"{str(path)!r}: it can't be written, a name has no null characters")
    try:
        descriptor, name = tempfile.mkstemp(prefix=".writing-", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        os.close(descriptor)
        save(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        _keep_mode(path, temporary)
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise FileWriteError(f"{path}: it can't be written ({error.strerror or error})") from error
    except Exception as error:
        if "I/O error" not in str(error) and "No space" not in str(error):  # safetensors' own way to say so
            raise
        raise FileWriteError(f"{path}: it can't be written ({error})") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _keep_mode(path: Path, temporary: Path) -> None:
    """Temporary files are private; give the new file the mode of the old one, or the usual one."""
    if path.exists():
        temporary.chmod(path.stat().st_mode & 0o777)
    else:
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)


def _metadata(network: Hypernetwork, stem: str) -> dict[str, Any]:
    """AUTOMATIC1111's keys, in plain Python types only."""
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
        "use_dropout": any(structure.dropout),
        "dropout_structure": list(structure.dropout),
        "last_layer_dropout": len(structure.dropout) > 2 and structure.dropout[-2] != 0,
        "optional_info": provenance.optional,
    }


def _save_torch(path: Path, tensors: dict[int, tuple[StateDict, StateDict]], metadata: dict[str, Any]) -> None:
    content: dict[Any, Any] = {
        dim: tuple({key: tensor.detach().cpu().contiguous() for key, tensor in state.items()} for state in pair)
        for dim, pair in tensors.items()
    }
    buffer = io.BytesIO()
    torch.save(content | metadata, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for member in source.infolist():
            if _MEMBERS.fullmatch(member.filename):
                _add_aligned(target, member.filename, source.read(member))


def _add_aligned(target: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Add a member whose content starts at a multiple of :data:`ALIGNMENT`, padded through an extra field."""
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    assert target.fp is not None
    start = target.fp.tell() + 30 + len(name.encode()) + 4
    padding = -start % ALIGNMENT
    entry.extra = struct.pack("<HH", 0x4246, padding) + b"Z" * padding
    target.writestr(entry, content)
