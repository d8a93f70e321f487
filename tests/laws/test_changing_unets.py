"""Law 11 by instances: a UNet changes between two calls, and the next one is right or says why
not.
"""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from laws.changing import (
    attentions,
    call,
    code,
    fuse_lora,
    load_lora,
    pack,
    replicated,
    unload_lora,
    wanted,
)
from laws.hosts import Host, hooks, make, traces
from laws.hosts import ldm as make_ldm
from laws.small_ldm import CrossAttention
from reference import relative_error
from torch import nn
from torch.utils import checkpoint

import hypernetworks as hn
from hypernetworks.engine import tensors
from hypernetworks.engine.folding import WeightMark
from hypernetworks.engine.stack import Stack
from hypernetworks.errors import NoMatchingWidthError, PatchError
from hypernetworks.patching import find_sites, folded, seam

KINDS = pytest.mark.parametrize("activation", [None, "relu"], ids=["linear", "relu"])


@pytest.fixture(autouse=True)
def _every_row_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folded, "_REFOLD_ROWS", {"cpu": 1})


@pytest.fixture
def ldm() -> Iterator[Host]:
    host = make("ldm")
    with torch.no_grad():
        yield host


@pytest.fixture
def small() -> Iterator[Host]:
    """One level of blocks: less to compute, and to export."""
    torch.manual_seed(0)
    with torch.no_grad():
        yield make_ldm((8,))


def swap_linears(unet: nn.Module) -> None:
    for attention in attentions(unet):
        other = nn.Linear(attention.to_k.in_features, attention.to_k.out_features, bias=False)
        attention.to_k = other.requires_grad_(False)


