"""Other extensions that do their work in an image with hypernetworks: ``pytest tests/real_host -k
at_work --webui PATH --neighbours FOLDER``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_parity_a1111 import theirs
from webui_client import Made, Webui, decoded, difference, encoded
from webui_networks import create, write_controlnet

import hypernetworks as hn

VISIBLE = 8
ROUNDING = 1
"""Some of them put themselves into torch's linear layers, so networks aren't folded."""
TIGHT = 1e-5
PLAIN, NETWORK = "x ", "x <hypernet:relu:0.7>"


@pytest.fixture(autouse=True)
def is_there(request: pytest.FixtureRequest) -> None:
    """Skip the tests of an extension that is not in the folder."""
    marker = request.node.get_closest_marker("neighbour")
    folder = request.config.getoption("--neighbours")
    names = [path.name for path in Path(folder).iterdir()] if folder else []
    if marker and not any(marker.args[0] in name for name in names):
        pytest.skip(f"{marker.args[0]} is not among {names}")


def follows_the_formula(webui: Webui, path: Path, make: Callable[[], Made]) -> Made:
    """An image with ``NETWORK`` whose recorded contexts are what the formula says."""
    webui.record("attn2")
    made = make()
    recording = webui.recorded(path)
    assert recording.calls
    for call in range(len(recording.calls)):
        error, where = recording.error([("relu.pt", 0.7)], call)
        assert error <= TIGHT, f"{error:.1e} at {where}"
    assert made.messages == ""
    return made


@pytest.mark.neighbour("controlnet")
class TestControlNet:
    """sd-webui-controlnet with a ControlNet of random numbers."""

    @pytest.fixture
    def settings(self, a1111: Webui) -> dict[str, Any]:
        """What an image with the ControlNet needs."""
        assert a1111.folder is not None
        folder = a1111.folder.parent / "ControlNet"
        if not folder.is_dir():
            folder.mkdir()
            write_controlnet(folder / "random.safetensors")
        models = a1111.get("/controlnet/model_list?update=true")["model_list"]
        model = next(name for name in models if name.startswith("random"))
        hint = np.zeros((64, 64, 3), dtype=int)
        hint[16:48, 16:48] = 255
        unit = {"enabled": True, "module": "none", "model": model, "image": encoded(hint)}
        return {"alwayson_scripts": {"ControlNet": {"args": [unit]}}}

    def test_both_act(self, a1111: Webui, settings: dict[str, Any], tmp_path: Path) -> None:
        plain, control = a1111.known(PLAIN), a1111.known(PLAIN, **settings)
        both = follows_the_formula(
            a1111, tmp_path / "recorded.pt", lambda: a1111.txt2img(NETWORK, **settings)
        )
        assert difference(plain.picture, control.picture) >= VISIBLE
        assert difference(both.picture, control.picture) >= VISIBLE
        assert difference(both.picture, a1111.known(NETWORK).picture) >= VISIBLE

    @pytest.mark.parametrize("prompt", [PLAIN, NETWORK, "x <hypernet:linear:-0.5>"])
    def test_images_equal_those_of_the_built_in(
        self, a1111: Webui, settings: dict[str, Any], prompt: str
    ) -> None:
        ours = a1111.txt2img(prompt, **settings)
        assert difference(ours.picture, theirs(a1111, prompt, **settings).picture) <= ROUNDING

    def test_networks_act_in_it_unless_images_of_a_batch_differ(
        self, a1111: Webui, settings: dict[str, Any]
    ) -> None:
        """As docs/webui.md says; it shows that the comparisons above would see the difference."""
        a1111.post("/probe/prompts", {"prompts": (PLAIN, NETWORK)})
        # The last image is its own: the hint.
        first, second = a1111.txt2img("x ", batch_size=2, **settings).pictures[-3:-1]
        assert difference(first, a1111.known(PLAIN, **settings).picture) <= 2
        assert difference(second, a1111.known(NETWORK, seed=2, **settings).picture) >= VISIBLE

    def test_it_leaves_when_it_is_off(self, a1111: Webui, settings: dict[str, Any]) -> None:
        before = a1111.txt2img(NETWORK)
        a1111.txt2img(NETWORK, **settings)
        assert difference(before.picture, a1111.txt2img(NETWORK).picture) == 0


@pytest.mark.neighbour("regional-prompter")
class TestRegionalPrompter:
    """Two regions beside each other, each with a prompt of its own."""

    REGIONS = "x BREAK a red y <hypernet:relu:0.7>"
    WITHOUT = "x BREAK a red y "

    @staticmethod
    def settings(how: str) -> dict[str, Any]:
        """Its arguments as its README gives them for the API."""
        arguments = [
            *(True, False, "Matrix", "Columns", "Mask", "Prompt", "1,1", "0.2"),
            *(False, False, False, how, [False], "0", "0", "0.4", None, "0", "0", False),
        ]
        return {"alwayson_scripts": {"Regional Prompter": {"args": arguments}}}

    @pytest.mark.parametrize("how", ["Attention", "Latent"])
    def test_the_network_acts_in_all_regions(self, probed: Webui, how: str, tmp_path: Path) -> None:
        settings = self.settings(how)
        regions = probed.txt2img(self.WITHOUT, **settings)
        both = follows_the_formula(
            probed, tmp_path / "recorded.pt", lambda: probed.txt2img(self.REGIONS, **settings)
        )
        plain = probed.txt2img(self.WITHOUT)
        assert difference(regions.picture, plain.picture) > 0
        for half in (slice(None, 32), slice(32, None)):
            changed = difference(regions.picture[:, half], both.picture[:, half])
            print(f"{how}, {half}: the network changes {changed}/255")
            assert changed >= VISIBLE
        assert difference(probed.txt2img(self.WITHOUT, **settings).picture, regions.picture) == 0

    def test_only_ours_acts_in_the_cross_attention(self, a1111: Webui) -> None:
        """It calls ``to_k`` and ``to_v`` itself there, where the built-in isn't asked."""
        assert a1111.folder is not None
        path, settings = a1111.folder / "cross only.pt", self.settings("Attention")
        hn.write(create("cross only", (1, 2, 1), "relu", seed=40, widths=(768,)), path)
        a1111.refresh()
        prompt = f"{self.WITHOUT}<hypernet:cross only:1>"
        try:
            regions = a1111.txt2img(self.WITHOUT, **settings).picture
            ours = a1111.txt2img(prompt, **settings).picture
            built_in = theirs(a1111, prompt, **settings).picture
        finally:
            path.unlink()
            a1111.refresh()
        assert difference(built_in, regions) == 0
        assert difference(ours, regions) >= VISIBLE


