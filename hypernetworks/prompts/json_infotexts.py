"""The settings that other programs write into images as JSON, by AUTOMATIC1111's names.

====================  ==============================================================================
program               what it writes
====================  ==============================================================================
ComfyUI               ``prompt``: the nodes that ran, by number
InvokeAI              ``invokeai_metadata``; until version 2, ``sd-metadata``
NovelAI               ``Comment``, and the prompt of old ones in ``Description``
SwarmUI, Fooocus,     an object with the settings
Easy Diffusion
====================  ==============================================================================
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .comfyui_graphs import is_graph, settings_of_graph
from .tags import Tag

MOST_VALUES = 40
"""Settings without a name in AUTOMATIC1111's infotext that are kept; further ones are counted."""
_WRAPPERS = ("sui_image_params", "image", "meta", "metadata")
_KEYS = {
    "Steps": ("steps", "num_inference_steps"),
    "Sampler": ("sampler", "sampler_name", "scheduler"),
    "CFG scale": ("cfg_scale", "cfgscale", "guidance_scale", "scale", "cfg"),
    "Seed": ("seed", "noise_seed"),
    "Model": ("model", "base_model", "use_stable_diffusion_model", "model_weights"),
}
"""AUTOMATIC1111's names, and what other programs call the same, the best first."""
_PROMPT = ("positive_prompt", "prompt", "Description")
_NEGATIVE = ("negative_prompt", "negativeprompt", "uc")
_SAMPLERS = {
    "euler": "Euler",
    "euler_a": "Euler a",
    "euler_ancestral": "Euler a",
    "ddim": "DDIM",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_k": "DPM++ 2M Karras",
    "uni_pc": "UniPC",
    "unipc": "UniPC",
    "heun": "Heun",
    "pndm": "PNDM",
    "plms": "PNDM",
}
_SUFFIX = re.compile(r"\.(pt|safetensors|bin|ckpt|pth)$", re.IGNORECASE)
"""The suffixes of :data:`hypernetworks.files.SUFFIXES`."""
_SCHEDULES = {"normal": "Automatic", "native": "Automatic", "karras": "Karras"}


def parse_json_infotext(text: str) -> tuple[str, str, dict[str, str]] | None:
    """Prompt, negative prompt and settings of an infotext that is JSON; ``None`` for another text.

    What has no name in AUTOMATIC1111's infotext keeps its own, so that nothing gets lost unsaid.
    """
    try:
        found = json_object(text)
        if found is None:
            return None
        settings, networks = (
            settings_of_graph(found) if is_graph(found) else (_unwrapped(found), [])
        )
        return _named_as_usual(settings, networks) if settings else None
    except RecursionError:  # nested as no program writes it
        return None


def json_object(text: str) -> dict[str, Any] | None:
    """The object that a text is in JSON; ``None`` for any other text."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _unwrapped(found: Mapping[str, Any]) -> dict[str, Any]:
    """The object that holds the settings, and what stands beside it."""
    settings = dict(found)
    for name in _WRAPPERS:
        inner = settings.pop(name, None)
        if isinstance(inner, dict):
            settings = {**settings, **inner}
        elif inner is not None:
            settings[name] = inner

    known = {key for keys in _KEYS.values() for key in keys} | {*_PROMPT, *_NEGATIVE}
    return settings if len(settings.keys() & known) > 1 else {}


def _named_as_usual(
    settings: dict[str, Any], networks: Sequence[tuple[str, str]]
) -> tuple[str, str, dict[str, str]]:
    prompt = _words(_taken(settings, _PROMPT))
    negative = _words(_taken(settings, _NEGATIVE))
    prompt += "".join(f" {tag}" for tag in _hypernetworks(settings, networks))

    schedule = settings.pop("scheduler", None) if _has_sampler(settings) else None
    pairs = {name: _text(_taken(settings, keys)) for name, keys in _KEYS.items()}
    pairs["Sampler"] = _sampler(pairs["Sampler"])
    pairs["Schedule type"] = _SCHEDULES.get(_text(schedule), _text(schedule))
    pairs["Size"] = _size(settings)
    skipped = settings.pop("clip_skip", None)  # layers, which A1111 counts from 1
    pairs["Clip skip"] = str(skipped + 1) if isinstance(skipped, int) else _text(skipped)
    pairs["Model"] = re.sub(r"\.(safetensors|ckpt)$", "", pairs["Model"])

    rest = [(key, written) for key, value in settings.items() if (written := _text(value))]
    for key, written in rest[:MOST_VALUES]:
        pairs.setdefault(key, written)
    if len(rest) > MOST_VALUES:
        pairs["Further settings"] = str(len(rest) - MOST_VALUES)
    return prompt.strip(), negative, {key: value for key, value in pairs.items() if value}


def _has_sampler(settings: Mapping[str, Any]) -> bool:
    return any(settings.get(key) for key in ("sampler", "sampler_name"))


def _taken(settings: dict[str, Any], keys: tuple[str, ...]) -> Any:
    """The first of these that says something; all of them are removed."""
    values = [settings.pop(key, None) for key in keys]
    return next((value for value in values if value not in (None, "", [])), None)


def _words(value: Any) -> str:
    """A prompt; InvokeAI's early ones are a list of texts with weights."""
    parts = value if isinstance(value, list) else [value]
    texts = [part.get("prompt") if isinstance(part, dict) else part for part in parts]
    return " ".join(text.strip() for text in texts if isinstance(text, str))


def _hypernetworks(settings: dict[str, Any], networks: Sequence[tuple[str, str]]) -> Iterator[Tag]:
    """Easy Diffusion's network, and those of ComfyUI's nodes."""
    own, strength = (
        settings.pop(key, None) for key in ("use_hypernetwork_model", "hypernetwork_strength")
    )
    if isinstance(own, str) and own:
        is_plain = isinstance(strength, (int, float, str))
        networks = [*networks, (own, str((is_plain and strength) or 1))]
    elif own:  # of another form: it keeps its own name among the settings
        settings |= {"use_hypernetwork_model": own, "hypernetwork_strength": strength}
    for name, multiplier in networks:
        if not any(sign in name for sign in ":>"):
            yield Tag.of(_SUFFIX.sub("", name), multiplier)


def _sampler(name: str) -> str:
    plain = name.lower().removeprefix("k_").replace(" ", "_").replace("euler_a_", "euler_a")
    return _SAMPLERS.get(plain, name)


def _size(settings: dict[str, Any]) -> str:
    width, height = _text(settings.pop("width", None)), _text(settings.pop("height", None))
    numbers = re.findall(r"\d+", _text(settings.pop("resolution", None)))
    if width and height:
        return f"{width}x{height}"
    return "x".join(numbers) if len(numbers) == 2 else ""


def _text(value: Any) -> str:
    """A value as an infotext has it; nothing for what says nothing."""
    if isinstance(value, dict):  # InvokeAI's models
        named = value.get("name", value.get("model_name"))
        if isinstance(named, str):
            return named
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        return str(int(value))
    if value is None or value is False or value in ("", [], {}):
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
