"""Replacing functions of the webui: once, whatever other extensions do to them, and with one
undo.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import wraps
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from fake_webui import FakeWebui

from hypernetworks.hosts.webui import folders, registration, replacing

Wrapper = Callable[[Callable[..., Any]], Callable[..., Any]]


def wrapped_plainly(original: Callable[..., Any]) -> Callable[..., Any]:
    def theirs(text: str) -> str:
        return f"theirs({original(text)})"

    return theirs


def wrapped_by_functools(original: Callable[..., Any]) -> Callable[..., Any]:
    return wraps(original)(wrapped_plainly(original))


def ours_for(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda text: f"ours({original(text)})"


@pytest.fixture
def owner() -> Any:
    return SimpleNamespace(draw=lambda text: text)


def test_any_number_of_times(owner: Any) -> None:
    before = owner.draw
    assert not replacing.is_replaced(owner, "draw")
    for _ in range(3):
        replacing.replace(owner, "draw", ours_for)
    assert replacing.is_replaced(owner, "draw")
    assert owner.draw("a") == "ours(a)"
    for _ in range(2):
        replacing.put_all_back()
    assert owner.draw is before
    assert vars(owner) == {"draw": before}


@pytest.mark.parametrize("theirs", [wrapped_plainly, wrapped_by_functools])
def test_other_extensions_wrap_ours(owner: Any, theirs: Wrapper) -> None:
    replacing.replace(owner, "draw", ours_for)
    owner.draw = theirs(owner.draw)
    replacing.replace(owner, "draw", ours_for)
    assert owner.draw("a") == "ours(theirs(a))", "ours once, and theirs too"
    replacing.put_all_back()
    assert owner.draw("a") == "theirs(a)"


@pytest.mark.parametrize("theirs", [wrapped_plainly, wrapped_by_functools])
def test_reloads_with_another_extension_add_nothing(owner: Any, theirs: Wrapper) -> None:
    replacing.replace(owner, "draw", ours_for)
    owner.draw = theirs(owner.draw)
    for _ in range(5):
        replacing.put_all_back()
        assert owner.draw("a") == "theirs(a)"
        replacing.replace(owner, "draw", ours_for)
        assert owner.draw("a") == "ours(theirs(a))"
    replacing.put_all_back()


def test_the_host_loads_its_module_again(owner: Any) -> None:
    replacing.replace(owner, "draw", ours_for)
    owner.draw = lambda text: f"new({text})"
    assert not replacing.is_replaced(owner, "draw")
    replacing.replace(owner, "draw", ours_for)
    assert owner.draw("a") == "ours(new(a))"
    replacing.put_all_back()
    assert owner.draw("a") == "new(a)"


def test_our_package_is_imported_anew(owner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    replacing.replace(owner, "draw", ours_for)
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, replacing.__name__)
        again: ModuleType = importlib.import_module(replacing.__name__)
        assert again is not replacing
        again.replace(owner, "draw", ours_for)
        assert owner.draw("a") == "ours(a)"
        again.put_all_back()
    monkeypatch.setattr(sys.modules["hypernetworks.hosts.webui"], "replacing", replacing)
    assert owner.draw("a") == "a"
    replacing.put_all_back()
    assert owner.draw("a") == "a"


def test_methods_of_a_class() -> None:
    class Host:
        def load(self, text: str) -> str:
            return text

    replacing.replace(Host, "load", lambda original: lambda self, text: original(self, text) * 2)
    assert Host().load("a") == "aa"
    assert Host.load.__name__ == "load"
    replacing.put_all_back()
    assert Host().load("a") == "a"


def test_unloading_the_extension_puts_everything_back(fake_webui: FakeWebui) -> None:
    processing = fake_webui.module("processing")
    built_in = fake_webui.module("hypernetworks.hypernetwork")
    places = (
        (processing, "process_images_inner"),
        (built_in, "list_hypernetworks"),
        (built_in.Hypernetwork, "load"),
    )
    before = [getattr(owner, name) for owner, name in places]
    registration.before_ui()
    registration.before_ui()
    assert all(replacing.is_replaced(owner, name) for owner, name in places)
    registration.unloaded()
    assert [getattr(owner, name) for owner, name in places] == before
    folders.refresh()
