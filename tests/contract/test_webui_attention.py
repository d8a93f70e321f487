"""The attention syntax and the parts of long prompts, compared with A1111's own code.

``HYPERNETWORKS_WEBUI_SOURCES`` names a folder with ``a1111/``; without it, this is skipped. Of its
modules, single functions are run: the modules themselves need the whole webui.
"""

from __future__ import annotations

import ast
import math
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypernetworks.hosts.diffusers.prompt_encoding import _filled
from hypernetworks.prompts.attention import weighted_parts

SOURCES = Path(os.environ.get("HYPERNETWORKS_WEBUI_SOURCES", "")) / "a1111" / "modules"
pytestmark = pytest.mark.skipif(
    not (SOURCES / "prompt_parser.py").is_file(), reason="HYPERNETWORKS_WEBUI_SOURCES is not set"
)
COMMA = 7
PIECES = [
    "a",
    " ",
    "(",
    ")",
    "[",
    "]",
    ":",
    ":1.2)",
    ": -0.5 )",
    "\\",
    "BREAK",
    " BREAK ",
    ",",
    "1",
    "\n",
]
PROMPTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


def taken(file: str, *names: str, **given: Any) -> dict[str, Any]:
    """Single functions, classes and names of one of A1111's modules."""
    tree = ast.parse((SOURCES / file).read_text(encoding="utf8"))
    wanted = [
        node
        for node in tree.body
        if getattr(node, "name", None) in names
        or (isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) in names)
    ]
    scope = {"re": re, "math": math, **given}
    exec(compile(ast.Module(wanted, []), file, "exec"), scope)
    return scope


@given(PROMPTS)
def test_every_prompt_is_parsed_as_a1111_parses_it(prompt: str) -> None:
    theirs = taken("prompt_parser.py", "re_attention", "re_break", "parse_prompt_attention")
    expected = [tuple(pair) for pair in theirs["parse_prompt_attention"](prompt)]
    assert [(part.text, part.weight) for part in weighted_parts(prompt)] == expected


@given(st.lists(st.tuples(st.integers(0, 90), st.booleans()), max_size=5), st.integers(0, 60))
def test_every_prompt_is_cut_where_a1111_cuts_it(runs: list[tuple[int, bool]], at: int) -> None:
    tokens = [
        [COMMA if number == at else 100 + number for number in range(length)] for length, _ in runs
    ] or [[]]
    prompt = " BREAK ".join("x" for _ in tokens)
    line = SimpleNamespace(
        chunk_length=75,
        comma_token=COMMA,
        id_start=1,
        id_end=2,
        hijack=SimpleNamespace(
            embedding_db=SimpleNamespace(find_embedding_at_position=lambda *_: (None, 0))
        ),
    )
    parser = taken("prompt_parser.py", "re_attention", "re_break", "parse_prompt_attention")
    theirs = taken(
        "sd_hijack_clip.py",
        "PromptChunk",
        "TextConditionalModel",
        torch=SimpleNamespace(nn=SimpleNamespace(Module=object)),
        opts=SimpleNamespace(emphasis="Original", comma_padding_backtrack=20),
        prompt_parser=SimpleNamespace(parse_prompt_attention=parser["parse_prompt_attention"]),
    )
    ids = [found for group in tokens for found in (group, [])][:-1]  # BREAK has no tokens
    line.tokenize = lambda _texts: ids
    chunks, _ = theirs["TextConditionalModel"].tokenize_line(line, prompt)

    ours = _filled(weighted_parts(prompt), ids, 75, COMMA)
    padded = [[1, *part.tokens, *[2] * (76 - len(part.tokens))] for part in ours]
    assert padded == [chunk.tokens for chunk in chunks]
