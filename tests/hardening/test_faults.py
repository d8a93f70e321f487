"""Generations that go wrong: whatever is raised, wherever and whenever, the UNet is as it was
before."""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_webui import FakeWebui
from hardening.webui_jobs import ERRORS, Denoised, WebuiWithUNet, forget, left_on
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from laws.hosts import Host, make, traces
from reference import Recipe, relative_error
from unit.files.containers import save_zip

import hypernetworks as hn
from hypernetworks.engine.folding import Fold
from hypernetworks.engine.network import Hypernetwork
from hypernetworks.engine.prepared import prepared
from hypernetworks.hosts.diffusers import Generation, Painter
from hypernetworks.hosts.diffusers.samplers import SAMPLERS
from hypernetworks.patching import folded

OURS = tuple(error for error in ERRORS if issubclass(error, Exception))
"""What may go wrong in our arithmetic; the others are the user's request."""
REQUESTS = (KeyboardInterrupt, SystemExit)
BOTH = "<hypernet:straight:0.8><hypernet:bent:0.5>"
STEPS = 3


@pytest.fixture(autouse=True)
def _every_row_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """These UNets are so small that folding would hardly ever pay."""
    monkeypatch.setattr(folded, "_REFOLD_ROWS", {"cpu": 1})


@contextmanager
def failing(
    owner: Any, name: str, error: type[BaseException], after: int = 0
) -> Iterator[list[int]]:
    """A method that raises at one of its calls; gives the number of its calls."""
    original, calls = getattr(owner, name), [0]

    def broken(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == after + 1:
            raise error("deliberate")
        return original(*arguments, **named)

    static = isinstance(vars(owner).get(name), (staticmethod, classmethod))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, staticmethod(broken) if static else broken)
        yield calls


# ------------------------------------------------------------------ a webui


@dataclass
class Studio:
    """A webui with a small UNet, and what the UNet gave before anything was done to it."""

    webui: WebuiWithUNet
    host: Host
    before: Any
    base: torch.Tensor

    def job(self, prompt: str = BOTH, **more: Any) -> Denoised:
        more.setdefault("steps", STEPS)
        return self.webui.job([prompt], **more)

    def check(self) -> None:
        """The laws: nothing left, the same numbers, and the next job works."""
        assert left_on(self.host.unet) == []
        assert traces(self.host.unet) == self.before
        assert torch.equal(self.host.run(self.host.context()), self.base)


