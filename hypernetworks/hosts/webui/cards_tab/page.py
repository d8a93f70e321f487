"""The tab "Hypernetworks" of AUTOMATIC1111, Forge, reForge and Classic, and putting a tab in its
place in any webui.

These hosts put several texts into a card's HTML and JavaScript as they are. What is drawn for our
tab is escaped on its way there; the items that the host keeps have the true names and paths.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from ....library.sidecars import PREVIEW_SUFFIXES, find_preview
from ....prompts import Tag
from .. import folders
from . import editor
from .base import Tab, allow_previews, guarded
from .cards import Card, Click, absolute, known_hash, script, sound
from .page_sdnext import HypernetworkPage

_HERE = "\0"
"""Stands for a multiplier that the page fills in; no file name holds it."""
NAMES = ("hypernetworks", "hypernetwork")
"""Of the tab, in lower case: AUTOMATIC1111's and SD.Next's."""
_IN_TEMPLATES = (
    # Classic writes paths and names into JavaScript strings, where no HTML escape holds back a
    # quote.
    ("'{filename}'", "this.dataset.clipboardText"),
    ("'{name}'", "this.closest('[data-name]').dataset.name"),
    # In the tree, these buttons look for the card's name two levels up, where A1111 and reForge
    # have none.
    (
        'class="tree-list-item-action tree-list-item-action--trailing"',
        (
            'class="tree-list-item-action tree-list-item-action--trailing" '
            'data-name="{action_list_item_label}"'
        ),
    ),
    # In reForge, the host's part of a click on a file raises an error: ours comes first.
    (
        "extraNetworksTreeOnClick(event, '{tabname}', '{extra_networks_tabname}');{onclick_extra}",
        "{onclick_extra}extraNetworksTreeOnClick(event, '{tabname}', '{extra_networks_tabname}');",
    ),
)
"""What is replaced in the host's templates, on our page only."""


def register() -> None:
    """Put our tab in the stock one's place, or add it; any number of times."""
    from modules import ui_extra_networks

    base = ui_extra_networks.ExtraNetworksPage
    ours = HypernetworksPage if hasattr(base, "create_item_html") else HypernetworkPage
    page = type(ours.__name__, (ours, base), {})()
    pages = ui_extra_networks.extra_pages
    place = next((i for i, other in enumerate(pages) if other.name in NAMES), len(pages))
    pages[:] = [other for other in pages if other.name not in NAMES]
    pages.insert(place, page)
    allow_previews()


@dataclass
class _Branch:
    """A folder of the tree view."""

    path: Path = Path()
    folders: dict[str, _Branch] = field(default_factory=dict)
    items: dict[str, dict[str, Any]] = field(default_factory=dict)


