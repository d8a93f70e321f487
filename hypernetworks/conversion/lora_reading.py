"""LoRAs read as changes of weights, in the layouts of kohya's trainer and of diffusers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch

from ..errors import CheckpointError, printable
from .layers import Layer
from .lora_scales import Scales
from .tensor_files import TensorFile

_LEAVES = {
    ".lora_up.weight": "up",
    ".lora_down.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.weight": "down",
    ".lora.up.weight": "up",
    ".lora.down.weight": "down",
    "_lora.up.weight": "up",
    "_lora.down.weight": "down",
    ".lora_mid.weight": "middle",
    ".alpha": "alpha",
    ".diff": "whole",
    ".diff_b": "bias",
    ".lora_B.bias": "bias",
    ".lokr_w1": "left",
    ".lokr_w2": "right",
}
"""What the names of tensors end in, and what the tensor is."""
_OTHER_KINDS = (
    ".hada_",
    ".lokr_w1_",
    ".lokr_w2_",
    ".lokr_t2",
    ".oft_",
    ".dora_scale",
    ".lora_magnitude_vector",
    ".w_norm",
    ".b_norm",
)


class LoraFile:
    """An open LoRA; a context manager.

    Attributes:
        modules: for each module that it changes, the tensors by what they are: ``up``, ``middle``,
            ``down``, ``alpha``, ``whole``, ``bias``, and ``left`` and ``right`` of a Kronecker
            product.

    Raises:
        CheckpointError: it is another kind of file, or one whose parts aren't plain products.
    """

    def __init__(self, path: Path) -> None:
        self._file = TensorFile(path)
        self._written: dict[str, str] = {}
        try:
            self.modules = self._sorted(printable(path.name))
            self._scales = Scales(self._file.metadata, printable(path.name))
        except BaseException:
            self._file.close()
            raise

    def _sorted(self, name: str) -> dict[str, dict[str, str]]:
        modules: dict[str, dict[str, str]] = {}
        for tensor in self._file.entries:
            if any(kind in tensor for kind in _OTHER_KINDS):
                raise CheckpointError(
                    f"{name}: this is a LyCORIS or DoRA file (it has {printable(tensor, 120)}), "
                    "which isn't read here: merge it into a checkpoint with another program, "
                    "then use --from-checkpoints"
                )

            for ending, kind in _LEAVES.items():
                if tensor.endswith(ending):
                    written = tensor.removesuffix(ending)
                    modules.setdefault(_normal(written), {})[kind] = tensor
                    self._written[_normal(written)] = written
                    break

        if not any({"whole", "up", "left"} & parts.keys() for parts in modules.values()):
            raise CheckpointError(f"{name}: it has no tensors of a LoRA: choose another file")
        return modules

    def change(self, module: str) -> torch.Tensor | None:
        """What it adds to the weight of a module, ``(outer, inner)`` in fp32, or ``None``."""
        parts = self.modules.get(module, {})
        if "whole" in parts:
            return self._file.read(parts["whole"]).float().flatten(1)
        if "left" in parts and "right" in parts:
            left, right = (self._file.read(parts[kind]).float() for kind in ("left", "right"))
            return torch.kron(left, right).flatten(1)
        if "up" not in parts or "down" not in parts:
            return None

        up, down = (self._file.read(parts[kind]).float() for kind in ("up", "down"))
        if up.ndim == 4 and up.shape[2:].numel() > 1:
            return None

        up, down = up.flatten(1), down.flatten(1)
        if "middle" in parts:  # a convolution in three: narrow, of all pixels, and wide again
            middle = self._file.read(parts["middle"]).float()
            return self._scale(module) * torch.einsum(
                "or,rs...,si->oi...", up, middle, down
            ).flatten(1)
        return self._scale(module) * up @ down

    def bias(self, module: str) -> torch.Tensor | None:
        """What it adds to the bias of a module, in fp32, or ``None``."""
        name = self.modules.get(module, {}).get("bias")
        if name is None:
            return None
        # peft's bias belongs to the factor, so it is scaled with it
        scale = self._scale(module) if name.endswith(".lora_B.bias") else 1.0
        return scale * self._file.read(name).float()

    def _scale(self, module: str) -> float:
        """What the product of its factors is multiplied by."""
        parts = self.modules[module]
        if "down" not in parts:
            return 1.0
        rank = self._file.entries[parts["down"]].shape[0]
        if "alpha" in parts:
            return float(self._file.read(parts["alpha"])) / rank

        return self._scales.of(self._written[module], rank)

    def squares(self) -> Iterator[tuple[str, float]]:
        """Of each module, the sum of the squares of what it adds to the weight."""
        for module in self.modules:
            change = self.change(module)
            if change is not None:
                yield module, float(change.double().square().sum())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> LoraFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def names_of(layer: Layer, leaf: str) -> list[str]:
    """The keys of :attr:`LoraFile.modules` that one projection may have."""
    return list(dict.fromkeys(_normal(f"{path}.{leaf}") for path in (layer.path, layer.original)))


def _normal(module: str) -> str:
    """One spelling for all layouts: ``down_blocks_0_..._attn1_to_k``.

    Old files of diffusers have ``attn1.processor.to_k_lora.up.weight``.
    """
    # trainers put one or several of these before the name of the module
    plain = re.sub(r"^(lora_unet_|unet\.|base_model\.model\.|diffusion_model\.)+", "", module)
    plain = plain.replace(".processor.", ".").replace(".", "_")
    return re.sub(r"_to_out$", "_to_out_0", plain)
