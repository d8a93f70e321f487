"""Loading whole models: tiny ones in the original layout, the shipped configurations at full size,
and wrong files.

The tiny checkpoints are made the other way round: diffusers and transformers models with random
weights, renamed to the original layout by tables of the tests' own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

os.environ["HF_HUB_OFFLINE"] = "1"
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
import transformers
from original_layout import MODELS, original

from hypernetworks.engine.network import Hypernetwork
from hypernetworks.engine.structure import Structure
from hypernetworks.errors import CheckpointError
from hypernetworks.files import write
from hypernetworks.hosts.diffusers.checkpoints.clip_tokenizer import build_tokenizer, vocabulary
from hypernetworks.hosts.diffusers.checkpoints.families import CONFIGURATIONS, read_contents
from hypernetworks.hosts.diffusers.checkpoints.loading import checkpoint_family, load_checkpoint
from hypernetworks.hosts.diffusers.checkpoints.original_names import (
    text_weights,
    unet_name,
    vae_name,
)

FAMILIES = ("sd1", "sd2", "sdxl")
TINY: dict[str, dict[str, dict[str, Any]]] = {
    "sd1": {
        "unet": {"cross_attention_dim": 32, "attention_head_dim": 2},
        "text_encoder": {"hidden_size": 32, "projection_dim": 32},
    },
    "sd2": {
        "unet": {"cross_attention_dim": 48, "attention_head_dim": [2, 4], "layers_per_block": 1},
        "text_encoder": {"hidden_size": 48, "projection_dim": 48},
    },
    "sdxl": {
        "unet": {
            "cross_attention_dim": 72,
            "attention_head_dim": [2, 4],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
            "transformer_layers_per_block": [1, 2],
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + 40,
        },
        "text_encoder": {"hidden_size": 32, "projection_dim": 32},
        "text_encoder_2": {"hidden_size": 40, "projection_dim": 40},
    },
}
TINY_UNET = {
    "block_out_channels": [32, 64],
    "norm_num_groups": 8,
    "sample_size": 8,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}
TINY_VAE = {
    "block_out_channels": [16, 32, 32],
    "norm_num_groups": 8,
    "layers_per_block": 1,
    "sample_size": 32,
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
}
TINY_TEXT = {"intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4}


# ---------------------------------------------------------------- tiny models


def edit(file: Path, changes: dict[str, Any]) -> None:
    file.write_text(
        json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8"
    )


def built(folder: Path, part: str) -> Any:
    """A model with the weights that its library draws."""
    library, kind = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))[part]
    config = json.loads((folder / part / "config.json").read_text(encoding="utf-8"))
    if library == "diffusers":
        return getattr(diffusers, kind).from_config(config)
    return getattr(transformers, kind)(transformers.CLIPTextConfig.from_dict(config))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configurations of small relatives of the three families."""
    root = tmp_path_factory.mktemp("configurations")
    for family in FAMILIES:
        shutil.copytree(CONFIGURATIONS / family, root / family)
        edit(root / family / "unet" / "config.json", TINY_UNET | TINY[family]["unet"])
        edit(root / family / "vae" / "config.json", TINY_VAE)
        for part in MODELS[family]:
            if part.startswith("text"):
                edit(root / family / part / "config.json", TINY_TEXT | TINY[family][part])
    return root


@pytest.fixture(scope="module")
def originals(tiny: Path) -> dict[str, dict[str, Any]]:
    """Random models of each family; norms and biases are random too, so that no two tensors are
    alike."""
    generator = torch.Generator().manual_seed(0)
    families = {
        family: {part: built(tiny / family, part) for part in MODELS[family]} for family in FAMILIES
    }
    for models in families.values():
        for model in models.values():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=generator) * 0.05
                parameter.data.add_(noise).copy_(
                    parameter.half().float()
                )  # exact in fp16 files too
    return families


