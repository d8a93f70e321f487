"""From a prompt with tags to a picture, on diffusers' own pipeline."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import hypernetworks as hn
from hypernetworks.hosts.diffusers import Generation, Painter, save_png
from hypernetworks.hosts.diffusers.prompt_encoding import conditions
from hypernetworks.patching import sites
from hypernetworks.patching.handle import MARK
from hypernetworks.prompts import parse_infotext, tags


@pytest.fixture(scope="module")
def painter(tiny_folder: Path, networks_folder: Path) -> Painter:
    return Painter(tiny_folder, hn.Library([networks_folder]))


@pytest.fixture(autouse=True)
def unet_is_clean_afterwards(painter: Painter) -> Iterator[None]:
    yield
    unet = painter.pipeline.unet
    assert not hasattr(unet, MARK)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in unet.modules())


def pixels(painter: Painter, prompt: str, **settings: object) -> np.ndarray:
    result = painter.generate(Generation(prompt=prompt, steps=4, **settings))  # type: ignore[arg-type]
    assert result.messages == []
    return np.asarray(result.pictures[0].image).astype(int)


def test_a_tag_changes_the_picture_and_is_gone_afterwards(painter: Painter) -> None:
    before = pixels(painter, "a cat")
    assert np.abs(pixels(painter, "a cat<hypernet:strong:1>") - before).max() > 0
    assert np.array_equal(pixels(painter, "a cat"), before)


def test_a_generation_parses_each_prompt_once_and_searches_the_unet_once(
    painter: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = Counter[str]()
    parsing, searching = tags._extra_networks, sites._resnets_per_block
    monkeypatch.setattr(
        tags, "_extra_networks", lambda text: counts.update([text]) or parsing(text)
    )
    monkeypatch.setattr(
        sites, "_resnets_per_block", lambda unet: counts.update(["find_sites"]) or searching(unet)
    )
    pixels(painter, "a cat<hypernet:strong:1>", negative="bad")
    assert counts == {"a cat<hypernet:strong:1>": 1, "bad": 1, "find_sites": 1}


def test_multiplier_zero_is_no_tag_bit_for_bit(painter: Painter) -> None:
    assert np.array_equal(pixels(painter, "a cat<hypernet:strong:0>"), pixels(painter, "a cat"))


@pytest.mark.parametrize(
    ("tag", "part"),
    [
        ("<hypernet:stron:1>", "did you mean strong"),
        ("<hypernet:strong:0,5>", 'write "0.5"'),
        ("<hypernet:damaged:1>", "download it again"),
        ("<hypernet:foreign:1>", "made for SD1"),
        ("<hypernet:strong:1:lbw=OUTALL>", "lbw needs the blocks"),
    ],
)
def test_a_bad_tag_costs_a_message_and_never_the_picture(
    painter: Painter, tag: str, part: str
) -> None:
    result = painter.generate(Generation(prompt=f"a cat{tag}", steps=4))
    assert len(result.messages) == 1
    assert part in result.messages[0]
    assert np.array_equal(np.asarray(result.pictures[0].image), pixels(painter, "a cat"))


def test_good_tags_act_although_another_is_bad(painter: Painter) -> None:
    result = painter.generate(
        Generation(prompt="a cat<hypernet:nobody:1><hypernet:strong:1>", steps=4)
    )
    assert np.array_equal(
        np.asarray(result.pictures[0].image), pixels(painter, "a cat<hypernet:strong:1>")
    )


def test_a_tag_in_the_negative_prompt_is_taken_out_and_reported(painter: Painter) -> None:
    result = painter.generate(
        Generation(prompt="a cat", negative="dog<hypernet:strong:1>", steps=4)
    )
    assert "negative" in result.messages[0]
    assert np.array_equal(
        np.asarray(result.pictures[0].image), pixels(painter, "a cat", negative="dog")
    )


def test_a_schedule_is_the_multiplier_of_each_step(
    painter: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, ...]] = []
    original = hn.engine.stack.Stack.transform  # type: ignore[attr-defined]

    def spy(self, context, side, multipliers, **named):  # type: ignore[no-untyped-def]
        seen.append(multipliers)
        return original(self, context, side, multipliers, **named)

    monkeypatch.setattr(hn.engine.stack.Stack, "transform", spy)  # type: ignore[attr-defined]
    pixels(painter, "a cat<hypernet:strong:0.5@0,2@1>")
    assert list(dict.fromkeys(m for (m,) in seen)) == [0.5, 1.0, 1.5, 2.0]


def test_start_and_stop_limit_the_effect(painter: Painter) -> None:
    plain = pixels(painter, "a cat")
    assert np.array_equal(pixels(painter, "a cat<hypernet:strong:1:start=99>"), plain)
    assert not np.array_equal(pixels(painter, "a cat<hypernet:strong:1:start=0.3>"), plain)


def test_pictures_of_a_batch_are_those_made_alone(painter: Painter) -> None:
    result = painter.generate(
        Generation(prompt="a cat<hypernet:strong:0.5>", steps=4, seed=7, batch=2)
    )
    alone = pixels(painter, "a cat<hypernet:strong:0.5>", seed=8)
    assert np.abs(np.asarray(result.pictures[1].image).astype(int) - alone).max() <= 1
    assert [parse_infotext(p.infotext)[2]["Seed"] for p in result.pictures] == ["7", "8"]


def test_the_infotext_restores_the_job(
    painter: Painter, networks_folder: Path, tmp_path: Path
) -> None:
    from PIL import Image

    job = Generation(
        prompt="a cat, <hypernet:strong:0.5>", negative="dog", steps=3, cfg=2.5, seed=11
    )
    result = painter.generate(job)
    save_png(result.pictures[0], tmp_path / "cat.png")
    with Image.open(tmp_path / "cat.png") as picture:
        prompt, negative, pairs = parse_infotext(picture.info["parameters"])
    digest = hn.Library([networks_folder]).find("strong").sha256()[:10]
    assert (prompt, negative) == (job.prompt, job.negative)
    assert pairs["Hypernet hashes"] == f"strong: {digest}"
    assert pairs["Model"] == "tiny-model-v1.5"
    assert (pairs["Steps"], pairs["CFG scale"], pairs["Seed"], pairs["Size"]) == (
        "3",
        "2.5",
        "11",
        "8x8",
    )


def test_a_job_can_be_stopped(painter: Painter) -> None:
    calls: list[int] = []

    def on_step(done: int, total: int) -> bool:
        calls.append(done)
        return done < 2

    job = Generation(prompt="a cat<hypernet:strong:1>", steps=10)
    stopped = painter.generate(job, on_step)
    assert calls == [1, 2]
    # its file doesn't claim steps that it never had
    assert stopped.pictures[0].infotext.endswith("Interrupted after: 2 of 10 steps")


def test_an_exception_in_the_middle_leaves_the_unet_clean(painter: Painter) -> None:
    def on_step(done: int, total: int) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        painter.generate(Generation(prompt="a cat<hypernet:strong:1>", steps=3), on_step)


def test_an_impossible_size_is_one_clear_error(painter: Painter) -> None:
    with pytest.raises(hn.HypernetworkError, match="multiples of"):
        painter.generate(Generation(prompt="a cat", width=7, height=8))


def test_the_examples_of_the_documentation_run(
    tiny_folder: Path, networks_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a-folder").symlink_to(tiny_folder)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "hypernetworks").symlink_to(networks_folder)
    network = hn.read(networks_folder / "strong.pt")
    hn.write(network, tmp_path / "ink.safetensors")
    hn.write(network, networks_folder / "waterElemental_10.pt")
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "diffusers.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "docs/diffusers.md", "exec"), names)
        picture = np.asarray(names.pop("image"))
        assert picture.shape == (8, 8, 3)
    assert isinstance(names["steps"], int)


def test_the_seed_alone_decides(painter: Painter) -> None:
    torch.manual_seed(1)
    first = pixels(painter, "a cat<hypernet:strong:1>")
    torch.manual_seed(2)
    assert np.array_equal(pixels(painter, "a cat<hypernet:strong:1>"), first)


def test_a_copied_pipeline_has_no_networks(painter: Painter, networks_folder: Path) -> None:
    unet, network = painter.pipeline.unet, hn.read(networks_folder / "strong.pt")

    def run(unet: torch.nn.Module) -> torch.Tensor:
        x = torch.linspace(-1, 1, 512).view(2, 4, 8, 8)
        with torch.no_grad():
            return unet(x, 7, torch.linspace(-1, 1, 480).view(2, 5, 48)).sample  # type: ignore[no-any-return]

    plain = run(unet)
    with hn.apply(unet, [(network, 0.8)]):
        copied = copy.deepcopy(painter.pipeline).unet
        assert torch.equal(run(copied), plain)
        acted = run(unet)
    assert not torch.allclose(acted, plain)
    with hn.apply(copied, [(network, 0.8)]):
        assert torch.equal(run(copied), acted)
        assert torch.equal(run(unet), plain)


def test_other_models_of_a_pipeline_are_left_alone() -> None:
    from diffusers import ControlNetModel
    from laws.hosts import sd1, traces

    host = sd1()
    controlnet = ControlNetModel.from_unet(host.unet).eval().requires_grad_(False)  # type: ignore[arg-type]
    drawn = torch.Generator().manual_seed(0)
    for parameter in controlnet.controlnet_mid_block.parameters():  # they begin as zeros
        parameter.copy_(torch.randn(parameter.shape, generator=drawn))
    latents, image = torch.randn(2, 4, 8, 8), torch.rand(2, 3, 64, 64)

    def controlled() -> torch.Tensor:
        with torch.no_grad():
            return controlnet(latents, 7, host.context(), image).mid_block_res_sample  # type: ignore[no-any-return]

    before, plain = traces(controlnet), controlled()
    network = host.network()[1]
    with hn.apply(host.unet, [(network, 1)]):
        assert torch.equal(controlled(), plain)
    assert traces(controlnet) == before
    with hn.apply(controlnet, [(network, 1)]):
        assert not torch.allclose(controlled(), plain)
    assert torch.equal(controlled(), plain)


def test_plain_prompts_have_diffusers_own_conditions_and_weights_change_them(
    painter: Painter,
) -> None:
    own = painter.pipeline.encode_prompt("a cat", "cpu", 1, True, "bad")
    plain = conditions(painter.pipeline, "a cat", "bad")
    assert torch.equal(plain.context, own[0])
    assert torch.equal(plain.negative_context, own[1])

    strong = conditions(painter.pipeline, "a (cat:1.5)", "bad")
    assert strong.context.shape == plain.context.shape
    assert not torch.equal(strong.context, plain.context)
    neutral = conditions(painter.pipeline, "a (cat:1)", "bad")
    assert torch.equal(neutral.context, plain.context)


def test_a_long_prompt_is_read_to_its_end(painter: Painter) -> None:
    room = painter.pipeline.tokenizer.model_max_length - 2
    long = " ".join(["a"] * room)
    ends = [conditions(painter.pipeline, f"{long} {end}", "") for end in ("a", "b c")]
    assert ends[0].context.shape[1] == ends[0].negative_context.shape[1] == 2 * (room + 2)
    assert not torch.equal(ends[0].context, ends[1].context)
    assert torch.equal(ends[0].context[:, : room + 2], ends[1].context[:, : room + 2])
