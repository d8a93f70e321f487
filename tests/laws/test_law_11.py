"""Law 11: whatever happens to the UNet between two calls, the next call is right or says why
not.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from laws.changing import (
    attentions,
    call,
    fuse_lora,
    load_lora,
    pack,
    replicated,
    unload_lora,
    wanted,
)
from laws.hosts import Host, ldm
from laws.small_ldm import CrossAttention, SpatialTransformer
from reference import relative_error
from torch import nn
from torch.utils import checkpoint

import hypernetworks as hn
from hypernetworks.patching import folded


def small() -> Host:
    """One level of blocks: six transformers."""
    torch.manual_seed(0)
    return ldm((8,))


NETWORKS = {(kind, seed): small().network(kind, seed) for kind in (None, "relu") for seed in (0, 1)}


class ChangingUNet(RuleBasedStateMachine):
    """A UNet on which networks come and go while everything else happens to it.

    Attributes:
        unet: the UNet itself.
        outer: what is called, and given to ``apply``: the UNet, or what it was compiled to.
    """

    outer: nn.Module

    @staticmethod
    def make() -> nn.Module:
        """What it begins with."""
        return small().unet

    @initialize()
    def begin(self) -> None:
        """A UNet without networks."""
        self.unet = self.make()
        self.outer = self.unet
        self.acting: list[tuple[hn.Handle, Any]] = []

    @rule(which=st.sampled_from(list(NETWORKS)), multiplier=st.sampled_from([0.4, -0.7, 1.0]))
    def apply(self, which: tuple[str | None, int], multiplier: float) -> None:
        """Another set of networks acts."""
        content, network = NETWORKS[which]
        handle = hn.apply(self.outer, [(network, multiplier)])
        self.acting.append((handle, [(content, multiplier)]))

    @precondition(lambda self: self.acting)
    @rule(number=st.integers(0, 5))
    def remove(self, number: int) -> None:
        """One of the sets goes."""
        self.acting.pop(number % len(self.acting))[0].remove()

    @rule(seed=st.integers(0, 3))
    def load_lora(self, seed: int) -> None:
        """A LoRA wraps all projections."""
        load_lora(self.unet, seed)

    @rule()
    def unload_lora(self) -> None:
        """The outer LoRA goes; what is merged stays."""
        unload_lora(self.unet)

    @rule(sign=st.sampled_from([1.0, -1.0]))
    def fuse_lora(self, sign: float) -> None:
        """LoRAs are merged into the weights, or out of them."""
        fuse_lora(self.unet, sign)

    @rule(number=st.integers(0, 11))
    def swap(self, number: int) -> None:
        """Another module takes the place of one projection."""
        attention = self._attention(number)
        other = copy.deepcopy(attention.to_v)
        for parameter in other.parameters():
            if parameter.dtype in (torch.float32, torch.float64):
                parameter.data.mul_(0.5)
        attention.to_v = other

    @rule(storage=st.sampled_from([torch.int8, torch.float8_e4m3fn]))
    def quantise(self, storage: torch.dtype) -> None:
        """Packed layers take the place of all plain projections."""
        pack(self.unet, storage)

    @rule()
    def replica(self) -> None:
        """What data parallelism makes of a UNet shares its attributes, and has its networks."""
        expected = self._wanted(self._networks())
        assert relative_error(self._call(replicated(self.unet)), expected) <= 1e-3

    @rule(number=st.integers(0, 11))
    def swap_attention(self, number: int) -> None:
        """Another attention module takes the place of one."""
        old = self._attention(number)
        for module in list(self.unet.modules()):
            for name, child in list(module._modules.items()):
                if child is old:
                    setattr(module, name, copy.deepcopy(old))

    @rule(dtype=st.sampled_from([torch.float32, torch.float64]))
    def cast(self, dtype: torch.dtype) -> None:
        """All weights get another type."""
        self.unet.to(dtype)

    @rule()
    def move(self) -> None:
        """All weights are elsewhere."""
        for parameter in self.unet.parameters():
            parameter.data = parameter.data.clone()

    @rule()
    def copied(self) -> None:
        """A copy has no networks, and takes none away."""
        copied = copy.deepcopy(self.unet)
        assert relative_error(self._call(copied), self._wanted([])) <= 1e-4

    @rule()
    def shallow(self) -> None:
        """A shallow copy is the same UNet."""
        expected = self._wanted(self._networks())
        assert relative_error(self._call(copy.copy(self.unet)), expected) <= 1e-3

    @rule(number=st.integers(0, 2))
    def checkpointed(self, number: int) -> None:
        """A block is computed twice: its gradients are those of the plain one."""
        block = [m for m in self.unet.modules() if isinstance(m, SpatialTransformer)][number % 2]
        plain = self._gradient()
        block.forward = lambda *a: checkpoint.checkpoint(  # type: ignore[union-attr]
            lambda *b: type(block).forward(block, *b), *a, use_reentrant=False
        )
        again = self._gradient()
        del block.forward
        assert relative_error(again, plain) <= 1e-3

    @rule()
    def take_forwards_away(self) -> None:
        """Somebody puts the projections' forwards back to what the class has."""
        for attention in attentions(self.unet):
            vars(attention.to_k).pop("forward", None)

    @invariant()
    def the_next_call_is_right(self) -> None:
        """The law."""
        expected = self._wanted(self._networks())
        assert relative_error(self._call(self.outer), expected) <= 1e-3

    def teardown(self) -> None:
        """Nothing is left."""
        for handle, _ in self.acting:
            handle.remove()
        assert not any("forward" in vars(module) for module in self.unet.modules())

    def _attention(self, number: int) -> CrossAttention:
        found = attentions(self.unet)
        return found[number % len(found)]

    def _networks(self) -> Any:
        return self.acting[-1][1] if self.acting else []

    def _context(self) -> torch.Tensor:
        drawn = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(3))
        return drawn.to(next(self.unet.parameters()).dtype)

    def _call(self, unet: nn.Module) -> torch.Tensor:
        with torch.no_grad():
            return call(unet, self._context())

    def _wanted(self, networks: Any) -> torch.Tensor:
        with torch.no_grad():
            return wanted(self.unet, networks, self._context())

    def _gradient(self) -> torch.Tensor:
        context = self._context().requires_grad_()
        call(self.outer, context).square().sum().backward()
        assert context.grad is not None
        return context.grad


@pytest.fixture(autouse=True)
def _every_row_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folded, "_REFOLD_ROWS", {"cpu": 1})


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_law_11_the_next_call_is_right() -> None:
    run_machine(ChangingUNet, 12)


def run_machine(machine: type[ChangingUNet], examples: int) -> None:
    """Many more examples, and others each time, with ``HYPOTHESIS_PROFILE=searching``."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples if settings.default.derandomize else 40 * examples,
            stateful_step_count=10,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
