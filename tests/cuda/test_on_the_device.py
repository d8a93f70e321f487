"""What only happens on a device: moving, streams, graphs, compilers, memory that runs out, and
waiting for it.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from laws.hosts import Host, hooks, left_as_it_was, make, traces
from reference import relative_error
from torch import nn

import hypernetworks as hn
from hypernetworks.errors import HypernetworkError
from hypernetworks.patching.handle import MARK

KINDS = pytest.mark.parametrize("activation", [None, "relu"])
pytestmark = pytest.mark.filterwarnings("ignore:.*[sS]ynchronization debug mode")


@pytest.fixture(params=["ldm", "sdxl"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """One UNet; law 1 holds after each test."""
    yield from left_as_it_was(make(request.param))


def projections(host: Host) -> list[nn.Linear]:
    """Those of self-attention."""
    return [p for s in host.sites if s.kind == "self" for p in (s.to_k, s.to_v)]  # type: ignore[misc]


def by_context(host: Host, networks: list[tuple[hn.Hypernetwork, float]]) -> torch.Tensor:
    """The same without folding."""
    with hn.apply(host.unet, networks, is_dense=lambda _: False):
        return host.run(host.context())


# Weights that change, and move


@torch.no_grad()
@KINDS
def test_weights_fused_through_data_are_seen_at_the_next_call(
    host: Host, activation: str | None
) -> None:
    """In place, behind autograd's counter, while the device has nothing to do, as between two
    generations.
    """
    network, context = host.network(activation)[1], host.context()
    changes = [torch.randn_like(p.weight) * 0.5 for p in projections(host)]
    with hn.apply(host.unet, [(network, 0.8)]):
        first = host.run(context)
        for sign in (1, -1, 1):
            settle()
            for projection, change in zip(projections(host), changes, strict=True):
                projection.weight.data.add_(sign * change)
            changed = host.run(context)
            assert relative_error(changed, by_context(host, [(network, 0.8)])) <= 1e-4
        assert relative_error(changed, first) > 1e-3


@torch.no_grad()
def test_weights_fused_through_data_while_the_device_works(cuda: str, host: Host) -> None:
    """Then the program would have to wait: they are seen one call later."""
    network, context = host.network(None)[1], host.context()
    with hn.apply(host.unet, [(network, 0.8)]):
        host.run(context)
        # About a fifth of a second in the middle of each call.
        busy = host.unet.register_forward_pre_hook(lambda *_: torch.cuda._sleep(int(4e8)))
        host.run(context)
        for projection in projections(host):
            projection.weight.data.mul_(-1.5)
        host.run(context)
        busy.remove()
        changed = host.run(context)
    assert relative_error(changed, by_context(host, [(network, 0.8)])) <= 1e-4


def settle() -> None:
    """Let the device come to an end."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@torch.no_grad()
@KINDS
def test_weights_fused_between_two_generations(host: Host, activation: str | None) -> None:
    network = host.network(activation)[1]
    for _ in range(2):
        with hn.apply(host.unet, [(network, 0.8)]):
            result = host.run(host.context())
        assert relative_error(result, by_context(host, [(network, 0.8)])) <= 1e-4
        for projection in projections(host):
            projection.weight.data.mul_(-1.5)


@torch.no_grad()
@KINDS
def test_a_unet_that_rests_on_the_cpu_between_calls(
    device: str, host: Host, activation: str | None
) -> None:
    """``--medvram``: all of it goes and comes back, in the middle of a generation and after it."""
    network, context = host.network(activation)[1], host.context()
    base = host.run(context)
    with hn.apply(host.unet, [(network, 0.8)]) as handle:
        expected = host.run(context)
        for step in range(3):
            host.unet.to("cpu")
            on_cpu = host.run(context.cpu())
            assert on_cpu.device.type == "cpu"
            assert relative_error(on_cpu, expected) <= 1e-4
            host.unet.to(device)
            handle.at(step, 3)
            assert relative_error(host.run(context), expected) <= 1e-5
    assert torch.equal(host.run(context), base)


