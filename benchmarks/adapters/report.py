"""What ``benchmarks.adapters`` found, as a table, curves, images, and peft's files of results."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from hypernetworks.hosts.comfyui.drawing import sheet

COLUMNS = 6
"""Images per method on the sheet."""
LARGEST = 192
"""Pixels of an image's longer side on the sheet."""
MISSING = "–"
"""In the table, for what can't be measured."""


def write_report(rows: Sequence[dict[str, Any]], build: Path, folder: Path) -> None:
    """Write ``sheet.png``, ``curves.svg`` and ``results/*.json`` into a folder."""
    if not rows:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if (pictures := _sheet(rows, build)) is not None:
        few = pictures.convert("P", palette=Image.Palette.ADAPTIVE, colors=256)  # a fifth the size
        few.save(folder / "sheet.png", optimize=True)
    curves(rows, folder / "curves.svg")

    results = folder / "results"
    results.mkdir(exist_ok=True)
    for row in rows:
        style, images, seed = row["cell"]
        kind, _, rest = row["method"].partition(",")
        words = f"{rest} {style} {images} images seed {seed}".replace("/", " of ").split()
        kind, model = (part.strip().replace(" ", "-") for part in (kind, model_of(row)))
        name = f"{kind}--{model}-{'-'.join(words)}".replace(",", "")
        text = json.dumps(peft_result(row), indent=2)
        (results / f"{name.lower()}.json").write_text(text + "\n", encoding="utf-8")