@pytest.mark.neighbour("loractl")
class TestLoractl:
    """A LoRA whose multiplier follows a schedule."""

    RISING = "<lora:some:0@0,1@1>"

    def test_both_act(self, probed: Webui, tmp_path: Path) -> None:
        more = {"steps": 4}
        probed.txt2img(PLAIN, **more)  # it divides by the steps of the last job, less two
        alone = probed.txt2img(f"x {self.RISING}", **more)
        both = follows_the_formula(
            probed,
            tmp_path / "recorded.pt",
            lambda: probed.txt2img(f"{NETWORK}{self.RISING}", **more),
        )
        network, constant = (
            probed.txt2img(prompt, **more) for prompt in (NETWORK, f"{NETWORK}<lora:some:1>")
        )
        for other in (alone, network, constant):
            assert difference(both.picture, other.picture) > 0
        assert difference(probed.txt2img(NETWORK, **more).picture, network.picture) == 0
        again = probed.txt2img(f"{NETWORK}{self.RISING}", **more)
        assert difference(again.picture, both.picture) == 0


@pytest.mark.neighbour("lora-block-weight")
class TestLoraBlockWeight:
    """A LoRA that acts in some blocks only, beside a network, folded and not."""

    WEIGHTED = "<lora:some:1:lbw=OUTD>"
    STARTED = "<lora:some:1:lbw=ALL:start=2>"

    @pytest.mark.parametrize("network", ["relu", "linear"])
    @pytest.mark.parametrize("lora", [WEIGHTED, STARTED], ids=["blocks", "start"])
    def test_both_act(self, probed: Webui, network: str, lora: str) -> None:
        tag, more = f"<hypernet:{network}:0.7>", {"steps": 3}
        prompts = (f"x {tag}{lora}", f"x {lora}", f"x {tag}", f"x {tag}<lora:some:1>")
        both, *others = (probed.txt2img(prompt, **more) for prompt in prompts)
        assert both.messages == ""
        for other in others:
            assert difference(both.picture, other.picture) > 0
        for prompt, before in ((prompts[2], others[1]), (prompts[0], both)):
            assert difference(probed.txt2img(prompt, **more).picture, before.picture) == 0

    def test_the_contexts_follow_the_formula(self, probed: Webui, tmp_path: Path) -> None:
        follows_the_formula(
            probed,
            tmp_path / "recorded.pt",
            lambda: probed.txt2img(f"{NETWORK}{self.WEIGHTED}"),
        )