@pytest.fixture(scope="module")
def files(
    tiny: Path, originals: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """One file per family; SD1 in fp32, the others in fp16."""
    folder, paths = tmp_path_factory.mktemp("models"), {}
    for family in FAMILIES:
        tensors = original(family, originals[family])
        dtype = torch.float32 if family == "sd1" else torch.float16
        paths[family] = folder / f"{family}.safetensors"
        save_file(
            {
                name: t.to(dtype if t.is_floating_point() else t.dtype).contiguous()
                for name, t in tensors.items()
            },
            paths[family],
        )
    return paths


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Models this small only lose time on threads, a great deal of it on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to reach a server fails the test, whatever the libraries' own settings say."""

    def refuse(*arguments: object) -> None:
        raise AssertionError("network access")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def assert_same_weights(
    pipeline: Any, models: dict[str, Any], dtype: torch.dtype = torch.float32
) -> None:
    for part, model in models.items():
        loaded, wanted = getattr(pipeline, part).state_dict(), model.state_dict()
        assert loaded.keys() == wanted.keys()
        for name, tensor in wanted.items():
            assert loaded[name].dtype == dtype
            assert torch.equal(loaded[name], tensor.to(dtype)), f"{part}.{name}"


def generate(pipeline: Any) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)
    generator = torch.Generator().manual_seed(1)
    latents = pipeline(
        "a cat!",
        num_inference_steps=2,
        height=32,
        width=32,
        output_type="latent",
        generator=generator,
    )
    return torch.as_tensor(latents.images)


