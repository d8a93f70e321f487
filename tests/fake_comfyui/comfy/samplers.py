"""Names of samplers, and the guider: runs the UNet once per group of conditionings with equal
hooks.
"""

from __future__ import annotations

from typing import Any

import torch

from .hooks import EnumHookScope
from .patcher_extension import WrapperExecutor, WrappersMP


class KSampler:
    """Lists for nodes."""

    SAMPLERS = ("euler", "heun")
    SCHEDULERS = ("normal",)


class CFGGuider:
    """Samples a model.

    Args:
        model_patcher: the model.
    """

    def __init__(self, model_patcher: Any) -> None:
        self.model_patcher = model_patcher
        self.model_options: dict[str, Any] = {}
        self.conds: list[Any] = []

    def _wrappers(self, kind: str) -> list[Any]:
        wrappers = self.model_options["transformer_options"]["wrappers"]
        return [w for found in wrappers.get(kind, {}).values() for w in found]

    def sample(self, noise: Any, sampler: Any, sigmas: torch.Tensor) -> torch.Tensor:
        """One pass."""
        wrappers: dict[str, Any] = {}
        hooked = [h for _, v in self.conds if v.get("hooks") for h in v["hooks"].hooks]
        for source in (
            self.model_patcher.wrappers,
            *(
                h.transformers_dict["wrappers"]
                for h in hooked
                if h.hook_scope is EnumHookScope.AllConditioning
            ),
        ):
            for kind, by_key in source.items():
                for key, functions in by_key.items():
                    wrappers.setdefault(kind, {}).setdefault(key, []).extend(functions)
        self.model_options = {"transformer_options": {"wrappers": wrappers}}
        outer = WrapperExecutor(self.outer_sample, self, self._wrappers(WrappersMP.OUTER_SAMPLE))
        return outer.execute(noise, None, sampler, sigmas)  # type: ignore[no-any-return]

    def outer_sample(self, noise: Any, _: Any, sampler: Any, sigmas: torch.Tensor) -> Any:
        return sampler.sampler_function(self, noise, sigmas)

    def evaluate(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """What a sampler calls."""
        inner = WrapperExecutor(self.predict_noise, self, self._wrappers(WrappersMP.PREDICT_NOISE))
        return inner.execute(x, sigma.reshape(1), self.model_options, 0)  # type: ignore[no-any-return]

    def predict_noise(
        self, x: torch.Tensor, timestep: Any, model_options: Any = None, seed: Any = None
    ) -> torch.Tensor:
        model, result = self.model_patcher.model, torch.zeros_like(x)
        for context, values in self.conds:
            options = dict(model_options["transformer_options"])
            for hook in values["hooks"].hooks if values.get("hooks") else ():
                if hook.hook_scope is EnumHookScope.HookedOnly:
                    for key, found in hook.transformers_dict.items():
                        options[key] = [*options.get(key, []), *found]
            run = WrapperExecutor(model.run, model, self._wrappers(WrappersMP.APPLY_MODEL))
            result = result + run.execute(x, timestep, None, context, None, options)
        return result
