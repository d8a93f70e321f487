"""Finds the model family of a file or folder from tensor names and shapes, before anything is
loaded.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ....errors import CheckpointError, HypernetworkError
from ....files import reading
from ....files.safetensors_files import looks_like

CONFIGURATIONS = Path(__file__).parent
"""The configurations that ship: one folder per family, like a diffusers folder without weights."""

_WHOLE = (
    "name a whole checkpoint of SD1, SD2 or SDXL (UNet, VAE and text encoder in one file), or a "
    "diffusers folder"
)

_REFINER = (
    "this is the SDXL refiner, which only refines images: name the SDXL base model or a finetune "
    "of it"
)

_HYPERNETWORK = (
    "this is a hypernetwork, not a checkpoint: use it in a <hypernet:…> tag, and name a "
    "checkpoint here"
)

_SPECIAL = {
    9: "this is an inpainting model",
    8: "this is an instruct-pix2pix model",
    7: "this is an upscaler",
    5: "this is a depth model",
}

_OTHER_KINDS = (
    (r"^\d+\.[kv]\.linear\.", _HYPERNETWORK),
    (
        r"lora|\.hada_|\.lokr_|\.oft_",
        f"this is a LoRA, which modifies a checkpoint but is not one: {_WHOLE}",
    ),
    (r"^control_model\.|^controlnet_|^zero_conv", f"this is a ControlNet: {_WHOLE}"),
    (
        r"\bdouble_blocks\.",
        f"this is a Flux model, which has no cross-attention for a hypernetwork: {_WHOLE}",
    ),
    (
        r"\bjoint_blocks\.",
        f"this is an SD3 model, which has no cross-attention for a hypernetwork: {_WHOLE}",
    ),
    (
        r"^emb_params$|^clip_[lg]$|^string_to_param",
        f"this is an embedding (textual inversion): {_WHOLE}",
    ),
    (r"^(first_stage_model\.|vae\.)?(en|de)coder\.(conv_in|mid)", f"this is only a VAE: {_WHOLE}"),
    (
        r"^(model\.diffusion_model\.)?input_blocks\.",
        f"this is only a UNet, or a part of one: {_WHOLE}",
    ),
    (
        r"^(down_blocks|mid_block|up_blocks)\.",
        "this is one part of a diffusers folder: name the folder around it",
    ),
    (
        r"^(text_model|cond_stage_model|conditioner|transformer\.resblocks)\.",
        f"this is only a text encoder: {_WHOLE}",
    ),
)

_PICKLE = (
    "this is a pickle (.ckpt, .pt), which can run code when it is opened: convert it to "
    ".safetensors first, for example with the Checkpoint Merger tab of a webui"
)

_HEADS = (
    (b"PK\x03\x04", _PICKLE),
    (b"\x80", _PICKLE),
    (b"GGUF", f"this is a quantised GGUF file: {_WHOLE}"),
    (
        b"version https://git-lfs",
        "this is only a Git LFS pointer to a checkpoint: run `git lfs pull`",
    ),
    (b"<", "this is a web page, not a checkpoint: download it again"),
)


@dataclass(frozen=True)
class Contents:
    """What a safetensors header tells: shapes by tensor name, and the file's metadata."""

    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]

    @property
    def prediction(self) -> str | None:
        """What the UNet predicts, where the file says so: by a marker tensor, or by the modelspec
        metadata.
        """
        if "v_pred" in self.shapes:
            return "v_prediction"
        return {"epsilon": "epsilon", "v": "v_prediction"}.get(
            self.metadata.get("modelspec.prediction_type", "")
        )

    @property
    def zero_terminal_snr(self) -> bool:
        """Whether the file is marked as trained down to pure noise."""
        return "ztsnr" in self.shapes


