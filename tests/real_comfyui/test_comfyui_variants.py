"""Every variant of file in a real ComfyUI: as ``hypernetworks.apply``, and as AUTOMATIC1111's own
arithmetic, computes it on the same model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from comfyui_server import ComfyUI
from graphs import LINEAR, RELU, WIDTHS, apply, by_hand, graph, latent, plain_file, relative
from reference import ACTIVATIONS, Content, Recipe
from unit.files.containers import save_legacy, save_safetensors, save_zip

import hypernetworks as hn

Save = Callable[[Any, Path], object]
AS_APPLY, AS_A1111 = 1e-5, 2e-5
"""Shares of the effect. Hooks at each projection, as AUTOMATIC1111 has them, round elsewhere than
folded weights do."""


def written(content: Content, path: Path) -> None:
    """By this project."""
    first = path.with_name("first.zip.pt")
    save_zip(content, first)
    hn.write(hn.read(first), path)
    first.unlink()


@dataclass(frozen=True)
class Variant:
    """A file.

    ``disguise`` makes what the file holds from the dictionary of today's form; its arithmetic is
    that of the dictionary.
    """

    recipe: Recipe = RELU
    suffix: str = ".pt"
    save: Save = save_zip
    disguise: Callable[[Content], Any] = dict


def without(*keys: str) -> Callable[[Content], Any]:
    return lambda content: {k: v for k, v in content.items() if k not in keys}


def first_generation(content: Content) -> Any:
    names = {"linear.0.": "linear1.", "linear.1.": "linear2."}
    return {
        width: tuple({names[k[:9]] + k[9:]: v for k, v in state.items()} for state in pair)
        for width, pair in content.items()
        if type(width) is int
    }


def with_optimizer(content: Content) -> Any:
    state = {"state": {0: {"exp_avg": torch.zeros(8)}}, "param_groups": [{"lr": 1e-5}]}
    return content | {"optimizer_name": "AdamW", "optimizer_state_dict": state}


def kohya(norm: object) -> Callable[[Content], Any]:
    def disguise(content: Content) -> Any:
        lists = {k: list(v) if type(k) is int else v for k, v in content.items()}
        del lists["activate_output"]
        return lists | {"enable_sizes": list(WIDTHS), "is_layer_norm": norm}

    return disguise


def string_sizes(content: Content) -> Any:
    return {str(k): v for k, v in content.items()}


def only_tensors(content: Content) -> Any:
    return {k: v for k, v in content.items() if type(k) is int}


OUTPUT = replace(RELU, activate_output=True)
NORM = replace(RELU, layer_norm=True)
DROPOUT = Recipe((640, 768), (1, 1, 1, 1), "mish", activate_output=False, dropout=(0, 0.3, 0.3, 0))
BATCH = Recipe((320, 768), (1, 0.5, 1), "softmax", activate_output=False)
VARIANTS: dict[str, Variant] = {
    # containers
    "zip": Variant(),
    "legacy": Variant(save=save_legacy),
    "written-pt": Variant(save=written),
    "written-safetensors": Variant(suffix=".safetensors", save=written),
    "safetensors": Variant(suffix=".safetensors", save=save_safetensors),
    "bin": Variant(suffix=".bin"),
    "ckpt-legacy": Variant(suffix=".ckpt", save=save_legacy),
    "pth": Variant(suffix=".pth"),
    "linear-legacy": Variant(LINEAR, save=save_legacy),
    "linear-safetensors": Variant(LINEAR, ".safetensors", save_safetensors),
    # writers
    "novelai": Variant(Recipe(WIDTHS, (1, 2, 1)), disguise=first_generation),
    "novelai-resaved": Variant(replace(LINEAR, activation=None)),
    "early": Variant(OUTPUT, disguise=without("activate_output", "dropout_structure")),
    "middle": Variant(disguise=with_optimizer),
    "kohya": Variant(disguise=kohya(norm=False)),
    "kohya-words": Variant(NORM, disguise=kohya("True")),
    "string-sizes": Variant(disguise=string_sizes),
    "only-tensors": Variant(replace(LINEAR, layer_norm=True), disguise=only_tensors),
    # structures
    "output": Variant(OUTPUT),
    "norm": Variant(NORM),
    "norm-output": Variant(replace(NORM, activate_output=True)),
    "linear-norm": Variant(replace(LINEAR, layer_norm=True)),
    "dropout": Variant(DROPOUT),
    "dropout-by-flags": Variant(
        replace(DROPOUT, dropout=(0, 0.3, 0, 0)), disguise=without("dropout_structure")
    ),
    "dropout-norm": Variant(replace(DROPOUT, layer_norm=True, activate_output=True)),
    "deep": Variant(Recipe(WIDTHS, (1, 0.5, 1.5, 0.5, 1), "elu", activate_output=False)),
    "deep-linear": Variant(Recipe(WIDTHS, (1, 0.5, 1.5, 1))),
    "one-layer": Variant(Recipe(WIDTHS, (1, 1))),
    "wide": Variant(Recipe((320, 768), (1, 4, 1), "relu", activate_output=False)),
    "text-only": Variant(replace(RELU, widths=(768,))),
    "image-only": Variant(replace(RELU, widths=(320, 640))),
    "more-widths": Variant(replace(RELU, widths=(768, 96))),
    # dtypes
    **{
        f"{str(dtype)[6:]}{suffix}": Variant(replace(RELU, dtype=dtype), suffix, save)
        for dtype in (torch.float16, torch.bfloat16, torch.float64)
        for suffix, save in ((".pt", save_zip), (".safetensors", save_safetensors))
    },
    **{
        f"{str(dtype)[6:]}{'-linear' * linear}": Variant(
            replace(LINEAR if linear else RELU, dtype=dtype), ".safetensors", save_safetensors
        )
        for dtype in (torch.float8_e4m3fn, torch.float8_e5m2)
        for linear in (False, True)
    },
    # activations; on the whole batch where torch's implicit dimension is the batch
    **{
        f"act-{name}": Variant(Recipe((320, 768), (1, 0.5, 1), name, activate_output=False))
        for name in ACTIVATIONS
        if name not in ("softmax", "softmin", "logsoftmax", "softmax2d", "rrelu")
    },
    "act-rrelu": Variant(Recipe((768,), (1, 0.5, 1), "rrelu", activate_output=False)),
    **{f"act-{name}": Variant(replace(BATCH, activation=name)) for name in ("softmax", "softmin")},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variant(comfyui: ComfyUI, plain: torch.Tensor, name: str) -> None:
    """It also is off again without the node, bit for bit."""
    variant = VARIANTS[name]
    content = variant.recipe.content()
    path = comfyui.folder / "models/hypernetworks" / f"{name}{variant.suffix}"
    variant.save(variant.disguise(content), path)

    found = latent(comfyui, graph(comfyui, "9", {"9": apply(path.name)}))
    expected = by_hand(comfyui, [(str(path), "0.7")])
    assert relative(found, expected, plain) <= AS_APPLY
    modules = plain_file(comfyui, name, content)
    expected = by_hand(comfyui, [(modules, "0.7")], how="plain")
    assert relative(found, expected, plain) <= AS_A1111

    path.unlink()
    assert torch.equal(latent(comfyui, graph(comfyui)), plain)
