"""What ComfyUI, its page and its registry find around the nodes: languages, pictures, scripts."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from comfy_models import write
from PIL import Image

ROOT = Path(__file__).parents[3]
LOCALES = ROOT / "locales"
LANGUAGES = sorted(folder.name for folder in LOCALES.iterdir())
WEB = ROOT / "hypernetworks/hosts/comfyui/web"


def said(comfy: Any) -> dict[str, Any]:
    """The texts of all nodes, as ComfyUI's page looks them up."""

    def texts(field: Any, name: str) -> dict[str, str]:
        tooltip = field.options.get("tooltip")
        return {"name": name, **({"tooltip": tooltip} if tooltip else {})}

    found = {}
    for kind, node in comfy.nodes.items():
        schema = node.define_schema()
        outputs = enumerate(schema.outputs)
        found[kind] = {
            "display_name": schema.display_name,
            "description": schema.description,
            "inputs": {field.id: texts(field, field.id) for field in schema.inputs},
            "outputs": {str(i): texts(f, f.options["display_name"]) for i, f in outputs},
        }
    return found


def read(language: str, name: str) -> Any:
    return json.loads((LOCALES / language / name).read_text(encoding="utf-8"))


def shape(texts: Any) -> Any:
    return {k: shape(v) for k, v in texts.items()} if isinstance(texts, dict) else None


def leaves(texts: Any) -> list[str]:
    if isinstance(texts, str):
        return [texts]
    return [leaf for value in texts.values() for leaf in leaves(value)]


def test_english_is_what_the_nodes_say(comfy: Any) -> None:
    assert read("en", "nodeDefs.json") == said(comfy)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_text(language: str) -> None:
    english, texts = read("en", "nodeDefs.json"), read(language, "nodeDefs.json")
    assert shape(texts) == shape(english)
    assert list(read(language, "main.json")["nodeCategories"]) == ["hypernetworks"]
    assert all(text.strip() for text in leaves(texts))
    # What is code must be the same everywhere: tags, names of fields and files.
    code = re.compile(r"<hypernet[^>]*>|hr=|block_factors|models/hypernetworks|[.]safetensors")
    for ours, theirs in zip(leaves(english), leaves(texts), strict=True):
        assert sorted(code.findall(ours)) == sorted(code.findall(theirs)) or ours == "block_factors"
    if language != "en":
        changed = [a != b for a, b in zip(leaves(english), leaves(texts), strict=True)]
        assert sum(changed) > 0.6 * len(changed)


def test_every_workflow_has_a_picture() -> None:
    """ComfyUI's list of templates shows NAME.jpg beside NAME.json."""
    folder = ROOT / "example_workflows"
    names = {path.stem for path in folder.glob("*.json")}
    pictures = list(folder.glob("*.jpg"))
    assert {path.stem for path in pictures} == names
    for path in pictures:
        assert path.stat().st_size < 300_000
        with Image.open(path) as image:
            assert min(image.size) >= 300


def project() -> dict[str, Any]:
    """``pyproject.toml``."""
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8")))


def test_the_registry_finds_its_fields() -> None:
    """All but the publisher, whom the owner writes there."""
    fields = project()["tool"]["comfy"]
    assert set(fields) == {"PublisherId", "DisplayName", "Icon", "requires-comfyui"}
    assert "PublisherId" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    with Image.open(ROOT / "docs/pictures/icon.png") as icon:
        assert max(icon.size) <= 800
        assert icon.height <= 400
    assert (ROOT / "docs/pictures/icon.svg").is_file()


def test_the_page_loads_one_script_of_ours() -> None:
    """ComfyUI starts every script of the folder; those of the webuis come from elsewhere."""
    from hypernetworks.hosts.comfyui import page

    scripts = [path.name for path in WEB.rglob("*.js")]
    assert scripts == ["hypernetworks_comfyui.js"]
    text = (WEB / scripts[0]).read_text(encoding="utf-8")
    named = re.search(r"const SCRIPTS = \[(.+)\];", text)
    assert named is not None
    assert re.findall(r'"(.+?)"', named[1]) == [p.name for p in page.SHARED if p.suffix == ".js"]
    assert f"../..{page.ADDRESS}/" in text
    assert all(path.is_file() for path in page.SHARED)


def test_the_script_knows_the_slots_of_the_stack(comfy: Any) -> None:
    from hypernetworks.hosts.comfyui.nodes.stacking import SLOTS

    text = (WEB / "hypernetworks_comfyui.js").read_text(encoding="utf-8")
    assert f"const SLOTS = {SLOTS};" in text
    assert 'const NONE = "None";' in text


def test_the_server_answers_for_the_shared_files(
    comfy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import server

    from hypernetworks.hosts.comfyui import page

    page.serve()  # no routes: a ComfyUI without a server
    answers: dict[str, Any] = {}
    routes = SimpleNamespace(get=lambda path: lambda handler: answers.update({path: handler}))
    monkeypatch.setattr(server.PromptServer.instance, "routes", routes, raising=False)
    response = SimpleNamespace(Response=lambda **given: given, FileResponse=lambda path, **_: path)
    monkeypatch.setitem(sys.modules, "aiohttp", SimpleNamespace(web=response))
    page.serve()
    style = asyncio.run(answers["/hypernetworks_page/style.css"](None))
    script = asyncio.run(answers["/hypernetworks_page/hypernetworks_curve.js"](None))
    preview = answers["/hypernetworks_page/preview"]
    assert style["content_type"] == "text/css"
    assert script["content_type"] == "text/javascript"
    assert b"Curve" in script["body"]

    def asked(name: str) -> Any:
        return asyncio.run(preview(SimpleNamespace(query={"name": name})))

    write(comfy.folder, "ink")
    assert asked("ink.pt") == asked("absent.pt") == asked("../ink.pt") == {"status": 204}
    image = comfy.folder / "ink.preview.png"
    image.write_bytes(b"png")
    assert asked("ink.pt") == image


def test_only_comfyui_imports_the_file_at_the_top() -> None:
    """Neither pip nor pytest: the folder is no package."""
    assert project()["tool"]["setuptools"]["packages"]["find"]["include"] == ["hypernetworks*"]
    loaded = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    assert str(ROOT / "__init__.py") not in loaded
