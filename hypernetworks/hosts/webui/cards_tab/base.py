"""The parts of the cards tab shared by all webuis.

The classes here are mixed into the host's own page.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from .. import folders, host
from .cards import Card, Deck, Metadata, absolute

HostPage: Any = object
"""Stands for the host's ``ExtraNetworksPage``, which comes behind our classes in the order of
bases.
"""


def existing_folders() -> list[str]:
    """The folders that are searched, as absolute paths."""
    return [*dict.fromkeys(absolute(folder) for folder in folders.folders() if folder.is_dir())]


def allow_previews() -> None:
    """Let the host serve images from our folders, also from ones that were added after the
    start.
    """
    from modules import ui_extra_networks

    allowed = ui_extra_networks.allowed_dirs
    for folder in existing_folders():
        if isinstance(allowed, set):
            allowed.add(folder)
        elif folder not in allowed:
            allowed.append(folder)


def guarded(fallback: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """For what the host calls while it builds its page: reports an error of ours and returns
    ``fallback``.
    """

    def around(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*arguments: Any, **named: Any) -> Any:
            try:
                return method(*arguments, **named)
            except Exception as error:
                host.tell_of_fault(None, "drawing the hypernetworks tab", error)
                return fallback

        return call

    return around


class Tab(HostPage):  # type: ignore[misc]
    """A page of cards, one per network of the library."""

    _folders: list[str] | None = None
    """As they were at the last listing: hosts ask for them several times per card."""

    @property
    def metadata(self) -> Metadata:
        """By card name, computed when it is asked for.

        Hosts make a dictionary of their own and fill it: ignored.
        """
        return Metadata()

    @metadata.setter
    def metadata(self, _: object) -> None:
        """What the host makes is ignored."""

    def refresh(self) -> None:
        """Look at the folders again."""
        folders.refresh()
        self._folders = None
        allow_previews()

    @guarded([])
    def allowed_directories_for_previews(self) -> list[str]:
        """Folders that the host may serve images from, and shows as directories."""
        return existing_folders() if self._folders is None else [*self._folders]

    def list_items(self) -> list[dict[str, Any]]:
        """The items of all cards; one that fails is reported and skipped."""
        self._folders = None
        self._folders = self.allowed_directories_for_previews()
        deck = self.deck()
        made = (
            [self._try_item(deck, name, index) for index, name in enumerate(deck.names)]
            if deck
            else []
        )
        return [item for item in made if item is not None]

    def create_item(
        self, name: str, index: int | None = None, enable_filter: bool = True
    ) -> dict[str, Any]:
        """The item of one card, looked at anew.

        Raises:
            KeyError: there is none of this name.
        """
        deck = Deck()
        card = deck.card(name)
        return self.item(card, deck.names.index(name) if index is None else index)

    def item(self, card: Card, index: int) -> dict[str, Any]:
        """What the host keeps of a card. Names and paths are the true ones, not escaped."""
        raise NotImplementedError

    @guarded(None)
    def deck(self) -> Deck | None:
        """The cards."""
        return Deck()

    @guarded(None)
    def _try_item(self, deck: Deck, name: str, index: int) -> dict[str, Any]:
        return self.item(deck.card(name), index)
