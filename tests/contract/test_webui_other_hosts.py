"""What the tag handler assumes of Forge Classic and of SD.Next, checked against their sources
without running them.

``HYPERNETWORKS_WEBUI_SOURCES`` names the folder with ``classic/`` and ``sdnext/``; those that are
missing are skipped. Settings, folders, infotexts, axes and the API are in
``test_webui_sources.py``, the tab in ``test_webui_page_contract.py``.
"""

from __future__ import annotations

import ast
import re

import pytest
from test_webui_sources import Source, has, source

from hypernetworks.hosts.webui import host as host_module
from hypernetworks.hosts.webui import sdnext

OTHERS = ("classic", "sdnext")


@pytest.fixture(params=OTHERS)
def host(request: pytest.FixtureRequest) -> str:
    """Both of them."""
    return _with_sources(str(request.param))


@pytest.fixture
def classic() -> str:
    """Forge Classic."""
    return _with_sources("classic")


@pytest.fixture
def sdnext_host() -> str:
    """SD.Next."""
    return _with_sources("sdnext")


def _with_sources(name: str) -> str:
    if not has(name, "modules/shared.py"):
        pytest.skip(f"no sources of {name} in HYPERNETWORKS_WEBUI_SOURCES")
    return name


def text_of(found: Source, dotted: str) -> str:
    """A function as ``ast`` writes it: without comments, in one style of quotes."""
    node = found.find(dotted)
    assert node is not None, f"{found.path} has no {dotted}"
    return ast.unparse(node)


def in_order(text: str, *parts: str) -> None:
    """Each part comes after the one before it."""
    position = 0
    for part in parts:
        found = text.find(part, position)
        assert found >= 0, (
            f"{text.splitlines()[0]}: {part!r} is missing, or not behind what comes before it in "
            f"{parts}"
        )
        position = found + len(part)


# both: registration, the handler, the job


def test_the_registry_is_filled_before_the_page_is_made(host: str) -> None:
    """So our handler, registered in ``on_before_ui``, is neither emptied out nor replaced."""
    if host == "classic":
        start = source(host, "modules/initialize.py")
        in_order(
            text_of(start, "initialize_rest"),
            "scripts.load_scripts()",
            "extra_networks.initialize()",
        )
        in_order(
            source(host, "webui.py").text,
            "initialize.initialize()",
            "script_callbacks.before_ui_callback()",
        )
        in_order(
            text_of(source(host, "webui.py"), "webui_worker"),
            "before_ui_callback()",
            "ui.create_ui()",
        )
        in_order(
            text_of(source(host, "webui.py"), "webui_worker"),
            "script_unloaded_callback()",
            "initialize_rest",
        )
    else:
        page = source(host, "webui.py")
        in_order(
            text_of(page, "initialize"),
            "scripts_manager.load_scripts()",
            "extra_networks.initialize()",
            "register_default_extra_networks()",
        )
        in_order(text_of(page, "webui"), "start_common()", "start_ui()", "load_model()")
        in_order(
            text_of(page, "start_ui"), "before_ui_callback()", "create_ui(", "app_started_callback("
        )


def test_extra_networks(host: str) -> None:
    networks = source(host, "modules/extra_networks.py")
    assert networks.parameters("register_extra_network") == ["extra_network"]
    assert "extra_network_registry[extra_network.name] = extra_network" in networks.text
    assert networks.parameters("ExtraNetwork.__init__") == ["self", "name"]
    assert networks.parameters("ExtraNetwork.activate")[:3] == ["self", "p", "params_list"]
    assert networks.parameters("ExtraNetwork.deactivate")[:2] == ["self", "p"]
    assert re.search(r"self\.items(: [\w\[\]]+)? = items or \[\]", networks.text)
    assert re.search(r"re\.compile\(r[\"']<\(\\w\+\):\(\[\^>\]\+\)>[\"']\)", networks.text), (
        "how tags are found"
    )
    activate = text_of(networks, "activate")
    assert "activate(p, [])" in activate, "a batch without tags is told to us, too"
    assert "except Exception" in activate


def test_a_job(host: str) -> None:
    """What we read and set on a processing object."""
    found = source(
        host, "modules/processing_class.py" if host == "sdnext" else "modules/processing.py"
    )
    text = text_of(found, "StableDiffusionProcessing")
    names = [
        "all_prompts",
        "prompts",
        "negative_prompts",
        "batch_size",
        "iteration",
        "disable_extra_networks",
    ]
    for name in [*names, "is_hr_pass", "extra_generation_params"]:
        assert re.search(rf"\b{name}\b", text), f"{host}'s jobs have no {name}"
    assert found.parameters("StableDiffusionProcessing.comment") == ["self", "text"]


