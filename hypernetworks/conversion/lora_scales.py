"""How strongly a LoRA in diffusers' layout acts: peft's settings, in the metadata of its file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointError, printable

SETTINGS = "lora_adapter_metadata"
"""Where diffusers keeps them, as JSON."""
_MOST_REPEATS = 3


class Scales:
    """The scales that peft's settings give to the modules of a LoRA; 1 where there are none.

    Args:
        metadata: of the file.
        name: of the file, for errors.

    Raises:
        CheckpointError: the settings can't be read.
    """

    def __init__(self, metadata: Mapping[str, str], name: str) -> None:
        self._name = name
        try:
            found = json.loads(metadata.get(SETTINGS, "{}"))
        except (ValueError, TypeError, RecursionError) as error:
            raise self._refused("isn't valid JSON: download it again") from error
        if not isinstance(found, dict):
            raise self._refused("is not a JSON object: download it again")
        self._settings: dict[str, Any] = found

    def _refused(self, why: str) -> CheckpointError:
        return CheckpointError(f"{self._name}: its {SETTINGS} {why}")

    def of(self, module: str, rank: int) -> float:
        """What the product of the factors of one module is multiplied by.

        Args:
            module: its name in the file, such as ``unet.mid_block.attentions.0.proj_in``.
            rank: of its factors. ``r`` and ``rank_pattern`` say the same, since peft loads no
                factors of another rank.

        Raises:
            CheckpointError: the settings can't be used.
        """
        prefix, name = self._place(module.removeprefix("base_model.model."))
        alpha = self._settings.get(f"{prefix}lora_alpha")
        patterns = self._settings.get(f"{prefix}alpha_pattern") or {}
        if not isinstance(patterns, dict):
            raise self._refused("has an alpha_pattern that is not a JSON object: download it again")

        alpha = next((own for pattern, own in patterns.items() if self._fits(pattern, name)), alpha)
        if alpha is None:
            return 1.0
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not abs(alpha) < 1e9:
            raise self._refused(
                f"has the alpha {printable(str(alpha)[:40])}, which can't be used: download it "
                "again"
            )
        return alpha / (math.sqrt(rank) if self._settings.get(f"{prefix}use_rslora") else rank)

    def _place(self, module: str) -> tuple[str, str]:
        """What the settings' names begin with for a module, and its name within its model."""
        # a pipeline's file has the settings of each of its models; a model's file has its own
        model, _, rest = module.partition(".")
        return (f"{model}.", rest) if f"{model}.lora_alpha" in self._settings else ("", module)

    def _fits(self, pattern: str, name: str) -> bool:
        """Whether a pattern of the settings means this module, by peft's own rule."""
        # a file may come from anyone, and such an expression can take forever
        if sum(map(pattern.count, "*+{")) > _MOST_REPEATS or re.search(r"\)[*+?{]", pattern):
            raise self._refused(
                f"has the pattern {printable(pattern, 60)}, which has too many repeats to be read: "
                "name the modules there in full"
            )
        try:
            return re.match(rf"(.*\.)?({pattern})$", name) is not None
        except (re.error, RecursionError, OverflowError) as error:
            raise self._refused(
                f"has the pattern {printable(pattern, 60)}, which is no regular expression: "
                "download it again"
            ) from error