def quantise(unet: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.ao.quantization.quantize_dynamic(unet, {nn.Linear}, torch.qint8, inplace=True)


def swap_attention(unet: nn.Module) -> None:
    for module in list(unet.modules()):
        if isinstance(getattr(module, "attn1", None), CrossAttention):
            module.attn1 = copy.deepcopy(module.attn1)
            module.attn1.to_v.weight.mul_(0.5)


def take_forwards_away(unet: nn.Module) -> None:
    for attention in attentions(unet):
        vars(attention.to_k).pop("forward", None)


def add_bias(unet: nn.Module) -> None:
    for attention in attentions(unet):
        bias = nn.Parameter(torch.ones(attention.to_k.out_features), requires_grad=False)
        attention.to_v.bias = bias


def parametrise(unet: nn.Module) -> None:
    class Twice(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return 2 * weight

    for attention in attentions(unet):
        torch.nn.utils.parametrize.register_parametrization(attention.to_v, "weight", Twice())


def load_other_weights(unet: nn.Module) -> None:
    unet.load_state_dict({k: 1.2 * v for k, v in unet.state_dict().items()}, assign=True)


def wrap_forwards(unet: nn.Module) -> None:
    """As offloading does: a forward of the module's own that calls the class's, not what was
    there.
    """
    for attention in attentions(unet):
        projection = attention.to_k
        projection.forward = lambda x, p=projection: 2 * type(p).forward(p, x)  # type: ignore[method-assign]


class Motion(nn.Module):
    """A motion module, as far as names go; all it does is to be there."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList([CrossAttention(dim)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same, through its attention, without effect."""
        return x + 0 * self.attention_blocks[0](x.flatten(2).mT).mT.unflatten(2, x.shape[2:])  # type: ignore[no-any-return]


def add_motion(unet: nn.Module) -> None:
    dim = attentions(unet.middle_block)[0].to_q.in_features  # type: ignore[arg-type]
    unet.middle_block.append(Motion(dim).requires_grad_(False))  # type: ignore[operator,union-attr]


CHANGES: list[Callable[[nn.Module], None]] = [
    load_lora,
    lambda unet: (load_lora(unet, 1), load_lora(unet, 2), None)[-1],
    lambda unet: (load_lora(unet), fuse_lora(unet), None)[-1],
    lambda unet: (load_lora(unet), fuse_lora(unet), unload_lora(unet), None)[-1],
    swap_linears,
    swap_attention,
    quantise,
    add_bias,
    parametrise,
    load_other_weights,
    code,
    lambda unet: pack(unet, torch.int8),
    lambda unet: pack(unet, torch.float8_e4m3fn),
    lambda unet: (load_lora(unet), pack(unet, torch.int8), load_lora(unet), None)[-1],
    take_forwards_away,
    lambda unet: unet.double() and unet.float() and None,
    lambda unet: unet.bfloat16() and None,
    add_motion,
]


@KINDS
@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_what_changes_after_apply_is_seen_at_the_next_call(
    small: Host, number: int, activation: str | None
) -> None:
    content, network = small.network(activation)
    before = small.context()
    with hn.apply(small.unet, [(network, 0.8)]) as handle:
        call(small.unet, before)
        CHANGES[number](small.unet)
        context = small.context()
        expected = wanted(small.unet, [(content, 0.8)], context)
        tolerance = 3e-2 if context.dtype is torch.bfloat16 else 1e-4
        if CHANGES[number] is quantise:
            tolerance = 5e-2  # its inputs are rounded, too
        for _ in range(2):
            assert relative_error(call(small.unet, context), expected) <= tolerance
        assert "; active" in repr(handle)
    assert relative_error(call(small.unet, context), expected) > tolerance
    assert hooks(small.unet) == 0
    assert not any("forward" in vars(a.to_k) for a in attentions(small.unet))


def test_forwards_of_others_act_and_stay(ldm: Host) -> None:
    content, network = ldm.network("relu")
    with hn.apply(ldm.unet, [(network, 0.8)]):
        call(ldm.unet, ldm.context())
        wrap_forwards(ldm.unet)
        theirs = [vars(a.to_k)["forward"] for a in attentions(ldm.unet)]
        got = call(ldm.unet, ldm.context())
    for attention in attentions(ldm.unet):
        attention.to_k.weight.mul_(2)
    expected = wanted(ldm.unet, [(content, 0.8)], ldm.context())
    assert relative_error(got, expected) <= 1e-4
    assert [vars(a.to_k)["forward"] for a in attentions(ldm.unet)] == theirs


@KINDS
def test_unloading_leaves_the_network(ldm: Host, activation: str | None) -> None:
    content, network = ldm.network(activation)
    load_lora(ldm.unet)
    with hn.apply(ldm.unet, [(network, "0.4@0,0.8@1")]) as handle:
        handle.at(1, 2)
        call(ldm.unet, ldm.context())
        unload_lora(ldm.unet)
        expected = wanted(ldm.unet, [(content, 0.8)], ldm.context())
        assert relative_error(call(ldm.unet, ldm.context()), expected) <= 1e-4, "at the same step"


def test_what_changed_while_another_handle_acted_is_seen(ldm: Host) -> None:
    content, network = ldm.network("relu")
    with hn.apply(ldm.unet, [(network, 0.8)]):
        with hn.apply(ldm.unet, [(ldm.network("gelu", 1)[1], 1)]):
            load_lora(ldm.unet)
        expected = wanted(ldm.unet, [(content, 0.8)], ldm.context())
        assert relative_error(call(ldm.unet, ldm.context()), expected) <= 1e-4


@torch.no_grad()
def test_fusing_after_apply_says_so() -> None:
    host = make("sd1")
    told: list[Exception] = []
    with hn.apply(host.unet, [(host.network()[1], 1)]):
        host.run(host.context())
        host.unet.fuse_qkv_projections()  # type: ignore[operator]
        with pytest.raises(PatchError, match="unfuse"):
            host.run(host.context())
        host.unet.unfuse_qkv_projections()  # type: ignore[operator]
        acted = host.run(host.context())
        with hn.apply(host.unet, [(host.network()[1], 1)], on_error=told.append):
            host.unet.fuse_qkv_projections()  # type: ignore[operator]
            plain = host.run(host.context())
        host.unet.unfuse_qkv_projections()  # type: ignore[operator]
    assert [type(error) for error in told] == [PatchError]
    assert relative_error(host.run(host.context()), plain) <= 1e-5
    assert relative_error(acted, plain) > 1e-3


@pytest.mark.parametrize("when", ["before the first call", "later"])
def test_attention_that_goes_round_its_projections_is_found(ldm: Host, when: str) -> None:
    def around(self: CrossAttention, x: torch.Tensor, context: torch.Tensor | None = None):  # type: ignore[no-untyped-def]
        context = x if context is None else context
        key, value = (context @ p.weight.T for p in (self.to_k, self.to_v))
        return self.to_out(nn.functional.scaled_dot_product_attention(self.to_q(x), key, value))

    with hn.apply(ldm.unet, [(ldm.network()[1], 1)]):
        if when == "later":
            call(ldm.unet, ldm.context())
        for attention in attentions(ldm.unet)[3:4]:
            attention.forward = around.__get__(attention)  # type: ignore[method-assign]
        with pytest.raises(PatchError, match=r"attn2 was computed without calling its to_k"):
            call(ldm.unet, ldm.context())


def test_a_model_of_other_widths_is_refused_at_the_next_call(ldm: Host) -> None:
    with hn.apply(ldm.unet, [(ldm.network()[1], 1)]):
        for block in ldm.unet.modules():
            for name in ("attn1", "attn2"):
                if hasattr(block, name):
                    setattr(block, name, CrossAttention(5, 7))
        with pytest.raises(NoMatchingWidthError):
            call(ldm.unet, ldm.context())


# Where networks act


def temporal_models() -> dict[str, Callable[[], nn.Module]]:
    from diffusers import (
        I2VGenXLUNet,
        UNet3DConditionModel,
        UNetMotionModel,
        UNetSpatioTemporalConditionModel,
    )

    small = {"block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 48}
    three = ("CrossAttnDownBlock3D", "DownBlock3D"), ("UpBlock3D", "CrossAttnUpBlock3D")
    return {
        "AnimateDiff": lambda: UNetMotionModel(
            **small, down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
            up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"), num_attention_heads=4,
            motion_num_attention_heads=4, norm_num_groups=8, use_motion_mid_block=True,
        ),
        "SVD": lambda: UNetSpatioTemporalConditionModel(
            **small, num_attention_heads=(4, 4), addition_time_embed_dim=32,
            projection_class_embeddings_input_dim=96,
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        ),
        "UNet3D": lambda: UNet3DConditionModel(
            **small, down_block_types=three[0], up_block_types=three[1], attention_head_dim=4,
            norm_num_groups=8,
        ),
        "I2VGenXL": lambda: I2VGenXLUNet(
            **small, down_block_types=three[0], up_block_types=three[1], num_attention_heads=4,
            norm_num_groups=8,
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["AnimateDiff", "SVD", "UNet3D", "I2VGenXL"])
def test_no_site_in_temporal_attention(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unet = temporal_models()[name]()
    every = [path for path, m in unet.named_modules() if hasattr(m, "to_k")]
    chosen = [site.path for site in find_sites(unet)]
    spatial = [
        path
        for path in every
        if ".attentions." in path and "temporal" not in path and path.endswith(("attn1", "attn2"))
    ]
    assert chosen == spatial
    assert 0 < len(chosen) < len(every)


@pytest.mark.parametrize(
    "path",
    [
        # sd-webui-animatediff, text2video (ModelScope), SVD in sgm, HotShot-XL
        "motion.temporal_transformer.transformer_blocks.attention_blocks",
        "temp_conv.TemporalTransformer.attn2",
        "time_stack.VideoTransformerBlock.attn2",
        "temporal_attentions.TransformerTemporal.attn2",
    ],
)
def test_no_site_in_motion_modules_of_webuis(ldm: Host, path: str) -> None:
    before = [site.path for site in find_sites(ldm.unet)]
    module: nn.Module = CrossAttention(32)
    for name in reversed(path.split(".")):
        kind = type(name if name[0].isupper() else "Holder", (nn.Module,), {})
        outer = kind()
        outer.add_module(name.lower() if name[0].isupper() else name, module)
        module = outer
    ldm.unet.middle_block.append(module)  # type: ignore[operator,union-attr]
    assert [site.path for site in find_sites(ldm.unet)] == before


@pytest.mark.parametrize("name", ["adapter", "attn3", "resampler"])
def test_attention_that_somebody_adds_is_left_alone(ldm: Host, name: str) -> None:
    added = CrossAttention(8)
    ldm.unet.add_module(name, added)
    assert [s.path for s in find_sites(ldm.unet)] == [s.path for s in ldm.sites]


class Sharing(nn.Module):
    """Attention modules that share projections."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        first = CrossAttention(8)
        self.blocks = nn.ModuleList()
        for name in names:
            attention = CrossAttention(8)
            attention.to_k, attention.to_v = first.to_k, first.to_v
            self.blocks.append(nn.ModuleDict({name: attention}))
        self.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One after the other."""
        for block in self.blocks:
            x = x + next(iter(block.values()))(x)  # type: ignore[operator]
        return x


@KINDS
def test_modules_that_sites_share_are_changed_once(ldm: Host, activation: str | None) -> None:
    content, network = ldm.network(activation)
    unet, x = Sharing("attn1", "attn1", "attn1"), torch.randn(2, 6, 8)
    expected = x
    with torch.no_grad():
        for attention in attentions(unet):
            from reference import stacked

            key, value = (stacked([(content, 0.8)], expected, side) for side in (0, 1))
            k, v = attention.to_k(key), attention.to_v(value)
            q = attention.to_q(expected)
            q, k, v = (t.unflatten(-1, (2, -1)).transpose(1, 2) for t in (q, k, v))
            made = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            expected = expected + attention.to_out(made)
    with hn.apply(unet, [(network, 0.8)]):
        assert relative_error(unet(x), expected) <= 1e-4
    assert not any("forward" in vars(m) for m in unet.modules())


def test_shared_modules_that_would_need_two_multipliers_are_refused(ldm: Host) -> None:
    network = ldm.network()[1]
    unet = Sharing("attn1", "attn2")
    with pytest.raises(PatchError, match="share a projection"):
        hn.apply(unet, [(network, "1:attn=cross")])
    twofold = Sharing("attn1")
    twofold.blocks[0]["attn1"].to_v = twofold.blocks[0]["attn1"].to_k  # type: ignore[index]
    with pytest.raises(PatchError, match="keys and values"):
        hn.apply(twofold, [(network, 1)])
    assert not any("forward" in vars(m) for m in unet.modules())


def test_contexts_of_unknown_kind_are_not_kept() -> None:
    class Unnamed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([CrossAttention(8) for _ in range(4)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = x + layer(x)
            kept.append(len(handle.seam.call.remembered))
            return x

    kept: list[int] = []
    unet = Unnamed().requires_grad_(False)
    with hn.apply(unet, [(make("ldm").network()[1], 1)]) as handle, torch.no_grad():
        unet(torch.randn(1, 5, 8))
    assert kept == [0]


# Stale memory


@pytest.mark.parametrize(
    "part",
    [
        (slice(1, None), slice(None)),
        (slice(None), slice(1, None)),
        (slice(None), slice(3, 4)),
        (slice(5, 6), slice(None)),
    ],
    ids=["all rows but one", "all columns but one", "one column", "one row"],
)
@pytest.mark.parametrize("shape", [(8, 8), (320, 320), (320, 768), (1280, 640)])
def test_a_write_to_a_part_of_a_weight_is_seen(
    shape: tuple[int, int], part: tuple[slice, slice]
) -> None:
    weight = nn.Parameter(torch.randn(shape))
    mark = WeightMark(weight)
    assert mark.holds(weight)
    weight.data[part] += 1
    assert not mark.holds(weight)


@KINDS
def test_writes_that_nothing_counts_are_seen_on_accelerators(
    ldm: Host, activation: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the second call where the device has no events: nobody waits for its answer."""
    for module in ("folding", "stack"):
        monkeypatch.setattr(f"hypernetworks.engine.{module}.is_on_cpu", lambda _: False)
    monkeypatch.setattr(seam, "is_on_cpu", lambda _: False)
    content, network = ldm.network(activation)
    with hn.apply(ldm.unet, [(network, 0.8)]) as handle:
        for _ in range(3):
            call(ldm.unet, ldm.context())
        for change in (1.5, 0.5):
            for attention in attentions(ldm.unet):
                attention.to_k.weight.data.mul_(change)
            expected = wanted(ldm.unet, [(content, 0.8)], ldm.context())
            call(ldm.unet, ldm.context())
            assert relative_error(call(ldm.unet, ldm.context()), expected) <= 1e-4
        assert ("folded" in handle.paths.values()) == (activation is None)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@KINDS
def test_contexts_changed_in_the_middle_of_a_call(
    activation: str | None, mode: Callable[[], object]
) -> None:
    host = make("ldm")
    content, network = host.network(activation)

    def fade(_: nn.Module, given: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]) -> None:
        if "context" in named:
            named["context"].mul_(0.8)

    for attention in attentions(host.unet)[1::4]:
        attention.register_forward_pre_hook(fade, with_kwargs=True)
    with mode(), hn.apply(host.unet, [(network, 0.8)]):  # type: ignore[attr-defined]
        got = call(host.unet, host.context())

    def own(_: nn.Module, given: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]):  # type: ignore[no-untyped-def]
        return given, {k: v.clone() for k, v in named.items()}

    with torch.no_grad():
        with hn.apply(host.unet, [(network, 0.8)]) as handle:
            handle.seam._may_remember = lambda _: False  # type: ignore[method-assign]
            expected = call(host.unet, host.context())
        assert relative_error(got, expected) <= 1e-5
        assert content


# Copied, pickled, traced, compiled


@KINDS
def test_copies_have_no_networks_and_take_some(ldm: Host, activation: str | None) -> None:
    content, network = ldm.network(activation)
    base = call(ldm.unet, ldm.context())
    with hn.apply(ldm.unet, [(network, 0.8)]) as handle:
        acted = call(ldm.unet, ldm.context())
        for copied in (copy.deepcopy(ldm.unet), pickle.loads(pickle.dumps(ldm.unet))):
            assert torch.equal(call(copied, ldm.context()), base)
            with hn.apply(copied, [(network, 0.8)]) as other:
                assert torch.equal(call(copied, ldm.context()), acted)
                assert other.paths == handle.paths
            assert torch.equal(call(copied, ldm.context()), base)
        assert torch.equal(call(ldm.unet, ldm.context()), acted)
    assert content


@KINDS
def test_shallow_copies_and_replicas(ldm: Host, activation: str | None) -> None:
    network = ldm.network(activation)[1]
    before = traces(ldm.unet)
    handle = hn.apply(ldm.unet, [(network, 0.8)])
    acted = call(ldm.unet, ldm.context())
    shallow, replica = copy.copy(ldm.unet), replicated(ldm.unet)
    assert torch.equal(call(shallow, ldm.context()), acted)
    assert relative_error(call(replica, ldm.context()), acted) <= 1e-5
    with torch.no_grad():
        for module in replica.modules():
            if isinstance(vars(module).get("weight"), torch.Tensor):
                vars(module)["weight"] = vars(module)["weight"] * 1.1
    expected = call(copied_with(ldm.unet, 1.1, handle), ldm.context())
    assert relative_error(call(replica, ldm.context()), expected) <= 1e-4, "its own weights"
    with pytest.raises(PatchError, match="shallow copy"):
        hn.apply(shallow, [(network, 0.8)])
    handle.remove()
    with hn.apply(shallow, [(network, 0.8)]):
        assert relative_error(call(shallow, ldm.context()), acted) <= 1e-5
    assert traces(ldm.unet) == before


def copied_with(unet: nn.Module, factor: float, handle: hn.Handle) -> nn.Module:
    copied = copy.deepcopy(unet)
    with torch.no_grad():
        for module in copied.modules():
            if isinstance(module._parameters.get("weight"), torch.Tensor):
                module.weight.mul_(factor)  # type: ignore[operator,union-attr]
    hn.apply(copied, [(n, 0.8) for n in handle._per_image[0].stack.networks])
    return copied


@pytest.mark.parametrize("way", ["pickle", "deepcopy", "copy"])
@KINDS
def test_used_networks_are_copied_without_what_was_made_ready(
    ldm: Host, activation: str | None, way: str
) -> None:
    network = ldm.network(activation)[1]
    size = len(pickle.dumps(network))
    with hn.apply(ldm.unet, [(network, 0.8)]):
        acted = call(ldm.unet, ldm.context())
    assert network.prepared_bytes > 0 or activation
    assert len(pickle.dumps(network)) == size
    other = {
        "pickle": lambda: pickle.loads(pickle.dumps(network)),
        "deepcopy": lambda: copy.deepcopy(network),
        "copy": lambda: copy.copy(network),
    }[way]()
    assert other.prepared_bytes == 0
    with hn.apply(ldm.unet, [(other, 0.8)]):
        assert torch.equal(call(ldm.unet, ldm.context()), acted)
    if way != "copy":
        fresh = copy.deepcopy(network)
        for parameter in fresh.parameters():
            parameter.data.zero_()
        with hn.apply(ldm.unet, [(fresh, 0.8)]):
            assert relative_error(call(ldm.unet, ldm.context()), acted) > 1e-3


@pytest.mark.slow
@KINDS
def test_exporting_leaves_nothing_behind_and_keeps_the_networks(
    small: Host, activation: str | None
) -> None:
    content, network = small.network(activation)
    expected = wanted(small.unet, [(content, 0.8)], small.context())
    inputs = (torch.randn(2, 4, 8, 8), torch.tensor([7.0, 7.0]), small.context())
    with hn.apply(small.unet, [(network, 0.8)]):
        right = small.unet(*inputs)
    network.release()
    with hn.apply(small.unet, [(network, 0.8)]):
        exported = torch.export.export(small.unet, inputs, strict=False)
        assert relative_error(exported.module()(*inputs), right) <= 1e-4
    other = copy.deepcopy(small.unet)
    with hn.apply(other, [(network, 0.8)]):
        assert relative_error(call(other, small.context()), expected) <= 1e-4


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("trains", ["network", "context"])
@KINDS
def test_gradient_checkpointing(activation: str | None, trains: str, reentrant: bool) -> None:
    host = make("ldm")
    network, context = host.network(activation)[1], host.context()
    network.train(trains == "network")
    if trains == "context" or reentrant:
        context.requires_grad_()

    def gradients(checkpointed: bool) -> list[torch.Tensor]:
        forwards = {}
        for block in host.unet.output_blocks if checkpointed else ():  # type: ignore[union-attr]
            forwards[block] = block.forward
            block.forward = lambda *a, f=block.forward: checkpoint.checkpoint(
                f, *a, use_reentrant=reentrant
            )
        of = [context] if trains == "context" else list(network.parameters())
        for tensor in of:
            tensor.grad = None
        with hn.apply(host.unet, [(network, 0.7)]):
            call(host.unet, context).square().sum().backward()
        for block in forwards:
            del block.forward
        return [tensor.grad for tensor in of if tensor.grad is not None]

    plain, checkpointed = gradients(False), gradients(True)
    network.train(False)
    assert len(plain) == len(checkpointed) > 0

    # The bias of a key has no effect, so its gradient is rounding: all are held against the
    # largest.
    largest = max(float(gradient.abs().max()) for gradient in plain)
    for one, other in zip(plain, checkpointed, strict=True):
        assert float((other - one).abs().max()) <= 1e-4 * largest


# Calls written otherwise


class Calls(nn.Module):
    """One attention module whose projections are called in a way of their own."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.attn1, self.way = CrossAttention(8), way
        if way != "input":
            for name in ("to_k", "to_v"):
                setattr(self.attn1, name, Takes(getattr(self.attn1, name)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The key."""
        calls: dict[str, Callable[[], torch.Tensor]] = {
            "input": lambda: self.attn1.to_k(input=x),
            "named": lambda: self.attn1.to_k(hidden_states=x),
            "extra": lambda: self.attn1.to_k(x, 1.0),
            "extra named": lambda: self.attn1.to_k(x, scale=1.0),
            "order": lambda: self.attn1.to_k(mask=torch.ones(1), hidden_states=x),
        }
        return calls[self.way]()


class Takes(nn.Module):
    """A projection with arguments of its own."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.in_features = inner, 8

    def forward(
        self, hidden_states: torch.Tensor, scale: float = 1.0, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The product."""
        return self.inner(hidden_states) * scale  # type: ignore[no-any-return]


@pytest.mark.parametrize("way", ["input", "named", "extra", "extra named", "order"])
@KINDS
def test_projections_called_otherwise(ldm: Host, activation: str | None, way: str) -> None:
    from reference import stacked

    content, network = ldm.network(activation)
    unet, x = Calls(way).requires_grad_(False), torch.randn(2, 6, 8)
    inner = unet.attn1.to_k if way == "input" else unet.attn1.to_k.inner
    expected = inner(stacked([(content, 0.8)], x, 0))  # type: ignore[operator]
    with hn.apply(unet, [(network, 0.8)], on_error=pytest.fail):
        assert relative_error(unet(x), expected) <= 1e-4


# Devices


@pytest.mark.parametrize("context", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("parameters", [torch.float32, torch.bfloat16], ids=str)
def test_networks_in_training_compute_in_their_own_type_on_accelerators(
    context: torch.dtype, parameters: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hypernetworks.engine.stack.is_on_cpu", lambda _: False)
    network = make("ldm").network("relu")[1]
    network.to("cpu", parameters)
    network.train()
    x = torch.randn(2, 5, 8).to(context)
    made = Stack([network]).transform(x, 0, [0.7], exact=False)
    assert made.dtype == context
    expected = x.float() + 0.7 * network.pairs[8][0](x.to(parameters)).float()
    assert relative_error(made.float(), expected) <= 1.6e-2
    made.float().sum().backward()
    assert all(p.grad is not None for p in network.pairs[8][0].parameters())


def test_tensors_without_an_address_are_watched_by_their_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weight = nn.Parameter(torch.randn(8, 8))

    def opaque(_: torch.Tensor) -> int:
        raise RuntimeError("Cannot access data pointer of Tensor that doesn't have storage")

    monkeypatch.setattr(torch.Tensor, "data_ptr", opaque)
    assert tensors.address(weight) == 0
    mark = WeightMark(weight)
    assert mark.holds(weight)
    with torch.no_grad():
        weight.add_(1)
    assert not mark.holds(weight)
