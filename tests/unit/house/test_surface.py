"""The public surface: what callers rely on, so that no change of it goes unnoticed."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import hypernetworks as hn
from hypernetworks import errors

ROOT = Path(__file__).parents[3]
SIGNATURES = {
    "read": "(path: 'str | os.PathLike[str]') -> 'Hypernetwork'",
    "write": "(network: 'Hypernetwork', path: 'str | os.PathLike[str]') -> 'None'",
    "apply": "(unet: 'nn.Module', networks: 'Networks', *, on_error: 'OnError | None' = None,"
    " is_dense: 'IsDense' = <function is_plain_linear>) -> 'Handle'",
    "parse": "(prompt: 'str') -> 'tuple[str, list[Tag]]'",
    "Hypernetwork.transform": "(self, context: 'torch.Tensor', multiplier: 'float' = 1.0)"
    " -> 'tuple[torch.Tensor, torch.Tensor]'",
    "Hypernetwork.create": (
        "(name: 'str', structure: 'Structure', widths: 'Iterable[int]') -> 'Hypernetwork'"
    ),
    "Handle.at": "(self, step: 'int', total: 'int', *, hires: 'bool' = False) -> 'None'",
    "Handle.remove": "(self) -> 'None'",
    "Library": "(folders: 'Folders', *, cache_bytes: 'int' = 1073741824) -> 'None'",
    "Library.scan": "(self) -> 'tuple[Entry, ...]'",
    "Library.find": "(self, name: 'str', *, suggest: 'bool' = True) -> 'Entry'",
    "Library.load": "(self, entry: 'Entry') -> 'Hypernetwork'",
    "Multiplier.parse": "(text: 'str') -> 'Multiplier'",
    "Multiplier.of": "(multiplier: 'float | str | Schedule | Multiplier') -> 'Multiplier'",
    "Multiplier.at": "(self, step: 'int', total: 'int', *, hires: 'bool' = False) -> 'float'",
    "Schedule.parse": "(text: 'str', what: 'str' = 'multiplier') -> 'Schedule'",
    "Schedule.at": "(self, step: 'int', total: 'int') -> 'float'",
    "Tag.with_multiplier": "(self, value: 'float | str') -> 'Tag'",
    "Structure": "(layer_structure: 'tuple[float, ...]' = (1.0, 2.0, 1.0), activation: 'str' = 'linear', "
    "activate_output: 'bool' = True, layer_norm: 'bool' = False, dropout: 'tuple[float, ...]' = "
    "(0.0, 0.0, 0.0))"
    " -> None",
}


def resolved(dotted: str) -> object:
    found: object = hn
    for name in dotted.split("."):
        found = getattr(found, name)
    return found


def test_public_names() -> None:
    assert sorted(hn.__all__) == [
        "Handle", "Hypernetwork", "HypernetworkError", "Library", "Multiplier", "Schedule", "Structure", "Tag",
        "apply", "parse", "read", "write",
    ]  # fmt: skip
    assert dir(hn) == sorted([*hn.__all__, "__version__"])


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name: str) -> None:
    signature = re.sub(r" at 0x[0-9a-f]+>", ">", str(inspect.signature(resolved(name))))  # type: ignore[arg-type]
    assert signature == SIGNATURES[name]


def test_a_handle_is_a_context_manager() -> None:
    assert {"__enter__", "__exit__", "at", "remove"} <= set(vars(hn.Handle))
    assert {name for name in vars(hn.Handle) if not name.startswith("_")} == {
        "at",
        "paths",
        "remove",
        "unet",
    }


@pytest.mark.parametrize("name", hn.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    documented = resolved(name)
    assert documented.__doc__
    for method, value in vars(documented).items() if inspect.isclass(documented) else ():
        if not method.startswith("_") and (
            inspect.isfunction(value) or isinstance(value, (property, classmethod))
        ):
            assert inspect.getdoc(value), f"{name}.{method} has no docstring"


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        hn.nonsense  # noqa: B018


def test_it_is_typed() -> None:
    assert (Path(hn.__file__).parent / "py.typed").exists()


def test_the_version_is_written_in_one_place() -> None:
    written = re.compile(rf"(?<![\d.]){re.escape(hn.__version__)}(?![\d.])")
    for name in ("pyproject.toml", "metadata.ini", "README.md", "install.py"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not written.search(text), f"{name} repeats the version of hypernetworks/__init__.py"
    assert 'attr = "hypernetworks.__version__"' in (ROOT / "pyproject.toml").read_text()


def test_the_version_has_a_section_in_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(hn.__version__)}\] - \d{{4}}-\d\d-\d\d$", changelog, re.M)


def drawn_tree() -> dict[str, str]:
    """Child -> parent, as the docstring of the errors draws them."""
    drawing = str(errors.__doc__).split(".. code-block:: text")[1]
    parents: dict[str, str] = {}
    open_at: list[tuple[int, str]] = []
    for line in drawing.splitlines():
        match = re.search(r"(\w+Error)\b", line)
        if match is None:
            continue
        while open_at and open_at[-1][0] >= match.start():
            open_at.pop()
        if open_at:
            parents[match[1]] = open_at[-1][1]
        open_at.append((match.start(), match[1]))
    return parents


def test_the_tree_of_errors_is_as_drawn() -> None:
    classes = {name: value for name, value in vars(errors).items() if inspect.isclass(value)}
    real = {
        name: value.__bases__[0].__name__
        for name, value in classes.items()
        if name != "HypernetworkError"
    }
    assert drawn_tree() == real
    for name, value in classes.items():
        assert value.__doc__
        also = re.search(rf"{name}\s.*\(also (\w+)\)", str(errors.__doc__))
        assert [b.__name__ for b in value.__bases__[1:]] == ([also[1]] if also else [])