@torch.no_grad()
@KINDS
def test_modules_that_come_to_the_device_one_by_one(device: str, activation: str | None) -> None:
    """``--lowvram``: each module moves in before its forward, by a hook, and out after it."""
    host = make("ldm")
    network, context = host.network(activation)[1], host.context()
    call, given = host.unet, (torch.randn(2, 4, 8, 8, device=device), torch.ones(2, device=device))
    with hn.apply(host.unet, [(network, 0.8)], is_dense=lambda _: False):
        expected = call(*given, context=context)
    leaves = [m for m in host.unet.modules() if not list(m.children())]
    for module in leaves:
        module.register_forward_pre_hook(lambda m, _: m.to(device) and None)
        module.register_forward_hook(lambda m, *_: m.to("cpu") and None)
    host.unet.to("cpu")
    with hn.apply(host.unet, [(network, 0.8)]):
        for _ in range(2):
            assert relative_error(call(*given, context=context), expected) <= 1e-4


@torch.no_grad()
@KINDS
def test_accelerates_offloading(device: str, activation: str | None) -> None:
    """Between calls the weights are nowhere but on the CPU, and the UNet's own are empty."""
    accelerate = pytest.importorskip("accelerate")
    host = make("sd1")
    network, context = host.network(activation)[1], host.context()
    sample = torch.randn(2, 4, 8, 8, device=device)

    def call() -> torch.Tensor:
        result: torch.Tensor = host.unet(sample, 7, encoder_hidden_states=context).sample
        return result

    with hn.apply(host.unet, [(network, 0.8)], is_dense=lambda _: False):
        expected = call()
    host.unet.to("cpu")
    accelerate.cpu_offload(host.unet, execution_device=torch.device(device))
    without = call()
    with hn.apply(host.unet, [(network, 0.8)]):
        for _ in range(2):
            assert relative_error(call(), expected) <= 1e-4
    assert relative_error(without, expected) > 1e-3
    assert torch.equal(call(), without)
    accelerate.hooks.remove_hook_from_submodules(host.unet)


