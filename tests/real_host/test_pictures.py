"""Tags in pictures that a real webui makes through its API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from webui_client import ApiError, Webui, difference

PLAIN = "x "
QUOTED = 'it\'s & "quoted"'
SMALL, OTHER = "x <hypernet:small:1>", "x <hypernet:other:1>"
RISING = "x <hypernet:small:0@0,1@1>"
VISIBLE = 8
"""A channel of some pixel differs by at least so much where a network acts."""
ROUNDING = 2
"""What another batch size may change."""
TIGHT = 1e-5
"""Largest relative error of a context, in fp32."""
Hires = dict[str, Any]


@pytest.fixture
def hires(host: str) -> Hires:
    """A second pass at twice the size."""
    values: Hires = {
        "enable_hr": True,
        "hr_scale": 2,
        "hr_upscaler": "Latent",
        "denoising_strength": 0.7,
    }
    values |= {"hr_second_pass_steps": 2}
    if host == "neo":
        values["hr_upscaler"] = "None"  # plain resizing; without a model file, it has nothing else
    if host in ("forge", "neo"):
        values |= {"hr_additional_modules": ["Use same choices"], "hr_cfg": 7}
    return values


@pytest.mark.parametrize(
    "name",
    ["linear", "relu", "swish", "dropout", "small", "safe", "many steps", "one/twin", "with spaces",
     "brackets [x] (y)", QUOTED, "ink 🎨", "a=b"],
)  # fmt: skip
def test_a_tag_changes_the_picture_and_the_contexts_follow_the_formula(
    probed: Webui, name: str, tmp_path: Path
) -> None:
    plain = probed.known(PLAIN)
    probed.record("attn")
    made = probed.txt2img(f"x <hypernet:{name}:0.7>")
    recording = probed.recorded(tmp_path / "recorded.pt")
    assert made.messages == ""
    assert difference(made.picture, plain.picture) >= VISIBLE
    file = f"{name}.safetensors" if name == "safe" else f"{name}.pt"
    assert recording.projections == 64
    for call in range(len(recording.calls)):
        error, where = recording.error([(file, 0.7)], call)
        print(f"largest relative error {error:.1e} at {where}")
        assert error <= TIGHT, where
    assert not recording.is_untouched()


def test_multiplier_0_is_no_tag(probed: Webui, tmp_path: Path) -> None:
    probed.record("attn2")
    made = probed.txt2img("x <hypernet:small:0>")
    assert probed.recorded(tmp_path / "recorded.pt").is_untouched()
    assert difference(made.picture, probed.known(PLAIN).picture) == 0


def test_without_a_tag_there_is_no_hook_while_it_samples(probed: Webui, tmp_path: Path) -> None:
    probed.record("attn")
    probed.txt2img(PLAIN)
    assert probed.recorded(tmp_path / "recorded.pt").is_untouched()
    assert probed.txt2img(PLAIN).messages == ""


def test_the_order_of_a_stack_is_the_order_of_its_tags(probed: Webui, tmp_path: Path) -> None:
    one, other = "<hypernet:small:0.5>", "<hypernet:relu:-0.5>"
    probed.record("attn")
    first = probed.txt2img(f"x {one}{other}{one}")
    recording = probed.recorded(tmp_path / "recorded.pt")
    assert recording.error([("small.pt", 0.5), ("relu.pt", -0.5), ("small.pt", 0.5)])[0] <= TIGHT
    assert difference(first.picture, probed.txt2img(f"x {other}{one}{one}").picture) > 0


@pytest.mark.parametrize(
    ("arguments", "untouched", "factors"),
    [
        ("attn=cross", "attn1", {"k": 1, "v": 1}),
        ("attn=self", "attn2", {}),
        ("k=0:v=0.5", "to_k", {}),
    ],
    ids=["cross", "self", "values"],
)
def test_named_arguments(
    probed: Webui, tmp_path: Path, arguments: str, untouched: str, factors: dict[str, float]
) -> None:
    probed.record(untouched)
    made = probed.txt2img(f"x <hypernet:small:1:{arguments}>")
    assert probed.recorded(tmp_path / "recorded.pt").is_untouched()
    assert made.messages == ""
    assert difference(made.picture, probed.known(PLAIN).picture) > 0
    assert difference(made.picture, probed.known(SMALL).picture) > 0


class TestHires:
    """The second pass."""

    def test_the_tag_acts_in_both_passes(self, probed: Webui, hires: Hires, tmp_path: Path) -> None:
        probed.record("middle_block.*attn2")
        made = probed.txt2img(SMALL, **hires)
        assert probed.recorded(tmp_path / "recorded.pt").multipliers("small.pt") == [1] * 4
        assert difference(made.picture, probed.known(PLAIN, **hires).picture) >= VISIBLE

    def test_hr_gives_the_second_pass_another_multiplier(
        self, probed: Webui, hires: Hires, tmp_path: Path
    ) -> None:
        probed.record("middle_block.*attn2")
        probed.txt2img("x <hypernet:small:0.5:hr=0.25>", **hires)
        assert probed.recorded(tmp_path / "recorded.pt").multipliers("small.pt") == [
            0.5,
            0.5,
            0.25,
            0.25,
        ]

    def test_a_schedule_runs_anew_in_the_second_pass(
        self, probed: Webui, hires: Hires, tmp_path: Path
    ) -> None:
        probed.record("middle_block.*attn2")
        probed.txt2img("x <hypernet:small:0@0,1@1>", **(hires | {"hr_second_pass_steps": 3}))
        found = probed.recorded(tmp_path / "recorded.pt").multipliers("small.pt")
        assert found == [0, 1, 0, 0.5, 1]

    def test_a_prompt_of_its_own(self, probed: Webui, hires: Hires, tmp_path: Path) -> None:
        probed.record("middle_block.*attn2")
        made = probed.txt2img(SMALL, **hires, hr_prompt="x <hypernet:other:1>")
        recording = probed.recorded(tmp_path / "recorded.pt")
        assert recording.error([("small.pt", 1)], 0)[0] <= TIGHT
        assert recording.error([("other.pt", 1)], 3)[0] <= TIGHT
        assert made.messages == ""

    def test_a_prompt_of_its_own_without_a_tag(
        self, probed: Webui, hires: Hires, tmp_path: Path
    ) -> None:
        probed.record("middle_block.*attn2")
        probed.txt2img(SMALL, **hires, hr_prompt="y")
        assert probed.recorded(tmp_path / "recorded.pt").multipliers("small.pt") == [1, 1, 0, 0]

    def test_only_the_second_prompt_has_a_tag(
        self, probed: Webui, hires: Hires, tmp_path: Path
    ) -> None:
        probed.record("middle_block.*attn2")
        probed.txt2img(PLAIN, **hires, hr_prompt="y <hypernet:small:1>")
        assert probed.recorded(tmp_path / "recorded.pt").multipliers("small.pt") == [0, 0, 1, 1]

    def test_another_checkpoint(
        self, probed: Webui, hires: Hires, checkpoints: tuple[str, str], tmp_path: Path
    ) -> None:
        switched = hires | {
            "hr_checkpoint_name": checkpoints[1],
            "hr_prompt": SMALL,
            "hr_negative_prompt": "",
        }
        plain = probed.txt2img(PLAIN, **(switched | {"hr_prompt": PLAIN}))
        probed.record("middle_block.*attn2")
        made = probed.txt2img(SMALL, **switched)
        assert probed.recorded(tmp_path / "recorded.pt").multipliers("small.pt") == [1] * 4
        assert difference(made.picture, plain.picture) >= VISIBLE


class TestImg2img:
    """From a picture."""

    def test_img2img(self, probed: Webui) -> None:
        start = probed.known("start").picture
        made = probed.img2img(SMALL, start, denoising_strength=1, steps=3)
        plain = probed.img2img(PLAIN, start, denoising_strength=1, steps=3)
        assert difference(made.picture, plain.picture) >= VISIBLE
        assert (
            difference(
                probed.img2img(
                    "x <hypernet:small:0>", start, denoising_strength=1, steps=3
                ).picture,
                plain.picture,
            )
            == 0
        )

    def test_inpaint(self, probed: Webui) -> None:
        start, mask = probed.known("start").picture, np.zeros((64, 64, 3), dtype=int)
        mask[:, 32:] = 255
        settings = {
            "mask": mask,
            "denoising_strength": 1,
            "inpainting_fill": 1,
            "mask_blur": 0,
            "steps": 3,
        }
        made, plain = (
            probed.img2img(prompt, start, **settings).picture for prompt in (SMALL, PLAIN)
        )
        assert difference(made[:, :24], start[:, :24]) <= ROUNDING
        assert difference(made[:, 40:], plain[:, 40:]) > 0

    def test_a_schedule_counts_the_steps_that_really_run(
        self, probed: Webui, tmp_path: Path
    ) -> None:
        probed.record("middle_block.*attn2")
        start = probed.known("start").picture
        probed.img2img(
            "x <hypernet:small:0@0,1@1>",
            start,
            denoising_strength=0.5,
            steps=6,
            sampler_name="Euler",
        )
        found = probed.recorded(tmp_path / "recorded.pt").multipliers("small.pt")
        assert found[0] == 0
        assert found[-1] == 1
        assert found == sorted(found)


class TestBatches:
    """Several pictures in one job."""

    def test_two_pictures_of_one_prompt(self, probed: Webui) -> None:
        made = probed.txt2img(SMALL, batch_size=2)
        assert difference(made.pictures[-2], probed.known(SMALL).picture) <= ROUNDING
        assert difference(made.pictures[-1], probed.known(SMALL, seed=2).picture) <= ROUNDING

    @pytest.mark.parametrize(
        "prompts", [(SMALL, OTHER), (SMALL, PLAIN), (PLAIN, SMALL)], ids=["two", "first", "second"]
    )
    def test_each_picture_has_its_own_networks(
        self, probed: Webui, prompts: tuple[str, str]
    ) -> None:
        """Prompts that a script has put into the batch, as dynamic prompts do."""
        probed.post("/probe/prompts", {"prompts": prompts})
        made = probed.txt2img("x ", batch_size=2)
        singles = [
            probed.known(prompt, seed=seed).picture for seed, prompt in enumerate(prompts, 1)
        ]
        unlike = [
            difference(one, other) for one, other in zip(made.pictures[-2:], singles, strict=True)
        ]
        print(f"largest differences from the single pictures: {unlike}")
        assert max(unlike) <= ROUNDING or "different networks" in made.messages

    @pytest.mark.parametrize(
        "more",
        [
            {"sampler_name": "Heun"},
            {"s_min_uncond": 100, "steps": 4},
            {"negative_prompt": "word " * 90},
            {"override_settings": {"batch_cond_uncond": False}},
            {"cfg_scale": 1},
        ],
        ids=["second order", "without uncond", "lengths", "split", "cfg 1"],
    )
    def test_each_picture_has_its_own_networks_in_other_calls(
        self, probed: Webui, more: dict[str, Any]
    ) -> None:
        lacking = set(more.get("override_settings", {})) - set(probed.get("/sdapi/v1/options"))
        if lacking:
            pytest.skip(f"this webui has no option {', '.join(lacking)}")
        prompts = (PLAIN, OTHER)
        probed.post("/probe/prompts", {"prompts": prompts})
        made = probed.txt2img("x ", batch_size=2, **more)
        singles = [
            probed.txt2img(prompt, seed=seed, **more).picture
            for seed, prompt in enumerate(prompts, 1)
        ]
        unlike = [
            difference(one, other) for one, other in zip(made.pictures[-2:], singles, strict=True)
        ]
        print(f"largest differences from the single pictures: {unlike} {made.messages}")
        assert max(unlike) <= ROUNDING or "different networks" in made.messages

    @pytest.mark.parametrize("second", ["x AND z ", "x "], ids=["as many", "fewer"])
    def test_each_picture_has_its_own_networks_with_and(
        self, probed: Webui, host: str, second: str
    ) -> None:
        if second == "x " and host != "a1111":
            pytest.skip(
                "Forge and reForge cut all prompts of a batch to the fewest parts that one of "
                "them has"
            )
        prompts = ("x AND y <hypernet:small:1>", f"{second}<hypernet:other:1>")
        probed.post("/probe/prompts", {"prompts": prompts})
        made = probed.txt2img("x ", batch_size=2)
        singles = [
            probed.known(prompt, seed=seed).picture for seed, prompt in enumerate(prompts, 1)
        ]
        unlike = [
            difference(one, other) for one, other in zip(made.pictures[-2:], singles, strict=True)
        ]
        print(f"largest differences from the single pictures: {unlike} {made.messages}")
        assert max(unlike) <= ROUNDING or "different networks" in made.messages

    def test_each_picture_has_its_own_networks_in_the_hires_pass(
        self, probed: Webui, hires: Hires
    ) -> None:
        def unlike(prompts: tuple[str, str]) -> list[int]:
            """How far each image of a batch is from the same image made alone."""
            probed.post("/probe/prompts", {"prompts": prompts})
            batch = probed.txt2img("x ", batch_size=2, **hires)
            singles = [
                probed.known(prompt, seed=seed, **hires).picture
                for seed, prompt in enumerate(prompts, 1)
            ]
            assert "different networks" not in batch.messages
            return [
                difference(one, other)
                for one, other in zip(batch.pictures[-2:], singles, strict=True)
            ]

        # Neo's second pass begins with an image of 8 bits, which makes more of a batch's rounding.
        usual, found = unlike((PLAIN, PLAIN)), unlike((PLAIN, OTHER))
        effect = difference(
            *(probed.known(prompt, seed=2, **hires).picture for prompt in (PLAIN, OTHER))
        )
        print(f"from the single images: {found}, without networks {usual}; the network: {effect}")
        assert max(found) <= max(ROUNDING, 2 * max(usual))
        assert effect > 2 * max(found)

    def test_batches_of_one_job_have_their_own_networks(self, probed: Webui) -> None:
        prompts = (SMALL, PLAIN, OTHER)
        probed.post("/probe/prompts", {"prompts": prompts})
        made = probed.txt2img("x ", n_iter=3)
        for seed, prompt in enumerate(prompts, 1):
            assert difference(made.pictures[seed - 4], probed.known(prompt, seed=seed).picture) == 0

    def test_prompt_matrix(self, probed: Webui) -> None:
        """The webui's own script puts a list of prompts into one job."""
        made = probed.txt2img(
            "x |<hypernet:small:1>|<hypernet:other:1>",
            batch_size=4,
            script_name="prompt matrix",
            script_args=[False, False, "positive", "comma", 0],
        )
        prompts = made.info["all_prompts"]
        assert len(prompts) == 4
        singles = [probed.known(prompt).picture for prompt in prompts]
        unlike = [
            difference(one, other) for one, other in zip(made.pictures[-4:], singles, strict=True)
        ]
        print(f"largest differences from the single pictures: {unlike}")
        assert max(unlike) <= ROUNDING or "different networks" in made.messages

    def test_several_batches(self, probed: Webui) -> None:
        made = probed.txt2img(SMALL, n_iter=3)
        for seed, picture in enumerate(made.pictures[-3:], 1):
            assert difference(picture, probed.known(SMALL, seed=seed).picture) == 0

    def test_and_prompts(self, probed: Webui, tmp_path: Path) -> None:
        probed.record("attn2")
        made = probed.txt2img("x AND y <hypernet:small:1>")
        recording = probed.recorded(tmp_path / "recorded.pt")
        assert all(
            recording.error([("small.pt", 1)], call)[0] <= TIGHT
            for call in range(len(recording.calls))
        )
        assert difference(made.picture, probed.known("x AND y ").picture) >= VISIBLE

    def test_prompts_of_different_lengths(self, probed: Webui, tmp_path: Path) -> None:
        probed.record("attn2")
        probed.txt2img("word " * 90 + "<hypernet:small:1>", negative_prompt="blurry")
        recording = probed.recorded(tmp_path / "recorded.pt")
        assert all(
            recording.error([("small.pt", 1)], call)[0] <= TIGHT
            for call in range(len(recording.calls))
        )


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("<hypernet:smal:1>", "did you mean small"),
        ("<hypernet:twin:1>", "one/twin or two/twin"),
        ("<hypernet:for sdxl:1>", "SDXL"),
        ("<hypernet:small:0,5>", "0.5"),
        ("<hypernet:small:abc>", "not a number"),
        ("<hypernet:small:1:atn=cross>", "attn"),
        ("[<hypernet:small:1>:0.5]", "start=0.5"),
    ],
    ids=["unknown", "ambiguous", "family", "comma", "word", "argument", "editing"],
)
def test_what_cannot_be_used_is_reported_and_left_out(
    probed: Webui, tag: str, message: str
) -> None:
    made = probed.txt2img(f"x {tag}")
    clean = "x [:0.5]" if tag.startswith("[") else PLAIN
    assert message in made.messages
    assert made.messages.count(message) == 1
    assert message in probed.state()["comments"][-1].replace("&lt;", "<").replace("&#x27;", "'")
    assert difference(made.picture, probed.known(clean).picture) == 0


