"""Resolves a tag to a usable network, or to a message for the user: one rule for all hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..engine.multiplier import Multiplier
from ..engine.network import Hypernetwork
from ..errors import HypernetworkError, UnknownNameError, sendable
from ..library import Entry, Library
from ..prompts import Tag

MOST_SUGGESTIONS = 10
"""Unknown names of one job that are compared with all others, which takes time in a large library.
"""


@dataclass(frozen=True)
class Use:
    """A usable tag with its file, network and multiplier."""

    tag: Tag
    entry: Entry
    network: Hypernetwork
    multiplier: Multiplier


class Resolver:
    """Finds and loads the networks that tags name; reports each unusable one once, with the reason.

    Args:
        library: where to look.
        check: raises a HypernetworkError when a network doesn't fit the loaded model.
        tell: takes a line for the user.
        on_found: called with each file as soon as it is known, to start hashing it, say.
    """

    def __init__(
        self,
        library: Library,
        check: Callable[[Hypernetwork, Multiplier], None],
        tell: Callable[[str], object],
        on_found: Callable[[Entry], object] = lambda _: None,
    ) -> None:
        self._library, self._check, self._tell = library, check, tell
        self._on_found = on_found
        self._known: dict[tuple[str, ...], Use | None] = {}
        self._unknown = 0

    def uses(self, tags: Iterable[Tag]) -> list[Use]:
        """The usable ones among the tags of one prompt."""
        return [use for tag in tags if (use := self._use(tag)) is not None]

    def _use(self, tag: Tag) -> Use | None:
        # The error of a tag names its place in the prompt, so each one gets a message of its own.
        if tag.items not in self._known or tag.error is not None:
            self._known[tag.items] = self._resolve(tag)
        return self._known[tag.items]

    def _resolve(self, tag: Tag) -> Use | None:
        try:
            if tag.multiplier is None:
                raise tag.error or HypernetworkError("it can't be understood")

            entry = self._find(tag.name)
            if others := self._library.others(tag.name, entry):
                self._tell(sendable(others))
            network = self._library.load(entry)
            self._on_found(entry)
            self._check(network, tag.multiplier)
            return Use(tag, entry, network, tag.multiplier)
        except HypernetworkError as error:
            text = str(error) if str(tag) in str(error) else f"{tag}: {error}"
            self._tell(sendable(f"{text} (the image is generated without it)"))
        return None

    def _find(self, name: str) -> Entry:
        try:
            return self._library.find(name, suggest=self._unknown < MOST_SUGGESTIONS)
        except UnknownNameError:
            self._unknown += 1
            raise
