"""Hypernetworks against other adapters: ``python -m benchmarks.adapters [IMAGES …]``.

Every method learns the same images in the same order, with the same noise and time steps, on the
same frozen model, for the same number of samples, by AdamW with the same schedule; two rows have
``train``'s ScheduleFreeAdamW, and are named so. Sizes follow the model, and are as near to the
hypernetwork's as a method allows; the table has what they are. LoRA, LoKr, OFT and IA3 are peft's,
on the same projections (``to_k`` and ``to_v``): ``pip install "hypernetworks[peft,build]"``.

Without folders of images, the miniature learns its own renderings. With folders, they are read as
``train`` reads them, captions and kohya's sub-folders included, and ``--checkpoint`` names the
model.

Measured are: the loss of the last weights on images that nothing was learned from; that loss at
equal time, which is that of the fastest method; how much predictions for images that are not in the
style change (drift, as a share of what they change for images in the style); how far an image with
the adapter and a second style, each at half strength, is from the sum of what the two change alone
(stacking, as a share of that sum); time per step and per image; size. On the miniature, where it is
known how an image should look, also: the share of images that are nearest to the rendering of their
own subject in the style among all 266 (recall of words), and their distance to it.

Finished rows stand in ``adapters.jsonl``; started again, the benchmark goes on with what is
missing. ``--table`` only prints what is there, as docs/benchmark.md has it. ``--report`` chooses
where the curves, a sheet of images, and a file per row in the format of peft's
``method_comparison/image-gen/results`` are written.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import hypernetworks as hn
from hypernetworks.cli.model import add_checkpoint, add_device, add_prediction, load_painter
from hypernetworks.cli.values import size
from hypernetworks.console import pasted_path
from hypernetworks.devices import PRECISIONS, choose_device, default_dtype
from hypernetworks.errors import HypernetworkError

from ..styled import Cell
from .folder import FolderTask
from .measuring import loss_at, measured
from .methods import Method, Sizes, methods
from .miniature import MiniatureTask
from .report import images_file, table, write_report
from .task import Task

OWN_SEED = 100
"""Of the search for rates, so that no rate is chosen on a cell of the table."""
MOST_TRIED = 8
"""Rates per method in a search."""
OF_FOLDERS = ("checkpoint", "device", "precision", "prediction", "size", "validation", "second")
OF_MINIATURE = ("styles", "images")
NAMES = {dtype: name for name, dtype in PRECISIONS.items()}


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.adapters",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "folders",
        type=pasted_path,
        nargs="*",
        metavar="IMAGES",
        help="folders of images, or of sub-folders named 10_name, with captions in .txt files or "
        "file names (default: the miniature's renderings)",
    )
    add_checkpoint(made)
    add_prediction(made)
    add_device(made, precision=False)
    made.add_argument(
        "--precision",
        choices=("fp32", "fp16", "bf16"),
        help="what training computes in (default: fp32 on the CPU, fp16 elsewhere)",
    )
    made.add_argument("--size", type=size, help="of the images (default: the model's own)")
    made.add_argument(
        "--validation",
        type=float,
        help="share of the images that the loss is measured on (default: 0.1)",
    )
    made.add_argument(
        "--second",
        type=pasted_path,
        metavar="FILE",
        help="hypernetwork to stack with each method (default: stacking isn't measured)",
    )
    made.add_argument("--styles", nargs="+", help="of the renderings (default: night sepia ink)")
    made.add_argument("--images", type=int, help="number of renderings (default: 24)")
    made.add_argument("--seeds", type=int, default=1, help="how many, from 0")
    made.add_argument("--epochs", type=float, default=30)
    made.add_argument("--batch", type=int, default=4)
    made.add_argument("--only", nargs="+", help="beginnings of methods' names")
    made.add_argument(
        "--search",
        action="store_true",
        help="instead, look for each method's best rate, in steps of a factor of two and with a "
        "seed of its own, and write rates.jsonl",
    )
    made.add_argument(
        "--rates",
        type=pasted_path,
        metavar="FILE",
        help="a search's rates.jsonl: each method gets the best of its rates there",
    )
    made.add_argument("--build", type=pasted_path, help="folder for rows (default: build/…)")
    made.add_argument("--table", action="store_true", help="only print what is there")
    made.add_argument(
        "--report",
        type=pasted_path,
        help="folder for the curves, the sheet of images and the results as peft has them",
    )
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    made = parser()
    options = made.parse_args(arguments)
    unused = OF_MINIATURE if options.folders else OF_FOLDERS
    if typed := [f"--{name}" for name in unused if getattr(options, name) is not None]:
        kind = "without folders" if options.folders else "with folders"
        made.error(f"{', '.join(typed)}: only {kind} of images")

    options.build = options.build or _usual_build(options)
    path = options.build / "adapters.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if not options.table:
        try:
            options.build.mkdir(parents=True, exist_ok=True)
            run(_task(options), options, rows, path)
        except HypernetworkError as error:
            raise SystemExit(f"benchmarks.adapters: {error}") from error
        if options.search:
            return
    write_report(rows, options.build, options.report or options.build)
    print(table(rows))


def _usual_build(options: argparse.Namespace) -> Path:
    """A folder for each model and each folder of images, so that their rows don't mix."""
    if not options.folders:
        return Path("build/sweep")
    model = "miniature" if options.checkpoint is None else options.checkpoint.stem
    return (
        Path("build/adapters")
        / model
        / "+".join(folder.resolve().name for folder in options.folders)
    )


