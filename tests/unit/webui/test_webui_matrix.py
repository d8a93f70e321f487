"""The table of webuis: read from the README, brought up to date, marked where it is old."""

from __future__ import annotations

import subprocess
import sys
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


def test_options_after_a_webui_are_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Forge Neo needs other flags than AUTOMATIC1111 to start on a machine without a GPU."""
    ran: list[list[str]] = []

    def run_tests(command: list[str]) -> int:
        ran.append(command[command.index("--webui") + 1 :])
        return len(ran) - 1

    monkeypatch.setattr(matrix, "run_tests", run_tests)
    monkeypatch.setattr(matrix, "commit_of", lambda _: "0123abc")
    given = [f"AUTOMATIC1111={tmp_path}", "--webui-args=--use-cpu all", f"Forge Neo={tmp_path}"]
    assert matrix.main([*given, "--webui-args=--cpu", "--", "-k", "pictures"]) == 1
    assert ran == [
        [str(tmp_path), "--webui-args=--use-cpu all", "-k", "pictures"],
        [str(tmp_path), "--webui-args=--cpu", "-k", "pictures"],
    ]
    shown = {row.webui: row for row in matrix.rows_of(capsys.readouterr().out + "\n\n")}
    assert "0123abc" in shown["AUTOMATIC1111"].version
    assert not shown["AUTOMATIC1111"].what.startswith("FAILED")
    assert shown["Forge Neo"].what.startswith("FAILED")


def test_an_interrupted_run_waits_for_pytest_to_tidy_up(tmp_path: Path) -> None:
    """It once left the webui running, and the link to this project in its extensions."""
    tidy = tmp_path / "tidy"
    child = f"""
import pathlib, time
time.sleep(0.6)  # longer than subprocess.run would wait
pathlib.Path({str(tidy)!r}).touch()
"""
    waits: list[int] = []

    class Interrupted(subprocess.Popen):  # type: ignore[type-arg]
        def wait(self, timeout: float | None = None) -> int:
            waits.append(1)
            if len(waits) == 1:
                raise KeyboardInterrupt
            return super().wait(timeout)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            matrix.run_tests([sys.executable, "-c", child])
    assert tidy.exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["forge=."], "the table has no forge"),
        (["Forge"], "write NAME=FOLDER"),
        (["Forge=/nowhere/at/all"], "is not a folder"),
        (["--webui-args=--cpu", "Forge=."], "after the webui"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    given: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix, "run_tests", lambda _: pytest.fail("it ran"))
    with pytest.raises(SystemExit, match=said):
        matrix.main(given)


def test_the_readme_has_this_table() -> None:
    text = (Path(matrix.ROOT) / "README.md").read_text("utf-8")
    rows = matrix.rows_of(text)
    assert len(rows) >= 6
    assert matrix.table(rows, min(date.fromisoformat(row.tested_on) for row in rows)) in text
