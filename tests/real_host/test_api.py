"""The webui's own routes and scripts, and ours."""

from __future__ import annotations

from typing import Any

import pytest
from webui_client import ApiError, Webui, difference
from webui_networks import AWKWARD

SMALL = "x <hypernet:small:1>"
NAMES = {
    "linear",
    "relu",
    "swish",
    "dropout",
    "small",
    "other",
    "safe",
    "for sdxl",
    "many steps",
    *AWKWARD,
}
TITLES = ("x/y/z plot", "xyz grid script")
"""Of the script, as the API has it; the second is SD.Next's."""


class TestRoutes:
    """What they answer."""

    def test_the_stock_list_is_stem_to_path(self, probed: Webui) -> None:
        listed = {item["name"]: item["path"] for item in probed.get("/sdapi/v1/hypernetworks")}
        assert set(listed) >= NAMES - {"safe"}
        assert listed["small"].endswith("small.pt")

    def test_our_list(self, probed: Webui) -> None:
        listed = {item["name"]: item for item in probed.get("/hypernetworks/v1/list")}
        assert set(listed) >= {*NAMES, "one/twin", "two/twin"}
        assert listed["small"]["preferred_multiplier"] == 0.6
        assert listed["small"]["activation_text"] == "a small trigger"
        assert listed["safe"]["suffix"] == ".safetensors"
        assert set(listed["small"]) >= {
            "name",
            "folder",
            "suffix",
            "size",
            "mtime",
            "family",
            "hash",
        }

    def test_refresh_finds_a_new_file_and_inspect_reads_it(self, probed: Webui) -> None:
        assert probed.folder is not None
        copied = probed.folder / "new.pt"
        copied.write_bytes((probed.folder / "small.pt").read_bytes())
        try:
            probed.refresh()
            seen = probed.get("/hypernetworks/v1/inspect?name=new")
            made = probed.txt2img("x <hypernet:new:1>")
        finally:
            copied.unlink()
            probed.refresh()
        assert "new" in str(seen)
        assert str(probed.folder) not in str(seen)
        assert difference(made.picture, probed.known(SMALL).picture) == 0

    @pytest.mark.parametrize("name", ["../config", "/etc/passwd", "..%2Fconfig.json", "nothing"])
    def test_nothing_outside_the_folders_can_be_inspected(self, probed: Webui, name: str) -> None:
        with pytest.raises(ApiError) as caught:
            probed.get(f"/hypernetworks/v1/inspect?name={name}")
        assert 400 <= caught.value.status < 500
        assert "Traceback" not in caught.value.text

    def test_the_tab_is_there_once_and_the_tag_is_ours(self, probed: Webui) -> None:
        pages = probed.get("/probe/pages")
        assert sum("hypernet" in title.lower() for title in pages["pages"]) == 1
        assert pages["handler"].startswith("hypernetworks.")


class TestAddedNetwork:
    """The setting "Add hypernetwork to prompt"."""

    @pytest.fixture(autouse=True)
    def _is_there(self, probed: Webui) -> None:
        if "sd_hypernetwork" not in probed.get("/sdapi/v1/options"):
            pytest.skip("this webui has no such setting")

    def test_it_acts_and_stands_in_the_infotext(self, probed: Webui) -> None:
        made = probed.txt2img("x ", override_settings={"sd_hypernetwork": "small"})
        assert difference(made.picture, probed.known(SMALL).picture) == 0
        assert "<hypernet:small:1" in made.infotext
        assert difference(probed.txt2img("x ").picture, probed.known("x ").picture) == 0

    def test_not_twice(self, probed: Webui) -> None:
        made = probed.txt2img(SMALL, override_settings={"sd_hypernetwork": "small"})
        assert difference(made.picture, probed.known(SMALL).picture) == 0


class TestXyz:
    """Our axes of the X/Y/Z plot, through the API."""

    @staticmethod
    def plot(webui: Webui, prompt: str, label: str, values: list[str]) -> list[Any]:
        """The single pictures of a plot along one axis."""
        info = next(
            i
            for i in webui.get("/sdapi/v1/script-info")
            if i["name"] in TITLES and not i["is_img2img"]
        )
        arguments = {argument["label"]: argument.get("value") for argument in info["args"]}
        labels = next(
            argument["choices"] for argument in info["args"] if argument["label"] == "X type"
        )
        ordered = [arguments[argument["label"]] for argument in info["args"]]
        names = [argument["label"] for argument in info["args"]]
        for position, name in enumerate(names):
            if name in ("X type", "Y type", "Z type"):
                ordered[position] = labels.index(label) if name == "X type" else 0
            elif name == "X values":
                is_text = names[: position + 1].count("X values") == 1
                ordered[position] = ", ".join(values) if is_text else values
            elif name.lower() in ("draw legend", "include sub grids"):
                ordered[position] = False
            elif name in ("Include Sub Images", "Include images") or "text inputs" in name:
                ordered[position] = True
        made = webui.txt2img(prompt, script_name=info["name"], script_args=ordered)
        return made.pictures[-len(values) :]

    def test_name(self, probed: Webui) -> None:
        pictures = self.plot(probed, SMALL, "[Hypernet] Name", ["small", "other"])
        assert difference(pictures[0], probed.known(SMALL).picture) == 0
        assert difference(pictures[1], probed.known("x <hypernet:other:1>").picture) == 0

    def test_multiplier(self, probed: Webui) -> None:
        pictures = self.plot(probed, SMALL, "[Hypernet] Multiplier", ["0", "0.5", "1"])
        for number, value in enumerate(("0", "0.5", "1")):
            assert (
                difference(pictures[number], probed.known(f"x <hypernet:small:{value}>").picture)
                == 0
            )

    def test_schedule_reads_the_file_once(self, probed: Webui) -> None:
        probed.txt2img(SMALL)
        probed.post("/probe/count_reads")
        pictures = self.plot(probed, SMALL, "[Hypernet] Schedule", ["1@0;0@1", "0@0;1@1"])
        assert probed.state()["counts"]["ours"] == 0
        assert difference(pictures[0], probed.known("x <hypernet:small:1@0,0@1>").picture) == 0
        assert difference(pictures[1], probed.known("x <hypernet:small:0@0,1@1>").picture) == 0
