"""Cards as A1111, Forge, reForge and Classic make them: what they escape is escaped here, what not
is not."""

import contextlib
import html
import json
import os
import urllib.parse
from pathlib import Path

from modules import HOST, fake_templates, shared

extra_pages: list = []
allowed_dirs: set = set()
SETTINGS = {
    "samples_format": "png",
    "extra_networks_card_show_desc": True,
    "extra_networks_card_description_is_html": False,
    "extra_networks_hidden_models": "When searched",
    "extra_networks_tree_view_style": "Tree",
}
for _key, _value in SETTINGS.items():
    shared.opts.data.setdefault(_key, _value)
shared.html = fake_templates.template
shared.natural_sort_key = str.lower


class Lister:
    """Remembers folders that it has looked at."""

    def __init__(self):
        self.known: dict = {}

    def mctime(self, path):
        """Times of change and creation."""
        folder, name = os.path.split(path)
        if folder not in self.known:
            self.known[folder] = {x.name: x.stat(follow_symlinks=False) for x in os.scandir(folder)}
        status = self.known[folder].get(name)
        return (status.st_mtime, status.st_ctime) if status else (0, 0)

    def reset(self):
        """Forget."""
        self.known.clear()

    def update_file_entry(self, path):
        """One file has changed."""


class ExtraNetworksPage:
    """One tab."""

    def __init__(self, title):
        self.title, self.name = title, title.lower()
        self.extra_networks_tabname = self.name.replace(" ", "_")
        self.allow_prompt, self.allow_negative_prompt = True, False
        self.metadata: dict = {}
        self.items: dict = {}
        self.lister = Lister()
        self.card_tpl = shared.html("extra-networks-card.html")
        self.btn_tree_tpl = shared.html("extra-networks-tree-button.html")
        self.btn_copy_path_tpl = shared.html("extra-networks-copy-path-button.html")
        self.btn_metadata_tpl = shared.html("extra-networks-metadata-button.html")
        self.btn_edit_item_tpl = shared.html("extra-networks-edit-item-button.html")

    def refresh(self):
        """Look at the files again."""

    def read_user_metadata(self, item, use_cache=True):
        """What the editor wrote."""
        item["user_metadata"] = {}

    def link_preview(self, filename):
        """Where a picture is served."""
        return f"./thumb?filename={urllib.parse.quote(filename)}&mtime={self.lister.mctime(filename)[0]}"

    def search_terms_from_path(self, filename, possible_directories=None):
        """The path from the folder of its root on."""
        for root in self.allowed_directories_for_previews():
            if filename.startswith(parent := str(Path(root).parent)):
                return os.path.relpath(filename, parent)
        return ""

    def create_item_html(self, tabname, item, template=None):
        """A card, or its parts."""
        names = {"tabname": tabname, "extra_networks_tabname": self.extra_networks_tabname}
        names["name"] = html.escape(item["name"])
        onclick = item.get("onclick")
        if onclick is None:
            onclick = html.escape(f"cardClicked('{tabname}', {item['prompt']}, '', false);")
        elif HOST == "forge":
            onclick = html.escape(f"selectVAE({item.get('vae', [])});") + onclick
        sort_keys = item.get("sort_keys", {})
        if HOST == "forge":
            sort_keys["SDversion"] = item.get("sd_version_str", "SdVersion.Unknown")
        description = item["description"] if shared.opts.extra_networks_card_show_desc else ""
        if not shared.opts.extra_networks_card_description_is_html:
            description = html.escape(description)
        preview = item.get("preview")
        parts = {
            **names,
            "background_image": f'<img src="{html.escape(preview)}" class="preview">'
            if preview
            else "",
            "card_clicked": onclick,
            "copy_path_button": self.btn_copy_path_tpl.format(filename=item["filename"]),
            "description": description,
            "edit_button": self.btn_edit_item_tpl.format(**names),
            "metadata_button": self.btn_metadata_tpl.format(**names)
            if item.get("metadata")
            else "",
            "search_terms": "".join(
                f"<span class='search_terms'>{term}</span>" for term in item["search_terms"]
            ),
            "sort_keys": " ".join(
                f'data-sort-{k}="{html.escape(str(v))}"' for k, v in sort_keys.items()
            ),
            "style": "",
        }
        return template.format(**parts) if template else parts

    def create_tree_file_item_html(self, tabname, file_path, item):
        """A file in the tree."""
        parts = self.create_item_html(tabname, item)
        buttons = parts["copy_path_button"] + parts["metadata_button"] + parts["edit_button"]
        return self._tree(
            tabname,
            file_path,
            item["name"],
            item["shorthash"],
            parts["card_clicked"],
            f"<div>{buttons}</div>",
        )

    def create_tree_dir_item_html(self, tabname, dir_path, content=None):
        """A folder in the tree."""
        if not content:
            return None
        row = self._tree(tabname, dir_path, Path(dir_path).name, "", "", "")
        return f"<li>{row}<ul hidden>{content}</ul></li>"

    def _tree(self, tabname, path, label, shorthash, clicked, buttons):
        return self.btn_tree_tpl.format(
            tabname=tabname,
            extra_networks_tabname=self.extra_networks_tabname,
            search_terms="",
            onclick_extra=clicked,
            data_path=path,
            data_hash=shorthash,
            action_list_item_label=label,
            action_list_item_action_trailing=buttons,
        )

    def create_tree_view_html(self, tabname):
        """The tree."""
        raise NotImplementedError("ours has its own")

    def create_dirs_view_html(self, tabname):
        """A button per folder."""
        found = [
            name for root in self.allowed_directories_for_previews() for name in os.listdir(root)
        ]
        return "".join(f"<button>{html.escape(name)}</button>" for name in found)

    def create_card_view_html(self, tabname, *, none_message):
        """All cards."""
        cards = "".join(
            self.create_item_html(tabname, item, self.card_tpl) for item in self.items.values()
        )
        return cards or none_message

    def create_html(self, tabname, *, empty=False):
        """The tab."""
        self.lister.reset()
        self.metadata = {}
        self.items = {item["name"]: item for item in ([] if empty else self.list_items())}
        for item in self.items.values():
            if item.get("metadata"):
                self.metadata[item["name"]] = item["metadata"]
            if "user_metadata" not in item:
                self.read_user_metadata(item)
        cards = self.create_card_view_html(tabname, none_message="Loading..." if empty else None)
        return self.create_tree_view_html(tabname) + self.create_dirs_view_html(tabname) + cards

    def list_items(self):
        """All items."""
        raise NotImplementedError

    def allowed_directories_for_previews(self):
        """Folders with pictures."""
        return []

    def get_sort_keys(self, path):
        """What cards are sorted by."""
        changed, created = self.lister.mctime(path)
        return {
            "date_created": int(created),
            "date_modified": int(changed),
            "name": Path(path).name,
            "path": path,
        }

    def find_preview(self, path):
        """The picture of a path without suffix."""

    def create_user_metadata_editor(self, ui, tabname):
        """The dialogue of a card."""
        from modules import ui_extra_networks_user_metadata

        return ui_extra_networks_user_metadata.UserMetadataEditor(ui, tabname, self)


def register_page(page):
    """Add one, without a look at those that are there."""
    extra_pages.append(page)
    allowed_dirs.clear()
    for page in extra_pages:
        allowed_dirs.update(page.allowed_directories_for_previews())


def get_metadata(page="", item=""):
    """The answer to the metadata button."""
    found = next(x for x in extra_pages if x.name == page).metadata.get(item)
    return (
        {}
        if found is None
        else {"metadata": json.dumps({key: found[key] for key in found}, indent=4)}
    )


def get_single_card(page="", tabname="", name=""):
    """A card drawn anew, after its editor was used."""
    found = next(x for x in extra_pages if x.name == page)
    with contextlib.suppress(Exception):
        found.items[name] = found.create_item(name, enable_filter=False)
    item = found.items.get(name)
    found.read_user_metadata(item, use_cache=False)
    return {"html": found.create_item_html(tabname, item, shared.html("extra-networks-card.html"))}
