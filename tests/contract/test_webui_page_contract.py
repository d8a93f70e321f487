"""The tab of cards on the real sources of the webuis, with the rest of the webui replaced by the
fake one.

``HYPERNETWORKS_WEBUI_SOURCES`` names a folder with ``a1111/``, ``forge/``, ``reforge/``,
``classic/`` and ``sdnext/``, checkouts of these webuis; those that are missing are skipped.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import fake_webui
import pytest
from fake_webui import FakeWebui
from webui_cards import HOSTILE, Elements, toggled, write_network

import hypernetworks.hosts.webui.cards_tab.cards as cards
from hypernetworks.hosts.webui import folders
from hypernetworks.hosts.webui.cards_tab import page, page_sdnext

SOURCES = os.environ.get("HYPERNETWORKS_WEBUI_SOURCES", "")
WITH_TABS = ("a1111", "forge", "reforge", "classic", "neo")
FAKE_OF = {"neo": "classic"}
"""The fake that stands around a host's real page, where there is none of its own."""
OPTIONS = {
    "samples_format": "png",
    "extra_networks_card_height": 0,
    "extra_networks_card_width": 0,
    "extra_networks_card_text_scale": 1.0,
    "extra_networks_card_show_desc": True,
    "extra_networks_card_description_is_html": False,
    "extra_networks_card_order": "Ascending",
    "extra_networks_card_order_field": "Path",
    "extra_networks_dir_button_function": False,
    "extra_networks_hidden_models": "When searched",
    "extra_networks_show_hidden_directories": True,
    "extra_networks_tree_view_default_enabled": True,
    "extra_networks_tree_view_default_width": 180,
    "extra_networks_tree_view_style": "Tree",
    "ui_extra_networks_tab_reorder": "",
    # SD.Next's
    "extra_networks": ["All"],
    "extra_networks_view": "gallery",
    "extra_networks_card_fit": "cover",
    "extra_networks_card_square": True,
    "extra_networks_sort": "Default",
    "extra_network_reference_enable": False,
    "extra_networks_styles": False,
    "diffusers_dir": "/nowhere/Diffusers",
    "subpath": "",
}
KINDS = [None, "gallery", "list"]


def source(host: str, *path: str) -> Path:
    found = Path(SOURCES, host, *path)
    if not SOURCES or not Path(SOURCES, host).is_dir():
        pytest.skip("HYPERNETWORKS_WEBUI_SOURCES names no folder with this webui")
    return found


def text_of(host: str, *path: str) -> str:
    return source(host, *path).read_text(encoding="utf-8")