def test_prompts_of_a_batch_are_a_slice_of_all_prompts(host: str) -> None:
    job = source(host, "modules/processing.py")
    assert job.parameters("process_images_inner") == ["p"]
    text = text_of(job, "process_images_inner").replace("(n * p.batch_size)", "n * p.batch_size")
    in_order(
        text,
        "p.iteration = n",
        "p.prompts = p.all_prompts[n * p.batch_size:(n + 1) * p.batch_size]",
    )
    in_order(text, "p.negative_prompts = p.all_negative_prompts[", "parse_")
    assert re.search(r"\bprocess_images_inner\(p\)", text_of(job, "process_images")), (
        "found by its name in the module"
    )


def test_the_result_shows_comments_and_the_api_parameters(host: str) -> None:
    result = source(host, "modules/processing.py")
    text = text_of(result, "Processed")
    assert "self.comments = " in text
    assert "self.extra_generation_params = p.extra_generation_params" in text
    assert '"extra_generation_params": self.extra_generation_params' in text.replace("'", '"')
    assert "plaintext_to_html(processed.comments" in source(host, "modules/txt2img.py").text


def test_callbacks_for_steps(host: str) -> None:
    """Classic calls them; SD.Next still has them, and nothing of its own calls them."""
    callbacks = source(host, "modules/script_callbacks.py")
    for name in ("on_cfg_denoiser", "on_cfg_after_cfg"):
        assert callbacks.parameters(name) == ["callback"]
    assert "denoiser" in callbacks.parameters("CFGDenoiserParams.__init__") or host == "sdnext"


def test_a_script_that_is_always_there(host: str) -> None:
    scripts = source(
        host, "modules/scripts_manager.py" if host == "sdnext" else "modules/scripts.py"
    )
    assert "AlwaysVisible" in scripts.assigned()
    for name in ("title", "show", "ui"):
        assert scripts.parameters(f"Script.{name}") == (
            ["self"] if name == "title" else ["self", "is_img2img"]
        )
    if host == "sdnext":
        assert "from modules.scripts_manager import *" in source(host, "modules/scripts.py").text


def test_nothing_else_is_called_hypernet(host: str) -> None:
    assert "ExtraNetworkHypernet" not in source(host, "modules/extra_networks.py").text
    assert not has(host, "modules/hypernetworks/hypernetwork.py")
    assert not has(host, "modules/ui_extra_networks_hypernets.py")


# Classic


def test_classic_denoiser(classic: str) -> None:
    denoiser = source(classic, "modules/sd_samplers_cfg_denoiser.py")
    begin = text_of(denoiser, "CFGDenoiser.__init__")
    for name in ("steps", "total_steps", "step", "sampler", "p"):
        assert f"self.{name} = " in begin, f"CFGDenoiser has no {name}"
    in_order(
        text_of(denoiser, "CFGDenoiser.forward"),
        "apply_refiner(self, x)",
        (
            "CFGDenoiserParams(x, image_cond, sigma, state.sampling_step, state.sampling_steps, "
            "cond, uncond, self)"
        ),
        "cfg_denoiser_callback(denoiser_params)",
        "forge_sampler.forge_sample(",
        "cfg_after_cfg_callback(",
        "self.step += 1",
    )


def test_classic_samplers(classic: str) -> None:
    """Steps and expected runs of a pass, from which the step in a schedule follows."""
    text = text_of(source(classic, "modules/sd_samplers_common.py"), "Sampler")
    for part in ("self.config", "self.sampler_extra_args", "self.model_wrap_cfg.p = p"):
        assert part in text, part
    in_order(
        text,
        "self.model_wrap_cfg.steps = steps",
        "self.model_wrap_cfg.total_steps = self.config.total_steps(steps)",
    )
    in_order(
        text_of(source(classic, "modules/sd_samplers_common.py"), "total_steps"),
        "second_order",
        "steps * 2",
    )


def test_classic_activates_again_after_the_refiner_and_in_the_hires_pass(classic: str) -> None:
    refiner = text_of(source(classic, "modules/sd_samplers_common.py"), "apply_refiner")
    in_order(refiner, "reload_model_weights(", "extra_networks.activate(", "update_inner_model()")
    job = source(classic, "modules/processing.py")
    in_order(
        text_of(job, "StableDiffusionProcessingTxt2Img"),
        "self.is_hr_pass = True",
        "extra_networks.activate(self",
    )
    assert "all_hr_prompts" in text_of(job, "StableDiffusionProcessingTxt2Img")
    assert "enable_hr" in text_of(job, "StableDiffusionProcessingTxt2Img")


