"""Other programs' own LoRA code, run on the weights of a base: ``lora_hosts.py HOST SOURCES FOLDER
M…``.

Runs in a process of its own, as these programs have modules of the same names. What their LoRA code
imports beside itself is replaced by stand-ins. Reads ``base.safetensors`` (original layout) and
``lora.safetensors`` in FOLDER, and writes ``HOST-M.safetensors`` for each multiplier: the weights
that the program would sample with.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch
from safetensors.torch import load_file, save_file
from torch import nn

PREFIX = "model.diffusion_model."
SD1 = {
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
}
ABSENT = ("einops", "torchsde", "scipy", "torchaudio", "av", "gradio", "rich", "lora_patches")
"""What these programs import and the tests don't install."""
Weights = dict[str, torch.Tensor]


class StandIn(types.ModuleType):
    """A module that has everything: classes under capitalised names, callables under others."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (), {}) if name[0].isupper() else MagicMock(name=name)
        setattr(self, name, made)
        return made


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a stand-in for every module whose name the test accepts."""

    def __init__(self, accepts: Callable[[str], bool]) -> None:
        self.accepts = accepts

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        return (
            importlib.machinery.ModuleSpec(name, self, is_package=True)
            if self.accepts(name)
            else None
        )

    def create_module(self, spec: Any) -> StandIn:
        return StandIn(spec.name)

    def exec_module(self, module: Any) -> None:
        """Nothing: it has what it needs."""


def stand_ins(accepts: Callable[[str], bool]) -> None:
    """Replace modules from now on, and those packages that aren't installed, after all others."""
    sys.meta_path.insert(0, Finder(accepts))
    sys.meta_path.append(Finder(lambda name: name.split(".")[0] in ABSENT))


def module_tree(weights: Weights) -> nn.Module:
    """Linear layers under the names of the weights."""
    root = nn.Module()
    for name in sorted({name.rpartition(".")[0] for name in weights}):
        at, parts = root, name.split(".")
        for part in parts[:-1]:
            if part not in dict(at.named_children()):
                at.add_module(part, nn.Module())
            at = at.get_submodule(part)
        shape, bias = weights[f"{name}.weight"].shape, f"{name}.bias" in weights
        layer = nn.Linear(shape[1], shape[0], bias=bias)
        if len(shape) == 4:
            layer = nn.Conv2d(shape[1], shape[0], 1, bias=bias)
        at.add_module(parts[-1], layer)
    root.load_state_dict(weights)
    return root.requires_grad_(False)


def unet_weights(folder: Path) -> Weights:
    """Under ``diffusion_model.``, as these programs have it."""
    found = load_file(folder / "base.safetensors")
    return {n.replace("model.", "", 1): t for n, t in found.items() if n.startswith(PREFIX)}


def a1111(sources: Path, folder: Path, multiplier: float) -> Weights:
    """``networks.load_network`` and ``network_apply_weights`` of the built-in extension."""
    stand_ins(
        lambda name: name.split(".")[0] in ("modules", "gradio", "lora_patches", "lora_logger")
    )
    sys.path.insert(0, str(sources / "extensions-builtin" / "Lora"))
    from modules import devices, sd_models, shared

    root = module_tree(unet_weights(folder))
    model = SimpleNamespace(model=root, is_sdxl=_is_sdxl(folder), cond_stage_model=nn.Module())
    model.conditioner = SimpleNamespace(embedders=[])
    shared.sd_model, sd_models.read_state_dict = model, load_file
    devices.cpu, devices.dtype = torch.device("cpu"), torch.float32
    networks = importlib.import_module("networks")
    networks.extra_network_lora = SimpleNamespace(errors={})
    networks.assign_network_names_to_compvis_modules(model)
    disk = SimpleNamespace(filename=str(folder / "lora.safetensors"))
    loaded = networks.load_network("lora", disk)
    loaded.unet_multiplier = multiplier
    networks.loaded_networks[:] = [loaded]
    for module in root.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            networks.network_apply_weights(module)
    assert not networks.extra_network_lora.errors, networks.extra_network_lora.errors
    return dict(root.state_dict())