class Standin(ModuleType):
    """A module that has whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = MagicMock(name=f"{self.__name__}.{name}")
        setattr(self, name, value)
        return value


def load(name: str, path: Path) -> ModuleType:
    """Run a real source file as ``modules.NAME``."""
    specification = importlib.util.spec_from_file_location(f"modules.{name}", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[f"modules.{name}"] = module
    setattr(sys.modules["modules"], name, module)
    specification.loader.exec_module(module)
    return module


def stand_in(*names: str) -> None:
    import modules  # type: ignore[import-not-found]

    for name in names:
        sys.modules[f"modules.{name}"] = standin = Standin(f"modules.{name}")
        setattr(modules, name, standin)


@pytest.fixture(params=WITH_TABS)
def webui(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FakeWebui]:
    """A fake webui whose page of cards, editor and templates are the real ones."""
    host = request.param
    html = source(host, "html")
    with fake_webui.installed(tmp_path, FAKE_OF.get(host, host)) as webui:
        webui.folder.mkdir(parents=True)
        webui.shared.opts.data.update(OPTIONS)
        webui.module("paths_internal").cwd = str(tmp_path)
        stand_in("images", "sysinfo", "infotext_utils")
        util = load("util", source(host, "modules", "util.py"))
        webui.shared.html = lambda name: (html / name).read_text(encoding="utf-8")
        webui.shared.natural_sort_key = util.natural_sort_key
        load("extra_networks", source(host, "modules", "extra_networks.py"))
        load_pages(host)
        yield webui


def load_pages(host: str) -> None:
    """The two modules import each other."""
    path = source(host, "modules", "ui_extra_networks.py")
    editor = source(host, "modules", "ui_extra_networks_user_metadata.py")
    stand_in("ui_extra_networks_user_metadata")
    pages = load("ui_extra_networks", path)
    pages.ui_extra_networks_user_metadata = load("ui_extra_networks_user_metadata", editor)  # type: ignore[attr-defined]


@pytest.fixture
def sdnext(tmp_path: Path) -> Iterator[FakeWebui]:
    path = source("sdnext", "modules", "ui_extra_networks.py")
    with fake_webui.installed(tmp_path, "sdnext") as webui:
        webui.folder.mkdir(parents=True)
        webui.shared.opts.data.update(OPTIONS)
        webui.shared.extra_networks = []
        webui.shared.cmd_opts.no_metadata = False
        webui.shared.max_workers = 1
        webui.shared.readfile = lambda name, **_: (
            json.loads(Path(name).read_text()) if Path(name).exists() else {}
        )
        webui.module("paths").reference_path = "/nowhere"
        stand_in(
            "devices",
            "infotext",
            "ui_symbols",
            "ui_components",
            "modelstats",
            "logger",
            "json_helpers",
        )
        stand_in("files_cache")
        sys.modules["modules.files_cache"].list_files = list_files
        sys.modules["modules.files_cache"].walk = lambda *_, **__: []
        load("ui_extra_networks", path)
        yield webui


def list_files(*folders: str, ext_filter: list[str], **_: object) -> Iterator[str]:
    for folder in map(Path, folders):
        yield from (str(f) for f in folder.glob("*") if f.suffix[1:] in ext_filter)


def our_page(webui: FakeWebui) -> Any:
    folders.refresh()
    page.register()
    return next(p for p in webui.module("ui_extra_networks").extra_pages if p.name in page.NAMES)


def safe(name: str) -> str:
    return name.replace("/", "∕")


def write_hostile(folder: Path) -> None:
    for name in HOSTILE:
        write_network(folder / f"{safe(name)}.pt", checkpoint_name=name)
        keys = {"activation text": name, "description": name}
        (folder / f"{safe(name)}.json").write_text(json.dumps(keys), encoding="utf-8")
        (folder / f"{safe(name)}.preview.png").touch()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("is_html", [False, True])
def test_no_name_breaks_out_of_a_real_card(webui: FakeWebui, is_html: bool) -> None:
    webui.shared.opts.extra_networks_card_description_is_html = is_html
    write_hostile(webui.folder)
    ours = our_page(webui)
    whole = Elements(ours.create_html("txt2img"))
    assert len(whole.of_class("card")) == len(HOSTILE)
    of = {
        name: Elements(ours.create_item_html("txt2img", ours.items[safe(name)], ours.card_tpl))
        for name in HOSTILE
    }
    plain = of["plain"]
    for name, elements in of.items():
        assert elements.shape == plain.shape
        assert elements.scripts[1:] == plain.scripts[1:]
        card, _ = elements.of_class("card")[0]
        assert card["data-name"] == safe(name)
        assert card["data-sort-name"] == f"{safe(name)}.pt".lower()
        assert set(card) >= {
            "data-sort-default",
            "data-sort-path",
            "data-sort-date_created",
            "data-sort-date_modified",
        }
        assert elements.of_class("name")[0][1] == safe(name)
        assert elements.of_class("description")[0][1].endswith(f"{name}\ntrained with {name}")
        copied, _ = elements.of_class("copy-path-button")[0]
        assert copied["data-clipboard-text"] == str(webui.folder / f"{safe(name)}.pt")
        assert len(elements.of_class("preview")) == len(elements.of_class("edit-button")) == 1
        assert len(elements.of_class("metadata-button")) == 1
        texts = [text for _, text in elements.of_class("search_terms")]
        assert texts[0] == str(Path("hypernetworks", f"{safe(name)}.pt"))
        assert name.strip() in texts
        if cards.nameable(safe(name)):
            assert toggled(card["onclick"]) == [safe(name), None, name.strip()]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_no_name_breaks_out_of_a_real_tree_or_list_of_folders(webui: FakeWebui) -> None:
    for name in HOSTILE:
        write_network(webui.folder / safe(name) / f"{safe(name)}.pt")
    ours = our_page(webui)
    ours.create_html("txt2img")
    tree = Elements(ours.create_tree_view_html("txt2img"))
    rows = {
        row["data-path"]: (row, i) for i, (row, _) in enumerate(tree.of_class("tree-list-content"))
    }
    assert len(rows) == 1 + 2 * len(HOSTILE)
    plain, _ = rows["hypernetworks/plain/plain.pt"]
    folder, _ = rows["hypernetworks/plain"]
    for name in HOSTILE:
        row, i = rows[f"hypernetworks/{safe(name)}/{safe(name)}.pt"]
        assert set(row) == set(plain)
        assert tree.of_class("tree-list-item-label")[i][1].strip(" \n") == safe(name).strip(" \n")
        assert tree.of_class("tree-list-item-action--trailing")[i][0]["data-name"] == safe(name)
        opens = "extraNetworksTreeOnClick(event, 'txt2img', 'hypernetworks');"
        assert row["onclick"].endswith(opens)
        click = row["onclick"].removesuffix(opens)
        assert (
            (toggled(click) == [safe(name), None, ""])
            if cards.nameable(safe(name))
            else click == ""
        )
        above, _ = rows[f"hypernetworks/{safe(name)}"]
        assert {**above, "data-path": "", "data-name": ""} == {
            **folder,
            "data-path": "",
            "data-name": "",
        }
    assert tree.of_class("tree-list--tree")
    if webui.host != "classic":  # has no such view
        webui.shared.opts.extra_networks_tree_view_style = "Dirs"
        labels = [
            text.strip()
            for tag, _, texts in Elements(ours.create_dirs_view_html("txt2img")).found
            for text in texts
        ]
        assert {label.strip(" /") for label in labels} == {
            "all",
            *(safe(name).strip() for name in HOSTILE),
        }


def test_without_us_names_do_break_out(webui: FakeWebui, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is escaped here on the hosts' behalf is really not escaped by them."""
    write_network(webui.folder / "plain.pt")
    ours = our_page(webui)
    item = ours.create_item("plain")
    stock = webui.module("ui_extra_networks").ExtraNetworksPage.create_item_html
    plain = Elements(stock(ours, "txt2img", item, ours.card_tpl))
    for key, value in {"search_terms": ["<b></b>"], "filename": '" data-x="'}.items():
        assert (
            Elements(stock(ours, "txt2img", {**item, key: value}, ours.card_tpl)).shape
            != plain.shape
        )
    if webui.host == "forge":
        html = stock(ours, "txt2img", {**item, "onclick": "x()"}, ours.card_tpl)
        assert (
            "selectVAE([]);x()" in html
        )  # a click would change the user's VAE: so we give no onclick


