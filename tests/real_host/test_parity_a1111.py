"""AUTOMATIC1111: our pictures equal its built-in's; and where the built-in is wrong, ours are
right."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from webui_client import Made, Webui, difference
from webui_networks import PARITY, SDXL, content, create

import hypernetworks as hn

ONE = 1
"""1/255: what rounding may change."""
VISIBLE = 8
PLAIN = "x "


@contextmanager
def built_in(webui: Webui) -> Iterator[None]:
    """The webui's own hypernetworks in the place of ours."""
    assert (
        "hypernetworks.hosts"
        not in webui.post("/probe/handler", {"which": "built-in"})["registered"]
    )
    try:
        yield
    finally:
        assert (
            "hypernetworks.hosts" in webui.post("/probe/handler", {"which": "ours"})["registered"]
        )


def theirs(webui: Webui, prompt: str, **more: Any) -> Made:
    """Made by the built-in, freshly loaded."""
    with built_in(webui):
        return webui.txt2img(prompt, **more)


@pytest.fixture
def files(a1111: Webui) -> Iterator[Callable[[str, Any], Path]]:
    """Adds a file to the webui's folder for one test: a network, or the dictionary of a ``.pt``."""
    assert a1111.folder is not None
    added: list[Path] = []

    def add(name: str, what: Any) -> Path:
        path = a1111.folder / name
        added.append(path)
        if isinstance(what, hn.Hypernetwork):
            hn.write(what, path)
        else:
            torch.save(
                what, path, _use_new_zipfile_serialization=False
            )  # the form that every version reads
        a1111.refresh()
        return path

    yield add
    for path in added:
        path.unlink(missing_ok=True)
    a1111.refresh()


class TestParity:
    """Same checkpoint, seed and settings."""

    @pytest.mark.parametrize("multiplier", ["1", "0.7", "0", "-0.5"])
    @pytest.mark.parametrize("name", PARITY)
    def test_single_networks(self, a1111: Webui, name: str, multiplier: str) -> None:
        prompt = f"x <hypernet:{name}:{multiplier}>"
        self.compare(a1111, prompt)
        if multiplier != "0":
            assert difference(a1111.known(prompt).picture, a1111.known(PLAIN).picture) >= VISIBLE

    @pytest.mark.parametrize(
        "tags",
        [
            "<hypernet:linear:0.5><hypernet:swish:0.5>",
            "<hypernet:relu:0.7><hypernet:dropout:-0.3><hypernet:linear:0.4>",
            "<hypernet:dropout:1><hypernet:relu:0><hypernet:swish:-0.5>",
        ],
    )
    def test_stacks(self, a1111: Webui, tags: str) -> None:
        self.compare(a1111, f"x {tags}")

    @pytest.mark.parametrize("sampler", ["DPM++ 2M", "Heun", "DDIM"])
    def test_samplers(self, a1111: Webui, sampler: str) -> None:
        self.compare(a1111, "x <hypernet:relu:0.7>", sampler_name=sampler, steps=4)

    def test_the_default_size(self, a1111: Webui) -> None:
        self.compare(
            a1111,
            "a red apple <hypernet:swish:0.7>",
            width=256,
            height=256,
            negative_prompt="blurry",
        )

    def test_the_hires_pass(self, a1111: Webui) -> None:
        self.compare(
            a1111,
            "x <hypernet:relu:0.7>",
            enable_hr=True,
            hr_upscaler="Latent",
            denoising_strength=0.7,
        )

    def test_an_old_file_without_metadata(
        self, a1111: Webui, files: Callable[[str, Any], Path]
    ) -> None:
        """As NovelAI's were: ``linear1`` and ``linear2``, nothing else."""
        old = {}
        for width, pair in content(a1111.folder / "small.pt").items():  # type: ignore[operator]
            if isinstance(width, int):
                old[width] = tuple(_renamed(state) for state in _doubled(width, pair))
        files("old.pt", old)
        self.compare(a1111, "x <hypernet:old:0.7>")
        assert (
            difference(a1111.txt2img("x <hypernet:old:0.7>").picture, a1111.known(PLAIN).picture)
            >= VISIBLE
        )

    @staticmethod
    def compare(webui: Webui, prompt: str, **more: Any) -> None:
        """At most 1/255 in any channel."""
        ours, stock = webui.known(prompt, **more), theirs(webui, prompt, **more)
        unlike = abs(ours.picture - stock.picture)
        print(
            f"largest difference {unlike.max()}/255, {np.count_nonzero(unlike)} of {unlike.size} "
            "channels differ"
        )
        assert ours.picture.shape == stock.picture.shape
        assert unlike.max() <= ONE