def test_another_family_can_be_forced(probed: Webui, tmp_path: Path) -> None:
    probed.record("attn1.*|attn2.*")
    made = probed.txt2img(
        "x <hypernet:for sdxl:1>", override_settings={"hypernetworks_force_family": True}
    )
    recording = probed.recorded(tmp_path / "recorded.pt")
    assert recording.error([("for sdxl.pt", 1)])[0] <= TIGHT
    assert difference(made.picture, probed.known(PLAIN).picture) > 0


def test_the_others_act_when_one_cannot_be_used(probed: Webui) -> None:
    made = probed.txt2img("x <hypernet:small:1><hypernet:smal:1>")
    assert "smal" in made.messages
    assert difference(made.picture, probed.known(SMALL).picture) == 0


def test_a_tag_in_the_negative_prompt_is_taken_out_and_reported(probed: Webui) -> None:
    made = probed.txt2img(PLAIN, negative_prompt="bad <hypernet:small:1>")
    assert "negative prompt" in made.messages
    assert difference(made.picture, probed.known(PLAIN, negative_prompt="bad ").picture) == 0


class TestSchedules:
    """The multiplier of every UNet call."""

    @pytest.mark.parametrize(
        ("sampler", "expected"),
        [
            ("Euler", [0, 0.5, 1]),
            ("Euler a", [0, 0.5, 1]),
            ("DPM++ 2M", [0, 0.5, 1]),
            ("Heun", [0, 0, 0.5, 0.5, 1]),
            ("DPM2", [0, 0, 0.5, 0.5, 1]),
            ("DPM++ SDE", [0, 0, 0.5, 0.5, 1]),
            ("DDIM", [0, 0.5, 1]),
        ],
    )
    def test_samplers(
        self, probed: Webui, tmp_path: Path, sampler: str, expected: list[float]
    ) -> None:
        probed.record("middle_block.*attn2")
        probed.txt2img(RISING, sampler_name=sampler, steps=3)
        found = probed.recorded(tmp_path / "recorded.pt").multipliers("small.pt")
        assert found == expected

    @pytest.mark.parametrize("steps", [3, 4])
    @pytest.mark.parametrize("sampler", ["DDIM", "PLMS", "UniPC"])
    def test_samplers_that_run_other_steps_than_they_say(
        self, probed: Webui, tmp_path: Path, sampler: str, steps: int
    ) -> None:
        """A schedule goes from its beginning to its end all the same."""
        start = probed.known("start").picture
        probed.record("middle_block.*attn2.*to_k")
        probed.txt2img(RISING, sampler_name=sampler, steps=steps)
        self.rises(probed.recorded(tmp_path / "txt2img.pt").multipliers("small.pt"))
        probed.record("middle_block.*attn2.*to_k")
        probed.img2img(RISING, start, sampler_name=sampler, steps=2 * steps, denoising_strength=0.5)
        self.rises(probed.recorded(tmp_path / "img2img.pt").multipliers("small.pt"))

    @staticmethod
    def rises(found: list[float]) -> None:
        """Evenly from 0 to 1; the first may be there twice (PLMS)."""
        print(found)
        once = found[1:] if found[1] == 0 else found
        assert once == [round(step / (len(once) - 1), 4) for step in range(len(once))]

    def test_start_and_stop(self, probed: Webui, tmp_path: Path) -> None:
        probed.record("middle_block.*attn2")
        probed.txt2img("x <hypernet:small:1:start=0.3:stop=0.7>", sampler_name="Euler", steps=4)
        assert probed.recorded(tmp_path / "recorded.pt").multipliers("small.pt") == [0, 1, 1, 0]


