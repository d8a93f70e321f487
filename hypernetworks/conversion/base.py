"""A base model on the disk: which attention modules it has, and their weights, one tensor at a
time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import torch

from ..engine.families import LABELS, families_of, is_of_another_family
from ..engine.network import Hypernetwork
from ..errors import CheckpointError, NoMatchingWidthError, printable
from ..files.naming import model_name
from .layers import CROSS, Layer, find_layers
from .tensor_files import TensorFile

COMPUTABLE = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_WEIGHTS = "diffusion_pytorch_model"


class Base:
    """The UNet of a checkpoint; a context manager that closes its files.

    Args:
        path: a ``.safetensors`` file in the original layout or of a UNet alone, or a diffusers
            folder.

    Raises:
        CheckpointError: there is none, it is damaged, or has no attention that hypernetworks act
            on.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._exits = ExitStack()
        try:
            self.files = [self._exits.enter_context(TensorFile(file)) for file in _files_of(path)]
            self._home = {name: file for file in self.files for name in file.entries}
            self.layers = self._checked_layers()
        except BaseException:
            self._exits.close()
            raise

    def _checked_layers(self) -> list[Layer]:
        # shapes are in the header, so that no tensor is read for this
        shapes = {name: file.entries[name].shape for name, file in self._home.items()}
        layers = find_layers(shapes)
        name = printable(self.path.name or str(self.path))
        if not layers:
            raise CheckpointError(f"{name}: {_other_kind(shapes)}")

        # a quantised model has tensors of these names in other shapes
        for layer in layers:
            wanted = {
                layer.key: (layer.inner, layer.width),
                layer.value: (layer.inner, layer.width),
                layer.out: (layer.outer, layer.inner),
                layer.out_bias: (layer.outer,),
            }
            for tensor, shape in wanted.items():
                if 0 in shape or shapes.get(tensor) != shape:
                    raise CheckpointError(
                        f"{name}: {printable(tensor, 120)} is missing or has another shape: it "
                        "is a model of another kind, or quantised; use a version in fp16 or fp32"
                    )
        return layers

    @property
    def name(self) -> str:
        """For messages and metadata."""
        return model_name(self.path)

    @property
    def text_widths(self) -> set[int]:
        """Context widths of its cross-attention; more than one in no known model."""
        return {layer.width for layer in self.layers if layer.kind == CROSS}

    @property
    def family(self) -> str | None:
        """``SD1``, ``SD2`` or ``SDXL``; ``None`` for others."""
        return next((LABELS[width] for width in self.text_widths if width in LABELS), None)

    @property
    def names(self) -> Mapping[str, TensorFile]:
        """All tensors, and the files that they are in."""
        return self._home

    def stored(self, name: str) -> torch.Tensor:
        """One tensor in its own type, whether it can be computed with or not."""
        return self._home[name].read(name)

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor in its own type.

        Raises:
            CheckpointError: it has a type that can't be computed with.
        """
        file = self._home[name]
        found = self.stored(name)

        if found.dtype not in COMPUTABLE:
            raise CheckpointError(
                f"{printable(file.path.name)}: its weights are of the type {found.dtype}, which "
                "has too few bits to be changed: use a version of this checkpoint in fp16 or "
                "fp32"
            )
        return found

    def check_fit(self, networks: Iterable[Hypernetwork]) -> None:
        """Raise where a network was made for another family, or would change nothing.

        Raises:
            NoMatchingWidthError: which, and what the two are.
        """
        here = {layer.width for layer in self.layers}
        for network in networks:
            widths = set(network.widths)
            if is_of_another_family(widths, here, self.text_widths):
                raise NoMatchingWidthError(
                    f"{network.name} was made for {families_of(widths & set(LABELS))}, but "
                    f"{self.name} is {families_of(self.text_widths)}: name a checkpoint of the "
                    "network's own family"
                )

            if not widths & here:
                raise NoMatchingWidthError(
                    f"{network.name} has the widths {', '.join(map(str, network.widths))}, and "
                    f"{self.name} has none of them: name the checkpoint that it was made for"
                )

    def check_unchanged(self) -> None:
        """See :meth:`TensorFile.check_unchanged`."""
        for file in self.files:
            file.check_unchanged()

    def close(self) -> None:
        """Close its files."""
        self._exits.close()

    def __enter__(self) -> Base:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def unet_folder(path: Path) -> Path:
    """Where the UNet is in a diffusers folder, or the folder itself where that is one of a UNet."""
    return path / "unet" if (path / "unet").is_dir() else path


def _files_of(path: Path) -> list[Path]:
    """The safetensors files of one UNet."""
    if not path.exists():
        raise CheckpointError(f"{printable(str(path), 1000)}: there is no such file or folder")
    if not path.is_dir():
        return [path]

    # diffusers itself takes the plain files first
    folder = unet_folder(path)
    for variant in ("", ".fp16", ".bf16"):
        index = folder / f"{_WEIGHTS}.safetensors.index{variant}.json"
        if index.is_file():
            return _shards(index)
        if (whole := folder / f"{_WEIGHTS}{variant}.safetensors").is_file():
            return [whole]
    raise CheckpointError(
        f"{printable(path.name)}: this folder has no unet/{_WEIGHTS}.safetensors: name a "
        "diffusers folder, or the .safetensors file itself"
    )


def _shards(index: Path) -> list[Path]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        shards = [index.parent / str(name) for name in sorted(names)]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index.name} is damaged: download it again") from error

    # an index is text from the internet: it must not lead out of the folder
    if any(shard.parent != index.parent for shard in shards):
        raise CheckpointError(f"{index.name} names files of other folders: download it again")
    return shards


def _other_kind(names: Iterable[str]) -> str:
    """What a file without attention modules of a UNet is."""
    text = "\n".join(names)
    if ".linear.0.weight" in text:
        kind = "this is a hypernetwork, not a checkpoint"
    elif "lora" in text or ".hada_" in text or ".lokr_" in text:
        kind = "this is a LoRA, not a checkpoint"
    elif "double_blocks" in text or "joint_blocks" in text:
        kind = "this is a Flux or SD3 model, which has no cross-attention for a hypernetwork"
    else:
        kind = "it has no attention of a Stable Diffusion UNet"
    return f"{kind}: name a checkpoint of SD1, SD2 or SDXL, or a diffusers folder"