# ---------------------------------------------------------------- files in the original layout


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_of_a_file_is_the_originals(
    family: str,
    tiny: Path,
    originals: dict[str, dict[str, Any]],
    files: dict[str, Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    pipeline = load_checkpoint(files[family], configurations=tiny)
    assert_same_weights(pipeline, originals[family])
    assert not any(getattr(pipeline, part).training for part in MODELS[family])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_own_reader_agrees(family: str, tiny: Path, files: dict[str, Path]) -> None:
    ours = load_checkpoint(files[family], configurations=tiny)
    tokenizers = {
        name: getattr(ours, name) for name in ("tokenizer", "tokenizer_2") if hasattr(ours, name)
    }
    theirs = type(ours).from_single_file(
        str(files[family]),
        config=str(tiny / family),
        local_files_only=True,
        torch_dtype=torch.float32,
        **tokenizers,
    )
    assert_same_weights(ours, {part: getattr(theirs, part) for part in MODELS[family]})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loaded_file_generates_what_the_originals_do(
    family: str, tiny: Path, originals: dict[str, dict[str, Any]], files: dict[str, Path]
) -> None:
    pipeline = load_checkpoint(files[family], configurations=tiny)
    latents = generate(pipeline)
    assert latents.shape == (1, 4, 8, 8)
    assert latents.isfinite().all()
    pipeline.register_modules(**{part: model.eval() for part, model in originals[family].items()})
    assert torch.equal(generate(pipeline), latents)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_are_cast_and_owned(
    dtype: torch.dtype,
    tiny: Path,
    originals: dict[str, dict[str, Any]],
    files: dict[str, Path],
    tmp_path: Path,
) -> None:
    copy = tmp_path / "copy.safetensors"
    shutil.copy(files["sd2"], copy)
    pipeline = load_checkpoint(copy, configurations=tiny, dtype=dtype)
    copy.write_bytes(bytes(copy.stat().st_size))  # the same inode: a mapping would show it
    assert_same_weights(pipeline, originals["sd2"], dtype)


def test_text_encoders_without_their_prefix_are_read(
    tiny: Path, originals: dict[str, Any], tmp_path: Path
) -> None:
    tensors = original("sd1", originals["sd1"])
    path = tmp_path / "merge.safetensors"
    save_file(
        {
            name.replace(".text_model.", "."): tensor.contiguous()
            for name, tensor in tensors.items()
        },
        path,
    )
    assert_same_weights(load_checkpoint(path, configurations=tiny), originals["sd1"])


def test_what_a_model_predicts(
    tiny: Path, originals: dict[str, Any], files: dict[str, Path], tmp_path: Path
) -> None:
    def predicted(path: Path, prediction: str | None = None) -> Any:
        return load_checkpoint(path, configurations=tiny, prediction=prediction).scheduler.config

    assert predicted(files["sd1"]).prediction_type == "epsilon"
    assert predicted(files["sd2"]).prediction_type == "epsilon"
    assert predicted(files["sd2"], "epsilon").prediction_type == "epsilon"
    tensors = {
        name: tensor.contiguous() for name, tensor in original("sd2", originals["sd2"]).items()
    }
    save_file(tensors, tmp_path / "base.safetensors", {"modelspec.prediction_type": "epsilon"})
    assert predicted(tmp_path / "base.safetensors").prediction_type == "epsilon"
    assert (
        predicted(tmp_path / "base.safetensors", "v_prediction").prediction_type == "v_prediction"
    )
    tensors = {
        name: tensor.contiguous() for name, tensor in original("sdxl", originals["sdxl"]).items()
    }
    save_file(
        tensors | {"v_pred": torch.zeros(1), "ztsnr": torch.zeros(1)},
        tmp_path / "velocity.safetensors",
    )
    marked = predicted(tmp_path / "velocity.safetensors")
    assert (marked.prediction_type, marked.rescale_betas_zero_snr) == ("v_prediction", True)
    with pytest.raises(CheckpointError, match="must be one of epsilon, v_prediction"):
        predicted(files["sd1"], "noise")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_an_sd2_file_that_says_nothing_is_asked(
    tiny: Path, originals: dict[str, Any], tmp_path: Path, dtype: torch.dtype
) -> None:
    """A UNet that predicts v answers pure noise with the opposite of an image: far below the
    noise.
    """
    tensors = {n: t.contiguous().clone() for n, t in original("sd2", originals["sd2"]).items()}
    for lowered, wanted in ((0.0, "epsilon"), (-3.0, "v_prediction")):
        tensors["model.diffusion_model.out.2.bias"] += lowered
        save_file(tensors, tmp_path / "base.safetensors")
        pipeline: Any = load_checkpoint(
            tmp_path / "base.safetensors", configurations=tiny, dtype=dtype
        )
        assert pipeline.scheduler.config.prediction_type == wanted
        assert "test of its UNet" in pipeline.prediction_source
        assert pipeline.unet.dtype == dtype
        bias = tensors["model.diffusion_model.out.2.bias"]
        assert torch.equal(pipeline.unet.conv_out.bias.detach(), bias.to(dtype))


# ---------------------------------------------------------------- diffusers folders


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_every_weight_of_a_folder_is_the_originals(
    family: str,
    tiny: Path,
    originals: dict[str, dict[str, Any]],
    files: dict[str, Path],
    tmp_path: Path,
    capfd: Any,
) -> None:
    load_checkpoint(files[family], configurations=tiny).save_pretrained(tmp_path)
    capfd.readouterr()
    pipeline = load_checkpoint(tmp_path, configurations=tiny, prediction="v_prediction")
    assert capfd.readouterr() == ("", "")
    assert_same_weights(pipeline, originals[family])
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert checkpoint_family(tmp_path, configurations=tiny) == family
    assert checkpoint_family(tmp_path) == "custom"
    assert generate(pipeline).isfinite().all()


def test_a_folder_in_half_precision_only(
    tiny: Path, originals: dict[str, dict[str, Any]], files: dict[str, Path], tmp_path: Path
) -> None:
    pipeline = load_checkpoint(files["sd1"], configurations=tiny, dtype=torch.float16)
    pipeline.save_pretrained(tmp_path, variant="fp16")
    assert_same_weights(load_checkpoint(tmp_path), originals["sd1"])


def test_a_safety_checker_is_left_out(tiny: Path, files: dict[str, Path], tmp_path: Path) -> None:
    load_checkpoint(files["sd1"], configurations=tiny).save_pretrained(tmp_path)
    checker = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    edit(
        tmp_path / "model_index.json", {"safety_checker": checker, "requires_safety_checker": True}
    )
    assert load_checkpoint(tmp_path).safety_checker is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unet/config.json": {"in_channels": 9}}, "inpainting model"),
        ({"unet/config.json": {"cross_attention_dim": 1280}}, "refiner"),
        (
            {"unet/config.json": {"cross_attention_dim": None}},
            "a StableDiffusionPipeline, which has no cross-attention",
        ),
        ({"unet/config.json": None}, "a StableDiffusionPipeline, which has no cross-attention"),
        (
            {"model_index.json": None},
            "no model_index.json, so it is not a diffusers model: name the folder that has one",
        ),
        ({"vae/config.json": None}, "it can't be loaded"),
    ],
)
def test_wrong_folders(
    changes: dict[str, dict[str, Any] | None], message: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(CONFIGURATIONS / "sd1", tmp_path / "folder")
    for name, change in changes.items():
        if change is None:
            (folder / name).unlink()
        else:
            edit(folder / name, change)
    with pytest.raises(CheckpointError, match=f"^folder: .*{re.escape(message)}"):
        load_checkpoint(folder)


def test_a_folder_around_a_file_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "dream.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"name a file in it, such as dream\.safetensors"):
        checkpoint_family(tmp_path)


def test_damaged_json_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"model_index\.json is damaged"):
        load_checkpoint(tmp_path)


