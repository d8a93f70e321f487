"""The tab "Hypernetwork" of SD.Next, which shows that title and no other of ours.

The host puts titles and tags into a card's HTML as they are. It draws ours around placeholders, and
these are then replaced by the escaped texts.
"""

from __future__ import annotations

import json
from datetime import datetime
from html import escape
from typing import Any

from ....prompts import Tag
from .base import Tab, guarded
from .cards import Card, Click, known_hash, script, sound

VERSIONS = {"SD1": "SD 1.5", "SD2": "SD 2"}
"""Families as this host writes them on cards and filter buttons, where it differs."""
_NAME, _STEM = "hypernetworkcardname", "hypernetworkcardstem"
_FILE = f"hypernetworkcardfolder/{_STEM}.pt"
_TAB = "this.closest('[id$=_extra_tabs]').id.replace('_extra_tabs','')"
"""One text of cards serves all tabs, so a card looks at click time where it is."""


class HypernetworkPage(Tab):
    """Mixed into the host's page."""

    def __init__(self) -> None:
        super().__init__("Hypernetwork")

    def item(self, card: Card, index: int) -> dict[str, Any]:
        """What the host keeps of a card: plain values, since it also sends them as JSON."""
        return {
            "type": "Hypernetwork",
            "name": card.name,
            "alias": card.entry.name,
            "filename": card.filename,
            "hash": known_hash(card),
            "prompt": json.dumps(_prompt(card.click)),
            "metadata": {"family": card.family},
            # Local time, as the host's own. Windows has no times before 1970, but files may.
            "mtime": datetime.fromtimestamp(max(0, card.entry.mtime_ns // 10**9)),
            "size": card.entry.size,
            "version": _version(card),
            # From here on what only its details and its search show.
            "info": self.find_info(card.filename),
            "description": card.beside.description,
            "tags": "|".join(
                word.strip() for word in card.beside.activation_text.split(",") if word.strip()
            ),
            "click": card.click,
        }

    def list_items(self) -> list[dict[str, Any]]:
        """The items of all cards, with the previews that the host finds."""
        items = super().list_items()
        self.update_all_previews(items)
        return items

    @guarded("")
    def create_html(self, item: dict[str, Any], tabname: str) -> str:
        """A card as the host draws it, with our click."""
        shown = {
            **item,
            "name": _NAME,
            "filename": _FILE,
            "tags": escape(item["tags"]),
            "onclick": f'"{escape(script(_TAB, item["click"]))}"',
        }
        drawn = str(super().create_html(shown, tabname))
        texts = {_FILE: item["filename"], _STEM: item["alias"], _NAME: item["name"]}
        for placeholder, text in texts.items():
            drawn = drawn.replace(placeholder, escape(text))

        # The host turns the one tab's HTML into the other's by replacing these wherever they stand,
        # in names, too.
        return sound(drawn.replace("txt2img", "t&#120;t2img").replace("~tabname", "&#126;tabname"))

    @guarded("")
    def find_description(self, path: str | None, info: object = None) -> str:
        """What is shown while the pointer is over a card: all that we have to say of the file."""
        deck = self.deck()
        name = deck.name_at(path) if deck is not None and path else None
        return deck.card(name).description if deck is not None and name is not None else ""


def _version(card: Card) -> str:
    """The family; with a sign when there is something to know, which the description tells."""
    version = VERSIONS.get(card.family, card.family if card.family != "unknown" else "")
    return f"⚠ {version}".strip() if card.marks else version


def _prompt(click: Click | None) -> str:
    from modules import shared

    if click is None:
        return ""
    name, multiplier, text = click
    number = shared.opts.extra_networks_default_multiplier if multiplier is None else multiplier
    return f" {Tag.of(name, str(number))} {text}".rstrip()