def test_requests_of_the_real_page(webui: FakeWebui) -> None:
    pytest.importorskip("starlette")
    pages = webui.module("ui_extra_networks")
    write_network(webui.folder / "ink.pt", checkpoint_name="v1-5")
    (webui.folder / "ink.png").write_bytes(b"picture")
    ours = our_page(webui)
    ours.create_html("txt2img")
    answer = json.loads(pages.get_metadata("hypernetworks", "ink").body)
    assert json.loads(answer["metadata"])["Model family"] == "SD1"
    assert json.loads(pages.get_metadata("hypernetworks", "no").body) == {}
    (webui.folder / "ink.json").write_text(
        '{"preferred weight": 2, "sd_version_str": "SdVersion.SD1"}'
    )
    card = Elements(
        json.loads(pages.get_single_card("hypernetworks", "img2img", "ink").body)["html"]
    )
    attributes, _ = card.of_class("card")[0]
    assert attributes["onclick"] == 'hypernetworksExtension.toggle("img2img", "ink", 2.0, "");'
    assert attributes.get("data-sort-sdversion", "SdVersion.Unknown") == "SdVersion.Unknown"
    assert pages.fetch_file(str(webui.folder / "ink.png")).path == str(webui.folder / "ink.png")
    with pytest.raises(ValueError, match="cannot be fetched"):
        pages.fetch_file(str(webui.folder / "ink.pt"))


