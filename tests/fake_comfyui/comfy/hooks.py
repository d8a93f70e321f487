"""What a conditioning carries for the calls that it is part of."""

from __future__ import annotations

import enum
from typing import Any


class EnumHookScope(enum.Enum):
    """Which conditionings a hook acts on."""

    AllConditioning = "all_conditioning"
    HookedOnly = "hooked_only"


class TransformerOptionsHook:
    """Adds to the options of a UNet call."""

    def __init__(
        self,
        transformers_dict: dict[str, Any] | None = None,
        hook_scope: EnumHookScope = EnumHookScope.AllConditioning,
    ) -> None:
        self.transformers_dict, self.hook_scope = transformers_dict or {}, hook_scope


class HookGroup:
    """Several hooks."""

    def __init__(self) -> None:
        self.hooks: list[Any] = []

    def add(self, hook: Any) -> None:
        self.hooks.append(hook)


def set_hooks_for_conditioning(cond: Any, hooks: HookGroup, append_hooks: bool = True) -> Any:
    """Copies of the conditionings, with these hooks after their own."""
    found = []
    for tensor, values in cond:
        group = HookGroup()
        for one in (values.get("hooks") if append_hooks else None, hooks):
            for hook in one.hooks if one is not None else ():
                group.add(hook)
        found.append([tensor, {**values, "hooks": group}])
    return found