def sdnext(sources: Path, folder: Path, multiplier: float) -> Weights:
    """``load_safetensors`` and ``network_add_weights`` of its own (native) way."""
    package = StandIn("modules")
    package.__path__ = [str(sources / "modules")]
    sys.modules["modules"] = package
    stand_ins(lambda name: name.startswith("modules.") and not name.startswith("modules.lora"))
    from modules import devices, sd_models, shared

    devices.device = devices.cpu = torch.device("cpu")
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from hypernetworks.conversion.layers import find_layers

    weights = unet_weights(folder)
    root = module_tree(weights)
    mapping = {}
    for layer in find_layers({name: tuple(t.shape) for name, t in weights.items()}):
        # as SD.Next names the layers of its own model: block by block
        path, stored = (p.split(".transformer_blocks.")[0] for p in (layer.path, layer.stored))
        for leaf, module in root.get_submodule(stored).named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                mapping[f"lora_unet_{path}.{leaf}".replace(".", "_")] = module
    shared.sd_model = SimpleNamespace(network_layer_mapping=mapping)
    shared.sd_model_type = "sdxl" if _is_sdxl(folder) else "sd"
    shared.sd_loaded = True
    sd_models.read_state_dict = lambda path, **_: load_file(path)
    lora_load = importlib.import_module("modules.lora.lora_load")
    lora_apply = importlib.import_module("modules.lora.lora_apply")
    lora_load.lora_convert.assign_network_names_to_compvis_modules = lambda _: None
    disk = SimpleNamespace(filename=str(folder / "lora.safetensors"))
    loaded = lora_load.load_safetensors("lora", disk)
    loaded.unet_multiplier = [multiplier] * 3
    lora_apply.l.loaded_networks[:] = [loaded]
    for name, module in mapping.items():
        updown, bias = lora_apply.network_calc_weights(module, name)
        for change, is_bias in ((updown, False), (bias, True)):
            old = module.bias if is_bias else module.weight
            lora_apply.network_add_weights(
                module, old, change, device=torch.device("cpu"), bias=is_bias
            )
    return dict(root.state_dict())


def forge(sources: Path, folder: Path, multiplier: float) -> Weights:
    """``load_lora`` and ``merge_lora_to_weight`` of ``backend.patcher.lora``."""
    others = ("memory_management", "utils", "operations", "stream", "args")
    stand_ins(lambda name: name in [f"backend.{other}" for other in others])
    sys.path.insert(0, str(sources))
    from backend import memory_management

    memory_management.cast_to_device = lambda t, device, dtype: t.to(device, dtype)
    lora = importlib.import_module("backend.patcher.lora")
    weights = unet_weights(folder)
    config = {} if _is_sdxl(folder) else SD1
    model = SimpleNamespace(
        state_dict=lambda: weights,
        diffusion_model=SimpleNamespace(config=config),
        config=SimpleNamespace(huggingface_repo="x"),
    )
    patches, unused = lora.load_lora(
        load_file(folder / "lora.safetensors"), lora.model_lora_keys_unet(model, {})
    )
    return _patched(weights, patches, unused, lambda key, patch: lora.merge_lora_to_weight(
        [(multiplier, patch, 1.0, None, None)], weights[key].clone(), key
    ))  # fmt: skip


def comfyui(sources: Path, folder: Path, multiplier: float) -> Weights:
    """What ``load_lora_for_models`` does: ``comfy.lora.load_lora`` and ``calculate_weight``."""
    stand_ins(lambda name: name == "comfy.model_base")
    sys.path.insert(0, str(sources))
    importlib.import_module("comfy.cli_args").args.cpu = True
    lora = importlib.import_module("comfy.lora")
    weights = unet_weights(folder)
    config = {} if _is_sdxl(folder) else SD1
    model = SimpleNamespace(
        state_dict=lambda: weights,
        model_config=SimpleNamespace(unet_config=config),
    )
    tensors = load_file(folder / "lora.safetensors")
    convert = importlib.import_module("comfy.lora_convert").convert_lora
    patches = lora.load_lora(convert(tensors), lora.model_lora_keys_unet(model, {}))
    return _patched(weights, patches, {}, lambda key, patch: lora.calculate_weight(
        [(multiplier, patch, 1.0, None, None)], weights[key].clone(), key
    ))  # fmt: skip


def _patched(
    weights: Weights, patches: dict[str, Any], unused: Weights, merge: Callable[[str, Any], Any]
) -> Weights:
    """As model patchers do it: patches of keys that the model lacks have no effect."""
    if unused:
        print("unused:", len(unused))
    return weights | {key: merge(key, patch) for key, patch in patches.items() if key in weights}


def _is_sdxl(folder: Path) -> bool:
    found = load_file(folder / "base.safetensors")
    return any(n.endswith("attn2.to_k.weight") and t.shape[1] == 2048 for n, t in found.items())


def main() -> None:
    """One host on one folder, at all multipliers."""
    host, sources, folder, *multipliers = sys.argv[1:]
    sys.argv = sys.argv[:1]
    run = {"a1111": a1111, "sdnext": sdnext, "forge": forge, "comfyui": comfyui}[host]
    for multiplier in multipliers:
        with torch.no_grad():
            made = run(Path(sources, host), Path(folder), float(multiplier))
        save_file(
            {f"model.{name}": tensor.contiguous() for name, tensor in made.items()},
            Path(folder, f"{host}{multiplier}.safetensors"),
        )


if __name__ == "__main__":
    main()
