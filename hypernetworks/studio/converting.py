"""Networks turned into LoRAs, checkpoints and other networks, with the model that is loaded."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..conversion import Base, Converted, Weighted, bake, to_lora
from ..conversion.extracting import from_checkpoints, from_lora
from ..conversion.merging import merge, resize
from ..engine.multiplier import Multiplier
from ..engine.network import Hypernetwork
from ..errors import CheckpointError, FileWriteError, HypernetworkError
from ..files import read, write
from ..hosts.diffusers import MINIATURE, MINIATURE_NETWORKS
from ..miniature.subjects import captions
from . import zipping
from .cards import checked_name, own_folder
from .job_queue import InterruptedJobError, Update

if TYPE_CHECKING:
    from ..hosts.diffusers import Painter
    from ..hosts.diffusers.conversion import Fitted

LORA, BAKE, MERGE, SMALLER = "LoRA", "Baked checkpoint", "One network", "Smaller network"
EXTRACT, TUNED = "Network from a LoRA", "Network from a fine-tuned checkpoint"
KINDS = (LORA, BAKE, MERGE, SMALLER, EXTRACT, TUNED)
_Tell = Callable[[Update], None]


@dataclass(frozen=True)
class Order:
    """What the Convert tab was asked for.

    Attributes:
        kind: one of :data:`KINDS`.
        name: of the new file, without suffix.
        networks: names in the library, in the order of application.
        multipliers: one for each network; one for all, or none for 1.
        layout: of a LoRA.
        prompts: that a LoRA is fitted to, where a network isn't linear.
        training_steps: how long such a LoRA is trained; 0 for least squares alone.
        source: a LoRA or a fine-tuned checkpoint, to extract a network from.
        hidden: hidden units of a smaller network, in multiples of the context width.
    """

    kind: str
    name: str
    networks: tuple[str, ...] = ()
    multipliers: tuple[str, ...] = ()
    layout: str = "kohya"
    prompts: tuple[str, ...] = ()
    training_steps: int = 0
    source: Path | None = None
    hidden: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        path: the new file.
        messages: what to tell.
        sheet: images of a measurement, side by side, or ``None``.
    """

    path: Path
    messages: list[str] = field(default_factory=list)
    sheet: Path | None = None


def convert(
    painter: Painter, order: Order, folder: Path, tell: _Tell, cancelled: threading.Event
) -> Outcome:
    """Do what was asked for. A job of the queue.

    Args:
        folder: for files that aren't networks. Networks are added to the library.

    Raises:
        InterruptedJobError: it was cancelled, and nothing was written.
        HypernetworkError: it can't be done; says why.
    """
    name = order.name.strip()
    checked_name(f"{name}.safetensors")
    # a folder for each, so that the name can be plain and yet never taken
    target = Path(tempfile.mkdtemp(prefix=time.strftime("%H%M%S-"), dir=folder)) / name
    target = target.with_name(f"{name}.safetensors")
    told = _teller(tell, cancelled)
    if order.kind in (EXTRACT, TUNED):
        return _extract(painter, order, name, told)

    networks = _networks(painter, order)
    if order.kind in (MERGE, SMALLER):
        return _made(painter, order, name, networks)
    if order.kind == BAKE:
        return _bake(painter, networks, target, told)
    return _lora(painter, order, networks, target, told, cancelled)


def _teller(tell: _Tell, cancelled: threading.Event) -> Callable[[str, int, int], None]:
    def told(note: str, done: int, total: int) -> None:
        if cancelled.is_set():
            raise InterruptedJobError
        tell(Update(done, total, note))

    return told


def _networks(painter: Painter, order: Order) -> list[Weighted]:
    if not order.networks:
        raise HypernetworkError("no network is chosen: choose at least one")

    multipliers = order.multipliers or ("1",)
    if len(multipliers) == 1:
        # One multiplier is meant for all networks.
        multipliers *= len(order.networks)
    if len(multipliers) != len(order.networks):
        raise HypernetworkError(
            f"multipliers and networks don't match ({len(multipliers)} and {len(order.networks)}): "
            "write a multiplier for each network, or one for all"
        )

    return [
        Weighted(read(painter.library.find(name).path), Multiplier.parse(multiplier))
        for name, multiplier in zip(order.networks, multipliers, strict=True)
    ]


def _made(painter: Painter, order: Order, name: str, networks: Sequence[Weighted]) -> Outcome:
    """A network made of others, in the library."""
    if order.kind == MERGE:
        merged = merge(name, networks)
        return _added(painter, merged.network, [merged.verdict])

    if len(networks) > 1:
        raise HypernetworkError("several networks are chosen: choose the one to make smaller")
    if not 1e-4 <= order.hidden <= 8:
        raise HypernetworkError("hidden units must be between 0.0001 and 8: write 0.1, for example")
    resized = resize(networks[0].network, order.hidden)
    resized.network.name = name
    return _added(painter, resized.network, [resized.left_out])