class HypernetworksPage(Tab):
    """Mixed into the host's page."""

    def __init__(self) -> None:
        super().__init__("Hypernetworks")
        for name in ("btn_copy_path_tpl", "btn_metadata_tpl", "btn_edit_item_tpl", "btn_tree_tpl"):
            template = getattr(self, name)
            for theirs, ours in _IN_TEMPLATES:
                template = template.replace(theirs, ours)
            setattr(self, name, template)

    def item(self, card: Card, index: int) -> dict[str, Any]:
        """What the host keeps of a card. Names and paths are the true ones, not escaped."""
        from modules import shared

        sha256, stem = known_hash(card), str(Path(card.filename).with_name(card.entry.name))
        preview = str(card.beside.preview) if card.beside.preview is not None else None
        if preview is None and shared.opts.samples_format not in PREVIEW_SUFFIXES:
            preview = self._preview(stem)
        terms = (
            self.search_terms_from_path(card.filename),
            sha256,
            card.beside.activation_text,
            card.beside.title,
        )
        return {
            "name": card.name,
            "filename": card.filename,
            "shorthash": sha256[:10] if sha256 else None,
            "preview": self._link(preview),
            "local_preview": preview or f"{stem}.preview.{shared.opts.samples_format}",
            "description": card.description,
            "search_terms": [term for term in terms if term],
            "prompt": _prompt(card.click),
            "sort_keys": {"default": index, **self.get_sort_keys(card.filename)},
            "metadata": {"family": card.family},  # there is some, so the host draws the button
            "user_metadata": dict(card.beside.user_metadata),
            "click": card.click,
            "marks": card.marks,
        }

    def read_user_metadata(self, item: dict[str, Any], use_cache: bool = True) -> None:
        """Nothing is left to do: an item is made with all that stands beside its file."""

    def find_preview(self, path: str) -> str | None:
        """The address of the preview of a file.

        Args:
            path: without the file's suffix.
        """
        return self._link(self._preview(path))

    @staticmethod
    def _preview(stem: str) -> str | None:
        from modules import shared

        found = find_preview(
            Path(stem), None, dict.fromkeys((*PREVIEW_SUFFIXES, shared.opts.samples_format))
        )
        return str(found) if found is not None else None

    def _link(self, preview: str | None) -> str | None:
        """The address holds the time of the last change, which the host may have looked up before
        that change.
        """
        if preview is None:
            return None
        if self.lister.mctime(preview)[0] != os.lstat(preview).st_mtime:
            self.lister.reset()
        return str(self.link_preview(preview))

    @guarded("")
    def create_item_html(
        self, tabname: str, item: dict[str, Any], template: str | None = None
    ) -> Any:
        """A card, or without a template its parts, as the host draws it, from escaped texts and
        with our click.
        """
        from modules import shared

        shown = {
            **item,
            "filename": escape(item["filename"]),
            "search_terms": [*map(escape, item["search_terms"])],
        }
        if getattr(shared.opts, "extra_networks_card_description_is_html", False):
            shown["description"] = escape(item["description"])
        parts = super().create_item_html(tabname, shown)
        if not isinstance(parts, dict):
            return parts
        parts["card_clicked"] = escape(script(json.dumps(tabname), item["click"]))
        if not getattr(shared.opts, "extra_networks_card_show_desc", True):
            parts["description"] = escape("\n".join(item["marks"]))
        return sound(template.format(**parts)) if template else parts

    @guarded("")
    def create_tree_file_item_html(self, tabname: str, file_path: str, item: dict[str, Any]) -> str:
        """A file of the tree; the host puts path, name and hash in as they are."""
        shown = {**item, "name": escape(item["name"]), "shorthash": item["shorthash"] or ""}
        return sound(super().create_tree_file_item_html(tabname, escape(file_path), shown))

    def create_tree_dir_item_html(
        self, tabname: str, dir_path: str, content: str | None = None
    ) -> str | None:
        """A folder of the tree; the host puts its path in as it is."""
        made: str | None = super().create_tree_dir_item_html(tabname, escape(dir_path), content)
        return made

    @guarded("")
    def create_tree_view_html(self, tabname: str) -> str:
        """The tree.

        The host's own loses a library folder that has the same name as another, and walks in
        circles.
        """
        root = _Branch()
        for item in self.items.values():
            *parts, name = Path(
                self.search_terms_from_path(item["filename"]) or item["filename"]
            ).parts
            branch = root
            for part in parts:
                branch = branch.folders.setdefault(part, _Branch(branch.path / part))
            branch.items[name] = item

        return f"<ul class='tree-list tree-list--tree'>{''.join(self._branch(tabname, root))}</ul>"

    def _branch(self, tabname: str, branch: _Branch) -> Iterator[str]:
        from modules import shared

        for name in sorted(branch.folders, key=shared.natural_sort_key):
            below = branch.folders[name]
            yield (
                self.create_tree_dir_item_html(
                    tabname, str(below.path), "".join(self._branch(tabname, below))
                )
                or ""
            )
        for name in sorted(branch.items, key=shared.natural_sort_key):
            yield self.create_tree_file_item_html(
                tabname, str(branch.path / name), branch.items[name]
            )

    @guarded("")
    def create_dirs_view_html(self, tabname: str) -> str:
        """The buttons of the folders."""
        return sound(super().create_dirs_view_html(tabname))

    def create_card_view_html(self, tabname: str, *, none_message: str | None) -> str:
        """All cards, or where to put files."""
        from modules import shared

        if not self.items and none_message is None:
            places = "".join(f"<li>{escape(absolute(folder))}</li>" for folder in folders.folders())
            none_message = shared.html("extra-networks-no-cards.html").format(dirs=places)
        return str(super().create_card_view_html(tabname, none_message=none_message))

    def create_user_metadata_editor(self, ui: Any, tabname: str) -> Any:
        """The dialogue behind a card's tool button."""
        return editor.make(ui, tabname, self)


def _prompt(click: Click | None) -> str:
    """What a click stands for as a JavaScript expression, as the host's items have it; our cards
    don't use it.
    """
    if click is None:
        return '""'
    name, multiplier, text = click
    number = (
        "opts.extra_networks_default_multiplier" if multiplier is None else json.dumps(multiplier)
    )
    before, _, behind = str(Tag.of(name, _HERE)).rpartition(_HERE)
    return f"{json.dumps(before)} + {number} + {json.dumps(f'{behind} {text}'.rstrip())}"