# ---------------------------------------------------------------- wrong files

UNET = "model.diffusion_model."
WHOLE = {
    f"{UNET}input_blocks.0.0.weight": (32, 4, 3, 3),
    f"{UNET}out.2.weight": (4, 32, 3, 3),
    f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (32, 768),
    "cond_stage_model.transformer.text_model.final_layer_norm.bias": (768,),
    "first_stage_model.decoder.conv_in.bias": (8,),
}


def without(*starts: str) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in WHOLE.items() if not name.startswith(starts)}


def wide(width: int) -> dict[str, tuple[int, ...]]:
    return WHOLE | {f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (32, width)}


def entered_by(channels: int) -> dict[str, tuple[int, ...]]:
    return WHOLE | {f"{UNET}input_blocks.0.0.weight": (32, channels, 3, 3)}


@pytest.mark.parametrize(("width", "family"), [(768, "sd1"), (1024, "sd2"), (2048, "sdxl")])
def test_the_family_is_read_from_the_header_alone(width: int, family: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in wide(width).items()}, path)
    assert checkpoint_family(path) == family


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (wide(1280), "this is the SDXL refiner"),
        (wide(640), "a context of width 640, which no known model has"),
        (entered_by(9), "this is an inpainting model"),
        (entered_by(8), "this is an instruct-pix2pix model"),
        (WHOLE | {"edm_mean": (4,)}, "another noise schedule"),
        (without("cond_stage_model."), "it has a UNet but no text encoder"),
        (without("first_stage_model."), "it has a UNet but no VAE"),
        (without(UNET, "cond_stage_model."), "this is only a VAE"),
        ({"encoder.conv_in.weight": (8,)}, "this is only a VAE"),
        ({"text_model.final_layer_norm.bias": (8,)}, "this is only a text encoder"),
        ({"input_blocks.0.0.weight": (8,)}, "this is only a UNet"),
        ({"down_blocks.0.resnets.0.conv1.bias": (8,)}, "one part of a diffusers folder"),
        ({f"{UNET}double_blocks.0.img_mod.lin.bias": (8,)}, "this is a Flux model"),
        ({f"{UNET}joint_blocks.0.x_block.attn.qkv.bias": (8,)}, "this is an SD3 model"),
        ({"lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": (8,)}, "this is a LoRA"),
        ({"control_model.input_hint_block.0.bias": (8,)}, "this is a ControlNet"),
        ({"emb_params": (1, 768)}, "this is an embedding"),
        ({"768.k.linear.0.weight": (8, 8)}, "this is a hypernetwork, not a checkpoint"),
        ({"weight": (8,)}, "it holds no Stable Diffusion model"),
        (WHOLE, r"its .* has a different structure from .* tensors are missing"),
    ],
)
def test_wrong_files(
    tensors: dict[str, tuple[int, ...]], message: str, tmp_path: Path, tiny: Path
) -> None:
    path = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, path)
    wide_tiny = shutil.copytree(tiny, tmp_path / "configurations")
    edit(wide_tiny / "sd1" / "unet" / "config.json", {"cross_attention_dim": 768})
    with pytest.raises(CheckpointError, match=f"^model.safetensors: .*{message}") as caught:
        load_checkpoint(path, configurations=wide_tiny)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"PK\x03\x04rest", "this is a pickle .* convert it to .safetensors"),
        (b"\x80\x02rest", "this is a pickle"),
        (b"GGUF\x03", "quantised GGUF"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"<!doctype html>", "this is a web page"),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00{}", "damaged, incomplete or not a .safetensors"),
        (b"garbage garbage garbage", "damaged, incomplete or not a .safetensors"),
    ],
)
def test_files_of_other_formats(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"^model.ckpt: .*{message}"):
        load_checkpoint(path)


