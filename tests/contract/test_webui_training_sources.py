"""What the tab "Train hypernetwork" assumes of the webuis, checked against their sources.

``HYPERNETWORKS_WEBUI_SOURCES`` names the folder with them; those that are missing are skipped.
"""

from __future__ import annotations

import re

import pytest
from fake_webui import HOSTS
from test_webui_other_hosts import _with_sources, in_order, text_of
from test_webui_sources import NEO, has, source

MOVES = {
    "a1111": ("modules/sd_models.py", "send_model_to_cpu", "send_model_to_device"),
    "sdnext": ("modules/sd_models.py", "move_model", "move_model"),
    "forge": ("backend/memory_management.py", "unload_all_models", "soft_empty_cache"),
    NEO: ("backend/memory_management.py", "unload_all_models", "soft_empty_cache"),
    "reforge": ("ldm_patched/modules/model_management.py", "unload_all_models", "soft_empty_cache"),
    "classic": ("ldm_patched/modules/model_management.py", "unload_all_models", "soft_empty_cache"),
}
"""Where each webui moves its model off the GPU, and the functions that do it."""


@pytest.fixture(params=[*HOSTS, NEO])
def host(request: pytest.FixtureRequest) -> str:
    """Each webui whose sources are there."""
    return _with_sources(str(request.param))


def test_a_tab_of_an_extension_is_a_list_of_blocks_title_and_id(host: str) -> None:
    callbacks = source(host, "modules/script_callbacks.py")
    assert callbacks.parameters("on_ui_tabs")[0] == "callback"
    assert "res += c.callback() or []" in text_of(callbacks, "ui_tabs_callback")
    page = source(host, "modules/ui.py").text
    in_order(
        page,
        "interfaces += script_callbacks.ui_tabs_callback()",
        "_interface, label, _ifid in interfaces",
    )


def test_a_tab_needs_only_render_and_children(host: str) -> None:
    """Ours is no ``gradio.Blocks``."""
    path = "modules/ui_settings.py" if host == "sdnext" else "modules/ui.py"
    page = source(host, path).text
    assert set(re.findall(r"\binterface\.(\w+)", page)) - {"interface"} == {"render"}
    assert "add_block(interface, ifid)" in page
    values = text_of(source(host, "modules/ui_loadsave.py"), "UiLoadsave.add_block")
    in_order(values, "if hasattr(x, 'children'):", "for c in x.children:", "elif x.label")


def test_each_image_begins_with_before_process(host: str) -> None:
    """It brings the model back, before anything of the image is computed."""
    scripts = "modules/scripts_manager.py" if host == "sdnext" else "modules/scripts.py"
    assert source(host, scripts).parameters("Script.before_process")[:2] == ["self", "p"]


def test_the_selected_checkpoint_has_a_file(host: str) -> None:
    models = source(
        host, "modules/sd_checkpoint.py" if host == "sdnext" else "modules/sd_models.py"
    )
    assert models.find("select_checkpoint") is not None
    assert "self.filename = " in text_of(models, "CheckpointInfo")


def test_models_are_moved_by_the_functions_that_are_called(host: str) -> None:
    path, away, back = MOVES[host]
    functions = source(host, path)
    for name in (away, back):
        assert functions.find(name) is not None, name
    if host == "a1111":
        for other in ("backend/memory_management.py", "ldm_patched/modules/model_management.py"):
            assert not has(host, other), "it would be taken for Forge"
        assert source(host, "modules/sd_models.py").find("move_model") is None
