"""The state of a UNet when a handle hooked its projections, and whether it is still the same.

Loading a LoRA wraps a projection, unloading removes the wrapper, and fusing and quantising replace
the projection. All of these change the modules between the UNet and its projections, which are few
and compared in C: a few microseconds per UNet call.
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
    """The modules between a UNet and its projections, and what they contained."""

    def __init__(
        self, unet: nn.Module, sites: Sequence[Site], projections: Iterable[Projection]
    ) -> None:
        attentions = [unet.get_submodule(site.path) for site in sites]
        # The dictionaries themselves, not copies: a module that is replaced later shows in them
        # without another search through the UNet.
        self._children = [vars(module)["_modules"] for module in _on_the_way(unet, sites)]
        self._children_then = [dict(children) for children in self._children]
        self._attentions = [vars(attention) for attention in attentions]
        self._ways_then = self._ways()

        hooked = [projection for projection in projections if projection.stand_in is not None]
        self._hooked = [vars(projection.module) for projection in hooked]
        self._forwards = [module.get("forward") for module in self._hooked]

    def is_in_place(self) -> bool:
        """Whether all modules are the same as before."""
        return self._children == self._children_then

    def holds(self) -> bool:
        """Whether they are, with our forward methods."""
        return (
            self.is_in_place()
            and [module.get("forward") for module in self._hooked] == self._forwards
        )

    def ways_hold(self) -> bool:
        """Whether attention has the same processors and forward methods as before."""
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
    """Notes which attention modules run, to find those that don't call their projections."""

    def __init__(self) -> None:
        self._removers: dict[int, torch.utils.hooks.RemovableHandle] = {}
        self._ran: dict[int, list[int]] = {}  # by thread
        self._is_over = self._has_asked = self._has_noted = False
        self._begun: set[int] = set()  # threads

    def start(self, unet: nn.Module, sites: Sequence[Site]) -> None:
        """Register a hook on each attention module.

        Not in the constructor: an interrupt in here must leave an object that can be stopped, and
        another thread must find it complete.
        """
        for index, site in enumerate(sites):
            attention, hook = unet.get_submodule(site.path), functools.partial(self._note, index)
            self._removers[index] = attention.register_forward_pre_hook(EagerHook(hook))

    def _note(self, index: int, *_: Any) -> None:
        # Once is enough, and a hook takes time in every call.
        remover = self._removers.get(index)
        if remover is None:
            return

        # Dropped last, so that an interrupt in here leaves a hook that can still be removed.
        remover.remove()
        self._has_noted = True
        self._ran.setdefault(threading.get_ident(), []).append(index)
        self._removers.pop(index, None)

    def begin(self) -> None:
        """A UNet call of this thread begins."""
        if not self._has_asked:
            self._begun.add(threading.get_ident())

    def taken(self) -> list[int]:
        """Indices of the attention modules that have run for the first time since the last call.

        Only those of this thread: another one may be in the middle of a module.
        """
        ran = self._ran.pop(threading.get_ident(), [])
        return [] if self._is_over else ran

    def unseen(self) -> list[int]:
        """Numbers of the attention modules of a UNet whose first call ran none that could be noted,
        as compiled ones can't. Asked again, none.

        Where some were noted, the rest didn't run, or another thread was in the middle of them. A
        call that began before this object was there tells nothing.
        """
        if self._has_asked or threading.get_ident() not in self._begun:
            return []
        self._has_asked = True
        return [] if self._is_over or self._has_noted else [*self._removers]

    def stop(self) -> None:
        """Remove all hooks."""
        self._is_over = True
        for remover in [*self._removers.values()]:
            remover.remove()
        self._removers.clear()


def _on_the_way(unet: nn.Module, sites: Sequence[Site]) -> list[nn.Module]:
    """The UNet, the attention modules, and all modules between them."""
    paths = {""}
    for site in sites:
        parts = site.path.split(".") if site.path else []
        paths |= {".".join(parts[: end + 1]) for end in range(len(parts))}
    return [unet.get_submodule(path) for path in sorted(paths)]
