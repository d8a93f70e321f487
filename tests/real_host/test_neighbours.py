"""Beside other extensions: ``pytest tests/real_host --webui PATH --neighbours FOLDER``.

The tests of the other modules are repeated with the neighbours, too; here is what asks for them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from webui_client import Webui, difference
from webui_page import Tab

TAGCOMPLETE = "tagcomplete"
RECIPES: dict[str, dict[str, Any]] = {
    "plain": {"prompt": "x "},
    "network": {"prompt": "x <hypernet:small:1>"},
    "batch": {"prompt": "x, y <hypernet:relu:0.7>", "batch_size": 2},
    "hires": {
        "prompt": "x <hypernet:small:0.5:hr=1>",
        "enable_hr": True,
        "hr_scale": 2,
        "hr_upscaler": "Latent",
        "denoising_strength": 0.7,
        "hr_second_pass_steps": 2,
    },
}
ALONE: dict[str, list[np.ndarray[Any, Any]]] = {}
"""Pictures of the recipes without neighbours; pytest runs that order first."""


@pytest.fixture(autouse=True)
def neighbours(request: pytest.FixtureRequest) -> list[str]:
    """The names of the other extensions; skips where there are none."""
    folder = request.config.getoption("--neighbours")
    if not folder:
        pytest.skip("no --neighbours FOLDER")
    return [path.name for path in Path(folder).iterdir() if path.is_dir()]


@pytest.mark.also_alone
def test_pictures_equal_those_without_neighbours(
    probed: Webui, request: pytest.FixtureRequest
) -> None:
    answers = {name: probed.txt2img(**recipe) for name, recipe in RECIPES.items()}
    answers["img2img"] = probed.img2img(
        "x <hypernet:small:1>", answers["plain"].picture, denoising_strength=0.8
    )
    made = {name: answer.pictures for name, answer in answers.items()}
    assert difference(made["plain"][0], made["network"][0]) > 0
    for name, answer in answers.items():
        assert ("Hypernet hashes" in answer.infotext) == (name != "plain"), answer.infotext
        assert ("<hypernet:" in answer.infotext) == (name != "plain"), answer.infotext
    if request.node.callspec.params["webui"] == "alone":
        ALONE.update(made)
        return
    if not ALONE:
        pytest.skip("run this test in all its orders at once")
    for name, pictures in made.items():
        worst = max(difference(*pair) for pair in zip(pictures, ALONE[name], strict=True))
        print(f"{name} differs by {worst}/255")
        # Beside sixteen extensions at once, images with a network were seen to differ by rounding.
        allowed = 0 if name == "plain" else 1
        assert worst <= allowed, f"{name} differs by {worst}/255"


class TestTagCompletion:
    """``a1111-sd-webui-tagcomplete``, whose list of networks is a global ``hypernetworks``."""

    @pytest.fixture(autouse=True)
    def is_there(self, neighbours: list[str]) -> None:
        """Skip without it."""
        if not any(TAGCOMPLETE in name for name in neighbours):
            pytest.skip(f"{TAGCOMPLETE} is not among {neighbours}")

    def test_both_keep_their_globals(self, txt2img: Tab) -> None:
        page = txt2img.page
        page.wait_for_function("() => Array.isArray(window.hypernetworks) && hypernetworks.length")
        assert "small" in page.evaluate("() => hypernetworks.map((network) => network[0])")
        assert page.evaluate("() => typeof hypernetworksExtension.toggle") == "function"

    def test_a_completed_tag_gets_a_row_a_slider_and_a_card(self, txt2img: Tab) -> None:
        page = txt2img.page
        page.wait_for_selector("#txt2img_prompt textarea.autocomplete")  # it reads its lists first
        txt2img.write("x ")
        page.locator("#txt2img_prompt textarea").press("End")
        page.keyboard.type("<hypernet:sma", delay=60)
        found = page.locator(".autocompleteResults li").filter(has_text="small").first
        found.wait_for(state="visible", timeout=60_000)
        txt2img.photograph("10 completion")
        found.click()
        txt2img.wait_for("^x <hypernet:small:1>")

        slider = txt2img.row("small").locator("input[type=range]")
        slider.scroll_into_view_if_needed()
        slider.focus()
        page.keyboard.press("ArrowLeft")
        txt2img.wait_for("^x <hypernet:small:0.95>")
        txt2img.photograph("11 slider after completion")

        txt2img.open_cards()
        txt2img.click("small")
        txt2img.wait_for("^x *$")
        assert txt2img.row("small").count() == 0
