"""Infotexts of other programs, in JSON: what they state is read, and the rest is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import hypernetworks as hn
from hypernetworks.errors import HypernetworkError
from hypernetworks.files import SUFFIXES
from hypernetworks.prompts import parse_infotext
from hypernetworks.studio.restoring import read_infotext, restore

USUAL = {
    "Steps": "20", "Sampler": "Euler a", "CFG scale": "7.5", "Seed": "5", "Size": "512x768",
}  # fmt: skip


def graph(**changes: Any) -> dict[str, Any]:
    """What ComfyUI writes under ``prompt``."""
    nodes: dict[str, Any] = {
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "seed": 5, "steps": 20, "cfg": 7.5, "sampler_name": "euler_ancestral",
                "scheduler": "normal", "denoise": 1, "model": ["10", 0], "positive": ["6", 0],
                "negative": ["7", 0], "latent_image": ["5", 0],
            },
        },
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "m.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 768}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "ugly", "clip": ["4", 1]}},
        "10": {
            "class_type": "HypernetworkLoader",
            "inputs": {"hypernetwork_name": "ink.pt", "strength": 0.8, "model": ["4", 0]},
        },
    }  # fmt: skip
    return {**nodes, **changes}


PLAIN = {
    "InvokeAI": {
        "positive_prompt": "a cat", "negative_prompt": "ugly", "width": 512, "height": 768,
        "seed": 5, "cfg_scale": 7.5, "steps": 20, "scheduler": "euler_a",
        "model": {"name": "m", "base": "sd-1"}, "clip_skip": 0,
    },
    "InvokeAI 2": {
        "model_weights": "m", "app_version": "2.3",
        "image": {
            "prompt": [{"prompt": "a cat", "weight": 1}], "negative_prompt": "ugly", "steps": 20,
            "cfg_scale": 7.5, "seed": 5, "sampler": "k_euler_a", "width": 512, "height": 768,
        },
    },
    "NovelAI": {
        "Description": "a cat", "steps": 20, "sampler": "k_euler_ancestral", "seed": 5,
        "scale": 7.5, "uc": "ugly", "width": 512, "height": 768, "noise": 0.2,
    },
    "SwarmUI": {
        "sui_image_params": {
            "prompt": "a cat", "negativeprompt": "ugly", "model": "m", "seed": 5, "steps": 20,
            "cfgscale": 7.5, "width": 512, "height": 768, "sampler": "euler_ancestral",
        },
        "sui_extra_data": {"date": "2026-01-01"},
    },
    "Fooocus": {
        "prompt": "a cat", "negative_prompt": "ugly", "steps": 20, "guidance_scale": 7.5,
        "seed": "5", "sampler": "euler_ancestral", "scheduler": "normal", "base_model": "m",
        "resolution": "(512, 768)", "fooocus_scheme": True,
    },
    "ComfyUI": graph(),
}  # fmt: skip


@pytest.mark.parametrize("program", list(PLAIN))
def test_what_other_programs_state_is_read(program: str) -> None:
    prompt, negative, pairs = parse_infotext("\ufeff" + json.dumps(PLAIN[program]))
    assert prompt.removesuffix(" <hypernet:ink:0.8>") == "a cat"
    assert negative == "ugly"
    assert {key: pairs.get(key) for key in USUAL} == USUAL
    assert pairs.get("Model", "m") == "m"


@pytest.mark.parametrize(
    ("changes", "prompt", "others"),
    [
        ({}, "a cat <hypernet:ink:0.8>", {}),
        (
            {
                "3": {
                    "class_type": "KSampler",
                    "inputs": {
                        **graph()["3"]["inputs"], "model": ["11", 0], "seed": ["12", 0],
                        "scheduler": "karras", "sampler_name": "dpmpp_2m", "positive": ["13", 0],
                    },
                },
                "11": {
                    "class_type": "HypernetworkApply",
                    "inputs": {
                        "name": "pen", "strength": 1, "attention": "cross", "blocks": "OUTALL",
                        "key": 1.0, "value": 0.5, "model": ["10", 0],
                    },
                },
                "12": {"class_type": "PrimitiveInt", "inputs": {"value": 77}},
                "13": {"class_type": "ConditioningCombine", "inputs": {"conditioning_1": ["6", 0]}},
            },
            "a cat <hypernet:ink:0.8> <hypernet:pen:1:attn=cross:v=0.5:lbw=OUTALL>",
            {
                "Seed": "77", "Sampler": "DPM++ 2M", "Schedule type": "Karras",
                "nodes": "ConditioningCombine, PrimitiveInt",
            },
        ),
        ({"6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["14", 0]}},
          "14": {"class_type": "StringConcatenate", "inputs": {"a": "a dog"}}},
         "a dog <hypernet:ink:0.8>", {"nodes": "StringConcatenate"}),
    ],
)  # fmt: skip
def test_graphs(changes: dict[str, Any], prompt: str, others: dict[str, str]) -> None:
    found, _, pairs = parse_infotext(json.dumps(graph(**changes)))
    assert found == prompt
    assert {key: pairs.get(key) for key in others} == others
    tags = hn.parse(found)[1]
    assert [tag.error for tag in tags] == [None] * len(tags)


def changed(number: str, **inputs: Any) -> dict[str, Any]:
    """The node of that number with other inputs."""
    node = graph()[number]
    return {number: {**node, "inputs": {**node["inputs"], **inputs}}}


@pytest.mark.parametrize("kind", ["ControlNetApplyAdvanced", "InpaintModelConditioning"])
@pytest.mark.parametrize("is_first", [True, False])
def test_other_nodes_with_a_positive_prompt_are_no_samplers(kind: str, is_first: bool) -> None:
    between = {
        "20": {
            "class_type": kind,
            "inputs": {"positive": ["6", 0], "negative": ["21", 0], "strength": 1.0},
        },
        "21": {"class_type": "ConditioningCombine", "inputs": {"conditioning_1": ["7", 0]}},
    }
    others = graph(**changed("3", positive=["20", 0], negative=["20", 1]))
    nodes = {**between, **others} if is_first else {**others, **between}
    prompt, negative, pairs = parse_infotext(json.dumps(nodes))
    assert (prompt, negative) == ("a cat <hypernet:ink:0.8>", "ugly")
    assert {key: pairs.get(key) for key in USUAL} == USUAL
    assert pairs["nodes"] == f"ConditioningCombine, {kind}"


@pytest.mark.parametrize("guider", ["CFGGuider", "BasicGuider"])
def test_a_sampler_made_of_several_nodes(guider: str) -> None:
    nodes = graph()
    del nodes["3"]
    prompts = (
        {"positive": ["6", 0], "negative": ["7", 0], "cfg": 7.5}
        if guider == "CFGGuider"
        else {"conditioning": ["6", 0]}
    )
    parts: dict[str, tuple[str, dict[str, Any]]] = {
        "30": (guider, {"model": ["10", 0], **prompts}),
        "31": ("RandomNoise", {"noise_seed": 5}),
        "32": ("KSamplerSelect", {"sampler_name": "euler_ancestral"}),
        "33": ("BasicScheduler", {"model": ["4", 0], "scheduler": "normal", "steps": 20}),
        "34": (
            "SamplerCustomAdvanced",
            {
                "noise": ["31", 0], "guider": ["30", 0], "sampler": ["32", 0],
                "sigmas": ["33", 0], "latent_image": ["5", 0],
            },
        ),
    }  # fmt: skip
    nodes |= {key: {"class_type": kind, "inputs": own} for key, (kind, own) in parts.items()}
    prompt, negative, pairs = parse_infotext(json.dumps(nodes))
    assert prompt == "a cat <hypernet:ink:0.8>"
    with_cfg = guider == "CFGGuider"
    assert negative == ("ugly" if with_cfg else "")
    assert {key: pairs.get(key) for key in USUAL} == {
        **USUAL, "CFG scale": "7.5" if with_cfg else None,
    }  # fmt: skip
    assert "nodes" not in pairs


def test_without_a_sampler_any_node_with_a_prompt_is_read() -> None:
    nodes = graph()
    nodes["3"] = {"class_type": "MySampler", "inputs": {"positive": ["6", 0]}}
    assert parse_infotext(json.dumps(nodes))[0] == "a cat"


@pytest.mark.parametrize(
    ("inputs", "tag"),
    [
        ({"strength": ["40", 0]}, "ink:0.6"),
        ({"strength": ["41", 0]}, "ink:1"),
        ({"strength": ["99", 0]}, "ink:1"),
        ({"strength": ["44", 0]}, "ink:1"),
        ({"hypernetwork_name": ["42", 0]}, "pen:0.8"),
        ({"hypernetwork_name": ["41", 0]}, None),
        ({"key": ["40", 0], "value": ["40", 0]}, "ink:0.8:k=0.6:v=0.6"),
        ({"attention": ["43", 0]}, "ink:0.8:attn=cross"),
        ({"blocks": ["41", 0]}, "ink:0.8"),
    ],
)
def test_inputs_that_come_from_other_nodes(inputs: dict[str, Any], tag: str | None) -> None:
    nodes = graph(**changed("10", **inputs)) | {
        "40": {"class_type": "PrimitiveFloat", "inputs": {"value": 0.6}},
        "41": {"class_type": "Computed", "inputs": {"a": ["40", 0]}},
        "42": {"class_type": "PrimitiveString", "inputs": {"value": "pen.ckpt"}},
        "43": {"class_type": "PrimitiveString", "inputs": {"value": "cross"}},
        "44": {"class_type": "PrimitiveString", "inputs": {"value": "1> <hypernet:pen"}},
    }
    prompt = parse_infotext(json.dumps(nodes))[0]
    assert prompt == ("a cat" if tag is None else f"a cat <hypernet:{tag}>")
    assert [found.error for found in hn.parse(prompt)[1]] == [None] * (tag is not None)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".PT"])
def test_a_tag_has_no_suffix_that_the_library_reads(suffix: str) -> None:
    nodes = graph(**changed("10", hypernetwork_name=f"sub\\ink{suffix}"))
    assert parse_infotext(json.dumps(nodes))[0] == "a cat <hypernet:sub\\ink:0.8>"
    own = {**PLAIN["NovelAI"], "use_hypernetwork_model": f"ink{suffix}"}
    assert parse_infotext(json.dumps(own))[0] == "a cat <hypernet:ink:1>"


@pytest.mark.parametrize("key", ["hypernetworks", "use_hypernetwork_model"])
@pytest.mark.parametrize(
    "value", [None, "ink", 3, {"a": 1}, ["ink"], [["ink", "1"]], [{"name": "ink", "strength": 1}]]
)
def test_a_key_that_brings_another_form_is_named_and_makes_no_tag(key: str, value: Any) -> None:
    if (key, value) == ("use_hypernetwork_model", "ink"):
        return
    prompt, _, pairs = parse_infotext(json.dumps({**PLAIN["NovelAI"], key: value}))
    assert prompt == "a cat"
    assert (key in pairs) == (value is not None)


@pytest.mark.parametrize("strength", [None, 0, [0.5], {"a": 1}])
def test_a_strength_of_another_form_is_1(strength: Any) -> None:
    own = {**PLAIN["NovelAI"], "use_hypernetwork_model": "ink", "hypernetwork_strength": strength}
    assert parse_infotext(json.dumps(own))[0] == "a cat <hypernet:ink:1>"


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}',
        "{cat|dog} in rain",
        "{",
        "[" * 5000,
        '{"x":' * 3000 + "1" + "}" * 3000,
        json.dumps({"1": {"class_type": "KSampler", "inputs": {"positive": ["1", 0]}}}),
        json.dumps({"1": {"class_type": "KSampler", "inputs": {"positive": [[], 0]}}}),
        json.dumps({"1": {"class_type": "KSampler"}}),
        json.dumps({"prompt": {"a": 1}, "steps": [1]}),
    ],
)
def test_other_text_is_no_such_infotext_and_no_error(text: str) -> None:
    prompt, _, _ = parse_infotext(text)
    assert prompt in (text, "")


def test_in_the_studio_all_of_it_is_used_or_named(tmp_path: Path) -> None:
    library = hn.Library([tmp_path])
    found = restore(json.dumps(PLAIN["NovelAI"]), library, "m")
    assert (found.prompt, found.steps, found.seed, found.width) == ("a cat", 20, 5, 512)
    assert found.messages == ["not used here, so the image may differ: noise: 0.2"]
    many = {**PLAIN["InvokeAI"], **{f"field{number}": number for number in range(60)}}
    (message,) = restore(json.dumps(many), library, "m").messages
    assert "field39: 39" in message
    assert "Further settings: 20" in message
    with pytest.raises(HypernetworkError, match="by hand"):
        restore('{"nodes": [], "links": []}', library, "m")


@pytest.mark.parametrize(
    ("chunks", "prompt"),
    [
        ({"prompt": json.dumps(graph()), "workflow": "{}"}, "a cat <hypernet:ink:0.8>"),
        ({"invokeai_metadata": json.dumps(PLAIN["InvokeAI"])}, "a cat"),
        ({"sd-metadata": json.dumps(PLAIN["InvokeAI 2"])}, "a cat"),
        ({"Description": "a cat", "Comment": '{"steps": 20, "uc": "ugly"}'}, "a cat"),
        ({"parameters": json.dumps(PLAIN["SwarmUI"])}, "a cat"),
    ],
)
def test_the_text_is_found_in_the_image(
    tmp_path: Path, chunks: dict[str, str], prompt: str
) -> None:
    texts = PngInfo()
    for key, value in chunks.items():
        texts.add_text(key, value)
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png", pnginfo=texts)
    assert parse_infotext(read_infotext(tmp_path / "x.png"))[0] == prompt


def test_the_graph_is_found_in_a_webp(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0110] = "prompt:" + json.dumps(graph())
    Image.new("RGB", (8, 8)).save(tmp_path / "x.webp", exif=exif)
    assert parse_infotext(read_infotext(tmp_path / "x.webp"))[1] == "ugly"
