"""The sheets of the studio's windows, as they fill in and when they are finished."""

from __future__ import annotations

import secrets
import shutil
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...hosts.diffusers import Picture, save_png
from .planning import Cell, Plan

MOST_SHEETS = 20
"""Sheets that are remembered; each window has one."""


@dataclass
class Sheet:
    """A sheet of a window.

    Attributes:
        key: no other sheet of this studio has it, and nobody can guess it.
        folder: where its images are, each once.
        files: numbers of the images by cell.
        notes: a second line for a column, by its label.
        is_running: there may come more images.
    """

    key: str
    folder: Path
    title: str
    plan: Plan | None = None
    files: dict[Cell, int] = field(default_factory=dict)
    pictures: dict[Cell, Picture] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    is_running: bool = True

    @property
    def version(self) -> str:
        """Changes when there is something new to see."""
        return f"{self.key} {len(self.files)} {self.is_running} {self.plan is not None}"

    def path(self, number: int) -> Path:
        """The PNG of an image."""
        return self.folder / f"{number}.png"

    def add(self, cells: Sequence[Cell], picture: Picture) -> None:
        """Show an image in some cells."""
        # The page loads an image by its number, and keeps it: a number never changes its image.
        number = len(set(self.files.values()))
        self.folder.mkdir(parents=True, exist_ok=True)
        save_png(picture, self.path(number))
        for cell in cells:
            self.pictures[cell] = picture
            self.files[cell] = number

    def finish(self, plan: Plan | None, moved: dict[Cell, Picture], notes: dict[str, str]) -> None:
        """Take the final order of the columns: the images keep their numbers."""
        # By identity: cells that show one image have one picture, before and after the sorting.
        numbers = {id(self.pictures[cell]): number for cell, number in self.files.items()}
        self.files = {cell: numbers[id(picture)] for cell, picture in moved.items()}
        self.plan, self.pictures, self.notes = plan, dict(moved), notes
        self.is_running = False


class Sheets:
    """The last sheet of each window.

    Args:
        folder: for their images; what is forgotten is deleted.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._of_window: OrderedDict[str, Sheet] = OrderedDict()
        self._changing = threading.Lock()

    def open(self, window: str, title: str) -> Sheet:
        """A new sheet, in place of the window's last one."""
        key = secrets.token_hex(16)
        sheet = Sheet(key, self._folder / key, title)
        with self._changing:
            # A window shows one sheet: images of earlier ones would fill the disk.
            old = self._of_window.pop(window, None)
            self._of_window[window] = sheet
            gone = [] if old is None else [old]
            while len(self._of_window) > MOST_SHEETS:
                gone.append(self._of_window.popitem(last=False)[1])
        for each in gone:
            shutil.rmtree(each.folder, ignore_errors=True)
        return sheet

    def of(self, window: str) -> Sheet | None:
        """The last sheet of a window."""
        with self._changing:
            return self._of_window.get(window)

    def keyed(self, key: str) -> Sheet | None:
        """The sheet with a key."""
        with self._changing:
            return next((one for one in self._of_window.values() if one.key == key), None)


def described(sheet: Sheet) -> dict[str, Any]:
    """A sheet as the page reads it."""
    if sheet.plan is None:
        return {"key": sheet.key, "running": sheet.is_running, "pages": []}

    columns, rows, pages = sheet.plan.labels
    plan, files = sheet.plan, dict(sheet.files)
    return {
        "key": sheet.key,
        "running": sheet.is_running,
        "version": sheet.version,
        "title": sheet.title,
        "columns": [{"label": label, "note": sheet.notes.get(label, "")} for label in columns],
        "rows": list(rows),
        "pages": list(pages),
        "cells": [
            {"at": cell, "file": files.get(cell), "label": plan.label(cell)} for cell in plan.jobs
        ],
    }
