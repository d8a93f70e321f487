"""How a handle notices the calls of its UNet: by hooks, or around what the UNet was compiled to."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from ..engine.tracing import is_compiling
from .hooks import EagerHook, Hook

IN_PLACE = "_compiled_call_impl"
"""Attribute in which torch keeps what ``module.compile()`` made; copies don't have it."""
Enter = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]
Leave = Callable[[nn.Module, object, object], None]


class Noticing:
    """Calls ``enter`` before and ``leave`` after each call of a UNet.

    A hook that calls Python ends a compiler's graph. Where the UNet was compiled, in place or as a
    wrapper, calls are therefore noticed around what it was compiled to, and compiled code leaves
    the hooks on the UNet itself out.

    Args:
        enter: a method, called with the UNet and its arguments, positional and by name.
        leave: a method, called with the UNet, its arguments, and its result; ``None`` after an
            error.
        on_compiled: a method, called when the UNet is compiled in place later.
        compiled: what ``torch.compile`` made of the UNet, where that is what will be called.
    """

    def __init__(
        self,
        enter: Enter,
        leave: Leave,
        on_compiled: Callable[[], None],
        compiled: nn.Module | None = None,
    ) -> None:
        # Weak, or the handle and this would keep each other, and the networks, in memory.
        self._enter, self._leave = weakref.WeakMethod(enter), weakref.WeakMethod(leave)
        self._on_compiled = weakref.WeakMethod(on_compiled)
        self._compiled = weakref.ref(compiled) if compiled is not None else None
        self._removers: list[torch.utils.hooks.RemovableHandle] = []
        self._around: Around | None = None
        self._compile: Compile | None = None

    @property
    def is_on(self) -> bool:
        """Whether calls are noticed."""
        return bool(self._removers)

    def is_outside(self, unet: nn.Module) -> bool:
        """Whether calls are noticed outside of what is compiled."""
        return self._compiled is not None or vars(unet).get(IN_PLACE) is not None

    def start(self, unet: nn.Module) -> None:
        """Notice the calls of this UNet."""
        enter, leave = self._enter(), self._leave()
        if enter is None or leave is None:  # the handle is gone
            return

        wrapper = self._compiled() if self._compiled is not None else None
        for module in (unet, wrapper):
            if module is not None:
                kind = EagerHook if module is unet and self.is_outside(unet) else Hook
                self._removers += (
                    module.register_forward_pre_hook(kind(enter), with_kwargs=True),
                    module.register_forward_hook(kind(leave), always_call=True),
                )

        if (made := vars(unet).get(IN_PLACE)) is not None:
            self._around = Around(unet, made, enter, leave)
            vars(unet)[IN_PLACE] = self._around
        if hasattr(type(unet), "compile"):  # since torch 2.2
            self._compile = Compile(unet, self)
            vars(unet).setdefault("compile", self._compile)

    def stop(self, unet: nn.Module | None) -> None:
        """Leave the UNet as it was."""
        for remover in self._removers:
            remover.remove()
        self._removers.clear()

        own = vars(unet) if unet is not None else {}
        made = self._around.made if self._around is not None else None
        if made is not None and own.get(IN_PLACE) is self._around:
            own[IN_PLACE] = made
        if self._compile is not None and own.get("compile") is self._compile:
            del own["compile"]
        self._around = self._compile = None

    def start_anew(self, unet: nn.Module) -> None:
        """The UNet was compiled in place a moment ago."""
        self.stop(unet)
        self.start(unet)
        if (tell := self._on_compiled()) is not None:
            tell()


class Around:
    """What a UNet was compiled to in place, with each call noticed."""

    def __init__(self, unet: nn.Module, made: Any, enter: Enter, leave: Leave) -> None:
        self._unet, self.made, self._enter, self._leave = weakref.ref(unet), made, enter, leave

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """What torch calls in place of the UNet's own call."""
        unet = self._unet()
        if unet is None or is_compiling():
            return self.made(*arguments, **named)

        result = None
        self._enter(unet, arguments, named)
        try:
            result = self.made(*arguments, **named)
        finally:
            self._leave(unet, arguments, result)
        return result


class Compile:
    """The ``compile`` of a UNet with networks: they notice that it is compiled in place. A copy of
    the UNet gets one without networks.
    """

    def __init__(self, unet: nn.Module, noticing: Noticing | None = None) -> None:
        self._unet = weakref.ref(unet)
        self._noticing = weakref.ref(noticing) if noticing is not None else None

    def __call__(self, *arguments: Any, **named: Any) -> None:
        """As ``nn.Module.compile``."""
        unet = cast(Any, self._unet())
        type(unet).compile(unet, *arguments, **named)
        noticing = self._noticing() if self._noticing is not None else None
        if noticing is not None and noticing.is_on:
            noticing.start_anew(unet)

    def __deepcopy__(self, memo: dict[int, Any]) -> Compile:
        unet = cast(nn.Module, self._unet())
        return Compile(memo.get(id(unet), unet))

    def __reduce__(self) -> tuple[Any, ...]:
        return Compile, (self._unet(),)
