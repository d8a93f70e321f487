"""Compiled UNets: networks come and go, compiled before or after.

Run by ``test_compiled_unets.py`` in a process of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from laws.changing import call, wanted
from laws.hosts import Host
from laws.hosts import ldm as make_ldm
from reference import relative_error

import hypernetworks as hn
from hypernetworks.patching.handle import MARK


@pytest.fixture
def small() -> Iterator[Host]:
    """One level of blocks: compiling takes long."""
    torch.manual_seed(0)
    with torch.no_grad():
        yield make_ldm((8,))


@pytest.mark.parametrize(
    ("first", "way"),
    [
        ("compile", "wrapper"),
        ("compile", "in place"),
        ("compile", "blocks"),
        ("apply", "wrapper"),
        ("apply", "blocks"),
    ],
)
def test_compiled_unets(small: Host, way: str, first: str) -> None:
    torch._dynamo.reset()
    unet, context, base = small.unet, small.context(), call(small.unet, small.context())
    contents = {kind: small.network(kind) for kind in (None, "relu")}
    expected = {k: wanted(unet, [(c, 0.8)], context) for k, (c, _) in contents.items()}

    def compiled() -> nn.Module:
        if way == "wrapper":
            return torch.compile(unet, backend="eager")  # type: ignore[return-value]
        for module in [unet] if way == "in place" else unet.output_blocks:  # type: ignore[union-attr]
            module.compile(backend="eager")
        return unet

    made = compiled() if first == "compile" else unet
    if first == "compile":
        assert relative_error(call(made, context), base) <= 1e-5
    for kind in (None, "relu", None):
        with hn.apply(made, [(contents[kind][1], 0.8)]) as handle:
            made = compiled() if made is unet and first == "apply" and way == "wrapper" else made
            for _ in range(2):
                assert relative_error(call(made, context), expected[kind]) <= 1e-4
            handle.at(0, 2)
        assert relative_error(call(made, context), base) <= 1e-5
    assert MARK not in vars(made)
    assert MARK not in vars(unet)
    torch._dynamo.reset()