@pytest.fixture
def ready(fake_webui: FakeWebui) -> Iterator[Studio]:
    """A webui with two networks. Every test leaves the UNet as it was."""
    host = make("sd1")
    write_networks(host, fake_webui.folder)

    def encode(prompts: list[str], negative: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        first, second = (
            torch.stack([host.context(sum(map(ord, text)))[0] for text in texts])
            for texts in (prompts, negative)
        )
        return first, second

    from diffusers import DDIMScheduler

    webui = WebuiWithUNet(fake_webui, host.unet, encode, DDIMScheduler)
    studio = Studio(webui, host, traces(host.unet), host.run(host.context()))
    state = torch.random.get_rng_state()
    yield studio
    forget()
    studio.check()
    assert torch.equal(torch.random.get_rng_state(), state), "the RNG was touched"


def write_networks(host: Host, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, activation in (("straight", None), ("bent", "relu")):
        save_zip(
            Recipe(host.widths, activation=activation, seed=len(name)).content(),
            folder / f"{name}.pt",
        )


@pytest.fixture
def active(ready: Studio) -> tuple[Studio, torch.Tensor]:
    """The same, and what a job gives in which nothing goes wrong: proven to differ from one without
    networks."""
    made = ready.job()
    assert made.told == []
    assert relative_error(made.latents, ready.job("").latents) > 1e-3
    ready.check()
    return ready, made.latents


def test_the_hosts_own_errors_are_its_own(active: tuple[Studio, torch.Tensor]) -> None:
    studio, good = active
    attention = studio.host.unet.get_submodule(studio.host.sites[5].path)
    removers: list[Any] = []
    for number, error in enumerate(ERRORS):

        def fail(*_: Any, error: type[BaseException] = error) -> None:
            removers.pop().remove()
            raise error("deliberate")

        def during(now: int, step: int = number % STEPS, fail: Callable[..., None] = fail) -> None:
            if now == step:
                removers.append(attention.register_forward_pre_hook(fail))

        with pytest.raises(error, match="deliberate"):
            studio.job(during=during)
        assert studio.webui.told() == []
        studio.check()
    assert torch.equal(studio.job().latents, good)


def raises(error: type[BaseException]) -> None:
    raise error("deliberate")


def test_an_error_of_the_sampler_at_every_step(active: tuple[Studio, torch.Tensor]) -> None:
    studio, good = active
    for number, error in enumerate((*ERRORS, *ERRORS[1:])):
        step = number % STEPS
        with pytest.raises(error, match="deliberate"):
            studio.job(during=lambda now, e=error, s=step: raises(e) if now == s else None)
        studio.check()
    assert torch.equal(studio.job().latents, good)


@pytest.mark.parametrize("error", OURS)
def test_a_fault_of_ours_costs_the_networks_and_not_the_picture(
    active: tuple[Studio, torch.Tensor], error: type[Exception]
) -> None:
    studio, good = active
    for after in (0, 7, 60):
        with failing(Hypernetwork, "step", error, after) as calls:
            made = studio.job()
        assert calls[0] == after + 1, "the networks were taken off at once"
        assert bool(torch.isfinite(made.latents).all())
        assert not torch.equal(made.latents, good)
        assert [("deliberate" in line, "without hypernetworks" in line) for line in made.told] == [
            (True, True)
        ]
        studio.check()
    assert torch.equal(studio.job().latents, good)


@pytest.mark.parametrize("error", REQUESTS)
def test_a_request_to_end_takes_effect_in_our_code(
    active: tuple[Studio, torch.Tensor], error: type[BaseException]
) -> None:
    studio, good = active
    for owner, name in ((Hypernetwork, "step"), (Fold, "of"), (Fold, "added_to")):
        network_of(studio).release()
        with failing(owner, name, error, 2), pytest.raises(error, match="deliberate"):
            studio.job("<hypernet:bent:1><hypernet:straight:0@0,1@1>")
        studio.check()
    assert torch.equal(studio.job().latents, good)


def network_of(studio: Studio) -> Hypernetwork:
    from hypernetworks.hosts.webui import folders

    found = folders.library()
    return found.load(found.find("straight"))


def test_folding_that_fails_costs_nothing_but_speed(active: tuple[Studio, torch.Tensor]) -> None:
    studio, _ = active
    prompt = "<hypernet:bent:0.5><hypernet:straight:0.8>"
    good = studio.job(prompt).latents
    for number, error in enumerate(OURS):
        network_of(studio).release()
        with failing(Fold, ("of", "added_to")[number % 2], error, 3) as calls:
            made = studio.job(prompt)
        assert calls[0] > 3
        assert made.told == []
        assert relative_error(made.latents, good) <= 1e-4
        studio.check()
    assert torch.equal(studio.job(prompt).latents, good)


def test_interrupted_at_every_step(active: tuple[Studio, torch.Tensor]) -> None:
    studio, good = active
    state = studio.webui.webui.shared.state
    for step in range(STEPS):
        studio.job(during=lambda now, step=step: setattr(state, "interrupted", now == step))
        state.interrupted = False
        studio.check()
    assert torch.equal(studio.job().latents, good)


def test_another_checkpoint_at_every_step(active: tuple[Studio, torch.Tensor]) -> None:
    studio, good = active
    other = make("sd1").unet
    with torch.no_grad():
        next(other.parameters()).mul_(0.5)
    before = traces(other)
    for step in range(STEPS):
        seen: list[int] = []

        def during(now: int, step: int = step, seen: list[int] = seen) -> None:
            if now == step:
                studio.webui.load(other)
            if now == step + 1:
                assert left_on(studio.host.unet) == [], (
                    "the one that is gone is clean at the next step"
                )
                seen.append(len(left_on(other)))

        made = studio.job(during=during)
        assert all(seen), "networks act on the new one"
        assert made.told == []
        assert bool(torch.isfinite(made.latents).all())
        assert traces(other) == before
        studio.webui.load(studio.host.unet)
        studio.check()
    assert torch.equal(studio.job().latents, good)


def test_no_model_in_the_middle(active: tuple[Studio, torch.Tensor]) -> None:
    studio, good = active
    with pytest.raises(AttributeError):  # the host's own: it has nothing to sample with
        studio.job(during=lambda now: studio.webui.load(None) if now == 1 else None)
    studio.webui.load(studio.host.unet)
    studio.check()
    assert torch.equal(studio.job().latents, good)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_another_type_of_numbers_at_every_step(
    active: tuple[Studio, torch.Tensor], dtype: torch.dtype
) -> None:
    studio, good = active
    unet, kept = studio.host.unet, copy.deepcopy(studio.host.unet.state_dict())
    for step in range(STEPS):
        made = studio.job(during=lambda now, step=step: unet.to(dtype) if now == step else None)
        unet.to(torch.float32)
        unet.load_state_dict(kept)
        assert made.told == []
        assert relative_error(made.latents, good) <= (1e-4 if dtype == torch.float64 else 0.1)
        studio.check()
    assert torch.equal(studio.job().latents, good)


def test_other_weights_in_the_same_modules(active: tuple[Studio, torch.Tensor]) -> None:
    studio, good = active
    unet, kept = studio.host.unet, copy.deepcopy(studio.host.unet.state_dict())
    changed = {key: value * 0.9 for key, value in kept.items()}
    unet.load_state_dict(changed)
    from_the_start = studio.job().latents
    unet.load_state_dict(kept)
    assert relative_error(from_the_start, good) > 1e-3
    made = studio.job(during=lambda now: unet.load_state_dict(changed) if now == 0 else None)
    assert relative_error(made.latents, from_the_start) <= 1e-4, (
        "nothing of the old weights is used"
    )
    unet.load_state_dict(kept)
    studio.check()


def test_reload_ui_in_the_middle(active: tuple[Studio, torch.Tensor]) -> None:
    studio, good = active
    for step in range(STEPS):
        made = studio.job(
            during=lambda now, step=step: studio.webui.reload() if now == step else None
        )
        assert bool(torch.isfinite(made.latents).all())
        assert made.told == []
        studio.check()
    studio.job(during=lambda now: studio.webui.reload(with_us=False) if now == 1 else None)
    studio.check()
    studio.webui.start()
    assert torch.equal(studio.job().latents, good)


@pytest.mark.parametrize("broken", ["removed", "cut"])
def test_files_that_go_between_steps_and_jobs(
    active: tuple[Studio, torch.Tensor], broken: str
) -> None:
    studio, good = active
    path = studio.webui.webui.folder / "bent.pt"
    content = path.read_bytes()

    def spoil(now: int) -> None:
        if now == 1 and broken == "removed":
            path.unlink()
        elif now == 1:
            path.write_bytes(content[:-300])

    assert torch.equal(studio.job(during=spoil).latents, good), "what runs has been read"
    made = studio.job()
    (message,) = made.told
    assert "bent" in message
    assert torch.equal(made.latents, studio.job("<hypernet:straight:0.8>").latents)
    path.write_bytes(content)
    assert torch.equal(studio.job().latents, good)


def test_a_host_that_fails_while_it_is_told(
    active: tuple[Studio, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    studio, good = active
    processing = studio.webui.webui.module("processing")
    monkeypatch.setattr(processing.StableDiffusionProcessing, "comment", lambda *_: raises(OSError))
    monkeypatch.setattr(sys, "stderr", Closed())
    with failing(Hypernetwork, "step", MemoryError, 3):
        made = studio.job()
    assert len(made.told) == 1
    assert torch.equal(studio.job().latents, good)


class Closed:
    """A console whose window is gone."""

    def write(self, _text: str) -> int:
        raise OSError(5, "Input/output error")

    def flush(self) -> None:
        raise OSError(5, "Input/output error")


# --- the studio's painter, on the miniature


@pytest.fixture(scope="module")
def painter() -> Painter:
    from hypernetworks.hosts.diffusers import MINIATURE_NETWORKS

    return Painter(None, hn.Library([MINIATURE_NETWORKS]))


def job(prompt: str, **more: Any) -> Generation:
    return Generation(f"a cat{prompt}", steps=more.pop("steps", 2), width=32, height=32, **more)


def test_faults_while_the_studio_paints(painter: Painter) -> None:
    unet = painter.pipeline.unet
    plain, good = (
        painter.generate(job(prompt)).pictures[0].image.tobytes()
        for prompt in ("", "<hypernet:ink:1>")
    )
    assert plain != good
    for error in ERRORS:
        told = error, "deliberate"
        if issubclass(error, (torch.OutOfMemoryError, MemoryError)):
            told = hn.HypernetworkError, "not enough memory"
        for step in (1, 2):
            with pytest.raises(told[0], match=told[1]):
                painter.generate(
                    job("<hypernet:ink:1>"),
                    lambda done, _, e=error, s=step: raises(e) if done == s else True,
                )
            assert left_on(unet) == []
    for error in OURS:
        with failing(Hypernetwork, "step", error, 5):
            result = painter.generate(job("<hypernet:ink:1>"))
        assert ["without hypernetworks" in line for line in result.messages] == [True]
        assert len(result.pictures) == 1
        assert left_on(unet) == []
    assert painter.generate(job("<hypernet:ink:1>")).pictures[0].image.tobytes() == good
    assert painter.generate(job("")).pictures[0].image.tobytes() == plain


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_with_few_steps_gives_a_picture_or_says_why_not(
    painter: Painter, sampler: str
) -> None:
    made = 0
    for steps in (1, 2, 4):
        with suppress(hn.HypernetworkError):
            made += len(painter.generate(job("", steps=steps, sampler=sampler)).pictures)
    assert made == (1 if sampler == "PNDM" else 3)


# ------------------------------------------------------------------ patching itself


def test_interrupted_at_any_line_of_ours() -> None:
    """A KeyboardInterrupt before any line that we run; afterwards the UNet is clean, at the latest
    when asked again."""
    host = make("ldm")
    before, base = traces(host.unet), host.run(host.context())
    networks = [(host.network("relu")[1], 0.5), (host.network(None, 1)[1], "0.2@0,1@1")]
    lines = interrupted(host, networks, None)
    assert lines > 2000
    for line in [
        *range(1, 600, 37),
        *range(600, lines, lines // 12),
        *range(lines - 500, lines, 41),
    ]:
        interrupted(host, networks, line)
        assert traces(host.unet) == before, line
    assert torch.equal(host.run(host.context()), base)


def interrupted(host: Host, networks: Any, at: int | None) -> int:
    """Apply, run twice, remove, interrupted before one line; how many lines were run."""
    count, handle = 0, None

    def trace(frame: Any, event: str, _: object) -> Any:
        nonlocal count
        if "hypernetworks/patching" not in frame.f_code.co_filename.replace("\\", "/"):
            return None  # the lines of others are not looked at: there are many
        if event == "line":
            count += 1
            if count == at:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        handle = hn.apply(host.unet, networks)
        for step in range(2):
            handle.at(step, 2)
            host.run(host.context())
        handle.remove()
    except KeyboardInterrupt:
        assert at is not None
    finally:
        sys.settrace(before)
        if handle is not None:
            handle.remove()
    return count


def test_two_threads_come_and_go_on_one_unet() -> None:
    host = make("ldm")
    before, base = traces(host.unet), host.run(host.context())
    networks = [host.network("relu", seed=1)[1], host.network(None, seed=2)[1]]
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(60):
                with hn.apply(host.unet, [(networks[(number + turn) % 2], 0.5)]) as handle:
                    handle.at(turn % 3, 3)
                    if turn % 20 == number:
                        host.run(host.context())
        except BaseException as error:
            failed.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert failed == []
    assert traces(host.unet) == before
    assert torch.equal(host.run(host.context()), base)


@pytest.mark.parametrize("activation", [None, "relu"])
def test_two_threads_run_one_patched_unet(activation: str | None) -> None:
    host, other = make("ldm"), make("ldm")
    with (
        hn.apply(host.unet, [(host.network(activation)[1], 0.7)]),
        hn.apply(other.unet, [(host.network()[1], 1)]),
    ):
        expected = (
            [host.run(host.context(seed)) for seed in range(2)],
            [other.run(host.context(s)) for s in range(2)],
        )
    results: list[bool] = []

    def work(seed: int) -> None:
        for _ in range(6):
            results.append(torch.equal(host.run(host.context(seed)), expected[0][seed]))
            results.append(torch.equal(other.run(host.context(seed)), expected[1][seed]))

    with (
        hn.apply(host.unet, [(host.network(activation)[1], 0.7)]),
        hn.apply(other.unet, [(host.network()[1], 1)]),
    ):
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [True] * 24


def test_products_with_passing_companions_make_room() -> None:
    host = make("ldm")
    lasting, sizes = host.network(None)[1], set()
    for seed in range(1, 5):
        with hn.apply(host.unet, [(lasting, 1), (host.network(None, seed)[1], 0.5)]):
            host.run(host.context())
        sizes.add(lasting.prepared_bytes)
    assert len(sizes) == 1
    assert prepared(lasting).folds


MULTIPLIERS = st.sampled_from(
    ["0.5", "-1", "0", "0@0,1@1", "1:start=0.5", "0.8:attn=self", "1:k=0.3"]
)
NETWORKS = st.lists(
    st.tuples(st.sampled_from(["straight", "steep", "bent", "wavy"]), MULTIPLIERS), max_size=3
)
UNETS = st.integers(0, 1)


class Patches(RuleBasedStateMachine):
    """UNets on which handles come and go in any order, among faults and changes of their weights.

    Beside each stands a clean one with the same weights, on which the active handle's networks are
    applied afresh.
    """

    @initialize()
    def begin(self) -> None:
        """Two UNets, and the clean ones."""
        self.hosts, self.clean = [make("ldm"), make("ldm")], [make("ldm"), make("ldm")]
        self.before = [traces(host.unet) for host in self.hosts]
        host = self.hosts[0]
        self.networks = {
            name: host.network(activation, seed)[1]
            for seed, (name, activation) in enumerate(
                (("straight", None), ("steep", None), ("bent", "relu"), ("wavy", "tanh"))
            )
        }
        self.handles: list[list[tuple[hn.Handle, Any, list[int]]]] = [[], []]
        self.state = torch.random.get_rng_state()

    @rule(unet=UNETS, chosen=NETWORKS)
    def apply(self, unet: int, chosen: list[tuple[str, str]]) -> None:
        """One more."""
        networks = [(self.networks[name], tail) for name, tail in chosen]
        self.handles[unet].append((hn.apply(self.hosts[unet].unet, networks), networks, [0, 1]))

    @precondition(lambda self: any(self.handles))
    @rule(which=st.integers(0, 9))
    def remove(self, which: int) -> None:
        """Any of them."""
        unet = which % 2 if self.handles[which % 2] else 1 - which % 2
        handle, *_ = self.handles[unet].pop(which % len(self.handles[unet]))
        handle.remove()

    @precondition(lambda self: any(self.handles))
    @rule(unet=UNETS, step=st.integers(0, 3))
    def at(self, unet: int, step: int) -> None:
        """Another step."""
        for handle, _, position in self.handles[unet][-1:]:
            handle.at(step, 4)
            position[:] = [step, 4]

    @rule(
        unet=UNETS, error=st.sampled_from(ERRORS), place=st.integers(0, 2), after=st.integers(0, 9)
    )
    def fault(self, unet: int, error: type[BaseException], place: int, after: int) -> None:
        """Something is raised within a call."""
        host = self.hosts[unet]
        owner, name = (
            (Hypernetwork, "step"),
            (Fold, "added_to"),
            (torch.nn.functional, "scaled_dot_product_attention"),
        )[place]
        with failing(owner, name, error, after), suppress(error):
            host.run(host.context())

    @rule(unet=UNETS, factor=st.sampled_from([0.9, 1.1]), way=st.integers(0, 2))
    def change(self, unet: int, factor: float, way: int) -> None:
        """Weights are rewritten: in place, beneath torch's notice, or by others."""
        for host in (self.hosts[unet], self.clean[unet]):
            for site in host.sites:
                weight = site.to_k.weight
                assert isinstance(weight, torch.nn.Parameter)
                if way == 0:
                    with torch.no_grad():
                        weight.mul_(factor)
                elif way == 1:
                    weight.data.mul_(factor)
                else:
                    site.to_k.weight = torch.nn.Parameter(
                        weight.detach() * factor, requires_grad=False
                    )

    @invariant()
    def only_the_latest_acts(self) -> None:
        """Each gives what its clean one gives with the latest handle's networks, or without any."""
        if not hasattr(self, "hosts"):
            return
        for host, clean, handles, before in zip(
            self.hosts, self.clean, self.handles, self.before, strict=True
        ):
            context = host.context(3)
            if handles:
                with hn.apply(clean.unet, handles[-1][1]) as fresh:
                    fresh.at(*handles[-1][2])
                    assert relative_error(host.run(context), clean.run(context)) <= 1e-5
            else:
                assert traces(host.unet) == before
                assert left_on(host.unet) == []
                assert torch.equal(host.run(context), clean.run(context))
        assert torch.equal(torch.random.get_rng_state(), self.state)


TestPatches: Callable[..., Any] = Patches.TestCase
TestPatches.settings = settings(max_examples=5, stateful_step_count=8)  # type: ignore[attr-defined]
