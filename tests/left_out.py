"""What a test run left out, and how to get it: said at its end, so that nothing vanishes unseen."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

TEST = "python install.py test"


@dataclass(frozen=True)
class Group:
    """Tests that some machines or options leave out.

    Attributes:
        what: what they test.
        how: how to run them.
        folder: where they are, when they are all in one folder.
        reason: how the reasons of their skips read, when they are not.
    """

    what: str
    how: str
    folder: str = ""
    reason: str = ""


GROUPS = {
    "browser": Group(
        "the page and the panel in a real browser",
        f"install Chromium or Google Chrome, then `{TEST} tests/browser`",
        folder="tests/browser/",
    ),
    "webui": Group(
        "the extension in a real webui",
        f"`{TEST} tests/real_host --webui FOLDER`, see CONTRIBUTING.md",
        folder="tests/real_host/",
    ),
    "comfyui": Group(
        "the nodes in a real ComfyUI",
        f"`{TEST} tests/real_comfyui --comfyui FOLDER`, see CONTRIBUTING.md",
        folder="tests/real_comfyui/",
    ),
    "sources": Group(
        "contract tests that need the source of a webui or of ComfyUI",
        f"set HYPERNETWORKS_WEBUI_SOURCES, then `{TEST} tests/contract`, see CONTRIBUTING.md",
        reason=r"HYPERNETWORKS_WEBUI_SOURCES|no sources of|no environment of",
    ),
    "cuda": Group(
        "what needs an NVIDIA GPU",
        f"`{TEST} -m cuda` on a machine with one, and with torch built for CUDA",
        folder="tests/cuda/",
    ),
    "registry": Group("what asks a package registry", f"`{TEST} -m registry --registry`"),
    "slow": Group("tests of more than about a second", f"`{TEST} -m slow`"),
}
"""Marker -> its tests. ``sources`` has no marker: it is known by the reasons of its skips."""
FOLDER_MARKS = {group.folder: mark for mark, group in GROUPS.items() if group.folder} | {
    "tests/hardening/": "slow",
    "tests/contract/test_checkpoints.py": "slow",
    "tests/contract/test_full_size.py": "slow",
    "tests/contract/test_miniature.py": "slow",
    "tests/contract/test_training_job.py": "slow",
}
"""Folder or file -> the marker of all tests in it."""
NO_BROWSER = r"no Chromium|playwright"
"""How the reasons of tests read that were skipped for want of a browser."""


COUNTERS = ("skipped", "deselected", "files", "reasons")


@dataclass
class LeftOut:
    """Counts of the tests that a run skipped or deselected, and of the files it did not open."""

    skipped: Counter[str] = field(default_factory=Counter)
    deselected: Counter[str] = field(default_factory=Counter)
    files: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    for_want_of_a_browser: int = 0

    def skip(self, path: str, marks: set[str], reason: str) -> None:
        """Count a test, or a whole file, that was skipped."""
        group = group_of(path, marks, reason)
        self.skipped[group] += 1
        if not group:
            self.reasons[reason] += 1
        if group == "browser" and re.search(NO_BROWSER, reason):
            self.for_want_of_a_browser += 1

    def deselect(self, path: str, marks: set[str]) -> None:
        """Count a test that ``-m``, ``-k`` or ``--deselect`` left out."""
        self.deselected[group_of(path, marks)] += 1

    def leave_out_file(self, path: str, marks: set[str]) -> None:
        """Count a file whose tests are all left out, so that nobody knows how many there are."""
        self.files[group_of(path, marks)] += 1

    def as_plain(self) -> dict[str, Any]:
        """The counts in types that go from one process to another."""
        counters = {name: dict(getattr(self, name)) for name in COUNTERS}
        return {**counters, "for_want_of_a_browser": self.for_want_of_a_browser}

    def add(self, counts: dict[str, Any]) -> None:
        """Add what :meth:`as_plain` returned elsewhere."""
        for name in COUNTERS:
            getattr(self, name).update(counts.get(name, {}))
        self.for_want_of_a_browser += counts.get("for_want_of_a_browser", 0)

    def faults(self, ci: bool) -> list[str]:
        """Why the whole run fails for what it left out.

        Args:
            ci: whether the machine is one that must have a browser.
        """
        if not (ci and self.for_want_of_a_browser):
            return []
        return [
            "CI is set, and browser tests were skipped for want of a browser: install Chromium,"
            ' or leave the browser tests out with -m "not browser"'
        ]

    def lines(self) -> list[str]:
        """What to print at the end of the run; empty when everything ran."""
        found = []
        for mark, group in GROUPS.items():
            counts = self._counts(mark)
            if counts:
                found += [f"{mark}: {counts} ({group.what})", f"    to run them: {group.how}"]

        counts = self._counts("")
        if counts:
            found.append(f"other: {counts}")
            found += [f"    {count} skipped: {reason}" for reason, count in self.reasons.items()]
        return found

    def _counts(self, mark: str) -> str:
        files = self.files[mark]
        counts = {
            "skipped": self.skipped[mark],
            "not selected": self.deselected[mark],
            f"file{'s' * (files > 1)} not selected": files,
        }
        return ", ".join(f"{count} {how}" for how, count in counts.items() if count)


def group_of(path: str, marks: set[str], reason: str = "") -> str:
    """The group of a test that was left out; ``""`` for none.

    Args:
        path: of its file, from the project's folder, with forward slashes.
        marks: names of its markers.
        reason: why it was skipped.
    """
    for mark, group in GROUPS.items():
        if group.folder and path.startswith(group.folder):
            return mark
        if group.reason and re.search(group.reason, reason):
            return mark
    return next((mark for mark in GROUPS if mark in marks), "")