def _doubled(width: int, pair: Any) -> list[dict[str, torch.Tensor]]:
    """A [1, 0.25, 1] network written as a [1, 2, 1] one: the missing hidden units are zero."""
    states = []
    for state in pair:
        (w1, b1, w2, b2), hidden = state.values(), 2 * width
        first, bias, second = (
            torch.zeros(hidden, width),
            torch.zeros(hidden),
            torch.zeros(width, hidden),
        )
        first[: len(b1)], bias[: len(b1)], second[:, : len(b1)] = w1, b1, w2
        states.append(
            {
                "linear.0.weight": first,
                "linear.0.bias": bias,
                "linear.1.weight": second,
                "linear.1.bias": b2,
            }
        )
    return states


def _renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        key.replace("linear.0", "linear1").replace("linear.1", "linear2"): t
        for key, t in state.items()
    }


class TestWhereTheBuiltInIsWrong:
    """One test for each defect: first that it is there, then that ours has it not."""

    def test_the_name_inside_the_file_decides(
        self, a1111: Webui, files: Callable[[str, Any], Path]
    ) -> None:
        """After ``foo-1000``, whose inner name is ``foo``, the tag ``foo`` still means ``foo-1000``
        to the built-in."""
        files("foo.pt", create("foo", seed=41))
        files("foo-1000.pt", create("foo", seed=42))
        right = a1111.txt2img("x <hypernet:foo:1>").picture
        assert difference(right, theirs(a1111, "x <hypernet:foo:1>").picture) <= ONE
        with built_in(a1111):
            first, second = (
                a1111.txt2img(f"x <hypernet:{name}:1>").picture for name in ("foo-1000", "foo")
            )
        assert difference(first, second) == 0
        a1111.txt2img("x <hypernet:foo-1000:1>")
        assert difference(a1111.txt2img("x <hypernet:foo:1>").picture, right) == 0

    def test_a_renamed_file_is_read_again_for_every_batch(
        self, a1111: Webui, files: Callable[[str, Any], Path]
    ) -> None:
        files("renamed.pt", create("as it was called", seed=43))
        a1111.post("/probe/count_reads")
        with built_in(a1111):
            a1111.txt2img("x <hypernet:renamed:1>", n_iter=3)
        a1111.txt2img("x <hypernet:renamed:1>", n_iter=3)
        a1111.txt2img("x <hypernet:renamed:1>")
        counts = a1111.state()["counts"]
        assert counts["built-in"] == 3
        assert counts["ours"] == 1

    def test_the_same_tag_twice_depends_on_history(self, a1111: Webui) -> None:
        prompt = "x <hypernet:small:1><hypernet:small:-0.5>"
        with built_in(a1111):
            fresh, again = (a1111.txt2img(prompt).picture for _ in range(2))
        assert difference(fresh, again) >= VISIBLE
        for _ in range(2):
            assert difference(a1111.txt2img(prompt).picture, fresh) <= ONE

    def test_a_file_replaced_on_disk_stays_the_old_one(
        self, a1111: Webui, files: Callable[[str, Any], Path]
    ) -> None:
        path = files("replaced.pt", create("replaced", seed=44))
        prompt = "x <hypernet:replaced:1>"
        old, new = create("replaced", seed=44), create("replaced", seed=45)
        with built_in(a1111):
            before = a1111.txt2img(prompt).picture
            hn.write(new, path)
            after = a1111.txt2img(prompt).picture
        assert difference(before, after) == 0
        right = theirs(a1111, prompt).picture
        hn.write(old, path)
        assert difference(a1111.txt2img(prompt).picture, before) <= ONE
        hn.write(new, path)
        assert difference(a1111.txt2img(prompt).picture, right) <= ONE

    def test_string_sizes_are_an_empty_network(
        self, a1111: Webui, files: Callable[[str, Any], Path]
    ) -> None:
        strings = {
            str(key) if isinstance(key, int) else key: value
            for key, value in self.small(a1111).items()
        }
        files("strings.pt", strings)
        self.right_as_small(a1111, "strings", theirs_is=PLAIN)

    def test_kohya_files_get_an_activation_too_many(
        self, a1111: Webui, files: Callable[[str, Any], Path]
    ) -> None:
        """They have ``enable_sizes``, no ``activate_output``, and no activation after their last
        layer."""
        right = create("right", (1, 2, 1), "relu", seed=46, activate_output=False)
        files("right.pt", right)
        kohya = content(a1111.folder / "right.pt")  # type: ignore[operator]
        kohya = {
            key: list(value) if isinstance(key, int) else value for key, value in kohya.items()
        }
        del kohya["activate_output"]
        files("kohya.pt", kohya | {"enable_sizes": [320, 640, 768, 1280]})
        expected = theirs(a1111, "x <hypernet:right:1>").picture
        assert difference(theirs(a1111, "x <hypernet:kohya:1>").picture, expected) > ONE
        assert difference(a1111.txt2img("x <hypernet:kohya:1>").picture, expected) <= ONE

    def test_layer_norm_as_a_string(self, a1111: Webui, files: Callable[[str, Any], Path]) -> None:
        files("string flag.pt", self.small(a1111) | {"is_layer_norm": "False"})
        self.right_as_small(a1111, "string flag", theirs_is=PLAIN)

    def test_sizes_of_newer_torch(self, a1111: Webui, files: Callable[[str, Any], Path]) -> None:
        files("torch sizes.pt", self.small(a1111) | {"optional_info": torch.Size([1, 2])})
        self.right_as_small(a1111, "torch sizes", theirs_is=PLAIN)

    def test_scalars_of_numpy_2(self, a1111: Webui, files: Callable[[str, Any], Path]) -> None:
        files("numpy scalars.pt", self.small(a1111) | {"step": np.float64(3.0)})
        self.right_as_small(a1111, "numpy scalars", theirs_is=PLAIN)

    def test_zips_of_newer_torch(self, a1111: Webui, files: Callable[[str, Any], Path]) -> None:
        """Their further members are refused by the webui's checked unpickler."""
        path = files("newer zip.pt", self.small(a1111))
        torch.save(self.small(a1111), path)
        self.right_as_small(a1111, "newer zip", theirs_is=PLAIN)

    @pytest.mark.parametrize("suffix", [".safetensors", ".bin", ".ckpt", ".pth"])
    def test_other_file_types_are_not_there(
        self, a1111: Webui, files: Callable[[str, Any], Path], suffix: str
    ) -> None:
        assert a1111.folder is not None
        if suffix == ".safetensors":
            files("typed.safetensors", hn.read(a1111.folder / "small.pt"))
        else:
            shutil.copyfile(a1111.folder / "small.pt", files("typed.pt", {}).with_suffix(suffix))
            (a1111.folder / "typed.pt").unlink()
            a1111.refresh()
        try:
            assert "typed" not in a1111.post("/probe/list_built_in")
            made = a1111.txt2img("x <hypernet:typed:1>")
        finally:
            (a1111.folder / "typed").with_suffix(suffix).unlink()
            a1111.refresh()
        assert difference(made.picture, a1111.known("x <hypernet:small:1>").picture) <= ONE

    def test_of_two_files_with_one_stem_the_last_wins_silently(self, a1111: Webui) -> None:
        assert "two" in a1111.post("/probe/list_built_in")["twin"]
        one, two = (a1111.txt2img(f"x <hypernet:{sub}/twin:1>").picture for sub in ("one", "two"))
        assert difference(one, two) >= VISIBLE
        assert "one/twin or two/twin" in a1111.txt2img("x <hypernet:twin:1>").messages

    @pytest.mark.parametrize("multiplier", ["abc", "0,5"])
    def test_a_bad_multiplier_takes_all_networks_away(self, a1111: Webui, multiplier: str) -> None:
        prompt = f"x <hypernet:small:1><hypernet:other:{multiplier}>"
        assert difference(theirs(a1111, prompt).picture, a1111.known(PLAIN).picture) == 0
        made = a1111.txt2img(prompt)
        assert multiplier in made.messages
        assert difference(made.picture, a1111.known("x <hypernet:small:1>").picture) == 0

    def test_an_unknown_name_is_passed_over_in_silence(self, a1111: Webui) -> None:
        stock = theirs(a1111, "x <hypernet:smal:1>")
        assert (stock.messages, a1111.state()["comments"][-1]) == ("", "")
        made = a1111.txt2img("x <hypernet:smal:1>")
        assert "did you mean small" in made.messages
        assert "did you mean small" in a1111.state()["comments"][-1]

    def test_a_tag_in_the_negative_prompt_is_read_as_text(self, a1111: Webui) -> None:
        more = {"negative_prompt": "bad <hypernet:small:1>"}
        plain = a1111.known(PLAIN, negative_prompt="bad ").picture
        assert difference(theirs(a1111, PLAIN, **more).picture, plain) > ONE
        assert difference(a1111.txt2img(PLAIN, **more).picture, plain) == 0

    def test_a_network_of_another_family_half_applies(
        self, a1111: Webui, files: Callable[[str, Any], Path]
    ) -> None:
        files("xl.pt", create("xl", seed=47, widths=SDXL))
        assert (
            difference(theirs(a1111, "x <hypernet:xl:1>").picture, a1111.known(PLAIN).picture) > ONE
        )
        made = a1111.txt2img("x <hypernet:xl:1>")
        assert "SDXL" in made.messages
        assert difference(made.picture, a1111.known(PLAIN).picture) == 0

    def test_the_first_prompt_decides_for_the_whole_batch(self, a1111: Webui) -> None:
        prompts = ["x <hypernet:small:1>", PLAIN]
        right = [a1111.known(prompt, seed=seed).picture for seed, prompt in enumerate(prompts, 1)]
        made = []
        for maker in (theirs, Webui.txt2img):
            a1111.post("/probe/prompts", {"prompts": prompts})
            made.append(maker(a1111, PLAIN, batch_size=2).pictures[-2:])
        assert difference(made[0][1], right[1]) >= VISIBLE
        assert [difference(one, other) <= 2 for one, other in zip(made[1], right, strict=True)] == [
            True,
            True,
        ]

    def test_a_refiner_loaded_as_a_new_model_loses_them(
        self, a1111: Webui, checkpoints: tuple[str, str]
    ) -> None:
        more: dict[str, Any] = {
            "refiner_checkpoint": checkpoints[1],
            "refiner_switch_at": 0.5,
            "steps": 4,
        }
        more |= {
            "sampler_name": "Euler",
            "override_settings": {"refiner_switch_by_sample_steps": True},
        }

        def make(maker: Callable[..., Made], prompt: str, *, fresh: bool) -> np.ndarray[Any, Any]:
            if fresh:  # the refiner is in memory no longer, and loaded as a second model
                a1111.options(sd_checkpoints_limit=1)
                a1111.txt2img(PLAIN)
                a1111.options(sd_checkpoints_limit=2)
            return maker(a1111, prompt, **more).picture

        whole = "x <hypernet:small:1>"
        try:
            stock = make(theirs, whole, fresh=True)
            right = make(theirs, whole, fresh=False)
            half = make(Webui.txt2img, "x <hypernet:small:1:stop=1.5>", fresh=False)
            ours = make(Webui.txt2img, whole, fresh=True)
        finally:
            a1111.options(sd_checkpoints_limit=1)
            a1111.txt2img(PLAIN)
        assert difference(stock, right) > ONE
        assert difference(stock, half) <= ONE
        assert difference(ours, right) <= ONE

    @staticmethod
    def small(webui: Webui) -> dict[Any, Any]:
        """What ``small.pt`` holds."""
        assert webui.folder is not None
        return copy.copy(content(webui.folder / "small.pt"))

    @staticmethod
    def right_as_small(webui: Webui, name: str, theirs_is: str) -> None:
        """Ours reads the file as what it is, ``small``; the built-in's picture is another."""
        small = webui.known("x <hypernet:small:1>").picture
        assert (
            difference(
                theirs(webui, f"x <hypernet:{name}:1>").picture, webui.known(theirs_is).picture
            )
            == 0
        )
        assert difference(small, webui.known(theirs_is).picture) >= VISIBLE
        made = webui.txt2img(f"x <hypernet:{name}:1>")
        assert made.messages == ""
        assert difference(made.picture, small) <= ONE
