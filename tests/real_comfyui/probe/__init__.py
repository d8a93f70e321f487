"""Nodes for the tests: sample with ``hypernetworks.apply`` by hand, and keep latents as files."""

import nodes
import torch

import hypernetworks as hn  # found by PYTHONPATH: another copy than the one under test


class ProbeSample:
    """KSampler with ``apply`` around it, told the step at each evaluation of Euler's method."""

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        names = (
            "MODEL",
            "CONDITIONING",
            "CONDITIONING",
            "LATENT",
            "STRING",
            "STRING",
            "INT",
            "FLOAT",
        )
        fields = (
            "model",
            "positive",
            "negative",
            "latent",
            "file",
            "multiplier",
            "steps",
            "denoise",
        )
        return {"required": {f: (n,) for f, n in zip(fields, names, strict=True)}}

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "run"

    def run(self, model, positive, negative, latent, file, multiplier, steps, denoise):
        unet = model.model.diffusion_model
        with torch.inference_mode(False):
            networks = [
                (hn.read(f), m) for f, m in zip(file.split("|"), multiplier.split("|"), strict=True)
            ]
        seen = []

        def at(_, arguments, named):
            sigma = float(named["transformer_options"]["sigmas"][0])
            if sigma not in seen:
                seen.append(sigma)
            handle.at(seen.index(sigma), steps)

        with hn.apply(unet, networks) as handle:
            hook = unet.register_forward_pre_hook(at, with_kwargs=True, prepend=True)
            try:
                return nodes.common_ksampler(
                    model, 1, steps, 2.0, "euler", "normal", positive, negative, latent, denoise
                )
            finally:
                hook.remove()


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


NODE_CLASS_MAPPINGS = {cls.__name__: cls for cls in (ProbeSample, ProbeKeep, ProbeFail)}
