"""Reads any hypernetwork file: recognises its format and variant, and checks its metadata."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..engine.network import Hypernetwork, Provenance
from ..engine.structure import (
    MOST_LAYERS,
    Claims,
    StateDict,
    Structure,
    check_size,
    derive_structure,
    rebuilt_dropout,
)
from ..errors import (
    FileCorruptError,
    FileMissingError,
    FileUnreadableError,
    HypernetworkError,
    NotAHypernetworkError,
    StructureError,
    UnsupportedVariantError,
    printable,
)
from . import safetensors_files, torch_files
from .naming import as_path
from .opened import OpenedFile, shown
from .other_kinds import other_kind
from .pickles import TensorPointer

_Result = TypeVar("_Result")
SUFFIXES: tuple[str, ...] = (".pt", ".safetensors", ".bin", ".ckpt", ".pth")
"""Suffixes of the files that a library lists; :func:`read` decides by the content alone."""


def read(path: str | os.PathLike[str]) -> Hypernetwork:
    """Read a hypernetwork file of any variant, without ever running code from it.

    The tensors are read into memory and keep the file's dtype, so later changes to the file don't
    matter. The structure is derived from the tensors and checked against the metadata.

    Args:
        path: a ``.pt``, ``.bin``, ``.ckpt``, ``.pth`` or ``.safetensors`` file.

    Raises:
        FileMissingError: there is no such file.
        FileUnreadableError: it is a folder, or may not be read.
        FileCorruptError: truncated, damaged, or changed while it was read.
        FileUnsafeError: a pickle that asks for code to be run.
        NotAHypernetworkError: a healthy file of another kind.
        UnsupportedVariantError: a hypernetwork that can't be read with the right arithmetic.
        StructureError: tensors and metadata contradict each other.
    """
    return with_named_errors(as_path(path, 'read("ink.pt")'), _read)


def with_named_errors(path: Path, act: Callable[[Path], _Result]) -> _Result:
    """Call ``act`` with a path, and raise any failure as one of the errors of :func:`read`."""
    try:
        return act(path)
    except FileNotFoundError as error:
        raise FileMissingError(f"{shown(path)}: there is no such file") from error
    except HypernetworkError as error:  # texts from the file may be in it, of any length
        raise type(error)(
            f"{printable(path.name)}: {printable(str(error), 1000)}"
        ) from error.__cause__
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        # Asked only now: on Windows, opening a folder is a missing permission.
        if path_is_folder(path):
            raise FileUnreadableError(
                f"{shown(path)}: this is a folder: name a file in it"
            ) from error

        reason = getattr(error, "strerror", None) or error
        raise FileUnreadableError(f"{shown(path)}: it can't be read ({reason})") from error
    except MemoryError as error:
        raise FileCorruptError(
            f"{printable(path.name)}: it needs more memory than is available: close other programs"
        ) from error


def path_is_folder(path: Path) -> bool:
    """Whether this is a folder; ``False`` for paths that the system refuses."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _read(path: Path) -> Hypernetwork:
    # Tensors that were made in inference mode can't be trained, or used outside it.
    with torch.inference_mode(False), OpenedFile(path) as file:
        tensors, structure, provenance = contents(file, path)
        return Hypernetwork.from_tensors(path.stem, structure, tensors, provenance)


def contents(
    file: OpenedFile, path: Path
) -> tuple[dict[int, tuple[StateDict, StateDict]], Structure, Provenance]:
    """State dicts by width, the structure, and the provenance."""
    head = file.piece(0, 512)

    # The content decides: people rename files, and servers send error pages under any name.
    is_safetensors = safetensors_files.looks_like(head)
    if not is_safetensors and (what := other_kind(head)):
        raise NotAHypernetworkError(what)
    if is_safetensors:
        tensors, metadata = safetensors_files.load(file)
    elif head.lstrip()[:1] in (b"{", b"[", b"(") or path.suffix.lower() == ".hns":
        raise UnsupportedVariantError(
            "this is a text recipe that mixes networks (.hns): use the networks it names instead"
        )
    else:
        tensors, metadata = _load_torch(file)

    file.check_unchanged()
    layers = {
        len([k for k in sd if k.startswith("linear.")]) for pair in tensors.values() for sd in pair
    }
    if layers == {0}:
        raise StructureError("its networks are empty")

    return tensors, derive_structure(tensors, _claims(metadata, tensors)), _provenance(metadata)


def _load_torch(file: OpenedFile) -> tuple[dict[int, tuple[StateDict, StateDict]], dict[str, Any]]:
    """Networks by width, and the metadata.

    Tensors are read only if the file is a hypernetwork, since a checkpoint has gigabytes of them.
    """
    described, find = torch_files.load(file)
    pointers, metadata = _split(described)
    step = metadata.get("step")  # NovelAI's tools wrote a tensor here
    beside = step if isinstance(step, TensorPointer) else None
    tensors, read_step = torch_files.materialise((pointers, beside), file, find)
    return tensors, metadata if beside is None else metadata | {"step": read_step}