def test_the_real_editor(webui: FakeWebui) -> None:
    write_network(webui.folder / "in'k <b &amp;.pt", checkpoint_name="<i>v1-5</i>")
    webui.module("sysinfo").pretty_bytes = str
    ours = our_page(webui)
    ours.create_html("txt2img")
    editor = ours.create_user_metadata_editor(None, "txt2img")
    values = editor.put_values_into_components("in'k <b &amp;")
    assert len(values) == 8
    assert values[5:] == ["SD1", "", 0.0]
    table = Elements(values[2])
    cells = [text for tag, _, texts in table.found if tag == "td" for text in texts]
    assert cells[0] == "in'k <b &amp;.pt"
    assert cells[-1] == "<i>v1-5</i>"
    assert {tag for tag, _, _ in table.found} == {"table", "tr", "th", "td"}
    editor.save("in'k <b &amp;", "d", "SD1", "words", 0.5, "n")
    assert json.loads((webui.folder / "in'k <b &amp;.json").read_text())["preferred weight"] == 0.5
    images = webui.module("images")
    images.read_info_from_image.return_value = ("", {})
    editor.page.items["in'k <b &amp;"]["preview"] = None
    for suffix in ("png", "webp"):
        webui.shared.opts.samples_format = suffix
        ours.create_html("txt2img")
        editor.save_preview(0, [SimpleNamespace()], "in'k <b &amp;")
    targets = [call.args[2] for call in images.save_image_with_geninfo.call_args_list]
    assert targets == [
        str(webui.folder / f"in'k <b &amp;.preview.{suffix}") for suffix in ("png", "webp")
    ]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("view", ["gallery", "list"])
def test_no_name_breaks_out_of_sd_nexts_real_card(sdnext: FakeWebui, view: str) -> None:
    sdnext.shared.opts.extra_networks_view = view
    write_hostile(sdnext.folder)
    ours = our_page(sdnext)
    assert [p.title for p in sdnext.module("ui_extra_networks").get_pages()] == ["Hypernetwork"]
    for tab in ("txt2img", "control"):
        ours.page_time = 0
        whole = Elements(ours.create_page(tab))
        assert len(whole.of_class("card")) == len(HOSTILE)
        found = {card["data-name"]: card for card, _ in whole.of_class("card")}
        for name in HOSTILE:
            assert found[safe(name)]["title"] == safe(name)
            assert found[safe(name)]["data-filename"] == str(sdnext.folder / f"{safe(name)}.pt")
            assert found[safe(name)]["data-page"] == "hypernetwork"
            if cards.nameable(safe(name)):
                assert toggled(found[safe(name)]["onclick"]) == [safe(name), None, name.strip()]
    made = {item["name"]: Elements(ours.create_html(item, "txt2img")) for item in ours.items}
    assert {elements.of_class("card")[0][0]["data-name"] for elements in made.values()} == set(made)
    assert {tuple(elements.shape) for elements in made.values()} == {tuple(made["plain"].shape)}
    for name, elements in made.items():
        assert elements.of_class("name")[0][1].strip("\xa0 \n") == name.strip("\xa0 \n")
        assert "preview.png" in next(item["preview"] for item in ours.items if item["name"] == name)
    item = next(item for item in ours.items if item["name"] == "plain")
    assert item["local_preview"] == str(sdnext.folder / "plain.png")
    assert json.dumps(item, cls=sdnext.module("ui_extra_networks").DateTimeEncoder)


def methods(path: Path, name: str) -> dict[str, list[str]]:
    """Parameters by method, read from the source."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = next(
        node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name
    )
    return {
        node.name: [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        for node in found.body
        if isinstance(node, ast.FunctionDef)
    }


FAKES = Path(fake_webui.HERE, "modules")


@pytest.mark.parametrize("host", [*WITH_TABS, "sdnext"])
def test_methods_are_those_of_the_host(host: str) -> None:
    """Ours override what is there, and can be called as the host calls it; so can the fake's."""
    real = methods(source(host, "modules", "ui_extra_networks.py"), "ExtraNetworksPage")
    fake = methods(
        FAKES / ("fake_cards_sdnext.py" if host == "sdnext" else "fake_cards.py"),
        "ExtraNetworksPage",
    )
    missing = {"create_dirs_view_html"} if host == "classic" else set()
    for name, parameters in fake.items():
        if not name.startswith("_") and name not in missing:
            assert real[name] == parameters, name
    ours = page_sdnext.HypernetworkPage if host == "sdnext" else page.HypernetworksPage
    for name, parameters in real.items():
        if name in dir(ours) and not name.startswith("__") and name != "create_item":
            assert list(inspect.signature(getattr(ours, name)).parameters) == parameters, name
    if host == "sdnext":
        return
    real = methods(
        source(host, "modules", "ui_extra_networks_user_metadata.py"), "UserMetadataEditor"
    )
    fake = methods(FAKES / "ui_extra_networks_user_metadata.py", "UserMetadataEditor")
    assert {name: real.get(name) for name in fake} == fake