class CastLinear(nn.Linear):
    """As Forge's and ComfyUI's: the weight rests on the CPU, and is brought for each call."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(inputs, self.weight.to(inputs))


@torch.no_grad()
@KINDS
def test_weights_that_are_brought_for_each_call(device: str, activation: str | None) -> None:
    host = make("ldm")
    network, context = host.network(activation)[1], host.context()
    expected = by_context(host, [(network, 0.8)])
    for projection in projections(host):
        projection.__class__ = CastLinear
        projection.to("cpu")
    with hn.apply(host.unet, [(network, 0.8)]):
        for _ in range(2):
            assert relative_error(host.run(context), expected) <= 1e-4


# Streams, graphs, threads, compilers


@torch.no_grad()
@KINDS
def test_another_stream(cuda: str, host: Host, activation: str | None) -> None:
    network, context, stream = host.network(activation)[1], host.context(), torch.cuda.Stream()
    expected = by_context(host, [(network, 0.8)])
    with hn.apply(host.unet, [(network, 0.8)]):
        for _ in range(3):
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                result = host.run(context)
            torch.cuda.current_stream().wait_stream(stream)
            assert relative_error(result, expected) <= 1e-5


@torch.no_grad()
@KINDS
def test_a_graph_is_captured_and_replayed_or_refused_in_words(
    cuda: str, activation: str | None
) -> None:
    host = make("sdxl")
    network, contexts = host.network(activation)[1], [host.context(seed) for seed in (1, 2)]
    fixed = {p: torch.full((), 7, device=cuda) for p in ("timestep",)}
    sample = torch.randn(2, 4, 8, 8, device=cuda)
    given = contexts[0].clone()
    added = {
        "text_embeds": torch.ones(2, 6, device=cuda),
        "time_ids": torch.ones(2, 6, device=cuda),
    }

    def call(context: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = host.unet(
            sample, **fixed, encoder_hidden_states=context, added_cond_kwargs=added
        ).sample
        return result

    with hn.apply(host.unet, [(network, 0.8)]):
        expected = [call(context) for context in contexts]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            call(given)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                result = call(given)
        except HypernetworkError as error:
            assert "graph" in str(error)  # noqa: PT017
            return
        for context, right in zip(contexts, expected, strict=True):
            given.copy_(context)
            graph.replay()
            assert relative_error(result, right) <= 1e-5


@torch.no_grad()
@KINDS
def test_two_threads_on_one_unet(host: Host, activation: str | None) -> None:
    network, contexts = host.network(activation)[1], [host.context(seed) for seed in (1, 2)]
    results: dict[int, list[torch.Tensor]] = {0: [], 1: []}
    start = threading.Barrier(2)

    def work(index: int) -> None:
        with torch.no_grad():
            for _ in range(4):
                start.wait(60)
                results[index].append(host.run(contexts[index]))

    with hn.apply(host.unet, [(network, 0.8)]):
        expected = [host.run(context) for context in contexts]
        threads = [threading.Thread(target=work, args=(index,)) for index in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    for index in (0, 1):
        assert len(results[index]) == 4
        assert all(relative_error(result, expected[index]) <= 1e-5 for result in results[index])


@torch.no_grad()
@KINDS
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.timeout(120)
def test_a_compiled_unet(cuda: str, activation: str | None, mode: str) -> None:
    """The networks act whatever was compiled, and a moved multiplier acts at the next call."""
    host = make("ldm")
    network, context = host.network(activation)[1], host.context()
    times, sample = torch.full((2,), 7.0, device=cuda), torch.randn(2, 4, 8, 8, device=cuda)

    def call(unet: Callable[..., torch.Tensor]) -> torch.Tensor:
        return unet(sample, times, context=context).clone()

    with hn.apply(host.unet, [(network, "0.2@0,1@1")], is_dense=lambda _: False) as handle:
        expected = [(handle.at(step, 2), call(host.unet))[1] for step in (0, 1)]  # type: ignore[func-returns-value]
    torch._dynamo.reset()
    with hn.apply(host.unet, [(network, "0.2@0,1@1")]) as handle:
        compiled = torch.compile(host.unet, mode=mode)
        for step in (0, 1, 0):
            handle.at(step, 2)
            for _ in range(2):
                torch.compiler.cudagraph_mark_step_begin()
                assert relative_error(call(compiled), expected[step]) <= 1e-3
    torch._dynamo.reset()
    assert MARK not in vars(host.unet)


@torch.no_grad()
def test_an_export_holds_the_networks_and_leaves_nothing(device: str) -> None:
    host = make("ldm")
    network, context = host.network("relu", activate_output=False)[1], host.context()
    given = (torch.randn(2, 4, 8, 8, device=device), torch.full((2,), 7.0, device=device))
    base = host.unet(*given, context=context)
    before = traces(host.unet)
    with hn.apply(host.unet, [(network, 0.8)]):
        expected = host.unet(*given, context=context)
        exported = torch.export.export(host.unet, given, {"context": context}).module()
    assert traces(host.unet) == before
    assert torch.equal(host.unet(*given, context=context), base)
    assert relative_error(exported(*given, context=context), expected) <= 1e-4


# Memory


@torch.no_grad()
@KINDS
def test_memory_that_runs_out_costs_the_networks_and_not_the_image(
    cuda: str, activation: str | None
) -> None:
    host = make("ldm")
    network, told = host.network(activation)[1], list[Exception]()
    context = host.context()
    base = host.run(context)
    huge = hn.Hypernetwork.create("huge", hn.Structure((1, 2_000_000, 1), "relu"), (12,))
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(
        min(1.0, (torch.cuda.memory_reserved() + (256 << 20)) / total)
    )
    try:
        with hn.apply(host.unet, [(network, 0.8), (huge, 1.0)], on_error=told.append):
            result = host.run(context)
            again = host.run(context)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert [isinstance(error, torch.cuda.OutOfMemoryError) for error in told] == [True]
    assert bool(torch.isfinite(result).all())
    assert torch.equal(again, base), "after the failure the networks are off"
    assert MARK not in vars(host.unet)


@torch.no_grad()
def test_an_error_that_says_out_of_memory_costs_the_networks(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Provoked in the arithmetic itself, wherever the tests run."""
    context, network, told = host.context(), host.network()[1], list[Exception]()
    base, before = host.run(context), hooks(host.unet)
    with hn.apply(host.unet, [(network, 1.0)], on_error=told.append):

        def fail(*_: object) -> torch.Tensor:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(network, "delta", fail)
        assert torch.equal(host.run(context), base)
        assert hooks(host.unet) == before
    assert [type(error) for error in told] == [torch.cuda.OutOfMemoryError]


