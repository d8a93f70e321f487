"""Replaces functions of the webui by ours, and puts them back: the one way for all parts of the
extension.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

ORIGINAL = "_hypernetworks_original"
"""Attribute of a function that stands in for one of the host's: the host's function."""
_MARK = "_hypernetworks_replaced"
"""Attribute of the module or class that a function was replaced in: the replacements by name."""
_OWNERS: list[Any] = []


class Replacement:
    """A function in the place of one of the host's, which does as we say until it is switched off.

    Another extension may have wrapped it, so that it can't be taken out any more. Switched off, it
    only calls the host's function.
    """

    def __init__(self, original: Callable[..., Any], ours: Callable[..., Any]) -> None:
        self._original, self._act = original, ours

        @wraps(original)
        def stand_in(*arguments: Any, **named: Any) -> Any:
            return self._act(*arguments, **named)

        setattr(stand_in, ORIGINAL, original)
        self.stand_in = stand_in

    def switch_off(self) -> None:
        """Only call the host's function from now on."""
        self._act = self._original

    def put_back(self, owner: Any, name: str) -> None:
        """Switch off, and give the owner its own function again if nobody has wrapped ours."""
        self.switch_off()
        if getattr(owner, name, None) is self.stand_in:
            setattr(owner, name, self._original)


def replace(owner: Any, name: str, ours_for: Callable[[Any], Callable[..., Any]]) -> None:
    """Put a function of ours in the place of the host's; any number of times.

    The mark is the owner's, not the function's: it is there whether another extension has wrapped
    our function, with or without ``functools.wraps``, and when this package is imported anew.

    Args:
        owner: a module or class of the host.
        name: of its function.
        ours_for: makes our function from the one that it replaces.
    """
    known: dict[str, Any] | None = vars(owner).get(_MARK)
    if known is None:
        known = {}
        setattr(owner, _MARK, known)
    if not any(owner is other for other in _OWNERS):
        _OWNERS.append(owner)

    before, current = known.get(name), getattr(owner, name)
    if before is not None:
        # Behind the wrapper of another extension it would act a second time.
        before.switch_off()
        if current is before.stand_in:
            current = getattr(current, ORIGINAL)

    known[name] = Replacement(current, ours_for(current))
    setattr(owner, name, known[name].stand_in)


def replace_once(owner: Any, name: str, ours_for: Callable[[Any], Callable[..., Any]]) -> None:
    """As :func:`replace`, unless the owner lacks the function, or it is ours already."""
    if hasattr(owner, name) and not is_replaced(owner, name):
        replace(owner, name, ours_for)


def is_replaced(owner: Any, name: str) -> bool:
    """Whether the owner's function is the one that :func:`replace` put there last."""
    found = vars(owner).get(_MARK, {}).get(name)
    return found is not None and getattr(owner, name) is found.stand_in


def put_all_back() -> None:
    """Give the host its own functions again; any number of times."""
    while _OWNERS:
        owner = _OWNERS.pop()
        for name, replacement in vars(owner).get(_MARK, {}).items():
            replacement.put_back(owner, name)
        if _MARK in vars(owner):
            delattr(owner, _MARK)
