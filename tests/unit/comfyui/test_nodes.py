"""The nodes, on the fake ComfyUI: what they return, what they say, and when they run again."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from comfy_models import Patcher, conditioning, latent, sample, write
from conversion_cases import (
    PREFIX,
    checkpoint,
    merged,
    network,
    output,
    share_of_effect,
    small_unet,
)
from safetensors.torch import load_file

import hypernetworks as hn

ROOT = Path(__file__).parents[3]


def apply_node(comfy: Any, patcher: Patcher, name: str, **inputs: Any) -> Any:
    return comfy.nodes["HypernetworkApply"].execute(
        patcher, name, inputs.pop("strength", 0.7), **inputs
    )


def networks_of(model: Any) -> list[tuple[str, str]]:
    return [
        (a.network.name, str(a.multiplier)) for a in model.get_attachment("hypernetworks") or ()
    ]


def test_comfyui_loads_the_project_as_one_of_its_custom_nodes(comfy: Any) -> None:
    """By the path of its folder, as ComfyUI does it."""
    name = str(ROOT).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        extension = asyncio.run(module.comfy_entrypoint())
        nodes = asyncio.run(extension.get_node_list())
        assert len(nodes) == len({n.define_schema().node_id for n in nodes}) == 11
        assert (ROOT / module.WEB_DIRECTORY).is_dir()
    finally:
        for loaded in [n for n in sys.modules if n.startswith(name)]:
            del sys.modules[loaded]


def test_every_node_says_what_it_is_for(comfy: Any) -> None:
    for node in comfy.nodes.values():
        schema = node.define_schema()
        assert schema.display_name
        assert schema.category == "hypernetworks"
        assert len(schema.description) > 30


def test_lists_hold_all_suffixes_and_folders(comfy: Any) -> None:
    path = write(comfy.folder, "ink")
    (comfy.folder / "sub").mkdir()
    hn.write(hn.read(path), comfy.folder / "sub" / "ink.safetensors")
    assert comfy.networks.names() == ["ink.pt", "sub/ink.safetensors"]
    for name in comfy.networks.names():
        assert comfy.networks.file_name(comfy.networks.find(name)) == name
    assert comfy.networks.find("sub\\ink.safetensors").folder == "sub"


def test_apply_gives_a_clone(comfy: Any, patcher: Patcher) -> None:
    write(comfy.folder, "ink")
    (model,) = apply_node(
        comfy, patcher, "ink.pt", blocks="OUTALL", attention="cross", key=0.5
    ).args
    assert networks_of(model) == [("ink", "0.7:k=0.5:attn=cross:lbw=OUTALL")]
    assert networks_of(patcher) == []
    assert model.model is patcher.model


@pytest.mark.parametrize(
    ("name", "inputs", "said"),
    [
        ("absent.pt", {}, "absent"),
        ("damaged.pt", {}, "damaged"),
        ("foreign.pt", {}, "made for"),
        ("ink.pt", {"block_factors": "1,2"}, "block_factors: lbw has 2 numbers"),
    ],
)
def test_what_cannot_be_used_costs_a_message(
    comfy: Any, patcher: Patcher, name: str, inputs: dict[str, Any], said: str
) -> None:
    path = write(comfy.folder, "ink")
    (comfy.folder / "damaged.pt").write_bytes(path.read_bytes()[:2000])
    hn.write(hn.Hypernetwork.create("foreign", hn.Structure(), (768,)), comfy.folder / "foreign.pt")
    assert comfy.nodes["HypernetworkApply"].validate_inputs(name=name) is True
    output = apply_node(comfy, patcher, name, **inputs)
    assert output.args == (patcher,)
    assert said in output.ui["text"][0]
    assert comfy.told[-1][0] == "7"
    assert said in comfy.told[-1][1]


def test_a_schedule_is_scaled_by_the_strength(comfy: Any, patcher: Patcher) -> None:
    write(comfy.folder, "ink")
    schedule = comfy.nodes["HypernetworkSchedule"]
    (curve,) = schedule.execute("0@0,1@0.5", 0.25, 1.0).args
    (model,) = apply_node(comfy, patcher, "ink.pt", strength=2.0, schedule=curve).args
    assert networks_of(model) == [("ink", "0@0,2@0.5:start=0.25")]
    assert schedule.validate_inputs("0@0,1@0.5", 0.0, 1.0) is True
    assert "no position" in schedule.validate_inputs("0@0,1", 0.0, 1.0)


def test_tags_come_out_of_the_prompt(comfy: Any, patcher: Patcher) -> None:
    write(comfy.folder, "ink")
    write(comfy.folder, "night", seed=1)
    text = "a <hypernet:ink:0.5:hr=0>red<hypernet:absent> apple <hypernet:night>"
    output = comfy.nodes["HypernetworksFromPrompt"].execute(patcher, text)
    model, clean, messages, hires = output.args
    assert clean == "a red apple "
    assert "absent" in messages
    assert networks_of(model) == [("ink", "0.5:hr=0"), ("night", "1")]
    only_night = comfy.nodes["HypernetworksFromPrompt"].execute(patcher, "<hypernet:night>").args[0]
    assert torch.equal(sample(hires), sample(only_night))
    assert not torch.equal(sample(model), sample(only_night))


def test_without_tags_the_model_is_untouched(comfy: Any, patcher: Patcher) -> None:
    output = comfy.nodes["HypernetworksFromPrompt"].execute(patcher, "a red apple")
    assert output.args == (patcher, "a red apple", "", patcher)


def test_stacks_grow_and_can_be_chained(comfy: Any, patcher: Patcher) -> None:
    write(comfy.folder, "ink")
    write(comfy.folder, "night", seed=1)
    node = comfy.nodes["HypernetworkStack"]
    (first,) = node.execute(name_1="ink.pt", strength_1=0.5, name_2="None").args
    (both,) = node.execute(stack=first, name_1="night.pt", strength_1=0.25).args
    (model,) = comfy.nodes["HypernetworkApplyStack"].execute(patcher, both).args
    assert networks_of(model) == [("ink", "0.5"), ("night", "0.25")]


def test_a_node_runs_again_exactly_when_a_file_has_other_content(comfy: Any) -> None:
    path = write(comfy.folder, "ink")
    write(comfy.folder, "night", seed=1)
    prompt = comfy.nodes["HypernetworksFromPrompt"].fingerprint_inputs

    def prints() -> list[str]:
        return [
            comfy.nodes["HypernetworkApply"].fingerprint_inputs(name="ink.pt", strength=1.0),
            comfy.nodes["HypernetworkStack"].fingerprint_inputs(name_1="None", name_3="ink.pt"),
            prompt(text="a <hypernet:ink:0.5>"),
        ]

    before, other = prints(), prompt(text="a <hypernet:night>")
    os.utime(path, ns=(1, 1))
    assert prints() == before
    write(comfy.folder, "ink", seed=7)
    assert all(now != then for now, then in zip(prints(), before, strict=True))
    assert prompt(text="a <hypernet:night>") == other
    linked = prompt(text=None)
    write(comfy.folder, "ink", "tanh")
    assert prompt(text=None) != linked


def test_inspect_shows_a_page(comfy: Any) -> None:
    write(comfy.folder, "ink")
    image, text = comfy.nodes["HypernetworkInspect"].execute("ink.pt").args
    assert image.ndim == 4
    assert image.shape[-1] == 3
    assert image.min() == 0
    assert "activation: relu" in text
    missing = comfy.nodes["HypernetworkInspect"].execute("absent.pt")
    assert "absent" in missing.ui["text"][0]


def test_compare_makes_a_sheet(comfy: Any, patcher: Patcher) -> None:
    write(comfy.folder, "ink")
    write(comfy.folder, "night", seed=1)
    slots = {"name_1": "ink.pt", "name_2": "night.pt"}
    (stack,) = comfy.nodes["HypernetworkStack"].execute(**slots).args
    vae = SimpleNamespace(decode=lambda x: x[:, :3].permute(0, 2, 3, 1) / 8 + 0.5)
    how = {"seed": 1, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal"}
    node = comfy.nodes["HypernetworkCompare"]
    sheet, images = node.execute(
        patcher,
        stack,
        vae,
        "0, 1 1@0,0@1",
        **how,
        positive=[conditioning()],
        negative=[],
        latent_image={"samples": latent(1)},
        denoise=1.0,
    ).args
    assert images.shape == (6, 8, 8, 3)
    assert torch.equal(images[0], images[3])
    assert not torch.equal(images[1], images[4])
    assert sheet.shape[0] == 1
    assert node.validate_inputs("0 1") is True
    assert "abc" in node.validate_inputs("0 abc")


def test_example_workflows_use_nodes_that_exist_and_links_that_fit(comfy: Any) -> None:
    paths = sorted((ROOT / "example_workflows").glob("*.json"))
    used = set()
    for path in paths:
        workflow = json.loads(path.read_text(encoding="utf-8"))
        nodes = {node["id"]: node for node in workflow["nodes"]}
        for number, source, slot, target, place, kind in workflow["links"]:
            assert number in nodes[source]["outputs"][slot]["links"]
            assert nodes[source]["outputs"][slot]["type"] == kind
            assert nodes[target]["inputs"][place]["link"] == number
        for node in nodes.values():
            if node["type"].startswith("Hypernetwork"):
                used.add(node["type"])
                schema = comfy.nodes[node["type"]].define_schema()
                names = {field.id for field in schema.inputs}
                assert {entry["name"] for entry in node["inputs"]} <= names
                kinds = [field.io_type for field in schema.outputs]
                assert [output["type"] for output in node["outputs"]] == kinds
    assert len(paths) == 8
    makers = {"HypernetworkToLora", "HypernetworkBake", "HypernetworkMerge"}
    assert used == set(comfy.nodes) - {"HypernetworkInspect"} - makers


def test_every_node_has_a_help_page(comfy: Any) -> None:
    pages = ROOT / "hypernetworks/hosts/comfyui/web/docs"
    assert {page.stem for page in pages.glob("*.md")} == set(comfy.nodes)


def linear_stack(comfy: Any, strength: float = 0.7) -> Any:
    hn.write(network("line", 1), comfy.folder / "line.safetensors")
    inputs = {"name_1": "line.safetensors", "strength_1": strength}
    return comfy.nodes["HypernetworkStack"].execute(**inputs).args[0]


def test_linear_networks_are_written_as_lora_and_checkpoint(comfy: Any) -> None:
    base, stack = comfy.models / "checkpoints" / "base.safetensors", linear_stack(comfy)
    checkpoint(base, small_unet())
    before = base.read_bytes()
    node = comfy.nodes["HypernetworkToLora"]
    assert node.define_schema().inputs[1].options["options"] == ["base.safetensors"]
    how = {"checkpoint": "base.safetensors", "format": "kohya", "rank": 0, "dtype": "fp32"}
    with torch.inference_mode():  # as ComfyUI runs nodes
        (name,) = node.execute(stack, filename="mine/style", **how).args
        (again,) = node.execute(stack, filename="mine/style", **how).args
        bake = comfy.nodes["HypernetworkBake"]
        (baked,) = bake.execute(stack, "base.safetensors", "new").args
    assert (name, again) == ("mine/style.safetensors", "mine/style_2.safetensors")
    assert baked == "new.safetensors"
    assert base.read_bytes() == before

    plain, made = small_unet(), small_unet()
    assert merged(made, comfy.models / "loras" / name, 1.0) == []
    with hn.apply(plain, [(network("line", 1), 0.7)]):
        wanted = output(plain)
    assert share_of_effect(output(made), wanted, output(plain)) < 1e-4
    tensors = load_file(comfy.models / "checkpoints" / baked)
    state = {n.removeprefix(PREFIX): t for n, t in tensors.items() if n.startswith(PREFIX)}
    made.load_state_dict(state)
    assert share_of_effect(output(made), wanted, output(plain)) < 1e-4


def test_a_stack_is_written_as_one_network(comfy: Any) -> None:
    with torch.inference_mode():
        done = comfy.nodes["HypernetworkMerge"].execute(linear_stack(comfy), "both", "fp16")
    assert done.args == ("both.safetensors",)
    assert "the same as applying" in done.ui["text"][1]
    assert "both.safetensors" in comfy.networks.names()


@pytest.mark.parametrize(
    "name", ["", "../up", "/etc/x", "C:\\x", "C:x", "a/../../x", "\\\\host\\x"]
)
def test_a_workflow_does_not_choose_where_it_writes(comfy: Any, name: str) -> None:
    with pytest.raises(hn.HypernetworkError, match="can't be a file name"):
        comfy.nodes["HypernetworkMerge"].execute(linear_stack(comfy), name, "fp16")


def test_what_cannot_be_written_is_an_error_on_the_node(comfy: Any) -> None:
    checkpoint(comfy.models / "checkpoints" / "base.safetensors", small_unet())
    bake = comfy.nodes["HypernetworkBake"].execute
    with pytest.raises(hn.HypernetworkError, match="the stack is empty"):
        bake((), "base.safetensors", "x")
    write(comfy.folder, "ink")
    (stack,) = comfy.nodes["HypernetworkStack"].execute(name_1="ink.pt").args
    with pytest.raises(hn.HypernetworkError, match='"ink" is not linear'):
        bake(stack, "base.safetensors", "x")
    sys.modules["comfy.model_management"].INTERRUPTED.append(True)
    with pytest.raises(sys.modules["comfy.model_management"].InterruptProcessingException):
        bake(linear_stack(comfy), "base.safetensors", "x")
    assert [path.name for path in (comfy.models / "checkpoints").iterdir()] == ["base.safetensors"]
