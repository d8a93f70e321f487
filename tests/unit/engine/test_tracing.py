"""What a torch without ``torch.compiler.is_compiling`` is asked instead."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch

from hypernetworks.engine import tracing


def test_before_torch_2_3_another_function_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.compiler, "is_compiling", raising=False)
    monkeypatch.setattr(torch._utils, "is_compiling", lambda: True, raising=False)
    spec = importlib.util.spec_from_file_location("older_tracing", str(tracing.__file__))
    assert spec is not None
    assert spec.loader is not None
    older = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(older)
    assert older.is_compiling()

    # Its compiler also reads what is called between two graphs; without one, nothing must be slow.
    monkeypatch.setitem(sys.modules, "torch._dynamo", object())
    assert older.must_hide()
    monkeypatch.delitem(sys.modules, "torch._dynamo")
    assert not older.must_hide()


def test_later_ones_need_not_be_kept_from_reading() -> None:
    assert not tracing.must_hide()
