"""While the webui loads a checkpoint in another thread, files can be read all the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from unit.library.test_library import network

import hypernetworks as hn


def of_the_host(module: Any, state_dict: Any, strict: bool = True) -> None:
    """AUTOMATIC1111's, which takes the weights of its checkpoint and no ``assign=``."""
    raise AssertionError("it takes other weights than ours")


def test_reading(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = network(tmp_path / "ink.pt", width=8)
    expected = hn.read(path)
    monkeypatch.setattr(nn.Module, "load_state_dict", of_the_host)
    monkeypatch.setattr(nn.Linear, "_load_from_state_dict", of_the_host)

    found, context = hn.read(path), torch.randn(1, 3, 8)
    for mlp, same in zip(found.pairs[8], expected.pairs[8], strict=True):
        assert torch.equal(mlp(context), same(context))
        assert not any(parameter.requires_grad for parameter in mlp.parameters())