class TestCheckpoints:
    """The UNet changes under the networks."""

    @pytest.mark.parametrize("kept", [1, 2], ids=["same", "new"])
    def test_a_refiner_in_mid_sampling(
        self, probed: Webui, checkpoints: tuple[str, str], host: str, kept: int, tmp_path: Path
    ) -> None:
        """``new``: the webui loads the refiner as a second model and keeps the first."""
        if kept > 1 and host in ("forge", "neo"):
            pytest.skip("Forge keeps one checkpoint")
        settings = {
            "refiner_checkpoint": checkpoints[1],
            "refiner_switch_at": 0.5,
            "steps": 4,
            "sampler_name": "Euler",
        }
        settings |= (
            {"override_settings": {"refiner_switch_by_sample_steps": True}}
            if host == "a1111"
            else {}
        )
        try:
            probed.options(sd_checkpoints_limit=kept)
            plain = probed.txt2img(PLAIN, **settings)
            probed.record("middle_block.*attn2")
            made = probed.txt2img(SMALL, **settings)
            assert probed.recorded(tmp_path / "recorded.pt").multipliers("small.pt") == [1] * 4
        finally:
            probed.options(sd_checkpoints_limit=1)
            back = probed.txt2img(SMALL)
        assert difference(made.picture, plain.picture) >= VISIBLE
        assert difference(back.picture, probed.known(SMALL).picture) == 0

    def test_a_switch_between_jobs(
        self, probed: Webui, checkpoints: tuple[str, str], tmp_path: Path
    ) -> None:
        other = {"override_settings": {"sd_model_checkpoint": checkpoints[1]}}
        before = probed.txt2img(SMALL)
        probed.record("middle_block.*attn2")
        made = probed.txt2img(SMALL, **other)
        assert probed.recorded(tmp_path / "recorded.pt").multipliers("small.pt") == [1, 1]
        plain = probed.txt2img(PLAIN, **other)
        after = probed.txt2img(SMALL, override_settings={"sd_model_checkpoint": checkpoints[0]})
        assert difference(made.picture, plain.picture) >= VISIBLE
        assert difference(made.picture, before.picture) > 0
        assert difference(before.picture, after.picture) == 0


