"""*Hypernetworks to LoRA*, *Bake Hypernetworks* and *Merge Hypernetworks*."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import folder_paths
import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.utils import ProgressBar
from comfy_api.latest import io

from ....conversion import Base, Weighted, bake, to_lora
from ....conversion.lora_files import DTYPES, FORMATS
from ....conversion.low_rank import FULL, Rank
from ....conversion.merging import merge
from ....errors import FileWriteError, HypernetworkError
from ....files import write
from ....files.moving import free
from ..networks import library
from ..sampling import Applied
from . import fields


class _Writer(io.ComfyNode):  # type: ignore[misc]
    """A node that writes a file from a stack."""

    @classmethod
    def _schema(cls, node_id: str, display_name: str, description: str, inputs: list[Any]) -> Any:
        return io.Schema(
            node_id=node_id,
            display_name=display_name,
            category=fields.CATEGORY,
            description=description,
            inputs=inputs,
            outputs=[io.String.Output(display_name="file")],
            is_output_node=True,
        )

    @classmethod
    def _done(cls, path: Path, folder: Path, *lines: str) -> Any:
        """The file's name, as lists of other nodes show it, and what to tell."""
        name = path.relative_to(folder).as_posix()
        return io.NodeOutput(name, ui={"text": [f"written: {path}", *lines]})


class HypernetworksToLora(_Writer):
    """Networks as a LoRA."""

    @classmethod
    def define_schema(cls) -> Any:
        """Inputs and outputs."""
        inputs = [
            fields.Stack.Input("stack", tooltip="Linear networks, in the order of application."),
            checkpoint_input("The checkpoint that the LoRA is made for."),
            filename_input("style"),
            io.Combo.Input(
                "format",
                options=list(FORMATS),
                default=FORMATS[0],
                tooltip="kohya: for ComfyUI and all webuis. peft: for diffusers.",
            ),
            io.Int.Input(
                "rank",
                default=0,
                min=0,
                max=4096,
                tooltip="0 leaves nothing out. A rank makes the file smaller and less exact.",
            ),
            dtype_input(),
        ]

        return cls._schema(
            "HypernetworkToLora",
            "Hypernetworks to LoRA",
            "Writes linear hypernetworks as one LoRA into models/loras. "
            "Its strength is a factor on the strengths of the stack.",
            inputs,
        )

    @classmethod
    def execute(
        cls,
        stack: tuple[Applied, ...],
        checkpoint: str,
        filename: str,
        format: str,  # noqa: A002 - the name of the field
        rank: int,
        dtype: str,
    ) -> Any:
        """The LoRA, under a name that isn't taken."""
        networks, folder = weighted(stack), folder_of("loras")
        path = free_path(folder, filename, ".safetensors")

        # Nodes run in inference mode, whose tensors can't be used elsewhere.
        with torch.inference_mode(False), Base(checkpoint_path(checkpoint)) as base:
            done = to_lora(
                base,
                networks,
                path,
                rank=Rank(rank) if rank else FULL,
                layout=format,
                dtype=dtype,
                on_progress=progress(),
            )
        error = f"largest error {done.worst.error:.2%}"
        return cls._done(path, folder, f"{len(done.layers)} projections, {error}")


class BakeHypernetworks(_Writer):
    """Networks in a checkpoint."""

    @classmethod
    def define_schema(cls) -> Any:
        """Inputs and outputs."""
        inputs = [
            fields.Stack.Input("stack", tooltip="Linear networks, in the order of application."),
            checkpoint_input("The checkpoint to copy. It stays as it is."),
            filename_input("model-style"),
        ]

        return cls._schema(
            "HypernetworkBake",
            "Bake Hypernetworks",
            "Writes a copy of a checkpoint that has linear hypernetworks in its "
            "weights into models/checkpoints.",
            inputs,
        )

    @classmethod
    def execute(cls, stack: tuple[Applied, ...], checkpoint: str, filename: str) -> Any:
        """The copy, under a name that isn't taken."""
        networks, folder = weighted(stack), folder_of("checkpoints")
        path = free_path(folder, filename, ".safetensors")

        with torch.inference_mode(False), Base(checkpoint_path(checkpoint)) as base:
            count = bake(base, networks, path, on_progress=progress())
        return cls._done(path, folder, f"{count} tensors changed")