@pytest.mark.neighbour("dynamic-prompts")
class TestDynamicPrompts:
    """Prompts of one batch that name different networks."""

    def test_each_image_has_the_network_of_its_prompt(self, probed: Webui) -> None:
        template = "x {<hypernet:relu:0.7>|<hypernet:small:1>|y}"
        arguments = [True, True, 1]  # enabled, combinatorial, each once
        made = probed.txt2img(
            template,
            batch_size=3,
            alwayson_scripts={"Dynamic Prompts v2.17.1": {"args": arguments}},
        )
        prompts = made.info["all_prompts"]
        assert len(set(prompts)) == 3, prompts
        assert sum("<hypernet:" in prompt for prompt in prompts) == 2
        for prompt, picture, seed in zip(
            prompts, made.pictures[-3:], made.info["all_seeds"], strict=True
        ):
            alone = probed.txt2img(prompt, seed=seed)
            assert difference(picture, alone.picture) <= 2, prompt


@pytest.mark.neighbour("agent-scheduler")
class TestAgentScheduler:
    """Its queue runs jobs in a thread of its own."""

    @staticmethod
    def queued(webui: Webui, prompt: str) -> str:
        """The job's number in the queue."""
        body = {"prompt": prompt, "width": 64, "height": 64, "steps": 2, "seed": 1, "cfg_scale": 7}
        answer = webui.post(
            "/agent-scheduler/v1/queue/txt2img", {**body, "sampler_name": "Euler a"}
        )
        return str(answer["task_id"])

    @staticmethod
    def finished(webui: Webui, task: str) -> dict[str, Any]:
        """Image and infotext of a job, once it is done."""
        end = time.monotonic() + 300
        while time.monotonic() < end:
            answer = webui.get(f"/agent-scheduler/v1/task/{task}/results")
            if answer["success"] and answer["data"]:
                return dict(answer["data"][-1])
            assert "failed" not in answer.get("message", ""), answer
            time.sleep(0.5)
        raise AssertionError(f"the queue did not finish a job: {answer}")

    def test_queued_jobs_make_the_same_images(self, probed: Webui) -> None:
        prompts = (NETWORK, PLAIN, "x <hypernet:small:1>")
        # Its queue returns files, so images have to be saved.
        probed.options(samples_save=True)
        try:
            tasks = [self.queued(probed, prompt) for prompt in prompts]
            made = [self.finished(probed, task) for task in tasks]
        finally:
            probed.options(samples_save=False)

        for prompt, answer in zip(prompts, made, strict=True):
            direct = probed.txt2img(prompt)
            assert difference(decoded(answer["image"]), direct.picture) == 0, prompt
            assert ("Hypernet hashes" in answer["infotext"]) == (prompt != PLAIN)
