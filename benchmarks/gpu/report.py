"""What the parts found: tables for the screen, JSON, and pictures of bars."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..cases import Summary

Bars = list[tuple[str, float, float, float]]
"""Label, value, and the ends of its interval."""
COLOURS = {
    "none": "#8a8a8a",
    "naive": "#c0504d",
    "plain": "#c0504d",
    "ours": "#3a76b0",
    "floor": "#7aa35a",
}


@dataclass
class Table:
    """One part's result.

    Attributes:
        title: what was measured, on what.
        columns: their heads.
        rows: cells, as texts.
        raw: everything to keep in JSON.
        bars: to draw; ``unit`` says of what.
        notes: what a reader of the table must know, such as what was left out.
    """

    title: str
    columns: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    bars: Bars = field(default_factory=list)
    unit: str = "ms"
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        cells = [list(self.columns), *self.rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        lines = [
            "  ".join(
                cell.ljust(width) if not i else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in cells
        ]
        return "\n".join([f"## {self.title}", *lines, *(f"  ({note})" for note in self.notes)])


def with_interval(numbers: Summary | dict[str, float], digits: int = 3) -> str:
    """Such as ``0.251 (0.240 to 0.263)``."""
    found = numbers if isinstance(numbers, dict) else vars(numbers)
    median, low, high = (f"{found[key]:.{digits}f}" for key in ("median", "low", "high"))
    return f"{median} ({low} to {high})"


def facts(device: str) -> dict[str, Any]:
    """What everything was measured on."""
    found: dict[str, Any] = {"torch": torch.__version__, "device": device}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "card": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
        }
    return found


def write(folder: Path, name: str, tables: Sequence[Table], about: dict[str, Any]) -> None:
    """JSON of one part, and a picture of every table with bars."""
    content = {"about": about, "tables": [asdict(table) for table in tables]}
    text = json.dumps(content, indent=1, default=str) + "\n"
    (folder / f"{name}.json").write_text(text, encoding="utf-8")
    for number, table in enumerate(table for table in tables if table.bars):
        draw(table, about, folder / f"{name}-{number + 1}.png")


def draw(table: Table, about: dict[str, Any], path: Path) -> None:
    """Horizontal bars with their intervals."""
    from PIL import Image, ImageDraw, ImageFont

    line, left, right = 24, 320, 900
    image = Image.new("RGB", (1040, line * (len(table.bars) + 4)), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=13)
    largest = max((high for *_, high in table.bars), default=1.0) or 1.0
    scale = (right - left) / largest
    pen.text((12, 8), f"{table.title} [{table.unit}]", fill="black", font=font)
    pen.text((12, 8 + line), str(about.get("card", about["device"])), fill="#666666", font=font)
    for number, (label, value, low, high) in enumerate(table.bars):
        top = line * (number + 2) + 12
        kind = label.split(":")[0]
        pen.text((12, top), label, fill="black", font=font)
        end = left + max(0.0, value) * scale
        pen.rectangle((left, top, end, top + 15), fill=COLOURS.get(kind, "#5b6b7b"))
        pen.line(
            (left + max(0.0, low) * scale, top + 8, left + high * scale, top + 8), fill="black"
        )
        pen.text((left + high * scale + 8, top), f"{value:.4g}", fill="black", font=font)
    image.save(path)