def test_classic_unet(classic: str) -> None:
    sample = text_of(source(classic, "modules_forge/forge_sampler.py"), "forge_sample")
    assert "forge_objects.unet.model" in sample
    base = source(classic, "ldm_patched/modules/model_base.py")
    assert "self.diffusion_model = " in text_of(base, "BaseModel")
    calls = source(classic, "ldm_patched/modules/samplers.py").text
    assert 'transformer_options["cond_or_uncond"] = cond_or_uncond' in calls, (
        "which rows belong to which condition"
    )
    assert "current_unet_option" in source(classic, "modules/sd_unet.py").assigned()
    attention = text_of(source(classic, "ldm_patched/ldm/modules/attention.py"), "CrossAttention")
    for part in ("self.to_q(x)", "self.to_k(context)", "self.to_v("):
        assert part in attention, part


def test_classic_model_load_activates_with_a_bare_job(classic: str) -> None:
    assert "extra_networks.activate(p, {})" in text_of(
        source(classic, "modules/sd_models.py"), "get_empty_cond"
    )


# SD.Next


def test_sdnext_hands_the_step_over(sdnext_host: str) -> None:
    """``activate(p, args, step=step)``, and more for handlers that have parameters of these names:
    ours takes any."""
    networks = source(sdnext_host, "modules/extra_networks.py")
    text = text_of(networks, "activate")
    assert "extra_network.activate(p, extra_network_args, step=step)" in text
    assert "extra_network.deactivate(p, force=force)" in text_of(networks, "deactivate")
    assert "if p.disable_extra_networks" in text


def test_sdnext_takes_the_tags_of_the_last_prompt_that_has_any(sdnext_host: str) -> None:
    text = text_of(source(sdnext_host, "modules/extra_networks.py"), "parse_prompts")
    assert "elif parsed_extra_data:\n            extra_data = parsed_extra_data" in text


def test_sdnext_passes(sdnext_host: str) -> None:
    """Activation, arguments and run of each pass, in this order; the arguments' maker is found by
    its name."""
    passes = source(sdnext_host, "modules/processing_diffusers.py")
    assert "set_pipeline_args" in passes.assigned()
    base, hires, refine = (
        text_of(passes, f"process_{name}") for name in ("base", "hires", "refine")
    )
    in_order(
        base,
        "activate_filtered(p)",
        "set_pipeline_args(p=p, model=shared.sd_model",
        "shared.sd_model(**base_args)",
    )
    in_order(
        hires,
        "p.is_hr_pass = True",
        "p.network_data = extra_networks.parse_prompts(prompts)",
        "activate_filtered(p)",
    )
    in_order(
        hires,
        "set_pipeline_args(p=p, model=shared.sd_model",
        "shared.sd_model(**hires_args)",
        "is_hr_pass = False",
    )
    in_order(refine, "p.is_refiner_pass = True", "set_pipeline_args(p=p, model=shared.sd_refiner")
    in_order(refine, "shared.sd_refiner(**refiner_args)", "p.is_refiner_pass = False")
    for text in (base, hires, refine):
        for name in ("prompts=", "negative_prompts="):
            assert name in text, "as keywords"
    job = text_of(passes, "process_diffusers")
    in_order(
        job,
        "process_base(p)",
        "process_hires(p",
        "process_refine(p",
        "extra_networks.deactivate(p)",
    )
    assert (
        "from modules.processing_diffusers import process_diffusers"
        in source(sdnext_host, "modules/processing.py").text
    )


def test_sdnext_second_prompt(sdnext_host: str) -> None:
    text = text_of(
        source(sdnext_host, "modules/processing_class.py"), "StableDiffusionProcessing.__init__"
    )
    assert "self.refiner_prompt = refiner_prompt" in text
    assert "self.all_hr_prompts = []" in text
    hires = text_of(source(sdnext_host, "modules/processing_diffusers.py"), "process_hires")
    assert "len(output.images) * [p.refiner_prompt]" in hires


def test_sdnext_arguments_of_a_pipeline(sdnext_host: str) -> None:
    arguments = source(sdnext_host, "modules/processing_args.py")
    assert arguments.parameters("set_pipeline_args")[:4] == [
        "p",
        "model",
        "prompts",
        "negative_prompts",
    ]
    assert {"prompts_2", "negative_prompts_2"} <= set(arguments.parameters("set_pipeline_args"))
    text = text_of(arguments, "set_pipeline_args")
    for name in sdnext._STEP_CALLBACKS:
        assert f"args['{name}'] = diffusers_callback" in text, name
    assert "return _args" in text
    assert "_args[k] = v" in text, "callbacks are handed on as they are"
    assert "model = model.pipe" in text


def test_sdnext_step_callbacks(sdnext_host: str) -> None:
    callbacks = source(sdnext_host, "modules/processing_callbacks.py")
    assert callbacks.parameters("diffusers_callback") == ["pipe", "step", "timestep", "kwargs"]
    assert callbacks.parameters("diffusers_callback_legacy") == ["step", "timestep", "latents"]
    assert "pipe.num_timesteps" in text_of(callbacks, "diffusers_callback")
    assert "raise AssertionError" in text_of(callbacks, "diffusers_callback"), (
        "how a run is interrupted"
    )


