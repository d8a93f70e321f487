"""SD.Next's jobs, with the parts of its pipelines that the extension looks at: passes, steps,
pictures, and the end."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from fake_webui import FakeWebui
from torch import nn

import hypernetworks as hn
from hypernetworks.engine.network import Hypernetwork
from hypernetworks.engine.structure import Structure
from hypernetworks.hosts.webui import compiled, extra_network, folders, host
from hypernetworks.hosts.webui.active import ACTIVE

SELF, TEXT = 16, 8


class Attention(nn.Module):
    def __init__(self, context: int) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (
            nn.Linear(SELF, SELF),
            nn.Linear(context, SELF),
            nn.Linear(context, SELF),
        )

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.to_q(x) @ self.to_k(context).transpose(1, 2), -1) @ self.to_v(
            context
        )


class UNet(nn.Module):
    def __init__(self, text: int = TEXT) -> None:
        super().__init__()
        self.attn1, self.attn2 = Attention(SELF), Attention(text)

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        x = x + self.attn1(x, x)
        return x + self.attn2(x, context)


class Pipeline:
    """Runs its loop as diffusers' pipelines do, and remembers what the UNet answered."""

    def __init__(self, unet: Any, scheduler: Any = None) -> None:
        self.unet, self.scheduler = unet, scheduler or SimpleNamespace(order=1)
        self.answers: list[torch.Tensor] = []

    def __call__(self, num_inference_steps: int, batch: int, **callbacks: Any) -> None:
        torch.manual_seed(3)
        self.num_timesteps = num_inference_steps
        x, text = (
            torch.randn(1, 5, SELF).repeat(2 * batch, 1, 1),
            torch.randn(1, 7, TEXT).repeat(2 * batch, 1, 1),
        )
        for step in range(num_inference_steps):
            with torch.no_grad():
                self.answers.append(self.unet(x, text))
            if "callback" in callbacks:
                callbacks["callback"](step, 0, x)
            elif "callback_on_step_end" in callbacks:
                callbacks["callback_on_step_end"](self, step, 0, {})


class Host:
    """What of SD.Next runs a job: activation, arguments of the pipeline, the pipeline,
    deactivation."""

    def __init__(self, webui: FakeWebui) -> None:
        self.webui = webui
        torch.manual_seed(0)
        self.pipe = Pipeline(UNet().eval())
        self.callback = "callback_on_step_end"
        self.seen: list[tuple[int, int]] = []
        webui.shared.sd_model, webui.shared.sd_loaded = self.pipe, True
        self.networks, self.processing = webui.module("extra_networks"), webui.module("processing")
        self.diffusers = ModuleType("modules.processing_diffusers")
        self.diffusers.set_pipeline_args = self.set_pipeline_args  # type: ignore[attr-defined]
        self.processing.process_images_inner = self.process_images_inner
        self.details: Callable[[Any], None] = lambda _: None

    def set_pipeline_args(self, p: Any, model: Any, **named: Any) -> dict[str, Any]:
        p.given = [*getattr(p, "given", []), named]
        steps = {} if not self.callback else {self.callback: lambda *_: None}
        return {"num_inference_steps": p.steps, "batch": len(p.prompts), **steps}

    def run(self, p: Any, pipe: Pipeline, **named: Any) -> None:
        pipe(**self.diffusers.set_pipeline_args(p=p, model=pipe, **{"prompts": p.prompts, **named}))

    def process_images_inner(self, p: Any) -> Any:
        p.all_prompts = p.all_prompts or [p.prompt] * p.batch_size
        p.prompts = list(p.all_prompts)
        found = [self.networks.parse_prompt(prompt) for prompt in p.prompts]
        p.prompts = [clean for clean, _ in found]
        data = next((tags for _, tags in reversed(found) if tags), {})
        if not p.disable_extra_networks:
            self.networks.activate(p, data)
        self.run(p, self.pipe, negative_prompts=p.negative_prompts, prompts_2=[p.refiner_prompt])
        if p.enable_hr and p.is_hr_next:
            p.is_hr_pass = True
            if p.refiner_prompt:
                self.networks.activate(p, self.networks.parse_prompt(p.refiner_prompt)[1])
            self.run(p, self.pipe)
            p.is_hr_pass = False
        if p.refiner is not None:
            p.is_refiner_pass = True
            self.run(p, p.refiner)
        if p.stop:
            raise AssertionError("stopped")
        if not p.disable_extra_networks:
            self.networks.deactivate(p, data)
        self.details(p)
        return SimpleNamespace(comments="", extra_generation_params=p.extra_generation_params)

    def draw(self, prompt: Any, **fields: Any) -> tuple[Any, list[torch.Tensor]]:
        """Process a job; its result, and what the UNet answered in each step."""
        batch = prompt if isinstance(prompt, list) else [prompt]
        settings = {
            "steps": 2,
            "refiner_prompt": "",
            "refiner": None,
            "stop": False,
            "is_hr_next": True,
        }
        self.pipe.answers.clear()
        p = self.processing.StableDiffusionProcessing(
            **{
                "prompt": batch[0],
                "all_prompts": batch,
                "batch_size": len(batch),
                "negative_prompts": [""] * len(batch),
            }
            | settings
            | fields
        )
        self.p = p
        return self.processing.process_images_inner(p), list(self.pipe.answers)

    def detail(self, prompt: str) -> None:
        """Have the next job draw a part of its picture again, as the detailer does."""

        def details(p: Any) -> None:
            self.details = lambda _: None
            part = copy.copy(p)
            part.prompt, part.all_prompts, part.batch_size = prompt, [prompt], 1
            part.recursion = part.disable_extra_networks = True
            self.processing.process_images_inner(part)

        self.details = details

    @property
    def hooks(self) -> int:
        return sum(
            len(m._forward_pre_hooks) + len(m._forward_hooks) for m in self.pipe.unet.modules()
        )


