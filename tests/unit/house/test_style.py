"""The project's own rules of form, as tests: ruff, mypy strict, and the lengths that design
allows.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LONGEST_FUNCTION = 60


CHECKERS = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"])


@pytest.mark.slow
@pytest.mark.parametrize("command", CHECKERS, ids=" ".join)
def test_checker(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions_in(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions, those inside of others too; expressions, which hold none, are left alone."""
    inside: list[ast.AST] = [tree]
    while inside:
        for node in ast.iter_child_nodes(inside.pop()):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield node
            if not isinstance(node, ast.expr):
                inside.append(node)


def test_functions_are_found_wherever_they_stand() -> None:
    source = "try:\n x = 1\nexcept E:\n class A:\n  async def f(self):\n   def g(): pass"
    assert [node.name for node in functions_in(ast.parse(source))] == ["f", "g"]


def test_no_function_is_longer_than_a_screen() -> None:
    long = []
    for path in [*(ROOT / "hypernetworks").rglob("*.py"), ROOT / "install.py"]:
        for node in functions_in(tree_of(path)):
            length = (node.end_lineno or 0) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                long.append(f"{path.name}: {node.name} has {length} lines")
    assert long == []


def test_every_public_thing_has_a_docstring() -> None:
    bare = []
    for path in (ROOT / "hypernetworks").rglob("*.py"):
        tree = tree_of(path)
        assert ast.get_docstring(tree) is not None, path
        classes = [
            n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")
        ]
        for owner in [tree, *classes]:
            for node in owner.body:
                public = isinstance(
                    node, (ast.FunctionDef, ast.ClassDef)
                ) and not node.name.startswith("_")
                if public and ast.get_docstring(node) is None:  # type: ignore[arg-type]
                    bare.append(f"{path.name}: {node.name}")  # type: ignore[attr-defined]
    assert bare == []