def read_contents(path: Path) -> Contents:
    """The header of a safetensors file.

    Raises:
        CheckpointError: it is no safetensors file, or a damaged one.
    """
    try:
        with path.open("rb") as file:
            head = file.read(32)
    except FileNotFoundError as error:
        raise CheckpointError("there is no such file or folder") from error

    if not head:
        raise CheckpointError("the file is empty: download it again")

    for start, message in _HEADS:
        if head.startswith(start) and not looks_like(
            head
        ):  # a header's length may begin with any byte
            raise CheckpointError(
                _HYPERNETWORK if message is _PICKLE and _is_hypernetwork(path) else message
            )

    try:
        with safe_open(str(path), framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            return Contents(shapes, file.metadata() or {})
    except SafetensorError as error:
        raise CheckpointError(
            f"the file is damaged, incomplete or not a .safetensors file ({error}): {_WHOLE}"
        ) from error


def _is_hypernetwork(path: Path) -> bool:
    if path.stat().st_size > 1 << 30:
        return False
    try:
        reading.read(path)
    except HypernetworkError:
        return False
    return True


def family_of_file(contents: Contents, configurations: Path) -> str:
    """The family whose UNet has this file's width of the context.

    Raises:
        CheckpointError: the file is something else, or lacks a part.
    """
    names = contents.shapes
    entrance = names.get("model.diffusion_model.input_blocks.0.0.weight")
    exit_ = names.get("model.diffusion_model.out.2.weight")
    if entrance is None or exit_ is None:
        raise CheckpointError(_other_kind(contents))
    if any(name.startswith("edm_") for name in names):
        raise CheckpointError(
            f"it was trained on another noise schedule (EDM: Playground 2.5, CosXL): {_WHOLE}"
        )

    width = next(
        (shape[-1] for name, shape in names.items() if name.endswith("attn2.to_k.weight")), None
    )
    family = _family(width, entrance[1], exit_[0], configurations)
    if family is None:
        raise CheckpointError(
            f"its UNet takes a context of width {width}, which no known model has: {_WHOLE}"
        )

    for part, prefixes in (
        ("text encoder", ("cond_stage_model.", "conditioner.")),
        ("VAE", ("first_stage_model.",)),
    ):
        if not any(name.startswith(prefixes) for name in names):
            raise CheckpointError(f"it has a UNet but no {part}: {_WHOLE}")

    return family


def _other_kind(contents: Contents) -> str:
    for pattern, message in _OTHER_KINDS:
        if any(re.search(pattern, name) for name in contents.shapes):
            return message
    return f"it holds no Stable Diffusion model: {_WHOLE}"


def family_of_folder(folder: Path, configurations: Path) -> str:
    """The family of a diffusers folder, ``custom`` where its width is no public model's.

    Raises:
        CheckpointError: the folder holds another kind of model.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        files = sorted(file.name for file in folder.glob("*.safetensors"))
        hint = f"name a file in it, such as {files[0]}" if files else "name the folder that has one"
        raise CheckpointError(
            f"this folder has no model_index.json, so it is not a diffusers model: {hint}"
        )

    kind = read_json(index).get("_class_name")
    unet = folder / "unet" / "config.json"
    facts = read_json(unet) if unet.is_file() else {}
    width = facts.get("cross_attention_dim")
    if not isinstance(width, int):
        raise CheckpointError(
            f"this folder holds a {kind}, which has no cross-attention for a hypernetwork: {_WHOLE}"
        )

    return (
        _family(width, facts.get("in_channels", 4), facts.get("out_channels", 4), configurations)
        or "custom"
    )


def _family(width: int | None, taken: int, given: int, configurations: Path) -> str | None:
    """The family by context width, once it is certain that the UNet takes only text."""
    if width == 1280:
        raise CheckpointError(_REFINER)
    if taken != given:
        kind = _SPECIAL.get(taken, "this model needs more than a prompt")
        raise CheckpointError(
            f"{kind} ({taken} input channels, {given} output channels): name one for text to image"
        )
    files = configurations.glob("*/unet/config.json")
    return {read_json(file)["cross_attention_dim"]: file.parts[-3] for file in files}.get(width)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path.name} is damaged ({error}): download it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path.name} is damaged: download it again")
    return content
