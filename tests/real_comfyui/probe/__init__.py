"""Nodes for the tests: sample with networks applied by hand, keep latents as files, and fail."""

import json
import re

import nodes
import torch

import hypernetworks as hn  # found by PYTHONPATH: another copy than the one under test

from .timing import ProbeTime


class ProbeSample:
    """KSampler with networks around it, and none of our nodes.

    ``spec`` is JSON: ``networks`` (file, multiplier), ``how`` (``apply``, or ``plain`` for
    AUTOMATIC1111's arithmetic in a hook on each projection, with files of ``torch.nn`` modules),
    ``only`` (a pattern for names of projections, where ``how`` is ``plain``), ``calls`` (the step
    of each UNet call; without it, each new sigma is one), and a sampler's settings.
    """

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        names = ("MODEL", "CONDITIONING", "CONDITIONING", "LATENT", "STRING")
        fields = ("model", "positive", "negative", "latent", "spec")
        return {"required": {f: (n,) for f, n in zip(fields, names, strict=True)}}

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "run"

    def run(self, model, positive, negative, latent, spec):
        asked = json.loads(spec)
        around = _apply if asked["how"] == "apply" else _plain
        unet = model.model.diffusion_model
        remove = around(unet, asked)
        try:
            return nodes.common_ksampler(
                model,
                asked["seed"],
                asked["steps"],
                asked["cfg"],
                asked["sampler_name"],
                "normal",
                positive,
                negative,
                latent,
                asked["denoise"],
            )
        finally:
            remove()


def _apply(unet, asked):
    with torch.inference_mode(False):
        networks = [(hn.read(file), multiplier) for file, multiplier in asked["networks"]]
    handle, seen, calls = hn.apply(unet, networks), [], asked.get("calls")
    order = iter(calls or ())
    total = round(asked["steps"])

    def at(_, arguments, named):
        if calls:
            handle.at(next(order), total)
            return
        sigma = float(named["transformer_options"]["sigmas"][0])
        if sigma not in seen:
            seen.append(sigma)
        handle.at(seen.index(sigma), total)

    hook = unet.register_forward_pre_hook(at, with_kwargs=True, prepend=True)

    def remove():
        hook.remove()
        handle.remove()
        assert not calls or next(order, None) is None, "the UNet ran less often than expected"

    return remove


def _plain(unet, asked):
    networks = [
        (torch.load(file, weights_only=False), float(multiplier))
        for file, multiplier in asked["networks"]
    ]
    only = re.compile(asked.get("only", ""))

    def changing(side):
        def change(_, arguments):
            x = arguments[0]
            for pairs, multiplier in networks:
                if x.shape[-1] in pairs:
                    x = x + multiplier * pairs[x.shape[-1]][side](x)
            return (x, *arguments[1:])

        return change

    hooks = [
        module.register_forward_pre_hook(changing("kv".index(name[-1])))
        for name, module in unet.named_modules()
        if name.endswith((".to_k", ".to_v")) and only.search(name)
    ]
    return lambda: [hook.remove() for hook in hooks]


class ProbeKeep:
    """Writes a latent to a file, and says whether the UNet is as it was."""

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"latent": ("LATENT",), "model": ("MODEL",), "file": ("STRING",)}}

    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True

    def run(self, latent, model, file):
        torch.save(latent["samples"].clone(), file)
        left = [
            name
            for name, m in model.model.diffusion_model.named_modules()
            if "forward" in vars(m) or m._forward_hooks or m._forward_pre_hooks
        ]
        return {"ui": {"left": left}}


class ProbeFail:
    """A node of another pack that fails in the middle of sampling."""

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"model": ("MODEL",)}}

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "run"

    def run(self, model):
        model = model.clone()

        def fail(arguments):
            raise RuntimeError("the probe fails")

        model.set_model_sampler_post_cfg_function(fail)
        return (model,)


NODE_CLASS_MAPPINGS = {cls.__name__: cls for cls in (ProbeSample, ProbeKeep, ProbeFail, ProbeTime)}