@pytest.mark.parametrize("host", WITH_TABS)
def test_keys_of_items(host: str, tmp_path: Path) -> None:
    """Whatever the host asks of an item without a default, ours have."""
    text = text_of(host, "modules", "ui_extra_networks.py")
    asked = {
        node.slice.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("item", "x", "v")
        and isinstance(node.ctx, ast.Load)
        and isinstance(node.slice, ast.Constant)
    }
    with fake_webui.installed(tmp_path, FAKE_OF.get(host, host)) as webui:
        write_network(webui.folder / "ink.pt")
        item = our_page(webui).create_item("ink")
    assert {"name", "filename", "prompt", "local_preview", "shorthash"} <= asked
    assert {key for key in asked if isinstance(key, str)} <= set(item)


@pytest.mark.parametrize("host", WITH_TABS)
def test_places_in_templates_and_scripts(host: str) -> None:
    """What is replaced in templates is there, and scripts read what we put there."""
    copy, edit, metadata, tree = (
        text_of(host, "html", f"extra-networks-{name}-button.html")
        for name in ("copy-path", "edit-item", "metadata", "tree")
    )
    (path, _), (name, _), (trailing, _), (clicks, _) = page._IN_TEMPLATES
    assert 'data-clipboard-text="{filename}"' in copy
    assert trailing in tree
    assert clicks in tree
    assert 'data-path="{data_path}"' in tree
    script = text_of(host, "javascript", "extraNetworks.js")
    if host == "classic":
        assert path in copy
        assert name in edit
        assert name in metadata
    else:
        assert path not in copy
        assert name not in edit + metadata
        assert (
            script.count('event.target.parentElement.parentElement.getAttribute("data-name")') == 2
        )
        assert 'getAttribute("data-clipboard-text")' in script
    assert "search_terms" in script
    card = text_of(host, "html", "extra-networks-card.html")
    assert 'onclick="{card_clicked}" data-name="{name}" {sort_keys}' in card
    assert "{local_preview}" not in card + tree
    assert "{save_card_preview}" not in card + tree
    if host == "forge":
        assert (
            "opts.lora_filter_disabled == True" in script
        )  # a ReferenceError for cards of a known version
        assert "sdversion == 'SdVersion.Unknown'" in script


def test_places_in_sd_next() -> None:
    text = text_of("sdnext", "modules", "ui_extra_networks.py")
    assert text.count("<div class='card") >= 2
    assert text.count("onclick={card_click} title='{name}'") == 2
    assert 'gr.Tabs(elem_id=f"{tabname}_extra_tabs")' in text
    assert "'History', 'Hypernetwork']" in text
    assert "replace('~tabname', tabname).replace('txt2img', tabname)" in text
    assert (
        "fn = os.path.splitext(ui.last_item.filename)[0] + '.txt'" in text
    )  # the dialogue saves item.description


@pytest.mark.parametrize("host", [*WITH_TABS, "sdnext"])
def test_where_the_loaded_model_is(host: str) -> None:
    """The marks of another family look there, without making the host load a model."""
    text = text_of(host, "modules", "modeldata.py" if host == "sdnext" else "sd_models.py")
    assert "\nmodel_data = " in text
    assert "self.sd_model = " in text
    if host == "sdnext":
        return
    engines = {
        "forge": ("backend", "diffusion_engine", "sd15.py"),
        "neo": ("backend", "diffusion_engine", "sd15.py"),
        "a1111": ("modules", "sd_models.py"),
    }
    flags = text_of(host, *engines.get(host, ("modules_forge", "forge_loader.py")))
    assert "is_sd1 = " in flags