def _extract(
    painter: Painter, order: Order, name: str, told: Callable[[str, int, int], None]
) -> Outcome:
    if order.source is None:
        raise HypernetworkError(
            "there is no file: drop a .safetensors file on the field, or name one of this machine"
        )

    def on_progress(done: int, total: int) -> None:
        told("Extracting …", done, total)

    with Base(_checkpoint(painter)) as base:
        if order.kind == EXTRACT:
            found = from_lora(name, order.source, base, on_progress=on_progress)
        else:
            with Base(order.source) as tuned:
                found = from_checkpoints(name, tuned, base, on_progress=on_progress)
    return _added(painter, found.network, [found.verdict])


def _bake(
    painter: Painter,
    networks: Sequence[Weighted],
    target: Path,
    told: Callable[[str, int, int], None],
) -> Outcome:
    source = _checkpoint(painter)
    is_folder = source.is_dir()
    if is_folder and zipping.size(source) > zipping.LARGEST:
        raise CheckpointError(
            "the model is a large folder, and only a file can be downloaded: use the command "
            "`python -m hypernetworks bake`"
        )

    made = target.with_suffix("") if is_folder else target
    with Base(source) as base:
        count = bake(
            base,
            networks,
            made,
            on_progress=lambda *at: told("Baking …", *(n >> 20 for n in at)),
        )
    if not is_folder:
        return Outcome(target, [f"{count} tensors changed"])

    return Outcome(
        zipping.zipped(made), [f"{count} tensors changed", "unpack it, and load the folder"]
    )


def _lora(
    painter: Painter,
    order: Order,
    networks: Sequence[Weighted],
    target: Path,
    told: Callable[[str, int, int], None],
    cancelled: threading.Event,
) -> Outcome:
    with Base(_checkpoint(painter)) as base:
        if all(weighted.network.structure.is_linear for weighted in networks):
            done = to_lora(
                base,
                networks,
                target,
                layout=order.layout,
                on_progress=lambda *at: told("Converting …", *at),
            )
            return Outcome(target, [_size(done)])
        fitted = _fitted(painter, base, order, networks, target, told, cancelled)

    from ..hosts.diffusers.conversion import save_sheet

    sheet = target.with_suffix(".sheet.png")
    save_sheet(fitted.strips, sheet)
    return Outcome(target, [*fitted.said(), _size(fitted.converted)], sheet)


def _fitted(
    painter: Painter,
    base: Base,
    order: Order,
    networks: Sequence[Weighted],
    target: Path,
    told: Callable[[str, int, int], None],
    cancelled: threading.Event,
) -> Fitted:
    """A LoRA fitted to images; a training that is cancelled ends early, and is written."""
    from ..hosts.diffusers.conversion import Sampling, Training, fit_lora

    training = Training(steps=order.training_steps) if order.training_steps else None
    sampling = Sampling(
        order.prompts if any(order.prompts) else _usual_prompts(painter),
        cfg=painter.default_cfg,
        multipliers=(1.0,) if training else (1.0, 0.5),
    )

    def on_progress(done: int, total: int) -> None:
        if training is not None and cancelled.is_set():
            return  # what it has learned is measured and written
        told("Fitting the LoRA …", done, total)

    return fit_lora(
        painter.pipeline,
        base,
        networks,
        target,
        sampling,
        layout=order.layout,
        training=training,
        on_progress=on_progress,
        stop=cancelled.is_set,
    )


def _usual_prompts(painter: Painter) -> list[str]:
    """Where the user has written none."""
    if painter.checkpoint is None:
        return captions()
    from ..hosts.diffusers.conversion import general_prompts

    return general_prompts()


def _checkpoint(painter: Painter) -> Path:
    return painter.checkpoint or MINIATURE


def _size(done: Converted) -> str:
    return f"{done.bytes / 2**20:.1f} MiB"


def _added(painter: Painter, network: Hypernetwork, messages: list[str]) -> Outcome:
    """Write a network into the library's own folder, where nothing is replaced."""
    import torch

    folder = own_folder(painter.library, MINIATURE_NETWORKS)
    if folder is None:
        raise FileWriteError(
            "the library has no folder of yours: start the studio with --hypernetworks FOLDER"
        )
    path = folder / f"{network.name}.safetensors"
    # whoever has the page must not replace what others have there
    if path.exists():
        raise FileWriteError(f"{path.name} already exists: choose another name")

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileWriteError(f"{folder} can't be created ({error.strerror or error})") from error
    network.to("cpu", torch.float16)
    write(network, path)
    painter.library.scan()
    return Outcome(path, [*messages, f"added to the library: {network.name}"])