def test_a_header_may_have_any_length(tmp_path: Path) -> None:
    """A file begins with it, so some begin like a pickle."""
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(2)}, path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    for whole in range(length, length + 256):
        header = content[8 : 8 + length].ljust(whole)
        path.write_bytes(whole.to_bytes(8, "little") + header + content[8 + length :])
        assert read_contents(path).shapes == {"a": (2,)}


def test_a_missing_path(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"^none\.safetensors: there is no such file or folder$"
    ):
        load_checkpoint(tmp_path / "none.safetensors")


def test_a_truncated_file(files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    path.write_bytes(files["sd2"].read_bytes()[:-1000])
    with pytest.raises(
        CheckpointError, match=r"^half\.safetensors: the file is damaged, incomplete"
    ):
        checkpoint_family(path)


def test_a_hypernetwork_in_a_pickle_is_named_as_such(tmp_path: Path) -> None:
    write(Hypernetwork.create("style", Structure((1, 2, 1)), [32]), tmp_path / "style.pt")
    with pytest.raises(CheckpointError, match="this is a hypernetwork, not a checkpoint"):
        load_checkpoint(tmp_path / "style.pt")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("harm", ["missing", "reshaped", "added"])
def test_a_tensor_too_few_or_too_many(
    part: str, harm: str, tiny: Path, originals: dict[str, Any], tmp_path: Path
) -> None:
    tensors = {
        name: tensor.contiguous() for name, tensor in original("sd1", originals["sd1"]).items()
    }
    inner = {
        "unet": f"{UNET}middle_block.1.norm.weight",
        "vae": "first_stage_model.decoder.norm_out.weight",
        "text_encoder": "cond_stage_model.transformer.text_model.final_layer_norm.weight",
    }[part]
    if harm == "added":
        tensors[inner.replace("norm", "novelty")] = torch.zeros(3)
    else:
        tensor = tensors.pop(inner)
        tensors |= {inner: torch.cat([tensor, tensor])} if harm == "reshaped" else {}
    save_file(tensors, tmp_path / "odd.safetensors")
    if harm == "added" and part != "unet":  # harmless: left-overs of training
        assert_same_weights(
            load_checkpoint(tmp_path / "odd.safetensors", configurations=tiny), originals["sd1"]
        )
        return
    message = (
        "it is a model of a different size"
        if harm == "reshaped"
        else f"its {part} has a different structure"
    )
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "odd.safetensors", configurations=tiny)


# --- the shipped configurations, at full size

