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
from ..conversion.extracting import from_lora
from ..conversion.merging import merge
from ..engine.multiplier import Multiplier
from ..engine.network import Hypernetwork
from ..errors import CheckpointError, FileWriteError, HypernetworkError
from ..files import read, write
from ..hosts.diffusers import MINIATURE, MINIATURE_NETWORKS
from .cards import checked_name, own_folder
from .job_queue import InterruptedJobError, Update

if TYPE_CHECKING:
    from ..hosts.diffusers import Painter
    from ..hosts.diffusers.conversion import Fitted

LORA, BAKE, MERGE, EXTRACT = "LoRA", "Baked checkpoint", "One network", "Network from a LoRA"
KINDS = (LORA, BAKE, MERGE, EXTRACT)
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
        lora: a file to extract a network from.
    """

    kind: str
    name: str
    networks: tuple[str, ...] = ()
    multipliers: tuple[str, ...] = ()
    layout: str = "kohya"
    prompts: tuple[str, ...] = ()
    training_steps: int = 0
    lora: Path | None = None


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
    if order.kind == EXTRACT:
        return _extract(painter, order, name, told)

    networks = _networks(painter, order)
    if order.kind == MERGE:
        made = merge(name, networks)
        return _added(painter, made.network, [made.verdict])
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
        multipliers *= len(order.networks)
    if len(multipliers) != len(order.networks):
        raise HypernetworkError(
            f"there are {len(order.networks)} networks and {len(multipliers)} multipliers: write "
            "one for each, or one for all"
        )
    return [
        Weighted(read(painter.library.find(name).path), Multiplier.parse(multiplier))
        for name, multiplier in zip(order.networks, multipliers, strict=True)
    ]


def _extract(
    painter: Painter, order: Order, name: str, told: Callable[[str, int, int], None]
) -> Outcome:
    if order.lora is None:
        raise HypernetworkError("there is no LoRA: drop a .safetensors file on the field")
    with Base(_checkpoint(painter)) as base:
        found = from_lora(name, order.lora, base, on_progress=lambda *at: told("Extracting …", *at))
    words = (
        f"the network has {found.share:.1%} of the change of to_k and to_v, which is "
        f"{found.inside:.1%} of all"
    )
    return _added(painter, found.network, [f"poor: {words}" if found.is_poor else words])


def _bake(
    painter: Painter,
    networks: Sequence[Weighted],
    target: Path,
    told: Callable[[str, int, int], None],
) -> Outcome:
    source = _checkpoint(painter)
    if source.is_dir():
        raise CheckpointError(
            "the model is a folder, and only a file can be downloaded: use the command "
            "`python -m hypernetworks bake`"
        )
    with Base(source) as base:
        count = bake(
            base,
            networks,
            target,
            on_progress=lambda *at: told("Baking …", *(n >> 20 for n in at)),
        )
    return Outcome(target, [f"{count} tensors changed"])


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
    said = [
        f"{share:.1%} of the effect on the images at {factor:g}, on prompts kept out of the fit"
        for factor, share in fitted.shares.items()
    ]
    return Outcome(target, [*said, _size(fitted.converted)], sheet)


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
        order.prompts,
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