def images_file(build: Path, method: str, style: str, seed: int) -> Path:
    """Where a row's images are kept, uint8 ``(count, height, width, 3)``."""
    return build / f"{method.replace('/', '-')} {style} {seed}.npy"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Means over the cells as Markdown, by loss; lost rows stand where they are."""
    fastest = min((row["curve"][-1][0] for row in rows), default=0.0)
    lines = []
    for name in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == name]
        equal = statistics.mean(_at(row["curve"], fastest) for row in own)
        spent = statistics.mean(row["curve"][-1][0] / row["steps"] for row in own)
        size = statistics.mean(row["parameters"] for row in own)
        cells = (
            name,
            f"{size:,.0f}",
            str(len(own)),
            _mean(own, "test", ".4f"),
            f"{equal:.4f}",
            _mean(own, "recall", ".0%"),
            _two(own, "distance", ".0f"),
            _mean(own, "drift", ".2f"),
            _mean(own, "stacking", ".2f"),
            f"{spent:.2f}",
            _two(own, "seconds", ".2f"),
            f"{size * 2 / 2**20:.2f}",
        )
        lines.append((statistics.mean(row["test"] for row in own), cells))

    # The loss without any adapter is the same for all methods of a cell.
    plain = {tuple(row["cell"]): row["plain_loss"] for row in rows if "plain_loss" in row}
    if plain:
        loss = statistics.mean(plain.values())
        missing = [MISSING] * (len(HEAD) - 5)
        figures = (f"{loss:.4f}", f"{loss:.4f}")
        lines.append((loss, ("no adapter", "0", str(len(plain)), *figures, *missing)))
    ordered = (cells for _, cells in sorted(lines))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (HEAD, *ordered)).replace(
        "\n", f"\n|{'---|' * len(HEAD)}\n", 1
    )


HEAD = (
    "method", "parameters", "cells", "loss", "at equal time", "recall", "distance at 1, 0.5", "drift",
    "stacking", "s per step", "s per image at 1, 0.5", "MiB, fp16",
)  # fmt: skip


def _mean(rows: Sequence[dict[str, Any]], key: str, how: str) -> str:
    """Of the rows that have it."""
    found = [row[key] for row in rows if row.get(key) is not None]
    return format(statistics.mean(found), how) if found else MISSING


def _two(rows: Sequence[dict[str, Any]], key: str, how: str) -> str:
    """At full and at half strength."""
    both = [_mean(rows, name, how) for name in (key, f"half_{key}")]
    return MISSING if MISSING in both else ", ".join(both)


def _at(curve: Sequence[Sequence[float]], seconds: float) -> float:
    """The loss after so many seconds, between the measurements around it."""
    before = curve[0]
    for point in curve:
        if point[0] >= seconds:
            share = 1.0 if point[0] == before[0] else (seconds - before[0]) / (point[0] - before[0])
            return before[1] + max(0.0, share) * (point[1] - before[1])
        before = point
    return curve[-1][1]


def _sheet(rows: Sequence[dict[str, Any]], build: Path) -> Image.Image | None:
    """Images of each method in the first cell, best loss first."""
    first = rows[0]["cell"]
    own = sorted((row for row in rows if row["cell"] == first), key=lambda row: row["test"])
    found = [(row["method"], images_file(build, row["method"], first[0], first[2])) for row in own]
    found = [(name, path) for name, path in found if path.exists()]
    if not found:
        return None
    cells = [Image.fromarray(one) for _, path in found for one in np.load(path)[:COLUMNS]]
    for cell in cells:
        cell.thumbnail((LARGEST, LARGEST))
    captions = own[0].get("captions") or [f"{first[0]} {number + 1}" for number in range(COLUMNS)]
    # Without "a", so that captions don't run into each other.
    columns = [one.removeprefix("a ") for one in captions[: len(cells) // len(found)]]
    # What stands before the structure would leave no room for the optimiser after it.
    labels = [name.removeprefix("hypernetwork, ") for name, _ in found]
    return sheet(cells, labels, columns)


def curves(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Loss on unseen images over the time of training, the mean of each method's cells."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "hypernetworks"  # the same file for the same rows
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for name in dict.fromkeys(row["method"] for row in rows):
        own = np.asarray([row["curve"] for row in rows if row["method"] == name])
        times, losses = own.mean(0).T
        axes.plot(times, losses, marker="o", markersize=3, label=name)
    seconds = "processor seconds" if device_of(rows[0]) == "cpu" else "seconds"
    axes.set(xlabel=f"{seconds} of training", ylabel="loss on unseen images", yscale="log")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def peft_result(row: dict[str, Any]) -> dict[str, Any]:
    """A row in the format of peft's ``method_comparison/image-gen/results``.

    What that benchmark measures with DINO is not here: the miniature's images are 96 pixels wide.
    In its place stand the losses on unseen images.
    """
    style, images, seed = row["cell"]
    points = [
        {
            "step": min(row["steps"], (number + 1) * max(1, row["steps"] // len(row["curve"]))),
            "valid loss": loss,
            "train time": seconds,
        }
        for number, (seconds, loss) in enumerate(row["curve"])
    ]
    points[-1] |= {
        "step": row["steps"],
        "test loss": row["test"],
        "drift": row["drift"],
        "recall": row.get("recall"),
        "style distance": row.get("distance"),
        "stacking": row.get("stacking"),
    }
    model = model_of(row)
    return {
        "run_info": {
            "created_at": row.get("created_at", ""),
            "total_time": row["curve"][-1][0],
            "experiment_name": f"{row['method']}/{model}-{style}",
            "peft_branch": "main",
            "train_config": {
                "model_id": model,
                "dataset_id": f"{style}, {images} images",
                "dtype": DTYPES[row.get("precision", "fp32")],
                "batch_size": row.get("batch", 4),
                "max_steps": row["steps"],
                "seed": seed,
                "optimizer_type": row.get("optimiser", "AdamW"),
                "optimizer_kwargs": {"lr": row["rate"]},
            },
            "peft_config": None,
            "error_msg": "",
        },
        "train_info": {
            "accelerator_memory_max": row.get("memory"),
            "train_time": row["curve"][-1][0],
            "file_size": row["parameters"] * 2,
            "num_trainable_params": row["parameters"],
            "num_total_params": row.get("total"),
            "status": "success",
            "metrics": points,
        },
        "meta_info": {
            "package_info": {f"{name}-version": _version(name) for name in PACKAGES},
            "system_info": {"system": platform.system(), "accelerator": device_of(row)},
            "pytorch_info": torch.__config__.show(),
        },
    }


def model_of(row: dict[str, Any]) -> str:
    """The model that a row was measured on; rows of earlier versions have no name for it."""
    return str(row.get("model", "miniature"))


def device_of(row: dict[str, Any]) -> str:
    """The kind of device that a row was measured on."""
    return str(row.get("device", "cpu"))


DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
PACKAGES = ("hypernetworks", "transformers", "peft", "diffusers", "torch")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
