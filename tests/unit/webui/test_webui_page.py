"""The tab of cards in a fake webui of each kind: its place, its items, and that no name breaks out
of its card."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_webui
import pytest
from fake_webui import FakeWebui
from hypothesis import given, settings
from hypothesis import strategies as st
from webui_cards import HOSTILE, Elements, toggled, write_network

import hypernetworks.hosts.webui.cards_tab.cards as cards
from hypernetworks.hosts.webui import folders
from hypernetworks.hosts.webui.cards_tab import page
from hypernetworks.library import Entry
from hypernetworks.library.sidecars import Sidecars

WITH_TABS = ("a1111", "forge", "reforge", "classic")


@pytest.fixture(params=WITH_TABS)
def webui(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FakeWebui]:
    with fake_webui.installed(tmp_path, request.param) as webui:
        webui.folder.mkdir(parents=True)
        yield webui


@pytest.fixture
def sdnext(tmp_path: Path) -> Iterator[FakeWebui]:
    with fake_webui.installed(tmp_path, "sdnext") as webui:
        webui.folder.mkdir(parents=True)
        yield webui


def our_page(webui: FakeWebui) -> Any:
    """Register after the files are written, and give our page."""
    folders.refresh()
    page.register()
    return next(p for p in webui.module("ui_extra_networks").extra_pages if p.name in page.NAMES)


def drawn(webui: FakeWebui, found: Any, name: str) -> Elements:
    return Elements(
        found.create_item_html(
            "txt2img", found.items[name], webui.shared.html("extra-networks-card.html")
        )
    )


def load_model(webui: FakeWebui, monkeypatch: pytest.MonkeyPatch, **flags: bool) -> None:
    model = SimpleNamespace(model_data=SimpleNamespace(sd_model=SimpleNamespace(**flags)))
    monkeypatch.setitem(__import__("sys").modules, "modules.sd_models", model)  # type: ignore[arg-type]


class Stock:
    """Another tab, or the host's own of hypernetworks."""

    def __init__(self, title: str) -> None:
        self.title, self.name = title, title.lower()

    def allowed_directories_for_previews(self) -> list[str]:
        return []


def test_one_tab_in_the_stock_ones_place(webui: FakeWebui) -> None:
    pages = webui.module("ui_extra_networks").extra_pages
    pages.extend(map(Stock, ("Textual Inversion", "Hypernetworks", "Checkpoints")))
    ours = our_page(webui)
    page.register()
    assert [p.title for p in pages] == ["Textual Inversion", "Hypernetworks", "Checkpoints"]
    assert not isinstance(pages[1], Stock)
    assert type(ours).__mro__[1] is page.HypernetworksPage
    assert isinstance(ours, webui.module("ui_extra_networks").ExtraNetworksPage)


def test_one_tab_where_there_was_none_and_after_reload(webui: FakeWebui) -> None:
    pages = webui.module("ui_extra_networks").extra_pages
    for _ in range(2):  # Reload UI empties the list and fills it with the host's own
        pages[:] = [Stock("Lora")]
        page.register()
        page.register()
        assert [p.title for p in pages] == ["Lora", "Hypernetworks"]