@pytest.fixture
def sd(fake_webui: FakeWebui, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    found = Host(fake_webui)
    monkeypatch.setitem(sys.modules, "modules.processing_diffusers", found.diffusers)
    fake_webui.folder.mkdir(parents=True)
    for seed, name in enumerate(("ink", "oil")):
        torch.manual_seed(seed)
        network = Hypernetwork.create(name, Structure((1.0, 2.0, 1.0), "relu"), (TEXT, SELF))
        for weights in (
            w for pair in network.pairs.values() for mlp in pair for w in mlp.parameters()
        ):
            nn.init.normal_(weights, std=0.3)
        hn.write(network, fake_webui.folder / f"{name}.pt")
    folders.refresh()
    extra_network.register()
    original = ACTIVE.before_step

    def before_step(p: Any, step: int, total: int, **named: Any) -> None:
        found.seen.append((step, total))
        original(p, step, total, **named)

    monkeypatch.setattr(ACTIVE, "before_step", before_step)
    yield found
    assert found.hooks == 0
    assert ACTIVE.job is None


pytestmark = pytest.mark.parametrize("fake_webui", ["sdnext"], indirect=True)


def differ(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() > 1e-3)


def test_a_tag_changes_the_picture_and_zero_does_not(sd: Host) -> None:
    _, plain = sd.draw("x")
    _, drawn = sd.draw("x <hypernet:ink:1>")
    assert all(differ(a, b) for a, b in zip(plain, drawn, strict=True))
    _, zero = sd.draw("x <hypernet:ink:0>")
    assert all(torch.equal(a, b) for a, b in zip(plain, zero, strict=True))
    _, again = sd.draw("x")
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_a_schedule_follows_the_steps(sd: Host) -> None:
    _, plain = sd.draw("x", steps=3)
    _, drawn = sd.draw("x <hypernet:ink:0@0,1@1>", steps=3)
    _, full = sd.draw("x <hypernet:ink:1>", steps=3)
    assert torch.equal(drawn[0], plain[0])
    assert differ(drawn[1], plain[1])
    assert differ(drawn[1], full[1])
    assert torch.equal(drawn[2], full[2])


def test_the_callback_of_older_pipelines_has_no_pipeline(sd: Host) -> None:
    sd.callback = "callback"
    sd.draw("x <hypernet:ink:0@0,1@1>", steps=3)
    assert sd.seen[:3] == [(0, 1), (1, 3), (2, 3)]


def test_a_pipeline_without_steps_is_reported_where_it_matters(sd: Host) -> None:
    sd.callback = ""
    result, _ = sd.draw("x <hypernet:ink:1>")
    assert result.comments == ""
    result, _ = sd.draw("x <hypernet:ink:0@0,1@1>")
    assert "Pipeline doesn't report its step" in result.comments


def test_the_hires_pass_has_its_own_prompt_and_multiplier(sd: Host) -> None:
    _, plain = sd.draw("x", enable_hr=True)
    _, both = sd.draw("x <hypernet:ink:1:hr=0>", enable_hr=True)
    assert [differ(a, b) for a, b in zip(plain, both, strict=True)] == [True, True, False, False]
    _, first = sd.draw("x <hypernet:ink:1>", enable_hr=True, refiner_prompt="y")
    assert [differ(a, b) for a, b in zip(plain, first, strict=True)] == [True, True, False, False]
    _, second = sd.draw("x", enable_hr=True, refiner_prompt="y <hypernet:ink:1>")
    assert [differ(a, b) for a, b in zip(plain, second, strict=True)] == [False, False, True, True]
    assert sd.p.given[0]["prompts_2"] == ["y "], (
        "SDXL's second text encoder reads it in the first pass"
    )


def test_each_picture_of_a_batch_has_its_own_networks(sd: Host) -> None:
    """The host hands over the last prompt's tags; rows are all unconditional ones, then all
    conditional ones."""
    _, [alone, *_] = sd.draw("x <hypernet:ink:1>")
    _, [other, *_] = sd.draw("x <hypernet:oil:1>")
    _, [plain, *_] = sd.draw("x")
    for prompts in (
        ["x <hypernet:ink:1>", "x", "x <hypernet:oil:1>"],
        ["x", "x", "x <hypernet:oil:1>"],
    ):
        result, [drawn, *_] = sd.draw(prompts)
        rows = [
            alone if "ink" in prompt else other if "oil" in prompt else plain for prompt in prompts
        ]
        for row, expected in enumerate([*rows, *rows]):
            assert torch.allclose(drawn[row], expected[0], atol=1e-5)
        assert result.comments == ""


def test_tags_of_negative_prompts_are_taken_out_and_reported(sd: Host) -> None:
    result, _ = sd.draw("x", negative_prompts=["bad <hypernet:ink:1>"])
    assert sd.p.given[0]["negative_prompts"] == ["bad "]
    assert "<hypernet:ink:1> has no effect in the negative prompt" in result.comments


def test_near_misses_are_told_once_wherever_they_stand(sd: Host) -> None:
    result, _ = sd.draw(
        "x <Hypernet:ink:1>",
        negative_prompts=["bad <hypernetwork:ink:1>"],
        refiner_prompt="y <hyper-net:oil:1>",
        enable_hr=True,
    )
    for text, ending in (
        ("<Hypernet:ink:1>", "write <hypernet:ink:1>"),
        ("<hypernetwork:ink:1>", "write <hypernet:ink:1> in the prompt"),
        ("<hyper-net:oil:1>", "write <hypernet:oil:1>"),
    ):
        [line] = [line for line in result.comments.split("\n") if text in line]
        assert line.endswith(ending)


def test_each_infotext_names_what_was_active_in_its_image(
    sd: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def create_infotext(p: Any, prompts: Any = None, **named: Any) -> str:
        return str(p.extra_generation_params.get("Hypernet hashes") or "")

    module = ModuleType("modules.processing_info")
    monkeypatch.setitem(sys.modules, "modules.processing_info", module)
    monkeypatch.setattr(sd.processing, "create_infotext", create_infotext, raising=False)
    run = sd.run

    def and_save(p: Any, *arguments: Any, **named: Any) -> None:
        run(p, *arguments, **named)
        save = sd.processing.create_infotext
        made.extend(save(p, p.prompts, index=index) for index in range(3))
        made.append(save(p, index=0, grid="grid"))
        made.append(save(p, iteration=1, position_in_batch=1))

    sd.run = and_save  # type: ignore[method-assign]
    sd.draw(["a <hypernet:ink>", "b <hypernet:oil>", "c"])
    names = [[pair.partition(":")[0] for pair in line.split(", ") if pair] for line in made]
    assert names == [["ink"], ["oil"], [], ["ink", "oil"], ["oil"]]


def test_the_refiner_has_a_unet_of_its_own(sd: Host) -> None:
    refiner = Pipeline(copy.deepcopy(sd.pipe.unet))
    sd.draw("x <hypernet:ink:1>", refiner=refiner)
    assert all(torch.equal(a, b) for a, b in zip(refiner.answers, sd.pipe.answers, strict=True))
    assert not any(module._forward_pre_hooks for module in refiner.unet.modules())


def test_a_refiner_of_another_kind_is_left_alone(sd: Host) -> None:
    torch.manual_seed(0)
    refiner = Pipeline(UNet(2 * TEXT))
    calls: list[int] = []
    refiner.unet.forward = lambda *_: calls.append(
        sum(len(m._forward_pre_hooks) for m in refiner.unet.modules())
    )
    result, _ = sd.draw("x <hypernet:ink:1>", refiner=refiner)
    assert calls == [0, 0]
    assert "the refiner is a different kind of model" in result.comments
    result, _ = sd.draw("x", refiner=refiner)
    assert result.comments == ""


def test_pictures_that_the_refiner_does_not_tell_apart_are_reported(sd: Host) -> None:
    result, _ = sd.draw(["x <hypernet:ink:1>", "x"], refiner=Pipeline(copy.deepcopy(sd.pipe.unet)))
    assert "can't be told apart" in result.comments


@pytest.mark.parametrize(
    ("prompt", "detail", "acts"),
    [
        ("x <hypernet:ink:1>", "x <hypernet:ink:1>", True),
        ("x <hypernet:ink:1>", "face", True),
        ("x", "face <hypernet:ink:1>", True),
        ("x", "face", False),
    ],
)
def test_the_detailer_draws_with_networks_too(
    sd: Host, prompt: str, detail: str, acts: bool
) -> None:
    """Its copy of the job says that extra networks are disabled; the job itself has been
    deactivated by then."""
    _, [plain, *_] = sd.draw("x")
    sd.detail(detail)
    _, drawn = sd.draw(prompt)
    assert [differ(answer, plain) for answer in drawn[2:]] == [acts, acts]


def test_details_are_drawn_from_the_first_prompt_of_a_batch(sd: Host) -> None:
    """By the host; so they have its networks."""
    _, [alone, *_] = sd.draw("x <hypernet:ink:1>")
    sd.detail("face")
    _, drawn = sd.draw(["x <hypernet:ink:1>", "x"])
    assert torch.allclose(drawn[2], alone, atol=1e-5)


def test_a_job_that_ends_early_leaves_nothing(sd: Host) -> None:
    with pytest.raises(AssertionError, match="stopped"):
        sd.draw("x <hypernet:ink:1>", stop=True)
    assert sd.hooks == 0


def test_a_job_goes_on_with_the_object_of_the_last_one(sd: Host) -> None:
    """This is "Reprocess": nothing of the older object is deactivated when it is interrupted."""
    sd.draw("x <hypernet:ink:1>")
    last, sd.details = (
        sd.p,
        lambda _: sd.networks.activate(last, sd.networks.parse_prompt(last.prompt)[1]),
    )
    sd.draw("x")
    assert sd.hooks == 0


def test_fused_projections_are_reported(sd: Host) -> None:
    _, plain = sd.draw("x")
    sd.pipe.unet.attn1.fused_projections = True
    result, drawn = sd.draw("x <hypernet:ink:1>")
    assert "the attention projections are fused" in result.comments
    assert "Error" not in result.comments
    assert all(torch.equal(a, b) for a, b in zip(plain, drawn, strict=True))


def test_what_compiles_by_another_way_is_reported(sd: Host) -> None:
    sd.webui.shared.opts.cuda_compile_backend, sd.webui.shared.opts.cuda_compile = (
        "openvino_fx",
        ["Model"],
    )
    result, _ = sd.draw("x <hypernet:ink:1>")
    assert "openvino_fx replaces the UNet" in result.comments


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="this torch can't")
def test_an_older_torch_is_told_that_compiled_is_compiled(
    sd: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "is_compiled", lambda _: True)
    monkeypatch.delattr(torch.compiler, "set_stance", raising=False)
    result, _ = sd.draw("x <hypernet:ink:1>")
    assert "the model is compiled, so hypernetworks have no effect" in result.comments


def test_a_model_without_a_unet_is_reported(sd: Host) -> None:
    unet, sd.webui.shared.sd_model = sd.pipe.unet, SimpleNamespace(transformer=nn.Linear(2, 2))
    result, _ = sd.draw("x <hypernet:ink:1>")
    assert "need an SD1, SD2 or SDXL model" in result.comments
    sd.pipe.unet = unet


def test_no_model_is_loaded_for_a_look(sd: Host) -> None:
    sd.webui.shared.sd_loaded = False
    assert host.live_unet() is None


def test_repeated_blocks_count_as_compiled(sd: Host) -> None:
    unet = UNet()
    assert not compiled.is_compiled(unet)
    unet.attn1.compile(backend="eager")
    assert compiled.is_compiled(unet)
