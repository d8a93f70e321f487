"""The page's scripts as text: what a browser takes without a word, and only a linter or a user
finds.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[3] / "javascript").glob("*.js"))
DECLARATION = re.compile(r"^    (?:async )?(?:function|class) (\w+)", re.MULTILINE)
"""In the one block that each of our files is."""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_each_function_is_declared_once(script: Path) -> None:
    """Of two functions with one name the later one replaces the first everywhere, in silence.

    Two branches once brought a ``valueAt`` each, with other parameters: the panel died of any tag
    with ``start=`` or ``stop=``.
    """
    names = Counter(DECLARATION.findall(script.read_text("utf-8")))
    assert [name for name, count in names.items() if count > 1] == []