def test_sdnext_detailer(sdnext_host: str) -> None:
    """A copy of the job, with extra networks disabled before its own activation, which therefore
    does nothing."""
    text = text_of(source(sdnext_host, "modules/detailer/detailer.py"), "restore")
    in_order(
        text,
        "pc = copy(p)",
        "pc.prompt = ",
        "pc.disable_extra_networks = True",
        "activate_filtered(pc",
        "pc.recursion = True",
        "processing.process_images_inner(pc)",
    )
    assert "'batch_size': 1" in text
    job = text_of(source(sdnext_host, "modules/processing.py"), "process_images_inner")
    in_order(job, "process_diffusers(p)", "process_samples(p")
    assert "shared.detailer.restore(" in text_of(
        source(sdnext_host, "modules/processing.py"), "process_samples"
    )


def test_sdnext_goes_on_with_the_last_job(sdnext_host: str) -> None:
    text = text_of(source(sdnext_host, "modules/processing_diffusers.py"), "restore_state")
    assert "p = last_p" in text


def test_sdnext_model(sdnext_host: str) -> None:
    holder = source(sdnext_host, "modules/modeldata.py")
    for name in ("sd_loaded", "sd_model", "sd_refiner"):
        assert holder.find(f"Shared.{name}") is not None, name
    assert "return model_data.sd_model is not None" in text_of(holder, "Shared.sd_loaded")
    assert "get_sd_model" in text_of(holder, "Shared.sd_model"), "to ask for it loads it"


def test_sdnext_log(sdnext_host: str) -> None:
    assert "log" in source(sdnext_host, "modules/logger.py").assigned()
    assert not has("classic", "modules/logger.py"), "the log of the others is the console"


def test_sdnext_compiling(sdnext_host: str) -> None:
    """What the setting offers: backends of ``torch.compile``, and others that put something else in
    place."""
    settings = source(sdnext_host, "modules/ui_definitions.py").text
    line = next(
        line for line in settings.splitlines() if '"cuda_compile_backend": OptionInfo' in line
    )
    offered = set(re.findall(r"'([^']+)'", line))
    assert set(host_module._FOREIGN_BACKENDS) <= offered
    torchs_own = {
        "none",
        "inductor",
        "cudagraphs",
        "aot_ts_nvfuser",
        "hidet",
        "migraphx",
        "ipex",
        "deep-cache",
    }
    assert offered == torchs_own | set(host_module._FOREIGN_BACKENDS), (
        "a new backend: of which kind is it?"
    )
    assert re.search(r'"cuda_compile": OptionInfo\(\[\].*"Compile Model"', settings)
    compiling = source(sdnext_host, "modules/sd_models_compile.py").text
    assert "torch.compile(" in compiling
    assert "compile_repeated_blocks(" in compiling


def test_sdnext_fused_projections(sdnext_host: str) -> None:
    assert (
        '"diffusers_fuse_projections": OptionInfo(False'
        in source(sdnext_host, "modules/ui_definitions.py").text
    )
    assert "sd_model.fuse_qkv_projections()" in source(sdnext_host, "modules/sd_models.py").text


def test_sdnext_restarts_as_a_new_process(sdnext_host: str) -> None:
    """There is no "Reload UI" within a process, and its purge of ``sys.modules`` doesn't matter to
    us."""
    in_order(text_of(source(sdnext_host, "launch.py"), "main"), "clean_server()", "os.execv(")


def test_sdnext_panel_is_not_in_the_control_tab(sdnext_host: str) -> None:
    """Scripts of extensions are left out there, but for a list of titles: cards and tags work there
    all the same."""
    text = text_of(source(sdnext_host, "modules/scripts_manager.py"), "ScriptRunner.add_script")
    assert "if is_control and script.external:" in text
    assert "Hypernetworks" not in source(sdnext_host, "installer.py").text


@pytest.mark.parametrize("host", ["a1111", "reforge", "classic"])
def test_to_ask_for_the_model_loads_it(host: str) -> None:
    """So ``host.loaded_model`` looks at ``model_data`` there."""
    _with_sources(host)
    data = text_of(source(host, "modules/sd_models.py"), "SdModelData")
    in_order(data, "self.sd_model = None", "self.was_loaded_at_least_once = False")
    in_order(data, "def get_sd_model(self)", "with self.lock", "load_model()")
    shared = text_of(source(host, "modules/shared_items.py"), "Shared")
    in_order(shared, "def sd_model(self)", "model_data.get_sd_model()")
