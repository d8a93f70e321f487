"""What the tag handler assumes of Forge Neo, checked against its sources without running them.

``HYPERNETWORKS_WEBUI_SOURCES`` names the folder with ``neo/``. What Neo shares with the other
webuis is in ``test_webui_sources.py`` and ``test_webui_page_contract.py``.
"""

from __future__ import annotations

import pytest
from test_webui_other_hosts import _with_sources, in_order, text_of
from test_webui_sources import NEO, source


@pytest.fixture(autouse=True)
def neo() -> None:
    """Skips where the sources are missing."""
    _with_sources(NEO)


def test_denoiser() -> None:
    denoiser = source(NEO, "modules/sd_samplers_cfg_denoiser.py")
    begin = text_of(denoiser, "CFGDenoiser.__init__")
    for name in ("steps", "total_steps", "step", "sampler", "p"):
        assert f"self.{name} = " in begin, f"CFGDenoiser has no {name}"
    in_order(
        text_of(denoiser, "CFGDenoiser.forward"),
        "apply_refiner(self, x",
        "CFGDenoiserParams(x, image_cond, sigma, state.sampling_step, state.sampling_steps, cond, uncond, self)",
        "cfg_denoiser_callback(denoiser_params)",
        "sampling_function(",
        "cfg_after_cfg_callback(",
        "self.step += 1",
    )


def test_samplers() -> None:
    common = source(NEO, "modules/sd_samplers_common.py")
    for part in ("self.config", "self.sampler_extra_args", "self.model_wrap_cfg.p = p"):
        assert part in text_of(common, "Sampler"), part
    in_order(text_of(common, "total_steps"), "second_order", "steps * 2")


def test_networks_are_activated_again_after_the_refiner_and_in_the_hires_pass() -> None:
    refiner = text_of(source(NEO, "modules/sd_samplers_common.py"), "apply_refiner")
    assert refiner.count("extra_networks.activate(cfg_denoiser.p") == 2
    # One of its two ways exchanges the weights and keeps the UNet.
    in_order(refiner, "load_state_dict(model, sd)", "extra_networks.activate(", "return True")
    in_order(refiner, "forge_model_reload()", "extra_networks.activate(", "update_inner_model()")
    job = text_of(source(NEO, "modules/processing.py"), "StableDiffusionProcessingTxt2Img")
    in_order(job, "self.is_hr_pass = True", "extra_networks.activate(self")


def test_modules_of_the_hires_pass_may_load_another_model_before_it_begins() -> None:
    job = text_of(source(NEO, "modules/processing.py"), "StableDiffusionProcessingTxt2Img")
    in_order(
        job,
        "'Use same choices' not in self.hr_additional_modules",
        "forge_model_reload()",
        "extra_networks.activate(self, self.hr_extra_network_data)",
    )


def test_unet() -> None:
    assert "forge_objects.unet" in source(NEO, "modules/sd_samplers_common.py").text
    assert "self.diffusion_model = " in text_of(source(NEO, "backend/modules/k_model.py"), "KModel")
    attention = text_of(source(NEO, "backend/nn/unet.py"), "CrossAttention")
    for part in ("self.to_q(x)", "self.to_k(context)", "self.to_v("):
        assert part in attention, part


def test_linear_layers() -> None:
    """``dense.is_dense`` folds networks into a layer only where it computes with its weight."""
    operations = source(NEO, "backend/operations.py")
    layer = text_of(operations, "ForgeOperations.Linear")
    assert "if self.parameters_manual_cast:" in layer
    assert "linear(x, weight, bias)" in layer
    assert "for f in layer.weight_function:" in text_of(operations, "weights_manual_cast")
    online = text_of(source(NEO, "backend/patcher/base.py"), "ModelPatcher")
    assert "m.weight_function = [LowVramPatch(" in online, "how a LoRA is applied at each call"
    assert "class ForgeOperationsFP8(ForgeOperations):" in operations.text
    assert text_of(operations, "ForgeOperationsFP8").count("class Linear(") == 1


def test_how_it_compiles() -> None:
    """What ``host.compiles_each_call`` looks for."""
    script = source(NEO, "extensions-builtin/sd_forge_compile/scripts/compile.py")
    assert '_COMPILE_CONFIG_KEY = "_torch_compile_config"' in script.text
    in_order(
        text_of(script, "_wrap_apply_model"),
        "torch.compile(orig_model",
        "set_attr_raw(kmodel, 'diffusion_model', compiled)",
        "finally:",
        "set_attr_raw(kmodel, 'diffusion_model', orig_model)",
    )
    assert "delattr(kmodel, _COMPILE_CONFIG_KEY)" in text_of(script, "_remove_compile_wrapper")
