"""The table of slow tests names tests that exist."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from fast_ring import EVERY_TEST, GROUPS, SLOW, group_of, is_all_slow, is_slow

TESTS = Path(__file__).parents[2]


def functions_in(path: str) -> set[str]:
    text = (TESTS / path).read_text(encoding="utf-8")
    return set(re.findall(r"^(?:async )?def (\w+)", text, re.MULTILINE))


def test_every_slow_test_exists() -> None:
    missing = {
        path: [name for name in names if name not in functions_in(path)]
        for path, names in SLOW.items()
        if names is not EVERY_TEST
    }
    assert not any(missing.values()), missing
    assert all((TESTS / path).exists() for path in [*SLOW, *itertools.chain(*GROUPS.values())])


def test_what_counts_as_slow() -> None:
    assert is_slow("laws/test_folding.py", "test_anything")
    assert is_slow("unit/files/test_hostile.py", "test_bombs")
    assert not is_slow("unit/files/test_hostile.py", "test_other")
    assert not is_slow("unit/prompts/test_tags.py", "test_bombs")
    assert is_all_slow("laws/test_folding.py")
    assert not is_all_slow("unit/files/test_hostile.py")
    assert not is_all_slow("unit/files/test_portable.py")


def test_groups_of_files() -> None:
    assert group_of("unit/cli/test_cli.py") == group_of("unit/webui/test_webui_page.py")
    assert group_of("unit/files/test_hostile.py") == "unit/files/test_hostile.py"