class MergeHypernetworks(_Writer):
    """Networks as one network."""

    @classmethod
    def define_schema(cls) -> Any:
        """Inputs and outputs."""
        inputs = [
            fields.Stack.Input("stack", tooltip="Networks, in the order of application."),
            filename_input("merged"),
            dtype_input(),
        ]

        return cls._schema(
            "HypernetworkMerge",
            "Merge Hypernetworks",
            "Writes the networks of a stack as one network into models/hypernetworks, "
            "and shows how far it is from applying them in order.",
            inputs,
        )

    @classmethod
    def execute(cls, stack: tuple[Applied, ...], filename: str, dtype: str) -> Any:
        """The network, under a name that isn't taken."""
        networks, folder = weighted(stack), folder_of("hypernetworks")
        path = free_path(folder, filename, ".safetensors")

        with torch.inference_mode(False):
            made = merge(path.stem, networks)
            made.network.to("cpu", DTYPES[dtype])
            # fp16 ends at 65,504: larger weights have become infinite.
            if not all(parameter.isfinite().all() for parameter in made.network.parameters()):
                raise HypernetworkError(
                    f"the weights of the new network don't fit into {dtype}: choose fp32"
                )
            write(made.network, path)
        library().scan()
        return cls._done(path, folder, made.verdict)


def checkpoint_input(tooltip: str) -> Any:
    """A list of the checkpoints that can be read tensor by tensor."""
    found = folder_paths.get_filename_list("checkpoints")
    names = [name for name in found if name.endswith(".safetensors")]
    return io.Combo.Input("checkpoint", options=names, tooltip=tooltip)


def filename_input(default: str) -> Any:
    """The name of the new file."""
    return io.String.Input(
        "filename",
        default=default,
        tooltip="Without .safetensors; subfolders are fine. A number is added to a name that is "
        "taken.",
    )


def dtype_input() -> Any:
    """The type of the new file's numbers."""
    return io.Combo.Input(
        "dtype", options=list(DTYPES), default="fp16", tooltip="Type of the weights in the file."
    )


def weighted(stack: Sequence[Applied]) -> list[Weighted]:
    """The networks of a stack at fixed multipliers.

    Raises:
        MultiplierError: one of them is a schedule.
    """
    if not stack:
        raise HypernetworkError("the stack is empty: choose a network in Hypernetwork Stack")
    return [Weighted(applied.network, applied.multiplier) for applied in stack]


def folder_of(kind: str) -> Path:
    """The first folder for files of a kind, which is the one that ComfyUI itself writes to."""
    paths = folder_paths.get_folder_paths(kind)
    if not paths:
        raise FileWriteError(f"this ComfyUI has no folder for {kind}: add one")
    return Path(paths[0])


def checkpoint_path(name: str) -> Path:
    """Of a file in the list."""
    return Path(folder_paths.get_full_path_or_raise("checkpoints", name))


def free_path(folder: Path, name: str, suffix: str) -> Path:
    """Where a new file goes: never outside the folder, and never over another file.

    Raises:
        FileWriteError: the name leads elsewhere, or the folder can't be created.
    """
    plain = name.strip().removesuffix(suffix).replace("\\", "/")
    parts = PurePosixPath(plain).parts
    # A workflow is a file from the internet, and must not choose where it writes.
    leaves = not parts or ".." in parts or PurePosixPath(plain).is_absolute()
    if leaves or PureWindowsPath(plain).drive or any(":" in part for part in parts):
        raise FileWriteError(f'"{name}" can\'t be a file name: write one such as style')

    target = folder.joinpath(*parts)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise FileWriteError(f"{target.parent} can't be created ({reason})") from error

    return free(target.with_name(target.name + suffix), suffix, before="_")


def progress() -> Callable[[int, int], None]:
    """Moves the node's bar, and ends the work where the user has interrupted the queue."""
    bar = ProgressBar(1)

    def told(done: int, total: int) -> None:
        throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)

    return told
