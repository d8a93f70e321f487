"""What a handle saw of a UNet when it bound its projections, and whether that is still there.

A LoRA that is loaded wraps a projection, one that is unloaded takes the wrapper away, fusing and
quantising put another in its place. All of these show in the modules on the way from the UNet to
its projections, which are few and compared in C: a few microseconds per UNet call.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from .hooks import EagerHook
from .projection import Projection
from .sites import Site


class Binding:
    """Modules on the way to the projections of a UNet, and what was in them."""

    def __init__(
        self, unet: nn.Module, sites: Sequence[Site], projections: Iterable[Projection]
    ) -> None:
        attentions = [unet.get_submodule(site.path) for site in sites]
        # The dictionaries themselves, not their contents: a module that is exchanged later shows in
        # them without a walk through the UNet.
        self._children = [vars(module)["_modules"] for module in _on_the_way(unet, sites)]
        self._children_then = [dict(children) for children in self._children]
        self._attentions = [vars(attention) for attention in attentions]
        self._ways_then = self._ways()
        hooked = [projection for projection in projections if projection.stand_in is not None]
        self._hooked = [vars(projection.module) for projection in hooked]
        self._forwards = [module.get("forward") for module in self._hooked]

    def is_in_place(self) -> bool:
        """Whether all modules are where they were."""
        return self._children == self._children_then

    def holds(self) -> bool:
        """Whether they are, with our forwards on them."""
        return (
            self.is_in_place()
            and [module.get("forward") for module in self._hooked] == self._forwards
        )

    def ways_hold(self) -> bool:
        """Whether attention is computed as it was: by the same processors and forwards."""
        if self._ways() == self._ways_then:
            return True

        # A new processor is reported once: it is then what the next call is compared with.
        self._ways_then = self._ways()
        return False

    def _ways(self) -> list[Any]:
        return [a.get("processor") for a in self._attentions] + [
            a.get("forward") for a in self._attentions
        ]


class Reach:
    """Notes which attention modules run in the next call, to find those that don't call their
    projections.
    """

    def __init__(self) -> None:
        self._removers: dict[int, torch.utils.hooks.RemovableHandle] = {}
        self._ran: dict[int, list[int]] = {}  # by thread
        self._is_over = self._has_asked = False

    def start(self, unet: nn.Module, sites: Sequence[Site]) -> None:
        """Put a hook on each attention module.

        Apart from making the object, so that whoever is interrupted in here can still stop it, and
        so that another thread's call finds it whole.
        """
        for index, site in enumerate(sites):
            attention, hook = unet.get_submodule(site.path), functools.partial(self._note, index)
            self._removers[index] = attention.register_forward_pre_hook(EagerHook(hook))

    def _note(self, index: int, *_: Any) -> None:
        # Once is enough to know, and a hook costs time in every call.
        remover = self._removers.get(index)
        if remover is None:
            return

        # Forgotten last, so that whoever is interrupted in here can still stop it.
        remover.remove()
        self._ran.setdefault(threading.get_ident(), []).append(index)
        self._removers.pop(index, None)

    def taken(self) -> list[int]:
        """Numbers of the attention modules that ran for the first time since this was last asked,
        in this thread: another one may be in the middle of a module.
        """
        ran = self._ran.pop(threading.get_ident(), [])
        return [] if self._is_over else ran

    def unseen(self) -> list[int]:
        """Numbers of the attention modules of which nothing was noted in the first call: compiled
        ones, or such as didn't run. Asked again, none.
        """
        if self._has_asked:
            return []
        self._has_asked = True
        return [*self._removers]

    def stop(self) -> None:
        """Note no more."""
        self._is_over = True
        for remover in [*self._removers.values()]:
            remover.remove()
        self._removers.clear()


def _on_the_way(unet: nn.Module, sites: Sequence[Site]) -> list[nn.Module]:
    """The UNet, all modules that contain an attention module, and these themselves."""
    paths = {""}
    for site in sites:
        parts = site.path.split(".") if site.path else []
        paths |= {".".join(parts[: end + 1]) for end in range(len(parts))}
    return [unet.get_submodule(path) for path in sorted(paths)]
