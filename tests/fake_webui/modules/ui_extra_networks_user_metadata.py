"""The dialogue of a card. Components are stand-ins that remember what was asked of them."""

import html
from pathlib import Path


class Component:
    """A button or a field."""

    def __init__(self, name):
        self.name = name
        self.handlers: list = []

    def click(self, fn=None, inputs=(), outputs=(), **_):
        """What happens on a click, in order."""
        self.handlers.append((fn, inputs, outputs))
        return self

    then = click


class UserMetadataEditor:
    """The dialogue."""

    def __init__(self, ui, tabname, page):
        self.ui, self.tabname, self.page = ui, tabname, page
        self.box, self.edit_name_input, self.button_edit = (
            Component("box"),
            Component("input"),
            Component("edit"),
        )

    def get_user_metadata(self, name):
        """What is in the fields."""
        return self.page.items[name].setdefault("user_metadata", {})

    def create_extra_default_items_in_left_column(self):
        """For others to fill."""

    def create_default_editor_elems(self):
        """The fields."""
        self.edit_name, self.edit_description = Component("name"), Component("description")
        self.html_filedata, self.html_preview = Component("filedata"), Component("preview")
        self.create_extra_default_items_in_left_column()

    def create_default_buttons(self):
        """The buttons."""
        self.button_cancel, self.button_replace_preview = Component("cancel"), Component("replace")
        self.button_save, self.html_status = Component("save"), Component("status")

    def get_card_html(self, name):
        """The preview."""
        address = self.page.find_preview(
            str(Path(self.page.items[name]["filename"]).with_suffix(""))
        )
        return f"<img src='{html.escape(address)}'>" if address else ""

    def get_metadata_table(self, name):
        """What is known of the file."""
        item = self.page.items[name]
        return [("Filename: ", Path(item["filename"]).name), ("Hash: ", item["shorthash"])]

    def put_values_into_components(self, name):
        """The values of the fields."""
        metadata = self.get_user_metadata(name)
        rows = "".join(
            f"<tr><th>{label}</th><td>{value}</td></tr>"
            for label, value in self.get_metadata_table(name)
        )
        description, notes = metadata.get("description", ""), metadata.get("notes", "")
        return (
            html.escape(name),
            description,
            f"<table>{rows}</table>",
            self.get_card_html(name),
            notes,
        )

    def write_user_metadata(self, name, metadata):
        """Into the file."""
        raise NotImplementedError("ours has its own")

    def setup_save_handler(self, button, func, components):
        """What the save button does."""
        button.click(fn=func, inputs=[self.edit_name_input, *components], outputs=[])

    def create_editor(self):
        """All of it."""
        self.create_default_editor_elems()
        self.edit_notes = Component("notes")
        self.create_default_buttons()

    def create_ui(self):
        """All of it, hidden."""
        self.create_editor()

    def save_preview(self, index, gallery, name):
        """The last picture becomes the preview."""
        Path(self.page.items[name]["local_preview"]).write_bytes(gallery[index])
        return self.get_card_html(name), ""