PARAMETERS = {
    ("sd1", "unet"): 859_520_964,
    ("sd2", "unet"): 865_910_724,
    ("sdxl", "unet"): 2_567_463_684,
    ("sd1", "vae"): 83_653_863,
    ("sd2", "vae"): 83_653_863,
    ("sdxl", "vae"): 83_653_863,
    ("sd1", "text_encoder"): 123_060_480,
    ("sd2", "text_encoder"): 340_387_840,
    ("sdxl", "text_encoder"): 123_060_480,
    ("sdxl", "text_encoder_2"): 694_659_840,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_shipped_configurations_are_the_public_models(family: str) -> None:
    with torch.device("meta"):
        models = {part: built(CONFIGURATIONS / family, part) for part in MODELS[family]}
    for part, model in models.items():
        assert sum(p.numel() for p in model.parameters()) == PARAMETERS[family, part]
    names = original(family, models)
    layers, levels = (
        models["unet"].config.layers_per_block,
        len(models["vae"].config.block_out_channels),
    )
    renamed: dict[str, set[str]] = {part: set() for part in models}
    for name, tensor in names.items():
        if name.startswith(UNET):
            renamed["unet"].add(str(unet_name(name.removeprefix(UNET), layers)))
        elif name.startswith("first_stage_model."):
            renamed["vae"].add(str(vae_name(name.removeprefix("first_stage_model."), levels)))
        elif match := re.match(r"(cond_stage_model|conditioner\.embedders\.([01]))\.", name):
            part = "text_encoder_2" if match[2] == "1" else "text_encoder"
            renamed[part] |= {new for new, _ in text_weights(name[match.end() :], tensor)}
    for part, model in models.items():
        wanted = {name.removeprefix("text_model.") for name in model.state_dict()}
        assert renamed[part] - {"embeddings.position_ids", "logit_scale"} == wanted


@pytest.mark.parametrize(
    "name",
    [
        # spot checks from the public files, so that the tables above are not only each other's
        # mirror
        ("input_blocks.4.0.skip_connection.weight", "down_blocks.1.resnets.0.conv_shortcut.weight"),
        ("input_blocks.3.0.op.bias", "down_blocks.0.downsamplers.0.conv.bias"),
        ("input_blocks.8.1.transformer_blocks.0.attn2.to_k.weight",
         "down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_k.weight"),
        ("middle_block.2.emb_layers.1.weight", "mid_block.resnets.1.time_emb_proj.weight"),
        ("output_blocks.2.1.conv.weight", "up_blocks.0.upsamplers.0.conv.weight"),
        ("output_blocks.5.2.conv.weight", "up_blocks.1.upsamplers.0.conv.weight"),
        ("output_blocks.11.0.skip_connection.weight", "up_blocks.3.resnets.2.conv_shortcut.weight"),
        ("time_embed.2.bias", "time_embedding.linear_2.bias"),
        ("diffusion_step", None),
    ],
)  # fmt: skip
def test_known_names(name: tuple[str, str | None]) -> None:
    assert unet_name(name[0], 2) == name[1]


# ---------------------------------------------------------------- tokenizers


def test_the_vocabulary_is_clips() -> None:
    ids = vocabulary()
    assert len(ids) == 49408
    known = {
        "!": 0,
        "!</w>": 256,
        "cat</w>": 2368,
        "<|startoftext|>": 49406,
        "<|endoftext|>": 49407,
        "in": 512,
    }
    assert {token: ids[token] for token in known} == known


@pytest.mark.parametrize(
    ("folder", "pad"),
    [
        ("sd1/tokenizer", 49407),
        ("sd2/tokenizer", 0),
        ("sdxl/tokenizer", 49407),
        ("sdxl/tokenizer_2", 0),
    ],
)
def test_token_ids(folder: str, pad: int) -> None:
    tokenizer = build_tokenizer(CONFIGURATIONS / folder)
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    padded = tokenizer("A  cat!", padding="max_length", max_length=77, truncation=True).input_ids
    assert (
        padded == [49406, 320, 2368, 256, 49407] + [pad] * 72
    )  # 256 is the "!" of a prompt, 0 that of the padding
    assert tokenizer("cat " * 99, truncation=True).input_ids == [49406] + [2368] * 75 + [49407]
    assert (tokenizer.model_max_length, len(tokenizer)) == (77, 49408)
    assert tokenizer("Ünïcödé 猫 42 <|endoftext|>").input_ids[-2:] == [49407, 49407]


# ---------------------------------------------------------------- manners


def test_the_libraries_settings_come_back(
    files: dict[str, Path], tiny: Path, tmp_path: Path
) -> None:
    def settings() -> list[Any]:
        loggers = (diffusers.utils.logging, transformers.utils.logging)
        return [(logger.get_verbosity(), logger.is_progress_bar_enabled()) for logger in loggers]

    before = settings()
    load_checkpoint(files["sd2"], configurations=tiny)
    assert settings() == before
    folder = shutil.copytree(CONFIGURATIONS / "sd1", tmp_path / "folder")
    with pytest.raises(CheckpointError):
        load_checkpoint(folder)
    assert settings() == before


def test_the_random_numbers_are_untouched(files: dict[str, Path], tiny: Path) -> None:
    before = torch.get_rng_state()
    load_checkpoint(files["sdxl"], configurations=tiny)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(CONFIGURATIONS / "sd1", tmp_path / "folder")
    monkeypatch.setitem(sys.modules, "diffusers.utils.logging", None)
    with pytest.raises(
        CheckpointError, match="diffusers is needed: pip install diffusers transformers"
    ):
        load_checkpoint(folder)


def test_importing_the_module_is_cheap() -> None:
    code = (
        "import sys, hypernetworks.hosts.diffusers.checkpoints.loading; "
        "sys.exit(bool({'diffusers', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
