"""The dialogue behind a card's tool button in A1111, Forge, reForge and Classic: the stock one and
some fields more.

SD.Next has a dialogue of its own, which is left as it is.
"""

from __future__ import annotations

from html import escape
from typing import Any

from ....errors import FileWriteError
from ....library.sidecars import (
    ACTIVATION_TEXT,
    BASE_MODEL,
    DESCRIPTION,
    MULTIPLIER,
    NOTES,
    write_user_metadata,
)
from ....ui import card_fields
from .. import folders, host
from . import converting
from .cards import UNKNOWN, Card, Deck

HostEditor: Any = object
"""Stands for the host's ``UserMetadataEditor``, which comes behind our class in the order of bases.
"""


def make(ui: Any, tabname: str, page: Any) -> Any:
    """The editor of our page in one of the host's tabs."""
    from modules import ui_extra_networks_user_metadata

    base = ui_extra_networks_user_metadata.UserMetadataEditor
    return type(CardEditor.__name__, (CardEditor, base), {})(ui, tabname, page)


class CardEditor(HostEditor):  # type: ignore[misc]
    """Mixed into the host's editor."""

    def create_extra_default_items_in_left_column(self) -> None:
        """The host calls this below the description."""
        self.base_model = card_fields.base_model()

    def create_editor(self) -> None:
        """Create and connect all fields; if that fails, the host's own fields remain."""
        try:
            self._create()
        except Exception as error:
            host.tell_of_fault(None, "building the editor of hypernetwork cards", error)
            super().create_editor()

    def _create(self) -> None:
        self.create_default_editor_elems()
        fields = card_fields.card_fields()
        self.edit_notes = fields.notes
        self.create_default_buttons()
        stock = [
            self.edit_name,
            self.edit_description,
            self.html_filedata,
            self.html_preview,
            self.edit_notes,
        ]
        shown = [*stock, self.base_model, fields.activation_text, fields.multiplier]
        self.button_edit.click(
            fn=self.put_values_into_components, inputs=[self.edit_name_input], outputs=shown
        ).then(fn=card_fields.show, inputs=[], outputs=[self.box])
        edited = [
            self.edit_description,
            self.base_model,
            fields.activation_text,
            fields.multiplier,
            self.edit_notes,
        ]

        self.setup_save_handler(self.button_save, self.save, edited)
        converting.connect(self)

    def save(
        self,
        name: str,
        description: str,
        base_model: str,
        activation_text: str,
        multiplier: float | None,
        notes: str,
    ) -> None:
        """Write the fields into ``NAME.json``; other keys are kept."""
        self.write_user_metadata(
            name,
            {
                DESCRIPTION: description,
                BASE_MODEL: base_model,
                ACTIVATION_TEXT: activation_text,
                MULTIPLIER: float(multiplier or 0),
                NOTES: notes,
            },
        )

    def write_user_metadata(self, name: str, metadata: dict[str, Any]) -> None:
        """Write these keys; a file appears whole or not at all."""
        card = self._card(name)
        if card is None:
            card_fields.refuse(f'the file of "{name}" is gone: refresh the tab')
        try:
            write_user_metadata(card.entry, metadata)
        except FileWriteError as error:
            card_fields.refuse(str(error))

    def get_user_metadata(self, name: str) -> dict[str, Any]:
        """What stands beside the file now, with descriptions and words from other side-cars than
        ``NAME.json``.
        """
        card = self._card(name)
        if card is None:
            return {}

        beside = card.beside
        return {
            **beside.user_metadata,
            DESCRIPTION: beside.description,
            BASE_MODEL: beside.base_model
            or (card.facts.family if card.facts.family in card_fields.FAMILIES else ""),
            ACTIVATION_TEXT: beside.activation_text,
            MULTIPLIER: beside.preferred_multiplier or 0.0,
            NOTES: beside.notes,
        }

    def put_values_into_components(self, name: str) -> list[Any]:
        """The stock values, base model (guessed from the widths if need be), activation text and
        multiplier.
        """
        metadata = self.get_user_metadata(name)
        return [
            *super().put_values_into_components(name)[:5],
            metadata.get(BASE_MODEL) or card_fields.FAMILIES[-1],
            metadata.get(ACTIVATION_TEXT, ""),
            metadata.get(MULTIPLIER, 0.0),
        ]

    def get_metadata_table(self, name: str) -> list[tuple[str, Any]]:
        """Rows of the table about the file; the host puts their values into HTML as they are."""
        card = self._card(name)
        if card is None:
            return []
        item = self.page.items.get(name) or {}
        item["shorthash"] = item.get("shorthash") or folders.short_hash(card.entry)
        rows = [*super().get_metadata_table(name)]
        rows.append(("Made for: ", None if card.facts.family == UNKNOWN else card.facts.family))
        rows.append(("Trained with: ", card.facts.trained_with or None))
        rows.extend(("", mark) for mark in card.marks)
        return [(label, escape(str(value))) for label, value in rows if value is not None]

    @staticmethod
    def _card(name: str) -> Card | None:
        try:
            return Deck().card(name)
        except KeyError:
            return None