def _split(content: Any) -> tuple[dict[int, tuple[StateDict, StateDict]], dict[str, Any]]:
    """Networks by integer width, and the rest as metadata."""
    if not isinstance(content, dict):
        kind = "Tensor" if isinstance(content, TensorPointer) else type(content).__name__
        raise NotAHypernetworkError(f"it holds a {kind}, not a dictionary of networks")

    # Widths and metadata share one dictionary in the file.
    pairs: dict[int, tuple[dict[Any, Any], dict[Any, Any]]] = {}
    metadata: dict[str, Any] = {}
    for key, value in content.items():
        width = _width(key)
        if width is None:
            metadata[str(key)] = value
        elif width in pairs:
            raise StructureError(f"it has two networks for width {width}")
        else:
            pairs[width] = _pair(width, value)

    if not pairs:
        raise NotAHypernetworkError(_other_kind(content))

    # Before anything is done per width: even a small file can name thousands of widths.
    check_size(pairs)
    tensors = {width: (_renamed(k), _renamed(v)) for width, (k, v) in pairs.items()}
    if _truth(metadata.get("skip_connection")):
        raise UnsupportedVariantError(_RESIDUAL)
    return tensors, metadata


def _width(key: object) -> int | None:
    if isinstance(key, int) and not isinstance(key, bool):
        width = key
    elif isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 8:
        width = int(key)
    else:
        return None
    if not 0 < width < 10**7:
        raise StructureError("it has a network for an impossible context width")
    return width


_RESIDUAL = (
    'it is built from residual blocks (a "beta" option of the MonkeyPatch trainer), whose '
    "arithmetic is different: it can't be used"
)


def _pair(width: int, value: Any) -> tuple[dict[Any, Any], dict[Any, Any]]:
    if (
        not isinstance(value, (list, tuple))
        or len(value) != 2
        or not all(isinstance(v, dict) for v in value)
    ):
        raise StructureError(
            f"width {width} does not hold a pair of networks, one for keys and one for values"
        )
    return value[0], value[1]


def _renamed(tensors: Mapping[Any, Any]) -> StateDict:
    """Replace names of the NovelAI era (``linear1``, ``linear2``) by today's."""
    if any(".linear." in str(k) or "sample_linear" in str(k) for k in tensors):
        raise UnsupportedVariantError(_RESIDUAL)
    return {
        str(key).replace("linear1.", "linear.0.").replace("linear2.", "linear.1."): value
        for key, value in tensors.items()
    }


def _other_kind(content: Mapping[Any, Any]) -> str:
    keys = [str(key) for key in list(content)[:2000]]
    kinds = {
        "a checkpoint of a whole model": {"state_dict", "global_step", "model"},
        "a textual inversion embedding": {"string_to_param", "string_to_token", "emb_params"},
        "the optimizer state of a training run (the network is the file without .optim)": {
            "optimizer_state_dict"
        },
    }
    for kind, marks in kinds.items():
        if marks & set(keys):
            return f"this is {kind}, not a hypernetwork"

    if any("lora" in key.lower() for key in keys):
        return "this is a LoRA, not a hypernetwork: use it with <lora:…>"
    return "it holds no networks by context width, so it is not a hypernetwork"


def _claims(
    metadata: Mapping[str, Any], tensors: Mapping[int, tuple[StateDict, StateDict]]
) -> Claims:
    layers = _numbers(metadata.get("layer_structure"), "layer_structure")
    output = metadata.get("activate_output")
    # kohya's module has no output activation, and its files don't say so.
    if output is None and "enable_sizes" in metadata:
        output = False

    return Claims(
        layer_structure=layers,
        activation=_activation(metadata.get("activation_func")),
        activate_output=_truth(output),
        layer_norm=_truth(metadata.get("is_layer_norm")),
        dropout=_dropout(metadata, layers),
    )


def _dropout(
    metadata: Mapping[str, Any], layers: tuple[float, ...] | None
) -> tuple[float, ...] | None:
    given = _numbers(metadata.get("dropout_structure"), "dropout_structure")
    if given is not None or layers is None or metadata.get("use_dropout") is None:
        return given
    last = _truth(metadata.get("last_layer_dropout"))
    return rebuilt_dropout(len(layers), bool(_truth(metadata["use_dropout"])), bool(last))


def _numbers(value: Any, key: str) -> tuple[float, ...] | None:
    if value is None:
        return None
    if not isinstance(value, (list, tuple)) or not all(
        isinstance(v, (int, float)) for v in value[: MOST_LAYERS + 1]
    ):
        raise StructureError(f"{key} is not a list of numbers")
    if len(value) > MOST_LAYERS or any(not -1e6 < v < 1e6 for v in value):
        raise StructureError(f"{key} is not a list of plausible numbers")
    return tuple(float(v) for v in value)


def _activation(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise StructureError("activation_func is not a name")
    return printable(value).lower()


def _truth(value: Any) -> bool | None:
    """A boolean, which may be stored as text."""
    if isinstance(value, str):
        return value.strip().lower() == "true"
    if value is None or isinstance(value, (bool, int, float)):
        return None if value is None else bool(value)
    raise StructureError(
        f"the metadata has a {type(value).__name__} where true or false is expected"
    )


def _provenance(metadata: Mapping[str, Any]) -> Provenance:
    def text(key: str) -> str | None:
        value = metadata.get(key)
        return value if isinstance(value, str) else None

    step = metadata.get("step", 0)
    if isinstance(step, torch.Tensor) and step.numel() == 1:
        step = step.item()
    return Provenance(
        name=text("name"),
        step=int(step) if isinstance(step, (int, float)) and abs(step) < 1e15 else 0,
        checkpoint_hash=text("sd_checkpoint"),
        checkpoint_name=text("sd_checkpoint_name"),
        weight_initialization=text("weight_initialization") or "Normal",
        optional=text("optional_info"),
    )