@torch.no_grad()
@KINDS
def test_memory_after_release_is_what_it_was_to_the_byte(
    cuda: str, host: Host, activation: str | None
) -> None:
    network, context = host.network(activation)[1], host.context()

    def generation() -> None:
        with hn.apply(host.unet, [(network, "0.2@0,1@1")]) as handle:
            for step in range(3):
                handle.at(step, 3)
                host.run(context)

    generation()
    network.release()
    gc.collect()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(2):
        generation()
    assert network.prepared_bytes > 0
    network.release()
    gc.collect()
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == before


@torch.no_grad()
@KINDS
def test_release_devices_frees_the_card(cuda: str, host: Host, activation: str | None) -> None:
    network, context = host.network(activation)[1], host.context()
    host.run(context)
    gc.collect()
    before = torch.cuda.memory_allocated()
    with hn.apply(host.unet, [(network, 0.8)]):
        host.run(context)
    assert torch.cuda.memory_allocated() > before
    network.release_devices()
    gc.collect()
    assert torch.cuda.memory_allocated() == before


@torch.no_grad()
@KINDS
def test_networks_go_with_their_last_reference(host: Host, activation: str | None) -> None:
    network = host.network(activation)[1]
    gone = weakref.ref(network)
    with hn.apply(host.unet, [(network, 0.8)]):
        host.run(host.context())
    del network
    gc.collect()
    assert gone() is None


@torch.no_grad()
def test_nothing_is_left_in_what_is_saved(host: Host, tmp_path: object) -> None:
    """A UNet that is exported while networks act, or after it, is the UNet alone."""
    keys = list(host.unet.state_dict())
    before = {key: value.clone() for key, value in host.unet.state_dict().items()}
    with hn.apply(host.unet, [(host.network(None)[1], 0.8)]):
        host.run(host.context())
        saved = host.unet.state_dict()
        assert list(saved) == keys
        assert all(torch.equal(saved[key], before[key]) for key in keys)
    assert all(torch.equal(v, before[k]) for k, v in host.unet.state_dict().items())


# Waiting


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tail", ["0.8", "0.2@0,1@1"])
@pytest.mark.parametrize("last", ["activated", "plain"])
def test_no_host_synchronisation_on_the_hot_path(
    cuda: str, activation: str | None, dtype: torch.dtype, tail: str, last: str
) -> None:
    """After the first call, no hook waits for the device: torch raises where one would.

    ``tests/unit/house/test_waiting.py`` counts the same without a device.
    """
    host = make("ldm")
    host.unet.to(dtype)
    network = host.network(activation, activate_output=last == "activated")[1]
    times, context = torch.full((2,), 7.0, device=cuda), host.context()
    sample = torch.randn(2, 4, 8, 8, device=cuda, dtype=dtype)
    phases = times[:, None] * torch.tensor([0.1, 0.01], device=cuda)
    emb = torch.cat([phases.sin(), phases.cos()], dim=-1).to(dtype)
    with torch.inference_mode(), hn.apply(host.unet, [(network, tail)]) as handle:
        for step in range(3):
            handle.at(step, 6)
            _forward(host, sample, emb, context)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for step in range(3, 6):
                handle.at(step, 6)
                _forward(host, sample, emb, context)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def _forward(
    host: Host, sample: torch.Tensor, emb: torch.Tensor, context: torch.Tensor
) -> torch.Tensor:
    """The small UNet's projections in one call of it, without what its own forward makes on the
    CPU.
    """
    unet = host.unet

    def forward(x: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        kept = []
        for block in unet.input_blocks:  # type: ignore[union-attr]
            x = block(x, emb, context)
            kept.append(x)
        x = unet.middle_block(x, emb, context)  # type: ignore[operator]
        for block in unet.output_blocks:  # type: ignore[union-attr]
            x = block(torch.cat([x, kept.pop()], dim=1), emb, context)
        return unet.out(x)  # type: ignore[operator]

    vars(unet)["forward"] = forward
    try:
        return unet(sample, emb, context=context)  # type: ignore[no-any-return]
    finally:
        del vars(unet)["forward"]


def test_where_the_tests_run(device: str) -> None:
    assert device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert next(make("ldm").unet.parameters()).device.type == device