class TestFaults:
    """A job that does not come to its end."""

    def test_an_exception_in_the_unet(self, probed: Webui) -> None:
        probed.post("/probe/arm", {"fault": 2})
        with pytest.raises(ApiError):
            probed.txt2img(SMALL)
        probed.post("/probe/recorded")
        state = probed.state()
        assert (state["our_hooks"], state["attributes"]) == (0, [])
        assert difference(probed.txt2img(PLAIN).picture, probed.known(PLAIN).picture) == 0
        assert difference(probed.txt2img(SMALL).picture, probed.known(SMALL).picture) == 0

    def test_an_interruption(self, probed: Webui) -> None:
        probed.post("/probe/arm", {"interrupt": 2})
        probed.txt2img(SMALL, steps=6)
        state = probed.state()
        assert (state["our_hooks"], state["attributes"]) == (0, [])
        assert difference(probed.txt2img(PLAIN).picture, probed.known(PLAIN).picture) == 0
        assert difference(probed.txt2img(SMALL).picture, probed.known(SMALL).picture) == 0

    def test_a_file_that_cannot_be_read(self, probed: Webui) -> None:
        assert probed.folder is not None
        broken = probed.folder / "broken.pt"
        broken.write_bytes(b"not a network")
        try:
            probed.refresh()
            made = probed.txt2img("x <hypernet:broken:1>")
        finally:
            broken.unlink()
            probed.refresh()
        assert "broken" in made.messages
        assert difference(made.picture, probed.known(PLAIN).picture) == 0


class TestInfotext:
    """What the picture says of itself."""

    def test_tags_and_hashes(self, probed: Webui) -> None:
        made = probed.txt2img(f"x <hypernet:small:0.7> <hypernet:{QUOTED}:0.5>")
        listed = {item["name"]: item["hash"] for item in probed.get("/hypernetworks/v1/list")}
        if listed["small"] is None:
            pytest.skip("this webui runs with --no-hashing")
        assert "<hypernet:small:0.7>" in made.infotext
        hashes = made.info["extra_generation_params"]["Hypernet hashes"]
        assert f"small: {listed['small']}" in hashes
        assert f"{QUOTED}: {listed[QUOTED]}" in hashes
        assert "Hypernet hashes: " in made.infotext

    def test_no_tag_no_hashes(self, probed: Webui) -> None:
        made = probed.txt2img(PLAIN)
        assert "Hypernet" not in made.infotext
        assert "Hypernet hashes" not in made.info["extra_generation_params"]
