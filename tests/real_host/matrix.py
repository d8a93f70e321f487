"""Runs the tests on every webui that it is given, and prints the README's table.

``python -m tests.real_host.matrix "AUTOMATIC1111=path/to/webui" [OPTIONS] "Forge=path" [OPTIONS] --
ARGUMENTS``

Names are those of the table. Options after a webui are its own, such as ``--webui-args="--use-cpu
all"``; arguments after ``--`` are for all. Both go to pytest. Rows of webuis that are not given
stay as they are; a row that is older than 90 days is marked, and so is one whose tests failed.
Nothing is written: paste the table into the README.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAD = "| webui | version | tested on | what was tested |\n|---|---|---|---|"
OLD = timedelta(days=90)


@dataclass(frozen=True)
class Row:
    """One webui of the table, its cells as they stand there."""

    webui: str
    version: str
    tested_on: str
    what: str

    def line(self, today: date) -> str:
        """The row, marked if it is old."""
        try:
            old = today - date.fromisoformat(self.tested_on) > OLD
        except ValueError:
            old = True  # no date, so nobody knows
        when = f"{self.tested_on} (older than 90 days)" if old else self.tested_on
        return f"| {self.webui} | {self.version} | {when} | {self.what} |"


def rows_of(readme: str) -> list[Row]:
    """The rows of the README's table of webuis; marks of old rows are left out."""
    start = readme.index(HEAD) + len(HEAD)
    lines = readme[start:].lstrip("\n").partition("\n\n")[0].splitlines()
    cells = ([cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines)
    return [
        Row(webui, version, tested_on.partition(" (older")[0], what)
        for webui, version, tested_on, what in cells
    ]


def table(rows: Sequence[Row], today: date) -> str:
    """The table in Markdown."""
    return "\n".join([HEAD, *(row.line(today) for row in rows)])


def with_commit(version: str, commit: str | None) -> str:
    """A version cell with another commit, in the place of the one that it names."""
    if commit is None:
        return version
    named = re.compile(r"`[0-9a-f]{7,40}`")
    if named.search(version):
        return named.sub(f"`{commit}`", version, count=1)
    return f"{version} (`{commit}`)"


def updated(
    rows: Sequence[Row], webui: str, commit: str | None, code: int, today: date
) -> list[Row]:
    """The rows after a run of one webui's tests.

    Raises:
        KeyError: the table has no such row.
    """
    if webui not in {row.webui for row in rows}:
        raise KeyError(f"the table has no {webui}: it has {', '.join(row.webui for row in rows)}")
    changed = []
    for row in rows:
        what = row.what.removeprefix("FAILED: ")
        if row.webui == webui:
            what = what if code == 0 else f"FAILED: {what}"
            version = with_commit(row.version, commit)
            row = replace(row, version=version, tested_on=today.isoformat(), what=what)
        changed.append(row)
    return changed


def commit_of(path: Path) -> str | None:
    """The checkout's commit; ``None`` where it is none."""
    done = subprocess.run(
        ["git", "-C", str(path), "log", "-1", "--format=%h"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None


@dataclass(frozen=True)
class Asked:
    """One webui to test: its name in the table, its folder, and pytest's options for it alone."""

    webui: str
    path: Path
    options: tuple[str, ...] = ()


def asked(arguments: Sequence[str]) -> list[Asked]:
    """The webuis of a command line, each with the options that follow it.

    Raises:
        SystemExit: a folder is missing, or an option stands before all webuis.
    """
    found: list[Asked] = []
    for argument in arguments:
        if argument.startswith("-"):
            if not found:
                raise SystemExit(f"write {argument} after the webui that it is for, or after --")
            found[-1] = replace(found[-1], options=(*found[-1].options, argument))
            continue

        webui, _, path = argument.partition("=")
        if not path or not Path(path).is_dir():
            raise SystemExit(f"{webui}: {path or 'nothing'} is not a folder, write NAME=FOLDER")
        # Absolute, because pytest runs in the project's folder.
        found.append(Asked(webui, Path(path).absolute()))
    return found


def run_tests(command: Sequence[str]) -> int:
    """pytest's exit code."""
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # pytest was interrupted, too: it ends the webui and removes the links to this project.
            process.wait()
            raise


def main(arguments: Sequence[str]) -> int:
    """Run what was given and print the table; 1 if the tests of any webui failed."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    rows, worst, today = rows_of((ROOT / "README.md").read_text("utf-8")), 0, date.today()
    webuis = asked(arguments[:end])
    try:
        for one in webuis:  # an unknown name is reported before anything runs
            updated(rows, one.webui, None, 0, today)
    except KeyError as error:
        raise SystemExit(error.args[0]) from None

    for one in webuis:
        command = [sys.executable, "-m", "pytest", "tests/real_host", "--webui", str(one.path)]
        given = [*one.options, *arguments[end + 1 :]]
        code = run_tests([*command, *given])
        rows = updated(rows, one.webui, commit_of(one.path), code, today)
        worst = max(worst, int(code != 0))

    sys.stdout.write(f"{table(rows, today)}\n")
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
