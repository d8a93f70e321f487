"""A checkpoint with random weights: ``make_checkpoint.py KIND OUT``, run in ComfyUI's folder with
its Python.

``sd1`` has the first two levels of SD1.5's UNet; ``sdxl`` has the shape of Segmind Vega, which
ComfyUI loads as SDXL, in fp16.
"""

import sys
from pathlib import Path

kind, out = sys.argv[1:]
sys.argv = [sys.argv[0], "--cpu"]
sys.path.insert(0, str(Path.cwd()))

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.model_base as base  # noqa: E402
import comfy.supported_models as models  # noqa: E402
import comfy.utils  # noqa: E402
import torch  # noqa: E402
from comfy.ldm.models.autoencoder import AutoencoderKL  # noqa: E402
from comfy.sd1_clip import SDClipModel  # noqa: E402
from comfy.sdxl_clip import SDXLClipG  # noqa: E402

SHAPES = {
    "sd1": {
        "channel_mult": (1, 2),
        "num_res_blocks": [1, 1],
        "transformer_depth": [1, 1],
        "transformer_depth_output": [1] * 4,
        "transformer_depth_middle": 1,
    },
    "sdxl": {
        "channel_mult": (1, 2, 4),
        "num_res_blocks": [2, 2, 2],
        "transformer_depth": [0, 0, 1, 1, 2, 2],
        "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
        "transformer_depth_middle": -1,
        "num_classes": "sequential",
    },
}
COMMON = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "use_spatial_transformer": True,
    "legacy": False,
    "dtype": torch.float32,
}
VAE = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}


@torch.no_grad()
def drawn(module):
    """Numbers that keep the size of what goes through."""
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, parameter[0].numel() ** -0.5)
        else:
            parameter.fill_(float(name.endswith("weight")))
    return module


@torch.no_grad()
def unet():
    """Scaled so that it answers noise with noise."""
    kinds = {"sd1": models.SD15, "sdxl": models.Segmind_Vega}
    conf = kinds[kind](
        kinds[kind].unet_config | COMMON | SHAPES[kind] | kinds[kind].unet_extra_config
    )
    found = drawn(
        (base.SDXL if kind == "sdxl" else base.BaseModel)(conf, device="cpu").diffusion_model
    )
    known = conf.unet_config
    y = torch.randn(1, known["adm_in_channels"]) if known["adm_in_channels"] else None
    context = torch.randn(1, 77, known["context_dim"])
    noise = found(torch.randn(1, 4, 8, 8), torch.tensor([500.0]), context=context, y=y)
    found.out[2].weight.div_(noise.std())
    return found


@torch.no_grad()
def vae():
    """Scaled so that its images have contrast."""
    found = drawn(AutoencoderKL(ddconfig=VAE, embed_dim=4))
    found.decoder.conv_out.weight.mul_(0.45 / found.decode(torch.randn(1, 4, 8, 8)).std())
    return found


def texts():
    """Name in the checkpoint -> text encoder's parameters."""
    clip_l = drawn(SDClipModel(device="cpu", dtype=torch.float32)).transformer.state_dict()
    if kind == "sd1":
        names = {k: v for k, v in clip_l.items() if "text_projection" not in k}
        return {f"cond_stage_model.transformer.{k}": v for k, v in names.items()}

    clip_g = drawn(SDXLClipG(device="cpu", dtype=torch.float32)).transformer.state_dict()
    both = {"clip_l": clip_l, "clip_g": clip_g}
    return models.SDXL({}).process_clip_state_dict_for_saving(
        {f"{name}.transformer.{k}": v for name, found in both.items() for k, v in found.items()}
    )


torch.manual_seed(0)
parts = {f"model.diffusion_model.{k}": v for k, v in unet().state_dict().items()}
parts |= {f"first_stage_model.{k}": v for k, v in vae().state_dict().items()}
parts |= texts()
kept = torch.float16 if kind == "sdxl" else torch.float32
# A name of its own until it is complete: the next run takes what it finds.
half = Path(out).with_suffix(".half")
comfy.utils.save_torch_file(
    {k: v.to(kept if v.is_floating_point() else v.dtype).contiguous() for k, v in parts.items()},
    str(half),
)
half.rename(out)
