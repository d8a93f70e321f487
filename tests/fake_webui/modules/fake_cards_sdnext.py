"""Cards as SD.Next makes them: what it escapes is escaped here, what not is not."""

import html
import os
import urllib.parse
from pathlib import Path

from modules import shared

shared.extra_networks = extra_pages = []
allowed_dirs: list = []
shared.opts.data.setdefault("samples_format", "jpg")
CARD = """
<div class='card' onclick={card_click} title='{name}' data-page='{page}' data-name='{name}' data-filename='{filename}'
    data-short='{short}' data-tags='{tags}' data-mtime='{mtime}' data-size='{size}' data-search='{search}'
    data-version='{version}'><div class='name'>{title}</div><div class='version'>{version}</div>
    <img class='preview' src='{preview}'></img></div>"""


class ExtraNetworksPage:
    """One tab."""

    def __init__(self, title):
        self.title, self.name = title, title.lower()
        self.metadata: dict = {}
        self.items: list = []
        self.card = CARD

    def refresh(self):
        """Look at the files again."""

    def patch(self, text, tabname):
        """The page of one tab becomes that of another."""
        return text.replace("~tabname", tabname).replace("txt2img", tabname)

    def link_preview(self, filename):
        """Where a picture is served."""
        return f"/thumb?filename={urllib.parse.quote(filename)}"

    def create_items(self, tabname):
        """List them."""
        self.items = list(self.list_items())
        for item in self.items:
            self.metadata[item["name"]] = item.get("metadata", {})

    def create_page(self, tabname, skip=False):
        """The tab."""
        self.create_items(tabname)
        return self.patch("".join(self.create_html(item, tabname) for item in self.items), tabname)

    def list_items(self):
        """All items."""
        raise NotImplementedError

    def allowed_directories_for_previews(self):
        """Folders with pictures."""
        return []

    def create_html(self, item, tabname):
        """One card."""
        onclick = html.escape(f"cardClicked({item.get('prompt')})")
        return self.card.format(
            page=self.name,
            name=html.escape(item["name"]),
            title=Path(item["name"].replace("_", " ")).name,
            filename=html.escape(item["filename"]),
            short=Path(item["filename"]).stem,
            tags=item.get("tags", ""),
            preview=html.escape(item["preview"]),
            search=item.get("search_term", ""),
            card_click=item.get("onclick", f'"{onclick}"'),
            mtime=item["mtime"],
            size=item["size"],
            version=item["version"],
        )

    def update_all_previews(self, items):
        """The pictures of all items."""
        for item in items:
            item["local_preview"] = (
                f"{os.path.splitext(item['filename'])[0]}.{shared.opts.samples_format}"
            )
            item["preview"] = self.link_preview(item["local_preview"])

    def find_description(self, path, info=None):
        """What is shown while the pointer is over a card."""
        return ""

    def find_info(self, path):
        """What the site says."""
        return {}


def register_page(page):
    """Add one."""
    if page not in extra_pages:
        extra_pages.append(page)
    for folder in page.allowed_directories_for_previews():
        if folder not in allowed_dirs:
            allowed_dirs.append(folder)
