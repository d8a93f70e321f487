"""The table of webuis: read from the README, brought up to date, marked where it is old."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from real_host import matrix

README = f"""# Title

{matrix.HEAD}
| A1111 | 1.10.1 | 2026-11-23 | images |
| Forge | f2.0.1 (`dfdcbab6`) | 2026-08-01 (older than 90 days) | FAILED: images |

Text.
"""
TODAY = date(2026, 11, 27)


def test_old_rows_are_marked() -> None:
    shown = matrix.table(matrix.rows_of(README), TODAY)
    assert shown.splitlines()[2:] == [
        "| A1111 | 1.10.1 | 2026-11-23 | images |",
        "| Forge | f2.0.1 (`dfdcbab6`) | 2026-08-01 (older than 90 days) | FAILED: images |",
    ]


@pytest.mark.parametrize(("code", "what"), [(0, "images"), (1, "FAILED: images")])
def test_a_run_changes_its_row(code: int, what: str) -> None:
    first, forge = matrix.updated(matrix.rows_of(README), "Forge", "0123abc", code, TODAY)
    assert first.tested_on == "2026-11-23"
    assert forge == matrix.Row("Forge", "f2.0.1 (`0123abc`)", "2026-11-27", what)


def test_names_are_those_of_the_table() -> None:
    with pytest.raises(KeyError, match="it has A1111, Forge"):
        matrix.updated(matrix.rows_of(README), "forge", None, 0, TODAY)


def test_the_readme_has_this_table() -> None:
    text = (Path(matrix.ROOT) / "README.md").read_text("utf-8")
    rows = matrix.rows_of(text)
    assert len(rows) >= 6
    assert matrix.table(rows, min(date.fromisoformat(row.tested_on) for row in rows)) in text