def test_previews_of_all_folders_may_be_served(webui: FakeWebui, tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    webui.shared.opts.hypernetworks_folders = f"{more}; {tmp_path / 'missing'}"
    ours = our_page(webui)
    assert ours.allowed_directories_for_previews() == [str(webui.folder), str(more)]
    allowed = webui.module("ui_extra_networks").allowed_dirs
    assert {str(webui.folder), str(more)} <= set(allowed)
    later = tmp_path / "later"
    later.mkdir()
    webui.shared.opts.hypernetworks_folders = str(later)
    ours.refresh()
    assert str(later) in allowed


def test_items_of_all_file_types_and_folders(webui: FakeWebui) -> None:
    for name in ("ink.pt", "old/ink.safetensors", "deep/er/sepia.safetensors"):
        write_network(webui.folder / name)
    (webui.folder / "odd.bin").write_bytes((webui.folder / "ink.pt").read_bytes())
    ours = our_page(webui)
    ours.create_html("txt2img")
    assert list(ours.items) == ["ink", "odd", "old/ink", "sepia"]
    item = ours.items["old/ink"]
    assert item["filename"] == str(webui.folder / "old" / "ink.safetensors")
    assert item["local_preview"] == str(webui.folder / "old" / "ink.preview.png")
    assert item["search_terms"] == [str(Path("hypernetworks", "old", "ink.safetensors"))]
    assert set(item["sort_keys"]) >= {"default", "date_created", "date_modified", "name", "path"}
    assert [item["sort_keys"]["default"] for item in ours.items.values()] == [0, 1, 2, 3]
    assert "sd_version" not in item
    assert "sd_version_str" not in item
    assert toggled(drawn(webui, ours, "old/ink").scripts[0]) == ["old/ink", None, ""]


def test_files_of_one_name_have_a_card_each_whose_tag_means_it(webui: FakeWebui) -> None:
    write_network(webui.folder / "ink.pt")
    write_network(webui.folder / "ink.safetensors")
    ours = our_page(webui)
    ours.create_html("txt2img")
    assert {name: Path(item["filename"]).name for name, item in ours.items.items()} == {
        "ink": "ink.safetensors",
        "ink.pt": "ink.pt",
    }


def test_side_cars_on_the_card(webui: FakeWebui) -> None:
    write_network(webui.folder / "ink.pt", checkpoint_name="anything-v3", step=2000)
    keys = {
        "activation text": 'ink "wash", <b>',
        "preferred weight": -0.5,
        "description": "black & white",
        "vae": "x",
    }
    (webui.folder / "ink.json").write_text(json.dumps(keys), encoding="utf-8")
    (webui.folder / "ink.png").touch()
    ours = our_page(webui)
    ours.create_html("img2img")
    item = ours.items["ink"]
    assert item["description"] == "black & white\ntrained with anything-v3, 2000 steps"
    assert item["user_metadata"] == keys
    assert item["local_preview"] == str(webui.folder / "ink.png")
    assert "ink.png" in item["preview"]
    assert 'ink "wash", <b>' in item["search_terms"]
    assert item["prompt"] == '"<hypernet:ink:" + -0.5 + "> ink \\"wash\\", <b>"'
    elements = drawn(webui, ours, "ink")
    assert toggled(elements.of_class("card")[0][0]["onclick"]) == ["ink", -0.5, 'ink "wash", <b>']
    assert elements.of_class("description")[0][1] == item["description"]


def test_stock_expression_of_the_prompt(webui: FakeWebui) -> None:
    write_network(webui.folder / "ink.pt")
    ours = our_page(webui)
    assert (
        ours.create_item("ink")["prompt"]
        == '"<hypernet:ink:" + opts.extra_networks_default_multiplier + ">"'
    )


@pytest.mark.parametrize(
    ("widths", "flags", "mark"),
    [
        (
            (4, 768),
            {"is_sdxl": True, "is_sd1": False},
            "⚠ made for SD1, but the loaded model is SDXL",
        ),
        ((4, 768), {"is_sd1": True, "is_sdxl": False}, ""),
        ((768, 1024), {"is_sd2": True}, ""),
        ((1024,), {"is_sd1": True}, "⚠ made for SD2, but the loaded model is SD1"),
        ((4, 8), {"is_sd1": True}, ""),
        ((4, 768), {}, ""),
    ],
)
def test_marks_of_another_family(
    webui: FakeWebui,
    monkeypatch: pytest.MonkeyPatch,
    widths: tuple[int, ...],
    flags: dict[str, bool],
    mark: str,
) -> None:
    write_network(webui.folder / "ink.pt", widths)
    ours = our_page(webui)
    load_model(webui, monkeypatch, **flags)
    ours.create_html("txt2img")
    assert ours.items["ink"]["description"] == mark
    webui.shared.opts.extra_networks_card_show_desc = False  # marks are shown all the same
    assert drawn(webui, ours, "ink").of_class("description")[0][1] == mark


def test_what_the_user_says_counts_where_widths_say_nothing(
    webui: FakeWebui, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, widths in (("ink", (4, 8)), ("sepia", (4, 768))):
        write_network(webui.folder / f"{name}.pt", widths)
        (webui.folder / f"{name}.json").write_text('{"sd version": "SDXL"}', encoding="utf-8")
    ours = our_page(webui)
    load_model(webui, monkeypatch, is_sd1=True)
    assert "made for SDXL" in ours.create_item("ink")["description"]
    assert ours.create_item("sepia")["description"] == ""


def test_the_model_of_a_diffusers_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    unet = SimpleNamespace(config=SimpleNamespace(cross_attention_dim=2048))
    holder = SimpleNamespace(model_data=SimpleNamespace(sd_model=SimpleNamespace(unet=unet)))
    monkeypatch.setitem(__import__("sys").modules, "modules.modeldata", holder)  # type: ignore[arg-type]
    assert cards.loaded_family() == "SDXL"


def test_a_file_that_can_not_be_used_says_why_and_costs_no_other(webui: FakeWebui) -> None:
    write_network(webui.folder / "ink.pt")
    (webui.folder / "broken.pt").write_bytes(b"nothing of the kind")
    (webui.folder / "ink.json").write_text("{", encoding="utf-8")
    ours = our_page(webui)
    html = ours.create_html("txt2img")
    assert list(ours.items) == ["broken", "ink"]
    assert ours.items["broken"]["description"].startswith(
        "⚠ it can't be used: broken.pt: it is not a torch file"
    )
    assert ours.items["ink"]["description"] == "⚠ ink.json is not a JSON object and was ignored"
    assert len(Elements(html).of_class("card")) == 2
    assert "not a torch file" in ours.metadata["broken"]["Error"]


def test_structure_is_read_once_per_file(webui: FakeWebui, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    original = cards.read_description
    monkeypatch.setattr(
        cards, "read_description", lambda path: (read.append(path), original(path))[1]
    )
    monkeypatch.setattr(
        cards, "read", lambda *_: pytest.fail("a list is no reason to read numbers")
    )
    write_network(webui.folder / "ink.pt")
    write_network(webui.folder / "sepia.safetensors", (4, 1024))
    ours = our_page(webui)
    for tab in ("txt2img", "img2img"):
        ours.create_html(tab)
    assert sorted(path.name for path in read) == ["ink.pt", "sepia.safetensors"]
    write_network(webui.folder / "ink.pt", (4, 2048))
    ours.refresh()
    ours.create_html("txt2img")
    assert [path.name for path in read[2:]] == ["ink.pt"]


def test_metadata_is_computed_when_asked_for(
    webui: FakeWebui, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_network(webui.folder / "ink.pt", checkpoint_name="v1-5 <b>", step=7)
    ours = our_page(webui)
    with monkeypatch.context() as patch:
        patch.setattr(cards, "inspect", lambda *_: pytest.fail("too early"))
        ours.create_html("txt2img")
    assert drawn(webui, ours, "ink").of_class("metadata-button")
    get_metadata = webui.module("ui_extra_networks").get_metadata
    found = json.loads(get_metadata("hypernetworks", "ink")["metadata"])
    assert found["Model family"] == "SD1"
    assert found["Context widths"] == "4, 768"
    assert found["Layer structure"] == "1, 0.25, 1"
    assert set(found["Norms"]) == {"4 keys", "4 values", "768 keys", "768 values"}
    assert found["Trained"] == "7 steps on v1-5 <b>"
    assert len(found["Hash"]) == 10
    assert get_metadata("hypernetworks", "unknown") == {}


def test_names_that_no_tag_can_hold(webui: FakeWebui) -> None:
    if os.name == "nt":
        pytest.skip("no file can have such a name")
    for name in ("a:b", "a>b"):
        write_network(webui.folder / f"{name}.pt")
    ours = our_page(webui)
    ours.create_html("txt2img")
    for name in ("a:b", "a>b"):
        assert "rename the file" in ours.items[name]["description"]
        assert drawn(webui, ours, name).of_class("card")[0][0]["onclick"] == ""


def test_paths_that_are_no_text_are_left_out(webui: FakeWebui) -> None:
    write_network(webui.folder / "ink.pt")
    try:
        (webui.folder / "bad\udcff.pt").write_bytes((webui.folder / "ink.pt").read_bytes())
        (webui.folder / "bad\udcff").mkdir()
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system has no such names")
    ours = our_page(webui)
    ours.create_html("txt2img").encode()
    assert list(ours.items) == ["ink"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("is_html", [False, True])
def test_no_name_breaks_out_of_its_card(webui: FakeWebui, is_html: bool) -> None:
    webui.shared.opts.extra_networks_card_description_is_html = is_html
    names = [name for name in HOSTILE if ">" not in name] + [
        name for name in HOSTILE if ">" in name
    ]
    for name in names:
        safe = name.replace("/", "∕")
        write_network(webui.folder / f"{safe}.pt", checkpoint_name=name)
        content = {"activation text": name, "description": name, "notes": name}
        (webui.folder / f"{safe}.json").write_text(json.dumps(content), encoding="utf-8")
        (webui.folder / f"{safe}.preview.png").touch()
    ours = our_page(webui)
    ours.create_html("txt2img")
    plain = drawn(webui, ours, "plain")
    for name in names:
        safe = name.replace("/", "∕")
        elements = drawn(webui, ours, safe)
        assert elements.shape == plain.shape
        assert elements.scripts[1:] == plain.scripts[1:]  # those of the buttons
        card, _ = elements.of_class("card")[0]
        assert card["data-name"] == safe
        assert elements.of_class("name")[0][1] == safe
        assert elements.of_class("description")[0][1].endswith(f"{name}\ntrained with {name}")
        assert elements.of_class("copy-path-button")[0][0]["data-clipboard-text"] == str(
            webui.folder / f"{safe}.pt"
        )
        assert name.strip() in [text for _, text in elements.of_class("search_terms")]
        expected = [safe, None, name.strip()] if cards.nameable(safe) else None
        assert (toggled(card["onclick"]) if expected else None) == expected


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_no_name_breaks_out_of_the_tree(webui: FakeWebui) -> None:
    for name in HOSTILE:
        safe = name.replace("/", "∕").replace(":", "")
        write_network(webui.folder / safe / f"{safe}.pt")
    ours = our_page(webui)
    ours.create_html("txt2img")
    tree = Elements(ours.create_tree_view_html("txt2img"))
    rows = tree.of_class("tree-list-content")
    assert len(rows) == 1 + 2 * len(HOSTILE)
    trailing = tree.of_class("tree-list-item-action--trailing")
    plain = next(i for i, (row, _) in enumerate(rows) if row["data-path"].endswith("plain.pt"))
    for name in HOSTILE:
        safe = name.replace("/", "∕").replace(":", "")
        i = next(
            i
            for i, (row, _) in enumerate(rows)
            if row["data-path"] == f"hypernetworks/{safe}/{safe}.pt"
        )
        assert set(rows[i][0]) == set(rows[plain][0])
        assert trailing[i][0]["data-name"] == safe  # the buttons find the card by it
        script = rows[i][0]["onclick"].removesuffix(
            "extraNetworksTreeOnClick(event, 'txt2img', 'hypernetworks');"
        )
        if cards.nameable(safe):
            assert toggled(script) == [safe, None, ""]
        assert rows[i - 1][0]["data-path"] == f"hypernetworks/{safe}"
    assert {s for s in tree.scripts if "toggle" not in s and "TreeOnClick" not in s} == {
        s for s in drawn(webui, ours, "plain").scripts if "toggle" not in s
    }


def test_the_tree_has_folders_of_one_name(webui: FakeWebui, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "hypernetworks"
    write_network(webui.folder / "a" / "ink.pt")
    write_network(other / "a" / "sepia.pt")
    write_network(other / "night.pt")
    webui.shared.opts.hypernetworks_folders = str(other)
    ours = our_page(webui)
    ours.create_html("txt2img")
    rows = Elements(ours.create_tree_view_html("txt2img")).of_class("tree-list-content")
    paths = [str(Path(row["data-path"]).relative_to("hypernetworks")) for row, _ in rows]
    assert paths == [".", "a", str(Path("a", "ink.pt")), str(Path("a", "sepia.pt")), "night.pt"]
    for row, _ in rows:  # a click on a folder searches for its path
        hits = [
            i
            for i in ours.items.values()
            if row["data-path"].lower() in i["search_terms"][0].lower()
        ]
        assert hits


def made_up(webui: FakeWebui, ours: Any, name: str, beside: Sidecars) -> Elements:
    """The card of a name that no file needs to have."""
    entry = Entry("a", webui.folder / "a.pt", "", 1, 1)
    item = ours.item(cards.Card(name, entry, beside, cards.Facts(), ()), 0)
    ours.items[name] = {**item, "filename": f"{item['filename']}/{name}"}
    return drawn(webui, ours, name)


@pytest.mark.slow
@given(
    name=st.text(min_size=1, max_size=30),
    words=st.text(max_size=30),
    multiplier=st.none() | st.floats(-9, 9),
)
@settings(max_examples=150)
def test_any_name_and_words(
    tmp_path_factory: pytest.TempPathFactory, name: str, words: str, multiplier: float | None
) -> None:
    folder = tmp_path_factory.mktemp("any", numbered=True)
    beside = Sidecars(
        description=words, activation_text=words or "x", preferred_multiplier=multiplier
    )
    for host in ("a1111", "classic"):
        with fake_webui.installed(folder, host) as webui:
            webui.folder.mkdir(parents=True, exist_ok=True)
            ours = our_page(webui)
            plain = made_up(
                webui, ours, "plain", replace(beside, description="a", activation_text="b")
            )
            elements = made_up(webui, ours, name, beside)
            assert elements.shape == plain.shape
            assert elements.scripts[1:] == plain.scripts[1:]
            if cards.nameable(name):
                assert toggled(elements.scripts[0]) == [name, multiplier, words or "x"]


def test_these_checks_notice_what_breaks_out(
    webui: FakeWebui, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "_IN_TEMPLATES", ())
    ours = our_page(webui)
    plain, quoted = (made_up(webui, ours, name, Sidecars()) for name in ("plain", "');alert(1)//"))
    assert (plain.scripts[1:] != quoted.scripts[1:]) == (webui.host == "classic")
    monkeypatch.setattr(page, "escape", str)
    with pytest.raises(AssertionError):
        assert made_up(webui, ours, "<b>", Sidecars(title="<script></script>")).shape == plain.shape


def test_nothing_there_yet(webui: FakeWebui) -> None:
    odd = webui.root / "a <b> & 'c' d"
    webui.shared.opts.hypernetworks_folders = str(odd)
    ours = our_page(webui)
    elements = Elements(ours.create_card_view_html("txt2img", none_message=None))
    assert [text for tag, _, texts in elements.found if tag == "li" for text in texts] == [
        str(webui.folder),
        str(odd),
    ]
    assert "Loading" in ours.create_html("txt2img", empty=True)


def test_a_fault_of_ours_never_stops_the_start(
    webui: FakeWebui, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_network(webui.folder / "ink.pt")
    write_network(webui.folder / "sepia.pt")
    ours = our_page(webui)
    original = cards.read_sidecars

    def fail(entry: Entry, names: object = None) -> Sidecars:
        if entry.name == "ink":
            raise ZeroDivisionError
        return original(entry)

    monkeypatch.setattr(cards, "read_sidecars", fail)
    ours.create_html("txt2img")
    assert list(ours.items) == ["sepia"]
    monkeypatch.setattr(folders, "library", lambda: 1 / 0)
    monkeypatch.setattr(folders, "folders", lambda: 1 / 0)
    ours.create_html("txt2img", empty=True)
    ours.list_items()
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_one_card_is_drawn_anew(webui: FakeWebui) -> None:
    write_network(webui.folder / "ink.pt", checkpoint_name="v1-5")
    write_network(webui.folder / "sepia.pt")
    ours = our_page(webui)
    ours.create_html("txt2img")
    (webui.folder / "sepia.json").write_text(
        '{"description": "brown", "preferred weight": 0.3}', encoding="utf-8"
    )
    (webui.folder / "sepia.preview.png").touch()
    answer = webui.module("ui_extra_networks").get_single_card("hypernetworks", "img2img", "sepia")[
        "html"
    ]
    card = Elements(answer)
    assert card.of_class("description")[0][1] == "brown"
    assert (
        card.of_class("card")[0][0]["onclick"]
        == 'hypernetworksExtension.toggle("img2img", "sepia", 0.3, "");'
    )
    assert card.of_class("card")[0][0]["data-sort-default"] == "1"
    mtime = (webui.folder / "sepia.preview.png").lstat().st_mtime
    assert card.of_class("preview")[0][0]["src"].endswith(f"mtime={mtime}")
    (webui.folder / "ink.pt").unlink()
    ours.refresh()
    answer = webui.module("ui_extra_networks").get_single_card("hypernetworks", "img2img", "ink")[
        "html"
    ]
    assert Elements(answer).of_class("name")[0][1] == "ink"


def test_sd_next_has_its_own_title_and_items(sdnext: FakeWebui) -> None:
    write_network(sdnext.folder / "ink.pt", (4, 1024), checkpoint_name="v2-1")
    write_network(sdnext.folder / "old" / "ink.pt")
    keys = {"activation text": "ink, wash", "description": "black", "preferred weight": 0.5}
    (sdnext.folder / "ink.json").write_text(json.dumps(keys), encoding="utf-8")
    ours = our_page(sdnext)
    page.register()
    assert [p.title for p in sdnext.module("ui_extra_networks").extra_pages] == ["Hypernetwork"]
    assert str(sdnext.folder) in sdnext.module("ui_extra_networks").allowed_dirs
    html = ours.create_page("txt2img")
    items = {item["name"]: item for item in ours.items}
    assert set(items) == {"ink", "old/ink"}
    item = items["ink"]
    assert json.loads(item["prompt"]) == " <hypernet:ink:0.5> ink, wash"
    assert json.loads(items["old/ink"]["prompt"]) == " <hypernet:old/ink:1.0>"
    assert (item["version"], items["old/ink"]["version"]) == ("SD 2", "SD 1.5")
    assert (item["tags"], item["description"]) == ("ink|wash", "black")
    assert ours.find_description(item["filename"]) == "black\ntrained with v2-1"
    assert ours.find_description(None) == ours.find_description("/nowhere") == ""
    assert ours.metadata.get("ink", "none")["Model family"] == "SD2"
    assert json.dumps({**item, "mtime": str(item["mtime"])})  # the host sends items
    clicks = [toggled(card["onclick"]) for card, _ in Elements(html).of_class("card")]
    assert clicks == [["ink", 0.5, "ink, wash"], ["old/ink", None, ""]]


def test_sd_next_marks(sdnext: FakeWebui, monkeypatch: pytest.MonkeyPatch) -> None:
    write_network(sdnext.folder / "ink.pt")
    (sdnext.folder / "broken.pt").write_bytes(b"nothing of the kind")
    ours = our_page(sdnext)
    load_model(sdnext, monkeypatch, is_sdxl=True)
    ours.create_page("txt2img")
    assert {item["name"]: item["version"] for item in ours.items} == {
        "ink": "⚠ SD 1.5",
        "broken": "⚠",
    }
    assert "the loaded model is SDXL" in ours.find_description(str(sdnext.folder / "ink.pt"))
    assert ours.items[0]["description"] == ""  # the host's dialogue writes it into NAME.txt


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_no_name_breaks_out_of_sd_nexts_cards(sdnext: FakeWebui) -> None:
    for name in HOSTILE:
        safe = name.replace("/", "∕")
        write_network(sdnext.folder / f"{safe}.pt")
        keys = {"activation text": name.replace(",", "")}
        (sdnext.folder / f"{safe}.json").write_text(json.dumps(keys), encoding="utf-8")
    ours = our_page(sdnext)
    for tab in ("txt2img", "img2img"):
        html = ours.create_page(tab)
        shapes = {
            tuple(Elements(part).shape)
            for part in html.split("\n<div class='card'")[1:]
            for part in [f"<div{part}"]
        }
        assert len(shapes) == 1
        elements = Elements(html)
        found = {card["data-name"]: card for card, _ in elements.of_class("card")}
        assert set(found) == {name.replace("/", "∕") for name in HOSTILE}
        for name in HOSTILE:
            safe = name.replace("/", "∕")
            card = found[safe]
            assert card["data-filename"] == str(sdnext.folder / f"{safe}.pt")
            assert card["data-short"] == safe
            assert card["data-tags"] == name.replace(",", "").strip()
            if cards.nameable(safe):
                assert toggled(card["onclick"]) == [safe, None, name.replace(",", "").strip()]
            else:
                assert card["onclick"] == ""
        assert {text for _, text in elements.of_class("name")} == set(found)


def editor_of(webui: FakeWebui) -> tuple[Any, Any]:
    ours = our_page(webui)
    ours.create_html("txt2img")
    editor = ours.create_user_metadata_editor(None, "txt2img")
    editor.create_ui()
    return ours, editor


def test_the_editor_shows_and_saves(webui: FakeWebui) -> None:
    write_network(webui.folder / "ink.pt", checkpoint_name="<b>v1-5</b>")
    (webui.folder / "ink.json").write_text(
        '{"negative text": "photo", "notes": "old"}', encoding="utf-8"
    )
    (webui.folder / "ink.txt").write_text("from the text file", encoding="utf-8")
    _, editor = editor_of(webui)
    show, fields, _ = editor.button_edit.handlers[0]
    assert fields == [editor.edit_name_input]
    name, description, table, _, notes, base_model, activation_text, multiplier = show("ink")
    assert (name, description, notes) == ("ink", "from the text file", "old")
    assert (base_model, activation_text, multiplier) == ("SD1", "", 0.0)
    rows = [text for tag, _, texts in Elements(table).found if tag == "td" for text in texts]
    assert rows[0] == "ink.pt"
    assert len(rows[1]) == 10
    assert rows[2:] == ["SD1", "<b>v1-5</b>"]
    save, fields, _ = editor.button_save.handlers[0]
    assert len(fields) == 6
    save("ink", "described", "SD2", "ink wash", 0.4, "new")
    assert json.loads((webui.folder / "ink.json").read_text(encoding="utf-8")) == {
        "negative text": "photo",
        "notes": "new",
        "description": "described",
        "sd version": "SD2",
        "activation text": "ink wash",
        "preferred weight": 0.4,
    }
    assert show("ink")[5:] == ["SD2", "ink wash", 0.4]
    save("ink", "described", "SD2", "ink wash", None, "new")
    assert show("ink")[7] == 0.0


def test_marks_never_get_into_what_is_saved(
    webui: FakeWebui, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_network(webui.folder / "ink.pt", checkpoint_name="v1-5")
    _, editor = editor_of(webui)
    load_model(webui, monkeypatch, is_sdxl=True)
    _, description, table, *_ = editor.put_values_into_components("ink")
    assert description == ""
    assert "the loaded model is SDXL" in table


def test_previews_in_the_format_of_the_samples(webui: FakeWebui) -> None:
    webui.shared.opts.samples_format = "avif"
    write_network(webui.folder / "ink.pt")
    (webui.folder / "ink.preview.avif").touch()
    item = our_page(webui).create_item("ink")
    assert item["local_preview"] == str(webui.folder / "ink.preview.avif")
    assert "ink.preview.avif" in item["preview"]


@pytest.mark.parametrize("there", [None, "ink.png", "ink.preview.jpg"])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_replace_preview(webui: FakeWebui, suffix: str, there: str | None) -> None:
    write_network(webui.folder / f"ink.{suffix}")
    if there:
        (webui.folder / there).write_bytes(b"old")
    ours, editor = editor_of(webui)
    before = ours.items["ink"]["preview"]
    editor.save_preview(0, [b"new"], "ink")
    shown = webui.folder / (there or "ink.preview.png")
    assert shown.read_bytes() == b"new"
    assert ours.find_preview(str(webui.folder / "ink")) != before
    os.utime(shown, (1, 1))
    assert ours.find_preview(str(webui.folder / "ink")).endswith(f"{shown.name}&mtime=1.0")
    assert ours.find_preview(str(shown)) is None  # A1111 asks for it, too, and then as above


def test_the_editor_of_a_file_that_is_gone_or_can_not_be_written(
    webui: FakeWebui, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_network(webui.folder / "ink.pt")
    ours, editor = editor_of(webui)
    (webui.folder / "ink.json").mkdir()
    with pytest.raises(Exception, match="can't be written"):
        editor.save("ink", "", "", "", 0, "")
    (webui.folder / "ink.pt").unlink()
    ours.refresh()
    with pytest.raises(Exception, match="gone: refresh"):
        editor.save("ink", "", "", "", 0, "")
    assert editor.put_values_into_components("ink")[5:] == ["Unknown", "", 0.0]


def test_without_our_fields_the_stock_editor_has_to_do(
    webui: FakeWebui, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hypernetworks.ui import card_fields

    write_network(webui.folder / "ink.pt")
    monkeypatch.setattr(card_fields, "card_fields", lambda: 1 / 0)
    _, editor = editor_of(webui)
    assert editor.edit_notes.name == "notes"
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_the_real_fields() -> None:
    import gradio as gr

    from hypernetworks.ui import card_fields

    with gr.Blocks():
        fields = [*card_fields.card_fields(), card_fields.base_model()]
    assert [field.label for field in fields] == [
        "Activation text",
        "Preferred multiplier",
        "Notes",
        "Base model",
    ]
    with pytest.raises(gr.Error, match="what to do"):
        card_fields.refuse("what to do")


def test_many_files_are_listed_fast(webui: FakeWebui) -> None:
    import time

    write_network(webui.folder / "ink.pt", (4, 8))
    content = (webui.folder / "ink.pt").read_bytes()
    for i in range(100):
        (webui.folder / f"{i}.pt").write_bytes(content)
    ours = our_page(webui)
    ours.create_html("txt2img")
    began = time.perf_counter()
    ours.create_html("img2img")
    assert time.perf_counter() - began < 5  # 0.07 s on an idle machine
    assert len(ours.items) == 101


def test_cards_are_plain_records(tmp_path: Path) -> None:
    card = cards.Card(
        "ink", Entry("ink", tmp_path / "ink.pt", "", 0, 0), Sidecars(), cards.Facts(), ()
    )
    assert replace(card, marks=("⚠ x",)).description == "⚠ x"
    assert cards.script('"txt2img"', None) == ""