def _task(options: argparse.Namespace) -> Task:
    """What is compared on.

    Raises:
        HypernetworkError: the model, the images or the second network can't be used.
    """
    if not options.folders:
        return MiniatureTask(options.build, options.batch)

    options.device = choose_device(options.device)
    is_cpu = options.device == "cpu"
    precision = options.precision or NAMES[default_dtype(options.device)]
    # On the CPU, training converts what it computes in bf16 itself, and generates in fp32.
    options.weights, options.hypernetworks = "fp32" if is_cpu else precision, []
    second = None if options.second is None else hn.read(options.second)
    return FolderTask(
        load_painter(options),
        options.folders,
        options.build,
        size=options.size,
        precision=precision,
        batch=options.batch,
        validation=0.1 if options.validation is None else options.validation,
        second=second,
    )


def _cells(task: Task, options: argparse.Namespace) -> list[Cell]:
    """Of each seed, all styles."""
    seeds = [OWN_SEED] if options.search else range(options.seeds)
    if isinstance(task, FolderTask):
        return [replace(task.cell, seed=seed) for seed in seeds]
    styles, images = options.styles or ["night", "sepia", "ink"], options.images or 24
    return [Cell(style, images, seed) for seed in seeds for style in styles]


def _chosen(task: Task, options: argparse.Namespace) -> list[Method]:
    """The methods that were asked for, all without a wish.

    Raises:
        HypernetworkError: a package is missing; said before the first row.
    """
    beginnings = tuple(options.only or ("",))
    found = [m for m in methods(Sizes.of(task.pipeline.unet)) if m.name.startswith(beginnings)]
    wanted = ["matplotlib"] + ["peft"] * any(method.needs_peft for method in found)
    if missing := [name for name in wanted if find_spec(name) is None]:
        raise HypernetworkError(
            f'{", ".join(missing)} is missing: pip install "hypernetworks[peft,build]"'
        )
    return found


def run(task: Task, options: argparse.Namespace, rows: list[dict[str, Any]], path: Path) -> None:
    """Add the missing rows to a list and to its file, or search for rates.

    Raises:
        HypernetworkError: the file has rows that these can't be compared with.
    """
    chosen, cells = _chosen(task, options), _cells(task, options)
    if options.search:
        _search(task, chosen, cells[0], options)
        return

    _check_rows(task, options, rows, path)
    rates = _best_rates(options.rates)
    known = {(row["method"], *row["cell"]) for row in rows}
    for cell in cells:
        for method in chosen:
            if (method.name, cell.style, cell.images, cell.seed) in known:
                continue
            rate = rates.get(method.name, method.rate * task.rate_factor)
            row, images = measured(task, method, cell, options.epochs, rate)
            row["created_at"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
            kept = images_file(path.parent, method.name, cell.style, cell.seed)
            np.save(kept, (images * 255).round().astype(np.uint8))
            rows.append(row)
            _append(path, row)
            print({k: v for k, v in row.items() if k not in ("curve", "captions")}, flush=True)


def _check_rows(
    task: Task, options: argparse.Namespace, rows: Sequence[dict[str, Any]], path: Path
) -> None:
    wanted = {**task.described(), "epochs": options.epochs}
    for row in rows:
        if other := [f"{k} {row[k]}" for k, v in wanted.items() if k in row and row[k] != v]:
            raise HypernetworkError(
                f"{path} has rows of another comparison ({', '.join(other)}): choose another "
                "--build, or the same options"
            )


def _best_rates(path: Path | None) -> dict[str, float]:
    """By method, the rate of the lowest loss of a search."""
    lines = [] if path is None else path.read_text(encoding="utf-8").splitlines()
    found: dict[str, tuple[float, float]] = {}
    for name, rate, loss in map(json.loads, lines):
        found[name] = min(found.get(name, (math.inf, rate)), (_finite(loss), rate))
    return {name: rate for name, (_, rate) in found.items()}


def _search(task: Task, chosen: Sequence[Method], cell: Cell, options: argparse.Namespace) -> None:
    """Print, and keep in ``rates.jsonl``, the loss of each method at other rates, until both
    neighbours of its best one are worse.
    """
    path = options.build / "rates.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for method in chosen:
        rows = map(json.loads, lines)
        tried = {rate: loss for name, rate, loss in rows if name == method.name}
        while rate := next_rate(tried, method.rate * task.rate_factor):
            tried[rate] = loss_at(task, method, rate, cell, options.epochs)
            _append(path, row := [method.name, rate, tried[rate]])
            print(json.dumps(row), flush=True)


def next_rate(tried: Mapping[float, float], first: float) -> float | None:
    """The rate to try after these, whose losses are known; ``None`` where the best is found."""
    if not tried:
        return first
    best = min(tried, key=lambda rate: _finite(tried[rate]))
    if len(tried) >= MOST_TRIED:
        return None
    if best == max(tried) and math.isfinite(tried[best]):
        return best * 2
    return best / 2 if best == min(tried) else None


def _finite(loss: float) -> float:
    """A run that went wrong is the worst."""
    return loss if math.isfinite(loss) else math.inf


def _append(path: Path, row: Any) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
